"""Muon: orthogonal steps for weights, AdamW for the rest.

``torch.optim.Muon`` takes matrices alone. Here a convolution counts as the matrix ``[out, in * height * width]``, one
optimizer has every parameter, as growth, widening and compaction expect, and masked weights stay zero.
"""

from collections.abc import Callable, Iterable
from typing import overload

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.adamw import adamw

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: steep at zero, with singular values between about 0.7 and 1.2 in the end."""

STEPS = 5

LIKE_ADAMW = 0.2
"""Root mean square of an AdamW step in units of the rate, to which arXiv:2502.16982 scales Muon's steps."""

_SMALL = 1e-7

FEW_STEPS = 3
REST_MOMENTUM = 0.85
LINEAR_RATE = 3.0
"""Of :class:`NormedMuon`."""


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two dimensions and more, AdamW for biases, batch norm and other vectors.

    With gradient ``G``, momentum ``mu``, rate ``r``, decay ``d``, and ``W`` as a matrix of ``A x B``::

        M <- mu M + (1 - mu) G
        O <- orthogonal((1 - mu) G + mu M)
        W <- W - r d W - 0.2 r sqrt(max(A, B)) O

    as in "Muon is Scalable for LLM Training" (arXiv:2502.16982), whose factor gives the step the size of AdamW's, so
    that one rate and one decay serve both. An entry whose gradient and momentum are both exactly zero, as of a masked
    weight, does not move.

    Args:
        params: parameters or groups, as for any ``torch.optim`` optimizer.
        lr: rate, > 0.
        momentum: ``mu``, in [0, 1).
        weight_decay: ``d``, >= 0, of groups without their own.
        betas: of AdamW.

    Example:
        >>> weight = torch.nn.Parameter(torch.eye(2))
        >>> optimizer = Muon([weight], lr=0.1)
        >>> (weight * torch.tensor([[3.0, 0.0], [0.0, 0.0]])).sum().backward()
        >>> optimizer.step()
        >>> [round(number, 1) for number in weight.flatten().tolist()]  # a gradient of 300 would move it as far
        [1.0, 0.0, 0.0, 1.0]
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter] | Iterable[dict[str, object]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "betas": betas})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                with_gradient = [p for p in group["params"] if p.grad is not None]
                matrices = [p for p in with_gradient if p.dim() > 1]
                vectors = [p for p in with_gradient if p.dim() <= 1]
                rate, decay = group["lr"], group["weight_decay"]
                if matrices:
                    self._step_matrices(matrices, rate, decay, group["momentum"])
                if vectors:
                    self._step_vectors(vectors, rate, decay, group["betas"])
        return loss

    def _step_matrices(self, parameters: list[Tensor], rate: float, decay: float, momentum: float) -> None:
        ahead = self._ahead(parameters, momentum)
        steps = _orthogonal_steps(ahead, STEPS)
        sizes = [LIKE_ADAMW * max(len(step), step[0].numel()) ** 0.5 for step in ahead]
        torch._foreach_mul_(steps, sizes)
        torch._foreach_mul_(steps, rate)
        torch._foreach_mul_(parameters, 1 - rate * decay)
        torch._foreach_sub_(parameters, steps)

    def _ahead(self, parameters: list[Tensor], momentum: float) -> list[Tensor]:
        """Gradients with Nesterov momentum, which is a mean and not a sum."""
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_lerp_(momenta, gradients, 1 - momentum)
        return [*torch._foreach_lerp(gradients, momenta, momentum)]

    def _step_vectors(self, parameters: list[Tensor], rate: float, decay: float, betas: tuple[float, float]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=betas[0],
            beta2=betas[1],
            lr=rate,
            weight_decay=decay,
            eps=1e-8,
            maximize=False,
            capturable=parameters[0].is_cuda,
        )


