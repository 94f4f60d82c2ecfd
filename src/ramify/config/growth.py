"""``growth.*``: when and how the network grows."""

from typing import Annotated, Literal

from pydantic import Field

from ramify.config.types import Accepts, BelowOne, Count, Ratio, Section


class GrowthConfig(Section):
    """``growth.*``: when the network grows, and how."""

    mode: Literal["scheduled", "loss"] = "scheduled"
    """scheduled: at growth.epochs; loss: when the validation loss stalls, until it pays no more"""
    epochs: Annotated[
        tuple[Count, ...] | None,
        Accepts("a rising list of epochs, one for each growth, or null to spread them over the first 40 %"),
    ] = None
    """the network grows before the first step of these epochs"""
    every: Count | None = None
    """in place of growth.epochs: grow each time so many have passed"""
    plan: Annotated[
        tuple[Annotated[str, Field(pattern=r"^(deeper|wider(:\d+)?)$")], ...] | None,
        Accepts("a list of deeper, wider and wider:<stage>, or null for deeper each time"),
    ] = None
    """what each growth does: add the next stage, or inner channels to the cells of the last or the named stage"""
    widen: Annotated[Count | None, Accepts("a whole number >= 1, or null for half of network.channels")] = None
    """inner channels that a widening adds to a cell"""
    init: Literal["random", "identity", "copy"] = "random"
    """how new stages and channels start: drawn, so that the network's function stays, or as copies of those before
    them"""
    learning_rate: Literal["shared", "constant"] = "shared"
    """of a stage that grows: that of all others; or train.learning_rate to the end, while that of the stages from birth
    falls by its schedule"""
    freeze: Literal["none", "before", "until_next"] = "none"
    """what stood before a growth stays as it is: not at all, for good, or until the next growth; after the last one all
    learns"""
    patience: Annotated[Count | None, Accepts("a whole number >= 1, or null for 5 % of the epochs, at least 2")] = None
    """growth by loss: epochs without improvement before growing"""
    min_improvement: BelowOne = 0.01
    """growth by loss: the relative improvement that counts as one"""
    min_epochs: Count = 2
    """growth by loss: epochs that lie between two growths, at least"""
    max_epochs: Annotated[
        Count | None, Accepts("a whole number >= 1, or null to reach every growth by growth.until")
    ] = None
    """growth by loss: epochs after which the network grows whether the loss stalls or not"""
    until: Ratio = 0.5
    """growth by loss: share of the epochs after which the network grows no more"""
