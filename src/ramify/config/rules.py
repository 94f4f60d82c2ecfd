"""The whole configuration: its sections together, what they must agree on, and what is filled in.

A configuration is an immutable tree of sections (:mod:`ramify.config.types`), checked once where it enters. It is read
from files and the command line by :mod:`ramify.config.read`, which tells everything that is wrong at once.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from ramify.config.data import DataConfig as DataConfig
from ramify.config.growth import GrowthConfig as GrowthConfig
from ramify.config.network import BACKBONE_EXITS as BACKBONE_EXITS
from ramify.config.network import EXITS_AT as EXITS_AT
from ramify.config.network import PUBLISHED as PUBLISHED
from ramify.config.network import NetworkConfig as NetworkConfig
from ramify.config.prune import DENSITIES
from ramify.config.prune import PruneConfig as PruneConfig
from ramify.config.train import TrainConfig as TrainConfig
from ramify.config.types import Key, Section, Whole
from ramify.config.yamltext import to_text
from ramify.errors import ConfigError
from ramify.ops.pruning.policies import DYNAMIC


class Config(Section):
    """A run, whole: read by :func:`ramify.config.read.read_configs`, or ``Config(train=TrainConfig(epochs=3))``.

    What is left to ramify (null) is filled in by :func:`resolve`.

    Raises:
        ConfigError: keys contradict each other.
        pydantic.ValidationError: a value has the wrong type or range (only when built directly).
    """

    name: Annotated[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=100)] | None,
        Key("letters, digits, '.', '_' and '-', or null for <source>-<kind>", "name of the run and of its folder"),
    ] = None
    seed: Annotated[
        Whole,
        Field(ge=0, lt=2**32),
        Key("a whole number >= 0", "seed of the split, the weights, the order and the augmentation"),
    ] = 0
    runs_dir: Annotated[
        str, Field(min_length=1), Key("the path of a folder", "where the folders of the runs are kept")
    ] = "runs"
    parent: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        Key("the path of a run's folder, or null", "the run starts from the network of that one, not from a fresh one"),
    ] = None
    convert: Annotated[
        Literal["sdn", "cnn", "cut", "extend"] | None,
        Key(
            "sdn, cnn, cut, extend, or null",
            "what becomes of the parent's network: exits put in, exits taken out, its cells up to the last one of "
            "network.structure, or a deeper network that begins as it",
        ),
    ] = None
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

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        problems = list(_contradictions(self))
        if problems:
            raise ConfigError(
                *(f"{key}: got {to_text(received)}; accepted: {accepted}" for key, received, accepted in problems)
            )
        return self


TEACHER_WEIGHT = 0.5
"""Weight of a teacher, unless ``train.teacher_weight`` says otherwise."""


def resolve(config: Config) -> Config:
    """Fill in what was left open, so that the result says everything a run will do.

    Example:
        >>> resolve(Config(train=TrainConfig(epochs=100))).growth.epochs
        (14, 27, 40)
    """
    train, network = config.train, config.network
    milestones = train.milestones
    if milestones is None:
        shares = (0.6, 0.8, 0.95) if train.schedule == "steps" else ()
        at = (round(train.epochs * share) for share in shares)
        milestones = tuple(sorted({epoch for epoch in at if 1 < epoch <= train.epochs}))
    gammas = train.gammas if isinstance(train.gammas, tuple) else (train.gammas,) * len(milestones)
    taus = train.tau_max
    if taus is None:
        taus = tuple(0.01 + (i + 1) / network.exits for i in range(network.exits - 1))
    growth = config.growth
    changes: dict[str, object] = {"plan": growth.plan or ("deeper",) * config.growths}
    if growth.widen is None:
        changes["widen"] = max(1, network.widths[0] // 2)
    if growth.mode == "scheduled":
        changes |= {"epochs": growth_epochs(config), "every": None}  # one of the two says it
    if growth.patience is None:
        changes["patience"] = max(2, round(0.05 * train.epochs))
    if growth.mode == "loss" and growth.max_epochs is None and config.growths:
        changes["max_epochs"] = max(growth.min_epochs, (round(growth.until * train.epochs) - 1) // config.growths)
    weight = train.teacher_weight
    if weight is None and train.teacher is not None:
        weight = TEACHER_WEIGHT
    final = network.final
    alike = growth.init == "identity" and not network.cascade  # under a cascade a new exit may be of any kind
    if final is None and alike and network.cells == "seed" and network.growths:
        final = network.exit
    decided: dict[str, object] = {"final": final}
    if network.has_backbone:
        if network.exits_at is None and network.kind != "full":
            decided["exits_at"] = BACKBONE_EXITS
        if network.backbone is not None and network.pretrained is None:
            decided["pretrained"] = network.weights is None
    return config.model_copy(
        update={
            "network": network.model_copy(update=decided),
            "train": train.model_copy(
                update={"milestones": milestones, "gammas": gammas, "tau_max": taus, "teacher_weight": weight}
            ),
            "growth": growth.model_copy(update=changes),
            "prune": _resolved_pruning(config.prune),
        }
    )


def _resolved_pruning(prune: PruneConfig) -> PruneConfig:
    dynamic = prune.policy in DYNAMIC
    changes: dict[str, object] = {"criterion": prune.criterion or ("erk" if dynamic else "snip")}
    if dynamic and prune.enabled and not prune.epochs:
        changes["epochs"] = (1,)
    return prune.model_copy(update=changes)


def growth_epochs(config: Config) -> tuple[int, ...]:
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


def _listed(names: Sequence[str]) -> str:
    """``'resnet56 and mobilenet'``, ``'basic, depthwise and compact'``."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _rising(epochs: Sequence[float]) -> bool:
    return all(a < b for a, b in itertools.pairwise(epochs))


