"""Seeded choices among labelled pictures: a stratified split, and a class-balanced selection."""

from collections.abc import Iterator, Sequence

import torch

from ramify.data.pictures import Part, PictureSet
from ramify.errors import DataError
from ramify.seeds import generator

# Every run that shares a source shares its test pictures, whatever its own seed.
TEST_SEED = 0
LIMIT_SEED = 0


def split(
    part: Part,
    fraction: float,
    seed: int,
    *,
    classes: Sequence[str] = (),
    key: str = "data.valid_fraction",
) -> tuple[Part, Part]:
    """Hold pictures out of ``part``, of each class alike: (rest, held out).

    Of a class with n pictures ``round(fraction * n)`` are held out, at least 1 and at most n - 1. Both
    parts keep the order of ``part``. The choice depends on ``seed`` and the labels alone.

    Args:
        part: N labelled pictures.
        fraction: in [0, 1); with 0 nothing is held out.
        seed: a whole number >= 0.
        classes: names of the classes, for the error's sentence.
        key: the configuration key that ``fraction`` comes from, for the error's sentence.

    Raises:
        DataError: ``fraction`` is out of range, or a class has a single picture.

    Example:
        >>> part = Part(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1, 0, 1]))
        >>> [len(p) for p in split(part, 0.34, seed=0)]
        [4, 2]
    """
    if not 0 <= fraction < 1:
        raise DataError(f"{key}: got {fraction}; accepted: a number in [0, 1)")
    labels = part.labels.cpu()
    held = torch.zeros(len(part), dtype=torch.bool)
    if fraction > 0:
        for label, shuffled in _shuffled_classes(labels, seed, "split"):
            count = len(shuffled)
            if count < 2:
                name = classes[label] if label < len(classes) else label
                raise DataError(
                    f"class {name}: got 1 picture; accepted: at least 2, to hold one out ({key} = {fraction:g})"
                )
            held[shuffled[: min(count - 1, max(1, round(fraction * count)))]] = True
    device = part.labels.device
    return part[(~held).nonzero()[:, 0].to(device)], part[held.nonzero()[:, 0].to(device)]


def with_test(pictures: PictureSet, fraction: float) -> PictureSet:
    """``pictures`` with a test part: its own, or where that is empty a fixed split of the training part.

    Raises:
        DataError: a class has a single picture.
    """
    if len(pictures.test):
        return pictures
    rest, held_out = split(pictures.train, fraction, TEST_SEED, classes=pictures.classes, key="data.test_fraction")
    return PictureSet(rest, held_out, pictures.classes)


def take(part: Part, limit: int, classes: Sequence[str]) -> Part:
    """At most ``limit`` pictures of ``part``, as evenly over the classes as they have pictures.

    The choice is the same in every run, keeps the order of ``part``, and a larger limit only adds to it.

    Raises:
        DataError: ``limit`` is less than the number of classes.

    Example:
        >>> part = Part(torch.zeros(9, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1]))
        >>> take(part, 4, ("a", "b")).labels.tolist()
        [0, 0, 1, 1]
    """
    if limit < len(classes):
        raise DataError(f"data.limit: got {limit}; accepted: at least {len(classes)}, one picture of each class")
    if limit >= len(part):
        return part
    labels = part.labels.cpu()
    shuffled = [index for _, index in _shuffled_classes(labels, LIMIT_SEED, "limit")]
    quotas = _even_shares([len(index) for index in shuffled], limit)
    chosen = torch.cat([index[:quota] for index, quota in zip(shuffled, quotas, strict=True)])
    return part[chosen.sort().values.to(part.labels.device)]


def _shuffled_classes(labels: torch.Tensor, seed: int, purpose: str) -> Iterator[tuple[int, torch.Tensor]]:
    """Each class that occurs in ``labels`` with the places of its pictures, shuffled."""
    for label in sorted(set(labels.tolist())):
        places = (labels == label).nonzero()[:, 0]
        # A generator for each class: its choice does not move when another class gains a picture.
        yield label, places[torch.randperm(len(places), generator=generator(seed, purpose, label))]


def _even_shares(available: Sequence[int], total: int) -> list[int]:
    """Deal ``total`` out over classes as evenly as what each has allows; earlier classes get the odd ones."""
    shares = [0] * len(available)
    left = total
    # Small classes first: what they cannot use goes to the larger ones.
    for done, i in enumerate(sorted(range(len(available)), key=lambda i: (available[i], -i))):
        shares[i] = min(available[i], left // (len(available) - done))
        left -= shares[i]
    return shares
