"""One entry of ``vary`` in a space, checked by pydantic, and its errors."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import yaml
from pydantic import model_validator
from pydantic_core import PydanticCustomError

from ramify.config.keys import accepted, dotted, keys
from ramify.config.read import read_config
from ramify.config.types import Section
from ramify.config.yamltext import Loader, to_text
from ramify.errors import ConfigError

SPECIAL = ("structure", "keep_ratio_by_stage", "growth_times")
"""Entries of ``vary`` that are no keys; :mod:`ramify.search.draw` makes values of keys of them."""
OWNED = {"train.epochs": "epochs of the space", "name": "nothing, as each trial has its own", "runs_dir": "nothing"}
"""Keys that a search sets itself, and what is accepted in their place."""
KNOWN = (*dict(keys()), *SPECIAL)
FORMS = "{choice: [...]}, {int: [low, high]}, {float: [low, high]}, {log: [low, high]}"
Kind = Literal["choice", "int", "float", "log", "structure"]
_KINDS: tuple[Kind, ...] = ("choice", "int", "float", "log")


def refused(text: str, at: str = "") -> PydanticCustomError:
    """The error ``text``, of the field ``at``."""
    return PydanticCustomError("wrong", "{text}", {"text": text, "at": at})


def wrong(got: object, accepts: str, at: str = "") -> PydanticCustomError:
    """The error for a value, of the field ``at``."""
    return refused(f"got {to_text(as_lists(got))}; accepted: {accepts}", at)


def unknown(name: str, known: Sequence[str], at: str = "") -> PydanticCustomError:
    """The error for a name that is none of ``known``, in the field ``at``."""
    return PydanticCustomError("unknown", "{name}", {"name": name, "known": list(known), "at": at})


def _fits(key: str, value: object) -> bool:
    """Whether ``key`` accepts ``value``, whatever the other keys say."""
    try:
        read_config(overrides=[f"{key}={to_text(as_lists(value))}"])
    except ConfigError as error:
        return not list(own_faults(error))
    return True


def own_faults(error: ConfigError) -> Iterator[str]:
    """The problems of single values; contradictions are left to the trials."""
    for problem in error.problems:
        key = problem.partition(":")[0]
        if key not in KNOWN or "got" not in problem or f"accepted: {accepted(key)}" in problem:
            yield problem


class Vary(Section):
    """An entry of ``vary``.

    Attributes:
        key: of the configuration, or one of :data:`SPECIAL`.
        values: the choices, lower and upper bound, or of a structure the bounds of its cells and of its exits.
        condition: keys and the values that they must have for this to vary; empty is always.
    """

    key: str
    kind: Kind
    values: tuple[object, ...]
    condition: tuple[tuple[str, tuple[object, ...]], ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _parsed(cls, item: object) -> object:
        assert isinstance(item, tuple)
        key, entry = item
        if key not in KNOWN:
            raise unknown(key, KNOWN)
        if key in OWNED:
            raise PydanticCustomError("owned", "is set by the search; accepted: {text}", {"text": OWNED[key]})
        if not isinstance(entry, dict):
            raise wrong(entry, FORMS)
        condition = _condition(entry["if"]) if "if" in entry else ()
        forms = {name: value for name, value in entry.items() if name != "if"}
        kind, values = _structure(forms) if key == "structure" else _form(key, forms)
        return {"key": key, "kind": kind, "values": values, "condition": condition}

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound of a number."""
        low, high = self.values
        assert isinstance(low, int | float)
        assert isinstance(high, int | float)
        return low, high

    def document(self) -> dict[str, object]:
        """The entry for a YAML file."""
        names = ("cells", "exits") if self.kind == "structure" else (self.kind,)
        values = self.values if self.kind == "structure" else (self.values,)
        entry = {name: as_lists(value) for name, value in zip(names, values, strict=True)}
        return {**entry, "if": {key: list(values) for key, values in self.condition}} if self.condition else entry


def _structure(entry: Mapping[str, object]) -> tuple[Kind, tuple[object, ...]]:
    if set(entry) != {"cells", "exits"}:
        raise wrong(entry, "{cells: [low, high], exits: [low, high]}")
    cells, exits = (_bounds(name, entry[name]) for name in ("cells", "exits"))
    if exits[0] > cells[0] + 1:
        accepts = f"from at most {cells[0] + 1} on, as there may be {cells[0]} cells"
        raise wrong({"exits": exits}, accepts)
    return "structure", (cells, exits)


