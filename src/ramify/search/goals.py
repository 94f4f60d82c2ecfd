"""What counts in a search: its objectives, and what a network must keep to."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

OBJECTIVES = {
    "accuracy": "share of the validation pictures answered rightly; with macs or latency, by the exit policy",
    "macs": "average multiply-accumulates of an answer by the exit policy",
    "weights": "convolution and linear weights that are kept",
    "parameters": "every parameter: weights, biases, batch norm",
    "latency": "average milliseconds of an answer by the exit policy, measured here",
}
"""What may be an objective; accuracy is to be high, all others low."""

_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_CONSTRAINT = re.compile(r"^\s*([a-z_]+)\s*(<=|>=|<|>)\s*([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)\s*(%?)\s*$")


@dataclass(frozen=True)
class Constraint:
    """``name sign limit``, such as ``weights <= 50000``."""

    text: str
    name: str
    sign: str
    limit: float

    def met(self, values: Mapping[str, float]) -> bool:
        """Whether a network with these ``values`` keeps to it."""
        return _SIGNS[self.sign](values[self.name], self.limit)

    def excess(self, values: Mapping[str, float]) -> float:
        """By how much of the limit it is missed: 0 or less where it is met."""
        off = (values[self.name] - self.limit) / (abs(self.limit) or 1.0)
        missed = off if self.sign.startswith("<") else -off
        # With < and >, a value on the limit itself does not keep to it.
        return missed if self.met(values) else max(missed, 1e-9)


def parse_constraint(text: str) -> Constraint | None:
    """The constraint that ``text`` says, or None where it says none.

    Example:
        >>> parse_constraint("weights <= 50_000").limit
        50000.0
        >>> parse_constraint("accuracy >= 95 %").limit
        0.95
        >>> parse_constraint("small") is None
        True
    """
    found = _CONSTRAINT.match(text)
    if found is None:
        return None
    name, sign, number, percent = found.groups()
    return Constraint(text.strip(), name, sign, float(number) / (100 if percent else 1))


def feasible(values: Mapping[str, float], constraints: Sequence[Constraint]) -> bool:
    """Whether ``values`` keep to every one of ``constraints``."""
    return all(constraint.met(values) for constraint in constraints)


def costs(values: Mapping[str, float], objectives: Sequence[str]) -> tuple[float, ...]:
    """The objectives as numbers of which less is better.

    Example:
        >>> costs({"accuracy": 0.9, "weights": 1000}, ["accuracy", "weights"])
        (-0.9, 1000)
    """
    return tuple(-values[name] if name == "accuracy" else values[name] for name in objectives)


def directions(objectives: Sequence[str]) -> list[Literal["maximize", "minimize"]]:
    """``maximize`` or ``minimize`` for each objective."""
    return ["maximize" if name == "accuracy" else "minimize" for name in objectives]


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether costs ``one`` are nowhere worse than ``other``, and somewhere better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)
