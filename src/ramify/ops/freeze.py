"""Freezing: a part of a network does not learn."""

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ramify.nn.attached import Attached
from ramify.nn.backbone import trunk_of
from ramify.nn.branching import Branching
from ramify.nn.stem import WhitenedStem


def freeze(modules: Iterable[nn.Module]) -> None:
    """Freeze all parameters in ``modules``; see :func:`train_what_learns` for their batch norm."""
    for module in modules:
        module.requires_grad_(False)


def never_learning(network: Branching) -> frozenset[str]:
    """The names of the parameters that no training unfreezes: of a whitened stem, and what the user froze."""
    names = [name for name, _ in network.named_parameters()]
    frozen: set[str] = set()
    if isinstance(network, Attached):
        frozen |= network.frozen_parameters
        if network.frozen:
            frozen |= {name for name in names if ".body." in name}
    stems = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, WhitenedStem))
    return frozenset(name for name in names if name in frozen or name.startswith(stems))


def unfreeze(network: Branching) -> None:
    """Unfreeze everything but :func:`never_learning`."""
    kept = never_learning(network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in kept)


def freeze_trunk(network: Branching) -> None:
    """Freeze everything but the internal classifiers."""
    network.requires_grad_(False)
    for head in network.internal_classifiers():
        head.requires_grad_(True)


def freeze_backbone(network: Branching) -> None:
    """Freeze everything but the exits and the layer that makes the logits; see :func:`ramify.nn.backbone.trunk_of`."""
    trunk = trunk_of(network)
    for name, parameter in network.named_parameters():
        if name in trunk:
            parameter.requires_grad_(False)


def train_what_learns(network: nn.Module) -> None:
    """Training mode, but evaluation mode for frozen batch norms, so that their statistics stay as they are.

    One without parameters is frozen with those around it.
    """
    network.train()
    for module in network.modules():
        parameters = [*module.parameters()]
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            for norm in module.modules():
                if isinstance(norm, _BatchNorm):
                    norm.eval()
