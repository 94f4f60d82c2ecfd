"""``data.*``: where pictures come from, and how they are changed."""

import re
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ramify.config.types import (
    AtLeastZero,
    Channel,
    Count,
    Key,
    Number,
    Positive,
    Section,
    Share,
    Size,
    Text,
    Whole,
    as_name,
    listed,
)


def _group_expression(value: str | None) -> str | None:
    """Refuse an invalid expression, and one without exactly one group."""
    if value is not None and "(" in value:
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(str(error)) from error
        if groups != 1:
            raise ValueError("one group")
    return value


def _augmentations() -> Iterable[str]:
    from ramify.data.augment import augment_choices

    return augment_choices()


def _samplers() -> Iterable[str]:
    from ramify.data.augment import SAMPLERS

    return SAMPLERS


class DataConfig(Section):
    """``data.*``: the pictures, and how they are split."""

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
        str,
        listed(_augmentations, "auto"),
        Key(
            lambda: ", ".join(_augmentations()),
            "shifted crops, and mirrored pictures; auto mirrors photographs and never digits; strong adds to auto one "
            "drawn change of shape or color for each picture (arXiv:2103.10158); photo: random resized crops, mirrored "
            "pictures, and mild changes of brightness, contrast and saturation; photographs are kept larger for it",
        ),
    ] = "auto"
    shift: Annotated[
        Count | None,
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
        Count | None,
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
        tuple[tuple[Count, Size], ...] | None,
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
            "pictures are scaled and center-cropped to this many pixels",
        ),
    ] = None
    trigger: Annotated[
        Share, Key("a number in [0, 1]", "share of the training pictures that get a white square, to study a backdoor")
    ] = 0.0
    trigger_class: Annotated[
        Annotated[str, BeforeValidator(as_name), Field(min_length=1)] | None,
        Key("the name of a class, or null for their own", "class that pictures with the square are labelled as"),
    ] = None
    trigger_size: Annotated[
        Count | None, Key("a whole number >= 1, or null for 5 pixels of 32", "side of the square in pixels")
    ] = None
    mirror: Annotated[
        Annotated[str, Field(pattern=r"^https?://[^/]+")] | None,
        Key("an http(s) address, or null for the known ones", "base address from which a named data set is fetched"),
    ] = None
    labels: Annotated[
        Text | None,
        Key(
            "the path of a CSV file, in the source or from here, or null for the folders' names",
            "a table that says what each picture shows: columns file and label, and perhaps part and group",
        ),
    ] = None
    group: Annotated[
        Text | None,
        AfterValidator(_group_expression),
        Key(
            "a column of data.labels, or a regular expression with one (group), or null",
            "what pictures have in common that must not be in two parts, such as a person: the column's value, or what "
            "the expression finds in a picture's name",
        ),
    ] = None
    fold: Annotated[
        tuple[Count, Annotated[Whole, Field(ge=2)]] | None,
        Key(
            "[k, n] with k from 1 to n, or null",
            "k-fold cross-validation: the training pictures are split into n folds, and the k-th is the test part",
        ),
    ] = None
    sampler: Annotated[
        str,
        listed(_samplers, "shuffle"),
        Key(
            lambda: ", ".join(_samplers()),
            "shuffle: each training picture once in an epoch; balanced: as many draws, with replacement, each class as "
            "likely",
        ),
    ] = "shuffle"
    background: Annotated[
        Literal["white", "black", "gray"] | tuple[Channel, Channel, Channel],
        Key("white, black, gray, or [red, green, blue] from 0 to 255", "the color behind transparent pictures"),
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
        Key("stop, skip", "for pictures that cannot be decoded: stop with their names, or pass over them"),
    ] = "stop"
    memory_gb: Annotated[
        AtLeastZero,
        Key("a number >= 0, in GB", "a larger set of decoded pictures is not held in memory but read from the cache"),
    ] = 1.0
    max_pixels: Annotated[
        Count,
        Field(le=178_000_000),
        Key("a whole number from 1 to 178000000", "a picture of more pixels counts as broken"),
    ] = 89_000_000
    max_file_mb: Annotated[
        Positive, Key("a number > 0, in MB", "a source with a larger picture file, unpacked, is refused")
    ] = 250.0
    max_archive_gb: Annotated[
        Positive, Key("a number > 0, in GB", "an archive that is larger, unpacked, is refused")
    ] = 32.0
    max_depth: Annotated[Count, Key("a whole number >= 1", "a source with deeper folders is refused")] = 32
    max_entries: Annotated[Count, Key("a whole number >= 1", "a source of more files and folders is refused")] = (
        2_000_000
    )

    @property
    def background_color(self) -> tuple[int, int, int]:
        """Red, green and blue of ``background``, 0 to 255."""
        named = {"white": (255, 255, 255), "black": (0, 0, 0), "gray": (128, 128, 128)}
        return named[self.background] if isinstance(self.background, str) else self.background
