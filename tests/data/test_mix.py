"""Mixing moves mass between pictures and labels, and loses none."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ramify.data.mix import Mix, draw_mix, mixed, mixed_labels


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(mixup: float, cutmix: float, count: int = 300) -> list[Mix | None]:
    generator = seeded(5)
    return [draw_mix((12, 20), mixup, cutmix, 1.0, generator) for _ in range(count)]


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_the_sum_over_the_batch_stays(mixup: float, cutmix: float) -> None:
    images = torch.rand(7, 3, 12, 20, generator=seeded())
    labels = torch.randint(5, (7,), generator=seeded())
    for mix in drawn(mixup, cutmix, 20):
        assert mix is not None
        kept = images.clone()
        found, targets = mixed(images, mix), mixed_labels(labels, mix, 5)
        torch.testing.assert_close(found.sum(dim=0), images.sum(dim=0))
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(7))
        torch.testing.assert_close(targets.sum(dim=0), labels.bincount(minlength=5).float())
        assert torch.equal(images, kept)
        assert found.min() >= 0
        assert found.max() <= 1


def test_a_share_of_a_picture_is_its_share_of_the_label() -> None:
    """Pictures of ones and zeros: what is left of a picture is what its label says."""
    images = torch.tensor([1.0, 0.0])[:, None, None, None].expand(2, 1, 12, 20)
    for mix in drawn(1.0, 1.0, 50):
        assert mix is not None
        targets = mixed_labels(torch.tensor([1, 0]), mix, 2)
        torch.testing.assert_close(mixed(images, mix).mean(dim=(1, 2, 3)), targets[:, 1])


def test_both_are_drawn_by_turns_and_each_alone() -> None:
    boxes = [mix is not None and mix.box is not None for mix in drawn(0.4, 1.0)]
    assert 0.35 < sum(boxes) / len(boxes) < 0.65
    assert all(mix is not None and mix.box is None for mix in drawn(0.4, 0.0))
    assert all(mix is not None and mix.box is not None for mix in drawn(0.0, 1.0))


def test_shares_follow_their_distribution() -> None:
    """Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1))."""
    shares = torch.tensor([mix.share for mix in drawn(0.4, 0.0, 3000) if mix is not None])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(shares.var()) == pytest.approx(1 / 7.2, rel=0.06)


@given(probability=st.sampled_from([0.0, 0.3, 1.0]))
def test_so_many_batches_are_mixed(probability: float) -> None:
    generator = seeded(1)
    count = sum(draw_mix((8, 8), 1.0, 0.0, probability, generator) is not None for _ in range(400))
    assert count / 400 == pytest.approx(probability, abs=0.08)


def test_a_seed_gives_the_same_mix() -> None:
    assert draw_mix((8, 8), 1.0, 1.0, 1.0, seeded(3)) == draw_mix((8, 8), 1.0, 1.0, 1.0, seeded(3))
    assert draw_mix((8, 8), 0.0, 0.0, 1.0, seeded(3)) is None
