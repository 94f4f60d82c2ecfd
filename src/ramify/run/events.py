"""What happens in a run, as its observers see it.

A run calls each observer with one event after another, in this order::

    Started
    for each epoch:
        Grew            if a growth is due, before the first step; or
        Widened         if that was a widening; or
        GrowthEnded     if growth by loss pays no more
        Pruned          if a pruning is due, after a growth of the same epoch; or, under rigl and set, a stage gets
                        the masks that it starts with
        StepDone        after each training step (no device is waited for)
        EpochDone       the figures of the epoch, after validation
        NewBest         if the epoch is the best so far, once its checkpoint is on disk
    StoppedEarly        if train.patience ends the run before its last epoch
    Finished            the test set has been read, once

An observer is any callable; it may ignore what it does not know.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ramify.config.rules import Config
from ramify.ops.growing.grow import Growth
from ramify.ops.growing.widen import Widening
from ramify.ops.pruning.prune import Pruning
from ramify.run.evaluate import Score
from ramify.run.summary import Summary


@dataclass(frozen=True)
class Started:
    """The pictures are loaded and the network is built; ``epoch`` epochs are done already (0 unless resumed).

    ``notes`` are sentences about the pictures: what was passed over, and what is odd.
    """

    name: str
    folder: str
    config: Config
    device: str
    precision: str
    pictures: tuple[int, int, int]
    classes: int
    stages: int
    epoch: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grew:
    """The network has grown before the first step of ``epoch``, for the ``reason`` told."""

    epoch: int
    growth: Growth
    reason: str


@dataclass(frozen=True)
class Widened:
    """The cells of a stage have been widened before the first step of ``epoch``, for the ``reason`` told."""

    epoch: int
    widening: Widening
    reason: str


@dataclass(frozen=True)
class GrowthEnded:
    """From ``epoch`` on the network does not grow any more, though its plan is not done, for the ``reason`` told."""

    epoch: int
    reason: str


@dataclass(frozen=True)
class Pruned:
    """The network has been pruned before the first step of ``epoch``; ``density`` is of each stage after it."""

    epoch: int
    pruning: Pruning
    density: tuple[float, ...]


@dataclass(frozen=True)
class StepDone:
    """``done`` of the ``total`` training pictures of this epoch have been trained on."""

    epoch: int
    done: int
    total: int


@dataclass(frozen=True)
class ExitFigures:
    """One exit in one epoch. ``train`` runs over the epoch's augmented pictures while the weights move.

    Its loss is against labels as they were mixed and smoothed; its accuracy counts a mixed picture as what it shows
    most of.
    """

    train: Score
    valid: Score | None


@dataclass(frozen=True)
class Regrown:
    """How the connections of a sparse network moved in one epoch.

    Attributes:
        times: how often some moved.
        moved: how many were dropped and regrown elsewhere, over these times, in each stage.
        kept: how many each stage has, before as after.
    """

    times: int
    moved: tuple[int, ...]
    kept: tuple[int, ...]


@dataclass(frozen=True)
class EpochDone:
    """The figures of one epoch.

    Attributes:
        learning_rate: of the last step.
        loss: the weighted loss, mean over the epoch's training pictures.
        seconds: time of the training part, validation left out.
        pictures_per_second: training pictures over ``seconds``.
        exits: shallowest first.
        density: the fraction of weights kept in each stage.
        revived: masked weights that were not zero after the epoch; a run in which there are any stops.
        gradient_parity: root mean square of the gradient in the newest stage over that in those before it, at the
            last step; None before the first growth and where either is frozen.
        compilations: how often the training step has been compiled so far; 0 without ``train.compile``.
        memory: the most bytes of main memory that the process has held so far; None where the system does not tell.
        device_memory: the most bytes that PyTorch has held on the CUDA device in this epoch; None without one.
        regrown: how connections moved, under the policies rigl and set; None where none were due.
    """

    epoch: int
    epochs: int
    stages: int
    learning_rate: float
    loss: float
    seconds: float
    pictures_per_second: float
    exits: tuple[ExitFigures, ...]
    density: tuple[float, ...]
    revived: int
    gradient_parity: float | None = None
    compilations: int = 0
    memory: int | None = None
    device_memory: int | None = None
    regrown: Regrown | None = None


@dataclass(frozen=True)
class NewBest:
    """The depth-weighted validation accuracy of ``epoch`` is the highest so far."""

    epoch: int
    score: float


@dataclass(frozen=True)
class StoppedEarly:
    """After ``epoch`` the run ends, as ``train.patience`` epochs have brought nothing better than ``best``."""

    epoch: int
    best: int


@dataclass(frozen=True)
class Finished:
    """The run is over and its summary is on disk."""

    summary: Summary


Event = Started | Grew | Widened | GrowthEnded | Pruned | StepDone | EpochDone | NewBest | StoppedEarly | Finished
Observer = Callable[[Event], None]
