"""A configuration whose keys agree, and the resolved one that a run follows.

Configurations are read from files and the command line by :mod:`ramify.config.read`.
"""

from typing import Self, TypeVar, cast

from pydantic import model_validator

from ramify.config.contradictions import contradictions
from ramify.config.data import DataConfig as DataConfig
from ramify.config.growth import GrowthConfig as GrowthConfig
from ramify.config.keys import ConfigKeys, dotted, growth_epochs
from ramify.config.network import BACKBONE_EXITS
from ramify.config.network import NetworkConfig as NetworkConfig
from ramify.config.prune import PruneConfig as PruneConfig
from ramify.config.train import TrainConfig as TrainConfig
from ramify.config.types import Section
from ramify.config.yamltext import to_text
from ramify.errors import ConfigError
from ramify.ops.pruning.policies import DYNAMIC


class Config(ConfigKeys):
    """A run, whole: read by :func:`ramify.config.read.read_configs`, or ``Config(train=TrainConfig(epochs=3))``.

    :func:`resolve` fills in what is null.

    Raises:
        ConfigError: keys contradict each other.
        pydantic.ValidationError: a value has the wrong type or range (only when built directly).
    """

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        problems = [*contradictions(self)]
        if problems:
            values = dotted(self.model_dump())
            raise ConfigError(*(f"{key}: got {to_text(values[key])}; accepted: {text}" for key, text in problems))
        return self


class ResolvedGrowth(GrowthConfig):
    """``growth.*`` of a :class:`ResolvedConfig`."""

    plan: tuple[str, ...]
    widen: int
    patience: int


class ResolvedPruning(PruneConfig):
    """``prune.*`` of a :class:`ResolvedConfig`."""

    criterion: str


class ResolvedTraining(TrainConfig):
    """``train.*`` of a :class:`ResolvedConfig`."""

    milestones: tuple[int, ...]
    gammas: tuple[float, ...]
    tau_max: tuple[float, ...]


class ResolvedConfig(Config):
    """A configuration with what :func:`resolve` has filled in."""

    growth: ResolvedGrowth
    prune: ResolvedPruning
    train: ResolvedTraining


TEACHER_WEIGHT = 0.5
"""Weight of a teacher, unless ``train.teacher_weight`` says otherwise."""

SectionT = TypeVar("SectionT", bound=Section)


def resolve(config: Config) -> ResolvedConfig:
    """Fill in what was left open, so that the result says everything a run will do.

    Example:
        >>> resolve(Config(train=TrainConfig(epochs=100))).growth.epochs
        (14, 27, 40)
    """
    return _filled(
        ResolvedConfig,
        config,
        network=_resolved_network(config),
        growth=_resolved_growth(config),
        prune=_resolved_pruning(config.prune),
        train=_resolved_training(config),
    )


def _filled(kind: type[SectionT], section: Section, **decided: object) -> SectionT:
    """``section`` as one of ``kind``, with the values that were ``decided``."""
    return cast(SectionT, kind.model_construct(**{**dict(section), **decided}))


def _resolved_network(config: Config) -> NetworkConfig:
    network, decided = config.network, dict[str, object]()
    # Under a cascade a new exit may be of any kind.
    starts_alike = config.growth.init == "identity" and not network.cascade
    if network.final is None and starts_alike and network.cells == "seed" and network.growths:
        decided["final"] = network.exit
    if network.has_backbone and network.exits_at is None and network.kind != "full":
        decided["exits_at"] = BACKBONE_EXITS
    if network.backbone is not None and network.pretrained is None:
        decided["pretrained"] = network.weights is None
    return network.model_copy(update=decided)


def _resolved_growth(config: Config) -> ResolvedGrowth:
    growth, epochs = config.growth, config.train.epochs
    decided: dict[str, object] = {
        "plan": growth.plan or ("deeper",) * config.growths,
        "widen": growth.widen or max(1, config.network.widths[0] // 2),
        "patience": growth.patience or max(2, round(0.05 * epochs)),
    }
    if growth.mode == "scheduled":
        decided |= {"epochs": growth_epochs(config), "every": None}  # one of the two says it
    elif growth.max_epochs is None and config.growths:
        decided["max_epochs"] = max(growth.min_epochs, (round(growth.until * epochs) - 1) // config.growths)
    return _filled(ResolvedGrowth, growth, **decided)


def _resolved_pruning(prune: PruneConfig) -> ResolvedPruning:
    dynamic = prune.policy in DYNAMIC
    epochs = (1,) if dynamic and prune.enabled and not prune.epochs else prune.epochs
    criterion = prune.criterion or ("erk" if dynamic else "snip")
    return _filled(ResolvedPruning, prune, epochs=epochs, criterion=criterion)


def _resolved_training(config: Config) -> ResolvedTraining:
    train, exits = config.train, config.network.exits
    milestones = train.milestones
    if milestones is None:
        shares = (0.6, 0.8, 0.95) if train.schedule == "steps" else ()
        rounded = {round(train.epochs * share) for share in shares}
        milestones = tuple(sorted(epoch for epoch in rounded if 1 < epoch <= train.epochs))
    weight = TEACHER_WEIGHT if train.teacher_weight is None and train.teacher is not None else train.teacher_weight
    return _filled(
        ResolvedTraining,
        train,
        milestones=milestones,
        gammas=train.gammas if isinstance(train.gammas, tuple) else (train.gammas,) * len(milestones),
        tau_max=tuple(0.01 + (i + 1) / exits for i in range(exits - 1)) if train.tau_max is None else train.tau_max,
        teacher_weight=weight,
    )
