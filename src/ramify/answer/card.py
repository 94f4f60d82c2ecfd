"""The card of an exported network: all that answers need besides the graphs.

It is ``ramify.json`` in the folder of an export. Every other file has it too, for its part of the network: an ONNX file
under the metadata key ``ramify``, a ``.pt2`` file as the extra file ``ramify.json``. Reading it needs the standard
library alone.
"""

import io
import json
import math
import types
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ramify.errors import CheckpointError, InputError
from ramify.files import is_file, readable_folder
from ramify.needs import need
from ramify.ops.exits.certify import Certificate
from ramify.ops.exits.sentences import asked_for
from ramify.sealed import check_seal, checksum, parse_object, read_checked, sealed_json

if TYPE_CHECKING:
    from onnx import ModelProto

    from ramify.ops.exits.policy import Policy

KEY = "ramify"
"""The name of the card in the metadata of an ONNX file."""

CARD_FORMAT = 2
"""Version of the card; others are refused (the graphs of version 1 have no exit policy)."""

CARD = "ramify.json"
CHECKSUMS = "checksums"
"""The field of ``ramify.json`` with the SHA-256 of every other file."""
VALUES = 2**28
"""The most values of a picture."""
NEVER = 2.0
"""A threshold that no confidence reaches, in graphs, which have no null."""

_T = TypeVar("_T")

Shape = Literal["folder", "all_exits", "early_exit", "stage"]
Precision = Literal["float32", "int8"]


@dataclass(frozen=True)
class ExportedExit:
    """Cost of one exit for one picture, its weights without masked ones, and its accuracies in [0, 1] or None."""

    cells: int
    macs: int
    weights: int
    valid: float | None
    test: float | None


@dataclass(frozen=True)
class ExportedPolicy:
    """The exit policy, see :class:`ramify.ops.exits.policy.Policy`; the graphs hold all of it but the thresholds.

    Attributes:
        calibrated: whether it was calibrated for the network.
        description: its origin, in one sentence.
        certificate: its guarantee, if it has one.
    """

    thresholds: tuple[float | None, ...]
    criterion: str
    temperatures: tuple[float, ...] | None
    calibrated: bool
    description: str
    certificate: Certificate | None
    combine: str = "last"
    weights: tuple[tuple[float, ...], ...] | None = None
    coefficients: tuple[tuple[tuple[float, ...], ...], ...] | None = None
    fallback: str = "last"

    @property
    def policy(self) -> "Policy":
        """As :class:`ramify.ops.exits.policy.Policy`.

        Raises:
            InputError: this version does not know it.
        """
        from ramify.ops.exits.policy import Policy

        names = {field.name for field in fields(Policy)}
        return Policy(**{name: value for name, value in vars(self).items() if name in names})


@dataclass(frozen=True)
class ExportedFiles:
    """The files of the folder; ``stages`` may be empty."""

    all_exits: str
    early_exit: str
    stages: tuple[str, ...]


@dataclass(frozen=True)
class Quantization:
    """Accuracy of every exit in float32 and int8, in [0, 1], measured in ONNX Runtime.

    Attributes:
        calibration_pictures: training pictures that the ranges of the activations were taken from.
        test_pictures: pictures that the accuracies are measured on.
        before, after: accuracies in float32 and in int8, shallowest exit first.
    """

    calibration_pictures: int
    test_pictures: int
    before: tuple[float, ...]
    after: tuple[float, ...]


