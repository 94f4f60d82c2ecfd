"""Times each exit and the policy of a network, in every engine, at several batch sizes and numbers of threads.

All take turns in one process, so other load on the machine affects all alike, and ratios are taken within a round.
"""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ramify.answer.answerer import Answerer, answerer
from ramify.answer.samples import pictures_at_hand
from ramify.bench.engines import (
    ENGINES,
    Answered,
    Engine,
    compiling,
    engines_of,
    open_engines,
    prepare,
)
from ramify.data.pictures import Part
from ramify.errors import InputError, unknown_name
from ramify.exporting.quantize import CALIBRATION
from ramify.exporting.write import evenly
from ramify.run.evaluate import to_float
from ramify.run.latency import PAIRS, times_in_turn
from ramify.run.saved import run_behind
from ramify.seeds import generator
from ramify.show.words import plural
from ramify.version import __version__

_BATCHES = (1, 16, 256)
THREADS = (1, 2)
AT_LEAST = 32
"""Least number of pictures in a timed call, in one or more batches: pictures leave at different exits."""

_PAUSE = 0.005
"""Seconds between two calls: idle threads spin for a while and would take a core from the next call."""

BUSY = 0.25
"""Load per core above which the machine counts as busy."""


@dataclass(frozen=True)
class Timing:
    """The time of one exit, or of the policy, in one engine.

    Attributes:
        engine: a name of :data:`ramify.bench.engines.ENGINES`.
        threads: that it computed with.
        batch: pictures at once.
        exit: where all pictures were answered, from 0; None: by the policy.
        milliseconds: median over the rounds, for one batch.
        low, high: quartiles.
        pictures_per_second: by the median.
        speedup: how many times faster than the last exit of the first engine, with the same threads and batch: the
            median of the ratios within each round.
        same: share of pictures, in [0, 1], with the same class, and by the policy the same exit, as in the first
            engine.
    """

    engine: str
    threads: int
    batch: int
    exit: int | None
    milliseconds: float
    low: float
    high: float
    pictures_per_second: float
    speedup: float
    same: float


@dataclass(frozen=True)
class Leaving:
    """How many pictures leave at each exit, in batches of ``batch`` in the first engine."""

    batch: int
    exits: tuple[int, ...]


@dataclass(frozen=True)
class Bench:
    """The result of a bench.

    Attributes:
        name: of the run, or of the folder.
        policy: the exit policy, in one sentence.
        pictures: their origin, in one sentence.
        macs: multiply-accumulates of answering at each exit.
        engines: that were timed; the others are compared to the first.
        left_out: engines that were not timed, each with the reason.
        batches, threads: that were timed.
        rounds: after one to warm up.
        leaving: for each batch size.
        timings: for each number of threads, batch size and engine, the exits and the policy.
        machine: processor, cores, system.
        versions: of the packages.
        load: load average of the machine over a minute, before and after; None where the system has none.
        warnings: problems of the measurement, in sentences.
    """

    name: str
    policy: str
    pictures: str
    macs: tuple[int, ...]
    engines: tuple[str, ...]
    left_out: dict[str, str]
    batches: tuple[int, ...]
    threads: tuple[int, ...]
    rounds: int
    leaving: tuple[Leaving, ...]
    timings: tuple[Timing, ...]
    machine: dict[str, str | int]
    versions: dict[str, str]
    load: tuple[float, float] | None
    warnings: tuple[str, ...]

    def of(self, threads: int, batch: int, engine: str) -> tuple[Timing, ...]:
        """The exits, shallowest first, and the policy, last."""
        key = (threads, batch, engine)
        return tuple(row for row in self.timings if (row.threads, row.batch, row.engine) == key)


