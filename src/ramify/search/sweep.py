"""A sweep: every combination of some values, with several seeds each, on the engine of searches.

::

    sweeps/<name>/
        sweep.yaml       the values that vary, and those that all runs share
        stop             asks the sweep to end
        runs/<values>-seed0/   the runs

An interrupted sweep continues when it is started again: finished runs stay, others continue from their checkpoints. A
run that fails stops no other.
"""

import contextlib
import itertools
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from ramify.config.keys import dotted
from ramify.config.read import read_config
from ramify.config.rules import Config
from ramify.config.yamltext import Dumper, Loader, to_text
from ramify.errors import ConfigError, RamifyError
from ramify.files import write_atomic
from ramify.run.folder import METRICS, locked, read_lines, read_summary
from ramify.search.engine import TaskEngine, Tasks
from ramify.search.measure import epochs_done
from ramify.search.study import STOP
from ramify.search.task import TaskResult, is_same, train_run
from ramify.search.vary import as_lists, as_tuples, check_name, read_mapping

SWEEP = "sweep.yaml"
SWEEPS_DIR = Path("sweeps")
SET_BY_SWEEP = ("name", "runs_dir", "seed")
"""Keys that a sweep sets itself; ``seed`` is the first one."""


@dataclass(frozen=True)
class Sweep:
    """The values that vary, and the runs.

    Attributes:
        base: the keys and values that all runs share.
        configs: of the runs, combination by combination, seed by seed.
    """

    name: str
    folder: Path
    vary: Mapping[str, tuple[object, ...]]
    base: Mapping[str, object]
    repeats: int
    configs: tuple[Config, ...]

    def run(self, config: Config) -> Path:
        """The folder of a run."""
        return Path(config.runs_dir) / str(config.name)


def read_sweep(
    files: Sequence[Path],
    overrides: Sequence[str] = (),
    *,
    repeats: int | None = None,
    name: str | None = None,
    sweeps_dir: Path = SWEEPS_DIR,
) -> Sweep:
    """The sweep of a file and ``key=value``: ``key=[a, b]`` varies, ``key=a`` is shared.

    A list always varies; a single value that is a list stands in a list, as ``network.structure=[[1,0]]``.

    Args:
        files: a sweep (``base``, ``vary``, ``repeats``, ``name``), or a configuration that all runs share.
        overrides: ``key=value``.
        repeats: seeds of each combination, from ``seed`` of the base on; None for those of the file, or 1.
        name: of its folder in ``sweeps_dir``; None for that of the file, or one made of the keys that vary.

    Raises:
        ConfigError: all problems.

    Example:
        >>> sweep = read_sweep([], ["network.channels=[4, 8]", "train.epochs=5"], repeats=2)
        >>> [config.name for config in sweep.configs]
        ['channels4-seed0', 'channels4-seed1', 'channels8-seed0', 'channels8-seed1']
    """
    if len(files) > 1:
        raise ConfigError(f"got {' and '.join(map(str, files))}; accepted: one file, with what varies under vary")
    document = _document(files[0]) if files else {}
    vary = _varied(document.get("vary", {}))
    base = _base(document.get("base", {}))
    for text in overrides:
        key, _, value = text.partition("=")
        try:
            read = yaml.load(value, Loader=Loader)
        except (yaml.YAMLError, ValueError):
            raise ConfigError(
                f"{key}: got {value!r}, which is not YAML; accepted: a value, or a list to vary"
            ) from None
        vary.pop(key, None)
        base.pop(key, None)
        if isinstance(read, list):
            vary |= _varied({key: read})
        else:
            base[key] = as_tuples(read)
    listed = frozenset(vary)
    # One value does not vary.
    base |= {key: vary.pop(key)[0] for key in [key for key, values in vary.items() if len(values) == 1]}
    seeds = repeats or document.get("repeats", 1)
    if type(seeds) is not int or seeds < 1:
        raise ConfigError(f"repeats: got {to_text(seeds)}; accepted: a whole number >= 1")
    wrong = [key for key in (*vary, *base) if key in SET_BY_SWEEP and not (key == "seed" and key in base)]
    if wrong:
        raise ConfigError(*(f"{key}: is set by the sweep; accepted: other keys" for key in wrong))
    if not vary and seeds < 2:
        raise ConfigError("vary: got nothing; accepted: key=[a, b], a file with vary, or --repeats 2 or more")
    default = files[0].stem if files else "-".join(key.rpartition(".")[2] for key in vary) or "repeats"
    name = name or str(document.get("name") or default)
    check_name(name)
    folder = sweeps_dir / name
    return Sweep(name, folder, vary, base, seeds, tuple(_configs(vary, base, listed, seeds, folder)))


