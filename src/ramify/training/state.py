"""A run between two epochs: new, with the network of a parent, or restored from its last checkpoint."""

from dataclasses import dataclass, fields
from pathlib import Path

import torch

from ramify.config.read import read_config
from ramify.config.rules import NetworkConfig, ResolvedConfig
from ramify.data.pictures import Part
from ramify.errors import InputError
from ramify.files import replace_folder
from ramify.nn.backbone import attach_backbone, trunk_of
from ramify.nn.branching import Branching
from ramify.nn.network import Network
from ramify.nn.stem import WhitenedStem
from ramify.ops.average import Average
from ramify.ops.freeze import unfreeze
from ramify.ops.growing.convert import cut, to_cnn, to_sdn
from ramify.ops.growing.extend import extend
from ramify.ops.muon import Muon, NormedMuon
from ramify.ops.surgery import load_optimizer_state, optimizer_state, parameter_groups
from ramify.run.checkpoint import Card, TrainerState, card_with, pack_model, pack_trainer, read_model, read_trainer
from ramify.run.device import Place
from ramify.run.evaluate import Score, to_float
from ramify.run.folder import CONFIG, read_summary
from ramify.run.pictures import Parts
from ramify.run.saved import read_saved
from ramify.seeds import generator

PICTURES = 128
"""Training pictures to which the batch norms of new stages are fitted."""

WHITENED = 1000
"""Training pictures from which a whitened stem is made."""


@dataclass
class State(TrainerState):
    """A run between two epochs.

    Attributes:
        network: the one that is trained.
        grown: for each growth the stage, counted from 0, and the epoch before which it came.
        valid: scores of the last epoch.
        average: the average of the weights under ``train.ema``.
    """

    config: ResolvedConfig
    where: Place
    network: Branching
    optimizer: torch.optim.Optimizer
    labels: tuple[str, ...]
    grown: tuple[tuple[int, int], ...] = ()
    valid: tuple[Score, ...] | None = None
    average: Average[Branching] | None = None

    @property
    def answering(self) -> Branching:
        """The network that is validated, kept and tested."""
        return self.network if self.average is None else self.average.network

    @property
    def followers(self) -> tuple[Branching, ...]:
        """Networks that grow, widen and are pruned with ``network``."""
        return () if self.average is None else (self.average.network,)

    @property
    def progress(self) -> TrainerState:
        """What is saved beside the tensors of the network and the optimizer."""
        kept = {field.name: getattr(self, field.name) for field in fields(TrainerState)}
        return TrainerState(**kept | {"averaged": () if self.average is None else tuple(self.average.updates)})

    @property
    def model(self) -> dict[str, bytes]:
        """The files of :attr:`answering`, by name."""
        return pack_model(self.answering, card_of(self))

    @property
    def trainer(self) -> dict[str, bytes]:
        """The files from which the run is resumed, by name, beside :attr:`model`."""
        live = self.network if self.average is not None else None
        return pack_trainer(self.network, self.optimizer, self.progress, live)


def begin(config: ResolvedConfig, where: Place, parts: Parts) -> State:
    """A run before its first epoch, with a new network or that of its parent.

    Raises:
        InputError: the parent's network is not one that the run can start from, or the user's own cannot be kept.
    """
    if config.parent is not None:
        inherit = _extended if config.convert == "extend" else _inherited
        state = inherit(config, where, parts, Path(config.parent))
    else:
        network: Branching
        normalized = False
        if config.network.has_backbone:
            network, normalized = attach_backbone(config.network, config.seed)
        else:
            network = Network(config.network, seed=config.seed)
        if not normalized:
            _normalize(network, parts.train)
        if isinstance(network, Network) and isinstance(network.stem, WhitenedStem):
            order = torch.randperm(len(parts.train), generator=generator(config.seed, "whiten"))[:WHITENED]
            images = to_float(parts.train[order.to(parts.train.device)].images).cpu()
            network.stem.whiten((images - network.mean[:, None, None]) / network.std[:, None, None])
        to_channels_last(network, where.device)
        state = State(config, where, network, _optimizer(config, network), parts.classes)
    if config.train.ema is not None:
        state.average = Average[Branching].of(state.network, config.train.ema)
    card_of(state)  # a network that cannot be kept is refused before it trains
    unfreeze(state.network)
    if config.train.epochs and not any(parameter.requires_grad for parameter in state.network.parameters()):
        raise InputError("network: got one whose parameters are all frozen; accepted: some that learn")
    return state


def _normalize(network: Branching, part: Part) -> None:
    """Let ``network`` normalize pictures by the mean and deviation of ``part``."""
    # In float64 over the counts of the 256 values: exact, without a copy of the pictures in floats.
    values = torch.arange(256, dtype=torch.float64) / 255
    value_counts = torch.zeros(part.shape[0], 256, dtype=torch.int64)
    for chunk in part.split(len(part) if part.in_memory else 1024):
        channels = chunk.images.unbind(1)
        value_counts += torch.stack([channel.flatten().bincount(minlength=256) for channel in channels]).cpu()
    counts = value_counts.double()
    mean = (counts @ values) / counts.sum(dim=1)
    std = ((counts @ values**2) / counts.sum(dim=1) - mean**2).clamp(min=0).sqrt()
    # Dividing by the zero deviation of a constant channel would give NaN.
    network.set_normalization(mean.tolist(), std.where(std > 1e-6, 1.0).tolist())


def to_channels_last(network: Branching, device: torch.device) -> Branching:
    """``network`` on ``device`` in the channels-last layout, in which convolutions are faster.

    The layout changes the order of sums, so it is set before the first step and after each growth.
    """
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # its types lack the layout
    return network


