"""A run in as many epochs as fit into some minutes."""

import math
import tempfile
import time
from dataclasses import dataclass

from ramify.config.rescaling import fewest_epochs, rescale
from ramify.config.rules import Config, PruneConfig
from ramify.data.fetch import Progress
from ramify.errors import ConfigError
from ramify.ops.pruning.policies import FIXED
from ramify.run.distributed import ALONE, world
from ramify.run.events import EpochDone, Event
from ramify.run.saved import located
from ramify.training.prepare import prepare_run
from ramify.training.run import train

RESERVE = 0.03
"""Share of the time that is kept for what short runs do not show, such as a slower machine."""

SHORT_EPOCH = 0.01
"""Share of the time that an epoch of the longer short run takes, about."""

BY_PICTURES = 0.7
"""At least this share of the time of a short run's epoch is taken to grow with its pictures; the rest is fixed."""

UNUSED = 0.01
"""Share of the time that whole epochs may leave unused."""

FEWEST_PICTURES, FEWEST_OF_A_CLASS, FEWEST_STEPS, FEWEST_EPOCHS = 512, 4, 4, 3
"""Of the smallest short run."""


@dataclass(frozen=True)
class ShortRun:
    """Seconds of a short run on ``pictures`` training pictures: of an ``epoch``, and of all else (``around``)."""

    pictures: int
    epoch: float
    around: float


def rescale_to_minutes(config: Config, minutes: float, progress: Progress | None = None) -> Config:
    """``config`` in as many epochs as fit into ``minutes`` on this machine, by :func:`ramify.rescale`.

    Where time for a part of an epoch would be left, one more epoch is planned, and ``data.epoch_pictures`` makes all of
    them smaller. Everything counts, from this call to the summary of the run. Short runs on a part of the pictures show
    how long an epoch takes; with growth it is the mean over the stages. A run may still take longer, where the machine
    slows down.

    Args:
        config: not yet resolved.
        minutes: more than 0.
        progress: of a download or the decoding of pictures.

    Raises:
        ConfigError: too few epochs fit for all growths and prunings, or the run computes in several processes.
        InputError: as :func:`ramify.train`.

    Example:
        >>> short = rescale_to_minutes(Config(), 0.2)  # doctest: +SKIP
        >>> ramify.train(short)  # doctest: +SKIP
    """
    ends = time.monotonic() + 60 * minutes
    if not 0 < minutes < math.inf:
        raise ConfigError(f"minutes: got {minutes:g}; accepted: a finite number > 0")
    if world()[1] > 1:
        raise ConfigError(f"minutes: got {minutes:g} in {world()[1]} processes; accepted: one process")
    least = fewest_epochs(config)
    parts = prepare_run(located(config), ALONE, progress)[2]
    pictures = config.data.in_epoch(len(parts.train))
    limit = max(FEWEST_PICTURES, FEWEST_STEPS * config.data.batch_size, FEWEST_OF_A_CLASS * len(parts.classes))
    # Prunings cost next to nothing, but each would need an epoch of its own in a short run.
    dense = config.model_copy(update={"prune": PruneConfig()}) if config.prune.policy in FIXED else config
    run_epochs = max(FEWEST_EPOCHS, fewest_epochs(dense) + 1)
    first = last = short_run(dense, run_epochs, limit)
    # A measurement of a second is mostly noise of the machine.
    longer = min(pictures, int(first.pictures * SHORT_EPOCH * 60 * minutes / first.epoch))
    if longer > first.pictures:
        last = short_run(dense, run_epochs, int(limit * longer / first.pictures) + 1)
    fixed, each = seconds_of(first, last)
    epoch = fixed + each * pictures
    left = ends - time.monotonic() - 60 * minutes * RESERVE - last.around
    epochs = left / epoch
    if epochs < least:
        needed = math.ceil(10 * (minutes + (least * epoch - left) / 60 / (1 - RESERVE))) / 10
        count = "an epoch" if least == 1 else f"{least} epochs"
        raise ConfigError(f"minutes: got {minutes:g}; accepted: {needed:g} or more, for {count} of {epoch:.2g} s")
    if epochs % 1 < UNUSED * epochs:
        return rescale(config, int(epochs))
    more = math.ceil(epochs)
    data = config.data.model_copy(update={"epoch_pictures": max(2, int((left / more - fixed) / each))})
    return rescale(config.model_copy(update={"data": data}), more)


def seconds_of(first: ShortRun, last: ShortRun) -> tuple[float, float]:
    """The fixed seconds of an epoch, and those of each picture in it, from a short run and a longer one.

    Two points make a line; :data:`BY_PICTURES` bounds what noise can do to its slope.

    Example:
        >>> seconds_of(ShortRun(100, 2.0, 0), ShortRun(400, 5.0, 0))
        (1.0, 0.01)
        >>> seconds_of(ShortRun(100, 2.0, 0), ShortRun(100, 2.0, 0))
        (0.0, 0.02)
    """
    each = last.epoch / last.pictures
    if last.pictures > first.pictures:
        slope = (last.epoch - first.epoch) / (last.pictures - first.pictures)
        each = min(max(slope, BY_PICTURES * each), each)
    return last.epoch - each * last.pictures, each


def short_run(config: Config, epochs: int, limit: int) -> ShortRun:
    """Train ``config`` in ``epochs``, 2 or more, on at most ``limit`` pictures; the first epoch warms up."""
    clock: list[float] = []
    pictures = 0

    def watch(event: Event) -> None:
        nonlocal pictures
        if isinstance(event, EpochDone):
            clock.append(time.monotonic())
            pictures = round(event.seconds * event.pictures_per_second)

    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        data = config.data.model_copy(update={"limit": min(limit, config.data.limit or limit)})
        keys = {"runs_dir": folder, "name": None, "data": data}
        train(rescale(located(config).model_copy(update=keys), epochs), [watch])
    epoch = (clock[-1] - clock[0]) / (len(clock) - 1)
    return ShortRun(pictures, epoch, time.monotonic() - start - epoch * len(clock))
