"""Reading a run back: its network, what it became, and measuring it again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from ramify.config import Config, DataConfig
from ramify.data.fetch import Progress
from ramify.data.pictures import Part
from ramify.data.sources import load_pictures
from ramify.data.trigger import stamp
from ramify.errors import CheckpointError, ConfigError, InputError
from ramify.nn.branching import Branching
from ramify.ops.policy import follow
from ramify.run.analysis import Analysis, Outcome, analyse, outcome_fields
from ramify.run.checkpoint import HUB_CONFIG, Card, ExitPolicy, read_extra, read_model
from ramify.run.evaluate import all_logits, score
from ramify.run.folder import is_run, read_summary
from ramify.run.latency import exit_latencies
from ramify.run.prepare import computing_with, place
from ramify.run.saved import config_of, read_saved
from ramify.run.summary import ExitSummary, Summary, exit_summaries, summarise


def describe(run: Path) -> Summary:
    """What the run in ``run`` became; its checkpoint is read and checked, the pictures are not.

    A model folder of ``ramify export --to hub`` says what its run had become; of a network that no run has made there
    is nothing but the network.

    Raises:
        InputError, CheckpointError: as :func:`load`.
    """
    if not is_run(run):
        known = read_extra(run, "run")
        if known is None:
            network, card = read_model(run)
            bare = Config(network=card.network, data=DataConfig(source="unknown"))
            return summarise(run.name, str(run), bare, network, card, epochs=0, seconds=0.0)
        try:
            return replace(TypeAdapter(Summary).validate_python(known), folder=str(run))
        except ValidationError as error:
            raise CheckpointError(f"{run}: its {HUB_CONFIG} does not say what its run was") from error
    config, (network, card) = config_of(run), read_saved(run)
    done = read_summary(run)
    if done is not None:
        # The folder may have been moved or renamed since it was written.
        return replace(done, name=run.name, folder=str(run))
    _, latest = read_model(run / "last")
    return summarise(run.name, str(run), config, network, card, epochs=latest.epoch, seconds=0.0)


@dataclass(frozen=True)
class Measured:
    """A saved network, measured again.

    Attributes:
        source: where the pictures came from; ``pictures`` how many there were.
        exits: each exit with its ``test`` score.
        analysis: what its exits do, on the same pictures.
        policy: the exit policy kept with the network, and ``outcome`` what it gives on these pictures; None without.
        obeyed: with the trigger, for each exit the share of the pictures of other classes that it takes for
            ``data.trigger_class``; None where no such class was trained.
    """

    source: str
    pictures: int
    exits: tuple[ExitSummary, ...]
    analysis: Analysis
    policy: ExitPolicy | None
    outcome: Outcome | None
    obeyed: tuple[float, ...] | None


@dataclass(frozen=True)
class Answers:
    """What stands behind a :class:`Measured`.

    Attributes:
        network: on the device where it computed, in evaluation mode.
        card: what is known of it.
        test: the pictures it was measured on, labelled as the network counts its classes.
        logits: its answers to them, float32 ``[E, N, C]``.
    """

    network: Branching
    card: Card
    test: Part
    logits: Tensor


def remeasure(
    run: Path, overrides: Sequence[str] = (), *, trigger: bool = False, progress: Progress | None = None
) -> Measured:
    """The measurement of :func:`answer_again` alone; arguments and errors are the same."""
    return answer_again(run, overrides, trigger=trigger, progress=progress)[0]


def answer_again(
    run: Path, overrides: Sequence[str] = (), *, trigger: bool = False, progress: Progress | None = None
) -> tuple[Measured, Answers]:
    """Measure the network of a run again on the test pictures of its source, or of another one.

    Pictures of another size, or in grey instead of colour, are converted to what the network was trained on.

    Args:
        run: the folder of the run, or of a saved network, for which ``data.source`` is among the ``overrides``.
        overrides: ``data.*`` keys such as ``data.source=photos``, and ``train.device`` or ``train.precision``.
        trigger: stamp every picture with the square of ``data.trigger``; the labels stay.
        progress: told how far a download is.

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
    config = config_of(run, overrides)
    network, card = read_saved(run)
    where = place(config)
    pictures = load_pictures(config.data, progress, shape=card.network.input_shape)
    test = relabel(pictures.test, pictures.classes, card, config.data.source)
    images = stamp(test.images, config.data.trigger_size) if trigger else test.images
    with computing_with(config):
        logits = all_logits(network.to(where.device), images, where.precision)
        milliseconds = exit_latencies(network)
    exits = exit_summaries(network, card, score(logits, test.labels))
    macs = [each.macs for each in exits]
    left, outcome = None, None
    if card.policy is not None:
        left = follow(card.policy.calibration.policy, logits).exits
        outcome = Outcome(*outcome_fields(left, logits.argmax(dim=2) == test.labels, macs, milliseconds))
    measured = Measured(
        source=config.data.source,
        pictures=len(test),
        exits=exits,
        analysis=analyse(logits, test.labels, macs, card.classes, milliseconds, left),
        policy=card.policy,
        outcome=outcome,
        obeyed=_obeyed(logits, test.labels, card, config) if trigger else None,
    )
    return measured, Answers(network, card, Part(images, test.labels), logits)


def _obeyed(logits: Tensor, labels: Tensor, card: Card, config: Config) -> tuple[float, ...] | None:
    wanted = config.data.trigger_class
    if wanted not in card.classes:
        return None
    label = card.classes.index(wanted)
    others = logits[:, labels != label]
    return tuple((others.argmax(dim=2) == label).double().mean(dim=1).tolist())


def relabel(part: Part, classes: tuple[str, ...], card: Card, source: str) -> Part:
    """``part`` with the labels that the network of ``card`` gives to classes of the same names.

    Raises:
        InputError: there is a class that the network does not know.
    """
    unknown = [name for name in classes if name not in card.classes]
    if unknown:
        known = ", ".join(card.classes[:10]) + (", ..." if len(card.classes) > 10 else "")
        raise InputError(
            f"data.source: got {source} with class {unknown[0]!r}; accepted: classes of the network ({known})"
        )
    translation = torch.tensor([card.classes.index(name) for name in classes])
    return Part(part.images, translation[part.labels])
