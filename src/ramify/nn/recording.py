"""Every operation that a network computes, as PyTorch dispatches it, passed to a function while the network runs."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

_UNTAGGED = frozenset({"hardswish", "log_sigmoid", "rsub", "masked_fill", "where"})
"""Functions of single elements of which not every form has PyTorch's tag for that."""


@dataclass(frozen=True)
class Operation:
    """One operation of ATen, PyTorch's library of tensor operations: a function, its arguments, and what it gave.

    Under ``torch.inference_mode`` operations are not decomposed: ``conv2d``, ``batch_norm``, ``linear``. The output is
    a tensor, or a sequence of tensors.
    """

    func: OpOverload
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    output: object

    @functools.cached_property
    def name(self) -> str:
        """Its name, such as ``relu``; the same for the form in place."""
        return str(self.func.overloadpacket.__name__).rstrip("_")

    @property
    def pointwise(self) -> bool:
        """Whether each element of the output depends on the elements at its place alone."""
        return torch.Tag.pointwise in self.func.tags or self.name in _UNTAGGED

    @functools.cached_property
    def tensors(self) -> list[Tensor]:
        """The tensors that it reads, in order."""
        return list(flat_tensors((self.args, tuple(self.kwargs.values()))))

    @property
    def result(self) -> Tensor:
        """The first tensor of its output."""
        return next(flat_tensors(self.output))

    def argument(self, name: str) -> object:
        """The value of the argument ``name``, or its default; None where there is no such argument."""
        for position, argument in enumerate(self.func._schema.arguments):
            if argument.name == name:
                if position < len(self.args):
                    return self.args[position]
                value: object = self.kwargs.get(name, argument.default_value)
                return value
        return None

    def tensor(self, name: str) -> Tensor:
        """The value of an argument that is a tensor."""
        value = self.argument(name)
        assert isinstance(value, Tensor), (self.name, name)
        return value

    def number(self, name: str) -> int:
        """The value of an argument that is a whole number."""
        value = self.argument(name)
        assert isinstance(value, int), (self.name, name)
        return value

    def on(self, substitute: Callable[[Tensor], Tensor]) -> object:
        """Its output where ``substitute`` gives a tensor in place of each tensor that it read."""
        args, kwargs = tree_map_only(Tensor, substitute, (self.args, dict(self.kwargs)))
        output: object = self.func(*args, **kwargs)
        return output


def run(operation: Operation) -> object:
    """The output of an operation."""
    return operation.func(*operation.args, **operation.kwargs)


class OperationRecorder(TorchDispatchMode):
    """Inside ``with OperationRecorder(follow):`` each operation is computed, then passed to ``follow``.

    ``compute`` computes it; by default PyTorch does.
    """

    def __init__(self, follow: Callable[[Operation], object], compute: Callable[[Operation], object] = run) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.follow, self.compute = follow, compute

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else PyTorch loads its compiler, which takes seconds

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        operation = Operation(func, args, kwargs or {}, None)
        operation = replace(operation, output=self.compute(operation))
        self.follow(operation)
        return operation.output


def flat_tensors(value: object) -> Iterator[Tensor]:
    """The tensors in nested lists and tuples, in order."""
    return (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))
