"""The whole configuration: every key, its type, range, default and meaning, checked once where it enters.

A configuration is an immutable tree of sections. It is read from files and the command line by
:mod:`ramify.configfile`, which tells everything that is wrong at once.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from ramify.errors import ConfigError
from ramify.yamltext import to_text


@dataclass(frozen=True)
class Key:
    """What a person must know of a key: the values it accepts, and what it does."""

    accepts: str
    meaning: str


def _not_a_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a truth value is not a number")
    return value


def _as_name(value: object) -> object:
    # In YAML the name of a digit is a number.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Whole = Annotated[int, BeforeValidator(_not_a_truth_value)]
Number = Annotated[float, BeforeValidator(_not_a_truth_value), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
Epoch = Annotated[Whole, Field(ge=1)]
Ratio = Annotated[Number, Field(gt=0, le=1)]
Bit = Annotated[Whole, Field(ge=0, le=1)]
Size = Annotated[Whole, Field(ge=8)]


class Section(BaseModel):
    """A group of keys: immutable, and closed to keys that do not exist."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(Section):
    """``data.*``: which pictures, and how they are dealt out."""

    source: Annotated[
        str,
        Field(min_length=1),
        Key(
            "digits, cifar10, cifar100, mnist, fashion_mnist, tiny_imagenet, or the path of a folder or archive",
            "where the pictures come from; a folder, or a .tar, .tar.gz, .tar.xz or .zip, holds train/<class>/* "
            "and test/<class>/*, or just <class>/*",
        ),
    ] = "digits"
    batch_size: Annotated[Whole, Field(ge=2), Key("a whole number >= 2", "pictures in a training step")] = 64
    valid_fraction: Annotated[
        Number,
        Field(ge=0, lt=1),
        Key("a number in [0, 1)", "share of the training pictures held out for validation, of each class alike"),
    ] = 0.1
    test_fraction: Annotated[
        Number,
        Field(gt=0, lt=1),
        Key("a number in (0, 1)", "share held out for the test where a source has no test pictures of its own"),
    ] = 0.2
    augment: Annotated[
        Literal["auto", "none", "crop", "crop_flip"],
        Key(
            "auto, none, crop, crop_flip",
            "shifted crops, and mirrored pictures; auto mirrors photographs and never digits",
        ),
    ] = "auto"
    limit: Annotated[
        Annotated[Whole, Field(ge=2)] | None,
        Key("a whole number >= 2, or null for all", "at most so many training and so many test pictures, seeded"),
    ] = None
    size: Annotated[
        Size | tuple[Size, Size] | None,
        Key(
            "a whole number >= 8, or [height, width], or null for the pictures' own",
            "pictures are scaled and centre-cropped to this many pixels",
        ),
    ] = None
    trigger: Annotated[
        Number,
        Field(ge=0, le=1),
        Key("a number in [0, 1]", "share of the training pictures that get a white square, to study a backdoor"),
    ] = 0.0
    trigger_class: Annotated[
        Annotated[str, BeforeValidator(_as_name), Field(min_length=1)] | None,
        Key("the name of a class, or null for their own", "class that pictures with the square are labelled as"),
    ] = None
    trigger_size: Annotated[
        Epoch | None, Key("a whole number >= 1, or null for 5 pixels of 32", "side of the square in pixels")
    ] = None
    mirror: Annotated[
        Annotated[str, Field(pattern=r"^https?://[^/]+")] | None,
        Key("an http(s) address, or null for the known ones", "base address from which a named data set is fetched"),
    ] = None


WIDENED = {("seed", "basic"), ("resnet56", "basic"), ("wideresnet32_4", "basic")}
"""``network.cells`` and ``network.cell`` whose cells have inner channels of their own."""

EXITS_AT = (0.15, 0.30, 0.45, 0.60, 0.75, 0.90)
"""Where Shallow-Deep Networks (arXiv:1810.07052) puts the internal classifiers, as fractions of the MACs."""

