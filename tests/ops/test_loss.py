import pytest
import torch
from torch.nn import functional as F

from ramify.ops.loss import exit_losses, weighted_loss


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
