"""``ramify.json``: what an exported folder says of its network, read and checked with the standard library alone."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TypedDict, TypeGuard, TypeVar

from ramify.errors import InputError
from ramify.files import is_file
from ramify.sealed import check_seal, checksum, parse_object, read_checked, sealed_json

FORMAT = 1
"""Version of the file; a reader refuses those of a later one."""

CARD = "ramify.json"
CHECKSUMS = "checksums"
"""The field of the card with the SHA-256 of every other file of the folder, by its name."""
VALUES = 2**28
"""The most values that a picture may have."""
CRITERIA = ("max_probability", "margin", "entropy", "patience")

T = TypeVar("T")


@dataclass(frozen=True)
class ExportedExit:
    """One exit: what it costs to answer there, for one picture, and how often it is right, in [0, 1] or None.

    ``weights`` are those that no mask removes.
    """

    cells: int
    macs: int
    weights: int
    valid: float | None
    test: float | None


@dataclass(frozen=True)
class Exported:
    """An exported network.

    Attributes:
        name: of the run.
        precision: ``float32`` or ``int8``.
        input_shape: (C, H, W).
        classes: names, in the order of the logits.
        exits: shallowest first.
        thresholds: one for each exit but the last; None lets no picture go.
        criterion: what confidence is, one of :data:`CRITERIA`.
        temperatures: one for each exit, or None where all are 1.
        told: by which policy it answers, in one sentence.
        stages: the files of the stages.
        background: what transparent pictures are laid on.
        range: the values of 16- and 32-bit pictures that become 0 and 255; None where each picture's own do.
        checksums: SHA-256 of the files, by path; empty in an export of an older ramify.
    """

    name: str
    precision: str
    input_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    exits: tuple[ExportedExit, ...]
    thresholds: tuple[float | None, ...]
    criterion: str
    temperatures: tuple[float, ...] | None
    told: str
    stages: tuple[Path, ...]
    background: tuple[int, int, int] = (255, 255, 255)
    range: tuple[float, float] | None = None
    checksums: Mapping[Path, str] = field(default_factory=dict)

    def read_stage(self, path: Path) -> bytes:
        """The content of one of :attr:`stages`.

        Raises:
            OSError: it is missing or cannot be read.
            InputError: it is not the file that was exported.
        """
        return read_checked(path, self.checksums.get(path))

    def at_threshold(self, threshold: float) -> "Exported":
        """The same network, but a picture leaves at the first exit whose highest probability reaches ``threshold``.

        Raises:
            InputError: it is not in [0, 1].
        """
        if not 0 <= threshold <= 1:
            raise InputError(f"threshold: got {threshold:g}; accepted: a number in [0, 1]")
        return replace(
            self,
            thresholds=(threshold,) * len(self.thresholds),
            criterion="max_probability",
            temperatures=None,
            told=f"policy: leave where the highest probability reaches {threshold:g}, as asked for; not calibrated",
        )


def is_exported(folder: Path) -> bool:
    """Whether ``folder`` was written by ``ramify export``, to ONNX or to PyTorch programs."""
    return is_file(folder / CARD)


def with_checksums(contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of an export, with the checksums of them all in its card, and that of the card."""
    document = parse_object(contents[CARD], CARD)
    document[CHECKSUMS] = {name: checksum(content) for name, content in contents.items() if name != CARD}
    return {**contents, CARD: sealed_json(document)}