def keep_beginning(state: State, folder: Path) -> None:
    """Let a run with a parent keep a copy of the parent's network, so that it no longer needs the parent."""
    if state.config.parent is not None and state.where.team.first:
        replace_folder(folder / "last", state.model | state.trainer)


def _inherited(config: ResolvedConfig, where: Place, parts: Parts, parent: Path) -> State:
    """The network of ``parent``, possibly converted."""
    network, card = read_saved(parent)
    grown, valid, built = card.grown, card.valid, card.network
    if config.convert is not None:
        network, grown, valid = _converted(network, config), (), None
        built = network.config if isinstance(network, Network) else config.network
    elif not network.complete and read_summary(parent) is None:
        raise InputError(f"parent: got {parent}, whose network has not fully grown; accepted: one that has")
    _check_same(built, config.network, card, parts, parent)
    to_channels_last(network, where.device)
    return State(config, where, network, _optimizer(config, network), parts.classes, grown=grown, valid=valid)


def _extended(config: ResolvedConfig, where: Place, parts: Parts, parent: Path) -> State:
    """A deeper network that begins as that of ``parent`` after its last epoch, with the state of its optimizer."""
    old, card = read_model(parent / "last")
    if card.classes != parts.classes:
        raise InputError(f"{parent}: got a network of other classes; accepted: {len(parts.classes)} of the same names")
    order = torch.randperm(len(parts.train), generator=generator(config.seed, "extend"))[:PICTURES]
    extension = extend(_of_cells(old, config), config.network, config.seed, to_float(parts.train[order].images))
    network = to_channels_last(extension.network, where.device)
    optimizer = _optimizer(config, network)
    before = read_config([parent / CONFIG])
    if before.train.optimizer == config.train.optimizer:
        known = _optimizer(config, old)
        read_trainer(parent / "last", old, known)
        load_optimizer_state(optimizer, network, _renamed(optimizer_state(known, old), extension.names, network))
    return State(config, where, network, optimizer, parts.classes)


def _renamed(
    state: dict[str, dict[str, torch.Tensor]], names: dict[str, str], network: Branching
) -> dict[str, dict[str, torch.Tensor]]:
    """The state of an optimizer under the names of the parameters in ``network``, without those of another shape."""
    renamed: dict[str, dict[str, torch.Tensor]] = {}
    for name, parameter in network.named_parameters():
        for prefix, source in names.items():
            old = source + name.removeprefix(prefix)
            tensors = state.get(old, {}) if name.startswith(f"{prefix}.") else {}
            if tensors and all(tensor.shape in (parameter.shape, ()) for tensor in tensors.values()):
                renamed[name] = tensors
    return renamed


def _converted(network: Branching, config: ResolvedConfig) -> Branching:
    if config.convert == "sdn":
        return to_sdn(_of_cells(network, config), config.network, config.seed)
    return to_cnn(network) if config.convert == "cnn" else cut(network, config.network.exits)


def _of_cells(network: Branching, config: ResolvedConfig) -> Network:
    if not isinstance(network, Network):
        raise InputError(f"convert: got {config.convert} of a network that is not made of cells; accepted: cnn, cut")
    return network


def _check_same(built: NetworkConfig, network: NetworkConfig, known: Card, parts: Parts, folder: Path) -> None:
    if built != network or known.classes != parts.classes:
        raise InputError(
            f"{folder}: the saved network is not of this configuration and these pictures; they have changed"
        )


def _optimizer(config: ResolvedConfig, network: Branching) -> torch.optim.Optimizer:
    train = config.train
    spared = train.weight_decay if train.decay == "all" else 0.0
    slow = trunk_of(network) if train.backbone_rate != 1 else ()
    groups = parameter_groups(network, train.weight_decay, spared, slow=slow, slow_rate=train.backbone_rate)
    if train.optimizer == "sgd":
        # Fused: one pass over a group in place of several over each tensor; see ramify.ops.surgery.align_state.
        fused = network.mean.device.type in ("cpu", "cuda")
        rate, momentum = train.learning_rate, train.momentum
        return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=train.nesterov, fused=fused)
    if train.optimizer in ("muon", "normed_muon"):
        kind = Muon if train.optimizer == "muon" else NormedMuon
        return kind(groups, lr=train.learning_rate, momentum=train.momentum)
    adam = torch.optim.Adam if train.optimizer == "adam" else torch.optim.AdamW
    return adam(groups, lr=train.learning_rate)


def restore(config: ResolvedConfig, where: Place, parts: Parts, folder: Path) -> State:
    """The run as ``folder`` saved it after its last epoch."""
    network, card = read_model(folder / "last")
    _check_same(card.network, config.network, card, parts, folder / "last")
    to_channels_last(network, where.device)
    # The saved model is the average, if there is one; the trained network is then among the trainer's files.
    average = None if config.train.ema is None else Average[Branching].of(network, config.train.ema)
    optimizer = _optimizer(config, network)
    saved = read_trainer(folder / "last", network, optimizer)
    if average is not None:
        average.updates = [*saved.averaged]
    return State(config, where, network, optimizer, parts.classes, card.grown, card.valid, average, **vars(saved))


def card_of(state: State) -> Card:
    """The card of :attr:`State.answering`."""
    card = Card(
        network=state.config.network,
        stages=len(state.network.stages),
        classes=state.labels,
        epoch=state.epoch,
        grown=state.grown,
        valid=state.valid,
        background=state.config.data.background_color,
        range=state.config.data.range,
    )
    return card_with(card, state.answering)
