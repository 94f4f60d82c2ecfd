"""A budget is kept by what compaction leaves, and no channel goes that could stay."""

import pytest
import torch

from ramify.config.rules import NetworkConfig
from ramify.errors import InputError
from ramify.nn.network import Network
from ramify.ops.cost import Cost, cost
from ramify.ops.pruning.budget import Budget, keep_within
from ramify.ops.pruning.channels import channels
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import prune
from ramify.ops.pruning.saliency import SALIENCIES


def network() -> Network:
    config = NetworkConfig(kind="dense", structure=(0, 1, 0), channels=8, input_shape=(1, 8, 8), classes=3)
    return Network(config, stages=2, seed=0).eval()


@pytest.mark.parametrize("budget", [Budget(macs=0.6), Budget(parameters=4000), Budget(parameters=0.5, macs=300_000)])
def test_the_compacted_network_is_within_it_and_one_channel_more_is_not(budget: Budget) -> None:
    whole, more = network(), network()
    before = cost(whole)[-1]
    scores = SALIENCIES["magnitude"](whole, [], 0)
    keep = keep_within(whole, scores, budget)
    prune(whole, 1.0, "magnitude", unit="channel", budget=budget)
    assert budget.fits(cost(compact(whole)[0])[-1], before)
    prune(more, keep + 1 / len(channels(more)), "magnitude", unit="channel")
    assert not budget.fits(cost(compact(more)[0])[-1], before)


def test_limits_are_numbers_or_shares() -> None:
    before, half = Cost(100, 90, 90, 1000), Cost(50, 45, 45, 500)
    assert Budget(0.5, 0.5).fits(half, before)
    assert not Budget(0.49).fits(half, before)
    assert Budget(50, 500).fits(half, before)
    assert not Budget(macs=499).fits(half, before)
    assert Budget().fits(before, before)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match=r"accepted: at least [\d,]+ parameters and [\d,]+ MACs"):
        prune(network(), 1.0, "magnitude", unit="channel", budget=Budget(macs=10))
    for wrong in ({"unit": "weight"}, {"unit": "channel", "rounds": 2}):
        with pytest.raises(InputError, match=r"prune\.max_macs, prune\.max_parameters: got them with"):
            prune(network(), 1.0, "magnitude", budget=Budget(macs=0.5), **wrong)
    with pytest.raises(InputError, match="of the whole network"):
        prune(network(), {0: 0.5}, "magnitude", unit="channel", budget=Budget(macs=0.5))
    assert torch.equal(network().stem.conv.mask, torch.ones_like(network().stem.conv.mask))