def read_exported(folder: Path) -> Exported:
    """What the exported ``folder`` says of its network.

    Raises:
        InputError: its ``ramify.json`` is missing, damaged, or of a later format.
    """
    path = folder / CARD
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; accepted: a folder of ramify export --to onnx") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    document = parse_object(content, str(path))
    version = document.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise InputError(f"{path}: got format {version}; accepted: up to {FORMAT}; upgrade ramify to read it")
    document = check_seal(document, str(path))

    def take(key: str, right: Callable[[object], TypeGuard[T]]) -> T:
        """The field ``key``, as ``a.b`` for one of an inner object."""
        value: object = document
        for part in key.split("."):
            if not _is_object(value) or part not in value:
                raise _damaged(path, f"{key} is missing")
            value = value[part]
        if not right(value):
            raise _damaged(path, f"{key} is {json.dumps(value)[:60]}")
        return value

    channels, height, width = take("input_shape", _is_shape)
    if not take("files.stages", _are_inside):
        raise InputError(f"{folder}: holds PyTorch programs; accepted: a folder of ramify export --to onnx")
    exits = tuple(
        ExportedExit(each["cells"], each["macs"], each["weights"], each["valid"], each["test"])
        for each in take("exits", _are_exits)
    )
    temperatures = take("policy.temperatures", _are_heats)
    found = Exported(
        name=take("name", _is_text),
        precision=take("precision", _is_text),
        input_shape=(channels, height, width),
        classes=tuple(take("classes", _are_texts)),
        exits=exits,
        thresholds=tuple(take("policy.thresholds", _are_thresholds)),
        criterion=take("policy.criterion", _is_criterion),
        temperatures=None if temperatures is None else tuple(temperatures),
        told=take("policy.told", _is_text),
        stages=tuple(folder / name for name in take("files.stages", _are_inside)),
    )
    if CHECKSUMS in document:
        sums = take(CHECKSUMS, _are_checksums)
        found = replace(found, checksums={folder / name: digits for name, digits in sums.items()})
    if "background" in document:
        red, green, blue = take("background", _is_color)
        found = replace(found, background=(red, green, blue))
    if document.get("range") is not None:
        low, high = take("range", _is_range)
        found = replace(found, range=(low, high))
    counts = {
        "files.stages": len(found.stages),
        "policy.thresholds": len(found.thresholds) + 1,
        "policy.temperatures": len(found.temperatures or exits),
    }
    for key, count in counts.items():
        if count != len(exits):
            raise _damaged(path, f"{key} is not for its {len(exits)} exits")
    return found


def _damaged(path: Path, how: str) -> InputError:
    return InputError(f"{path}: is damaged ({how}); accepted: the file as ramify export wrote it")


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_share(value: object) -> TypeGuard[float | None]:
    return value is None or (_is_number(value) and 0 <= value <= 1)


def _is_criterion(value: object) -> TypeGuard[str]:
    return value in CRITERIA


def _is_color(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and len(value) == 3 and all(type(each) is int and 0 <= each < 256 for each in value)


def _is_range(value: object) -> TypeGuard[list[float]]:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(each) in (int, float) and math.isfinite(each) for each in value)
    )


def _is_shape(value: object) -> TypeGuard[list[int]]:
    if not (isinstance(value, list) and len(value) == 3 and all(_is_whole(each) and each > 0 for each in value)):
        return False
    channels, height, width = value
    return int(channels) * int(height) * int(width) <= VALUES


def _are_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and len(value) >= 2 and all(map(_is_text, value))


def _are_thresholds(value: object) -> TypeGuard[list[float | None]]:
    return isinstance(value, list) and all(map(_is_share, value))


def _are_heats(value: object) -> TypeGuard[list[float] | None]:
    if value is None:
        return True
    return isinstance(value, list) and all(_is_number(each) and 0 < each < float("inf") for each in value)


def _are_checksums(value: object) -> TypeGuard[dict[str, str]]:
    return _is_object(value) and all(map(_is_text, value.values()))


def _are_inside(value: object) -> TypeGuard[list[str]]:
    """Names of files inside the folder: a card leads nowhere else."""
    if not isinstance(value, list) or not all(map(_is_text, value)):
        return False
    paths = [PurePosixPath(name) for name in value]
    return all(not path.is_absolute() and ".." not in path.parts and "\\" not in str(path) for path in paths)


class _Exit(TypedDict):
    cells: int
    macs: int
    weights: int
    valid: float | None
    test: float | None


def _are_exits(value: object) -> TypeGuard[list[_Exit]]:
    wholes, shares = {"cells", "macs", "weights"}, {"valid", "test"}
    return (
        isinstance(value, list)
        and len(value) >= 1
        and all(
            _is_object(each)
            and each.keys() >= wholes | shares
            and all(_is_whole(each[key]) for key in wholes)
            and all(_is_share(each[key]) for key in shares)
            for each in value
        )
    )
