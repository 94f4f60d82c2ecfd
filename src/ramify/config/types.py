"""The base of every section of a configuration, and the types of values with what they accept in words."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function


@dataclass(frozen=True)
class Accepts:
    """What a key accepts, in words; a function reads a registry, which is then imported on demand."""

    words: str | Callable[[], str]


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a truth value is not a number")
    return value


Text = Annotated[str, Field(min_length=1)]
Whole = Annotated[int, BeforeValidator(_not_bool)]
Natural = Annotated[Whole, Field(ge=0), Accepts("a whole number >= 0")]
Count = Annotated[Whole, Field(ge=1), Accepts("a whole number >= 1")]
AtLeastTwo = Annotated[Whole, Field(ge=2), Accepts("a whole number >= 2")]
Bit = Annotated[Whole, Field(ge=0, le=1)]
Size = Annotated[Whole, Field(ge=8, le=16384)]
Width = Annotated[Whole, Field(ge=1, le=65536)]
Channel = Annotated[Whole, Field(ge=0, le=255)]
Number = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0), Accepts("a number > 0")]
AtLeastZero = Annotated[Number, Field(ge=0), Accepts("a number >= 0")]
Share = Annotated[Number, Field(ge=0, le=1), Accepts("a number in [0, 1]")]
Ratio = Annotated[Number, Field(gt=0, le=1), Accepts("a number in (0, 1]")]
BelowOne = Annotated[Number, Field(ge=0, lt=1), Accepts("a number in [0, 1)")]
Fraction = Annotated[Number, Field(gt=0, lt=1), Accepts("a number in (0, 1)")]

Scalar = bool | Whole | Number | str | None
Argument = Scalar | tuple[Scalar, ...]
"""What ``network.module_args`` may hold."""


@dataclass(frozen=True)
class Listed:
    """Of a key that takes a name in a registry.

    Attributes:
        names: imports the registry on demand.
        usual: a name for which it is not asked.
        summaries: of the names, which go on with the meaning of the key.
    """

    names: Callable[[], Iterable[str]]
    usual: str
    summaries: Callable[[], Iterable[str]] = tuple

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def _check(self, value: str) -> str:
        if value != self.usual and value not in self.names():
            raise ValueError("an unknown name")
        return value


class Section(BaseModel):
    """A group of keys: immutable, and closed to keys that do not exist; the docstring of a key is its meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