@dataclass(frozen=True)
class ExportCard:
    """A network that was exported.

    Attributes:
        format: version of the card.
        ramify: version that wrote it.
        name: of the run.
        shape: of the file that has the card; ``folder`` in ``ramify.json``.
        stage: the stage in the file, from 0; None unless ``shape`` is ``stage``.
        input_shape: channels, height and width of a picture.
        mean, std: the normalization inside the graphs, for information.
        classes: their names, in the order of the logits.
        exits: shallowest first; accuracies are those in float32, before the export.
        epoch: the last that the network was trained in.
        opset: of the ONNX files, or None.
        quantization: where ``precision`` is int8.
        background: color behind transparent pictures.
        range: the values of 16- and 32-bit pictures that become 0 and 255; None: the range of each picture.
    """

    format: int
    ramify: str
    name: str
    shape: Shape
    stage: int | None
    precision: Precision
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    exits: tuple[ExportedExit, ...]
    policy: ExportedPolicy
    files: ExportedFiles
    epoch: int
    opset: int | None = None
    quantization: Quantization | None = None
    background: tuple[int, int, int] = (255, 255, 255)
    range: tuple[float, float] | None = None

    def part(self, shape: Shape, stage: int | None = None) -> "ExportCard":
        """The card of one file of the folder."""
        return replace(self, shape=shape, stage=stage)

    def at_threshold(self, threshold: float) -> "ExportCard":
        """The same network with ``threshold`` at every exit.

        Raises:
            InputError: it is not in [0, 1].
        """
        if not 0 <= threshold <= 1:
            raise InputError(f"threshold: got {threshold:g}; accepted: a number in [0, 1]")
        policy = replace(
            self.policy,
            thresholds=(threshold,) * len(self.policy.thresholds),
            description=asked_for(self.policy.criterion, threshold),
            calibrated=False,
        )
        return replace(self, policy=policy)


def card_text(card: ExportCard) -> str:
    """The card as JSON, with its checksum."""
    return sealed_json(asdict(card)).decode()


def is_exported(folder: Path) -> bool:
    """Whether ``folder`` was written by ``ramify export``, to ONNX or to PyTorch programs."""
    return is_file(folder / CARD)


