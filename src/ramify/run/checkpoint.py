"""Saved networks: ``model.safetensors`` with the tensors, ``model.json`` with everything else, no pickle.

``model.json`` holds the network's configuration and how many stages exist, which rebuild it exactly; of a backbone or a
module of the user's its graph, so that none of its code is run when it is read; the names of the classes, when it grew,
and checksums: of the tensors, and of itself. ``last/`` also holds
``trainer.safetensors`` and ``trainer.json``, from which a run goes on.
"""

import math
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

from ramify.config.rules import NetworkConfig
from ramify.errors import CheckpointError, InputError, field_of
from ramify.files import is_file, readable_folder
from ramify.nn.attached import Attached
from ramify.nn.branching import Branching
from ramify.nn.data_form import Json, description, from_description
from ramify.nn.network import Network, StagePlan, plan
from ramify.ops.exits.calibrate import Calibration
from ramify.ops.surgery import kept_tensors, load_optimizer_state, optimizer_state
from ramify.run.evaluate import Score
from ramify.sealed import check_seal, checksum, parse_object, sealed_json, unreadable
from ramify.version import __version__

FORMAT = 1
"""Version of the files; a reader refuses those of a later one."""

HUB_CONFIG = "config.json"
"""What ``model.json`` is called in a model folder."""


CostUnit = Literal["MACs", "milliseconds"]


@dataclass(frozen=True)
class ExitPolicy:
    """The exit policy that is kept with a network: how it was found, and in what its costs are counted."""

    calibration: Calibration
    unit: CostUnit


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
            :func:`ramify.ops.pruning.compact.compact`), else None.
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
    return is_file(folder / "model.json") or is_file(folder / "model.safetensors")


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
        _check_card(card)
        # First without memory: what the file asks for must be what is in it.
        with torch.device("meta"):
            _check_tensors(_build(card), tensors)
        network = _build(card)
        network.load_state_dict(tensors, strict=True)
    except ValidationError as error:
        raise _no_network(folder, field_of(error)) from error
    except (InputError, RuntimeError, RecursionError, OverflowError, NotImplementedError) as error:
        raise _no_network(folder, str(error).partition("\n")[0][:200]) from error
    return network.eval(), card


def _no_network(folder: Path, why: str) -> CheckpointError:
    about = _about(folder, "model").name
    return CheckpointError(
        f"{folder}: its {about} and model.safetensors do not make a network ({why}); accepted: as ramify wrote them"
    )


def _build(card: Card) -> Branching:
    if card.graph is not None:
        return from_description(cast("dict[str, Json]", card.graph))
    return Network(card.network, stages=card.stages, plans=card.plans)


PICTURE_VALUES = 2**28
"""The most values that a picture may have: ``[3, 9000, 9000]`` and a little more."""
CELLS_LIMIT, CLASSES_LIMIT, EPOCHS_LIMIT = 10_000, 1_000_000, 10**9


def _check_card(card: Card) -> None:
    """See that what a card says is possible, before anything is built of it.

    Raises:
        InputError: it is not.
    """
    network, shape = card.network, card.network.input_shape
    plans = card.plans or ()
    bounds = {
        "stages": (card.stages, CELLS_LIMIT),
        "network.structure": (len(network.structure), CELLS_LIMIT),
        "plans": (len(plans) + sum(len(each.cells) for each in plans), CELLS_LIMIT),
        "network.input_shape": (0 if shape is None else math.prod(shape), PICTURE_VALUES),
        "classes": (len(card.classes), CLASSES_LIMIT),
        "epoch": (card.epoch, EPOCHS_LIMIT),
    }
    for name, (value, limit) in bounds.items():
        if not 0 <= value <= limit:
            raise InputError(f"{name}: got {value}; accepted: 0 to {limit}")
    if network.classes is not None and len(card.classes) != network.classes:
        raise InputError(f"classes: got {len(card.classes)} names; accepted: {network.classes}, one for each logit")
    if len(set(card.classes)) != len(card.classes):
        raise InputError("classes: got a name twice; accepted: different ones")
    if card.valid is not None and len(card.valid) != card.stages:
        raise InputError(f"valid: got {len(card.valid)} scores; accepted: {card.stages}, one for each exit")
    if card.policy is not None and card.policy.calibration.policy.exits != card.stages:
        raise InputError(f"policy: got one for other exits; accepted: one for {card.stages}")


def _check_tensors(network: Branching, tensors: Mapping[str, Tensor]) -> None:
    """See that ``tensors`` are those of ``network``, by name, shape and type, and that what it learned is finite.

    Raises:
        InputError: they are not.
    """
    wanted = network.state_dict()
    odd = sorted(wanted.keys() ^ tensors.keys())
    if odd:
        where = "is missing" if odd[0] in wanted else "is of no layer"
        raise InputError(f"{odd[0][:80]} {where}")
    learned = dict(network.named_parameters())
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, wanted[name])
        statistic = name.endswith(("running_mean", "running_var")) or name in ("mean", "std")
        if (name in learned or statistic) and not bool(tensor.isfinite().all()):
            raise InputError(f"{name} holds numbers that are not finite")


