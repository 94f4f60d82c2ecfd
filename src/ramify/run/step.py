"""What a training step calls: the network, shared by many processes or compiled, and wrapped anew when it changes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ramify.errors import ConfigError
from ramify.nn.equilibrium import Balanced
from ramify.ops.regrow import dense_forward
from ramify.run.state import State

BACKEND = "inductor"
RECORDED = {"triton.cudagraphs": True}
"""What ``mode="reduce-overhead"`` asks of the inductor backend: a step's kernels are recorded once, and replayed."""

Shape = tuple[tuple[str, tuple[int, ...], bool], ...]


class Step:
    """The forward pass of a training step.

    DistributedDataParallel does not see parameters that come later, nor does a compiled network see that others are
    frozen; so both are made anew whenever the parameters, their shapes, or what of them learns have changed. On a CUDA
    device the compiled network is recorded as CUDA graphs. Pruning changes masks and weights where they lie, which a
    recording reads anew at each step; growth makes new ones, and with them a new recording.

    Attributes:
        compilations: how often a graph was compiled.
    """

    def __init__(self, state: State) -> None:
        self.compilations = 0
        self._shape: Shape = ()
        self._plain: nn.Module = state.network
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._batch = state.config.data.batch_size // state.where.team.size
        self._recorded = records(state.where.device)
        if state.config.train.compile:
            _compiler_or_error(state.where.device)

    def renew(self, state: State, equilibrium: bool = False) -> None:
        """Wrap the network of ``state`` anew if it has changed, or if ``equilibrium`` has (see :class:`Balanced`)."""
        network = Balanced(state.network) if equilibrium else state.network
        shape = tuple((name, tuple(each.shape), each.requires_grad) for name, each in network.named_parameters())
        if shape == self._shape:
            return
        self._shape = shape
        self._plain = network
        if state.where.team.size > 1:
            # Each process keeps statistics of its own until the end of the epoch, when they are averaged.
            self._plain = DistributedDataParallel(network, broadcast_buffers=False)
        if state.config.train.compile:
            torch.compiler.reset()
            self._compiled = torch.compile(self._plain, backend=self._compile, dynamic=False)

    def forward(self, images: Tensor, dense: bool = False) -> Tensor:
        """The logits of every exit, ``[E, B, C]``. The last batch, which is smaller, is not worth compiling for.

        With ``dense``, masked weights get their gradient too; such a step is rare, and not compiled either.
        """
        if dense:
            return dense_forward(self._plain, images)
        if self._compiled is None or len(images) != self._batch:
            logits: Tensor = self._plain(images)
            return logits
        if self._recorded:
            # What the last step gave has been read, and may be overwritten.
            torch.compiler.cudagraph_mark_step_begin()
        return self._compiled(images)

    def _compile(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        from torch._dynamo.backends.registry import lookup_backend

        self.compilations += 1
        options = {"config_patches": RECORDED} if self._recorded else {}
        compiled: Callable[..., object] = lookup_backend(BACKEND)(graph, inputs, **options)
        return compiled


def records(device: torch.device) -> bool:
    """Whether a compiled step on ``device`` is recorded as CUDA graphs.

    Example:
        >>> records(torch.device("cpu")), records(torch.device("cuda", 0))
        (False, True)
    """
    return BACKEND == "inductor" and device.type == "cuda"


def _compiler_or_error(device: torch.device) -> None:
    if BACKEND != "inductor" or device.type != "cpu":
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ConfigError("train.compile: got true; accepted: false, as this machine has no C++ compiler") from error
