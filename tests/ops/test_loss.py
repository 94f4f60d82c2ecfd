import pytest
import torch
from torch.nn import functional as F

from ramify.ops.loss import distillation_losses, exit_losses, self_distillation_losses, weighted_loss


def test_each_exit_has_its_own_cross_entropy() -> None:
    logits, labels = torch.randn(3, 5, 4), torch.tensor([0, 1, 2, 3, 0])
    expected = torch.stack([F.cross_entropy(exit_logits, labels) for exit_logits in logits])
    torch.testing.assert_close(exit_losses(logits, labels), expected)


def test_low_precision_logits_are_scored_in_float32() -> None:
    logits = torch.randn(2, 5, 4).bfloat16()
    assert exit_losses(logits, torch.zeros(5, dtype=torch.long)).dtype == torch.float32


def test_the_gradient_of_an_exit_is_scaled_by_its_weight() -> None:
    logits, labels = torch.randn(2, 5, 4, requires_grad=True), torch.tensor([0, 1, 2, 3, 0])
    weighted_loss(exit_losses(logits, labels), (0.25, 1.0)).backward()
    alone = logits.detach()[0].requires_grad_()
    F.cross_entropy(alone, labels).backward()
    assert logits.grad is not None
    assert alone.grad is not None
    torch.testing.assert_close(logits.grad[0], 0.25 * alone.grad)


def test_the_loss_is_the_sum_of_the_paper() -> None:
    loss = weighted_loss(torch.tensor([2.0, 3.0, 5.0]), (0.1, 0.2, 1.0))
    assert loss.item() == pytest.approx(0.1 * 2 + 0.2 * 3 + 5)


def test_distillation_is_the_divergence_times_the_square_of_the_temperature() -> None:
    logits, target = torch.randn(3, 7, 4), torch.randn(7, 4)
    for temperature in (0.5, 1.0, 4.0):
        found = distillation_losses(logits, target, temperature)
        for exit_logits, loss in zip(logits, found, strict=True):
            known, own = (target / temperature).softmax(1), (exit_logits / temperature).log_softmax(1)
            torch.testing.assert_close(loss, temperature**2 * F.kl_div(own, known, reduction="batchmean"))


def test_distillation_asks_for_nothing_where_the_logits_are_equal() -> None:
    target = torch.randn(7, 4)
    logits = (target + 3.0).expand(2, 7, 4).clone().requires_grad_()  # a shift is no difference
    losses = distillation_losses(logits, target, 2.0)
    losses.sum().backward()
    assert logits.grad is not None
    assert losses.abs().max() < 1e-6
    assert logits.grad.abs().max() < 1e-6


def test_a_teacher_learns_nothing_from_its_pupil() -> None:
    target, logits = torch.randn(7, 4, requires_grad=True), torch.randn(3, 7, 4, requires_grad=True)
    distillation_losses(logits, target, 2.0).sum().backward()
    assert target.grad is None
    assert logits.grad is not None
    logits.grad = None
    losses = self_distillation_losses(logits, 2.0)
    losses.sum().backward()
    assert losses[-1] == 0
    assert torch.equal(logits.grad[-1], torch.zeros(7, 4))  # type: ignore[index]
    assert (logits.grad[:-1] != 0).any()  # type: ignore[index]
