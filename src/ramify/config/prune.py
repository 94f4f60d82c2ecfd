"""``prune.*``: when and how the network is pruned."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from ramify.config.types import Count, Key, Number, Ratio, Section, Whole, listed
from ramify.ops.pruning.policies import DYNAMIC, POLICIES

DENSITIES = ("erk", "uniform")
"""Values of ``prune.criterion`` for policies that move connections."""


def _saliencies() -> Iterable[str]:
    from ramify.ops.pruning.saliency import SALIENCIES

    return SALIENCIES


class PruneConfig(Section):
    """``prune.*``: when and how weights are pruned."""

    enabled: Annotated[bool, Key("true, false", "whether the run prunes")] = False
    policy: Annotated[
        str,
        listed(lambda: POLICIES, "normal"),
        Key(
            lambda: ", ".join(POLICIES),
            lambda: "; ".join(f"{name}: {policy.summary}" for name, policy in POLICIES.items()),
        ),
    ] = "normal"
    criterion: Annotated[
        Annotated[str, listed(_saliencies, "snip")] | None,
        Key(
            lambda: f"{', '.join(_saliencies())}, or null for snip, or erk under {' and '.join(DYNAMIC)}",
            "the saliency by which weights are ranked; under rigl and set erk or uniform, the densities of the layers",
        ),
    ] = None
    unit: Annotated[
        Literal["weight", "channel"],
        Key("weight, channel", "what is pruned: single weights, or whole channels that compaction can remove"),
    ] = "weight"
    keep_ratio: Annotated[
        Ratio | tuple[Ratio, ...],
        Key(
            "a number in (0, 1], or a list with one for each stage (one for each internal classifier will do)",
            "fraction of the weights kept; policy iterative takes it to the power of the times a stage was pruned",
        ),
    ] = 0.5
    min_ratio: Annotated[
        Ratio | tuple[Ratio, ...] | None,
        Key("a number in (0, 1], or a list with one for each stage, or null", "policy iterative: never below this"),
    ] = None
    epochs: Annotated[
        tuple[Count, ...],
        Key(
            "a rising list of epochs",
            "the network is pruned before the first step of these epochs; rigl and set start with the one given, or "
            "the first",
        ),
    ] = ()
    interval: Annotated[
        Count | None,
        Key(
            "a whole number >= 1, or null for a hundredth of the run's steps, at least 10 and at most 100",
            "rigl and set: steps from one move of connections to the next",
        ),
    ] = None
    fraction: Annotated[
        Ratio,
        Key("a number in (0, 1]", "rigl and set: share of the connections that moves at first; falls to 0 as a cosine"),
    ] = 0.3
    until: Annotated[
        Ratio, Key("a number in (0, 1]", "rigl and set: share of the run's steps after which the connections stay")
    ] = 0.75
    batch_size: Annotated[
        Count, Key("a whole number >= 1", "training pictures, never augmented, on which the saliency is scored")
    ] = 128
    batches: Annotated[Count, Key("a whole number >= 1", "how many such batches; their scores are averaged")] = 1
    rounds: Annotated[
        Count,
        Field(le=10_000),
        Key(
            "a whole number from 1 to 10000",
            "steps of one pruning, the density falling exponentially; synflow wants 100",
        ),
    ] = 1
    floor: Annotated[
        Whole, Field(ge=0), Key("a whole number >= 0", "weights that every layer keeps; with 0 a layer may die")
    ] = 1
    control: Annotated[
        Literal["none", "shuffle", "reinit", "invert"],
        Key(
            "none, shuffle, reinit, invert",
            "whether the criterion did anything: shuffle the mask inside each layer, redraw the survivors, "
            "or keep the lowest scores",
        ),
    ] = "none"
    reinit: Annotated[bool, Key("true, false", "redraw the surviving weights of a pruned stage")] = False
    max_parameters: Annotated[
        Count | Annotated[Number, Field(gt=0, lt=1)] | None,
        Key(
            "a whole number >= 1, a share in (0, 1), or null",
            "policy normal, unit channel: in place of prune.keep_ratio, as many channels stay as leave the compacted "
            "network so many parameters, or this share of them",
        ),
    ] = None
    max_macs: Annotated[
        Count | Annotated[Number, Field(gt=0, lt=1)] | None,
        Key(
            "a whole number >= 1, a share in (0, 1), or null",
            "the same for the multiply-accumulates of its last exit; with prune.max_parameters, both hold",
        ),
    ] = None
    compact: Annotated[
        bool, Key("true, false", "at the end of the run, take dead channels out, and measure what that gave")
    ] = False
