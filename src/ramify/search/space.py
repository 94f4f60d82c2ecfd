"""The space of a search, read from YAML: what may vary, what counts, and for how long.

::

    base: {network.kind: iterative}
    vary:
      train.learning_rate: {log: [0.003, 0.1]}
      prune.enabled: {choice: [false, true]}
      prune.keep_ratio: {float: [0.1, 0.9], if: prune.enabled}
      structure: {cells: [3, 8], exits: [2, 4]}
      growth_times: {float: [0.05, 0.4]}
    objectives: [accuracy, macs, weights]
    constraints: [weights <= 50_000]
    epochs: 36
    rungs: [4, 12, 36]

Everything that is wrong is told at once.
"""

import difflib
import importlib.resources
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import yaml

from ramify.config import SECTIONS, Config, accepted, keys
from ramify.configfile import read_config, to_yaml
from ramify.errors import ConfigError
from ramify.search.goals import OBJECTIVES, Constraint, parse_constraint
from ramify.yamltext import Dumper, Loader, to_text

Kind = Literal["choice", "int", "float", "log", "structure"]
KINDS: tuple[Kind, ...] = ("choice", "int", "float", "log")
SAMPLERS = ("tpe", "nsgaii", "gp", "random")
SPECIAL = ("structure", "keep_ratio_by_stage", "growth_times")
"""Entries of ``vary`` that are no keys: each becomes one, in a way of its own (see :mod:`ramify.search.draw`)."""

FIELDS = (
    "base",
    "vary",
    "objectives",
    "constraints",
    "epochs",
    "rungs",
    "eta",
    "max_drop",
    "sampler",
    "inherit",
    "seed",
)
OWNED = {"train.epochs": "epochs of the space", "name": "nothing, as each trial has its own", "runs_dir": "nothing"}
"""Keys that a search sets itself, and what to give in their place."""