def _contradictions(config: Config) -> Iterator[tuple[str, object, str]]:
    """Keys that are fine alone and wrong together: (key, received, accepted)."""
    network, prune, train = config.network, config.prune, config.train
    last = train.epochs
    yield from _network_contradictions(network)
    if network.cascade and config.convert == "sdn":
        yield "network.cascade", True, "false, as the exits that convert=sdn puts in would add to the last one's answer"
    if config.parent is None:
        if config.convert is not None:
            yield "convert", config.convert, "null, as there is no parent whose network could be converted"
        if train.exits_only:
            yield "train.exits_only", True, "false, as a fresh trunk must learn (a run with a parent may freeze it)"
    elif train.exits_only and network.exits == 1:
        yield "train.exits_only", True, "false, as the network has no internal classifiers"
    if network.has_backbone:
        yield from _backbone_contradictions(config)
    yield from _growth_contradictions(config)
    yield from _start_contradictions(config)
    yield from _recipe_contradictions(config)
    yield from _together_contradictions(config)
    if train.milestones is not None:
        if not _rising(train.milestones):
            yield "train.milestones", train.milestones, "epochs in rising order"
        elif train.milestones and train.milestones[-1] > last:
            yield "train.milestones", train.milestones, f"epochs up to train.epochs = {last}"
    if isinstance(train.gammas, tuple):
        if train.milestones is None:
            yield "train.gammas", train.gammas, "one number, unless train.milestones is given too"
        elif len(train.gammas) != len(train.milestones):
            yield "train.gammas", train.gammas, f"a list of {len(train.milestones)}, one for each of train.milestones"
    if train.tau_max is not None and len(train.tau_max) != network.exits - 1:
        yield "train.tau_max", train.tau_max, f"a list of {network.exits - 1}, one for each internal classifier"
    if not _rising(prune.epochs):
        yield "prune.epochs", prune.epochs, "epochs in rising order"
    elif prune.epochs and prune.epochs[-1] > last:
        yield "prune.epochs", prune.epochs, f"epochs up to train.epochs = {last}"
    for key, ratios in (("prune.keep_ratio", prune.keep_ratio), ("prune.min_ratio", prune.min_ratio)):
        if isinstance(ratios, tuple) and len(ratios) not in {network.exits, max(network.exits - 1, 1)}:
            yield key, ratios, f"one number, or a list of {network.exits}, one for each stage"
    if prune.enabled:
        yield from _pruning_contradictions(config)


