"""How fast a network answers here: each exit and the policy, in every engine, at several batches and threads, paired.

Contestants take turns in one process, so that whatever else the machine does meets all alike, and ratios are taken
within a round.
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

from ramify.answer.samples import pictures_at_hand
from ramify.bench.engines import ENGINES, BenchSubject, Engine, Found, compiling, find_subject, open_engines, prepare
from ramify.errors import InputError, unknown_name
from ramify.exporting.quantize import CALIBRATION
from ramify.run.evaluate import to_float
from ramify.run.latency import PAIRS, times_in_turn
from ramify.run.saved import run_behind
from ramify.seeds import generator
from ramify.show.words import plural
from ramify.version import __version__

_BATCHES = (1, 16, 256)
THREADS = (1, 2)
AT_LEAST = 32
"""Pictures that a timed call answers at least, in as many batches as that takes: different ones leave elsewhere."""

_PAUSE = 0.005
"""Seconds between two calls. Threads that wait for work spin a while, and would take the next contestant's core."""

BUSY = 0.25
"""Load for each core from which on the machine counts as busy."""

_Progress = Callable[[str], None]


@dataclass(frozen=True)
class Timing:
    """How fast one contestant was.

    Attributes:
        engine: a name of :data:`ramify.bench.engines.ENGINES`.
        threads: that it computed with.
        batch: pictures that it was given at once.
        exit: where all of them were answered, from 0; None: each where the policy let it leave.
        milliseconds: median over the rounds, for one batch.
        low, high: quartiles of the same.
        pictures_per_second: by the median.
        speedup: how many times faster than the last exit of the first engine, with the same threads and batch: the
            median of the ratios within each round.
        same: the share of pictures, in [0, 1], that it answers as the first engine does: with the same class, and by
            the policy at the same exit.
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
    """How many of the pictures that are answered in batches of ``batch`` leave at each exit, in the first engine."""

    batch: int
    exits: tuple[int, ...]


@dataclass(frozen=True)
class Bench:
    """What a bench found.

    Attributes:
        name: of the run, or of the folder.
        policy: by which the pictures leave, in one sentence.
        pictures: which those are, in one sentence.
        macs: multiply-accumulates of answering at each exit.
        engines: that took part; the first is what the others are compared to.
        left_out: engines that were asked for and did not, each with the reason.
        batches, threads: as asked.
        rounds: that were counted, after one that warmed up.
        leaving: for each batch.
        timings: every combination once: for each number of threads, batch and engine the exits and the policy.
        machine: processor, cores, system.
        versions: of what computed.
        load: the machine's load average over a minute, before and after; None where the system does not tell.
        warnings: what makes the figures worth less, in sentences.
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
        asked = (threads, batch, engine)
        return tuple(each for each in self.timings if (each.threads, each.batch, each.engine) == asked)


