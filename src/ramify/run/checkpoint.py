"""Saved networks: ``model.safetensors`` with the tensors, ``model.json`` with everything else, no pickle.

``model.json`` holds the configuration of the network and its number of stages, which rebuild it exactly (or the graph
of a backbone or module, so that none of its code is run), the names of the classes, when it grew, and checksums.
``last/`` also holds ``trainer.safetensors`` and ``trainer.json``, from which a run is resumed.
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

FILE_FORMATS = {"model": 1, "trainer": 2}
"""Versions of the files; a reader refuses others."""

HUB_CONFIG = "config.json"
"""The name of ``model.json`` in a model folder."""

CostUnit = Literal["MACs", "milliseconds"]


@dataclass(frozen=True)
class ExitPolicy:
    """The exit policy of a saved network: its calibration, and the unit of its costs."""

    calibration: Calibration
    unit: CostUnit


@dataclass(frozen=True)
class Card:
    """What is known of a saved network besides its tensors.

    Attributes:
        stages: how many stages exist.
        classes: names of the classes, in the order of the logits.
        epoch: the last epoch of its training.
        grown: for each growth the stage, counted from 0, and the epoch before which it came.
        valid: validation scores after ``epoch``, shallowest exit first.
        plans: widths of the stages where they are not those of the configuration, as after
            :func:`ramify.ops.pruning.compact.compact`.
        policy: the calibrated exit policy.
        graph: of a network that is not made of cells (:mod:`ramify.nn.data_form`).
        background: the color behind transparent pictures, red, green and blue.
        range: the values of 16- and 32-bit pictures that become 0 and 255; None without such pictures.
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


@dataclass(kw_only=True)
class TrainerState:
    """A run after an epoch, besides the tensors.

    Attributes:
        losses: validation loss of the deepest exit after each epoch.
        growth_epochs: the epochs before which the network grew or was widened.
        stopped: why growth ended before its plan was done, if it did.
        averaged: how often each stage has been averaged under ``train.ema``.
    """

    epoch: int = 0
    seconds: float = 0.0
    best_epoch: int | None = None
    best_score: float | None = None
    losses: tuple[float, ...] = ()
    growth_epochs: tuple[int, ...] = ()
    stopped: str | None = None
    averaged: tuple[int, ...] = ()


# Built once, as that takes as long as a small epoch.
_CARD, _TRAINER = TypeAdapter(Card), TypeAdapter(TrainerState)


def card_with(card: Card, network: Branching) -> Card:
    """``card`` with the stages, plans and graph that rebuild ``network``."""
    plans = network.plans if isinstance(network, Network) and network.plans != plan(network.config) else None
    graph = dict[str, object](description(network)) if isinstance(network, Attached) else None
    return replace(card, stages=len(network.stages), plans=plans, graph=graph)


def pack_model(network: Branching, card: Card, extra: Mapping[str, object] | None = None) -> dict[str, bytes]:
    """The files of a saved network, by name; ``extra`` fields of ``model.json`` are for other readers."""
    return _pack("model", network.state_dict(), {**(extra or {}), "ramify": __version__, **_plain(card)})


def is_checkpoint(folder: Path) -> bool:
    """Whether ``folder`` holds a saved network, by the names of its files."""
    folder = readable_folder(folder)
    return is_file(folder / "model.json") or is_file(folder / "model.safetensors")


def read_model(folder: Path) -> tuple[Branching, Card]:
    """The network saved in ``folder``, on the CPU and in evaluation mode, and its card.

    No code but ramify's is imported. A model folder has ``config.json`` in place of ``model.json``.

    Raises:
        CheckpointError: the files are missing, damaged, or written by a later ramify.
    """
    tensors, fields = _unpack(folder, "model")
    try:
        card = _CARD.validate_python(fields)
        _check_card(card)
        # Without memory, so that nothing is allocated or drawn before the tensors are checked; they become its own.
        with torch.device("meta"):
            network = _build(card)
            _check_tensors(network, tensors)
        network.load_state_dict(tensors, strict=True, assign=True)
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
"""The most values of a picture, about ``[3, 9000, 9000]``."""
CELLS_LIMIT, CLASSES_LIMIT, EPOCHS_LIMIT = 10_000, 1_000_000, 10**9


def _check_card(card: Card) -> None:
    """Raise an InputError if the numbers of ``card`` are impossible, before anything is built."""
    network, shape = card.network, card.network.input_shape
    plans = card.plans or ()
    bounds = {
        "stages": (card.stages, CELLS_LIMIT),
        "network.structure": (len(network.structure), CELLS_LIMIT),
        "plans": (len(plans) + sum(len(stage.cells) for stage in plans), CELLS_LIMIT),
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
    """Raise an InputError unless ``tensors`` fit ``network`` by name, shape and type, and are finite."""
    expected = network.state_dict()
    odd = sorted(expected.keys() ^ tensors.keys())
    if odd:
        problem = "is missing" if odd[0] in expected else "is of no layer"
        raise InputError(f"{odd[0][:80]} {problem}")
    learned = dict(network.named_parameters())
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, expected[name])
        statistic = name.endswith(("running_mean", "running_var")) or name in ("mean", "std")
        if (name in learned or statistic) and not bool(tensor.isfinite().all()):
            raise InputError(f"{name} holds numbers that are not finite")


