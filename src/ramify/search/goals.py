"""Objectives and constraints of a search."""

import importlib
import importlib.util
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ramify.data.pictures import Part
from ramify.errors import ConfigError
from ramify.nn.branching import Branching

OBJECTIVES = {
    "accuracy": "share of the validation pictures answered rightly; with macs or latency, by the exit policy",
    "macs": "average multiply-accumulates of an answer by the exit policy",
    "weights": "convolution and linear weights that are kept",
    "parameters": "every parameter: weights, biases, batch norm",
    "latency": "average milliseconds of an answer by the exit policy, measured on the device that trains the trial",
    "int8_bytes": "bytes of the int8 export (all_exits.onnx)",
}
"""The objectives besides functions of the user; accuracy is maximized, all others minimized."""

_FUNCTIONS = {"int8_bytes": "ramify.exporting.quantize:int8_bytes"}
"""Objectives that are computed by a function."""

OwnObjective = Callable[[Branching, Part], float]
"""A function of the fully grown network, in evaluation mode, and the validation pictures."""


@dataclass(frozen=True)
class Objective:
    """One of :data:`OBJECTIVES`, or a ``function``: ``module:function`` or ``file.py:function``."""

    name: str
    better: Literal["low", "high"] = "low"
    function: str | None = None


def builtin(name: str) -> Objective:
    """The objective of :data:`OBJECTIVES` with this name."""
    return Objective(name, "high" if name == "accuracy" else "low", _FUNCTIONS.get(name))


def load_function(address: str) -> OwnObjective:
    """The function at ``module:function`` or ``path/to/file.py:function``.

    Raises:
        ConfigError: there is none, or its file cannot be run.
    """
    place, _, name = address.rpartition(":")
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(place).stem, place)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
        function: object = getattr(module, name)
    except Exception as error:  # the file of a user may raise anything
        why = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"objectives: got {address!r} ({why}); accepted: module:function or file.py:function"
        ) from None
    if not callable(function):
        raise ConfigError(f"objectives: got {address!r}, which is no function; accepted: module:function")
    return function


_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_CONSTRAINT = re.compile(r"^\s*(\w+)\s*(<=|>=|<|>)\s*([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)\s*(%?)\s*$")


@dataclass(frozen=True)
class Constraint:
    """``name sign limit``, such as ``weights <= 50000``."""

    text: str
    name: str
    sign: str
    limit: float

    def met(self, values: Mapping[str, float]) -> bool:
        """Whether ``values`` meet it."""
        return _SIGNS[self.sign](values[self.name], self.limit)

    def excess(self, values: Mapping[str, float]) -> float:
        """By how much it is missed, as a share of the limit: 0 or less where it is met."""
        off = (values[self.name] - self.limit) / (abs(self.limit) or 1.0)
        missed = off if self.sign.startswith("<") else -off
        # With < and >, a value on the limit misses it.
        return missed if self.met(values) else max(missed, 1e-9)


def parse_constraint(text: str) -> Constraint | None:
    """The constraint in ``text``, or None where it is no constraint.

    Example:
        >>> parse_constraint("weights <= 50_000").limit
        50000.0
        >>> parse_constraint("accuracy >= 95 %").limit
        0.95
        >>> parse_constraint("small") is None
        True
    """
    match = _CONSTRAINT.match(text)
    if match is None:
        return None
    name, sign, number, percent = match.groups()
    return Constraint(text.strip(), name, sign, float(number) / (100 if percent else 1))


def feasible(values: Mapping[str, float], constraints: Sequence[Constraint]) -> bool:
    """Whether ``values`` meet all ``constraints``."""
    return all(constraint.met(values) for constraint in constraints)


def costs(values: Mapping[str, float], objectives: Sequence[Objective]) -> tuple[float, ...]:
    """The objectives as numbers to be minimized.

    Example:
        >>> costs({"accuracy": 0.9, "weights": 1000}, [builtin("accuracy"), builtin("weights")])
        (-0.9, 1000)
    """
    return tuple(-values[it.name] if it.better == "high" else values[it.name] for it in objectives)


def directions(objectives: Sequence[Objective]) -> list[Literal["maximize", "minimize"]]:
    """``maximize`` or ``minimize`` for each objective."""
    return ["maximize" if objective.better == "high" else "minimize" for objective in objectives]


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether costs ``one`` are nowhere worse than ``other``, and somewhere better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)
