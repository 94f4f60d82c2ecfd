"""Saved networks: ``model.safetensors`` with the tensors, ``model.json`` with everything else, no pickle.

``model.json`` holds the network's configuration and how many stages exist, which rebuild it exactly; of a backbone or a
module of the user's its graph, so that none of its code is run when it is read; the names of the classes, when it grew,
and checksums: of the tensors, and of itself. ``last/`` also holds
``trainer.safetensors`` and ``trainer.json``, from which a run goes on.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from ramify import __version__
from ramify.config import NetworkConfig
from ramify.errors import CheckpointError, InputError
from ramify.files import readable_folder
from ramify.nn.attached import Attached
from ramify.nn.branching import Branching
from ramify.nn.data_form import Json, description, from_description
from ramify.nn.network import Network, StagePlan, plan
from ramify.ops.exits.calibrate import Calibration
from ramify.ops.surgery import load_optimizer_state, optimizer_state
from ramify.run.evaluate import Score

FORMAT = 1
"""Version of the files; a reader refuses those of a later one."""

HUB_CONFIG = "config.json"
"""What ``model.json`` is called in a model folder."""


Unit = Literal["MACs", "milliseconds"]


@dataclass(frozen=True)
class ExitPolicy:
    """The exit policy that is kept with a network: how it was found, and in what its costs are counted."""

    calibration: Calibration
    unit: Unit


@dataclass(frozen=True)
class Card:
    """What is known of a saved network besides its tensors.

    Attributes:
        network: its configuration.
        stages: how many stages exist.
        classes: names of the classes, in the order of the logits.
        epoch: the last epoch that it was trained in.
        grown: for each growth the stage, counted from 0, and the epoch before which it came.
        plans: widths of the stages where they are not those of the configuration (see
            :func:`ramify.ops.compact.compact`), else None.
        valid: scores on the validation pictures after that epoch, shallowest exit first; None without them.
        policy: thresholds for early exits, once they are calibrated.
        background: what transparent pictures were laid on, and are to be.
        range: the values of 16- and 32-bit pictures that became 0 and 255; None without such pictures.
        graph: what rebuilds a network that is not made of cells (:mod:`ramify.nn.data_form`), else None.
    """

    network: NetworkConfig
    stages: int
    classes: tuple[str, ...]
    epoch: int
    grown: tuple[tuple[int, int], ...] = ()
    valid: tuple[Score, ...] | None = None
    plans: tuple[StagePlan, ...] | None = None
    policy: ExitPolicy | None = None
    graph: dict[str, object] | None = None
    background: tuple[int, int, int] = (255, 255, 255)
    range: tuple[float, float] | None = None


@dataclass(frozen=True)
class TrainerState:
    """Where a run stands after an epoch, besides its network and the optimizer's tensors.

    Attributes:
        losses: validation loss of the deepest exit after each epoch.
        moments: the epochs before which the network grew or was widened.
        stopped: why growth ended before its plan was done, if it did.
        averaged: of a run with ``train.ema``, how often each stage has been averaged.
    """

    epoch: int
    seconds: float
    best_epoch: int | None
    best_score: float | None
    losses: tuple[float, ...] = ()
    moments: tuple[int, ...] = ()
    stopped: str | None = None
    averaged: tuple[int, ...] = ()


# Built once: building one takes as long as a small epoch.
_CARD, _TRAINER = TypeAdapter(Card), TypeAdapter(TrainerState)


def card_with(card: Card, network: Branching) -> Card:
    """``card`` with what rebuilds ``network``: its stages, plans that its configuration does not give, or its graph."""
    plans = network.plans if isinstance(network, Network) and network.plans != plan(network.config) else None
    graph = dict[str, object](description(network)) if isinstance(network, Attached) else None
    return replace(card, stages=len(network.stages), plans=plans, graph=graph)


def pack_model(network: Branching, card: Card, extra: Mapping[str, object] | None = None) -> dict[str, bytes]:
    """The files of a saved network, by name.

    Args:
        network: what is saved.
        card: what is known of it.
        extra: more fields for ``model.json``, for other readers; this one passes over them.
    """
    return _pack("model", network.state_dict(), {**(extra or {}), "ramify": __version__, **_plain(card)})


def is_checkpoint(folder: Path) -> bool:
    """Whether ``folder`` holds a saved network, by the names of its files."""
    folder = readable_folder(folder)
    return (folder / "model.json").exists() or (folder / "model.safetensors").exists()


def read_model(folder: Path) -> tuple[Branching, Card]:
    """The network saved in ``folder``, on the CPU and in evaluation mode, and its card.

    A graph is data: whatever code its network came from is not imported.

    A folder may have ``config.json``, the name that model hubs look for, in place of ``model.json``.

    Raises:
        CheckpointError: the files are missing, damaged, or written by a later ramify.
    """
    tensors, fields = _unpack(folder, "model")
    try:
        card = _CARD.validate_python(fields)
        network: Branching
        if card.graph is not None:
            network = from_description(cast("dict[str, Json]", card.graph))
        else:
            network = Network(card.network, stages=card.stages, plans=card.plans)
        network.load_state_dict(tensors, strict=True)
    except (ValidationError, InputError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder}: its model.json and model.safetensors do not make a network ({error})"
        ) from error
    return network.eval(), card


def read_extra(folder: Path, key: str) -> object:
    """One of the fields that :func:`pack_model` was given beside the card, None where there is no such field.

    Raises:
        CheckpointError: as :func:`read_model`.
    """
    return _unpack(folder, "model")[1].get(key)


def pack_trainer(
    network: Branching, optimizer: torch.optim.Optimizer, state: TrainerState, live: Branching | None = None
) -> dict[str, bytes]:
    """The files from which training goes on, by name.

    Args:
        network: what ``optimizer`` trains.
        optimizer: its optimizer.
        state: where the run stands.
        live: the same network, if the saved model is another one, its average: its tensors are then kept here.
    """
    tensors = {
        f"{name}:{key}": value
        for name, tensors in optimizer_state(optimizer, network).items()
        for key, value in tensors.items()
    }
    if live is not None:
        tensors |= live.state_dict()
    return _pack("trainer", tensors, _plain(state))


def read_trainer(folder: Path, network: Branching, optimizer: torch.optim.Optimizer) -> TrainerState:
    """Put the saved state back into ``optimizer`` and tell where the run stood.

    If the saved model was an average, ``network`` becomes what was trained.

    Raises:
        CheckpointError: the files are missing, damaged, of a later ramify, or of another network.
    """
    tensors, fields = _unpack(folder, "trainer")
    state: dict[str, dict[str, Tensor]] = {}
    live: dict[str, Tensor] = {}
    for label, value in tensors.items():
        name, _, key = label.rpartition(":")
        if name:
            state.setdefault(name, {})[key] = value
        else:
            live[key] = value
    try:
        if live:
            network.load_state_dict(live, strict=True)
        load_optimizer_state(optimizer, network, state)
        return _TRAINER.validate_python(fields)
    except (ValidationError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: its trainer files do not fit its network ({error})") from error


def _plain(record: Card | TrainerState) -> dict[str, object]:
    adapter: TypeAdapter[Card] | TypeAdapter[TrainerState] = _CARD if isinstance(record, Card) else _TRAINER
    plain: dict[str, object] = adapter.dump_python(record, mode="json")  # type: ignore[arg-type]  # its own kind
    return plain


def _pack(name: str, tensors: dict[str, Tensor], fields: dict[str, object]) -> dict[str, bytes]:
    blob = save_tensors({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    document = {"format": FORMAT, **fields, "tensors_sha256": hashlib.sha256(blob).hexdigest()}
    document["sha256"] = _seal(document)
    return {f"{name}.safetensors": blob, f"{name}.json": (json.dumps(document, indent=2) + "\n").encode()}


def _seal(document: dict[str, object]) -> str:
    """Checksum of a document, whatever the order and the spacing of its file."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _about(folder: Path, name: str) -> Path:
    """The file beside the tensors called ``name``; a folder that has ``model.json`` too is read by that."""
    about, other = folder / f"{name}.json", folder / HUB_CONFIG
    return other if name == "model" and other.exists() and not about.exists() else about


