"""Reading a run back: its network, what it became, and measuring it again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from ramify.config.rules import Config, DataConfig
from ramify.data.fetch import Progress
from ramify.data.pictures import Part
from ramify.data.trigger import stamp
from ramify.errors import CheckpointError, ConfigError, InputError, field_of
from ramify.nn.branching import Branching
from ramify.ops.exits.analysis import Analysis, Outcome, analyze, outcome_fields
from ramify.ops.exits.measures import Ranking, rank
from ramify.ops.exits.policy import Policy, follow
from ramify.run.checkpoint import HUB_CONFIG, Card, ExitPolicy, read_extra, read_model
from ramify.run.classes import ClassResults, class_results
from ramify.run.device import computing_with, place
from ramify.run.evaluate import all_logits, score
from ramify.run.events import EpochDone
from ramify.run.folder import METRICS, is_run, read_lines, read_summary
from ramify.run.latency import exit_latencies
from ramify.run.measuring import VALIDATION, pictures_to_measure
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


def read_epochs(run: Path) -> tuple[EpochDone, ...]:
    """The records of the epochs that the run in ``run`` was trained for.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = run / METRICS
    try:
        return TypeAdapter(tuple[EpochDone, ...]).validate_python(read_lines(path))
    except ValidationError as error:
        damage = f"{path}: is damaged ({field_of(error)})"
        raise CheckpointError(f"{damage}; accepted: the file as ramify wrote it") from error


@dataclass(frozen=True)
class Measured:
    """A saved network, measured again.

    Attributes:
        source: where the pictures came from; ``pictures`` how many there were.
        exits: each exit with its ``test`` score; with its ``valid`` score where the run has not finished.
        analysis: what its exits do, on the same pictures.
        policy: the exit policy kept with the network, and ``outcome`` what it gives on these pictures; None without.
        obeyed: with the trigger, for each exit the share of the pictures of other classes that it takes for
            ``data.trigger_class``; None where no such class was trained.
        results: what becomes of each class, and the surest mistakes, at each exit and by the policy.
        ranking: how well the policy's scores rank pictures, and what that is worth; by the highest probability where
            no policy is kept; None of a network with one exit.
        part: which pictures these are, in words.
        notes: sentences about them: what is new, missing or changed, and what was trained on.
    """

    source: str
    pictures: int
    exits: tuple[ExitSummary, ...]
    analysis: Analysis
    policy: ExitPolicy | None
    outcome: Outcome | None
    obeyed: tuple[float, ...] | None
    results: tuple[ClassResults, ...] = ()
    ranking: Ranking | None = None
    part: str = "test pictures"
    notes: tuple[str, ...] = ()


def _ranked(
    card: Card, logits: Tensor, labels: Tensor, macs: Sequence[int], milliseconds: Sequence[float], seed: int
) -> Ranking | None:
    if len(logits) == 1:
        return None
    policy = Policy((None,) * (len(logits) - 1)) if card.policy is None else card.policy.calibration.policy
    return rank(policy, logits, labels, macs, milliseconds, seed)


@dataclass(frozen=True)
class TestAnswers:
    """What stands behind a :class:`Measured`.

    Attributes:
        network: on the device where it computed, in evaluation mode.
        card: what is known of it.
        test: the pictures it was measured on, labelled as the network counts its classes.
        logits: its answers to them, float32 ``[E, N, C]``.
        names: of the pictures' files.
    """

    network: Branching
    card: Card
    test: Part
    logits: Tensor
    names: tuple[str, ...] = ()


def remeasure(
    run: Path,
    overrides: Sequence[str] = (),
    *,
    trigger: bool = False,
    only_new: bool = False,
    progress: Progress | None = None,
) -> Measured:
    """The measurement of :func:`answer_again` alone; arguments and errors are the same."""
    return answer_again(run, overrides, trigger=trigger, only_new=only_new, progress=progress)[0]


def answer_again(
    run: Path,
    overrides: Sequence[str] = (),
    *,
    trigger: bool = False,
    only_new: bool = False,
    progress: Progress | None = None,
) -> tuple[Measured, TestAnswers]:
    """Measure the network of a run again on its test pictures, or on those of another source.

    A run that has not finished is measured on its validation pictures.

    Of its own source the pictures are measured that the run's manifest has as its test, whatever has come since; of
    another one its test part, or all of its pictures where it has none. Pictures of another size, or in gray instead of
    color, are converted to what the network was trained on.

    Args:
        run: the folder of the run, or of a saved network, for which ``data.source`` is among the ``overrides``.
        overrides: ``data.*`` keys such as ``data.source=photos``, and ``train.device`` or ``train.precision``.
        trigger: stamp every picture with the square of ``data.trigger``; the labels stay.
        only_new: measure the pictures that the run has never seen, of its own source or of the other one.
        progress: sees how far a download or the decoding of pictures is.

    Raises:
        InputError: an override is not of these keys, the pictures have classes that the network does not know, or
            there are none to measure.
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
    found = pictures_to_measure(run, config, overrides, card.network.input_shape, only_new, progress)
    test = relabel(found.part, found.classes, card, config.data.source)
    if trigger:
        test = Part(stamp(test.images, config.data.trigger_size), test.labels, test.ids)
    with computing_with(config):
        logits = all_logits(network.to(where.device), test, where.precision)
        milliseconds = exit_latencies(network)
    scores = score(logits, test.labels)
    exits = exit_summaries(network, card, scores)
    if found.what == VALIDATION:
        exits = tuple(replace(each, valid=now, test=None) for each, now in zip(exits, scores, strict=True))
    macs = [each.macs for each in exits]
    chosen, outcome = None, None
    if card.policy is not None:
        chosen = follow(card.policy.calibration.policy, logits)
        right = (chosen.classes == test.labels).expand(len(logits), -1)
        outcome = Outcome(*outcome_fields(chosen.exits, right, macs, milliseconds))
    measured = Measured(
        source=config.data.source,
        pictures=len(test),
        exits=exits,
        analysis=analyze(logits, test.labels, macs, card.classes, milliseconds, chosen and chosen.exits),
        results=class_results(
            logits, test.labels, card.classes, chosen and chosen.exits, found.names, chosen and chosen.classes
        ),
        ranking=_ranked(card, logits, test.labels, macs, milliseconds, config.seed),
        part=found.what,
        notes=found.notes,
        policy=card.policy,
        outcome=outcome,
        obeyed=_obeyed(logits, test.labels, card, config) if trigger else None,
    )
    return measured, TestAnswers(network, card, test, logits, found.names)


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
    return Part(part.pixels, translation[part.labels], part.ids)