def _recipe_contradictions(config: Config) -> Iterator[tuple[str, object, str]]:
    data, train = config.data, config.train
    if train.schedule != "steps" and train.milestones:
        yield "train.milestones", train.milestones, f"null, as train.schedule {train.schedule} has none; or steps"
    if train.schedule == "steps" and train.final_rate:
        yield "train.final_rate", train.final_rate, "0, as train.schedule steps ends where its gammas lead"
    if train.warmup and train.warmup >= train.epochs:
        yield "train.warmup", train.warmup, f"less than train.epochs = {train.epochs}"
    if train.nesterov and train.optimizer != "sgd":
        why = "always has it" if train.optimizer in ("muon", "normed_muon") else "has no momentum of that kind"
        yield "train.nesterov", True, f"false, as train.optimizer {train.optimizer} {why}"
    elif train.nesterov and train.momentum == 0:
        yield "train.nesterov", True, "false, as train.momentum is 0"
    if train.flip_test:
        from ramify.data.augment import NEVER_MIRRORED

        if data.source in NEVER_MIRRORED:
            yield "train.flip_test", True, f"false, as a mirrored picture of {data.source} is another sign"
    yield from _move_contradictions(data)
    if data.sizes is not None:
        yield from _size_contradictions(config, data.sizes)
    if data.fold is not None and data.fold[0] > data.fold[1]:
        yield "data.fold", data.fold, f"[k, n] with k from 1 to {data.fold[1]}"
    if data.range is not None and data.range[0] >= data.range[1]:
        yield "data.range", data.range, "[low, high] with low < high"
    if data.sampler == "balanced" and train.class_weights == "balanced":
        yield "train.class_weights", "balanced", "none, as data.sampler balanced makes the classes equal already"
    if train.patience is not None and data.valid_fraction == 0:
        yield "train.patience", train.patience, "null, as there is no validation score with data.valid_fraction = 0"
    if train.patience is not None and train.keep == "last":
        yield "train.patience", train.patience, "null, as train.keep = last asks for no best epoch"


def _move_contradictions(data: DataConfig) -> Iterator[tuple[str, object, str]]:
    """Of shifting and mirroring: keys that ``data.augment`` would not read."""
    from ramify.data.augment import augmentation

    moves = "none" if data.augment == "photo" else augmentation(data.augment, data.source)
    for leaf, needed in (("shift", ("crop", "crop_flip")), ("border", ("crop", "crop_flip")), ("flip", ("crop_flip",))):
        given, default = getattr(data, leaf), DataConfig.model_fields[leaf].default
        if given != default and moves not in needed:
            why = f"as data.augment={data.augment} does not {'mirror' if leaf == 'flip' else 'shift'} {data.source}"
            yield f"data.{leaf}", given, f"{default or 'null'}, {why}"


def _size_contradictions(config: Config, sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[str, object, str]]:
    epochs, last = [epoch for epoch, _ in sizes], config.train.epochs
    if not epochs or epochs[0] != 1:
        yield "data.sizes", sizes, "a first entry for epoch 1, or null"
    elif not _rising(epochs):
        yield "data.sizes", sizes, "epochs in rising order"
    elif epochs[-1] > last:
        yield "data.sizes", sizes, f"epochs up to train.epochs = {last}"
    elif not _rising([side for _, side in sizes]):
        yield "data.sizes", sizes, "sides in rising order"


