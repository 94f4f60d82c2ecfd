"""``data.*``: where pictures come from, and how they are changed."""

import re
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ramify.config.types import (
    Accepts,
    AtLeastTwo,
    AtLeastZero,
    BelowOne,
    Channel,
    Count,
    Fraction,
    Listed,
    Number,
    Positive,
    Section,
    Share,
    Size,
    Text,
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
        Accepts("digits, cifar10, cifar100, mnist, fashion_mnist, tiny_imagenet, or the path of a folder or archive"),
    ] = "digits"
    """where the pictures come from; a folder, or a .tar, .tar.gz, .tar.xz or .zip, holds train/<class>/* and
    test/<class>/*, or just <class>/*"""
    batch_size: AtLeastTwo = 64
    """pictures in a training step"""
    valid_fraction: BelowOne = 0.1
    """share of the training pictures held out for validation, of each class alike"""
    test_fraction: Fraction = 0.2
    """share held out for the test where a source has no test pictures of its own"""
    augment: Annotated[str, Listed(_augmentations, "auto")] = "auto"
    """shifted crops, and mirrored pictures; auto mirrors photographs and never digits; strong adds to auto one drawn
    change of shape or color for each picture (arXiv:2103.10158); photo: random resized crops, mirrored pictures, and
    mild changes of brightness, contrast and saturation; photographs are kept larger for it"""
    shift: Annotated[Count | None, Accepts("a whole number >= 1, or null for an eighth of the height")] = None
    """pixels by which augment moves a picture at most"""
    border: Literal["zeros", "reflect", "edge"] = "zeros"
    """what moves in at the side of a shifted picture"""
    flip: Literal["random", "alternating"] = "random"
    """which pictures are mirrored in an epoch: each with probability 1/2, or every picture in every second epoch, a
    drawn half of them in the odd ones (arXiv:2404.00498)"""
    cutout: Count | None = None
    """side in pixels of a square at a drawn place that is blanked in each training picture (arXiv:1708.04552)"""
    mixup: Annotated[AtLeastZero, Accepts("a number >= 0; 0 is none")] = 0.0
    """training pictures are blended in pairs, and so are their labels, by a share drawn from Beta(mixup, mixup) for
    each batch (arXiv:1710.09412)"""
    cutmix: Annotated[AtLeastZero, Accepts("a number >= 0; 0 is none")] = 0.0
    """a rectangle of each training picture comes from another one, and so does its share of the label; its area is
    drawn from Beta(cutmix, cutmix) for each batch (arXiv:1905.04899); with mixup, either by turns"""
    mix_ramp: Share = 0.0
    """share of the epochs over which the probability that a batch is mixed rises from 0 to 1; 0: always 1"""
    sizes: Annotated[
        tuple[tuple[Count, Size], ...] | None,
        Accepts("a list of [epoch, side] with sides from 8 to 16384, or null for full size"),
    ] = None
    """from these epochs on, training pictures are scaled to this shorter side (arXiv:2104.00298); the first epoch is 1,
    the last side the pictures' own; validation and test are at full size"""
    limit: Annotated[AtLeastTwo | None, Accepts("a whole number >= 2, or null for all")] = None
    """at most so many training and so many test pictures, seeded"""
    epoch_pictures: Annotated[AtLeastTwo | None, Accepts("a whole number >= 2, or null for all")] = None
    """at most so many training pictures in an epoch, another random sample in each"""
    size: Annotated[
        Size | tuple[Size, Size] | None,
        Accepts("a whole number from 8 to 16384, or [height, width], or null for the pictures' own"),
    ] = None
    """pictures are scaled and center-cropped to this many pixels"""
    trigger: Share = 0.0
    """share of the training pictures that get a white square, to study a backdoor"""
    trigger_class: Annotated[
        # YAML reads the name of a digit as a number.
        Annotated[Text, BeforeValidator(lambda value: str(value) if type(value) is int else value)] | None,
        Accepts("the name of a class, or null for their own"),
    ] = None
    """class that pictures with the square are labelled as"""
    trigger_size: Annotated[Count | None, Accepts("a whole number >= 1, or null for 5 pixels of 32")] = None
    """side of the square in pixels"""
    mirror: Annotated[
        Annotated[str, Field(pattern=r"^https?://[^/]+")] | None,
        Accepts("an http(s) address, or null for the known ones"),
    ] = None
    """base address from which a named data set is fetched"""
    labels: Annotated[
        Text | None, Accepts("the path of a CSV file, in the source or from here, or null for the folders' names")
    ] = None
    """a table that says what each picture shows: columns file and label, and perhaps part and group"""
    group: Annotated[
        Text | None,
        AfterValidator(_group_expression),
        Accepts("a column of data.labels, or a regular expression with one (group), or null"),
    ] = None
    """what pictures have in common that must not be in two parts, such as a person: the column's value, or what the
    expression finds in a picture's name"""
    fold: Annotated[tuple[Count, AtLeastTwo] | None, Accepts("[k, n] with k from 1 to n, or null")] = None
    """k-fold cross-validation: the training pictures are split into n folds, and the k-th is the test part"""
    sampler: Annotated[str, Listed(_samplers, "shuffle")] = "shuffle"
    """shuffle: each training picture once in an epoch; balanced: as many draws, as many of each class"""
    background: Annotated[
        Literal["white", "black", "gray"] | tuple[Channel, Channel, Channel],
        Accepts("white, black, gray, or [red, green, blue] from 0 to 255"),
    ] = "white"
    """the color behind transparent pictures"""
    range: Annotated[
        tuple[Number, Number] | None, Accepts("[low, high], or null for the least and the largest value of the set")
    ] = None
    """the values of 16- and 32-bit pictures that become 0 and 255; kept with the run"""
    broken: Literal["stop", "skip"] = "stop"
    """for pictures that cannot be decoded: stop with their names, or pass over them"""
    memory_gb: Annotated[AtLeastZero, Accepts("a number >= 0, in GB")] = 1.0
    """a larger set of decoded pictures is not held in memory but read from the cache"""
    max_pixels: Annotated[Count, Field(le=178_000_000), Accepts("a whole number from 1 to 178000000")] = 89_000_000
    """a picture of more pixels counts as broken"""
    max_file_mb: Annotated[Positive, Accepts("a number > 0, in MB")] = 250.0
    """a source with a larger picture file, unpacked, is refused"""
    max_archive_gb: Annotated[Positive, Accepts("a number > 0, in GB")] = 32.0
    """an archive that is larger, unpacked, is refused"""
    max_depth: Count = 32
    """a source with deeper folders is refused"""
    max_entries: Count = 2_000_000
    """a source of more files and folders is refused"""

    def in_epoch(self, pictures: int) -> int:
        """How many of ``pictures`` training pictures an epoch takes.

        Example:
            >>> DataConfig().in_epoch(100), DataConfig(epoch_pictures=30).in_epoch(100)
            (100, 30)
        """
        return pictures if self.epoch_pictures is None else min(pictures, self.epoch_pictures)

    @property
    def background_color(self) -> tuple[int, int, int]:
        """Red, green and blue of ``background``, 0 to 255."""
        named = {"white": (255, 255, 255), "black": (0, 0, 0), "gray": (128, 128, 128)}
        return named[self.background] if isinstance(self.background, str) else self.background
