"""What every section of a configuration is made of: the description of a key, and the types of values."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


@dataclass(frozen=True)
class Key:
    """What a person must know of a key: the values it accepts, and what it does.

    Either is a text, or a function that gives it where a registry says it, which is not imported before it is asked.
    """

    accepted_values: str | Callable[[], str]
    description: str | Callable[[], str]

    @property
    def accepts(self) -> str:
        """The values that it accepts, in words."""
        return self.accepted_values if isinstance(self.accepted_values, str) else self.accepted_values()

    @property
    def meaning(self) -> str:
        """What it does."""
        return self.description if isinstance(self.description, str) else self.description()


def not_a_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a truth value is not a number")
    return value


def as_name(value: object) -> object:
    # In YAML the name of a digit is a number.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def as_pairs(value: object) -> object:
    # A configuration is hashed, which a mapping cannot be.
    return tuple(value.items()) if isinstance(value, dict) else value


Whole = Annotated[int, BeforeValidator(not_a_truth_value)]
Number = Annotated[float, BeforeValidator(not_a_truth_value), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
Count = Annotated[Whole, Field(ge=1)]
Ratio = Annotated[Number, Field(gt=0, le=1)]
Bit = Annotated[Whole, Field(ge=0, le=1)]
Size = Annotated[Whole, Field(ge=8, le=16384)]
Width = Annotated[Whole, Field(ge=1, le=65536)]
Share = Annotated[Number, Field(ge=0, le=1)]
AtLeastZero = Annotated[Number, Field(ge=0)]

Scalar = bool | Whole | Number | str | None
Argument = Scalar | tuple[Scalar, ...]
"""What ``network.module_args`` may hold."""

Channel = Annotated[Whole, Field(ge=0, le=255)]


def listed(names: Callable[[], Iterable[str]], usual: str) -> AfterValidator:
    """Refuses what a registry does not list; it is not imported for the usual value."""

    def check(value: str) -> str:
        if value != usual and value not in names():
            raise ValueError("an unknown name")
        return value

    return AfterValidator(check)


class Section(BaseModel):
    """A group of keys: immutable, and closed to keys that do not exist."""

    model_config = ConfigDict(frozen=True, extra="forbid")