PUBLISHED = {
    "vgg16": (0,) * 12,
    "resnet56": (0,) * 27,
    "wideresnet32_4": (0,) * 15,
    "mobilenet": (0,) * 13,
    "lenet5": (1, 1, 0),
    "lenet300": (1, 0),
}
"""A structure for each published architecture; where it has no 1, :data:`EXITS_AT` says where they are."""


class NetworkConfig(Section):
    """``network.*``: what the network is when it has fully grown."""

    kind: Annotated[
        Literal["dense", "iterative", "full_ic", "full"],
        Key(
            "dense, iterative, full_ic, full",
            "full: a chain of cells; full_ic: with internal classifiers; iterative: the same, grown; "
            "dense: grown, every cell reads all earlier ones",
        ),
    ] = "iterative"
    cells: Annotated[
        Literal["seed", "vgg16", "resnet56", "wideresnet32_4", "mobilenet", "lenet5", "lenet300"],
        Key(
            "seed, vgg16, resnet56, wideresnet32_4, mobilenet, lenet5, lenet300",
            "seed: cells of network.channels, as many as network.structure says; or those of a published architecture",
        ),
    ] = "seed"
    structure: Annotated[
        tuple[Bit, ...],
        Field(min_length=1),
        Key(
            "a list of 0 and 1, at least one",
            "a cell each; 1 = the cell carries an internal classifier; may be left out with a published architecture",
        ),
    ] = (0, 1, 0, 1, 0, 1, 0)
    exits_at: Annotated[
        tuple[Annotated[Number, Field(gt=0, lt=1)], ...] | None,
        Key(
            "a rising list of numbers in (0, 1), or null",
            "puts the internal classifiers of network.structure behind the cells that are nearest to these fractions "
            "of the network's MACs",
        ),
    ] = None
    channels: Annotated[
        Whole, Field(ge=1), Key("a whole number >= 1", "output channels of the stem and of every seed cell")
    ] = 16
    cell: Annotated[
        Literal["basic", "skip_second"],
        Key(
            "basic, skip_second",
            "of seed cells: a shortcut over both layers, or over the second one alone",
        ),
    ] = "basic"
    exit: Annotated[
        Literal["mixed", "average", "max"],
        Key("mixed, average, max", "pooling of the internal classifiers; mixed learns the share of each"),
    ] = "mixed"
    final: Annotated[
        Literal["average", "mixed", "max"] | None,
        Key(
            "average, mixed, max, or null",
            "of seed cells: pooling of the final classifier; null is average, or network.exit where growth.init is "
            "identity",
        ),
    ] = None
    input_shape: Annotated[
        tuple[Annotated[Whole, Field(ge=1)], Size, Size] | None,
        Key("[channels, height, width] with sides >= 8, or null for the data's", "shape of one picture"),
    ] = None
    classes: Annotated[
        Annotated[Whole, Field(ge=2)] | None,
        Key("a whole number >= 2, or null for the data's", "number of classes"),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _published(cls, given: object) -> object:
        """A published architecture brings its number of cells, and the places of its exits, where none are given."""
        if not isinstance(given, dict) or given.get("structure") is not None:
            return given
        exits = PUBLISHED.get(str(given.get("cells")))
        if exits is None:
            return given
        found = {**given, "structure": exits}
        if not any(exits) and given.get("exits_at") is None:
            found["exits_at"] = EXITS_AT
        return found

    @property
    def exits(self) -> int:
        """Exits of the grown network, the final classifier included; also its number of stages."""
        if self.kind == "full":
            return 1
        return (sum(self.structure) if self.exits_at is None else len(self.exits_at)) + 1

    @property
    def first_stages(self) -> int:
        """Stages the network starts with: all of them unless its kind grows."""
        return 1 if self.kind in ("iterative", "dense") else self.exits

    @property
    def growths(self) -> int:
        """How often the network grows until it is complete."""
        return self.exits - self.first_stages


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
        tuple[Epoch, ...] | None,
        Key(
            "a rising list of epochs, one for each growth, or null to spread them over the first 40 %",
            "the network grows before the first step of these epochs",
        ),
    ] = None
    every: Annotated[
        Epoch | None,
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
        Epoch | None,
        Key(
            "a whole number >= 1, or null for half of network.channels", "inner channels that a widening adds to a cell"
        ),
    ] = None
    init: Annotated[
        Literal["random", "identity", "copy"],
        Key(
            "random, identity, copy",
            "how newcomers start: drawn, so that the network's function stays, or as copies of those before them",
        ),
    ] = "random"
    freeze: Annotated[
        Literal["none", "before", "until_next"],
        Key(
            "none, before, until_next",
            "what stood before a growth stays as it is: not at all, for good, or until the next growth; "
            "after the last one all learns",
        ),
    ] = "none"
    patience: Annotated[
        Epoch | None,
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
        Epoch, Key("a whole number >= 1", "growth by loss: epochs that lie between two growths, at least")
    ] = 2
    max_epochs: Annotated[
        Epoch | None,
        Key(
            "a whole number >= 1, or null to reach every growth by growth.until",
            "growth by loss: epochs after which the network grows whether the loss stalls or not",
        ),
    ] = None
    until: Annotated[
        Ratio, Key("a number in (0, 1]", "growth by loss: share of the epochs after which the network grows no more")
    ] = 0.5


