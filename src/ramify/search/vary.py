"""One entry of ``vary`` in a space, checked by pydantic, and its errors."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ramify.config.read import read_config
from ramify.config.rules import SECTIONS, accepted, keys
from ramify.config.types import Section
from ramify.config.yamltext import to_text
from ramify.errors import ConfigError

SPECIAL = ("structure", "keep_ratio_by_stage", "growth_times")
"""Entries of ``vary`` that are no keys; :mod:`ramify.search.draw` makes values of keys of them."""
OWNED = {"train.epochs": "epochs of the space", "name": "nothing, as each trial has its own", "runs_dir": "nothing"}
"""Keys that a search sets itself, and what is accepted in their place."""
KNOWN = (*dict(keys()), *SPECIAL)
FORMS = "{choice: [...]}, {int: [low, high]}, {float: [low, high]}, {log: [low, high]}"


def wrong(got: object, accepts: str) -> PydanticCustomError:
    """The error for a value."""
    return PydanticCustomError("wrong", "{text}", {"text": f"got {to_text(as_lists(got))}; accepted: {accepts}"})


def unknown(name: str, known: Sequence[str]) -> PydanticCustomError:
    """The error for a name that is none of ``known``."""
    return PydanticCustomError("unknown", "{name}", {"name": name, "known": list(known)})


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


def _range(value: object, info: ValidationInfo) -> object:
    """``[low, high]`` of the kind that the field is named for; of a structure from 1 on, and perhaps equal."""
    kind = str(info.field_name).removesuffix("_")
    part, whole = kind in ("cells", "exits"), kind in ("int", "cells", "exits")
    numbers = isinstance(value, list) and len(value) == 2
    types = int if whole else int | float
    if not numbers or not all(isinstance(number, types) and not isinstance(number, bool) for number in value):  # type: ignore[attr-defined]
        raise wrong(value, f"[low, high], two {'whole numbers' if whole else 'numbers'}{' from 1 on' if part else ''}")
    assert isinstance(value, list)
    low, high = value
    if part and not 1 <= low <= high:
        raise wrong(value, "[low, high], two whole numbers from 1 on, low <= high")
    if not part and not low < high:
        raise wrong(value, "[low, high] with low < high")
    if kind == "log" and low <= 0:
        raise wrong(value, "numbers > 0")
    return tuple(value)


Bounds = Annotated[tuple[int | float, int | float] | None, BeforeValidator(_range)]
Kind = Literal["choice", "int", "float", "log", "structure"]


class Vary(Section):
    """An entry of ``vary``, in one of the :data:`FORMS` or as a structure.

    Attributes:
        key: of the configuration, or one of :data:`SPECIAL`.
        condition: keys and the values that they must have for this to vary; empty is always.
    """

    key: str
    choice: tuple[object, ...] | None = None
    int_: Bounds = Field(None, alias="int")
    float_: Bounds = Field(None, alias="float")
    log: Bounds = None
    cells: Bounds = None
    exits: Bounds = None
    condition: tuple[tuple[str, tuple[object, ...]], ...] = Field((), alias="if")

    @model_validator(mode="before")
    @classmethod
    def _shape(cls, item: object) -> object:
        assert isinstance(item, tuple)
        key, entry = item
        if key not in KNOWN:
            raise unknown(key, KNOWN)
        if key in OWNED:
            raise PydanticCustomError("owned", "is set by the search; accepted: {text}", {"text": OWNED[key]})
        if not isinstance(entry, dict):
            raise wrong(entry, FORMS)
        if key == "structure" and not {"cells", "exits"} <= set(entry) <= {"cells", "exits", "if"}:
            raise wrong(entry, "{cells: [low, high], exits: [low, high]}")
        return {"key": key, **entry}

    @field_validator("choice", mode="before")
    @classmethod
    def _choices(cls, value: object) -> object:
        if not isinstance(value, list) or not value:
            raise wrong(value, "a list of one value or more")
        texts = list(map(to_text, value))
        twice = [text for text in texts if texts.count(text) > 1]
        if twice:
            raise wrong(value, f"each value once, and {twice[0]} is there twice")
        return tuple(map(as_tuples, value))

    @field_validator("condition", mode="before")
    @classmethod
    def _conditions(cls, entry: object) -> object:
        conditions: dict[str, object] = {entry: True} if isinstance(entry, str) else {}
        if isinstance(entry, dict):
            conditions = dotted(entry)
        if not conditions:
            raise wrong(entry, "a key that is true or false, or {key: value}")
        checked: list[tuple[str, tuple[object, ...]]] = []
        for key, value in conditions.items():
            values = value if isinstance(value, list) else [value]
            if key not in dict(keys()):
                raise unknown(key, KNOWN)
            for one in values:
                if not _fits(key, one):
                    raise wrong(one, f"{accepted(key)} ({key})")
            checked.append((key, tuple(map(as_tuples, values))))
        return tuple(checked)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.key == "structure":
            (fewest, _), (least, _) = self.cells or (1, 1), self.exits or (1, 1)
            if least > fewest + 1:
                accepts = f"from at most {fewest + 1} on, as there may be {fewest} cells"
                raise wrong({"exits": self.exits}, accepts)
            return self
        kinds = [name for name in ("choice", "int_", "float_", "log") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise wrong(
                {name.strip("_"): getattr(self, name) for name in kinds}, "one of choice, int, float, log, and if"
            )
        if self.key in SPECIAL and (self.kind not in ("float", "log") or not 0 < self.bounds[0] <= self.bounds[1] <= 1):
            raise wrong({self.kind: self.values}, "{float: [low, high]}, shares in (0, 1]")
        for value in () if self.key in SPECIAL else self.values:
            if not _fits(self.key, value):
                raise wrong(value, accepted(self.key))
        return self

    @property
    def kind(self) -> Kind:
        """The form of the entry."""
        if self.cells is not None:
            return "structure"
        if self.choice is not None:
            return "choice"
        return "int" if self.int_ is not None else "float" if self.float_ is not None else "log"

    @property
    def values(self) -> tuple[object, ...]:
        """The choices, the bounds, or of a structure the bounds of its cells and of its exits."""
        if self.cells is not None:
            return self.cells, self.exits
        return self.choice or self.int_ or self.float_ or self.log or ()

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound of a number."""
        low, high = self.int_ or self.float_ or self.log or (0, 0)
        return low, high

    def document(self) -> dict[str, object]:
        """The entry for a YAML file."""
        if self.cells is not None and self.exits is not None:
            entry: dict[str, object] = {"cells": list(self.cells), "exits": list(self.exits)}
        else:
            entry = {self.kind: list(self.values)}
        return {**entry, "if": {key: list(values) for key, values in self.condition}} if self.condition else entry


def as_lists(value: object) -> object:
    """``value`` with lists in place of tuples, as YAML has them."""
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    return list(map(as_lists, value)) if isinstance(value, list | tuple) else value


def as_tuples(value: object) -> object:
    """``value`` with tuples in place of lists."""
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


def dotted(sections: Mapping[object, object], prefix: str = "") -> dict[str, object]:
    """Nested sections as dotted keys.

    Example:
        >>> dotted({"train": {"epochs": 3}, "seed": 1})
        {'train.epochs': 3, 'seed': 1}
    """
    values: dict[str, object] = {}
    for name, value in sections.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key in SECTIONS:
            values |= dotted(value, f"{key}.")
        else:
            values[key] = value
    return values
