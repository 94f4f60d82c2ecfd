"""Test pictures to try a network with."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ramify.answer.answerer import Answerer
from ramify.answer.picture import Pictures
from ramify.config.read import read_config
from ramify.data.cache import cache_folder
from ramify.data.fetch import FILES
from ramify.errors import RamifyError
from ramify.run.evaluate import to_float
from ramify.run.folder import CONFIG
from ramify.run.pictures import Parts, parts_of_run

_LOOKED_AT = 400


@dataclass(frozen=True)
class Sample:
    """A picture to try: its PNG file, and the class that its source says it shows."""

    png: bytes
    label: str


def png_of(picture: Pictures) -> bytes:
    """A picture float32 ``[C, H, W]`` in [0, 1] as a PNG file, gray or RGB.

    Example:
        >>> png_of(np.zeros((1, 8, 8), np.float32))[1:4]
        b'PNG'
    """
    pixels = np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


def pictures_to_try(run: Path, network: Answerer, wanted: int) -> tuple[Sample, ...]:
    """Up to ``wanted`` test pictures of a run that between them leave at every exit, as many classes as possible.

    Only pictures that are at hand are taken: nothing is fetched, and where the source is gone there are none.

    Args:
        run: the folder of the run.
        network: who answers; its pictures' shape is taken.
        wanted: how many.
    """
    found = pictures_at_hand(run, network.input_shape) if wanted else None
    if found is None:
        return ()
    images = to_float(found.test[:_LOOKED_AT].images).numpy()
    if not len(images):
        return ()
    labels = [found.classes[label] for label in found.test.labels[:_LOOKED_AT].tolist()]
    exits = network.answer(images).exits.tolist()
    chosen = sorted(_spread(exits, labels, wanted), key=lambda at: (exits[at], labels[at]))
    return tuple(Sample(png_of(images[at]), labels[at]) for at in chosen)


def pictures_at_hand(run: Path, shape: tuple[int, int, int]) -> Parts | None:
    """The pictures of ``run``, in their parts, made ``shape`` (C, H, W); None where it is gone or was never fetched."""
    try:
        config = read_config([run / CONFIG])
        return parts_of_run(run, config, shape=shape)[0] if _at_hand(config.data.source) else None
    except RamifyError:
        return None


def _at_hand(source: str) -> bool:
    files = FILES.get(source, ())
    return all((cache_folder() / "files" / source / file.name).exists() for file in files)


def _spread(exits: list[int], labels: list[str], wanted: int) -> Iterator[int]:
    """Indices in turn from each exit, a class that was not yet taken before one that was."""
    left: dict[int, list[int]] = {at: [] for at in sorted(set(exits))}
    for index, at in enumerate(exits):
        left[at].append(index)
    taken: dict[str, int] = {}
    for _ in range(min(wanted, len(exits))):
        # The exit that has given least so far, of those that have something left.
        at = min((each for each in left if left[each]), key=lambda each: (exits.count(each) - len(left[each]), each))
        index = min(left[at], key=lambda each: (taken.get(labels[each], 0), each))
        left[at].remove(index)
        taken[labels[index]] = taken.get(labels[index], 0) + 1
        yield index