def _together_contradictions(config: Config) -> Iterator[tuple[str, object, str]]:
    """Of the keys that say how the exits train together."""
    network, train = config.network, config.train
    if network.exits == 1:
        why = "as the network has one exit"
        if train.exit_gradients != "sum":
            yield "train.exit_gradients", train.exit_gradients, f"sum, {why}"
        if train.distill:
            yield "train.distill", train.distill, f"0, {why}, which has none to learn from"
        if train.trunk_first:
            yield "train.trunk_first", train.trunk_first, f"0, {why}"
    elif train.exits_only:
        if train.exit_gradients != "sum":
            yield "train.exit_gradients", train.exit_gradients, "sum, as train.exits_only lets no trunk learn"
        if train.trunk_first:
            yield "train.trunk_first", train.trunk_first, "0, as train.exits_only lets no trunk learn"
    elif train.trunk_first:
        most = longest_trunk_first(config)
        if train.trunk_first > most:
            grows = "" if config.growths == 0 else f" and the network may grow until epoch {_grown_by(config)}"
            why = f"an epoch for all exits at least, as train.epochs is {train.epochs}{grows}"
            yield "train.trunk_first", train.trunk_first, f"0 to {most}, which leaves {why}"
    if not network.has_backbone:
        if train.backbone_rate != 1:
            yield "train.backbone_rate", train.backbone_rate, "1, without network.backbone or network.module"
        if train.freeze_epochs:
            yield "train.freeze_epochs", train.freeze_epochs, "0, without network.backbone or network.module"
    if train.teacher is None and train.teacher_weight is not None:
        yield "train.teacher_weight", train.teacher_weight, "null, as there is no train.teacher"
    if train.teacher is None and train.teacher_exits:
        yield "train.teacher_exits", True, "false, as there is no train.teacher"


def longest_trunk_first(config: Config) -> int:
    """The most that ``train.trunk_first`` can be: one epoch at least is left for all exits."""
    return max(0, config.train.epochs - _grown_by(config))


def _grown_by(config: Config) -> int:
    """The last epoch before which the network may grow; 1 where it does not."""
    if config.growths == 0:
        return 1
    if config.growth.mode == "loss":
        return max(1, round(config.growth.until * config.train.epochs))
    return max(growth_epochs(config), default=1)


def _growth_contradictions(config: Config) -> Iterator[tuple[str, object, str]]:
    network, growth, last = config.network, config.growth, config.train.epochs
    yield from _plan_contradictions(config)
    if growth.mode == "loss":
        for key in ("epochs", "every"):
            if getattr(growth, key):
                yield f"growth.{key}", getattr(growth, key), "null, as growth.mode loss needs no list of epochs"
        if config.data.valid_fraction == 0:
            yield "growth.mode", "loss", "scheduled, as there is no validation loss with data.valid_fraction = 0"
        if config.prune.enabled and config.prune.policy == "skip_layer":
            yield "prune.policy", "skip_layer", "normal, iterative, as growth.mode loss does not tell when stages grow"
    elif growth.epochs is None:
        least = config.growths * (growth.every or 1) + 1
        if config.parent is None and last < least:
            yield "train.epochs", last, f"at least {least}, an epoch for each of the {network.exits} stages"
    elif growth.every is not None:
        yield "growth.every", growth.every, "null, as growth.epochs is given; or growth.epochs null"
    elif len(growth.epochs) != config.growths:
        if config.parent is not None:
            why = "none, since a run with a parent starts from a complete network"
        elif growth.plan is not None:
            why = f"{len(growth.plan)}, one for each entry of growth.plan"
        elif network.growths == 0:
            why = f"none, since network.kind {network.kind} does not grow"
        else:
            why = f"{network.growths}, one for each 1 in network.structure"
        yield "growth.epochs", growth.epochs, f"a list of {why}"
    elif not _rising(growth.epochs):
        yield "growth.epochs", growth.epochs, "epochs in rising order"
    elif growth.epochs and (growth.epochs[0] < 2 or growth.epochs[-1] > last):
        yield "growth.epochs", growth.epochs, f"epochs from 2 to train.epochs = {last}"


def _start_contradictions(config: Config) -> Iterator[tuple[str, object, str]]:
    """Of how the stages that grow begin and learn."""
    network, growth = config.network, config.growth
    grows = config.parent is None and network.growths > 0
    if growth.learning_rate == "constant" and not grows:
        why = "a run with a parent" if config.parent is not None else f"network.kind {network.kind}"
        yield "growth.learning_rate", "constant", f"shared, as in {why} no stage grows"
    if grows and growth.init == "identity" and network.exit_reads == "sum" and not network.cascade:
        why = "as a stage that grows cannot pass on what the exit before it reads under network.exit_reads sum"
        yield "growth.init", "identity", f"random, copy, {why}"


