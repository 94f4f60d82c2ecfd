"""A run between two epochs: begun afresh, inherited from a parent, or restored from its last checkpoint."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ramify.config.read import read_config
from ramify.config.rules import Config, NetworkConfig
from ramify.data.pictures import Part
from ramify.errors import InputError
from ramify.files import replace_folder
from ramify.nn.backbone import attach_backbone, trunk_of
from ramify.nn.branching import Branching
from ramify.nn.network import Network
from ramify.nn.stem import WhitenedStem
from ramify.ops.average import Average
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
"""How many training pictures the batch norms of new stages are fitted to."""

WHITENED = 1000
"""How many training pictures a whitened stem is made from."""


@dataclass
class State:
    """A run between two epochs.

    Attributes:
        network: what is trained.
        average: the average of its weights, where ``train.ema`` asks for one; it is then what answers.
    """

    config: Config
    where: Place
    network: Branching
    optimizer: torch.optim.Optimizer
    labels: tuple[str, ...]
    epoch: int = 0
    seconds: float = 0.0
    best_epoch: int | None = None
    best_score: float | None = None
    grown: tuple[tuple[int, int], ...] = ()
    valid: tuple[Score, ...] | None = None
    losses: tuple[float, ...] = ()
    moments: tuple[int, ...] = ()
    stopped: str | None = None
    average: Average[Branching] | None = None

    @property
    def answering(self) -> Branching:
        """The network that is validated, kept and tested."""
        return self.network if self.average is None else self.average.network

    @property
    def followers(self) -> tuple[Branching, ...]:
        """What follows the network through growth, widening and pruning."""
        return () if self.average is None else (self.average.network,)

    @property
    def progress(self) -> TrainerState:
        """What is saved of it beside the network and the optimizer's tensors."""
        return TrainerState(
            self.epoch,
            self.seconds,
            self.best_epoch,
            self.best_score,
            self.losses,
            self.moments,
            self.stopped,
            () if self.average is None else tuple(self.average.updates),
        )

    @property
    def model(self) -> dict[str, bytes]:
        """The files of the network that answers, by name."""
        return pack_model(self.answering, card_of(self))

    @property
    def trainer(self) -> dict[str, bytes]:
        """The files from which the run goes on, by name, beside those of the network that answers."""
        live = self.network if self.average is not None else None
        return pack_trainer(self.network, self.optimizer, self.progress, live)


def begin(config: Config, where: Place, parts: Parts) -> State:
    """A run before its first epoch: with a fresh network, or that of its parent.

    Raises:
        InputError: the parent's network is not one that the run can start from.
    """
    if config.parent is not None:
        inherit = _extended if config.convert == "extend" else _taken_over
        return _averaged(inherit(config, where, parts, Path(config.parent)))
    network: Branching
    normalized = False
    if config.network.has_backbone:
        network, normalized = attach_backbone(config.network, config.seed)
    else:
        network = Network(config.network, seed=config.seed)
    if not normalized:
        _normalize(network, parts.train)
    _whiten(network, config, parts.train)
    to_channels_last(network, where.device)
    return _averaged(State(config, where, network, _optimizer(config, network), parts.classes))


def _normalize(network: Branching, part: Part) -> None:
    """Let ``network`` normalize pictures by the mean and deviation of those of ``part``."""
    # In float64 over the counts of the 256 values: exact, and no copy of the pictures in floats.
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = value_counts(part).double()
    mean = (counts @ values) / counts.sum(dim=1)
    std = ((counts @ values**2) / counts.sum(dim=1) - mean**2).clamp(min=0).sqrt()
    # A channel that never changes has nothing to tell; dividing by its zero would make NaN of it.
    network.set_normalization(mean.tolist(), std.where(std > 1e-6, 1.0).tolist())


def _whiten(network: Branching, config: Config, part: Part) -> None:
    """Give a whitened stem its filters, from training pictures."""
    if isinstance(network, Network) and isinstance(network.stem, WhitenedStem):
        some = torch.randperm(len(part), generator=generator(config.seed, "whiten"))[:WHITENED]
        images = to_float(part[some.to(part.device)].images).cpu()
        network.stem.whiten((images - network.mean[:, None, None]) / network.std[:, None, None])


def value_counts(part: Part) -> torch.Tensor:
    """How often each channel has each of the 256 values, int64 ``[C, 256]``."""
    found = torch.zeros(part.shape[0], 256, dtype=torch.int64)
    for some in part.split(len(part) if part.in_memory else 1024):
        images = some.images
        found += torch.stack([images[:, c].flatten().bincount(minlength=256) for c in range(len(found))]).cpu()
    return found


def _averaged(state: State) -> State:
    """``state`` with an average that begins as its network, where one is asked for."""
    decay = state.config.train.ema
    return state if decay is None else replace(state, average=Average[Branching].of(state.network, decay))


def to_channels_last(network: Branching, device: torch.device) -> Branching:
    """``network`` on ``device``, channels last: so convolutions are faster, and most so in bfloat16.

    It changes the order of sums, so a run does it from its first step on, and after each growth.
    """
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # its types lack the layout
    return network


def keep_beginning(state: State, folder: Path) -> None:
    """Let a run that has a parent keep a copy of its network at once, so that it no longer needs the parent."""
    if state.config.parent is not None and state.where.team.first:
        replace_folder(folder / "last", state.model | state.trainer)