def _check_tensor(name: str, tensor: Tensor, expected: Tensor) -> None:
    if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
        got, accepted = (f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for t in (tensor, expected))
        raise InputError(f"{name}: got {got}; accepted: {accepted}")


def read_extra(folder: Path, key: str) -> object:
    """One of the ``extra`` fields of :func:`pack_model`, None without it.

    Raises:
        CheckpointError: as :func:`read_model`.
    """
    return _unpack(folder, "model")[1].get(key)


def pack_trainer(
    network: Branching, optimizer: torch.optim.Optimizer, state: TrainerState, live: Branching | None = None
) -> dict[str, bytes]:
    """The files from which training is resumed, by name; with the tensors of ``live`` if the model is an average."""
    tensors = {
        f"{name}:{key}": value
        for name, tensors in optimizer_state(optimizer, network).items()
        for key, value in tensors.items()
    }
    if live is not None:
        tensors |= live.state_dict()
    return _pack("trainer", tensors, _plain(state))


def read_trainer(folder: Path, network: Branching, optimizer: torch.optim.Optimizer) -> TrainerState:
    """Load the state of ``optimizer``, and of ``network`` if the saved model was an average; return the rest.

    Raises:
        CheckpointError: the files are missing, damaged, of another version, or of another network.
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
    """Raise an InputError if ``state`` is impossible."""
    epochs = [state.epoch, *([] if state.best_epoch is None else [state.best_epoch]), *state.growth_epochs]
    if not all(0 <= epoch <= EPOCHS_LIMIT for epoch in epochs) or (state.best_epoch or 0) > state.epoch:
        raise InputError(f"epoch: got {state.epoch}, best {state.best_epoch}; accepted: whole numbers >= 0, in order")
    numbers = [state.seconds, *state.losses, *([] if state.best_score is None else [state.best_score])]
    if not all(map(math.isfinite, numbers)) or state.seconds < 0:
        raise InputError("seconds, losses or best_score: got what is no number; accepted: numbers")
    if len(state.losses) > state.epoch or len(state.growth_epochs) > state.epoch:
        raise InputError(f"losses or growth_epochs: got more than epochs; accepted: at most {state.epoch}")
    if state.averaged and (len(state.averaged) != len(network.stages) or min(state.averaged) < 0):
        raise InputError(f"averaged: got {len(state.averaged)} counts; accepted: {len(network.stages)}")


def _check_optimizer(
    optimizer: torch.optim.Optimizer, network: Branching, state: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Raise an InputError unless ``state`` fits ``optimizer``: a fused step trusts shapes and types."""
    parameters = dict(network.named_parameters())
    for name, tensors in state.items():
        if name not in parameters:
            raise InputError(f"{name[:80]} is no parameter")
        parameter = parameters[name]
        expected = kept_tensors(optimizer, parameter)
        if expected is None:
            raise InputError(f"{type(optimizer).__name__} is not one whose tensors are known")
        if tensors.keys() != expected.keys():
            raise InputError(f"{name}: got {', '.join(sorted(tensors))}; accepted: {', '.join(sorted(expected))}")
        for key, tensor in tensors.items():
            _check_tensor(f"{name}:{key}", tensor, expected[key])
            if not bool(tensor.isfinite().all()) or (key in ("step", "exp_avg_sq") and bool((tensor < 0).any())):
                raise InputError(f"{name}:{key} holds numbers that an optimizer never keeps")


def _plain(record: Card | TrainerState) -> dict[str, object]:
    adapter: TypeAdapter[Card] | TypeAdapter[TrainerState] = _CARD if isinstance(record, Card) else _TRAINER
    plain: dict[str, object] = adapter.dump_python(record, mode="json")  # type: ignore[arg-type]  # its own kind
    return plain


def _pack(name: str, tensors: dict[str, Tensor], fields: dict[str, object]) -> dict[str, bytes]:
    blob = save_tensors({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    document = {"format": FILE_FORMATS[name], **fields, "tensors_sha256": checksum(blob)}
    return {f"{name}.safetensors": blob, f"{name}.json": sealed_json(document)}


def _about(folder: Path, name: str) -> Path:
    """The JSON file beside the tensors called ``name``; ``model.json`` goes before ``config.json``."""
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
    if version != FILE_FORMATS[name]:
        writer = f" by ramify {str(document['ramify'])[:40]}" if "ramify" in document else ""
        known = FILE_FORMATS[name]
        advice = (
            "upgrade ramify to read it" if version > known else "resume or extend the run with the ramify that wrote it"
        )
        raise CheckpointError(f"{about}: got format {version}, written{writer}; accepted: {known}; {advice}")
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
