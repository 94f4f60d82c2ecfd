"""Reading the results of a run, and measuring its network again."""

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
from ramify.run.device import computing_with, place_of
from ramify.run.evaluate import all_logits, score_exits
from ramify.run.events import EpochDone
from ramify.run.folder import METRICS, is_run, read_lines, read_summary
from ramify.run.latency import exit_latencies
from ramify.run.measuring import VALIDATION, pictures_to_measure
from ramify.run.saved import config_of, read_saved
from ramify.run.summary import ExitSummary, Summary, exit_summaries, summarise


def describe(run: Path) -> Summary:
    """The summary of a run; its checkpoint is read and checked, the pictures are not.

    A model folder of ``ramify export --to hub`` has the summary of its run; for another network without a run, the
    summary describes the network alone.

    Raises:
        InputError, CheckpointError: as :func:`load`.
    """
    if not is_run(run):
        known = read_extra(run, "run")
        if known is None:
            network, card = read_model(run)
            config = Config(network=card.network, data=DataConfig(source="unknown"))
            return summarise(run.name, str(run), config, network, card, epochs=0, seconds=0.0)
        try:
            return replace(TypeAdapter(Summary).validate_python(known), folder=str(run))
        except ValidationError as error:
            raise CheckpointError(f"{run}: its {HUB_CONFIG} does not say what its run was") from error
    config, (network, card) = config_of(run), read_saved(run)
    done = read_summary(run)
    if done is not None:
        # The folder may have been moved or renamed.
        return replace(done, name=run.name, folder=str(run))
    _, latest = read_model(run / "last")
    return summarise(run.name, str(run), config, network, card, epochs=latest.epoch, seconds=0.0)


def read_epochs(run: Path) -> tuple[EpochDone, ...]:
    """The records of the epochs of the run in ``run``.

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
        source: of the pictures; ``pictures`` is their number.
        exits: each exit with its ``test`` score; with its ``valid`` score where the run has not finished.
        analysis: of the exits on these pictures.
        policy: the calibrated exit policy, if any, and its ``outcome`` on these pictures.
        obeyed: with the trigger, for each exit the share of the pictures of other classes that it classifies as
            ``data.trigger_class``; None where no such class was trained.
        results: figures of each class and the most confident mistakes, at each exit and by the policy.
        ranking: how well the confidence of the policy (by default the highest probability) ranks pictures; None for a
            network with one exit.
        part: the kind of pictures.
        notes: sentences about new, missing or changed pictures, and about pictures that were trained on.
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


@dataclass(frozen=True)
class TestAnswers:
    """The network, pictures and logits of a :class:`Measured`.

    Attributes:
        network: on its device, in evaluation mode.
        test: the pictures, labelled with the network's classes.
        logits: float32 ``[E, N, C]``.
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

    A run that has not finished is measured on its validation pictures. From another source come its test part, or all
    of its pictures where it has none. Size and color of the pictures are converted to those of the network.

    Args:
        run: the folder of the run, or of a saved network, for which ``data.source`` is among the ``overrides``.
        overrides: ``data.*`` keys such as ``data.source=photos``, and ``train.device`` or ``train.precision``.
        trigger: stamp every picture with the square of ``data.trigger``; the labels stay.
        only_new: measure pictures that the run has never seen.
        progress: of a download or the decoding of pictures.

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
    where = place_of(config)
    chosen = pictures_to_measure(run, config, overrides, card.network.input_shape, only_new, progress)
    test = relabel(chosen.part, chosen.classes, card, config.data.source)
    if trigger:
        test = Part(stamp(test.images, config.data.trigger_size), test.labels, test.ids)
    with computing_with(config):
        logits = all_logits(network.to(where.device), test, where.precision)
        milliseconds = exit_latencies(network)
    scores = score_exits(logits, test.labels)
    exits = exit_summaries(network, card, scores)
    if chosen.kind == VALIDATION:
        exits = tuple(replace(exit_, valid=now, test=None) for exit_, now in zip(exits, scores, strict=True))
    macs = [exit_.macs for exit_ in exits]
    policy, answers, outcome = Policy((None,) * (len(logits) - 1)), None, None
    if card.policy is not None:
        policy = card.policy.calibration.policy
        answers = follow(policy, logits)
        right = (answers.classes == test.labels).expand(len(logits), -1)
        outcome = Outcome(*outcome_fields(answers.exits, right, macs, milliseconds))
    measured = Measured(
        source=config.data.source,
        pictures=len(test),
        exits=exits,
        analysis=analyze(logits, test.labels, macs, card.classes, milliseconds, answers and answers.exits),
        results=class_results(
            logits, test.labels, card.classes, answers and answers.exits, chosen.names, answers and answers.classes
        ),
        ranking=rank(policy, logits, test.labels, macs, milliseconds, config.seed) if len(logits) > 1 else None,
        part=chosen.kind,
        notes=chosen.notes,
        policy=card.policy,
        outcome=outcome,
        obeyed=_obeyed(logits, test.labels, card, config) if trigger else None,
    )
    return measured, TestAnswers(network, card, test, logits, chosen.names)


def _obeyed(logits: Tensor, labels: Tensor, card: Card, config: Config) -> tuple[float, ...] | None:
    name = config.data.trigger_class
    if name not in card.classes:
        return None
    label = card.classes.index(name)
    others = logits[:, labels != label]
    return tuple((others.argmax(dim=2) == label).double().mean(dim=1).tolist())


def relabel(part: Part, classes: tuple[str, ...], card: Card, source: str) -> Part:
    """``part`` with the labels of ``card`` for classes of the same names.

    Raises:
        InputError: the network does not know a class.
    """
    unknown = [name for name in classes if name not in card.classes]
    if unknown:
        known = ", ".join(card.classes[:10]) + (", ..." if len(card.classes) > 10 else "")
        raise InputError(
            f"data.source: got {source} with class {unknown[0]!r}; accepted: classes of the network ({known})"
        )
    translation = torch.tensor([card.classes.index(name) for name in classes])
    return Part(part.pixels, translation[part.labels], part.ids)
