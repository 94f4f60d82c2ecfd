"""The events of a run, with which it calls each observer in this order::

    Started
    for each epoch:
        Grew            if a growth is due, before the first step; or
        Widened         if that was a widening; or
        GrowthEnded     if growth by loss stops
        Pruned          if a pruning is due, after a growth of the same epoch; under rigl and set, if a stage gets
                        its first masks
        StepDone        after each training step, without waiting for the device
        EpochDone       the figures of the epoch, after validation
        NewBest         if the epoch is the best so far, once its checkpoint is on disk
    StoppedEarly        if train.patience ends the run before its last epoch
    Finished            after the test

An observer is any callable; it may ignore events.
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
    """The pictures are loaded and the network is built.

    ``epoch`` epochs are done already (0 unless resumed); ``pictures`` are for training, validation and test; ``notes``
    are sentences about the pictures.
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
    """The network has grown before the first step of ``epoch``."""

    epoch: int
    growth: Growth
    reason: str


@dataclass(frozen=True)
class Widened:
    """The cells of a stage have been widened before the first step of ``epoch``."""

    epoch: int
    widening: Widening
    reason: str


@dataclass(frozen=True)
class GrowthEnded:
    """From ``epoch`` on the network does not grow any more, though its plan is not done."""

    epoch: int
    reason: str


@dataclass(frozen=True)
class Pruned:
    """The network has been pruned before the first step of ``epoch``; ``density`` of each stage is afterwards."""

    epoch: int
    pruning: Pruning
    density: tuple[float, ...]


@dataclass(frozen=True)
class StepDone:
    """``done`` of the ``total`` training pictures of ``epoch`` are done."""

    epoch: int
    done: int
    total: int


@dataclass(frozen=True)
class ExitFigures:
    """One exit in one epoch. ``train`` is over the augmented pictures during the epoch.

    Its loss is against mixed and smoothed labels; in its accuracy a mixed picture has the label of its larger share.
    """

    train: Score
    valid: Score | None


@dataclass(frozen=True)
class Regrown:
    """Moves of connections in one epoch: how many ``times``, and in each stage the moved and the existing ones."""

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
        revived: masked weights that were not zero after the epoch, which stop the run.
        gradient_parity: root mean square of the gradient in the newest stage over that in those before it, at the
            last step; None before the first growth and where either is frozen.
        compilations: of the training step so far, under ``train.compile``.
        memory: peak bytes of main memory of the process so far; None where the system does not say.
        device_memory: peak bytes on the CUDA device in this epoch; None without one.
        regrown: moves of connections, under the policies rigl and set.
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
    """The run ends after ``epoch``, ``train.patience`` epochs after the ``best`` one."""

    epoch: int
    best: int


@dataclass(frozen=True)
class Finished:
    """The run is over and its summary is on disk."""

    summary: Summary


Event = Started | Grew | Widened | GrowthEnded | Pruned | StepDone | EpochDone | NewBest | StoppedEarly | Finished
Observer = Callable[[Event], None]