def benchmark(
    name_or_folder: str | Path,
    runs_dir: str | Path = "runs",
    *,
    engines: Sequence[str] | None = None,
    batches: Sequence[int] = _BATCHES,
    threads: Sequence[int] | None = None,
    rounds: int = PAIRS,
    threshold: float | None = None,
    progress: _Progress | None = None,
) -> Bench:
    """Time every exit and the policy of a saved network, in every engine, on the processor.

    A timed call answers at least :data:`AT_LEAST` pictures, in batches; they are test pictures of the run where its
    source is at hand, else random ones, and the result says which. Where no policy was calibrated, every picture goes
    to the last exit. PyTorch's compiled code is forgotten (``torch.compiler.reset``) when ``compiled`` takes part.

    Args:
        name_or_folder: the name of a run or the path of its folder, a checkpoint, a model folder of ``ramify export
            --to hub``, or a folder of ``ramify export --to onnx``, which the engine alone computes that it is for.
        runs_dir: where runs are looked for by name.
        engines: names of :data:`ramify.bench.engines.ENGINES`; None: all that can compute it. One whose packages, or
            whose compiler, are missing is left out, and the result says why.
        batches: pictures given at once, each >= 1.
        threads: from 1 to as many as there are cores for this process; None: 1 and 2, or 1.
        rounds: counted rounds, >= 1.
        threshold: in [0, 1]; a picture leaves where the confidence reaches it, in place of the policy's thresholds.
        progress: called with what is being done.

    Raises:
        InputError: an argument is out of range, there is nothing of that name, or no engine is left.
        CheckpointError: what is there is damaged.

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
    subject = find_subject(name_or_folder, runs_dir, threshold)
    names = _engines_of(subject, engines)
    tell = progress or (lambda _: None)
    before = _load()
    test, calibration, which, real = _pictures(str(name_or_folder), runs_dir, subject)
    timings: list[Timing] = []
    leaving: dict[int, Leaving] = {}
    sizes, counts = tuple(dict.fromkeys(batches)), tuple(dict.fromkeys(threads))
    had = torch.get_num_threads()
    tell(f"making ready: {', '.join(names)}")
    try:
        with prepare(subject, names, calibration) as (openers, left_out):
            for count in counts:
                tell(f"opening with {plural(count, 'thread')}: {', '.join(openers)}")
                opened, failed = open_engines(openers, count, test[:2])
                left_out |= failed
                if not opened:
                    why = "; ".join(f"{name} {why}" for name, why in left_out.items())
                    raise InputError(f"engines: got {', '.join(names)}, and all are left out: {why}")
                for batch in sizes:
                    tell(f"{plural(count, 'thread')}, batch {batch}: {plural(rounds, 'round')}")
                    found, left = _measure(opened, count, batch, test, len(subject.macs), rounds)
                    timings += found
                    leaving.setdefault(batch, left)
    finally:
        torch.set_num_threads(had)
    able = tuple(name for name in names if name not in left_out)
    after = _load()
    load = None if before is None or after is None else (before, after)
    return Bench(
        name=subject.name,
        policy=subject.description,
        pictures=which,
        macs=subject.macs,
        engines=able,
        left_out=left_out,
        batches=sizes,
        threads=counts,
        rounds=rounds,
        leaving=tuple(leaving.values()),
        timings=tuple(each for each in timings if each.engine in able),
        machine={"processor": _processor(), "cores": cores, "system": f"{platform.system()} {platform.release()}"},
        versions=_versions(able),
        load=load,
        warnings=_warnings(load, cores, real),
    )


def available_cores() -> int:
    """How many cores this process may use."""
    # Only Linux tells.
    ask: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return (os.cpu_count() or 1) if ask is None else len(ask(0))


def _check(
    engines: Sequence[str] | None, batches: Sequence[int], threads: Sequence[int], rounds: int, cores: int
) -> None:
    problems = [unknown_name("engines", name, ENGINES) for name in engines or () if name not in ENGINES]
    for what, given in (("engines", engines), ("batches", batches), ("threads", threads)):
        if given is not None and not given:
            problems.append(f"{what}: got none; accepted: at least one")
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


def _engines_of(subject: BenchSubject, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Those that are to take part, in the order of :data:`ENGINES`."""
    if asked is None:
        return subject.engines
    foreign = [name for name in asked if name not in subject.engines]
    if foreign:
        raise InputError(
            f"engines: got {', '.join(foreign)} for an exported folder; accepted: {', '.join(subject.engines)}, which "
            "it was exported for; bench the run for the others"
        )
    return tuple(name for name in ENGINES if name in asked)


def _pictures(name: str, runs_dir: str | Path, subject: BenchSubject) -> tuple[Tensor, Tensor, str, bool]:
    """Pictures to answer, pictures to calibrate int8 with, which they are, and whether they are real."""
    run = run_behind(name, runs_dir)
    found = None if run is None else pictures_at_hand(run, subject.input_shape)
    if run is not None and found is not None and len(found.test) and len(found.train):
        few = found.train[_spread(len(found.train), min(CALIBRATION, len(found.train)))].images
        which = f"{len(found.test):,} test pictures of {run.name}, of which the batches take some evenly"
        return to_float(found.test.images), to_float(few), which, True
    made = torch.rand(CALIBRATION, *subject.input_shape, generator=generator(0, "bench"))
    return made, made, "random ones, as no test pictures are at hand", False


