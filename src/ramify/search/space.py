"""The space of a search, read from YAML: what varies, objectives, constraints, epochs.

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

It is checked by pydantic, as a configuration is, and all problems are reported at once.
"""

import difflib
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BeforeValidator, Field, StrictBool, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from ramify.config.keys import accepts_of, dotted
from ramify.config.read import read_config, to_yaml
from ramify.config.rules import Config
from ramify.config.types import AtLeastTwo, BelowOne, Count, Listed, Natural, Section
from ramify.config.yamltext import Dumper, Loader, to_text
from ramify.errors import ConfigError, nearest_or_all
from ramify.search.goals import OBJECTIVES, Constraint, Objective, builtin, parse_constraint
from ramify.search.samplers import SEARCH_SAMPLERS
from ramify.search.vary import (
    KNOWN,
    OWNED,
    SPECIAL,
    Vary,
    as_lists,
    as_tuples,
    own_faults,
    refused,
    unknown,
    wrong,
)


def _objective(value: object) -> object:
    if isinstance(value, str):
        if value not in OBJECTIVES:
            raise unknown(value, list(OBJECTIVES))
        return builtin(value)
    entry = value if isinstance(value, dict) else {}
    better = entry.get("better", "low")
    place, colon, function = str(entry.get("function")).rpartition(":")
    if not colon or not set(entry) <= {"name", "function", "better"} or better not in ("low", "high"):
        accepts = "the name of an objective, or {function: file.py:function, name: its name, better: low or high}"
        raise wrong(value, accepts)
    name = str(entry.get("name", function))
    if re.fullmatch(r"[A-Za-z_]\w*", name) is None or name in OBJECTIVES:
        raise wrong(value, "a name of its own, of letters, digits and '_'")
    # Workers may run in another folder.
    place = str(Path(place).resolve()) if place.endswith(".py") else place
    return Objective(name, better, f"{place}:{function}")


def _constraint(value: object, info: ValidationInfo) -> object:
    constraint = parse_constraint(str(value))
    if constraint is None:
        raise wrong(str(value), "an objective, <=, >=, < or >, and a number: weights <= 50_000")
    known = [*OBJECTIVES, *(objective.name for objective in info.data.get("objectives", ()))]
    if constraint.name not in known:
        raise unknown(constraint.name, known)
    return constraint


