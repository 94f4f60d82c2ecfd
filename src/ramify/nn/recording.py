"""Every operation that a network computes, as PyTorch dispatches it, handed to a function while the network runs."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_UNTAGGED = frozenset({"hardswish", "log_sigmoid", "rsub", "masked_fill", "where"})
"""Functions of single elements of which not every form has PyTorch's tag for that."""


@dataclass(frozen=True)
class Operation:
    """One operation of ATen, PyTorch's library of tensor operations.

    Under ``torch.inference_mode`` they are as large as they are called: ``conv2d``, ``batch_norm``, ``linear``.

    Attributes:
        func: what was called.
        args, kwargs: with what.
        output: a tensor, or a sequence of them.
    """

    func: torch._ops.OpOverload
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    output: object

    @functools.cached_property
    def name(self) -> str:
        """Its name, such as ``relu``; the same for the form in place."""
        return str(self.func.overloadpacket.__name__).rstrip("_")

    @property
    def pointwise(self) -> bool:
        """Whether each element of the output is made of the elements at its place alone."""
        return torch.Tag.pointwise in self.func.tags or self.name in _UNTAGGED

    @functools.cached_property
    def tensors(self) -> list[Tensor]:
        """The tensors that it reads, in order."""
        return list(flat_tensors((self.args, tuple(self.kwargs.values()))))

    def argument(self, name: str) -> object:
        """What was given for the argument ``name``, or its default; None where there is no such argument."""
        for place, argument in enumerate(self.func._schema.arguments):
            if argument.name == name:
                if place < len(self.args):
                    return self.args[place]
                value: object = self.kwargs.get(name, argument.default_value)
                return value
        return None

    def tensor(self, name: str) -> Tensor:
        """The tensor that was given for ``name``."""
        value = self.argument(name)
        assert isinstance(value, Tensor), (self.name, name)
        return value

    def number(self, name: str) -> int:
        """The whole number that was given for ``name``."""
        value = self.argument(name)
        assert isinstance(value, int), (self.name, name)
        return value

    def on(self, replaced: Callable[[Tensor], Tensor]) -> object:
        """What it gives for other tensors in place of those that it read."""
        args = [_mapped(value, replaced) for value in self.args]
        kwargs = {name: _mapped(value, replaced) for name, value in self.kwargs.items()}
        output: object = self.func(*args, **kwargs)
        return output


def run(operation: Operation) -> object:
    """What an operation gives."""
    return operation.on(lambda value: value)


class OperationRecorder(TorchDispatchMode):
    """Inside ``with Recorder(follow):`` each operation is computed, then handed to ``follow``.

    ``compute`` is what computes it; by default PyTorch itself.
    """

    def __init__(self, follow: Callable[[Operation], object], compute: Callable[[Operation], object] = run) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.follow, self.compute = follow, compute

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else PyTorch loads its compiler, which takes seconds

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        operation = Operation(func, args, kwargs or {}, None)
        operation = replace(operation, output=self.compute(operation))
        self.follow(operation)
        return operation.output


def flat_tensors(value: object) -> Iterator[Tensor]:
    """The tensors in nested lists and tuples, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from flat_tensors(each)


def _mapped(value: object, replaced: Callable[[Tensor], Tensor]) -> object:
    if isinstance(value, Tensor):
        return replaced(value)
    if isinstance(value, list | tuple):
        return type(value)(_mapped(each, replaced) for each in value)
    return value