def with_checksums(contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of an export, with their checksums in its card."""
    document = parse_object(contents[CARD], CARD)
    document[CHECKSUMS] = {name: checksum(content) for name, content in contents.items() if name != CARD}
    return {**contents, CARD: sealed_json(document)}


def read_exported_file(path: Path) -> bytes:
    """A file of an exported folder, with its checksum checked.

    Raises:
        OSError: it is missing or cannot be read.
        CheckpointError: its checksum is not the one in ``ramify.json``.
    """
    return read_checked(path, _known_checksum(path))


def parse_card(text: str | bytes, where: str) -> ExportCard:
    """The card in ``text``, read from ``where``.

    Raises:
        CheckpointError: it is damaged, or of another version of ramify.
    """
    whole = "accepted: the card as ramify export wrote it"
    document = parse_object(text, where)
    if "format" not in document:
        raise CheckpointError(f"{where}: is damaged (format is missing); {whole}")
    version = document["format"]
    if type(version) is not int or version > CARD_FORMAT:
        got = f"{where}: got format {version!r:.40}"
        raise CheckpointError(f"{got}; accepted: up to {CARD_FORMAT}; upgrade ramify to read it")
    if version < CARD_FORMAT:
        raise CheckpointError(f"{where}: got format {version}; accepted: {CARD_FORMAT}; export the network again")
    try:
        card = decoded(ExportCard, check_seal(document, where), "")
        _check(card)
    except ValueError as error:
        raise CheckpointError(f"{where}: is damaged ({error}); {whole}") from error
    return card


def _check(card: ExportCard) -> None:
    """Check what the types of the fields do not; raises ValueError."""
    exits, policy = len(card.exits), card.policy
    counts = {
        "files.stages": len(card.files.stages) or exits,
        "policy.thresholds": len(policy.thresholds) + 1,
        "policy.temperatures": len(policy.temperatures or card.exits),
    }
    for key, count in counts.items():
        if count != exits:
            raise ValueError(f"{key} is not for its {exits} exits")
    shares = [share for share in (*policy.thresholds, *(e.test for e in card.exits)) if share is not None]
    if not all(0 <= share <= 1 for share in shares) or not all(t > 0 for t in policy.temperatures or ()):
        raise ValueError("thresholds, accuracies or temperatures are out of range")
    if (
        min(card.input_shape) < 1
        or math.prod(card.input_shape) > VALUES
        or len(card.classes) < 2
        or not all(0 <= value < 256 for value in card.background)
    ):
        raise ValueError("classes or background is out of range")
    for name in (card.files.all_exits, card.files.early_exit, *card.files.stages):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise ValueError(f"{name[:60]!r} leads out of its folder")


def decoded(kind: type[_T], value: object, at: str) -> _T:
    """A JSON ``value`` as a ``kind``: a dataclass, tuple or plain value; unknown fields are ignored.

    Raises:
        ValueError: it is not a ``kind``; the message names the field, below ``at``.
    """
    origin, inner = get_origin(kind), get_args(kind)
    result: object = value
    if is_dataclass(kind):
        result = _object(kind, value, at)
    elif origin in (Union, types.UnionType):
        if value is not None or type(None) not in inner:
            [only] = [option for option in inner if option is not type(None)]
            result = decoded(only, value, at)
    elif origin is Literal:
        if value not in inner:
            raise _not(at, value)
    elif origin is tuple:
        if not isinstance(value, list | tuple) or (inner[-1] is not ... and len(value) != len(inner)):
            raise _not(at, value)
        kinds = inner[:1] * len(value) if inner[-1] is ... else inner
        items = enumerate(zip(kinds, value, strict=True))
        result = tuple(decoded(item_kind, item, f"{at}[{i}]") for i, (item_kind, item) in items)
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _not(at, value)
        result = float(value)
    elif type(value) is not kind or (isinstance(value, int) and not 0 <= value < 2**63):
        raise _not(at, value)
    return result  # type: ignore[return-value]  # checked above


def _object(kind: type[_T], value: object, at: str) -> _T:
    if not isinstance(value, dict):
        raise _not(at, value)
    hints, values = get_type_hints(kind), {}
    for field in fields(kind):  # type: ignore[arg-type]  # only of dataclasses
        where = f"{at}.{field.name}".lstrip(".")
        if field.name in value:
            values[field.name] = decoded(hints[field.name], value[field.name], where)
        elif field.default is MISSING:
            raise ValueError(f"{where} is missing")
    return kind(**values)


def _not(at: str, value: object) -> ValueError:
    return ValueError(f"{at or 'it'} is {json.dumps(value)[:60]}")


def read_card(path: str | Path) -> ExportCard:
    """The card of an export.

    Args:
        path: the folder, its ``ramify.json``, or one of its ONNX files or PyTorch programs.

    Raises:
        CheckpointError: there is none, it is damaged, or of a later ramify.
        InputError: an ONNX file is to be read, and onnx is not installed.
    """
    path = readable_folder(Path(path))
    file = path / CARD if path.is_dir() else path
    try:
        content = read_exported_file(file)
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise CheckpointError(f"{file}: {reason}; accepted: an exported folder or file") from error
    if file.suffix == ".onnx":
        metadata = {entry.key: entry.value for entry in parse_onnx(content, str(file)).metadata_props}
        if KEY not in metadata:
            raise CheckpointError(f"{file}: has no ramify metadata; accepted: a file that ramify export wrote")
        return parse_card(metadata[KEY], str(file))
    return parse_card(_from_program(content, file) if file.suffix == ".pt2" else content, str(file))


def parse_onnx(content: bytes, where: str) -> "ModelProto":
    """The ONNX model in ``content``, read from ``where``.

    Raises:
        CheckpointError: it is cut or damaged.
        InputError: onnx is not installed.
    """
    need("export", "onnx")
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise CheckpointError(
            f"{where}: is no ONNX file, or a damaged one; accepted: one that ramify export wrote"
        ) from error
    # A file cut between two fields still parses, without its last fields.
    if not model.graph.node or not model.opset_import:
        raise CheckpointError(f"{where}: is a damaged ONNX file; accepted: one that ramify export wrote")
    return model


def _known_checksum(file: Path) -> str | None:
    """The checksum of ``file`` in the ``ramify.json`` of its folder, if there is one."""
    for folder in (file.parent, file.parent.parent) if file.name != CARD else ():
        if (folder / CARD).is_file():
            document = check_seal(parse_object((folder / CARD).read_bytes(), str(folder / CARD)), str(folder / CARD))
            checksums = document.get(CHECKSUMS)
            known = checksums.get(file.relative_to(folder).as_posix()) if isinstance(checksums, dict) else None
            return known if isinstance(known, str) else None
    return None


def _from_program(content: bytes, file: Path) -> bytes:
    """The card in a ``.pt2`` file, a zip archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            [name] = [name for name in archive.namelist() if name.endswith(f"/extra/{CARD}")]
            return archive.read(name)
    except (zipfile.BadZipFile, ValueError, EOFError, zlib.error) as error:
        raise CheckpointError(
            f"{file}: is no PyTorch program of ramify, or a damaged one; accepted: one that ramify export wrote"
        ) from error
