"""What is fitted before thresholds are chosen: temperatures, weights of exits, learned scores."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ramify.errors import InputError
from ramify.ops.exits.policy import CRITERIA, Coefficients, Policy, answers, features
from ramify.seeds import generator

LOWEST, HIGHEST = 0.05, 20.0
"""The range of temperatures."""

FOLDS = 5
"""Parts of the pictures in cross-fitting."""

RIDGE = 1.0
"""The penalty on a weight of a learned score: a normal prior of variance 1."""


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that makes the probabilities of one exit most likely (arXiv:1706.04599).

    It minimizes the mean of ``-sum_c t_c log softmax(logits / T)_c`` over T in [0.05, 20], where ``t`` is 1 at the
    label, less ``1 / (N + 1)`` that all classes share, as in Platt's scaling: an exit that is right on all N is not
    certain. In ``1 / T`` this is convex; a bracketed Newton search in float64 finds the minimum. Equal logits give 1.

    Args:
        logits: finite, ``[N, C]``.
        labels: int64 ``[N]`` in [0, C).

    Raises:
        InputError: there are no pictures, logits are not finite, or labels do not fit them.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0]]).repeat(4000, 1)  # 98 % sure, and right three times in four
        >>> round(temperature(logits, torch.tensor([0, 0, 0, 1]).repeat(1000)), 2)  # 4 / log 3
        3.64
    """
    if logits.dim() != 2:
        raise InputError(f"logits: got shape {tuple(logits.shape)}; accepted: [pictures, classes]")
    check_labels(logits[None], labels)
    z = logits.detach().cpu().double()
    z = z - z.amax(dim=1, keepdim=True)
    doubt = 1 / (len(z) + 1)
    target = (1 - doubt) * z.gather(1, labels.cpu().long()[:, None])[:, 0] + doubt * z.mean(dim=1)
    low, high, sharpness = 1 / HIGHEST, 1 / LOWEST, 1.0  # of 1 / T
    for _ in range(100):
        p = (sharpness * z).softmax(dim=1)
        mean = (p * z).sum(dim=1)
        slope = float((mean - target).mean())
        bend = float((p * (z - mean[:, None]).square()).sum(dim=1).mean())
        if slope == 0:
            break
        low, high = (sharpness, high) if slope < 0 else (low, sharpness)
        step = sharpness - slope / bend if bend > 0 else math.inf
        # Where Newton leaves the bracket, the geometric middle is next.
        following = step if low < step < high else math.sqrt(low * high)
        done = abs(following - sharpness) <= 1e-12 * sharpness
        sharpness = following
        if done:
            break
    return min(max(1 / sharpness, LOWEST), HIGHEST)