def _spread(count: int, wanted: int) -> Tensor:
    """``wanted`` indices spread evenly over ``count``; some come more than once where there are fewer."""
    return torch.linspace(0, count - 1, wanted).round().long()


def _measure(
    opened: Mapping[str, Engine], threads: int, batch: int, test: Tensor, exits: int, rounds: int
) -> tuple[list[Timing], Leaving]:
    """Every exit and the policy in every engine, with the threads that are set."""
    number = -(-max(batch, AT_LEAST) // batch)
    images = test[_spread(len(test), number * batch)]
    contestants: list[tuple[str, int | None]] = []
    calls: list[Callable[[], object]] = []
    alike: list[float] = []
    expected: list[Found] = []
    with compiling() if "compiled" in opened else nullcontext():
        for name, engine in opened.items():
            batches = [engine.ready(some) for some in images.split(batch)]
            for at, exit_ in enumerate((*range(exits), None)):
                call = partial(_answers, engine, batches, exit_)
                found = call()
                if len(expected) <= at:
                    expected.append(found)
                contestants.append((name, exit_))
                calls.append(call if exit_ is None else partial(_logits, engine, batches, exit_))
                alike.append(_alike(found, expected[at]))
    times = (
        np.array(times_in_turn(calls, torch.device("cpu"), rounds + 1, _PAUSE))[:, 1:] / number
    )  # [contestants, rounds]
    whole = times[exits - 1]
    timings: list[Timing] = []
    for (name, exit_), mine, same in zip(contestants, times, alike, strict=True):
        low, middle, high = (float(value) for value in np.percentile(mine, (25, 50, 75)))
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
                speedup=float(np.median(whole / mine)),
                same=same,
            )
        )
    left = expected[-1].exits.bincount(minlength=exits)
    return timings, Leaving(batch, tuple(left.tolist()))


def _logits(engine: Engine, batches: Sequence[Tensor], exit_: int) -> None:
    for some in batches:
        engine.at_exit(some, exit_)


def _answers(engine: Engine, batches: Sequence[Tensor], exit_: int | None) -> Found:
    """The answers to all pictures; with ``exit_`` every one of them from there."""
    if exit_ is None:
        found = [engine.by_policy(some) for some in batches]
        return Found(torch.cat([each.classes for each in found]), torch.cat([each.exits for each in found]))
    classes = torch.cat([engine.at_exit(some, exit_).argmax(dim=1) for some in batches])
    return Found(classes, torch.full_like(classes, exit_))


def _alike(found: Found, expected: Found) -> float:
    same = (found.classes == expected.classes) & (found.exits == expected.exits)
    return float(same.double().mean())


def _load() -> float | None:
    # Windows has no such figure, and its os not the function.
    ask: Callable[[], tuple[float, float, float]] | None = getattr(os, "getloadavg", None)
    return None if ask is None else ask()[0]


def _warnings(load: tuple[float, float] | None, cores: int, real: bool) -> tuple[str, ...]:
    found: list[str] = []
    if load is not None and load[0] > BUSY * cores:
        found.append(
            f"the machine was busy before the bench began (load {load[0]:.1f} on {plural(cores, 'core')}): long calls "
            "are interrupted where short ones slip through, so milliseconds are too long and ratios too large; repeat "
            "it on a quiet one"
        )
    if not real:
        found.append("random pictures leave where real ones would not: take the exits from this, not the policy")
    return tuple(found)


def _processor() -> str:
    """The name of the processor, as far as the system tells."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return f"{value.strip()} ({platform.machine()})"
    return platform.processor() or platform.machine()


def _versions(engines: Sequence[str]) -> dict[str, str]:
    found = {"ramify": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    if "onnx" in engines or "int8" in engines:
        found["onnxruntime"] = metadata.version("onnxruntime")
    return found