def _plan_contradictions(config: Config) -> Iterator[tuple[str, object, str]]:
    network, plan = config.network, config.growth.plan
    if plan is None:
        return
    if config.parent is not None:
        if plan:
            yield "growth.plan", plan, "null, as a run with a parent does not grow"
        return
    deeper = plan.count("deeper")
    if deeper != network.growths:
        why = f"{network.growths} times deeper, once for each stage that the network lacks at first"
        yield "growth.plan", plan, why
        return
    if deeper < len(plan):
        from ramify.nn.zoo import widened

        cells, architectures = widened()
        if network.cell not in cells if network.cells == "seed" else network.cells not in architectures:
            names = f"{_listed(cells)} cells of the seed, {_listed(architectures)}"
            yield "growth.plan", plan, f"deeper alone, as only {names} can be widened"
    there = network.first_stages
    for action in plan:
        there += action == "deeper"
        if action.startswith("wider:") and not 1 <= int(action[6:]) <= there:
            yield "growth.plan", plan, f"wider:1 to wider:{there} at that place, the stages that exist then"


def _backbone_contradictions(config: Config) -> Iterator[tuple[str, object, str]]:
    """Of a run of a backbone or module: it is complete from the start, and not made of cells."""
    network, growth, train = config.network, config.growth, config.train
    key = "network.module" if network.backbone is None else "network.backbone"
    for leaf in ("mode", "init", "freeze", "every", "learning_rate"):
        given, default = getattr(growth, leaf), GrowthConfig.model_fields[leaf].default
        if given != default:
            yield f"growth.{leaf}", given, f"{to_text(default)}, as {key} is complete from the start and does not grow"
    if config.convert in ("sdn", "extend"):
        yield "convert", config.convert, f"cnn, cut, as {key} has its exits by network.exits_at, and no cells"
    most = train.epochs
    if train.freeze_epochs > most:
        yield "train.freeze_epochs", train.freeze_epochs, f"0 to {most}, the epochs of the run"
    elif train.freeze_epochs:
        still = "so long nothing before the exits learns"
        if train.trunk_first:
            yield "train.freeze_epochs", train.freeze_epochs, f"0 with train.trunk_first, as {still}"
        if train.exits_only:
            yield "train.freeze_epochs", train.freeze_epochs, "0, as train.exits_only lets no trunk learn"
        if config.prune.enabled and config.prune.policy in DYNAMIC:
            yield "train.freeze_epochs", train.freeze_epochs, f"0 with prune.policy {config.prune.policy}, as {still}"


_OF_CELLS = ("cells", "structure", "channels", "strides", "stem", "cell", "squeeze", "exit_reads", "final", "cascade")
"""Keys of ``network`` that say nothing of a backbone."""


def _backbone_network(network: NetworkConfig) -> Iterator[tuple[str, object, str]]:
    """Of the keys of a backbone or module alone."""
    key = "network.module" if network.backbone is None else "network.backbone"
    if network.backbone is not None and network.module is not None:
        yield "network.module", network.module, "null, as network.backbone is given"
    if network.kind not in ("full_ic", "full"):
        yield "network.kind", network.kind, f"full_ic, full, as {key} is complete from the start"
    for leaf in _OF_CELLS:
        given, default = getattr(network, leaf), NetworkConfig.model_fields[leaf].default
        if given != default:
            yield f"network.{leaf}", given, f"{to_text(default)}, which is left alone, as {key} has layers of its own"
    at = network.exits_at or ()
    if not all(isinstance(place, str) for place in at):
        if not _rising([place for place in at if not isinstance(place, str)]):
            yield "network.exits_at", network.exits_at, "numbers in rising order"
    elif len(set(at)) < len(at):
        yield "network.exits_at", network.exits_at, "each name once"
    if network.module_args and network.module is None:
        yield "network.module_args", dict(network.module_args), "no arguments, as there is no network.module"
    if network.pretrained is not None and network.backbone is None:
        why = "a module comes as its function makes it, or with network.weights"
        yield "network.pretrained", network.pretrained, f"null without network.backbone, as {why}"
    elif network.pretrained and network.weights is not None:
        yield "network.pretrained", True, "false or null, as network.weights says which weights"


