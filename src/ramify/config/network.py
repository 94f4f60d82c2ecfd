"""``network.*``: the architecture."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from ramify.config.types import (
    Accepts,
    Argument,
    AtLeastTwo,
    Bit,
    Fraction,
    Listed,
    Number,
    Positive,
    Ratio,
    Section,
    Size,
    Text,
    Width,
)

BASIC = "basic"
"""The default of ``network.cell``; no registry has to be asked for it."""

EXITS_AT = (0.15, 0.30, 0.45, 0.60, 0.75, 0.90)
"""Where Shallow-Deep Networks (arXiv:1810.07052) puts the internal classifiers, as fractions of the MACs."""

BACKBONE_EXITS = (0.25, 0.5, 0.75)
"""The default places of the internal classifiers of a backbone, as fractions of its MACs."""

PUBLISHED = {
    "vgg16": (0,) * 12,
    "resnet56": (0,) * 27,
    "wideresnet32_4": (0,) * 15,
    "mobilenet": (0,) * 13,
    "lenet5": (1, 1, 0),
    "lenet300": (1, 0),
}
"""The structure of each published architecture; without a 1, its exits stand at :data:`EXITS_AT`."""


def _heads() -> Iterable[str]:
    from ramify.nn.exit import EXITS

    return EXITS


def _offered() -> dict[str, str]:
    """The values of ``network.cell`` with their descriptions."""
    from ramify.nn.cells import cell_choices

    return {name: cell.summary for name, cell in cell_choices().items()}


class NetworkConfig(Section):
    """``network.*``: the network when it has fully grown."""

    kind: Literal["dense", "iterative", "full_ic", "full"] = "iterative"
    """full: a chain of cells; full_ic: with internal classifiers; iterative: the same, grown; dense: grown, every cell
    reads all earlier ones"""
    cells: Literal["seed", "vgg16", "resnet56", "wideresnet32_4", "mobilenet", "lenet5", "lenet300"] = "seed"
    """seed: cells of network.channels, as many as network.structure says; or those of a published architecture"""
    structure: Annotated[
        tuple[Bit, ...],
        Field(min_length=1),
        Accepts("a list of 0 and 1, at least one"),
    ] = (0, 1, 0, 1, 0, 1, 0)
    """a cell each; 1 = the cell carries an internal classifier; may be left out with a published architecture"""
    exits_at: Annotated[
        tuple[Fraction, ...] | Annotated[tuple[Text, ...], Field(min_length=1)] | None,
        Accepts("a rising list of numbers in (0, 1), or null; of a backbone also a list of names of its submodules"),
    ] = None
    """puts the internal classifiers of network.structure behind the cells that are nearest to these fractions of the
    network's MACs; those of a backbone behind its layers, null being 0.25, 0.5 and 0.75"""
    backbone: Annotated[
        Annotated[str, Field(pattern=r"^timm/[A-Za-z0-9_.]+$")] | None, Accepts("timm/NAME, or null")
    ] = None
    """a network of the package timm in place of cells; exits stand at network.exits_at"""
    module: Annotated[
        Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None,
        Accepts("package.file:function, or null"),
    ] = None
    """a network of your own in place of cells: the function, called with network.module_args, gives a torch.nn.Module
    that makes logits of pictures; exits stand at network.exits_at"""
    module_args: Annotated[
        tuple[tuple[str, Argument], ...],
        # A section is hashable, and a mapping is not.
        BeforeValidator(lambda value: tuple(value.items()) if isinstance(value, dict) else value),
        PlainSerializer(dict),
        Accepts("key: value lines, or {key: value}"),
    ] = ()
    """arguments for the function of network.module"""
    weights: Annotated[
        Text | None, Accepts("the path of a .safetensors file, or of a state dict that torch.save wrote, or null")
    ] = None
    """trained weights for the backbone or module; its last layer is drawn where it is for other classes"""
    pretrained: Annotated[
        bool | None, Accepts("true, false, or null: true for network.backbone without network.weights")
    ] = None
    """whether timm fetches the trained weights of the backbone"""
    normalization: Annotated[
        Literal["data", "imagenet", "none"] | tuple[tuple[Number, ...], tuple[Positive, ...]] | None,
        Accepts("data, imagenet, none, [[means], [deviations]] with a number for each channel, or null"),
    ] = None
    """of a backbone or module: by what pictures in [0, 1] are normalized; null: by what it names itself (timm's
    settings, or attributes mean and std of the module), else by the training pictures'"""
    channels: Annotated[
        Width | Annotated[tuple[Width, ...], Field(min_length=1)],
        Accepts("a whole number from 1 to 65536, or a list of them, such as [16, 32, 64]"),
    ] = 16
    """output channels of the stem and of every seed cell; of a list the stem takes the first, and each cell that
    strides moves on to the next"""
    strides: Annotated[
        tuple[Bit, ...] | None, Accepts("a list of 0 and 1, one for each number of network.structure, or null")
    ] = None
    """1 = this seed cell halves the map and moves on to the next of network.channels; null spreads the widths evenly
    over the cells"""
    stem: Literal["block", "whitened"] = "block"
    """of seed cells: 3x3 convolution, batch norm and ReLU, which learn; or a 2x2 convolution and GELU that whiten the
    pictures and do not learn (arXiv:2404.00498), with 8 channels for each color"""
    cell: Annotated[str, Listed(_offered, BASIC, lambda: _offered().values())] = BASIC
    """of seed cells:"""
    squeeze: Ratio | None = None
    """squeeze-and-excitation in cells that have a place for it, with this share of their inner channels as hidden
    units"""
    exit: Annotated[str, Listed(_heads, "mixed")] = "mixed"
    """of the internal classifiers: pooling to 4x4, mixed learns the share of each; global pools to one pixel that way,
    conv as well, behind a 1x1 block; normed averages behind batch norm and ReLU; both normalizes the mean and the
    maximum of the map; scaled gives a ninth of what is read from its maximum"""
    exit_reads: Literal["activation", "sum"] = "activation"
    """what an internal classifier reads of its cell: what the next cell reads, or the sum before the cell's last ReLU,
    where a cell ends in one"""
    final: Annotated[str, Listed(_heads, "average")] | None = None
    """of seed cells: the final classifier, as network.exit; null is average, or network.exit where growth.init is
    identity without network.cascade"""
    cascade: bool = False
    """each exit adds its logits to those of the exit before it, and answers with the sum"""
    input_shape: Annotated[
        tuple[Width, Size, Size] | None,
        Accepts("[channels, height, width] with sides from 8 to 16384, or null for the data's"),
    ] = None
    """shape of one picture"""
    classes: Annotated[AtLeastTwo | None, Accepts("a whole number >= 2, or null for the data's")] = None
    """number of classes"""

    @model_validator(mode="before")
    @classmethod
    def _published(cls, keys: object) -> object:
        """Defaults of a backbone, which is complete from the start, and of a published architecture."""
        if not isinstance(keys, dict):
            return keys
        if keys.get("backbone") is not None or keys.get("module") is not None:
            return {"kind": "full_ic", **keys}
        structure = PUBLISHED.get(str(keys.get("cells")))
        if structure is None or keys.get("structure") is not None:
            return keys
        exits_at = EXITS_AT if not any(structure) and keys.get("exits_at") is None else keys.get("exits_at")
        return {**keys, "structure": structure, "exits_at": exits_at}

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
        # Earlier groups get the remainder, as their cells are cheaper.
        starts = {-(-group * cells // groups) for group in range(1, groups)}
        return tuple(int(cell in starts) for cell in range(cells))

    @property
    def has_backbone(self) -> bool:
        """Whether the network is a backbone or module, not made of cells."""
        return self.backbone is not None or self.module is not None

    @property
    def exits(self) -> int:
        """Exits, and stages, of the grown network, the final classifier included."""
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