def _configs(
    vary: Mapping[str, tuple[object, ...]],
    base: Mapping[str, object],
    listed: frozenset[str],
    repeats: int,
    folder: Path,
) -> Iterator[Config]:
    shared = [f"{key}={to_text(value)}" for key, value in base.items()]
    problems: list[str] = []
    names: set[str] = set()
    configs: list[Config] = []
    for values in itertools.product(*vary.values()):
        own = [f"{key}={to_text(as_lists(value))}" for key, value in zip(vary, values, strict=True)]
        words = "-".join(_word(key, value) for key, value in zip(vary, values, strict=True))
        stem = words[:80].strip("-.") or "run"
        while stem in names:
            stem += "+"
        names.add(stem)
        stem = stem.replace("+", "_")
        try:
            config = read_config(overrides=[*shared, *own, f"runs_dir='{folder.resolve() / 'runs'}'"])
        except ConfigError as error:
            combination = f" ({', '.join(own)})" if own else ""
            for problem in error.problems:
                key, _, text = problem.partition(":")
                hint = f"; as one value a list is [[...]]: {key}=[[a, b]]" if key in listed and "list" in text else ""
                problems.append(problem.replace(" (command line)", "") + hint + combination)
            continue
        seeds = range(config.seed, config.seed + repeats)
        configs += [config.model_copy(update={"seed": seed, "name": f"{stem}-seed{seed}"}) for seed in seeds]
    if problems:
        # A value that is wrong alone is wrong in every combination.
        raise ConfigError(*{problem.partition(" (")[0]: problem for problem in problems}.values())
    yield from configs


def _word(key: str, value: object) -> str:
    text = value if isinstance(value, str) else f"{key.rpartition('.')[2]}{to_text(as_lists(value))}"
    return re.sub(r"[^A-Za-z0-9._]+", "_", Path(text).name if "/" in text else text).strip("_")


def _document(path: Path) -> dict[str, object]:
    document = read_mapping(path, "base, vary, repeats, name, or a configuration; or key=[a, b] without a file")
    if "vary" not in document:
        return {"base": document}
    unknown = [key for key in document if key not in ("base", "vary", "repeats", "name")]
    if unknown:
        raise ConfigError(*(f"{path}: unknown name {key}; accepted: base, vary, repeats, name" for key in unknown))
    return document


def _varied(vary: object) -> dict[str, tuple[object, ...]]:
    if not isinstance(vary, dict):
        raise ConfigError(f"vary: got {to_text(vary)}; accepted: keys, each with a list of values")
    checked: dict[str, tuple[object, ...]] = {}
    for key, values in dotted(vary).items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"vary: {key}: got {to_text(values)}; accepted: a list of values")
        if len(set(map(to_text, values))) < len(values):
            raise ConfigError(f"vary: {key}: got {to_text(values)}; accepted: each value once")
        checked[key] = tuple(map(as_tuples, values))
    return checked


def _base(base: object) -> dict[str, object]:
    if isinstance(base, str):
        base = _document(Path(base)).get("base")
    if not isinstance(base, dict):
        raise ConfigError(f"base: got {to_text(base)}; accepted: keys and values, or the path of a configuration file")
    return {key: as_tuples(value) for key, value in dotted(base).items() if value is not None}


