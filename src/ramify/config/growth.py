"""``growth.*``: when and how the network grows."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ramify.config.types import Count, Key, Number, Ratio, Section


def _known_action(value: str) -> str:
    if value not in ("deeper", "wider") and not (value.startswith("wider:") and value[6:].isdecimal()):
        raise ValueError("an unknown action")
    return value


class GrowthConfig(Section):
    """``growth.*``: when the network grows, and how."""

    mode: Annotated[
        Literal["scheduled", "loss"],
        Key(
            "scheduled, loss",
            "scheduled: at growth.epochs; loss: when the validation loss stalls, until it pays no more",
        ),
    ] = "scheduled"
    epochs: Annotated[
        tuple[Count, ...] | None,
        Key(
            "a rising list of epochs, one for each growth, or null to spread them over the first 40 %",
            "the network grows before the first step of these epochs",
        ),
    ] = None
    every: Annotated[
        Count | None,
        Key("a whole number >= 1, or null", "in place of growth.epochs: grow each time so many have passed"),
    ] = None
    plan: Annotated[
        tuple[Annotated[str, AfterValidator(_known_action)], ...] | None,
        Key(
            "a list of deeper, wider and wider:<stage>, or null for deeper each time",
            "what each growth does: add the next stage, or inner channels to the cells of the last or the named stage",
        ),
    ] = None
    widen: Annotated[
        Count | None,
        Key(
            "a whole number >= 1, or null for half of network.channels", "inner channels that a widening adds to a cell"
        ),
    ] = None
    init: Annotated[
        Literal["random", "identity", "copy"],
        Key(
            "random, identity, copy",
            "how new stages and channels start: drawn, so that the network's function stays, or as copies of those "
            "before them",
        ),
    ] = "random"
    learning_rate: Annotated[
        Literal["shared", "constant"],
        Key(
            "shared, constant",
            "of a stage that grows: that of all others; or train.learning_rate to the end, while that of the stages "
            "from birth falls by its schedule",
        ),
    ] = "shared"
    freeze: Annotated[
        Literal["none", "before", "until_next"],
        Key(
            "none, before, until_next",
            "what stood before a growth stays as it is: not at all, for good, or until the next growth; "
            "after the last one all learns",
        ),
    ] = "none"
    patience: Annotated[
        Count | None,
        Key(
            "a whole number >= 1, or null for 5 % of the epochs, at least 2",
            "growth by loss: epochs without improvement before growing",
        ),
    ] = None
    min_improvement: Annotated[
        Number,
        Field(ge=0, lt=1),
        Key("a number in [0, 1)", "growth by loss: the relative improvement that counts as one"),
    ] = 0.01
    min_epochs: Annotated[
        Count, Key("a whole number >= 1", "growth by loss: epochs that lie between two growths, at least")
    ] = 2
    max_epochs: Annotated[
        Count | None,
        Key(
            "a whole number >= 1, or null to reach every growth by growth.until",
            "growth by loss: epochs after which the network grows whether the loss stalls or not",
        ),
    ] = None
    until: Annotated[
        Ratio, Key("a number in (0, 1]", "growth by loss: share of the epochs after which the network grows no more")
    ] = 0.5
