"""A contract for every classifier in the registry."""

import pytest
import torch
from torch.nn import functional as F

from ramify.nn.exit import EXITS, PooledHead


@pytest.mark.parametrize("name", sorted(EXITS))
@pytest.mark.parametrize("size", [(4, 4), (8, 8), (9, 13), (32, 32)])
def test_an_exit_gives_logits_for_any_size(name: str, size: tuple[int, int]) -> None:
    head = EXITS[name](5, 7)
    logits = head(torch.randn(3, 5, *size))
    assert logits.shape == (3, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


@pytest.mark.parametrize("name", sorted(EXITS))
def test_an_exit_reads_sixteen_values_a_channel(name: str) -> None:
    head = EXITS[name](5, 7)
    assert sum(parameter.numel() for parameter in head.parameters()) == 5 * 16 * 7 + 7 + (name == "mixed")


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixed_pooling_is_what_the_paper_says(share: float) -> None:
    head = EXITS["mixed"](2, 3)
    assert isinstance(head, PooledHead)
    head.share.data.fill_(share)
    x = torch.randn(2, 2, 8, 8)
    expected = share * F.max_pool2d(x, 2) + (1 - share) * F.avg_pool2d(x, 2)
    torch.testing.assert_close(head.pool(x), expected)