def _network_contradictions(network: NetworkConfig) -> Iterator[tuple[str, object, str]]:
    if network.has_backbone:
        yield from _backbone_network(network)
        return
    for leaf in ("module_args", "weights", "pretrained", "normalization"):
        given = getattr(network, leaf)
        if given:
            yield f"network.{leaf}", given, "nothing, without network.backbone or network.module"
    if network.exits_at is not None and any(isinstance(place, str) for place in network.exits_at):
        yield "network.exits_at", network.exits_at, "numbers, without network.backbone or network.module"
    elif network.exits_at is not None:
        if not _rising([place for place in network.exits_at if not isinstance(place, str)]):
            yield "network.exits_at", network.exits_at, "numbers in rising order"
        cells = len(network.structure)
        if len(network.exits_at) >= cells:
            yield "network.exits_at", network.exits_at, f"at most {cells - 1}, as network.structure has {cells} cells"
    if network.exit_reads == "sum":
        yield from _sum_contradictions(network)
    if network.cells == "seed":
        yield from _shape_contradictions(network)
        return
    cells = len(PUBLISHED[network.cells])
    if len(network.structure) > cells:
        yield "network.structure", network.structure, f"up to {cells} numbers, the cells of {network.cells}, or none"
    if network.kind == "dense":
        yield "network.kind", "dense", f"iterative, full_ic, full, as the cells of {network.cells} form a chain"
    for key in ("stem", "cell", "channels", "strides", "squeeze"):
        given, default = getattr(network, key), NetworkConfig.model_fields[key].default
        if given != default:
            left = "null" if default is None else default
            yield f"network.{key}", given, f"{left}, which is left alone, as {network.cells} has cells of its own"


def _sum_contradictions(network: NetworkConfig) -> Iterator[tuple[str, object, str]]:
    from ramify.nn.cells import CELLS, cell_choices
    from ramify.nn.zoo import ZOO

    if network.cells == "seed":
        able = [name for name, cell in cell_choices().items() if cell.sums]
        if network.cell not in able:
            why = f"as {network.cell} cells end in no ReLU of a sum ({', '.join(able)} do)"
            yield "network.exit_reads", "sum", f"activation, {why}"
    elif not all(CELLS[spec.type].sums for spec in ZOO[network.cells].cells):
        yield "network.exit_reads", "sum", f"activation, as the cells of {network.cells} end in no ReLU of a sum"


def _shape_contradictions(network: NetworkConfig) -> Iterator[tuple[str, object, str]]:
    cells, widths, strides = len(network.structure), len(network.widths), network.strides
    if strides is None and widths > cells:
        yield "network.channels", network.channels, f"up to {cells} widths, as network.structure has {cells} cells"
    elif strides is not None and len(strides) != cells:
        yield "network.strides", strides, f"a list of {cells}, one for each cell of network.structure, or null"
    elif strides is not None and isinstance(network.channels, tuple) and sum(strides) != widths - 1:
        why = f"as each moves on to the next of the {widths} widths in network.channels"
        yield "network.strides", strides, f"a list with {widths - 1} times 1, {why}"
    if network.squeeze is not None:
        from ramify.nn.cells import cell_choices

        squeezing = [name for name, cell in cell_choices().items() if cell.squeezing]
        if network.cell not in squeezing:
            why = f"as {network.cell} cells have no place for it ({', '.join(squeezing)} have)"
            yield "network.squeeze", network.squeeze, f"null, {why}"


