"""Every key of a configuration, and what follows from the keys alone: when the network grows.

A configuration is an immutable tree of sections (:mod:`ramify.config.types`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, TypeVar, get_args, get_origin

from pydantic import Field
from pydantic.fields import FieldInfo

from ramify.config.data import DataConfig
from ramify.config.growth import GrowthConfig
from ramify.config.network import NetworkConfig
from ramify.config.prune import PruneConfig
from ramify.config.train import TrainConfig
from ramify.config.types import Accepts, Listed, Section, Text, Whole

Name = TypeVar("Name")


class ConfigKeys(Section):
    """The sections and the keys that stand in none; :class:`ramify.config.rules.Config` also checks them together."""

    name: Annotated[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=100)] | None,
        Accepts("letters, digits, '.', '_' and '-', or null for <source>-<kind>"),
    ] = None
    """name of the run and of its folder"""
    seed: Annotated[Whole, Field(ge=0, lt=2**32), Accepts("a whole number >= 0")] = 0
    """seed of the split, the weights, the order and the augmentation"""
    runs_dir: Annotated[str, Field(min_length=1), Accepts("the path of a folder")] = "runs"
    """where the folders of the runs are kept"""
    parent: Annotated[Text | None, Accepts("the path of a run's folder, or null")] = None
    """the run starts from the network of that one, not from a fresh one"""
    convert: Literal["sdn", "cnn", "cut", "extend"] | None = None
    """what becomes of the parent's network: exits put in, exits taken out, its cells up to the last one of
    network.structure, or a deeper network that begins as it"""
    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    growth: GrowthConfig = GrowthConfig()
    prune: PruneConfig = PruneConfig()
    train: TrainConfig = TrainConfig()

    @property
    def growths(self) -> int:
        """How often the network grows in this run; one that starts from a parent's network does not."""
        if self.parent is not None:
            return 0
        return self.network.growths if self.growth.plan is None else len(self.growth.plan)


def growth_epochs(config: ConfigKeys) -> tuple[int, ...]:
    """The epochs before which the network grows, under scheduled growth."""
    growth = config.growth
    if growth.epochs is not None:
        return growth.epochs
    if growth.every is not None:
        return tuple(1 + growth.every * i for i in range(1, config.growths + 1))
    return spread_epochs(config.growths, config.train.epochs)


def spread_epochs(growths: int, epochs: int) -> tuple[int, ...]:
    """Growth epochs, evenly over the first 40 % of ``epochs``, later where that is too short.

    Example:
        >>> spread_epochs(3, 40), spread_epochs(3, 4)
        ((6, 11, 16), (2, 3, 4))
    """
    last = max(growths + 1, round(0.4 * epochs))
    return tuple(1 + round((last - 1) * i / growths) for i in range(1, growths + 1))


def births(config: ConfigKeys) -> tuple[int, ...]:
    """The epoch from which each stage of the grown network exists, under scheduled growth.

    Example:
        >>> births(ConfigKeys(growth=GrowthConfig(epochs=(4, 9, 12))))
        (1, 4, 9, 12)
    """
    network, growth = config.network, config.growth
    plan = growth.plan or ("deeper",) * config.growths
    grown = tuple(epoch for epoch, action in zip(growth_epochs(config), plan, strict=False) if action == "deeper")
    return (1,) * (network.exits - len(grown)) + grown


def scored_later(config: ConfigKeys) -> bool:
    """Whether a stage scores 0 in the epoch of its growth, as one that starts as an identity does by its gradient."""
    by_gradient = config.prune.criterion in (None, "snip", "grasp", "synflow")
    return config.growth.init == "identity" and config.growth.mode == "scheduled" and by_gradient


def longest_trunk_first(config: ConfigKeys) -> int:
    """The most that ``train.trunk_first`` can be: one epoch at least is left for all exits."""
    return max(0, config.train.epochs - last_growth(config))


def last_growth(config: ConfigKeys) -> int:
    """The last epoch before which the network may grow; 1 where it does not."""
    if config.growths == 0:
        return 1
    if config.growth.mode == "loss":
        return max(1, round(config.growth.until * config.train.epochs))
    return max(growth_epochs(config), default=1)


def keys() -> Iterator[tuple[str, FieldInfo]]:
    """Every key with its field, in the order of the page ``ramify config --keys``."""
    for name, field in ConfigKeys.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from ((f"{name}.{leaf}", inner) for leaf, inner in field.annotation.model_fields.items())
        else:
            yield name, field


def accepts_of(field: FieldInfo) -> str:
    """What a key accepts, in words: those given with it or its type, else those that follow from its type."""
    return _words(field.annotation, field.metadata)


def _words(kind: object, about: Sequence[object]) -> str:
    for item in reversed(about):
        if isinstance(item, Accepts):
            return item.words if isinstance(item.words, str) else item.words()
        if isinstance(item, Listed):
            return ", ".join(item.names())
    if kind is bool:
        return "true, false"
    first, *others = get_args(kind)
    if get_origin(kind) is Annotated:
        return _words(first, others)
    return ", ".join([first, *others]) if get_origin(kind) is Literal else f"{_words(first, ())}, or null"


def meaning_of(field: FieldInfo) -> str:
    """What a key does: its docstring, and what the registry that it reads says."""
    summaries = ["; ".join(item.summaries()) for item in field.metadata if isinstance(item, Listed)]
    return " ".join([*(field.description or "").split(), *summaries]).strip()


def accepted(key: str) -> str:
    """What ``key`` accepts, in words."""
    field = dict(keys()).get(key)
    return accepts_of(field) if field else "a known key (see: ramify config --keys)"


SECTIONS = frozenset(name for name, field in ConfigKeys.model_fields.items() if name not in dict(keys()))


def dotted(sections: Mapping[Name, object], prefix: str = "") -> dict[str, object]:
    """Nested sections as dotted keys.

    Example:
        >>> dotted({"train": {"epochs": 3}, "seed": 1})
        {'train.epochs': 3, 'seed': 1}
    """
    values: dict[str, object] = {}
    for name, value in sections.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key in SECTIONS:
            values |= dotted(value, f"{key}.")
        else:
            values[key] = value
    return values