def _taken_over(config: Config, where: Place, parts: Parts, parent: Path) -> State:
    """The network that stands for ``parent``, perhaps converted."""
    network, card = read_saved(parent)
    grown, valid, built = card.grown, card.valid, card.network
    if config.convert is not None:
        network, grown, valid = _converted(network, config), (), None
        built = network.config if isinstance(network, Network) else config.network
    elif not network.complete and read_summary(parent) is None:
        raise InputError(f"parent: got {parent}, whose network has not fully grown; accepted: one that has")
    _same_network(built, card.classes, config, parts, parent)
    to_channels_last(network, where.device)
    return State(config, where, network, _optimizer(config, network), parts.classes, grown=grown, valid=valid)


def _extended(config: Config, where: Place, parts: Parts, parent: Path) -> State:
    """A deeper network that begins as that of ``parent`` after its last epoch, with what its optimizer knew."""
    old, card = read_model(parent / "last")
    if card.classes != parts.classes:
        raise InputError(f"{parent}: got a network of other classes; accepted: {len(parts.classes)} of the same names")
    order = torch.randperm(len(parts.train), generator=generator(config.seed, "extend"))[:PICTURES]
    found = extend(_of_cells(old, config), config.network, config.seed, to_float(parts.train[order].images))
    network = to_channels_last(found.network, where.device)
    optimizer = _optimizer(config, network)
    before = read_config([parent / CONFIG])
    if before.train.optimizer == config.train.optimizer:
        known = _optimizer(config, old)
        read_trainer(parent / "last", old, known)
        load_optimizer_state(optimizer, network, _renamed(optimizer_state(known, old), found.names, network))
    return State(config, where, network, optimizer, parts.classes)


def _renamed(
    state: dict[str, dict[str, torch.Tensor]], names: dict[str, str], network: Branching
) -> dict[str, dict[str, torch.Tensor]]:
    """What an optimizer kept, under the names that the parameters have in ``network``; other shapes are left out."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, parameter in network.named_parameters():
        for prefix, source in names.items():
            old = source + name.removeprefix(prefix)
            if name.startswith(f"{prefix}.") and old in state:
                fits = {key: value for key, value in state[old].items() if value.shape in (parameter.shape, ())}
                found |= {name: fits} if len(fits) == len(state[old]) else {}
    return found


def _converted(network: Branching, config: Config) -> Branching:
    if config.convert == "sdn":
        return to_sdn(_of_cells(network, config), config.network, config.seed)
    return to_cnn(network) if config.convert == "cnn" else cut(network, config.network.exits)


def _of_cells(network: Branching, config: Config) -> Network:
    if not isinstance(network, Network):
        raise InputError(f"convert: got {config.convert} of a network that is not made of cells; accepted: cnn, cut")
    return network


def _same_network(built: NetworkConfig, classes: tuple[str, ...], config: Config, parts: Parts, folder: Path) -> None:
    if built != config.network or classes != parts.classes:
        raise InputError(
            f"{folder}: the saved network is not of this configuration and these pictures; they have changed"
        )


def _optimizer(config: Config, network: Branching) -> torch.optim.Optimizer:
    train = config.train
    spared = train.weight_decay if train.decay == "all" else 0.0
    slow = trunk_of(network) if train.backbone_rate != 1 else ()
    groups = parameter_groups(network, train.weight_decay, spared, slow=slow, slow_rate=train.backbone_rate)
    if train.optimizer == "sgd":
        # One pass over a group in place of several over each tensor; see ramify.ops.surgery.align_state.
        return torch.optim.SGD(
            groups,
            lr=train.learning_rate,
            momentum=train.momentum,
            nesterov=train.nesterov,
            fused=_has_fused(network),
        )
    if train.optimizer in ("muon", "normed_muon"):
        kind = Muon if train.optimizer == "muon" else NormedMuon
        return kind(groups, lr=train.learning_rate, momentum=train.momentum)
    adam = torch.optim.Adam if train.optimizer == "adam" else torch.optim.AdamW
    return adam(groups, lr=train.learning_rate)


def _has_fused(network: Branching) -> bool:
    return network.mean.device.type in ("cpu", "cuda")


def restore(config: Config, where: Place, parts: Parts, folder: Path) -> State:
    """The run as ``folder`` saved it after its last epoch."""
    network, card = read_model(folder / "last")
    _same_network(card.network, card.classes, config, parts, folder / "last")
    to_channels_last(network, where.device)
    # The saved model is the average, if there is one; what was trained is among the trainer's files.
    average = None if config.train.ema is None else Average[Branching].of(network, config.train.ema)
    optimizer = _optimizer(config, network)
    saved = read_trainer(folder / "last", network, optimizer)
    if average is not None:
        average.updates = [*saved.averaged]
    return State(
        config=config,
        where=where,
        network=network,
        optimizer=optimizer,
        labels=parts.classes,
        epoch=saved.epoch,
        seconds=saved.seconds,
        best_epoch=saved.best_epoch,
        best_score=saved.best_score,
        grown=card.grown,
        valid=card.valid,
        losses=saved.losses,
        moments=saved.moments,
        stopped=saved.stopped,
        average=average,
    )


def card_of(state: State) -> Card:
    """What there is to say of the network that answers now, besides its tensors."""
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
