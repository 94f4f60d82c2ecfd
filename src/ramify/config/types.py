"""The base of every section of a configuration: the description of a key, and the types of values."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


@dataclass(frozen=True)
class Key:
    """The documentation of a key: the values that it accepts, and its meaning.

    Either is a text, or a function that reads a registry, which is then imported on demand.
    """

    accepted_values: str | Callable[[], str]
    description: str | Callable[[], str]

    @property
    def accepts(self) -> str:
        """The accepted values, in words."""
        return self.accepted_values if isinstance(self.accepted_values, str) else self.accepted_values()

    @property
    def meaning(self) -> str:
        """What the key does."""
        return self.description if isinstance(self.description, str) else self.description()


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a truth value is not a number")
    return value


def as_name(value: object) -> object:
    # YAML reads the name of a digit as a number.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def as_pairs(value: object) -> object:
    # A configuration is hashable, and a mapping is not.
    return tuple(value.items()) if isinstance(value, dict) else value


Text = Annotated[str, Field(min_length=1)]
Whole = Annotated[int, BeforeValidator(_not_bool)]
Number = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]
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
    """Refuses names that a registry lacks; the registry is not imported for the ``usual`` name."""

    def check(value: str) -> str:
        if value != usual and value not in names():
            raise ValueError("an unknown name")
        return value

    return AfterValidator(check)


class Section(BaseModel):
    """A group of keys: immutable, and closed to keys that do not exist."""

    model_config = ConfigDict(frozen=True, extra="forbid")