def benchmark(
    name_or_folder: str | Path,
    runs_dir: str | Path = "runs",
    *,
    engines: Sequence[str] | None = None,
    batches: Sequence[int] = _BATCHES,
    threads: Sequence[int] | None = None,
    rounds: int = PAIRS,
    threshold: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> Bench:
    """Time every exit and the policy of a saved network, in every engine, on the CPU.

    A timed call answers at least :data:`AT_LEAST` pictures, in batches: test pictures of the run if they are on this
    machine, else random ones. The engine ``compiled`` resets PyTorch's compiler (``torch.compiler.reset``).

    Args:
        name_or_folder: the name of a run or the path of its folder, a checkpoint, a model folder of ``ramify export
            --to hub``, or a folder of ``ramify export --to onnx``, which has one engine.
        runs_dir: the folder of the runs.
        engines: names of :data:`ramify.bench.engines.ENGINES`; None: all that can compute it. The result names those
            that are left out because a package or a compiler is missing.
        batches: pictures at once, each >= 1.
        threads: from 1 to the number of cores of this process; None: 1 and 2, or 1.
        rounds: >= 1.
        threshold: in [0, 1]; a picture leaves where the confidence reaches it, in place of the policy's thresholds.
        progress: called with a line for each step.

    Raises:
        InputError: an argument is out of range, there is no such network, or no engine is left.
        CheckpointError: it is damaged.

    Example:
        >>> benchmark("demo", batches=[0], engines=["onyx"])
        Traceback (most recent call last):
            ...
        ramify.errors.InputError: engines: got 'onyx' (nearest: onnx); accepted: eager, plain, compiled, onnx, int8
        batches: got 0; accepted: whole numbers >= 1
    """
    cores = available_cores()
    threads = tuple(count for count in THREADS if count <= cores) if threads is None else threads
    _check(engines, batches, threads, rounds, cores)
    subject = answerer(name_or_folder, runs_dir, threshold)
    names = _selected(engines_of(subject), engines)
    before = _load()
    test, calibration, origin, real = _pictures(str(name_or_folder), runs_dir, subject)
    batches, threads = tuple(dict.fromkeys(batches)), tuple(dict.fromkeys(threads))
    log = progress or (lambda _: None)
    log(f"making ready: {', '.join(names)}")
    timings: list[Timing] = []
    leaving: dict[int, Leaving] = {}
    with prepare(subject, names, calibration) as (openers, left_out):
        for count in threads:
            log(f"opening with {plural(count, 'thread')}: {', '.join(openers)}")
            with open_engines(openers, count, to_float(test[:2].images), left_out) as opened:
                for batch in batches:
                    log(f"{plural(count, 'thread')}, batch {batch}: {plural(rounds, 'round')}")
                    rows, exits = _measure(opened, count, batch, test, len(subject.macs), rounds)
                    timings += rows
                    leaving.setdefault(batch, Leaving(batch, exits))
    able = tuple(name for name in names if name not in left_out)
    after = _load()
    load = None if before is None or after is None else (before, after)
    return Bench(
        name=subject.name,
        policy=subject.description,
        pictures=origin,
        macs=subject.macs,
        engines=able,
        left_out=left_out,
        batches=batches,
        threads=threads,
        rounds=rounds,
        leaving=tuple(leaving.values()),
        timings=tuple(row for row in timings if row.engine in able),
        machine={"processor": _processor(), "cores": cores, "system": f"{platform.system()} {platform.release()}"},
        versions=_versions(able),
        load=load,
        warnings=_warnings(load, cores, real),
    )


def available_cores() -> int:
    """How many cores this process may use."""
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)  # of Linux alone
    return (os.cpu_count() or 1) if affinity is None else len(affinity(0))


def _check(
    engines: Sequence[str] | None, batches: Sequence[int], threads: Sequence[int], rounds: int, cores: int
) -> None:
    problems = [unknown_name("engines", name, ENGINES) for name in engines or () if name not in ENGINES]
    for key, values in (("engines", engines), ("batches", batches), ("threads", threads)):
        if values is not None and not values:
            problems.append(f"{key}: got none; accepted: at least one")
    problems += [f"batches: got {batch}; accepted: whole numbers >= 1" for batch in batches if batch < 1]
    problems += [
        f"threads: got {count}; accepted: whole numbers from 1 to {cores}, the cores of this process"
        for count in threads
        if not 1 <= count <= cores
    ]
    if rounds < 1:
        problems.append(f"rounds: got {rounds}; accepted: a whole number >= 1")
    if problems:
        raise InputError(*problems)


def _selected(possible: tuple[str, ...], names: Sequence[str] | None) -> tuple[str, ...]:
    """The engines called ``names``, in the order of :data:`ENGINES`; None: all."""
    if names is None:
        return possible
    foreign = [name for name in names if name not in possible]
    if foreign:
        raise InputError(
            f"engines: got {', '.join(foreign)} for an exported folder; accepted: {', '.join(possible)}, which "
            "it was exported for; bench the run for the others"
        )
    return tuple(name for name in ENGINES if name in names)