def _check_tensor(name: str, tensor: Tensor, wanted: Tensor) -> None:
    if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
        raise InputError(f"{name}: got {_described(tensor)}; accepted: {_described(wanted)}")


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


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
        progress = _TRAINER.validate_python(fields)
        _check_progress(progress, network)
        if live:
            _check_tensors(network, live)
        _check_optimizer(optimizer, network, state)
    except ValidationError as error:
        raise _no_trainer(folder, field_of(error)) from error
    except InputError as error:
        raise _no_trainer(folder, str(error)) from error
    if live:
        network.load_state_dict(live, strict=True)
    load_optimizer_state(optimizer, network, state)
    return progress


def _no_trainer(folder: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{folder}: its trainer files do not fit its network ({why}); accepted: as ramify wrote them"
    )


def _check_progress(state: TrainerState, network: Branching) -> None:
    """See that where a run stands is possible.

    Raises:
        InputError: it is not.
    """
    epochs = [state.epoch, *([] if state.best_epoch is None else [state.best_epoch]), *state.moments]
    if not all(0 <= epoch <= EPOCHS_LIMIT for epoch in epochs) or (state.best_epoch or 0) > state.epoch:
        raise InputError(f"epoch: got {state.epoch}, best {state.best_epoch}; accepted: whole numbers >= 0, in order")
    numbers = [state.seconds, *state.losses, *([] if state.best_score is None else [state.best_score])]
    if not all(map(math.isfinite, numbers)) or state.seconds < 0:
        raise InputError("seconds, losses or best_score: got what is no number; accepted: numbers")
    if len(state.losses) > state.epoch or len(state.moments) > state.epoch:
        raise InputError(f"losses or moments: got more than epochs; accepted: at most {state.epoch}")
    if state.averaged and (len(state.averaged) != len(network.stages) or min(state.averaged) < 0):
        raise InputError(f"averaged: got {len(state.averaged)} counts; accepted: {len(network.stages)}")


def _check_optimizer(
    optimizer: torch.optim.Optimizer, network: Branching, state: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """See that a fused step can take ``state``: it trusts shapes and types, and walks through memory by them.

    Raises:
        InputError: a tensor is of no parameter, or not one that ``optimizer`` keeps of it, or not finite.
    """
    parameters = dict(network.named_parameters())
    for name, tensors in state.items():
        if name not in parameters:
            raise InputError(f"{name[:80]} is no parameter")
        parameter = parameters[name]
        wanted = kept_tensors(optimizer, parameter)
        if wanted is None:
            raise InputError(f"{type(optimizer).__name__} is not one whose tensors are known")
        if tensors.keys() != wanted.keys():
            raise InputError(f"{name}: got {', '.join(sorted(tensors))}; accepted: {', '.join(sorted(wanted))}")
        for key, tensor in tensors.items():
            _check_tensor(f"{name}:{key}", tensor, wanted[key])
            if not bool(tensor.isfinite().all()) or (key in ("step", "exp_avg_sq") and bool((tensor < 0).any())):
                raise InputError(f"{name}:{key} holds numbers that an optimizer never keeps")


def _plain(record: Card | TrainerState) -> dict[str, object]:
    adapter: TypeAdapter[Card] | TypeAdapter[TrainerState] = _CARD if isinstance(record, Card) else _TRAINER
    plain: dict[str, object] = adapter.dump_python(record, mode="json")  # type: ignore[arg-type]  # its own kind
    return plain


def _pack(name: str, tensors: dict[str, Tensor], fields: dict[str, object]) -> dict[str, bytes]:
    blob = save_tensors({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    document = {"format": FORMAT, **fields, "tensors_sha256": checksum(blob)}
    return {f"{name}.safetensors": blob, f"{name}.json": sealed_json(document)}


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
        raise CheckpointError(str(unreadable(Path(error.filename), error))) from error
    document = parse_object(text, str(about))
    version = document.get("format")
    if not isinstance(version, int) or isinstance(version, bool):
        raise CheckpointError(f"{about}: is damaged; accepted: the file as ramify wrote it")
    if version > FORMAT:
        writer = f" by ramify {str(document['ramify'])[:40]}" if "ramify" in document else ""
        raise CheckpointError(
            f"{about}: got format {version}, written{writer}; accepted: up to {FORMAT}; upgrade ramify to read it"
        )
    document = check_seal(document, str(about), needed=True)
    if checksum(blob) != document.pop("tensors_sha256", None):
        raise CheckpointError(
            f"{blob_path}: is damaged (its checksum does not match); accepted: the file as ramify wrote it"
        )
    try:
        tensors = load_tensors(blob)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{blob_path}: is no file of tensors; accepted: the file as ramify wrote it") from error
    return tensors, {key: value for key, value in document.items() if key not in ("format", "ramify")}
