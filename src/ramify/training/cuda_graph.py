"""A training step recorded once as a CUDA graph, and replayed.

A small network's step is hundreds of short kernels. Handed to a GPU one by one they cost the processor more time than
the GPU; a recording is handed over at once. It holds addresses, not values: weights, masks, momentum and rate are read
again at each replay, so prunings and moves of connections, which change them where they lie, leave it valid. Growth
makes new tensors, and needs a new recording.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WARM_UP = 3
"""Steps taken before one is recorded: libraries make their choices and allocate, and optimizers begin their state."""

Body = Callable[..., Tensor]
"""A step as a function of tensors. Whatever else it reads must lie where it lay when it was recorded."""

Capture = Callable[[Body, tuple[Tensor, ...]], tuple[Callable[[], None], Tensor]]
"""Records a call: gives what replays it, and the tensor in which each replay leaves its result."""


@dataclass
class _Take:
    """A recording, and the tensors by which it is used."""

    inputs: tuple[Tensor, ...]
    replay: Callable[[], None]
    found: Tensor
    gradients: list[tuple[nn.Parameter, Tensor]]
    reads: object


class Recorder:
    """Calls a step, from its fourth time on by replaying a recording; one for each shape and type of what it takes.

    Args:
        body: the step. Each call of the recorder takes one step, whether by calling it or by a replay.
        device: on which it computes.
        parameters: those whose gradients it leaves behind.
        reads: tells where everything lies that the step reads besides its inputs.
        capture: how to record.
    """

    def __init__(
        self,
        body: Body,
        device: torch.device,
        parameters: Callable[[], Iterable[nn.Parameter]],
        reads: Callable[[], object],
        capture: Capture,
    ) -> None:
        self._body, self._parameters, self._reads, self._capture = body, parameters, reads, capture
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._warm: dict[object, int] = {}
        self._takes: dict[object, _Take] = {}

    def renew(self) -> None:
        """Drop the recordings that read something which lies elsewhere by now. To be called after surgery."""
        now = self._reads()
        if any(take.reads != now for take in self._takes.values()):
            self._warm.clear()
            self._takes.clear()

    def __call__(self, *inputs: Tensor) -> Tensor:
        """What the step gives for ``inputs``; to be read before the next call, which may overwrite it."""
        key = tuple((each.shape, each.dtype) for each in inputs)
        take = self._takes.get(key)
        if take is None:
            warm = self._warm.get(key, 0)
            self._warm[key] = warm + 1
            if warm < WARM_UP:
                return self._aside(inputs)
            take = self._takes[key] = self._record(inputs)
        for own, given in zip(take.inputs, inputs, strict=True):
            own.copy_(given)
        take.replay()
        for parameter, gradient in take.gradients:
            parameter.grad = gradient
        return take.found

    def _aside(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Take the step on a stream of its own, as is asked of those before a recording."""
        if self._stream is None:
            return self._body(*inputs)
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            found = self._body(*inputs)
        current.wait_stream(self._stream)
        for each in inputs:
            each.record_stream(self._stream)
        found.record_stream(current)
        return found

    def _record(self, inputs: tuple[Tensor, ...]) -> _Take:
        own = tuple(each.clone() for each in inputs)
        replay, found = self._capture(self._body, own)
        gradients = [(each, each.grad) for each in self._parameters() if each.grad is not None]
        return _Take(own, replay, found, gradients, self._reads())


def as_graph(body: Body, inputs: tuple[Tensor, ...]) -> tuple[Callable[[], None], Tensor]:
    """Record a call as a CUDA graph. The call itself computes nothing: its first replay does."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = body(*inputs)
    return graph.replay, found
