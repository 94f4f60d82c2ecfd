"""Test pictures of a run to try a network with."""

import io
from collections import Counter
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

_SEARCHED = 400


@dataclass(frozen=True)
class Sample:
    """A picture to try: its PNG file and its class."""

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


def pictures_to_try(run: Path, network: Answerer, count: int) -> tuple[Sample, ...]:
    """Up to ``count`` test pictures of a run that together leave at every exit, of as many classes as possible.

    Nothing is downloaded: there are none where the source is not on this machine.
    """
    parts = pictures_at_hand(run, network.input_shape) if count else None
    if parts is None or not len(parts.test):
        return ()
    images = to_float(parts.test[:_SEARCHED].images).numpy()
    labels = [parts.classes[label] for label in parts.test.labels[:_SEARCHED].tolist()]
    exits = network.predict(images).exits.tolist()
    chosen = sorted(_spread(exits, labels, count), key=lambda at: (exits[at], labels[at]))
    return tuple(Sample(png_of(images[at]), labels[at]) for at in chosen)


def pictures_at_hand(run: Path, shape: tuple[int, int, int]) -> Parts | None:
    """The pictures of ``run`` as ``shape`` (C, H, W); None where they are not on this machine."""
    try:
        config = read_config([run / CONFIG])
        source = config.data.source
        if not all((cache_folder() / "files" / source / file.name).exists() for file in FILES.get(source, ())):
            return None
        return parts_of_run(run, config, shape=shape)[0]
    except RamifyError:
        return None


def _spread(exits: list[int], labels: list[str], count: int) -> Iterator[int]:
    """Up to ``count`` indices, from the exits in turn, with the classes taken least often first."""
    rest: dict[int, list[int]] = {at: [] for at in sorted(set(exits))}
    for index, at in enumerate(exits):
        rest[at].append(index)
    of_exits: Counter[int] = Counter()
    of_classes: Counter[str] = Counter()
    for _ in range(min(count, len(exits))):
        at = min((at for at in rest if rest[at]), key=lambda at: (of_exits[at], at))
        index = min(rest[at], key=lambda index: (of_classes[labels[index]], index))
        rest[at].remove(index)
        of_exits[at] += 1
        of_classes[labels[index]] += 1
        yield index