@dataclass(frozen=True)
class Vary:
    """One thing that varies.

    Attributes:
        key: of the configuration, or one of :data:`SPECIAL`.
        values: the choices, or the lower and the upper bound; of ``structure`` the bounds of the cells and of the
            exits.
        condition: keys and the values that they must have for this to vary at all; empty is always.
    """

    key: str
    kind: Kind
    values: tuple[object, ...]
    condition: tuple[tuple[str, tuple[object, ...]], ...] = ()

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound of a number."""
        low, high = self.values
        assert isinstance(low, int | float)
        assert isinstance(high, int | float)
        return low, high


@dataclass(frozen=True)
class Space:
    """What a search looks through, and how.

    Attributes:
        base: the configuration of every trial but for what varies, as keys and values.
        vary: in the order in which it is drawn: what others depend on comes first.
        objectives: one to three of :data:`ramify.search.goals.OBJECTIVES`.
        constraints: what a network must keep to.
        epochs: of a full training.
        rungs: epochs after which trials are compared, rising; the last is ``epochs``.
        eta: at each rung but the last, the best ``1 / eta`` go on.
        max_drop: accuracy that the exit policy may lose against the last exit.
        sampler: one of :data:`SAMPLERS`.
        inherit: whether a trial whose structure extends that of an earlier one starts as its grown child.
        seed: of the sampler; the runs have ``seed`` of ``base``.
    """

    base: tuple[tuple[str, object], ...]
    vary: tuple[Vary, ...]
    objectives: tuple[str, ...]
    constraints: tuple[Constraint, ...]
    epochs: int
    rungs: tuple[int, ...]
    eta: int
    max_drop: float
    sampler: str
    inherit: bool
    seed: int

    @property
    def overrides(self) -> list[str]:
        """The base as overrides for :func:`ramify.configfile.read_config`."""
        return [*(f"{key}={to_text(value)}" for key, value in self.base), f"train.epochs={self.epochs}"]

    @property
    def cohort(self) -> int:
        """How many trials in a row are compared with each other: as many as leave one at the last rung."""
        return int(self.eta ** (len(self.rungs) - 1))


def ready_spaces() -> dict[str, str]:
    """The spaces that come with ramify: name and text.

    Example:
        >>> sorted(ready_spaces())
        ['colour32', 'digits']
    """
    folder = importlib.resources.files("ramify.search") / "spaces"
    files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in files}


def read_space(source: str, overrides: Sequence[str] = (), **changes: object) -> Space:
    """The space in the YAML file ``source``, or the ready one of that name.

    Args:
        source: a path, or a name of :func:`ready_spaces`.
        overrides: ``key=value`` that change its base.
        changes: fields of the document to put in place of its own, such as ``sampler="random"``; None changes none.

    Raises:
        ConfigError: the file cannot be read, or something in it is wrong.
    """
    ready = ready_spaces()
    if source in ready:
        return parse_space(ready[source], source, overrides, changes)
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(source, ready, n=1)
        hint = f"nearest: {near[0]}" if near else f"ready ones: {', '.join(sorted(ready))}"
        raise ConfigError(
            f"space: got {source!r}, a file that does not exist; accepted: a YAML file ({hint})"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a text file ({error})") from None
    return parse_space(text, source, overrides, changes)


def parse_space(
    text: str, where: str = "space", overrides: Sequence[str] = (), changes: Mapping[str, object] | None = None
) -> Space:
    """The space that YAML ``text`` describes; arguments as :func:`read_space`.

    Raises:
        ConfigError: what is wrong, all of it, each sentence beginning with ``where``.

    Example:
        >>> space = parse_space("vary: {train.learning_rate: {log: [0.01, 0.1]}}\\nobjectives: [accuracy]")
        >>> space.rungs, space.vary[0].bounds
        ((30,), (0.01, 0.1))
    """
    try:
        given = yaml.load(text, Loader=Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{where}: is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: got {to_text(given)}; accepted: a mapping with {', '.join(FIELDS)}")
    given = {**given, **{key: value for key, value in (changes or {}).items() if value is not None}}
    reader = _Reader()
    space = reader.read({str(key): value for key, value in given.items()}, overrides)
    if space is None or reader.problems:
        raise ConfigError(*(f"{where}: {problem}" for problem in dict.fromkeys(reader.problems)))
    return space


def space_yaml(space: Space) -> str:
    """The space as YAML with nothing left open, which :func:`parse_space` reads back to an equal one."""
    document = {
        "base": dict(space.base),
        "vary": {vary.key: _vary_document(vary) for vary in space.vary},
        "objectives": list(space.objectives),
        "constraints": [constraint.text for constraint in space.constraints],
        "epochs": space.epochs,
        "rungs": list(space.rungs),
        "eta": space.eta,
        "max_drop": space.max_drop,
        "sampler": space.sampler,
        "inherit": space.inherit,
        "seed": space.seed,
    }
    return yaml.dump(_plain(document), Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)


def _vary_document(vary: Vary) -> dict[str, object]:
    if vary.kind == "structure":
        document: dict[str, object] = dict(zip(("cells", "exits"), vary.values, strict=True))
    else:
        document = {vary.kind: list(vary.values)}
    if vary.condition:
        document["if"] = {key: list(values) for key, values in vary.condition}
    return document


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _frozen(value: object) -> object:
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value


class _Reader:
    """Reads a document and gathers what is wrong with it."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.known = dict(keys())

    def wrong(self, what: str, got: object, accepted: str) -> None:
        self.problems.append(f"{what}: got {to_text(_plain(got))}; accepted: {accepted}")

    def unknown(self, what: str, name: str, known: Sequence[str]) -> None:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        near = near or [each for each in known if each.rpartition(".")[2] == name.rpartition(".")[2]]
        hint = f"nearest: {near[0]}" if near else f"accepted: {', '.join(list(known)[:8])}"
        self.problems.append(f"{what}: unknown name {name}; {hint}")

    def read(self, given: Mapping[str, object], overrides: Sequence[str]) -> Space | None:
        for name in given:
            if name not in FIELDS:
                self.unknown("space", name, FIELDS)
        base, config = self.base(given.get("base"), overrides)
        epochs = self.whole("epochs", given.get("epochs", config.train.epochs), 1)
        vary = self.vary(given.get("vary"))
        for key, _ in base:
            if key in {each.key for each in vary}:
                self.problems.append(f"{key}: stands in base and in vary; accepted: one of them")
        sampler = given.get("sampler", "tpe")
        if sampler not in SAMPLERS:
            self.wrong("sampler", sampler, ", ".join(SAMPLERS))
        drop = given.get("max_drop", 0.01)
        if not isinstance(drop, int | float) or isinstance(drop, bool) or not 0 <= drop < 1:
            self.wrong("max_drop", drop, "a number in [0, 1)")
            drop = 0.01
        objectives = self.objectives(given.get("objectives", ["accuracy", "macs", "weights"]))
        space = Space(
            base=base,
            vary=vary,
            objectives=objectives,
            constraints=self.constraints(given.get("constraints", [])),
            epochs=epochs,
            rungs=self.rungs(given.get("rungs"), epochs),
            eta=self.whole("eta", given.get("eta", 3), 2),
            max_drop=float(drop),
            sampler=str(sampler),
            inherit=self.truth("inherit", given.get("inherit", True)),
            seed=self.whole("seed", given.get("seed", 0), 0),
        )
        return None if self.problems else replace(space, vary=self.ordered(space.vary))

    def base(self, given: object, overrides: Sequence[str]) -> tuple[tuple[tuple[str, object], ...], Config]:
        """The base as keys and values, and the configuration it is."""
        found: dict[str, object] = {}
        if isinstance(given, str):
            # A configuration file: what it says, resolved; what it leaves open stays open.
            try:
                defaults = _flat(yaml.load(to_yaml(Config()), Loader=Loader))
                said = _flat(yaml.load(to_yaml(read_config([Path(given)])), Loader=Loader))
                found = {key: value for key, value in said.items() if value != defaults[key]}
                epochs = found.pop("train.epochs", None)
                overrides = [*overrides, *([f"train.epochs={epochs}"] if epochs else [])]
            except ConfigError as error:
                self.problems += [f"base: {problem}" for problem in error.problems]
        elif isinstance(given, dict):
            found = _flat(given)
        elif isinstance(given, list):
            overrides = [*(str(text) for text in given), *overrides]
        elif given is not None:
            self.wrong("base", given, "keys and values, key=value overrides, or the path of a configuration file")
        texts = [*(f"{key}={to_text(value)}" for key, value in found.items()), *overrides]
        for key in dict.fromkeys(text.partition("=")[0] for text in texts):
            if key in OWNED and not (key == "train.epochs" and isinstance(given, str)):
                self.problems.append(f"base: {key} is set by the search; accepted: {OWNED[key]}")
        try:
            config = read_config(overrides=[text for text in texts if text.partition("=")[0] not in OWNED])
        except ConfigError as error:
            # Keys may contradict each other in the base alone, as what varies is missing.
            self.problems += [f"base: {each.replace(' (command line)', '')}" for each in self._own_faults(error)]
            config = Config()
        if config.data.valid_fraction == 0:
            self.wrong("base: data.valid_fraction", 0, "more than 0, as trials are compared on validation pictures")
        for text in overrides:
            key, _, value = text.partition("=")
            if key in self.known:
                found[key] = yaml.load(value, Loader=Loader)
        epochs = found.pop("train.epochs", None)
        if isinstance(epochs, int) and epochs > 0:
            config = config.model_copy(update={"train": config.train.model_copy(update={"epochs": epochs})})
        kept = {key: value for key, value in found.items() if key in self.known and key not in OWNED}
        return tuple((key, _frozen(value)) for key, value in kept.items()), config

    def _own_faults(self, error: ConfigError) -> Iterator[str]:
        """The problems that concern a value alone: contradictions are judged for each trial."""
        for problem in error.problems:
            key = problem.partition(":")[0]
            alone = key not in self.known or "got" not in problem
            if alone or f"accepted: {accepted(key)}" in problem:
                yield problem

    def vary(self, given: object) -> tuple[Vary, ...]:
        if not isinstance(given, dict) or not given:
            self.wrong("vary", given, "at least one key with choice, int, float or log")
            return ()
        found: list[Vary] = []
        for key, entry in _entries(given):
            where = f"vary: {key}"
            if key not in self.known and key not in SPECIAL:
                self.unknown("vary", key, [*self.known, *SPECIAL])
                continue
            if key in OWNED:
                self.problems.append(f"{where} is set by the search; accepted: {OWNED[key]}")
                continue
            if not isinstance(entry, dict):
                self.wrong(
                    where, entry, "{choice: [...]}, {int: [low, high]}, {float: [low, high]}, {log: [low, high]}"
                )
                continue
            entry = dict(entry)
            condition = self.condition(where, entry.pop("if", None))
            one = self.structure(where, entry) if key == "structure" else self.one(where, key, entry)
            if one is not None:
                found.append(replace(one, condition=condition))
        self.clashes(found)
        return tuple(found)

    def one(self, where: str, key: str, entry: Mapping[object, object]) -> Vary | None:
        if len(entry) != 1 or next(iter(entry)) not in KINDS:
            names = [str(name) for name in entry if name not in KINDS]
            if len(entry) == 1:
                self.unknown(where, names[0], KINDS)
            else:
                self.wrong(where, dict(entry), f"one of {', '.join(KINDS)}, and if")
            return None
        [(kind, values)] = ((kind, entry[kind]) for kind in KINDS if kind in entry)
        if key in SPECIAL and kind not in ("float", "log"):
            self.wrong(where, dict(entry), "{float: [low, high]}, shares in (0, 1]")
            return None
        if kind == "choice":
            return self.choice(where, key, values)
        bounds = self.bounds(where, kind, values, whole=kind == "int")
        if bounds is None:
            return None
        if key in SPECIAL:
            if bounds[0] <= 0 or bounds[1] > 1:
                self.wrong(where, list(bounds), "shares in (0, 1]")
                return None
        else:
            for bound in bounds:
                self.fits(where, key, bound)
        return Vary(key, kind, bounds)

    def choice(self, where: str, key: str, values: object) -> Vary | None:
        if not isinstance(values, list) or not values:
            self.wrong(f"{where}: choice", values, "a list of one value or more")
            return None
        texts = [to_text(value) for value in values]
        twice = [text for text in dict.fromkeys(texts) if texts.count(text) > 1]
        if twice:
            self.wrong(f"{where}: choice", values, f"each value once, and {twice[0]} is there twice")
        for value in values:
            self.fits(where, key, value)
        return Vary(key, "choice", tuple(_frozen(value) for value in values))

    def fits(self, where: str, key: str, value: object) -> None:
        """Complain where ``key`` does not accept ``value`` whatever the other keys say."""
        try:
            read_config(overrides=[f"{key}={to_text(value)}"])
        except ConfigError as error:
            if list(self._own_faults(error)):
                self.wrong(where, value, accepted(key))

    def bounds(self, where: str, kind: str, values: object, *, whole: bool) -> tuple[float, float] | None:
        what = "whole numbers" if whole else "numbers"
        right = isinstance(values, list) and len(values) == 2 and all(_is_number(value) for value in values)
        if not right or (whole and not all(isinstance(value, int) for value in values)):  # type: ignore[attr-defined]
            self.wrong(f"{where}: {kind}", values, f"[low, high], two {what}")
            return None
        assert isinstance(values, list)
        low, high = values
        if not low < high:
            self.wrong(f"{where}: {kind}", values, "[low, high] with low < high")
            return None
        if kind == "log" and low <= 0:
            self.wrong(f"{where}: {kind}", values, "numbers > 0")
            return None
        return low, high

    def structure(self, where: str, entry: Mapping[object, object]) -> Vary | None:
        if set(entry) != {"cells", "exits"}:
            self.wrong(where, dict(entry), "{cells: [low, high], exits: [low, high]}")
            return None
        ranges: list[tuple[int, int]] = []
        for part in ("cells", "exits"):
            values = entry[part]
            good = isinstance(values, list) and len(values) == 2 and all(type(value) is int for value in values)
            if not good or not isinstance(values, list) or not 1 <= values[0] <= values[1]:
                self.wrong(f"{where}: {part}", values, "[low, high], two whole numbers from 1 on, low <= high")
            else:
                ranges.append((values[0], values[1]))
        if len(ranges) < 2:
            return None
        cells, exits = ranges
        if exits[0] > cells[0] + 1:
            self.wrong(
                f"{where}: exits", list(exits), f"from at most {cells[0] + 1} on, as there may be {cells[0]} cells"
            )
            return None
        return Vary("structure", "structure", (cells, exits))

    def condition(self, where: str, given: object) -> tuple[tuple[str, tuple[object, ...]], ...]:
        if given is None:
            return ()
        wanted: dict[str, object] = {given: True} if isinstance(given, str) else {}
        if isinstance(given, dict):
            wanted = {str(key): value for key, value in _flat(given).items()}
        if not wanted:
            self.wrong(f"{where}: if", given, "a key that is true or false, or {key: value}")
        found: list[tuple[str, tuple[object, ...]]] = []
        for key, value in wanted.items():
            if key not in self.known:
                self.unknown(f"{where}: if", key, list(self.known))
                continue
            values = value if isinstance(value, list) else [value]
            for each in values:
                self.fits(f"{where}: if {key}", key, each)
            found.append((key, tuple(_frozen(each) for each in values)))
        return tuple(found)

    def clashes(self, found: Sequence[Vary]) -> None:
        varied = {vary.key for vary in found}
        pairs = {"structure": "network.structure", "growth_times": "growth.epochs"}
        for special, key in pairs.items():
            if {special, key} <= varied:
                self.problems.append(f"vary: {special} and {key} vary both; accepted: one of them")

    def ordered(self, found: tuple[Vary, ...]) -> tuple[Vary, ...]:
        """What others depend on first, and the special entries last, as they depend on everything."""
        left, done = list(found), [vary for vary in found if vary.key in SPECIAL]
        order: list[Vary] = []
        left = [vary for vary in left if vary not in done]
        while left:
            waiting = {vary.key for vary in left}
            free = [vary for vary in left if not waiting & {key for key, _ in vary.condition}]
            if not free:
                names = ", ".join(vary.key for vary in left)
                raise ConfigError(f"vary: the conditions of {names} wait for each other; accepted: one that is free")
            order += free
            left = [vary for vary in left if vary not in free]
        return (*order, *sorted(done, key=lambda vary: SPECIAL.index(vary.key)))

    def objectives(self, given: object) -> tuple[str, ...]:
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, list) or not 1 <= len(names) <= 3:
            self.wrong("objectives", given, f"a list of one to three of {', '.join(OBJECTIVES)}")
            return ("accuracy",)
        texts = [str(name) for name in names]
        for name in dict.fromkeys(texts):
            if name not in OBJECTIVES:
                self.unknown("objectives", name, list(OBJECTIVES))
            elif texts.count(name) > 1:
                self.wrong("objectives", names, f"each objective once, and {name} is there twice")
        return tuple(texts)

    def constraints(self, given: object) -> tuple[Constraint, ...]:
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list):
            self.wrong("constraints", given, "a list such as [weights <= 50_000]")
            return ()
        found: list[Constraint] = []
        for text in texts:
            constraint = parse_constraint(str(text))
            if constraint is None:
                self.wrong("constraints", str(text), "an objective, <=, >=, < or >, and a number: weights <= 50_000")
            elif constraint.name not in OBJECTIVES:
                self.unknown("constraints", constraint.name, list(OBJECTIVES))
            else:
                found.append(constraint)
        return tuple(found)

    def rungs(self, given: object, epochs: int) -> tuple[int, ...]:
        if given is None:
            return (epochs,)
        if not isinstance(given, list) or not given or not all(type(each) is int and each >= 1 for each in given):
            self.wrong(
                "rungs", given, f"a rising list of epochs that ends with epochs = {epochs}, or null for no halving"
            )
        elif sorted(set(given)) != given or given[-1] != epochs:
            self.wrong("rungs", given, f"epochs in rising order, the last being epochs = {epochs}")
        else:
            return tuple(given)
        return (epochs,)

    def truth(self, name: str, given: object) -> bool:
        if not isinstance(given, bool):
            self.wrong(name, given, "true, false")
        return bool(given)

    def whole(self, name: str, given: object, least: int) -> int:
        if type(given) is int and given >= least:
            return given
        self.wrong(name, given, f"a whole number >= {least}")
        return max(least, 1)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _flat(given: Mapping[object, object], prefix: str = "") -> dict[str, object]:
    """Nested sections as dotted keys."""
    found: dict[str, object] = {}
    for name, value in given.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key in SECTIONS:
            found.update(_flat(value, f"{key}."))
        else:
            found[key] = value
    return found


def _entries(given: Mapping[object, object]) -> Iterator[tuple[str, object]]:
    """What varies, with sections flattened."""
    yield from _flat(given).items()
