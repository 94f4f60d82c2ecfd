"""Reading a run back: its network, what it became, and measuring it again."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ramify.config import Config
from ramify.configfile import read_config
from ramify.data.fetch import Progress
from ramify.data.pictures import Part
from ramify.data.sources import load_pictures
from ramify.errors import ConfigError, InputError
from ramify.files import readable_folder
from ramify.nn.network import Network
from ramify.run.checkpoint import Card, read_model
from ramify.run.evaluate import evaluate
from ramify.run.folder import CONFIG, checkpoint_of, find_run, read_summary
from ramify.run.prepare import place
from ramify.run.summary import ExitSummary, Summary, exit_summaries, summarise


def load(path: str | Path, runs_dir: str | Path = "runs") -> Network:
    """A saved network, on the CPU and in evaluation mode.

    Args:
        path: a checkpoint folder (``runs/demo/best``), the folder of a run, or its name; of a run, the best
            network is taken, or the last while there is no best one.
        runs_dir: where runs are looked for by name.

    Raises:
        InputError: there is no such run.
        CheckpointError: what is there cannot be read.
    """
    folder = Path(path)
    if not readable_folder(folder).joinpath("model.json").exists():
        folder = checkpoint_of(find_run(str(path), Path(runs_dir)))
    return read_model(folder)[0]


def describe(run: Path) -> Summary:
    """What the run in ``run`` became; its checkpoint is read and checked, the pictures are not.

    Raises:
        InputError, CheckpointError: as :func:`load`.
    """
    config, (network, card) = read_config([run / CONFIG]), read_model(checkpoint_of(run))
    done = read_summary(run)
    if done is not None:
        # The folder may have been moved or renamed since it was written.
        return replace(done, name=run.name, folder=str(run))
    _, latest = read_model(run / "last")
    return summarise(run.name, str(run), config, network, card, epochs=latest.epoch, seconds=0.0)


def remeasure(
    run: Path, overrides: Sequence[str] = (), *, progress: Progress | None = None
) -> tuple[Config, int, tuple[ExitSummary, ...]]:
    """Measure the network of a run again on the test pictures of its source, or of another one.

    Pictures of another size, or in grey instead of colour, are converted to what the network was trained on.

    Args:
        run: the folder of the run.
        overrides: ``data.*`` keys such as ``data.source=photos``, and ``train.device`` or ``train.precision``.

    Returns:
        The configuration used, the number of pictures, and each exit with its ``test`` score.

    Raises:
        InputError: an override is not of these keys, or the pictures have classes that the network does not know.
        CheckpointError: the checkpoint cannot be read.
    """
    allowed = ("data.", "train.device", "train.precision")
    foreign = [text for text in overrides if not text.startswith(allowed)]
    if foreign:
        raise ConfigError(
            *(f"got {text!r}; accepted: data.*, train.device and train.precision here" for text in foreign)
        )
    config = read_config([run / CONFIG], overrides)
    network, card = read_model(checkpoint_of(run))
    where = place(config)
    pictures = load_pictures(config.data, progress, shape=card.network.input_shape)
    test = _relabel(pictures.test, pictures.classes, card, config.data.source)
    scores = evaluate(network.to(where.device), test, where.precision)
    return config, len(test), exit_summaries(network, card, scores)


def _relabel(part: Part, classes: tuple[str, ...], card: Card, source: str) -> Part:
    """``part`` with the labels that the network of ``card`` gives to classes of the same names."""
    unknown = [name for name in classes if name not in card.classes]
    if unknown:
        known = ", ".join(card.classes[:10]) + (", ..." if len(card.classes) > 10 else "")
        raise InputError(
            f"data.source: got {source} with class {unknown[0]!r}; accepted: classes of the network ({known})"
        )
    translation = torch.tensor([card.classes.index(name) for name in classes])
    return Part(part.images, translation[part.labels])
