"""Surgery: the one place where parameters under an optimizer are added, replaced or masked.

Optimizers have parameter groups for each stage, with the keys ``stage`` and ``decay``.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ramify.errors import InputError
from ramify.nn.branching import Branching
from ramify.nn.exit import PooledHead
from ramify.nn.masked import MaskedConv2d, MaskedLinear, masked_layers
from ramify.ops.freeze import never_learning
from ramify.ops.muon import Muon, NormedMuon
from ramify.ops.schedulers import extend_schedulers
from ramify.seeds import drawing


class StageParameters(NamedTuple):
    """The parameters of one stage by name: ``decay`` has convolution and linear weights, ``spared`` all others."""

    decay: dict[str, nn.Parameter]
    spared: dict[str, nn.Parameter]


_DECAYING = (_ConvNd, nn.Linear, nn.Bilinear, nn.MultiheadAttention)


def stage_parameters(network: Branching, stage: int) -> StageParameters:
    """The parameters of one stage, by their names in ``network.state_dict()``."""
    parameters = StageParameters({}, {})
    for prefix, module in network.stage_modules(stage).items():
        layers = {name for name, part in module.named_modules() if isinstance(part, _DECAYING)}
        for name, parameter in module.named_parameters():
            weighs = name.endswith("weight") and parameter.dim() > 1 and name.rpartition(".")[0] in layers
            group = parameters.decay if weighs else parameters.spared
            group[f"{prefix}.{name}"] = parameter
    return parameters


def parameter_groups(
    network: Branching, weight_decay: float, spared: float = 0.0, *, slow: Collection[str] = (), slow_rate: float = 1.0
) -> list[dict[str, object]]:
    """Groups for a ``torch.optim`` optimizer: for each stage one of its weights and one of all other parameters.

    Parameters in ``slow`` form groups of their own, with the key ``rate_factor``.

    Args:
        network: any network.
        weight_decay: of convolution and linear weights.
        spared: of biases, batch norm and pooling shares.
        slow: names of the parameters whose rate is that of the others times ``slow_rate``.
        slow_rate: more than 0.

    Example:
        >>> from ramify.config.rules import NetworkConfig
        >>> from ramify.nn.network import Network
        >>> network = Network(NetworkConfig(structure=(1,), input_shape=(1, 8, 8), classes=2), stages=2)
        >>> optimizer = torch.optim.SGD(parameter_groups(network, 1e-4), lr=0.1, momentum=0.9)
        >>> [(group["stage"], group["decay"], group["weight_decay"]) for group in optimizer.param_groups]
        [(0, True, 0.0001), (0, False, 0.0), (1, True, 0.0001), (1, False, 0.0)]
    """
    groups: list[dict[str, object]] = []
    for stage in range(len(network.stages)):
        own = stage_parameters(network, stage)
        for decay, parameters, amount in ((True, own.decay, weight_decay), (False, own.spared, spared)):
            options: dict[str, object] = {"stage": stage, "decay": decay, "weight_decay": amount}
            fast = [parameter for name, parameter in parameters.items() if name not in slow]
            rest = [parameter for name, parameter in parameters.items() if name in slow]
            if fast or not slow:
                groups.append({"params": fast, **options})
            if rest:
                groups.append({"params": rest, **options, "rate_factor": slow_rate})
    return groups


def add_stage(optimizer: Optimizer, network: Branching, stage: int, schedulers: Sequence[LRScheduler] = ()) -> None:
    """Give ``optimizer`` the parameters of a new stage, with the options of its existing groups.

    Beside groups of :func:`parameter_groups` these are one group of weights and one of the rest; in any other optimizer
    they are one group with the options of the last. Its ``schedulers`` get entries for them
    (:mod:`ramify.ops.schedulers`). Existing groups and state do not change.
    """
    new = stage_parameters(network, stage)
    groups = optimizer.param_groups
    known, like = len(groups), [len(groups) - 1]
    if "decay" not in groups[-1]:
        options = _options(groups[-1])
        optimizer.add_param_group({**options, "params": [*new.decay.values(), *new.spared.values()]})
    else:
        like = []
        for decay, parameters in ((True, new.decay), (False, new.spared)):
            like.append(max(index for index, group in enumerate(groups[:known]) if group["decay"] is decay))
            options = _options(groups[like[-1]])
            optimizer.add_param_group({**options, "params": [*parameters.values()], "stage": stage, "decay": decay})
    extend_schedulers(schedulers, known, like)


def _options(group: dict[str, object]) -> dict[str, object]:
    # param_names belongs to the parameters of the group it stands in, not to its options.
    return {key: value for key, value in group.items() if key not in ("params", "param_names")}


def replace_parameter(
    optimizer: Optimizer, old: nn.Parameter, new: nn.Parameter, resize: Callable[[Tensor], Tensor]
) -> None:
    """Replace ``old`` by ``new`` in its parameter group, at the same place.

    State in the shape of the parameter (momentum) is resized, and scalars such as a step counter stay. If the shape
    changes and there is state in a third shape, as of Adafactor, all state of this parameter is dropped.

    Args:
        optimizer: any ``torch.optim`` optimizer that knows its parameters by its groups and its state alone.
        old: a parameter; nothing changes if ``optimizer`` does not have it.
        new: its replacement.
        resize: converts a tensor in the shape of ``old`` to the shape of ``new``.
    """
    for group in optimizer.param_groups:
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
    if old not in optimizer.state:
        return
    state = optimizer.state.pop(old)
    shapes = {value.shape for value in state.values() if isinstance(value, Tensor)}
    if new.shape != old.shape and shapes - {old.shape, torch.Size()}:
        return
    optimizer.state[new] = {
        key: resize(value) if isinstance(value, Tensor) and value.shape == old.shape else value
        for key, value in state.items()
    }


def set_masks(module: nn.Module, masks: Mapping[str, Tensor], optimizer: Optimizer | None = None) -> None:
    """Mask the layers named in ``masks``; masked weights, their gradients and their optimizer state become zero.

    Masks only shrink: a masked weight stays masked, whatever ``masks`` says.

    Args:
        module: a network, or a copy that follows it, such as the ``module`` of a
            ``torch.optim.swa_utils.AveragedModel``.
        masks: bool, by the name of the masked layer, in the shape of its weight.
        optimizer: over the parameters of ``module``.

    Raises:
        KeyError: ``module`` has no such layer.
    """
    layers = masked_layers(module)
    with torch.no_grad():
        for name, mask in masks.items():
            layer = layers[name]
            layer.mask.logical_and_(mask.to(layer.mask.device))
            _clear([layer.weight, layer.weight.grad, *kept_of(optimizer, layer.weight)], ~layer.mask)


def rewire(module: nn.Module, masks: Mapping[str, Tensor], optimizer: Optimizer | None = None) -> None:
    """Give the layers named in ``masks`` exactly these masks: the one operation by which a mask may grow.

    The weight and optimizer state of connections that change become zero, and so do the gradients of masked weights. A
    connection that comes back keeps its gradient, for the next step. All others stay, bit for bit. Masks, weights and
    state change in place.

    Args:
        module, optimizer: as in :func:`set_masks`.
        masks: bool, by the name of the masked layer, in the shape of its weight.

    Raises:
        KeyError: ``module`` has no such layer.

    Example:
        >>> layer = MaskedLinear(3, 1)
        >>> set_masks(layer, {"": torch.tensor([[True, True, False]])})
        >>> rewire(layer, {"": torch.tensor([[True, False, True]])})
        >>> layer.mask.tolist(), (layer.weight != 0).tolist()
        ([[True, False, True]], [[True, False, False]])
    """
    layers = masked_layers(module)
    with torch.no_grad():
        for name, mask in masks.items():
            layer = layers[name]
            changed = layer.mask ^ mask.to(layer.mask.device)
            layer.mask.logical_xor_(changed)
            _clear([layer.weight, *kept_of(optimizer, layer.weight)], changed)
            _clear([layer.weight.grad], ~layer.mask)


def kept_of(optimizer: Optimizer | None, parameter: Tensor) -> list[Tensor]:
    """The tensors in the optimizer state of a parameter."""
    if optimizer is None or parameter not in optimizer.state:
        return []
    return [value for value in optimizer.state[parameter].values() if isinstance(value, Tensor)]


def _clear(tensors: Iterable[Tensor | None], places: Tensor) -> None:
    """Zero the ``places`` of those tensors that have their shape."""
    for tensor in tensors:
        if tensor is not None and tensor.shape == places.shape:
            tensor.masked_fill_(places, 0)


def reinitialize(
    network: Branching, stages: Iterable[int], optimizer: Optimizer | None = None, seed: int | None = None
) -> None:
    """Redraw the weights of ``stages`` and reset their batch norm and optimizer state.

    Masks stay, and so do layers with a parameter that never learns.
    """
    owners = {name.rpartition(".")[0] for name in never_learning(network)}
    kept = {name: value.clone() for name, value in network.state_dict().items() if name.rpartition(".")[0] in owners}
    for stage in stages:
        with drawing(seed, "reinit", stage):
            for module in network.stage_modules(stage).values():
                for part in module.modules():
                    if isinstance(part, MaskedConv2d | MaskedLinear | nn.BatchNorm1d | nn.BatchNorm2d | PooledHead):
                        part.reset_parameters()
                set_masks(module, {name: layer.mask for name, layer in masked_layers(module).items()})
        if optimizer is not None:
            for parameters in stage_parameters(network, stage):
                for parameter in parameters.values():
                    optimizer.state.pop(parameter, None)
    network.load_state_dict(kept, strict=False)


def check_followers(network: Branching, followers: Sequence[nn.Module]) -> list[Branching]:
    """The ``followers`` of ``network``, as networks.

    Raises:
        InputError: one is no network, or has other stages.
    """
    networks: list[Branching] = []
    for follower in followers:
        if not isinstance(follower, Branching):
            kind = type(follower).__name__
            raise InputError(
                f"followers: got one of type {kind}; accepted: networks, such as the module of an AveragedModel"
            )
        if _shapes(follower) != _shapes(network):
            raise InputError("followers: got a network of other stages; accepted: those of the network they follow")
        networks.append(follower)
    return networks


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items()}


def revived(network: nn.Module) -> int:
    """How many masked weights are not zero; always 0."""
    return sum(int(((layer.weight != 0) & ~layer.mask).sum()) for layer in masked_layers(network).values())


def set_learning_rate(optimizer: Optimizer, rate: float, first: int = 0) -> None:
    """Set the learning rate of every group, times its ``rate_factor``; a rate that is a tensor changes in place.

    Args:
        optimizer: any optimizer; one of :func:`parameter_groups` where ``first`` is given.
        rate: the rate.
        first: the first stage whose groups get it, counted from 0.
    """
    filled: set[int] = set()
    for group in optimizer.param_groups:
        if first and group["stage"] < first:
            continue
        own, current = rate * group.get("rate_factor", 1.0), group["lr"]
        if not isinstance(current, Tensor):
            group["lr"] = own
        elif id(current) not in filled:
            filled.add(id(current.fill_(own)))


def align_state(optimizer: Optimizer) -> None:
    """Give optimizer state the memory layout of its parameters, and add missing momentum, at zero, for a fused step.

    A fused step needs one layout for parameter, gradient and momentum, and momentum for all of a group or none; growth,
    pruning and loading may break both. Call it after surgery, before the next step.
    """
    for group in optimizer.param_groups:
        learning = [parameter for parameter in group["params"] if parameter.requires_grad]
        began = any(_has_momentum(optimizer, parameter) for parameter in learning)
        for parameter in learning:
            lacks = group.get("momentum") and began and not _has_momentum(optimizer, parameter)
            if lacks and "momentum_buffer" in (kept_tensors(optimizer, parameter) or ("momentum_buffer",)):
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            for key, kept in state.items():
                if isinstance(kept, Tensor) and kept.shape == parameter.shape and kept.stride() != parameter.stride():
                    state[key] = torch.empty_like(parameter, dtype=kept.dtype).copy_(kept)


def _has_momentum(optimizer: Optimizer, parameter: nn.Parameter) -> bool:
    return optimizer.state.get(parameter, {}).get("momentum_buffer") is not None


def optimizer_state(optimizer: Optimizer, network: Branching) -> dict[str, dict[str, Tensor]]:
    """The tensors in the optimizer state, by the parameter's name, which survives surgery, and key."""
    return {
        name: {key: value for key, value in optimizer.state[parameter].items() if isinstance(value, Tensor)}
        for name, parameter in network.named_parameters()
        if parameter in optimizer.state
    }


