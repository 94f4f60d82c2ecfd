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