def _unpack(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, object]]:
    folder = readable_folder(folder)
    about, blob_path = _about(folder, name), folder / f"{name}.safetensors"
    try:
        text, blob = about.read_bytes(), blob_path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{error.filename}: is missing; accepted: a folder with {about.name} and {blob_path.name}"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{error.filename}: cannot be read ({error.strerror})") from error
    try:
        document = json.loads(text)
        version = int(document["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{about}: is damaged; accepted: the file as ramify wrote it") from error
    if version > FORMAT:
        writer = f" by ramify {document['ramify']}" if "ramify" in document else ""
        raise CheckpointError(
            f"{about}: got format {version}, written{writer}; accepted: up to {FORMAT}; upgrade ramify to read it"
        )
    if document.pop("sha256", None) != _seal(document):
        raise CheckpointError(
            f"{about}: is damaged (its checksum does not match); accepted: the file as ramify wrote it"
        )
    if hashlib.sha256(blob).hexdigest() != document.pop("tensors_sha256", None):
        raise CheckpointError(
            f"{blob_path}: is damaged (its checksum does not match); accepted: the file as ramify wrote it"
        )
    try:
        tensors = load_tensors(blob)
    except SafetensorError as error:
        raise CheckpointError(f"{blob_path}: is not a safetensors file ({error})") from error
    return tensors, {key: value for key, value in document.items() if key not in ("format", "ramify")}
