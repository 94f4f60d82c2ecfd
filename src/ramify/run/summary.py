"""The results of a run: the cost of its network, the scores of its exits, what compaction gave, and the machine."""

import hashlib
import itertools
import os
import platform
from dataclasses import dataclass

import torch

from ramify.config.rules import Config
from ramify.nn.branching import Branching
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.ops.cost import cost, stage_density
from ramify.ops.pruning.compact import Compaction
from ramify.run.checkpoint import Card
from ramify.run.evaluate import Score
from ramify.run.latency import Latency, paired_latency
from ramify.version import __version__


@dataclass(frozen=True)
class ExitSummary:
    """The cost (see :class:`ramify.ops.cost.Cost`) and the scores of one exit.

    ``cells`` is 0 in a network that is not made of cells, ``valid`` None without validation pictures, ``test`` None
    before the end of the run.
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
class Receipt:
    """One compaction; a pair is (before, after).

    Attributes:
        density: the fraction of weights kept by the masks.
        removed: channels taken out.
        macs: of each exit, shallowest first.
        flushed: numbers too small for a normal float32 that became 0.
        difference: largest absolute difference of logits between the two networks.
        threads: processor threads of the measurement.
    """

    density: tuple[float, float]
    parameters: tuple[int, int]
    macs: tuple[tuple[int, int], ...]
    removed: int
    flushed: int
    difference: float
    latencies: tuple[Latency, ...]
    threads: int


@dataclass(frozen=True)
class Summary:
    """A run, finished or under way.

    Attributes:
        recipe: a digest of the configuration without seed, name and place.
        parent: the run that it started from.
        layers: the weights of each masked layer, and how many of them are kept.
        epoch: of the network: the best one of a finished run.
        epochs: trained so far, of ``planned_epochs``.
        exits_planned: exits of the grown network.
        seconds: of training and validation, without loading and the final test.
        pictures: for training, validation and test.
        receipt: of the compaction, if any; the network is then the compacted one.
        versions: of ramify, torch and python.
        machine: device, precision, threads and cores.
        flip_test: ``train.flip_test``; MACs are of one pass.
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
    cells = itertools.accumulate(_cells(network))
    return tuple(
        ExitSummary(
            count,
            exit_.parameters,
            exit_.weights,
            exit_.kept,
            exit_.macs,
            valid=card.valid[i] if card.valid else None,
            test=test[i] if test else None,
        )
        for i, (count, exit_) in enumerate(zip(cells, cost(network), strict=True))
    )


def stage_summaries(network: Branching, card: Card) -> tuple[StageSummary, ...]:
    """The stages of ``network``, and when they grew."""
    grown = dict(card.grown)
    return tuple(
        StageSummary(cells, density, grown.get(stage))
        for stage, (cells, density) in enumerate(zip(_cells(network), stage_density(network), strict=True))
    )


def _cells(network: Branching) -> list[int]:
    """The number of cells of each existing stage; 0 in a network that is not made of cells."""
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


def receipt(masked: Branching, compacted: Branching, compaction: Compaction) -> Receipt:
    """The receipt of a compaction, with latencies measured on the device of the networks."""
    before, after = compaction.before, compaction.after
    return Receipt(
        density=(before[-1].density, after[-1].density),
        parameters=(before[-1].parameters, after[-1].parameters),
        macs=tuple((large.macs, small.macs) for large, small in zip(before, after, strict=True)),
        removed=compaction.removed,
        flushed=compaction.flushed,
        difference=compaction.difference,
        latencies=tuple(paired_latency(masked, compacted, batch) for batch in (1, 64)),
        threads=torch.get_num_threads(),
    )


def recipe(config: Config) -> str:
    """A digest of ``config`` without seed, name, place and fold; runs that share it may be averaged.

    Example:
        >>> recipe(Config(seed=1)) == recipe(Config(seed=2)), recipe(Config()) == recipe(Config(runs_dir="elsewhere"))
        (True, True)
    """
    if config.data.fold is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"fold": (1, config.data.fold[1])})})
    text = config.model_dump_json(exclude={"seed", "name", "runs_dir"})
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def describe_machine(device: torch.device, precision: str) -> dict[str, str | int]:
    """The machine of a run, for the record."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {platform.machine()}"
    return {
        "device": name,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.release()}",
    }
