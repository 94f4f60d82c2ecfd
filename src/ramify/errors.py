"""The errors of ramify, in sentences for the user.

An :class:`InputError` means that an input is wrong (the command line exits with 2), a :class:`RunError` that the work
failed underway (it exits with 1).
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class RamifyError(Exception):
    """Base of every error that ramify raises on purpose.

    Args:
        *problems: one sentence for each problem; all are reported at once.

    Example:
        >>> str(InputError("a: got 1; accepted: 2", "b: got 3; accepted: 4"))
        'a: got 1; accepted: 2\\nb: got 3; accepted: 4'
    """

    exit_code = 1

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems: tuple[str, ...] = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class InputError(RamifyError):
    """A key, a value or a path is wrong."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration key is unknown, out of range, or contradicts another."""


class DataError(InputError):
    """The pictures cannot be read as a labelled set."""


class CheckpointError(InputError):
    """A saved network is missing, damaged, or written by a newer ramify."""


class RunError(RamifyError):
    """The run failed underway: a loss that is not a number, a full disk, a server that is lost."""


class StoppedError(RunError):
    """The user or the system has stopped the run."""


class ProcessLostError(RunError):
    """Another process that shares the run has died."""


def field_of(error: "ValidationError") -> str:
    """The first field that a validator refused, for a sentence."""
    where = ".".join(map(str, error.errors(include_url=False, include_input=False)[0]["loc"]))[:80]
    more = f" and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"wrong value of {where or 'the whole'}{more}"


def first_line(error: BaseException) -> str:
    """The first line of an error, for a sentence; its type where it says nothing."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def nearest(name: str, known: Iterable[str], cutoff: float = 0.4) -> str:
    """A hint for a ``name`` that is none of the ``known`` ones: the nearest in brackets, nothing where none is near.

    Example:
        >>> nearest("onix", ["onnx", "eager"]), nearest("zzz", ["onnx"])
        (' (nearest: onnx)', '')
    """
    near = difflib.get_close_matches(name, [*known], n=1, cutoff=cutoff)
    return f" (nearest: {near[0]})" if near else ""


def nearest_or_all(name: str, known: Sequence[str], most: int = 8) -> str:
    """A hint for a ``name`` that is none of the ``known`` ones: the nearest of them, or the first of all.

    Example:
        >>> nearest_or_all("dmo", ["demo", "mine"]), nearest_or_all("x", ["demo", "mine"], most=1)
        ('nearest: demo', 'there: demo and 1 more')
    """
    more = f" and {len(known) - most} more" if len(known) > most else ""
    near = nearest(name, known, 0.6).removeprefix(" (").removesuffix(")")
    return near or f"there: {', '.join(known[:most]) or 'none'}{more}"


def unknown_name(where: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a ``name`` that is none of the ``known`` ones, with the nearest of them.

    Example:
        >>> unknown_name("engines", "onix", ["onnx", "eager"])
        "engines: got 'onix' (nearest: onnx); accepted: onnx, eager"
    """
    names = [*known]
    return f"{where}: got {name!r}{nearest(name, names)}; accepted: {', '.join(names)}"
