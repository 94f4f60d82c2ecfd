"""``prune.*``: when and how the network is pruned."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from ramify.config.types import Accepts, Count, Fraction, Listed, Natural, Ratio, Section
from ramify.ops.pruning.policies import DYNAMIC, POLICIES

DENSITIES = ("erk", "uniform")
"""Values of ``prune.criterion`` for policies that move connections."""

WITHOUT_PICTURES = ("synflow", "magnitude", "random", *DENSITIES)
"""Values of ``prune.criterion`` that score no pictures."""


def _saliencies() -> Iterable[str]:
    from ramify.ops.pruning.saliency import SALIENCIES

    return SALIENCIES


def _policies() -> Iterable[str]:
    return (f"{name}: {policy.summary}" for name, policy in POLICIES.items())


_Limit = Annotated[Count | Fraction | None, Accepts("a whole number >= 1, a share in (0, 1), or null")]


class PruneConfig(Section):
    """``prune.*``: when and how weights are pruned."""

    enabled: bool = False
    """whether the run prunes"""
    policy: Annotated[str, Listed(lambda: POLICIES, "normal", _policies)] = "normal"
    criterion: Annotated[
        Annotated[str, Listed(_saliencies, "snip")] | None,
        Accepts(lambda: f"{', '.join(_saliencies())}, or null for snip, or erk under {' and '.join(DYNAMIC)}"),
    ] = None
    """the saliency by which weights are ranked; under rigl and set erk or uniform, the densities of the layers"""
    unit: Literal["weight", "channel"] = "weight"
    """what is pruned: single weights, or whole channels that compaction can remove"""
    keep_ratio: Annotated[
        Ratio | tuple[Ratio, ...],
        Accepts("a number in (0, 1], or a list with one for each stage (one for each internal classifier will do)"),
    ] = 0.5
    """fraction of the weights kept; policy iterative takes it to the power of the times a stage was pruned"""
    min_ratio: Annotated[
        Ratio | tuple[Ratio, ...] | None, Accepts("a number in (0, 1], or a list with one for each stage, or null")
    ] = None
    """policy iterative: never below this"""
    epochs: Annotated[tuple[Count, ...], Accepts("a rising list of epochs")] = ()
    """the network is pruned before the first step of these epochs; rigl and set start with the one given, or the
    first"""
    interval: Annotated[
        Count | None,
        Accepts("a whole number >= 1, or null for a hundredth of the run's steps, at least 10 and at most 100"),
    ] = None
    """rigl and set: steps from one move of connections to the next"""
    fraction: Ratio = 0.3
    """rigl and set: share of the connections that moves at first; falls to 0 as a cosine"""
    until: Ratio = 0.75
    """rigl and set: share of the run's steps after which the connections stay"""
    batch_size: Count = 128
    """training pictures, never augmented, on which the saliency is scored"""
    batches: Count = 1
    """how many such batches; their scores are averaged"""
    rounds: Annotated[Count, Field(le=10_000), Accepts("a whole number from 1 to 10000")] = 1
    """steps of one pruning, the density falling exponentially; synflow wants 100"""
    floor: Natural = 1
    """weights that every layer keeps; with 0 a layer may die"""
    control: Literal["none", "shuffle", "reinit", "invert"] = "none"
    """whether the criterion did anything: shuffle the mask inside each layer, redraw the survivors, or keep the lowest
    scores"""
    reinit: bool = False
    """redraw the surviving weights of a pruned stage"""
    max_parameters: _Limit = None
    """policy normal, unit channel: in place of prune.keep_ratio, as many channels stay as leave the compacted network
    so many parameters, or this share of them"""
    max_macs: _Limit = None
    """the same for the multiply-accumulates of its last exit; with prune.max_parameters, both hold"""
    compact: bool = False
    """at the end of the run, take dead channels out, and measure what that gave"""