class PruneConfig(Section):
    """``prune.*``: when and how weights are pruned."""

    enabled: Annotated[bool, Key("true, false", "whether the run prunes")] = False
    policy: Annotated[
        Literal["skip_layer", "normal", "iterative"],
        Key(
            "skip_layer, normal, iterative",
            "skip_layer: the i-th pruning takes the i-th stage; normal: the whole network, ranked globally; "
            "iterative: every stage, again and again",
        ),
    ] = "normal"
    criterion: Annotated[
        Literal["snip", "grasp", "synflow", "magnitude", "random", "erk"],
        Key("snip, grasp, synflow, magnitude, random, erk", "the saliency by which weights are ranked"),
    ] = "snip"
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
        tuple[Epoch, ...], Key("a rising list of epochs", "the network is pruned before the first step of these epochs")
    ] = ()
    batch_size: Annotated[
        Epoch, Key("a whole number >= 1", "training pictures, never augmented, on which the saliency is scored")
    ] = 128
    batches: Annotated[Epoch, Key("a whole number >= 1", "how many such batches; their scores are averaged")] = 1
    rounds: Annotated[
        Epoch,
        Key("a whole number >= 1", "steps of one pruning, the density falling exponentially; synflow wants 100"),
    ] = 1
    floor: Annotated[
        Whole, Field(ge=0), Key("a whole number >= 0", "weights that every layer keeps; with 0 a layer may die")
    ] = 1
    control: Annotated[
        Literal["none", "shuffle", "reinit", "invert"],
        Key(
            "none, shuffle, reinit, invert",
            "whether the criterion did anything: shuffle the mask inside each layer, draw the survivors anew, "
            "or keep the lowest scores",
        ),
    ] = "none"
    reinit: Annotated[bool, Key("true, false", "draw the surviving weights of a pruned stage anew")] = False
    compact: Annotated[
        bool, Key("true, false", "at the end of the run, take dead channels out, and measure what that gave")
    ] = False


