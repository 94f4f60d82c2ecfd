"""What a run came to: what its network costs, how well each exit answers, and what computed it."""

import hashlib
import os
import platform
from dataclasses import dataclass

import torch

from ramify.config.rules import Config
from ramify.nn.branching import Branching
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.ops.cost import cost, stage_density
from ramify.run.checkpoint import Card
from ramify.run.evaluate import Score
from ramify.run.receipt import Receipt
from ramify.version import __version__


@dataclass(frozen=True)
class ExitSummary:
    """One exit: what it costs to answer there (see :class:`ramify.ops.cost.Cost`), and how well it answers.

    ``cells`` is 0 in a network that is not made of cells.
    ``valid`` is None where there are no validation pictures, ``test`` before the run is finished.
    """

    cells: int
    parameters: int
    weights: int
    kept: int
    macs: int
    valid: Score | None
    test: Score | None


@dataclass(frozen=True)
class StageSummary:
    """One stage: its cells, the fraction of weights kept, and the epoch before which it grew (None: from birth)."""

    cells: int
    density: float
    grown: int | None


@dataclass(frozen=True)
class Summary:
    """A run, finished or under way.

    Attributes:
        recipe: the same for runs whose configurations differ in seed, name and place alone.
        parent: the run that it started from.
        layers: for each masked layer by name its weights, and how many of them are kept.
        epoch: the epoch whose network this is: the best one of a finished run.
        epochs: how many were trained; ``planned_epochs`` how many are asked for.
        exits_planned: exits of the network when it has grown.
        seconds: time of training and validation over all epochs, loading and the final test left out.
        pictures: how many were used for training, validation and test.
        receipt: what compaction gave, where it was asked for; the network is then the compacted one.
        versions: of what computed it: ramify, torch, python.
        machine: device, precision, threads and cores.
        flip_test: whether the scores are of the mean logits of each picture and its mirror (``train.flip_test``); MACs
            are of one pass.
    """

    name: str
    folder: str
    seed: int
    kind: str
    source: str
    recipe: str
    parent: str | None
    finished: bool
    epoch: int
    epochs: int
    planned_epochs: int
    exits_planned: int
    seconds: float
    pictures: tuple[int, int, int] | None
    exits: tuple[ExitSummary, ...]
    stages: tuple[StageSummary, ...]
    layers: dict[str, tuple[int, int]]
    receipt: Receipt | None
    versions: dict[str, str]
    machine: dict[str, str | int]
    flip_test: bool = False


def exit_summaries(network: Branching, card: Card, test: list[Score] | None) -> tuple[ExitSummary, ...]:
    """Cost and scores of each exit of ``network``, shallowest first."""
    found: list[ExitSummary] = []
    cells = 0
    for i, (count, each) in enumerate(zip(_cells(network), cost(network), strict=True)):
        cells += count
        valid = card.valid[i] if card.valid else None
        scored = test[i] if test else None
        found.append(ExitSummary(cells, each.parameters, each.weights, each.kept, each.macs, valid, scored))
    return tuple(found)


def stage_summaries(network: Branching, card: Card) -> tuple[StageSummary, ...]:
    """What each stage of ``network`` is, and when it grew."""
    grown = dict(card.grown)
    return tuple(
        StageSummary(cells, density, grown.get(stage))
        for stage, (cells, density) in enumerate(zip(_cells(network), stage_density(network), strict=True))
    )


def _cells(network: Branching) -> list[int]:
    """How many cells each stage has that exists; a module of the user's has none."""
    if not isinstance(network, Network):
        return [0] * len(network.stages)
    return [len(plan.cells) for plan in network.plans[: len(network.stages)]]


def summarise(
    name: str,
    folder: str,
    config: Config,
    network: Branching,
    card: Card,
    *,
    epochs: int,
    seconds: float,
    test: list[Score] | None = None,
    pictures: tuple[int, int, int] | None = None,
    receipt: Receipt | None = None,
    machine: dict[str, str | int] | None = None,
) -> Summary:
    """The summary of ``network``, which ``card`` describes, in the run of ``config``."""
    return Summary(
        name=name,
        folder=folder,
        seed=config.seed,
        kind=config.network.kind,
        source=config.data.source,
        recipe=recipe(config),
        parent=config.parent,
        finished=test is not None,
        epoch=card.epoch,
        epochs=epochs,
        planned_epochs=config.train.epochs,
        exits_planned=config.network.exits,
        seconds=seconds,
        pictures=pictures,
        exits=exit_summaries(network, card, test),
        stages=stage_summaries(network, card),
        layers={name: (layer.mask.numel(), int(layer.mask.sum())) for name, layer in masked_layers(network).items()},
        receipt=receipt,
        versions={"ramify": __version__, "torch": torch.__version__, "python": platform.python_version()},
        machine=machine or {},
        flip_test=config.train.flip_test,
    )


def recipe(config: Config) -> str:
    """A fingerprint of everything in ``config`` but seed, name, place and fold: runs that share it may be averaged.

    Example:
        >>> recipe(Config(seed=1)) == recipe(Config(seed=2)), recipe(Config()) == recipe(Config(runs_dir="elsewhere"))
        (True, True)
    """
    if config.data.fold is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"fold": (1, config.data.fold[1])})})
    text = config.model_dump_json(exclude={"seed", "name", "runs_dir"})
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def describe_machine(device: torch.device, precision: str) -> dict[str, str | int]:
    """What a run computes on, for the record beside its figures."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {platform.machine()}"
    return {
        "device": name,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.release()}",
    }
