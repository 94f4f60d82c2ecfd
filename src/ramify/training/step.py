"""A training step: forward, backward and optimizer, possibly distributed, compiled or recorded."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ramify.nn.equilibrium import Balanced, Sharing
from ramify.nn.masked import masked_layers
from ramify.ops.loss import arrival_weights, exit_losses, weighted_loss
from ramify.ops.pruning.regrow import dense_forward
from ramify.ops.surgery import optimizer_state, set_learning_rate
from ramify.run.evaluate import computing
from ramify.training.cuda_graph import Recorder, as_graph
from ramify.training.distillation import Guidance
from ramify.training.feeding import Batch
from ramify.training.preflight import BACKEND, records_whole
from ramify.training.regrowing import Moves
from ramify.training.state import State

RECORDED = {"triton.cudagraphs": True}
"""The option of ``mode="reduce-overhead"`` of the inductor backend: kernels are recorded once, and replayed."""

_Shape = tuple[tuple[str, tuple[int, ...], bool], ...]


class Step:
    """The training step of a run.

    DistributedDataParallel and ``torch.compile`` do not notice later parameters or freezing, so both wrappers are made
    again after such a change. On a CUDA device the whole step is recorded where :func:`records_whole` says so, else the
    compiled network is.

    Args:
        state: the run.
        guidance: of the teacher and the deepest exit.
        class_weights: of the loss, ``[C]`` on the device; None: all classes count alike.

    Attributes:
        compilations: how often a graph was compiled.
    """

    def __init__(self, state: State, guidance: Guidance, class_weights: Tensor | None = None) -> None:
        self.compilations = 0
        self._state, self._guidance, self._class_weights = state, guidance, class_weights
        self._shape: _Shape = ()
        self._plain: nn.Module = state.network
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._batch = state.config.data.batch_size // state.where.team.size
        self._recorder: Recorder | None = None
        if records_whole(state.config, state.where):
            # A number would be recorded as a constant; a tensor is read at each replay.
            rates: dict[float, Tensor] = {}
            for group in state.optimizer.param_groups:
                zero = torch.zeros((), device=state.where.device)
                group["lr"] = rates.setdefault(group.get("rate_factor", 1.0), zero)
            self._recorder = Recorder(self._learn, state.where.device, state.network.parameters, self._reads, as_graph)
        self._recorded = self._recorder is None and records(state.where.device)

    def renew(self, state: State, sharing: Sharing | None = None) -> None:
        """Wrap the network of ``state`` again if it has changed, or if ``sharing`` has (see :class:`Balanced`)."""
        for layer in masked_layers(state.network).values():
            layer.int8 = state.config.train.quantize == "int8"
        network = state.network if sharing is None else Balanced(state.network, sharing)
        shape = tuple((name, tuple(p.shape), p.requires_grad) for name, p in network.named_parameters())
        if shape != self._shape:
            self._shape = shape
            self._wrap(state, network)
        if self._recorder is not None:
            self._recorder.renew()

    def _wrap(self, state: State, network: nn.Module) -> None:
        self._plain = network
        if state.where.team.size > 1:
            # The statistics of batch norm are averaged at the end of the epoch.
            self._plain = DistributedDataParallel(network, broadcast_buffers=False)
        if state.config.train.compile:
            torch.compiler.reset()
            self._compiled = torch.compile(self._plain, backend=self._compile, dynamic=False)

    def take(self, batch: Batch, whole: int, taus: Tensor, rate: float, moves: Moves) -> Tensor:
        """Learn from a batch: forward, backward, moves of connections, and the optimizer.

        Args:
            batch: this process's share of it.
            whole: pictures of the batch in all processes, whose gradients are averaged with equal weight.
            taus: weights of the exits in the loss, ``[E]``, on the device.
            rate: the learning rate.
            moves: of connections.

        Returns:
            Sums over the batch for each exit, ``[3, E]``: of the cross-entropies, of the losses, and of the right
            answers. The next step may overwrite it.
        """
        set_learning_rate(self._state.optimizer, rate)
        config = self._state.config
        if config.growth.learning_rate == "constant":
            set_learning_rate(self._state.optimizer, config.train.learning_rate, first=config.network.first_stages)
        dense = moves.begin()
        inputs = (batch.images, batch.targets, batch.labels, batch.index, taus)
        if self._recorder is None or moves.due or len(batch.labels) != self._batch:
            scale = len(batch.labels) * self._state.where.team.size / whole
            return self._learn(*inputs, scale=scale, moves=moves, dense=dense)
        return self._recorder(*inputs)

    def _learn(
        self,
        images: Tensor,
        targets: Tensor,
        labels: Tensor,
        index: Tensor,
        taus: Tensor,
        *,
        scale: float = 1.0,
        moves: Moves | None = None,
        dense: bool = False,
    ) -> Tensor:
        state, train = self._state, self._state.config.train
        state.optimizer.zero_grad(set_to_none=True)  # before the network needs their memory
        with computing(state.where.device, state.where.precision):
            logits = self.forward(images, dense)  # [E, B, C]
        shares = arrival_weights(logits, train.exit_focus) if train.exit_focus else None
        entropies = exit_losses(logits, targets, train.label_smoothing, self._class_weights, shares)  # [E]
        losses = self._guidance.losses(entropies, logits, images, index, labels)  # [E]
        (weighted_loss(losses, taus) * scale).backward()
        if moves is not None:
            moves.finish()
        if train.clip is not None:
            torch.nn.utils.clip_grad_norm_(state.network.parameters(), train.clip)
        state.optimizer.step()
        right = (logits.detach().argmax(dim=2) == labels).sum(dim=1)  # [E]
        return torch.stack((entropies.detach() * len(labels), losses.detach() * len(labels), right))

    def _reads(self) -> object:
        """The addresses of everything that a recorded step reads, and which parameters learn."""
        network = self._state.network
        optimizer_tensors = optimizer_state(self._state.optimizer, network).values()
        return (
            isinstance(self._plain, Balanced),
            [parameter.requires_grad for parameter in network.parameters()],
            [tensor.data_ptr() for tensor in network.state_dict().values()],
            [tensor.data_ptr() for tensors in optimizer_tensors for tensor in tensors.values()],
        )

    def forward(self, images: Tensor, dense: bool = False) -> Tensor:
        """The logits of every exit, ``[E, B, C]``; a smaller last batch is not compiled.

        With ``dense``, masked weights get a gradient too; such a step is rare, and not compiled either.
        """
        if dense:
            return dense_forward(self._plain, images)
        if self._compiled is None or len(images) != self._batch:
            logits: Tensor = self._plain(images)
            return logits
        if self._recorded:
            # The result of the last step may be overwritten.
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