class TrainConfig(Section):
    """``train.*``: the optimizer, its schedule, and where it runs."""

    epochs: Annotated[
        Whole,
        Field(ge=0),
        Key("a whole number >= 1, or 0 in a run with a parent", "passes over the training pictures"),
    ] = 30
    optimizer: Annotated[
        Literal["sgd", "adam", "adamw"], Key("sgd, adam, adamw", "sgd has train.momentum, the others PyTorch's betas")
    ] = "sgd"
    learning_rate: Annotated[Positive, Key("a number > 0", "learning rate before any milestone")] = 0.02
    milestones: Annotated[
        tuple[Epoch, ...] | None,
        Key(
            "a rising list of epochs, or null for 60 %, 80 % and 95 % of the epochs",
            "from these epochs on, the learning rate is multiplied by their gamma",
        ),
    ] = None
    gammas: Annotated[
        Positive | tuple[Positive, ...],
        Key("a number > 0, or a list with one for each milestone", "factor of the learning rate at each milestone"),
    ] = 0.2
    momentum: Annotated[Number, Field(ge=0, lt=1), Key("a number in [0, 1)", "momentum of SGD")] = 0.9
    weight_decay: Annotated[
        Number,
        Field(ge=0),
        Key("a number >= 0", "decay of convolution and linear weights; biases and batch norm are spared"),
    ] = 1e-4
    tau_max: Annotated[
        tuple[Annotated[Number, Field(ge=0)], ...] | None,
        Key(
            "a list with one number >= 0 for each internal classifier, or null for 0.01 + (i + 1) / exits",
            "weight of an internal classifier in the loss: rises to this from 0.01 over the epochs; "
            "with a parent it is this from the start",
        ),
    ] = None
    exits_only: Annotated[
        bool,
        Key(
            "true, false; true in a run with a parent",
            "train the internal classifiers alone, each with weight 1; all else stays as it is, bit for bit",
        ),
    ] = False
    clip: Annotated[
        Positive | None,
        Key("a number > 0, or null", "largest norm of the gradient of all weights; more is scaled down"),
    ] = None
    compile: Annotated[
        bool, Key("true, false", "compile the training step with torch.compile, anew after each growth")
    ] = False
    device: Annotated[
        str,
        Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$"),
        Key("auto, cpu, cuda, cuda:<n>, mps", "where the run computes; auto takes a GPU where there is one"),
    ] = "auto"
    threads: Annotated[
        Epoch | None,
        Key(
            "a whole number >= 1, or null: 1 for pictures up to 16 x 16 pixels, else PyTorch's own number",
            "processor threads; kept with the run, so that it goes on with as many, and ends with the same bits",
        ),
    ] = None
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Key("auto, float32, bfloat16", "bfloat16 computes under autocast; auto takes it on GPUs that have it"),
    ] = "auto"


