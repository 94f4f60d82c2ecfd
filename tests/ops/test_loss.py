import pytest
import torch
from torch.nn import functional as F

from ramify.ops.loss import (
    arrival_weights,
    distillation_losses,
    exit_distillation_losses,
    exit_losses,
    self_distillation_losses,
    weighted_loss,
)


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


def test_pictures_count_by_how_likely_they_arrive() -> None:
    logits = 3 * torch.randn(3, 200, 4, requires_grad=True)
    whole = arrival_weights(logits, 1.0)
    unsure = 1 - logits.detach().softmax(dim=2).amax(dim=2)
    torch.testing.assert_close(whole.mean(dim=1), torch.ones(3))
    torch.testing.assert_close(whole[0], torch.ones(200))
    torch.testing.assert_close(whole[2] / whole[2, 0], (unsure[0] * unsure[1]) / (unsure[0] * unsure[1])[0])
    torch.testing.assert_close(arrival_weights(logits, 0.25), 0.75 + 0.25 * whole)
    assert not whole.requires_grad
    labels = torch.randint(4, (200,))
    each = F.cross_entropy(logits[2], labels, reduction="none")
    torch.testing.assert_close(exit_losses(logits, labels, shares=whole)[2], (whole[2] * each).mean())


def test_an_exit_copies_its_teacher_where_that_is_right_and_stays_undecided_where_it_is_wrong() -> None:
    target, labels = torch.randn(2, 6, 3), torch.randint(3, (6,))
    right = target.argmax(dim=2) == labels
    logits = torch.randn(3, 6, 3, requires_grad=True)
    found = exit_distillation_losses(logits, target, labels, 2.0)
    for at, taught in enumerate((0, 1, 1)):  # the teacher has two exits
        apart = torch.stack(
            [distillation_losses(logits[at : at + 1, [n]], target[taught, [n]], 2.0)[0] for n in range(6)]
        )
        p = logits[at].softmax(dim=1)
        sure = torch.tensor(3.0).log() + (p * p.log()).sum(dim=1)
        torch.testing.assert_close(found[at], torch.where(right[taught], apart, sure).mean())
    undecided = exit_distillation_losses(torch.zeros(1, 6, 3), target[:1], (target[0].argmax(dim=1) + 1) % 3, 2.0)
    assert undecided.item() == pytest.approx(0, abs=1e-6)