@dataclass(frozen=True)
class RunBegan:
    """A run is about to train, from ``epoch`` on."""

    run: str
    epoch: int


@dataclass(frozen=True)
class RunEnded:
    """A run is finished, or has ``failed`` for a reason."""

    run: str
    failed: str | None


@dataclass(frozen=True)
class RunsUnderWay:
    """The runs that train now: their epochs, and the validation accuracy of their last exits."""

    runs: Mapping[str, tuple[int, float | None]]


SweepEvent = RunBegan | RunEnded | RunsUnderWay


@contextlib.contextmanager
def open_sweep(sweep: Sweep) -> Iterator[None]:
    """Lock the sweep during the block, and write its description to its folder.

    Raises:
        InputError: another process works on it.
        ConfigError: a sweep of that name has other shared keys.
    """
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with locked(sweep.folder):
        path = sweep.folder / SWEEP
        try:
            kept = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)["base"]
        except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
            kept = None
        base = as_lists(dict(sweep.base))
        if kept is not None and kept != base:
            keys = sorted(key for key in {*kept, *sweep.base} if kept.get(key) != as_lists(sweep.base.get(key)))
            raise ConfigError(f"name: got {sweep.name}, a sweep with other {', '.join(keys)}; accepted: another --name")
        document = {
            "name": sweep.name,
            "base": base,
            "vary": {key: as_lists(values) for key, values in sweep.vary.items()},
            "repeats": sweep.repeats,
        }
        write_atomic(path, yaml.dump(document, Dumper=Dumper, sort_keys=False, width=110).encode())
        (sweep.folder / STOP).unlink(missing_ok=True)
        yield


def run_sweep(
    sweep: Sweep,
    engine: TaskEngine,
    notify: Callable[[SweepEvent], None] = lambda event: None,
    *,
    leave: threading.Event | None = None,
) -> dict[str, str]:
    """Train every run of ``sweep`` that is not finished; returns the failed runs with their reasons.

    Args:
        sweep: within :func:`open_sweep`.
        notify: called with every :data:`SweepEvent`.
        leave: set it to interrupt the runs under way.

    Raises:
        RunError: the engine is gone, or a disk is full.
    """
    leave, stop = leave or threading.Event(), sweep.folder.resolve() / STOP
    failed: dict[str, str] = {}
    waiting: list[Config] = []
    for config in sweep.configs:
        folder = sweep.run(config)
        try:
            done = is_same(folder, config) and read_summary(folder) is not None
        except RamifyError as error:
            failed[folder.name] = error.problems[0]
            notify(RunEnded(folder.name, error.problems[0]))
            continue
        if done:
            notify(RunEnded(folder.name, None))
        else:
            waiting.append(config)
    tasks: Tasks[str, TaskResult] = Tasks(engine, lambda why: TaskResult(failed=why))
    while (waiting or tasks.running) and not leave.is_set() and not stop.exists():
        while waiting and tasks.free:
            config = waiting.pop(0)
            folder = sweep.run(config)
            epoch = _epoch(folder)[0] if is_same(folder, config) else 0
            notify(RunBegan(folder.name, epoch))
            tasks.start(folder.name, partial(train_run, config, stop), partial(epochs_done, folder))
        for name, outcome in tasks.ended(0.5):
            if outcome.failed is not None:
                failed[name] = outcome.failed
            if outcome.failed is not None or outcome.finished:
                notify(RunEnded(name, outcome.failed))
        notify(RunsUnderWay({name: _epoch(sweep.folder / "runs" / name) for name in tasks.running}))
    if waiting or tasks.running:
        stop.touch()
    return failed


def _epoch(folder: Path) -> tuple[int, float | None]:
    try:
        lines = read_lines(folder / METRICS)
    except (RamifyError, OSError, UnicodeDecodeError):
        lines = []  # damage is reported when the run is resumed
    if not lines:
        return 0, None
    exits = lines[-1].get("exits")
    valid = exits[-1].get("valid") if isinstance(exits, list) and exits else None
    return len(lines), valid["top1"] if valid else None