class Space(Section):
    """The space of a search.

    Attributes:
        base: the keys and values that all trials share.
        vary: in the order in which it is drawn: what others depend on comes first.
        objectives: one to three.
        rungs: epochs after which trials are compared, rising; the last is ``epochs``.
        inherit: whether a trial whose structure extends that of an earlier one starts as its grown child.
        seed: of the sampler; the runs have ``seed`` of ``base``.
    """

    base: tuple[tuple[str, object], ...]
    vary: tuple[Vary, ...]
    objectives: tuple[Annotated[Objective, BeforeValidator(_objective)], ...] = (
        builtin("accuracy"),
        builtin("macs"),
        builtin("weights"),
    )
    constraints: tuple[Annotated[Constraint, BeforeValidator(_constraint)], ...] = ()
    epochs: Count
    """epochs of a full training"""
    rungs: tuple[int, ...] = Field((), validate_default=True)
    eta: AtLeastTwo = 3
    """at each rung but the last, 1 / eta go on"""
    max_drop: BelowOne = 0.01
    """accuracy that the exit policy may lose"""
    sampler: Annotated[str, Listed(lambda: SEARCH_SAMPLERS, "tpe")] = "tpe"
    """the algorithm that proposes trials"""
    inherit: StrictBool = True
    """whether trials begin with the weights of earlier ones"""
    seed: Natural = 0
    """seed of the sampler"""

    @property
    def code(self) -> tuple[str, ...]:
        """The modules of networks and functions of objectives that would be imported."""
        module = dict(self.base).get("network.module")
        varied = [str(value) for vary in self.vary if vary.key == "network.module" for value in vary.values]
        functions = [objective.function for objective in self.objectives if objective.function is not None]
        return (*([str(module)] if module is not None else []), *varied, *functions)

    @field_validator("vary", mode="before")
    @classmethod
    def _entries(cls, value: object) -> object:
        if not isinstance(value, dict) or not value:
            raise wrong(value, "at least one key with choice, int, float or log")
        return tuple(dotted(value).items())

    @field_validator("vary", mode="after")
    @classmethod
    def _in_order(cls, entries: tuple[Vary, ...]) -> tuple[Vary, ...]:
        varied = {vary.key for vary in entries}
        for special, key in (("structure", "network.structure"), ("growth_times", "growth.epochs")):
            if {special, key} <= varied:
                raise refused(f"{special} and {key} vary both; accepted: one of them")
        last = sorted((vary for vary in entries if vary.key in SPECIAL), key=lambda vary: SPECIAL.index(vary.key))
        left, order = [vary for vary in entries if vary.key not in SPECIAL], []
        while left:
            waiting = {vary.key for vary in left}
            free = [vary for vary in left if not waiting & {key for key, _ in vary.condition}]
            if not free:
                raise refused(f"the conditions of {', '.join(waiting)} wait for each other; accepted: one that is free")
            order += free
            left = [vary for vary in left if vary not in free]
        return (*order, *last)

    @field_validator("objectives", mode="before")
    @classmethod
    def _few(cls, value: object) -> object:
        names = [value] if isinstance(value, str | dict) else value
        if not isinstance(names, list) or not 1 <= len(names) <= 3:
            raise wrong(value, f"a list of one to three of {', '.join(OBJECTIVES)}, or functions")
        return names

    @field_validator("objectives", mode="after")
    @classmethod
    def _differ(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        names = [objective.name for objective in objectives]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise wrong(names, f"each objective once, and {twice} is there twice")
        return objectives

    @field_validator("constraints", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        if not isinstance(value, str | list):
            raise wrong(value, "a list such as [weights <= 50_000]")
        return [value] if isinstance(value, str) else value

    @field_validator("rungs", mode="before")
    @classmethod
    def _rising(cls, value: object, info: ValidationInfo) -> object:
        epochs = info.data.get("epochs")
        if not value and not isinstance(value, list):
            return (epochs,) if epochs else ()
        if not isinstance(value, list) or not value or not all(type(rung) is int and rung >= 1 for rung in value):
            raise wrong(value, f"a rising list of epochs that ends with epochs = {epochs}, or null for no halving")
        if epochs is not None and (sorted(set(value)) != value or value[-1] != epochs):
            raise wrong(value, f"epochs in rising order, the last being epochs = {epochs}")
        return tuple(value)

    @property
    def overrides(self) -> list[str]:
        """The base as overrides for :func:`ramify.config.read.read_config`."""
        return [*(f"{key}={to_text(value)}" for key, value in self.base), f"train.epochs={self.epochs}"]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the objectives."""
        return tuple(objective.name for objective in self.objectives)

    @property
    def cohort(self) -> int:
        """Trials that are compared with each other: as many as leave one at the last rung."""
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
        changes: fields that replace those of the document, such as ``sampler="random"``; None changes none.

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
        hint = nearest_or_all(source, sorted(ready))
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
        ConfigError: all problems, each sentence beginning with ``where``.

    Example:
        >>> space = parse_space("vary: {train.learning_rate: {log: [0.01, 0.1]}}\\nobjectives: [accuracy]")
        >>> space.rungs, space.vary[0].bounds
        ((30,), (0.01, 0.1))
    """
    try:
        read = yaml.load(text, Loader=Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{where}: is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(read, dict):
        raise ConfigError(f"{where}: got {to_text(read)}; accepted: a mapping with {', '.join(Space.model_fields)}")
    document = {str(key): value for key, value in read.items()}
    document |= {key: value for key, value in (changes or {}).items() if value is not None}
    base, epochs, problems = _base(document.get("base"), overrides)
    varied = list(dotted(document["vary"])) if isinstance(document.get("vary"), dict) else []
    space: Space | None = None
    try:
        space = Space.model_validate({"vary": None, "epochs": epochs, **document, "base": base})
    except ValidationError as error:
        for detail in error.errors():
            names = varied if detail["loc"][0] == "vary" else []
            path = [names[part] if names and isinstance(part, int) else part for part in detail["loc"]]
            problems.append(_sentence([part for part in path if isinstance(part, str)], detail))
    problems += [f"{key}: stands in base and in vary; accepted: one of them" for key in varied if key in dict(base)]
    if space is None or problems:
        raise ConfigError(*(f"{where}: {problem}" for problem in dict.fromkeys(problems)))
    return space


def _sentence(at: list[str], detail: ErrorDetails) -> str:
    """An error of pydantic as a sentence."""
    context = detail.get("ctx", {})
    at = [*at, context["at"]] if context.get("at") else at
    name, known = str(context.get("name", at[-1])), list(context.get("known", []))
    if detail["type"] == "extra_forbidden":
        known = list(Space.model_fields)
    if known:
        at = at[:-1] if at[-1] == name else at
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        near = near or [key for key in known if key.rpartition(".")[2] == name.rpartition(".")[2]]
        hint = f"nearest: {near[0]}" if near else f"accepted: {', '.join(known[:8])}"
        return f"{': '.join(at) or 'space'}: unknown name {name}; {hint}"
    if detail["type"] in ("wrong", "owned"):
        return f"{': '.join(at)}{' ' if detail['type'] == 'owned' else ': '}{detail['msg']}"
    accepts = accepts_of(Space.model_fields[at[0]])
    return f"{': '.join(at)}: got {to_text(as_lists(detail['input']))}; accepted: {accepts}"


def space_yaml(space: Space) -> str:
    """The space as YAML with every value, which :func:`parse_space` reads back to an equal one."""
    document = {
        "base": dict(space.base),
        "vary": {vary.key: vary.document() for vary in space.vary},
        "objectives": [
            it.name if it.name in OBJECTIVES else {"name": it.name, "function": it.function, "better": it.better}
            for it in space.objectives
        ],
        "constraints": [constraint.text for constraint in space.constraints],
        **{name: getattr(space, name) for name in ("epochs", "rungs", "eta", "max_drop", "sampler", "inherit", "seed")},
    }
    return yaml.dump(as_lists(document), Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)


def _base(base: object, overrides: Sequence[str]) -> tuple[tuple[tuple[str, object], ...], int, list[str]]:
    """The base as keys and values, its epochs, and its problems."""
    values: dict[str, object] = {}
    problems: list[str] = []
    if isinstance(base, str):
        # Of a configuration file, the keys that are not the defaults.
        try:
            defaults = dotted(yaml.load(to_yaml(Config()), Loader=Loader))
            read = dotted(yaml.load(to_yaml(read_config([Path(base)])), Loader=Loader))
            values = {key: value for key, value in read.items() if value != defaults[key]}
        except ConfigError as error:
            problems += [f"base: {problem}" for problem in error.problems]
    elif isinstance(base, dict):
        values = dotted(base)
    elif isinstance(base, list):
        overrides = [*map(str, base), *overrides]
    elif base is not None:
        got = to_text(as_lists(base))
        accepts = "keys and values, key=value overrides, or the path of a configuration file"
        problems.append(f"base: got {got}; accepted: {accepts}")
    epochs = values.pop("train.epochs", None) if isinstance(base, str) else None
    texts = [*(f"{key}={to_text(value)}" for key, value in values.items()), *overrides]
    for key in dict.fromkeys(text.partition("=")[0] for text in texts):
        if key in OWNED:
            problems.append(f"base: {key} is set by the search; accepted: {OWNED[key]}")
    config = Config()
    try:
        config = read_config(overrides=[text for text in texts if text.partition("=")[0] not in OWNED])
    except ConfigError as error:
        # Contradictions are left to the trials: without the varied keys they mean nothing.
        problems += [f"base: {problem.replace(' (command line)', '')}" for problem in own_faults(error)]
    if config.data.valid_fraction == 0:
        accepts = "more than 0, as trials are compared on validation pictures"
        problems.append(f"base: data.valid_fraction: got 0; accepted: {accepts}")
    for text in overrides:
        key, _, value = text.partition("=")
        if key in KNOWN:
            values[key] = yaml.load(value, Loader=Loader)
    kept = tuple((key, as_tuples(value)) for key, value in values.items() if key in KNOWN and key not in OWNED)
    return kept, epochs if isinstance(epochs, int) and epochs > 0 else config.train.epochs, problems