def _pictures(name: str, runs_dir: str | Path, subject: Answerer) -> tuple[Part, Tensor, str, bool]:
    """Pictures to answer and to calibrate int8 with, their origin, and whether they are real."""
    run = run_behind(name, runs_dir)
    parts = None if run is None else pictures_at_hand(run, subject.input_shape)
    if run is not None and parts is not None and len(parts.test) and len(parts.train):
        test, train, real = parts.test, parts.train, True
        origin = f"{len(test):,} test pictures of {run.name}, of which the batches take some evenly"
    else:
        shape = (CALIBRATION, *subject.input_shape)
        random = torch.randint(256, shape, generator=generator(0, "bench"), dtype=torch.uint8)
        test = train = Part(random, torch.zeros(CALIBRATION, dtype=torch.int64))
        origin, real = "random ones, as no test pictures are at hand", False
    return test, to_float(evenly(train, CALIBRATION).images), origin, real


def _measure(
    opened: Mapping[str, Engine], threads: int, batch: int, test: Part, exits: int, rounds: int
) -> tuple[list[Timing], tuple[int, ...]]:
    """Time every exit and the policy in every engine, and count the pictures that leave at each exit in the first."""
    number = -(-max(batch, AT_LEAST) // batch)
    # Evenly spaced; some come more than once where there are fewer.
    images = to_float(test[torch.linspace(0, len(test) - 1, number * batch).round().long()].images)
    entries: list[tuple[str, int | None, float]] = []
    calls: list[Callable[[], object]] = []
    expected: dict[int | None, Answered] = {}
    with compiling() if "compiled" in opened else nullcontext():
        for name, engine in opened.items():
            batches = [engine.ready(part) for part in images.split(batch)]
            for exit_ in (*range(exits), None):
                by_policy = partial(_answers, engine, batches, exit_)
                answered = by_policy()
                reference = expected.setdefault(exit_, answered)
                same = (answered.classes == reference.classes) & (answered.exits == reference.exits)
                entries.append((name, exit_, float(same.double().mean())))
                calls.append(by_policy if exit_ is None else partial(_logits, engine, batches, exit_))
    # [calls, rounds], without the round that warms up
    times = np.array(times_in_turn(calls, torch.device("cpu"), rounds + 1, _PAUSE))[:, 1:] / number
    last_exit = times[exits - 1]
    timings: list[Timing] = []
    for (name, exit_, same_share), row in zip(entries, times, strict=True):
        low, middle, high = (float(value) for value in np.percentile(row, (25, 50, 75)))
        timings.append(
            Timing(
                engine=name,
                threads=threads,
                batch=batch,
                exit=exit_,
                milliseconds=middle,
                low=low,
                high=high,
                pictures_per_second=1000 * batch / middle,
                speedup=float(np.median(last_exit / row)),
                same=same_share,
            )
        )
    return timings, tuple(expected[None].exits.bincount(minlength=exits).tolist())


def _logits(engine: Engine, batches: Sequence[Tensor], exit_: int) -> None:
    for images in batches:
        engine.at_exit(images, exit_)


def _answers(engine: Engine, batches: Sequence[Tensor], exit_: int | None) -> Answered:
    """The answers to all pictures, by the policy or all at ``exit_``."""
    if exit_ is None:
        classes, exits = zip(*map(engine.by_policy, batches), strict=True)
        return Answered(torch.cat(classes), torch.cat(exits))
    at_exit = torch.cat([engine.at_exit(images, exit_).argmax(dim=1) for images in batches])
    return Answered(at_exit, torch.full_like(at_exit, exit_))


def _load() -> float | None:
    averages: Callable[[], tuple[float, float, float]] | None = getattr(os, "getloadavg", None)  # not of Windows
    return None if averages is None else averages()[0]


def _warnings(load: tuple[float, float] | None, cores: int, real: bool) -> tuple[str, ...]:
    warnings: list[str] = []
    if load is not None and load[0] > BUSY * cores:
        warnings.append(
            f"the machine was busy before the bench began (load {load[0]:.1f} on {plural(cores, 'core')}): long calls "
            "are interrupted where short ones slip through, so milliseconds are too long and ratios too large; repeat "
            "it on a quiet one"
        )
    if not real:
        warnings.append("random pictures leave where real ones would not: take the exits from this, not the policy")
    return tuple(warnings)


def _processor() -> str:
    """The name of the processor, if the system has it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return f"{value.strip()} ({platform.machine()})"
    return platform.processor() or platform.machine()


def _versions(engines: Sequence[str]) -> dict[str, str]:
    versions = {"ramify": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    if "onnx" in engines or "int8" in engines:
        versions["onnxruntime"] = metadata.version("onnxruntime")
    return versions
