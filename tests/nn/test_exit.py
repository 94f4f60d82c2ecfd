"""A contract for every classifier in the registry."""

import pytest
import torch
from torch.nn import functional as F

from ramify.config.keys import accepts_of
from ramify.config.rules import NetworkConfig
from ramify.nn.exit import EXITS, HIDDEN_CHANNELS, ONE_PIXEL, BothHead, Grid, PooledHead, ScaledHead


def test_the_keys_offer_every_exit() -> None:
    assert accepts_of(NetworkConfig.model_fields["exit"]) == ", ".join(EXITS)


@pytest.mark.parametrize("name", sorted(EXITS))
@pytest.mark.parametrize("grid", [(4, 4), (1, 1), (2, 3)])
@pytest.mark.parametrize("size", [(4, 4), (8, 8), (9, 13), (32, 32)])
def test_an_exit_gives_logits_for_any_size(name: str, grid: Grid, size: tuple[int, int]) -> None:
    head = EXITS[name](5, 7, grid)
    logits = head(torch.randn(3, 5, *size))
    assert logits.shape == (3, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


@pytest.mark.parametrize("name", sorted(EXITS))
@pytest.mark.parametrize("grid", [(4, 4), (1, 1), (2, 3)])
def test_an_exit_reads_each_place_of_its_grid_in_each_channel(name: str, grid: Grid) -> None:
    head = EXITS[name](5, 7, grid)
    of_its_own = {"mixed": 1, "normed": 2 * 5}
    if name in ONE_PIXEL:
        own = {
            "global": 5 * 7 + 7 + 1,
            "conv": 5 * HIDDEN_CHANNELS + 2 * HIDDEN_CHANNELS + HIDDEN_CHANNELS * 7 + 7 + 1,
            "both": 2 * 5 * 7 + 7,
            "scaled": 5 * 7 + 7,
        }
        assert sum(each.numel() for each in head.parameters()) == own[name]
        return
    assert sum(each.numel() for each in head.parameters()) == 5 * grid[0] * grid[1] * 7 + 7 + of_its_own.get(name, 0)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixed_pooling_is_what_the_paper_says(share: float) -> None:
    head = EXITS["mixed"](2, 3, (4, 4))
    assert isinstance(head, PooledHead)
    head.share.data.fill_(share)
    x = torch.randn(2, 2, 8, 8)
    expected = share * F.max_pool2d(x, 2) + (1 - share) * F.avg_pool2d(x, 2)
    torch.testing.assert_close(head.pool(x), expected)


def test_the_heads_of_one_pixel_read_means_and_maxima() -> None:
    x = torch.randn(20, 3, 8, 5)
    mean, highest = x.flatten(2).mean(dim=2), x.flatten(2).amax(dim=2)
    both, scaled = EXITS["both"](3, 4, (4, 4)), EXITS["scaled"](3, 4, (4, 4))
    assert isinstance(both, BothHead)
    assert isinstance(scaled, ScaledHead)
    features = torch.cat((mean, highest), dim=1)
    torch.testing.assert_close(both(x), both.linear(F.batch_norm(features, None, None, training=True)))
    for _ in range(200):
        both(x)  # the running statistics approach those of x
    deviation = (features.var(dim=0) + both.norm.eps).sqrt()
    expected = both.linear((features - features.mean(dim=0)) / deviation)
    torch.testing.assert_close(both.eval()(x), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(scaled(x), scaled.linear(highest) / 9)


def test_a_normed_exit_reads_what_batch_norm_and_relu_leave() -> None:
    head, plain = EXITS["normed"](2, 3, (1, 1)).eval(), EXITS["average"](2, 3, (1, 1)).eval()
    plain.load_state_dict({key: value for key, value in head.state_dict().items() if "norm" not in key})
    head.get_parameter("norm.bias").data.copy_(torch.tensor([0.3, -0.2]))
    x = torch.randn(4, 2, 8, 8)
    assert torch.equal(head(x), plain(F.relu(head.get_submodule("norm")(x))))


def test_a_global_exit_is_a_mixed_one_of_a_single_place() -> None:
    head, wide = EXITS["global"](3, 4, (4, 4)), EXITS["mixed"](3, 4, (1, 1))
    wide.load_state_dict(head.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(head(x), wide(x))


def test_a_conv_exit_pools_what_its_block_makes() -> None:
    head = EXITS["conv"](3, 4, (4, 4)).eval()
    assert isinstance(head, PooledHead)
    assert head.conv is not None
    assert head.norm is not None
    x = torch.randn(2, 3, 8, 8)
    block = F.relu(head.norm(head.conv(x)))
    expected = 0.5 * (block.amax(dim=(2, 3)) + block.mean(dim=(2, 3)))
    torch.testing.assert_close(head(x), head.linear(expected))
    of_many = EXITS["conv"](3, 200, (4, 4))
    assert isinstance(of_many, PooledHead)
    assert of_many.linear.in_features == 200
