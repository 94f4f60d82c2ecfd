"""A budget for a whole network: the most channels with which it has so many parameters or MACs once compacted."""

import bisect
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ramify.errors import InputError
from ramify.nn.branching import Branching
from ramify.ops.cost import Cost, cost
from ramify.ops.pruning.channels import channels, rank_channels


@dataclass(frozen=True)
class Budget:
    """The most that a network may cost at its last exit after channel pruning and compaction.

    Attributes:
        parameters, macs: a whole number, or a share in (0, 1) of what the network has before; None for no limit.
    """

    parameters: int | float | None = None
    macs: int | float | None = None

    def fits(self, after: Cost, before: Cost) -> bool:
        """Whether ``after`` is within the budget of a network that cost ``before``."""
        limits = ((self.parameters, after.parameters, before.parameters), (self.macs, after.macs, before.macs))
        return all(limit is None or value <= (limit if limit >= 1 else limit * whole) for limit, value, whole in limits)


def keep_within(network: Branching, scores: Mapping[str, Tensor], budget: Budget) -> float:
    """The largest fraction of channel groups, best ones first, with which ``network`` is within ``budget``.

    Args:
        network: any branching network; it stays as it is.
        scores: a tensor in the shape of the weight for each masked layer, by its name.
        budget: of the compacted network.

    Raises:
        InputError: even one group in each space is too much, or there are no groups.
    """
    groups = channels(network)
    if not groups:
        raise InputError("prune.max_macs, prune.max_parameters: got a network without channels to lose")
    rank, spaces = rank_channels(network, groups, scores)
    order = rank.argsort(descending=True, stable=True).tolist()
    before = cost(network)[-1]

    def cost_with(count: int) -> Cost:
        return cost(network.smaller([groups[i] for i in sorted(order[count:])]))[-1]

    fewest = len(spaces)
    least = cost_with(fewest)
    if not budget.fits(least, before):
        raise InputError(
            f"prune.max_parameters, prune.max_macs: got {budget.parameters}, {budget.macs}; accepted: at least "
            f"{least.parameters:,} parameters and {least.macs:,} MACs, what is left with one channel in each place"
        )
    more = range(fewest + 1, len(groups) + 1)
    fitting = bisect.bisect_left(more, True, key=lambda count: not budget.fits(cost_with(count), before))
    return (fewest + fitting) / len(groups)