def check_labels(logits: Tensor, labels: Tensor) -> None:
    """Check logits ``[E, N, C]`` and labels ``[N]``.

    Raises:
        InputError: logits are empty or not finite, or labels do not fit them.
    """
    if logits.dim() != 3 or logits.shape[0] < 1 or logits.shape[1] < 1 or logits.shape[2] < 2:
        raise InputError(
            f"logits: got shape {tuple(logits.shape)}; accepted: [exits, pictures, classes] "
            "with at least 1 exit, 1 picture and 2 classes"
        )
    _, pictures, classes = logits.shape
    if labels.shape != (pictures,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(
            f"labels: got {labels.dtype} of shape {tuple(labels.shape)}; "
            f"accepted: whole numbers of shape ({pictures},), one for each picture of logits"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise InputError(
            f"labels: got {int(labels.min())} to {int(labels.max())}; "
            f"accepted: 0 to {classes - 1}, the classes of logits"
        )
    if not logits.is_floating_point() or not logits.isfinite().all():
        got = "some that are infinite or not a number" if logits.is_floating_point() else str(logits.dtype)
        raise InputError(f"logits: got {got}; accepted: finite floating-point numbers")


def mixture(
    logits: Tensor, labels: Tensor, temperatures: tuple[float, ...] | None = None
) -> tuple[tuple[float, ...], ...]:
    """The weights of ``combine="weighted"`` that make the labels most likely.

    For each exit i they maximize the mean of ``log sum_{j <= i} w_j p_j(label)``, which is concave, by 100 steps of
    expectation maximization in float64, ``w_j <- mean of w_j p_j / sum_k w_k p_k``.

    Args:
        logits: finite, ``[E, N, C]``.
        labels: int64 ``[N]``.
        temperatures: of each exit.
    """
    policy = Policy((None,) * (len(logits) - 1), temperatures=temperatures)
    index = labels[None, :, None].expand(len(logits), -1, 1)
    of_label = torch.stack(policy.probabilities(logits)).double().gather(2, index)
    weights = []
    for at in range(len(logits)):
        p = of_label[: at + 1, :, 0].clamp(min=1e-30)
        w = torch.full((at + 1,), 1 / (at + 1), dtype=torch.float64)
        for _ in range(100):
            share = w[:, None] * p
            w = (share / share.sum(dim=0)).mean(dim=1)
        weights.append(tuple((w / w.sum()).tolist()))
    return tuple(weights)


def scores(
    base: Policy, criterion: str, logits: Tensor, labels: Tensor, reached: Tensor | None = None
) -> tuple[Coefficients, ...]:
    """The coefficients of a learned ``criterion``: of each exit, for each target an intercept and weights.

    Logistic regression of each target ``t`` on :func:`ramify.ops.exits.policy.features` ``x``: the maximum over w, b of
    ``sum_n r_n (t'_n log P_n + (1 - t'_n) log(1 - P_n)) - RIDGE / 2 |w|^2``, ``P_n = sigmoid(w x_n + b)``, by Newton
    steps in float64. As in Platt's scaling, ``t'`` is ``(n_1 + 1) / (n_1 + 2)`` for the n_1 pictures where ``t`` holds
    and ``1 / (n_0 + 2)`` for the n_0 others.

    Args:
        base: the policy that answers, with its temperatures, ``combine`` and weights.
        criterion: a name in :data:`ramify.ops.exits.policy.CRITERIA`; one that is not learned needs none.
        logits: finite, ``[E, N, C]``.
        labels: int64 ``[N]``.
        reached: r, float ``[E, N]``: 1 where a picture reaches the exit, else 0; None: all count.
    """
    targets = CRITERIA[criterion].targets
    if targets is None:
        return ()
    seen = base.seen(logits)
    right = torch.stack([view.classes[-1] for view in seen]) == labels
    coefficients: list[Coefficients] = []
    for at, view in enumerate(seen):
        x = torch.stack([torch.ones(len(labels)), *features(view)], dim=1).double()
        counts = torch.ones(len(labels), dtype=torch.float64) if reached is None else reached[at].double()
        coefficients.append(tuple(_logistic(x, target.double(), counts) for target in targets(right, at)))
    return tuple(coefficients)


def _logistic(x: Tensor, target: Tensor, counts: Tensor) -> tuple[float, ...]:
    """The intercept and weights of one target; the first column of ``x [N, F]`` is 1."""
    high, low = float(counts @ target), float(counts @ (1 - target))
    aim = torch.where(target > 0.5, (high + 1) / (high + 2), 1 / (low + 2))
    penalty = torch.full((x.shape[1],), RIDGE, dtype=torch.float64)
    penalty[0] = 1e-6
    w = torch.zeros(x.shape[1], dtype=torch.float64)

    def loss(w: Tensor) -> float:
        z = x @ w
        return float(counts @ (torch.nn.functional.softplus(z) - aim * z) + (penalty * w * w).sum() / 2)

    before = loss(w)
    for _ in range(50):
        p = (x @ w).sigmoid()
        gradient = x.T @ (counts * (p - aim)) + penalty * w
        hessian = x.T @ ((counts * p * (1 - p))[:, None] * x) + torch.diag(penalty + 1e-9)
        step = torch.linalg.solve(hessian, gradient)
        size = 1.0
        while (after := loss(w - size * step)) > before and size > 1e-6:
            size /= 2
        if before - after <= 1e-10 * (1 + abs(before)):
            break
        w, before = w - size * step, after
    return tuple(w.tolist())


def crossed(
    base: Policy, criterion: str, logits: Tensor, labels: Tensor, seed: int, reached: Tensor | None = None
) -> Tensor:
    """The cross-fitted confidence of a learned criterion (arXiv:1608.00060): float32 ``[E, N]``.

    The pictures are split at random, by ``seed``, into :data:`FOLDS` parts; each is scored by a fit on the others.
    Other arguments as of :func:`scores`.
    """
    order = torch.randperm(len(labels), generator=generator(seed, "cross-fitting"))
    confidence = torch.zeros(len(logits), len(labels))
    parts = order.tensor_split(min(FOLDS, len(order)))
    for part in parts:
        others = torch.ones(len(labels), dtype=torch.bool)
        others[part] = len(parts) == 1
        counts = None if reached is None else reached[:, others]
        coefficients = scores(base, criterion, logits[:, others], labels[others], counts)
        rule = replace(base, criterion=criterion, coefficients=coefficients)
        confidence[:, part] = answers(rule, logits[:, part])[1]
    return confidence
