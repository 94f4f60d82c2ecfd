"""The training and evaluation modes of a network's modules, kept over a computation."""

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def keeping_modes(module: nn.Module) -> Iterator[None]:
    """Restore the mode of each module inside ``module`` when the block ends."""
    modes = [(inner, inner.training) for inner in module.modules()]
    try:
        yield
    finally:
        for inner, mode in modes:
            inner.training = mode


def let_never_learn(module: nn.Module) -> None:
    """Freeze ``module`` for good: no training unfreezes it."""
    module.requires_grad_(False)
    for part in module.modules():
        part.__dict__["learns"] = False


def never_learns(module: nn.Module) -> bool:
    """Whether ``module`` is frozen by :func:`let_never_learn`."""
    return module.__dict__.get("learns") is False
