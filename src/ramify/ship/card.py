"""What travels with an exported network: everything that an answer needs and that its graphs do not say.

The card is ``ramify.json`` in the folder of an export. Every file of the folder carries it as well, with the part of
the network that this file holds: an ONNX file under the metadata key ``ramify``, a ``.pt2`` file as the extra file
``ramify.json``. It is read and checked with torch at hand here; :mod:`ramify.ship.exported` reads of it what an answer
needs with the standard library alone.
"""

import io
import zipfile
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from ramify.errors import CheckpointError, field_of
from ramify.files import readable_folder
from ramify.ops.certify import Certificate
from ramify.ops.policy import Criterion, Policy
from ramify.sealed import check_seal, parse_object, read_checked, sealed_json
from ramify.ship.exported import CARD, CHECKSUMS, FORMAT, ExportedExit
from ramify.ship.needs import parse_onnx

KEY = "ramify"
"""The name of the card in the metadata of an ONNX file."""

Shape = Literal["folder", "all_exits", "early_exit", "stage"]
Precision = Literal["float32", "int8"]


@dataclass(frozen=True)
class ExportedPolicy:
    """The exit policy, see :class:`ramify.ops.policy.Policy`.

    Attributes:
        calibrated: whether it was calibrated for the network.
        told: where it comes from, as a sentence.
        certificate: what it was certified for.
    """

    thresholds: tuple[float | None, ...]
    criterion: Criterion
    temperatures: tuple[float, ...] | None
    calibrated: bool
    told: str
    certificate: Certificate | None

    @property
    def policy(self) -> Policy:
        """The rule itself."""
        return Policy(self.thresholds, self.criterion, self.temperatures)


@dataclass(frozen=True)
class Files:
    """The files of the folder, relative to it; ``stages`` is empty where there are none."""

    all_exits: str
    early_exit: str
    stages: tuple[str, ...]


@dataclass(frozen=True)
class Quantization:
    """What int8 did to the accuracy of every exit, in [0, 1], measured in ONNX Runtime.

    Attributes:
        calibration_pictures: how many training pictures the ranges of the activations were taken from.
        test_pictures: how many pictures the accuracies are measured on.
        before: accuracies in float32, shallowest exit first.
        after: accuracies in int8.
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
        name: of the run, or what the caller named it.
        shape: what the file is that carries the card, ``folder`` in ``ramify.json``.
        stage: which stage the file holds, from 0; None unless ``shape`` is ``stage``.
        input_shape: channels, height and width of a picture, in [0, 1].
        mean, std: what pictures are normalised by, inside the graphs; for information.
        classes: their names, in the order of the logits.
        exits: shallowest first; accuracies are those in float32, before the export.
        epoch: the last that the network was trained in.
        opset: of the ONNX files; None without.
        quantization: where ``precision`` is int8.
        background: what transparent pictures are laid on.
        range: the values of 16- and 32-bit pictures that become 0 and 255; None where each picture's own do.
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
    files: Files
    epoch: int
    opset: int | None = None
    quantization: Quantization | None = None
    background: tuple[int, int, int] = (255, 255, 255)
    range: tuple[float, float] | None = None

    def part(self, shape: Shape, stage: int | None = None) -> "ExportCard":
        """The card for one file of the folder."""
        return replace(self, shape=shape, stage=stage)


def card_text(card: ExportCard) -> str:
    """The card as JSON, with its checksum."""
    return sealed_json(asdict(card)).decode()


def parse_card(text: str | bytes, where: str) -> ExportCard:
    """The card in ``text``, found at ``where``.

    Raises:
        CheckpointError: it is damaged, or of a later ramify.
    """
    whole = "accepted: the card as ramify export wrote it"
    document = parse_object(text, where)
    version = document.get("format")
    if version is None:
        raise CheckpointError(f"{where}: is damaged (format is missing); {whole}")
    if not isinstance(version, int) or version > FORMAT:
        raise CheckpointError(
            f"{where}: got format {version!r:.40}; accepted: up to {FORMAT}; upgrade ramify to read it"
        )
    try:
        card = TypeAdapter(ExportCard).validate_python(check_seal(document, where))
    except ValidationError as error:
        raise CheckpointError(f"{where}: is damaged ({field_of(error)}); {whole}") from error
    if len(card.exits) != len(card.policy.thresholds) + 1:
        counts = f"{len(card.exits)} exits, {len(card.policy.thresholds)} thresholds"
        raise CheckpointError(f"{where}: is damaged ({counts}); {whole}")
    return card


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
        content = read_checked(file, _known_checksum(file))
    except OSError as error:
        raise CheckpointError(
            f"{file}: cannot be read ({error.strerror}); accepted: the folder of an export, or a file of it"
        ) from error
    if file.suffix == ".onnx":
        found = {entry.key: entry.value for entry in parse_onnx(content, str(file)).metadata_props}
        if KEY not in found:
            raise CheckpointError(f"{file}: has no ramify metadata; accepted: a file that ramify export wrote")
        return parse_card(found[KEY], str(file))
    return parse_card(_from_program(content, file) if file.suffix == ".pt2" else content, str(file))


def _known_checksum(file: Path) -> str | None:
    """What the ``ramify.json`` of the folder says of ``file``, if it is there and says something."""
    for folder in (file.parent, file.parent.parent) if file.name != CARD else ():
        if (folder / CARD).is_file():
            document = check_seal(parse_object((folder / CARD).read_bytes(), str(folder / CARD)), str(folder / CARD))
            known = document.get(CHECKSUMS)
            found = known.get(file.relative_to(folder).as_posix()) if isinstance(known, dict) else None
            return found if isinstance(found, str) else None
    return None


def _from_program(content: bytes, file: Path) -> bytes:
    """The card in a ``.pt2`` file, which is a zip archive; nothing else in it is read."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            [name] = [name for name in archive.namelist() if name.endswith(f"/extra/{CARD}")]
            return archive.read(name)
    except (zipfile.BadZipFile, ValueError, EOFError, zlib.error) as error:
        raise CheckpointError(
            f"{file}: is no PyTorch program of ramify, or a damaged one; accepted: one that ramify export wrote"
        ) from error