class Config(Section):
    """A run, whole: read by :func:`ramify.configfile.read_configs`, or ``Config(train=TrainConfig(epochs=3))``.

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
        Literal["sdn", "cnn", "cut"] | None,
        Key(
            "sdn, cnn, cut, or null",
            "what becomes of the parent's network: exits put in, exits taken out, or its cells up to the last one of "
            "network.structure",
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


def resolve(config: Config) -> Config:
    """Fill in what was left open, so that the result says everything a run will do.

    Example:
        >>> resolve(Config(train=TrainConfig(epochs=100))).growth.epochs
        (14, 27, 40)
    """
    train, network = config.train, config.network
    milestones = train.milestones
    if milestones is None:
        at = (round(train.epochs * share) for share in (0.6, 0.8, 0.95))
        milestones = tuple(sorted({epoch for epoch in at if 1 < epoch <= train.epochs}))
    gammas = train.gammas if isinstance(train.gammas, tuple) else (train.gammas,) * len(milestones)
    taus = train.tau_max
    if taus is None:
        taus = tuple(0.01 + (i + 1) / network.exits for i in range(network.exits - 1))
    growth = config.growth
    changes: dict[str, object] = {"plan": growth.plan or ("deeper",) * config.growths}
    if growth.widen is None:
        changes["widen"] = max(1, network.channels // 2)
    if growth.mode == "scheduled":
        changes["epochs"] = growth_epochs(config)
    if growth.patience is None:
        changes["patience"] = max(2, round(0.05 * train.epochs))
    if growth.mode == "loss" and growth.max_epochs is None and config.growths:
        changes["max_epochs"] = max(growth.min_epochs, (round(growth.until * train.epochs) - 1) // config.growths)
    final = network.final
    if final is None and growth.init == "identity" and network.cells == "seed" and network.growths:
        final = network.exit
    return config.model_copy(
        update={
            "network": network.model_copy(update={"final": final}),
            "train": train.model_copy(update={"milestones": milestones, "gammas": gammas, "tau_max": taus}),
            "growth": growth.model_copy(update=changes),
        }
    )


def growth_epochs(config: Config) -> tuple[int, ...]:
    """The epochs before which the network grows, under scheduled growth."""
    growth = config.growth
    if growth.epochs is not None:
        return growth.epochs
    if growth.every is not None:
        return tuple(1 + growth.every * i for i in range(1, config.growths + 1))
    return spread(config.growths, config.train.epochs)


def spread(growths: int, epochs: int) -> tuple[int, ...]:
    """Growth epochs, evenly over the first 40 % of ``epochs``, later where that is too short.

    Example:
        >>> spread(3, 40), spread(3, 4)
        ((6, 11, 16), (2, 3, 4))
    """
    last = max(growths + 1, round(0.4 * epochs))
    return tuple(1 + round((last - 1) * i / growths) for i in range(1, growths + 1))


def _rising(epochs: Sequence[float]) -> bool:
    return all(a < b for a, b in itertools.pairwise(epochs))


def _contradictions(config: Config) -> Iterator[tuple[str, object, str]]:
    """Keys that are fine alone and wrong together: (key, received, accepted)."""
    network, prune, train = config.network, config.prune, config.train
    last = train.epochs
    yield from _network_contradictions(network)
    if config.parent is None:
        if config.convert is not None:
            yield "convert", config.convert, "null, as there is no parent whose network could be converted"
        if train.exits_only:
            yield "train.exits_only", True, "false, as a fresh trunk must learn (a run with a parent may freeze it)"
    elif train.exits_only and network.exits == 1:
        yield "train.exits_only", True, "false, as the network has no internal classifiers"
    yield from _growth_contradictions(config)
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
    if deeper < len(plan) and (network.cells, network.cell) not in WIDENED:
        names = "basic cells of the seed, resnet56 and wideresnet32_4"
        yield "growth.plan", plan, f"deeper alone, as only {names} can be widened"
    there = network.first_stages
    for action in plan:
        there += action == "deeper"
        if action.startswith("wider:") and not 1 <= int(action[6:]) <= there:
            yield "growth.plan", plan, f"wider:1 to wider:{there} at that place, the stages that exist then"


def _network_contradictions(network: NetworkConfig) -> Iterator[tuple[str, object, str]]:
    if network.exits_at is not None:
        if not _rising(network.exits_at):
            yield "network.exits_at", network.exits_at, "numbers in rising order"
        cells = len(network.structure)
        if len(network.exits_at) >= cells:
            yield "network.exits_at", network.exits_at, f"at most {cells - 1}, as network.structure has {cells} cells"
    if network.cells == "seed":
        return
    cells = len(PUBLISHED[network.cells])
    if len(network.structure) > cells:
        yield "network.structure", network.structure, f"up to {cells} numbers, the cells of {network.cells}, or none"
    if network.kind == "dense":
        yield "network.kind", "dense", f"iterative, full_ic, full, as the cells of {network.cells} form a chain"
    for key in ("cell", "channels"):
        given, default = getattr(network, key), NetworkConfig.model_fields[key].default
        if given != default:
            yield f"network.{key}", given, f"{default}, which is left alone, as {network.cells} has cells of its own"


def _pruning_contradictions(config: Config) -> Iterator[tuple[str, object, str]]:
    network, prune = config.network, config.prune
    if not prune.epochs:
        yield "prune.epochs", prune.epochs, "at least one epoch, as prune.enabled is true"
    if prune.policy == "normal" and isinstance(prune.keep_ratio, tuple):
        yield "prune.keep_ratio", prune.keep_ratio, "one number, as policy normal ranks the whole network at once"
    if prune.unit == "channel" and network.cell == "skip_second":
        yield "prune.unit", prune.unit, "weight, as the shortcut of a skip_second cell needs all of its channels"
    growth = config.growth
    if growth.init == "identity" and growth.mode == "scheduled" and prune.criterion in ("snip", "grasp", "synflow"):
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
