"""The sections of a configuration: every key with its type, range, default and meaning."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator


@dataclass(frozen=True)
class Key:
    """What a person must know of a key: the values it accepts, and what it does.

    Either is a text, or a function that gives it where a registry says it, which is not imported before it is asked.
    """

    accepted_values: str | Callable[[], str]
    description: str | Callable[[], str]

    @property
    def accepts(self) -> str:
        """The values that it accepts, in words."""
        return self.accepted_values if isinstance(self.accepted_values, str) else self.accepted_values()

    @property
    def meaning(self) -> str:
        """What it does."""
        return self.description if isinstance(self.description, str) else self.description()


def _not_a_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a truth value is not a number")
    return value


def _as_name(value: object) -> object:
    # In YAML the name of a digit is a number.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_pairs(value: object) -> object:
    # A configuration is hashed, which a mapping cannot be.
    return tuple(value.items()) if isinstance(value, dict) else value


Whole = Annotated[int, BeforeValidator(_not_a_truth_value)]
Number = Annotated[float, BeforeValidator(_not_a_truth_value), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
Epoch = Annotated[Whole, Field(ge=1)]
Ratio = Annotated[Number, Field(gt=0, le=1)]
Bit = Annotated[Whole, Field(ge=0, le=1)]
Size = Annotated[Whole, Field(ge=8, le=16384)]
Width = Annotated[Whole, Field(ge=1, le=65536)]
Share = Annotated[Number, Field(ge=0, le=1)]
AtLeastZero = Annotated[Number, Field(ge=0)]
Head = Literal["mixed", "average", "max", "normed", "global", "conv", "both", "scaled"]

Scalar = bool | Whole | Number | str | None
Argument = Scalar | tuple[Scalar, ...]
"""What ``network.module_args`` may hold."""

Channel = Annotated[Whole, Field(ge=0, le=255)]


def _group_expression(value: str | None) -> str | None:
    """Refuse an expression that is none, or that does not find one group."""
    if value is not None and "(" in value:
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(str(error)) from error
        if groups != 1:
            raise ValueError("one group")
    return value


NEVER_MIRRORED = frozenset({"digits", "mnist"})
"""``data.source`` whose pictures are never mirrored: a mirrored digit is another sign, or none."""


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
        Literal["auto", "none", "crop", "crop_flip", "strong", "photo"],
        Key(
            "auto, none, crop, crop_flip, strong, photo",
            "shifted crops, and mirrored pictures; auto mirrors photographs and never digits; strong adds to auto one "
            "drawn change of shape or color for each picture (arXiv:2103.10158); photo: random resized crops, mirrored "
            "pictures, and mild changes of brightness, contrast and saturation; photographs are kept larger for it",
        ),
    ] = "auto"
    shift: Annotated[
        Epoch | None,
        Key(
            "a whole number >= 1, or null for an eighth of the height",
            "pixels by which augment moves a picture at most",
        ),
    ] = None
    border: Annotated[
        Literal["zeros", "reflect", "edge"],
        Key("zeros, reflect, edge", "what moves in at the side of a shifted picture"),
    ] = "zeros"
    flip: Annotated[
        Literal["random", "alternating"],
        Key(
            "random, alternating",
            "which pictures are mirrored in an epoch: each with probability 1/2, or every picture in every second "
            "epoch, a drawn half of them in the odd ones (arXiv:2404.00498)",
        ),
    ] = "random"
    cutout: Annotated[
        Epoch | None,
        Key(
            "a whole number >= 1, or null",
            "side in pixels of a square at a drawn place that is blanked in each training picture (arXiv:1708.04552)",
        ),
    ] = None
    mixup: Annotated[
        AtLeastZero,
        Key(
            "a number >= 0; 0 is none",
            "training pictures are blended in pairs, and so are their labels, by a share drawn from "
            "Beta(mixup, mixup) for each batch (arXiv:1710.09412)",
        ),
    ] = 0.0
    cutmix: Annotated[
        AtLeastZero,
        Key(
            "a number >= 0; 0 is none",
            "a rectangle of each training picture comes from another one, and so does its share of the label; its area "
            "is drawn from Beta(cutmix, cutmix) for each batch (arXiv:1905.04899); with mixup, either by turns",
        ),
    ] = 0.0
    mix_ramp: Annotated[
        Share,
        Key(
            "a number in [0, 1]",
            "share of the epochs over which the probability that a batch is mixed rises from 0 to 1; 0: always 1",
        ),
    ] = 0.0
    sizes: Annotated[
        tuple[tuple[Epoch, Size], ...] | None,
        Key(
            "a list of [epoch, side] with sides from 8 to 16384, or null for full size",
            "from these epochs on, training pictures are scaled to this shorter side (arXiv:2104.00298); the first "
            "epoch is 1, the last side the pictures' own; validation and test are at full size",
        ),
    ] = None
    limit: Annotated[
        Annotated[Whole, Field(ge=2)] | None,
        Key("a whole number >= 2, or null for all", "at most so many training and so many test pictures, seeded"),
    ] = None
    size: Annotated[
        Size | tuple[Size, Size] | None,
        Key(
            "a whole number from 8 to 16384, or [height, width], or null for the pictures' own",
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
    labels: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        Key(
            "the path of a CSV file, in the source or from here, or null for the folders' names",
            "a table that says what each picture shows: columns file and label, and perhaps part and group",
        ),
    ] = None
    group: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        AfterValidator(_group_expression),
        Key(
            "a column of data.labels, or a regular expression with one (group), or null",
            "what pictures have in common that must not be in two parts, such as a person: the column's value, or what "
            "the expression finds in a picture's name",
        ),
    ] = None
    fold: Annotated[
        tuple[Epoch, Annotated[Whole, Field(ge=2)]] | None,
        Key(
            "[k, n] with k from 1 to n, or null",
            "k-fold cross-validation: the training pictures are dealt into n folds, and the k-th is the test part",
        ),
    ] = None
    sampler: Annotated[
        Literal["shuffle", "balanced"],
        Key(
            "shuffle, balanced",
            "shuffle: each training picture once in an epoch; balanced: as many draws, with replacement, each class as "
            "likely",
        ),
    ] = "shuffle"
    background: Annotated[
        Literal["white", "black", "gray"] | tuple[Channel, Channel, Channel],
        Key("white, black, gray, or [red, green, blue] from 0 to 255", "what transparent pictures are laid on"),
    ] = "white"
    range: Annotated[
        tuple[Number, Number] | None,
        Key(
            "[low, high], or null for the least and the largest value of the set",
            "the values of 16- and 32-bit pictures that become 0 and 255; kept with the run",
        ),
    ] = None
    broken: Annotated[
        Literal["stop", "skip"],
        Key("stop, skip", "what happens where pictures cannot be decoded: all are named, or they are passed over"),
    ] = "stop"
    memory_gb: Annotated[
        AtLeastZero,
        Key("a number >= 0, in GB", "a larger set of decoded pictures is not held in memory but read from the cache"),
    ] = 1.0
    max_pixels: Annotated[
        Epoch,
        Field(le=178_000_000),
        Key("a whole number from 1 to 178000000", "a picture of more pixels counts as broken"),
    ] = 89_000_000
    max_file_mb: Annotated[
        Positive, Key("a number > 0, in MB", "a source with a larger picture file, unpacked, is refused")
    ] = 250.0
    max_archive_gb: Annotated[
        Positive, Key("a number > 0, in GB", "an archive that is larger, unpacked, is refused")
    ] = 32.0
    max_depth: Annotated[Epoch, Key("a whole number >= 1", "a source with deeper folders is refused")] = 32
    max_entries: Annotated[Epoch, Key("a whole number >= 1", "a source of more files and folders is refused")] = (
        2_000_000
    )

    @property
    def background_color(self) -> tuple[int, int, int]:
        """Red, green and blue of ``background``, 0 to 255."""
        named = {"white": (255, 255, 255), "black": (0, 0, 0), "gray": (128, 128, 128)}
        return named[self.background] if isinstance(self.background, str) else self.background


BASIC = "basic"
"""The default of ``network.cell``; no registry has to be asked for it."""

EXITS_AT = (0.15, 0.30, 0.45, 0.60, 0.75, 0.90)
"""Where Shallow-Deep Networks (arXiv:1810.07052) puts the internal classifiers, as fractions of the MACs."""

BACKBONE_EXITS = (0.25, 0.5, 0.75)
"""Where a backbone gets internal classifiers that nobody placed, as fractions of its MACs."""

PUBLISHED = {
    "vgg16": (0,) * 12,
    "resnet56": (0,) * 27,
    "wideresnet32_4": (0,) * 15,
    "mobilenet": (0,) * 13,
    "lenet5": (1, 1, 0),
    "lenet300": (1, 0),
}
"""A structure for each published architecture; where it has no 1, :data:`EXITS_AT` says where they are."""


def _offered() -> dict[str, str]:
    """The values of ``network.cell``, and what each is. The registry of cells is imported when it is asked."""
    from ramify.nn.cells import offered

    return {name: cell.summary for name, cell in offered().items()}


def _offered_cell(value: str) -> str:
    if value != BASIC and value not in _offered():
        raise ValueError("an unknown cell")
    return value


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
        tuple[Annotated[Number, Field(gt=0, lt=1)], ...]
        | Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
        | None,
        Key(
            "a rising list of numbers in (0, 1), or null; of a backbone also a list of names of its submodules",
            "puts the internal classifiers of network.structure behind the cells that are nearest to these fractions "
            "of the network's MACs; those of a backbone behind its layers, null being 0.25, 0.5 and 0.75",
        ),
    ] = None
    backbone: Annotated[
        Annotated[str, Field(pattern=r"^timm/[A-Za-z0-9_.]+$")] | None,
        Key("timm/NAME, or null", "a network of the package timm in place of cells; exits stand at network.exits_at"),
    ] = None
    module: Annotated[
        Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None,
        Key(
            "package.file:function, or null",
            "a network of your own in place of cells: the function, called with network.module_args, gives a "
            "torch.nn.Module that makes logits of pictures; exits stand at network.exits_at",
        ),
    ] = None
    module_args: Annotated[
        tuple[tuple[str, Argument], ...],
        BeforeValidator(_as_pairs),
        PlainSerializer(dict),
        Key("key: value lines, or {key: value}", "arguments for the function of network.module"),
    ] = ()
    weights: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        Key(
            "the path of a .safetensors file, or of a state dict that torch.save wrote, or null",
            "trained weights for the backbone or module; its last layer is drawn where it is for other classes",
        ),
    ] = None
    pretrained: Annotated[
        bool | None,
        Key(
            "true, false, or null: true for network.backbone without network.weights",
            "whether timm fetches the trained weights of the backbone",
        ),
    ] = None
    normalization: Annotated[
        Literal["data", "imagenet", "none"] | tuple[tuple[Number, ...], tuple[Positive, ...]] | None,
        Key(
            "data, imagenet, none, [[means], [deviations]] with a number for each channel, or null",
            "of a backbone or module: by what pictures in [0, 1] are normalized; null: by what it names itself "
            "(timm's settings, or attributes mean and std of the module), else by the training pictures'",
        ),
    ] = None
    channels: Annotated[
        Width | Annotated[tuple[Width, ...], Field(min_length=1)],
        Key(
            "a whole number from 1 to 65536, or a list of them, such as [16, 32, 64]",
            "output channels of the stem and of every seed cell; of a list the stem takes the first, and each cell "
            "that strides moves on to the next",
        ),
    ] = 16
    strides: Annotated[
        tuple[Bit, ...] | None,
        Key(
            "a list of 0 and 1, one for each number of network.structure, or null",
            "1 = this seed cell halves the map and moves on to the next of network.channels; null spreads the widths "
            "evenly over the cells",
        ),
    ] = None
    stem: Annotated[
        Literal["block", "whitened"],
        Key(
            "block, whitened",
            "of seed cells: 3x3 convolution, batch norm and ReLU, which learn; or a 2x2 convolution and GELU that "
            "whiten the pictures and do not learn (arXiv:2404.00498), with 8 channels for each color",
        ),
    ] = "block"
    cell: Annotated[
        str,
        AfterValidator(_offered_cell),
        Key(lambda: ", ".join(_offered()), lambda: f"of seed cells: {'; '.join(_offered().values())}"),
    ] = BASIC
    squeeze: Annotated[
        Ratio | None,
        Key(
            "a number in (0, 1], or null",
            "squeeze-and-excitation in cells that have a place for it, with this share of their inner channels as "
            "hidden units",
        ),
    ] = None
    exit: Annotated[
        Head,
        Key(
            ", ".join(get_args(Head)),
            "of the internal classifiers: pooling to 4x4, mixed learns the share of each; global pools to one pixel "
            "that way, conv as well, behind a 1x1 block; normed averages behind batch norm and ReLU; both reads the "
            "mean and the maximum of the map; scaled a ninth of what its maximum gives",
        ),
    ] = "mixed"
    exit_reads: Annotated[
        Literal["activation", "sum"],
        Key(
            "activation, sum",
            "what an internal classifier reads of its cell: what the next cell reads, or the sum before the cell's "
            "last ReLU, where a cell ends in one",
        ),
    ] = "activation"
    final: Annotated[
        Head | None,
        Key(
            f"{', '.join(get_args(Head))}, or null",
            "of seed cells: the final classifier, as network.exit; null is average, or network.exit where growth.init "
            "is identity without network.cascade",
        ),
    ] = None
    cascade: Annotated[
        bool, Key("true, false", "each exit adds its logits to those of the exit before it, and answers with the sum")
    ] = False
    input_shape: Annotated[
        tuple[Width, Size, Size] | None,
        Key("[channels, height, width] with sides from 8 to 16384, or null for the data's", "shape of one picture"),
    ] = None
    classes: Annotated[
        Annotated[Whole, Field(ge=2)] | None,
        Key("a whole number >= 2, or null for the data's", "number of classes"),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _published(cls, given: object) -> object:
        """A published architecture brings its number of cells, and the places of its exits, where none are given.

        A backbone has all of its exits from the start.
        """
        if not isinstance(given, dict):
            return given
        if given.get("backbone") is not None or given.get("module") is not None:
            return {**given, "kind": given.get("kind", "full_ic")}
        if given.get("structure") is not None:
            return given
        exits = PUBLISHED.get(str(given.get("cells")))
        if exits is None:
            return given
        found = {**given, "structure": exits}
        if not any(exits) and given.get("exits_at") is None:
            found["exits_at"] = EXITS_AT
        return found

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths of the seed's cells, first to last; the stem has the first."""
        return self.channels if isinstance(self.channels, tuple) else (self.channels,)

    @property
    def strided(self) -> tuple[int, ...]:
        """For each seed cell 1 if it halves the map, else 0.

        Example:
            >>> NetworkConfig(structure=(0, 0, 1, 0, 1), channels=(16, 32)).strided
            (0, 0, 0, 1, 0)
        """
        if self.strides is not None:
            return self.strides
        cells, groups = len(self.structure), len(self.widths)
        # Earlier groups get what is left over: their cells are the cheaper ones.
        starts = {-(-group * cells // groups) for group in range(1, groups)}
        return tuple(int(cell in starts) for cell in range(cells))

    @property
    def has_backbone(self) -> bool:
        """Whether it is a backbone or module, not made of cells."""
        return self.backbone is not None or self.module is not None

    @property
    def exits(self) -> int:
        """Exits of the grown network, the final classifier included; also its number of stages."""
        if self.kind == "full":
            return 1
        if self.has_backbone:
            return len(BACKBONE_EXITS if self.exits_at is None else self.exits_at) + 1
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


DYNAMIC = ("rigl", "set")
"""Policies of ``prune.policy`` under which connections move while the network learns."""

DENSITIES = ("erk", "uniform")
"""What ``prune.criterion`` may be under these."""


class PruneConfig(Section):
    """``prune.*``: when and how weights are pruned."""

    enabled: Annotated[bool, Key("true, false", "whether the run prunes")] = False
    policy: Annotated[
        Literal["skip_layer", "normal", "iterative", "rigl", "set"],
        Key(
            "skip_layer, normal, iterative, rigl, set",
            "skip_layer: the i-th pruning takes the i-th stage; normal: the whole network, ranked globally; "
            "iterative: every stage, again and again; rigl, set: every stage is sparse from its birth, and its "
            "connections move while it learns, to where the gradient is largest (arXiv:1911.11134) or at random "
            "(arXiv:1707.04780)",
        ),
    ] = "normal"
    criterion: Annotated[
        Literal["snip", "grasp", "synflow", "magnitude", "random", "erk", "uniform"] | None,
        Key(
            "snip, grasp, synflow, magnitude, random, erk, uniform, or null for snip, or erk under rigl and set",
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
        tuple[Epoch, ...],
        Key(
            "a rising list of epochs",
            "the network is pruned before the first step of these epochs; rigl and set start with the one given, or "
            "the first",
        ),
    ] = ()
    interval: Annotated[
        Epoch | None,
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
        Epoch, Key("a whole number >= 1", "training pictures, never augmented, on which the saliency is scored")
    ] = 128
    batches: Annotated[Epoch, Key("a whole number >= 1", "how many such batches; their scores are averaged")] = 1
    rounds: Annotated[
        Epoch,
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
            "whether the criterion did anything: shuffle the mask inside each layer, draw the survivors anew, "
            "or keep the lowest scores",
        ),
    ] = "none"
    reinit: Annotated[bool, Key("true, false", "draw the surviving weights of a pruned stage anew")] = False
    max_parameters: Annotated[
        Annotated[Whole, Field(ge=1)] | Annotated[Number, Field(gt=0, lt=1)] | None,
        Key(
            "a whole number >= 1, a share in (0, 1), or null",
            "policy normal, unit channel: in place of prune.keep_ratio, as many channels stay as leave the compacted "
            "network so many parameters, or this share of them",
        ),
    ] = None
    max_macs: Annotated[
        Annotated[Whole, Field(ge=1)] | Annotated[Number, Field(gt=0, lt=1)] | None,
        Key(
            "a whole number >= 1, a share in (0, 1), or null",
            "the same for the multiply-accumulates of its last exit; with prune.max_parameters, both hold",
        ),
    ] = None
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
        Literal["sgd", "adam", "adamw", "muon", "normed_muon"],
        Key(
            "sgd, adam, adamw, muon, normed_muon",
            "sgd and muon have train.momentum, the others PyTorch's betas; muon moves weights by orthogonal steps "
            "(arXiv:2502.16982) and all else as adamw, at rates that suit adamw; normed_muon keeps the norm of each "
            "convolution and moves all else by Nesterov SGD (arXiv:2404.00498)",
        ),
    ] = "sgd"
    nesterov: Annotated[bool, Key("true, false", "Nesterov momentum of sgd (arXiv:1212.0901); muon always has it")] = (
        False
    )
    learning_rate: Annotated[
        Positive, Key("a number > 0", "learning rate before any milestone, and after the warm-up")
    ] = 0.02
    schedule: Annotated[
        Literal["steps", "cosine", "linear"],
        Key(
            "steps, cosine, linear",
            "how the learning rate falls: at train.milestones by their gammas; or from step to step, along half a "
            "cosine (arXiv:1608.03983) or a line, to train.final_rate",
        ),
    ] = "steps"
    warmup: Annotated[
        AtLeastZero,
        Key("a number >= 0", "epochs over which the learning rate rises along a line from 0 (arXiv:1706.02677)"),
    ] = 0.0
    final_rate: Annotated[
        Share, Key("a number in [0, 1]", "schedules cosine and linear: fraction of the learning rate left at the end")
    ] = 0.0
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
    momentum: Annotated[Number, Field(ge=0, lt=1), Key("a number in [0, 1)", "momentum of sgd and muon")] = 0.9
    weight_decay: Annotated[
        Number,
        Field(ge=0),
        Key("a number >= 0", "decay of the parameters that train.decay names"),
    ] = 1e-4
    backbone_rate: Annotated[
        Positive,
        Key(
            "a number > 0",
            "with network.backbone or network.module: factor on the learning rate of everything but the exits and the "
            "layer that makes the logits; such as 0.1 for trained weights",
        ),
    ] = 1.0
    freeze_epochs: Annotated[
        Whole,
        Field(ge=0),
        Key(
            "a whole number >= 0",
            "with network.backbone or network.module: so many epochs train the exits and the layer that makes the "
            "logits alone; all else stays as it is, batch norm statistics included",
        ),
    ] = 0
    decay: Annotated[
        Literal["weights", "all"],
        Key(
            "weights, all",
            "what train.weight_decay is of: convolution and linear weights, which spares biases and batch norm, or "
            "every parameter",
        ),
    ] = "weights"
    label_smoothing: Annotated[
        Number,
        Field(ge=0, lt=1),
        Key("a number in [0, 1)", "share of each label that is spread evenly over all classes (arXiv:1512.00567)"),
    ] = 0.0
    ema: Annotated[
        Annotated[Number, Field(gt=0, lt=1)] | None,
        Key(
            "a number in (0, 1), such as 0.999, or null",
            "decay of an exponential average of the weights that follows growth and pruning, and is what is "
            "validated, kept and tested (arXiv:1803.05407 averages evenly)",
        ),
    ] = None
    flip_test: Annotated[
        bool,
        Key(
            "true, false; false for digits and mnist",
            "validate and test by the mean of the logits of each picture and its mirror, at twice the MACs",
        ),
    ] = False
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
    exit_gradients: Annotated[
        Literal["sum", "equilibrium", "last"],
        Key(
            "sum, equilibrium, last",
            "what flows from the exits into the trunk: the sum of their gradients, the mean over the exits behind "
            "each stage (gradient equilibrium, arXiv:1908.06294), or the gradient of the deepest exit alone, so that "
            "the others cost it nothing",
        ),
    ] = "sum"
    trunk_first: Annotated[
        Whole,
        Field(ge=0),
        Key(
            "a whole number >= 0",
            "mixed training (arXiv:2407.14320): while the network grows, and for so many epochs from the last growth "
            "on, the deepest exit trains alone; then all exits do. 0: all exits from the start",
        ),
    ] = 0
    distill: Annotated[
        Number,
        Field(ge=0),
        Key(
            "a number >= 0",
            "self-distillation (arXiv:1905.08094): weight of the divergence of each internal classifier from the "
            "deepest exit, beside its cross-entropy",
        ),
    ] = 0.0
    distill_temperature: Annotated[
        Positive,
        Key("a number > 0", "logits are divided by it where an exit learns from the deepest exit or from a teacher"),
    ] = 4.0
    teacher: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        Key(
            "the name of a run, the path of its folder or of a saved network, or null",
            "every exit learns from the last exit of that network as well (distillation, arXiv:1503.02531)",
        ),
    ] = None
    teacher_weight: Annotated[
        Annotated[Number, Field(ge=0, le=1)] | None,
        Key(
            "a number in [0, 1], or null for 0.5 with a teacher",
            "weight of the teacher in each exit's loss; the labels have the rest",
        ),
    ] = None
    teacher_exits: Annotated[
        bool,
        Key(
            "true or false",
            "each exit learns from the same exit of the teacher where that is right, and to stay undecided where it is "
            "wrong (ERDE, arXiv:2510.04856), in place of the teacher's last exit",
        ),
    ] = False
    exit_focus: Annotated[
        Annotated[Number, Field(ge=0, le=1)],
        Key(
            "a number in [0, 1]",
            "how far an exit learns from the pictures that come to it: they count by how unsure earlier exits are "
            "(after arXiv:2509.08318); 0: all count alike",
        ),
    ] = 0.0
    class_weights: Annotated[
        Literal["none", "balanced"] | Annotated[tuple[AtLeastZero, ...], Field(min_length=2)],
        Key(
            "none, balanced, or a list of one number >= 0 for each class in the order of their names",
            "weight of each class in the loss; balanced: N / (C * n) for a class of n of the N training pictures in C "
            "classes; they are scaled so that the mean over the training pictures is 1",
        ),
    ] = "none"
    keep: Annotated[
        Literal["best", "last"],
        Key(
            "best, last",
            "the epoch whose network a run is tested with and keeps: the one with the best validation accuracy, or the "
            "last, where there are too few validation pictures to choose by",
        ),
    ] = "best"
    patience: Annotated[
        Epoch | None,
        Key(
            "a whole number >= 1, or null",
            "early stopping: the run ends after so many epochs without a better validation score; they count from the "
            "last growth and pruning on",
        ),
    ] = None
    clip: Annotated[
        Positive | None,
        Key("a number > 0, or null", "largest norm of the gradient of all weights; more is scaled down"),
    ] = None
    compile: Annotated[
        bool, Key("true, false", "compile the training step with torch.compile, anew after each growth")
    ] = False
    record: Annotated[
        bool | None,
        Key(
            "true, false, or null: true where it can be done",
            "record the whole training step as a CUDA graph and replay it; on a CUDA device, in one process, with sgd "
            "or muon, and without a teacher",
        ),
    ] = None
    device: Annotated[
        str,
        Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$"),
        Key("auto, cpu, cuda, cuda:<n>, mps", "where the run computes; auto takes a GPU where there is one"),
    ] = "auto"
    threads: Annotated[
        Epoch | None,
        Key(
            "a whole number >= 1, or null: 1 for pictures up to 16 x 16 pixels, else PyTorch's own number",
            "processor threads, at most as many as the machine has processors; kept with the run, so that it "
            "goes on with as many, and ends with the same bits",
        ),
    ] = None
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Key(
            "auto, float32, bfloat16",
            "bfloat16 computes under autocast; auto takes it on GPUs that have it, and on processors that have it for "
            "pictures above 16 x 16 pixels",
        ),
    ] = "auto"
