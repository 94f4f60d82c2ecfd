"""A training step recorded once as a CUDA graph, and replayed.

A small network's step is hundreds of short kernels, whose launches take longer than their work; a recording is
launched at once. It holds addresses, not values: weights, masks, momentum and rate are read again at each replay, so
prunings and moves of connections leave it valid. Growth makes new tensors, and needs a new recording.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WARM_UP = 3
"""Steps before one is recorded, in which libraries choose kernels and allocate, and optimizers begin their state."""

Body = Callable[..., Tensor]
"""A step as a function of tensors. All else that it reads must keep its address."""

Capture = Callable[[Body, tuple[Tensor, ...]], tuple[Callable[[], None], Tensor]]
"""Records a call: returns a function that replays it, and the tensor that receives the result of each replay."""


@dataclass
class _Recording:
    """A recording, and the tensors by which it is used."""

    inputs: tuple[Tensor, ...]
    replay: Callable[[], None]
    result: Tensor
    gradients: list[tuple[nn.Parameter, Tensor]]
    reads: object


class Recorder:
    """Takes a step at each call, from the fourth on by replay; one recording for each shape and type of the inputs.

    Args:
        body: the step.
        device: where it computes.
        parameters: whose gradients it sets.
        reads: the addresses of everything that the step reads besides its inputs.
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
        self._recordings: dict[object, _Recording] = {}

    def renew(self) -> None:
        """Drop the recordings if something that they read has moved; to be called after surgery."""
        now = self._reads()
        if any(recording.reads != now for recording in self._recordings.values()):
            self._warm.clear()
            self._recordings.clear()

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The result of the step for ``inputs``; the next call may overwrite it."""
        key = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        recording = self._recordings.get(key)
        if recording is None:
            warm = self._warm.get(key, 0)
            self._warm[key] = warm + 1
            if warm < WARM_UP:
                return self._aside(inputs)
            recording = self._recordings[key] = self._record(inputs)
        for own, tensor in zip(recording.inputs, inputs, strict=True):
            own.copy_(tensor)
        recording.replay()
        for parameter, gradient in recording.gradients:
            parameter.grad = gradient
        return recording.result

    def _aside(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Take the step on a stream of its own, as PyTorch asks of those before a recording."""
        if self._stream is None:
            return self._body(*inputs)
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = self._body(*inputs)
        current.wait_stream(self._stream)
        for tensor in inputs:
            tensor.record_stream(self._stream)
        result.record_stream(current)
        return result

    def _record(self, inputs: tuple[Tensor, ...]) -> _Recording:
        own = tuple(tensor.clone() for tensor in inputs)
        replay, result = self._capture(self._body, own)
        gradients = [(parameter, parameter.grad) for parameter in self._parameters() if parameter.grad is not None]
        return _Recording(own, replay, result, gradients, self._reads())


def as_graph(body: Body, inputs: tuple[Tensor, ...]) -> tuple[Callable[[], None], Tensor]:
    """Record a call as a CUDA graph; nothing is computed before its first replay."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = body(*inputs)
    return graph.replay, result