def _pruning_contradictions(config: Config) -> Iterator[tuple[str, object, str]]:
    network, prune = config.network, config.prune
    if prune.policy in DYNAMIC:
        yield from _dynamic_contradictions(config)
        return
    if not prune.epochs:
        yield "prune.epochs", prune.epochs, "at least one epoch, as prune.enabled is true"
    for key, budget in (("prune.max_parameters", prune.max_parameters), ("prune.max_macs", prune.max_macs)):
        if budget is not None and (prune.policy, prune.unit, prune.rounds) != ("normal", "channel", 1):
            yield key, budget, "null, unless prune.policy is normal, prune.unit channel and prune.rounds 1"
    if prune.policy == "normal" and isinstance(prune.keep_ratio, tuple):
        yield "prune.keep_ratio", prune.keep_ratio, "one number, as policy normal ranks the whole network at once"
    if prune.unit == "channel" and network.cells == "seed":
        from ramify.nn.cells import CELLS

        why = CELLS[network.cell].channels_stay
        if why:
            yield "prune.unit", prune.unit, f"weight, as {why}"
    growth = config.growth
    looks = prune.criterion in (None, "snip", "grasp", "synflow")
    if growth.init == "identity" and growth.mode == "scheduled" and looks:
        both = sorted({*prune.epochs} & {*growth_epochs(config)})
        if both:
            why = "as a stage that starts as an identity scores 0 until it has learned"
            yield "prune.epochs", prune.epochs, f"epochs other than {both[0]}, when a stage grows, {why}"
    if prune.policy == "skip_layer":
        born = births(config)
        if len(prune.epochs) > len(born):
            yield "prune.epochs", prune.epochs, f"at most {len(born)}, as policy skip_layer prunes each stage once"
        for i, (pruned, birth) in enumerate(zip(prune.epochs, born, strict=False), start=1):
            if pruned < birth:
                accepted_epochs = f"epoch {birth} or later for pruning {i}, as stage {i} grows then (policy skip_layer)"
                yield "prune.epochs", prune.epochs, accepted_epochs


def _dynamic_contradictions(config: Config) -> Iterator[tuple[str, object, str]]:
    """Of ``prune.policy`` rigl and set."""
    prune, growth, last = config.prune, config.growth, config.train.epochs
    why = f"as policy {prune.policy}"
    if prune.criterion not in (None, *DENSITIES):
        yield "prune.criterion", prune.criterion, f"{', '.join(DENSITIES)}, {why} moves connections by itself"
    if prune.unit != "weight":
        yield "prune.unit", prune.unit, f"weight, {why} moves single connections"
    if prune.rounds != 1:
        yield "prune.rounds", prune.rounds, f"1, {why} draws the masks at once"
    if prune.control != "none":
        yield "prune.control", prune.control, f"none, {why} ranks nothing before it starts"
    if prune.reinit:
        yield "prune.reinit", True, f"false, {why} starts with the weights that are there"
    if config.train.exits_only:
        yield "prune.policy", prune.policy, "skip_layer, normal, iterative, as train.exits_only lets no trunk learn"
    start = prune.epochs[0] if prune.epochs else 1
    if len(prune.epochs) > 1:
        yield "prune.epochs", prune.epochs, f"one epoch, or none for the first, {why} starts once"
    elif start > 1 and growth.freeze != "none" and config.growths:
        yield "prune.epochs", prune.epochs, f"none, as growth.freeze {growth.freeze} leaves stages as they are"
    elif last and prune.until * last <= start - 1:
        yield "prune.until", prune.until, f"more than {(start - 1) / last:.3g}, {why} starts at epoch {start} of {last}"


def births(config: Config) -> tuple[int, ...]:
    """The epoch from which each stage of the grown network exists, under scheduled growth.

    Example:
        >>> births(Config(growth=GrowthConfig(epochs=(4, 9, 12))))
        (1, 4, 9, 12)
    """
    network, growth = config.network, config.growth
    plan = growth.plan or ("deeper",) * config.growths
    grown = tuple(epoch for epoch, action in zip(growth_epochs(config), plan, strict=False) if action == "deeper")
    return (1,) * (network.exits - len(grown)) + grown


def keys() -> Iterator[tuple[str, FieldInfo]]:
    """Every key with its field, in the order of the page ``ramify config --keys``."""
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from ((f"{name}.{leaf}", inner) for leaf, inner in field.annotation.model_fields.items())
        else:
            yield name, field


def describe(field: FieldInfo) -> Key:
    """The :class:`Key` that a field carries."""
    return next(item for item in field.metadata if isinstance(item, Key))


def accepted(key: str) -> str:
    """What ``key`` accepts, in words."""
    found = dict(keys()).get(key)
    return describe(found).accepts if found else "a known key (see: ramify config --keys)"


SECTIONS = frozenset(name for name, field in Config.model_fields.items() if name not in dict(keys()))
