"""A budget for a whole network: how many channels may stay for it to have so many parameters or MACs once compacted."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ramify.errors import InputError
from ramify.nn.branching import Branching
from ramify.ops.cost import Cost, cost
from ramify.ops.pruning.channels import channels, rank_channels


@dataclass(frozen=True)
class Budget:
    """What a network may cost at its last exit after channel pruning and compaction.

    Attributes:
        parameters, macs: a whole number, or a share in (0, 1) of what the network has before; None for no limit.
    """

    parameters: int | float | None = None
    macs: int | float | None = None

    def fits(self, now: Cost, before: Cost) -> bool:
        """Whether ``now`` is within the budget of a network that cost ``before``."""
        limits = ((self.parameters, now.parameters, before.parameters), (self.macs, now.macs, before.macs))
        return all(limit is None or value <= (limit if limit >= 1 else limit * whole) for limit, value, whole in limits)


def keep_within(network: Branching, scores: Mapping[str, Tensor], budget: Budget) -> float:
    """The largest fraction of channel groups, best ones first, with which ``network`` is within ``budget``.

    Args:
        network: any branching network; it stays as it is.
        scores: a tensor in the shape of the weight for each masked layer, by its name.
        budget: of the compacted network.

    Raises:
        InputError: it is not even with one group in each space.
    """
    groups = channels(network)
    rank, spaces = rank_channels(network, groups, scores)
    order = rank.argsort(descending=True, stable=True).tolist()
    before = cost(network)[-1]

    def left(count: int) -> Cost:
        return cost(network.smaller([groups[i] for i in sorted(order[count:])]))[-1]

    if not groups:
        raise InputError("prune.max_macs, prune.max_parameters: got a network without channels to lose")
    fewest, most = len(spaces), len(groups)
    least = left(fewest)
    if not budget.fits(least, before):
        raise InputError(
            f"prune.max_parameters, prune.max_macs: got {budget.parameters}, {budget.macs}; accepted: at least "
            f"{least.parameters:,} parameters and {least.macs:,} MACs, what is left with one channel in each place"
        )
    while fewest < most:  # the largest count that fits
        middle = (fewest + most + 1) // 2
        if budget.fits(left(middle), before):
            fewest = middle
        else:
            most = middle - 1
    return fewest / len(groups)