class NormedMuon(Muon):
    """Muon for convolutions, each of which keeps its norm; Nesterov SGD for linear layers, biases and batch norm.

    With the names of :class:`Muon` and a convolution of ``A`` filters::

        W <- sqrt(A) W / |W| - r orthogonal((1 - mu) G + mu M)

    with :data:`FEW_STEPS` iterations (arXiv:2404.00498). The rest has the momentum :data:`REST_MOMENTUM`, the rate
    ``r``, of which linear layers have :data:`LINEAR_RATE` times as much, and the decay.

    Example:
        >>> weight = torch.nn.Parameter(torch.eye(2).view(2, 2, 1, 1))
        >>> optimizer = NormedMuon([weight], lr=0.1)
        >>> (weight[0, 0, 0, 0] * 3).backward()
        >>> optimizer.step()
        >>> [round(number, 1) for number in weight.flatten().tolist()]
        [0.9, 0.0, 0.0, 1.0]
    """

    def _step_matrices(self, parameters: list[Tensor], rate: float, decay: float, momentum: float) -> None:
        convolutions = [p for p in parameters if p.dim() > 2]
        if convolutions:
            steps = _orthogonal_steps(self._ahead(convolutions, momentum), FEW_STEPS)
            norms = torch._foreach_norm(convolutions)
            scales = [len(p) ** 0.5 / norm.clamp(min=_SMALL) for p, norm in zip(convolutions, norms, strict=True)]
            torch._foreach_mul_(convolutions, scales)
            torch._foreach_mul_(steps, rate)
            torch._foreach_sub_(convolutions, steps)
        linear = [p for p in parameters if p.dim() == 2]
        if linear:
            torch._foreach_mul_(linear, 1 - LINEAR_RATE * rate * decay)
            self._descend(linear, LINEAR_RATE * rate)

    def _step_vectors(self, parameters: list[Tensor], rate: float, decay: float, betas: tuple[float, float]) -> None:
        if decay:
            torch._foreach_mul_(parameters, 1 - rate * decay)
        self._descend(parameters, rate)

    def _descend(self, parameters: list[Tensor], rate: float) -> None:
        # The momentum of SGD is a sum, 1 / (1 - mu) times as large as this mean.
        steps = self._ahead(parameters, REST_MOMENTUM)
        torch._foreach_sub_(parameters, steps, alpha=rate / (1 - REST_MOMENTUM))


def _orthogonal_steps(ahead: list[Tensor], count: int) -> list[Tensor]:
    """Each tensor as a matrix, made orthogonal by ``count`` iterations; zeros stay."""
    # Matrices of similar shapes are batched, so that a small network costs few kernels.
    batches: dict[tuple[int, int], list[int]] = {}
    for at, tensor in enumerate(ahead):
        short, long = sorted((len(tensor), tensor[0].numel()))
        bounds = 1 << (short - 1).bit_length(), 1 << (long - 1).bit_length()  # the next powers of two
        batches.setdefault(bounds, []).append(at)
    steps = [*ahead]
    for bounds, indices in batches.items():
        matrices = torch.stack([_padded(ahead[at], bounds) for at in indices])
        results = orthogonal(matrices, count).masked_fill_(matrices == 0, 0)
        for at, step in zip(indices, results, strict=True):
            rows, columns = len(ahead[at]), ahead[at][0].numel()
            matrix = step.mT if rows > columns else step
            steps[at] = matrix[:rows, :columns].reshape(ahead[at].shape)
    return steps


def _padded(tensor: Tensor, bounds: tuple[int, int]) -> Tensor:
    """A tensor as a matrix no taller than wide, padded to ``bounds`` with zeros, which change no singular vector."""
    matrix = tensor.flatten(1)
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.mT
    return F.pad(matrix, (0, bounds[1] - matrix.shape[1], 0, bounds[0] - matrix.shape[0]))


def orthogonal(matrices: Tensor, count: int = STEPS) -> Tensor:
    """Matrices with the singular vectors of ``matrices`` and singular values near 1, ``[N, A, B] -> [N, A, B]``.

    ``count`` steps of ``X <- a X + (b X X' + c (X X')^2) X`` from ``X = M / |M|`` (Newton-Schulz), in float32. Zero
    matrices stay zero.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).float()
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=_SMALL)
    for _ in range(count):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.mT if tall else x
    return x.contiguous().to(matrices.dtype)