def _form(key: str, entry: Mapping[str, object]) -> tuple[Kind, tuple[object, ...]]:
    strange = next((name for name in entry if name not in _KINDS), None)
    if strange is not None:
        raise unknown(strange, [*_KINDS, "if"])
    kinds = [kind for kind in _KINDS if kind in entry]
    if len(kinds) != 1:
        raise wrong(entry, "one of choice, int, float, log, and if")
    kind, value = kinds[0], entry[kinds[0]]
    values = _choices(value) if kind == "choice" else _bounds(kind, value)
    if key in SPECIAL:
        if kind not in ("float", "log") or not 0 < values[0] <= values[1] <= 1:  # type: ignore[operator]
            raise wrong({kind: values}, "{float: [low, high]}, shares in (0, 1]")
        return kind, values
    for one in values:
        if not _fits(key, one):
            raise wrong(one, accepted(key))
    return kind, values


def _bounds(name: str, value: object) -> tuple[int | float, int | float]:
    """``[low, high]``, whole but for ``float`` and ``log``; of ``cells`` and ``exits`` from 1 on, and perhaps equal."""
    part, whole = name in ("cells", "exits"), name in ("int", "cells", "exits")
    types = int if whole else int | float
    numbers = value if isinstance(value, list) else []
    if len(numbers) != 2 or not all(isinstance(it, types) and not isinstance(it, bool) for it in numbers):
        accepts = f"[low, high], two {'whole numbers' if whole else 'numbers'}{' from 1 on' if part else ''}"
        raise wrong(value, accepts, name)
    low, high = numbers
    if part and not 1 <= low <= high:
        raise wrong(value, "[low, high], two whole numbers from 1 on, low <= high", name)
    if not part and not low < high:
        raise wrong(value, "[low, high] with low < high", name)
    if name == "log" and low <= 0:
        raise wrong(value, "numbers > 0", name)
    return low, high


def _choices(value: object) -> tuple[object, ...]:
    if not isinstance(value, list) or not value:
        raise wrong(value, "a list of one value or more", "choice")
    texts = list(map(to_text, value))
    twice = [text for text in texts if texts.count(text) > 1]
    if twice:
        raise wrong(value, f"each value once, and {twice[0]} is there twice", "choice")
    return tuple(map(as_tuples, value))


def _condition(entry: object) -> tuple[tuple[str, tuple[object, ...]], ...]:
    conditions: dict[str, object] = {entry: True} if isinstance(entry, str) else {}
    if isinstance(entry, dict):
        conditions = dotted(entry)
    if not conditions:
        raise wrong(entry, "a key that is true or false, or {key: value}", "if")
    checked: list[tuple[str, tuple[object, ...]]] = []
    for key, value in conditions.items():
        values = value if isinstance(value, list) else [value]
        if key not in dict(keys()):
            raise unknown(key, KNOWN, "if")
        for one in values:
            if not _fits(key, one):
                raise wrong(one, f"{accepted(key)} ({key})", "if")
        checked.append((key, tuple(map(as_tuples, values))))
    return tuple(checked)


def as_lists(value: object) -> object:
    """``value`` with lists in place of tuples, as YAML has them."""
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    return list(map(as_lists, value)) if isinstance(value, list | tuple) else value


def as_tuples(value: object) -> object:
    """``value`` with tuples in place of lists."""
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


def check_name(name: str) -> None:
    """Raise a ConfigError unless ``name`` suits a search or sweep and its folder."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name) is None:
        raise ConfigError(f"name: got {name!r}; accepted: letters, digits, '.', '_' and '-'")


def read_mapping(path: Path, accepts: str, where: str = "") -> dict[str, object]:
    """The mapping in a YAML file; a :class:`ConfigError` begins with ``where`` and says what it ``accepts``."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    except FileNotFoundError:
        raise ConfigError(f"{where}{path}: got a file that does not exist; accepted: {accepts}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}{path}: cannot be read as a text file ({error})") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{where}{path}: is not one YAML document ({' '.join(str(error).split())})") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{where}{path}: got {to_text(document)}; accepted: {accepts}")
    return {str(key): value for key, value in document.items()}
