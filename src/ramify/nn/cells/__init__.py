"""Cells, one family a file. A new type of cell is a class and an entry in :data:`CELLS`; nothing else lists them."""

from collections.abc import Callable, Iterable
from functools import lru_cache

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ramify.errors import ConfigError
from ramify.nn.cells.base import Cell, CellPlan
from ramify.nn.cells.bottleneck import CompactCell, GroupedCell
from ramify.nn.cells.pooling import PoolingCell
from ramify.nn.cells.preactivation import PreactivationCell
from ramify.nn.cells.separable import DepthwiseCell, SeparableCell
from ramify.nn.cells.single_layer import LinearCell, PlainCell, UnpaddedCell
from ramify.nn.cells.two_layer import BasicCell, SkipSecondCell
from ramify.shortage import refusal

CELLS: dict[str, type[Cell]] = {
    "basic": BasicCell,
    "skip_second": SkipSecondCell,
    "preactivation": PreactivationCell,
    "plain": PlainCell,
    "pooling": PoolingCell,
    "separable": SeparableCell,
    "depthwise": DepthwiseCell,
    "grouped": GroupedCell,
    "compact": CompactCell,
    "unpadded": UnpaddedCell,
    "linear": LinearCell,
}
"""Every type of cell by its name in a :class:`~ramify.nn.cells.base.CellPlan`."""


def cell_choices() -> dict[str, type[Cell]]:
    """The types that ``network.cell`` accepts, by name.

    Example:
        >>> list(cell_choices())
        ['basic', 'skip_second', 'pooling', 'depthwise', 'grouped', 'compact']
    """
    return {name: cell for name, cell in CELLS.items() if cell.summary}


def output_size(plan: CellPlan, height: int, width: int) -> tuple[int, int]:
    """Height and width of a cell's output, from those of the map before it.

    Raises:
        ConfigError: the cell cannot read a map of this size.

    Example:
        >>> output_size(CellPlan(3, 8, 8, projects=True, stride=2), 9, 16)
        (5, 8)
    """
    if plan.pooled:
        height, width = -(-height // 2), -(-width // 2)
    build: Callable[[CellPlan], Cell] = CELLS[plan.type]
    return _output_size(build, plan, height, width)


def sized(plan: CellPlan) -> Cell:
    """A cell of ``plan`` in evaluation mode with weights of 0, for its shapes."""
    # Not on the meta device, whose first operation imports half of PyTorch.
    with torch.device("cpu"), _Undrawn():
        return CELLS[plan.type](plan).eval()


class _Undrawn(TorchFunctionMode):
    """Memory is zeroed and not initialized, and no random numbers are drawn."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if func is torch.empty:
            return torch.zeros(*args, **kwargs)  # type: ignore[call-overload]
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@lru_cache(maxsize=4096)
def _output_size(build: Callable[[CellPlan], Cell], plan: CellPlan, height: int, width: int) -> tuple[int, int]:
    try:
        with torch.no_grad():
            blank = torch.zeros(1, plan.in_channels, height, width, device="cpu")
            _, _, rows, columns = sized(plan)(blank).shape
    except RuntimeError as error:
        if refusal(error) is not None:  # the machine's limit, not the cell's
            raise
        why = str(error).partition("\n")[0].rstrip(".")
        raise ConfigError(
            f"network.input_shape: got pictures of which a map of {height} x {width} reaches a {plan.type} cell; "
            f"accepted: larger ones, as it cannot read that ({why})"
        ) from error
    return rows, columns


__all__ = ["CELLS", "Cell", "CellPlan", "cell_choices", "output_size", "sized"]