def kept_tensors(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Tensor] | None:
    """Meta tensors like the state that ``optimizer`` keeps of ``parameter``; None for an unknown optimizer.

    Example:
        >>> weight = nn.Parameter(torch.zeros(2, 3))
        >>> {key: value.shape for key, value in kept_tensors(torch.optim.Adam([weight]), weight).items()}
        {'step': torch.Size([]), 'exp_avg': torch.Size([2, 3]), 'exp_avg_sq': torch.Size([2, 3])}
    """
    like = torch.empty_like(parameter, device="meta")
    count = torch.empty((), dtype=torch.float32, device="meta")
    adam = {"step": count, "exp_avg": like, "exp_avg_sq": like}
    match optimizer:
        case torch.optim.SGD() | NormedMuon():
            return {"momentum_buffer": like}
        case torch.optim.Adam():  # AdamW is one
            return adam
        case Muon():
            return {"momentum_buffer": like} if parameter.dim() > 1 else adam
    return None


def load_optimizer_state(optimizer: Optimizer, network: Branching, state: dict[str, dict[str, Tensor]]) -> None:
    """Put back what :func:`optimizer_state` took.

    Raises:
        KeyError: ``state`` names a parameter that ``network`` does not have.
    """
    parameters = dict(network.named_parameters())
    for name, tensors in state.items():
        parameter = parameters[name]
        for key, value in tensors.items():
            # A step counter is a scalar that the fused and capturable forms want beside the parameter.
            optimizer.state[parameter][key] = value.to(parameter.device, copy=True)
