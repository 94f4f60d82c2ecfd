"""Seeded choices among labeled pictures: a stratified split, folds, and a class-balanced selection."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ramify.data.pictures import Files, Part, PictureSet
from ramify.errors import DataError
from ramify.seeds import derive, generator

Chances = np.ndarray[tuple[int], np.dtype[np.float64]]

# All runs share the test pictures of a source.
TEST_SEED = 0
LIMIT_SEED = 0


def split(
    part: Part,
    fraction: float,
    seed: int,
    *,
    classes: Sequence[str] = (),
    key: str = "data.valid_fraction",
    files: Files | None = None,
) -> tuple[Part, Part]:
    """Hold pictures out of ``part``, of each class alike: (rest, held out), both in the order of ``part``.

    Of a class with n pictures ``round(fraction * n)`` are held out, at least 1 and at most n - 1, by ``seed`` and the
    labels alone.

    With ``files.by_content`` the content of a picture and ``seed`` decide, so that the source can grow without moving a
    picture; the number is then ``fraction * n`` within a half of it. With ``files.groups`` whole groups are held out,
    about ``fraction`` of all pictures.

    Args:
        part: N labeled pictures.
        fraction: in [0, 1).
        seed: a whole number >= 0.
        classes: names of the classes, for an error.
        key: the configuration key of ``fraction``, for an error.
        files: of the set that ``part`` belongs to.

    Raises:
        DataError: ``fraction`` is out of range, a class has a single picture, or there are too few groups.

    Example:
        >>> part = Part(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1, 0, 1]))
        >>> [len(p) for p in split(part, 0.34, seed=0)]
        [4, 2]
    """
    if not 0 <= fraction < 1:
        raise DataError(f"{key}: got {fraction}; accepted: a number in [0, 1)")
    labels = part.labels.cpu()
    held = torch.zeros(len(part), dtype=torch.bool)
    if fraction > 0 and files is not None and files.groups is not None and part.ids is not None:
        held = _held_groups(part.ids, labels, files.groups, fraction, seed, key)
    elif fraction > 0:
        chances = None
        if files is not None and files.by_content and part.ids is not None:
            chances = _chances(files.digests[part.ids], derive(seed, "split", key))
        for label, shuffled in _shuffled_classes(labels, seed, "split"):
            count = len(shuffled)
            if count < 2:
                name = classes[label] if label < len(classes) else label
                raise DataError(
                    f"class {name}: got 1 picture; accepted: at least 2, to hold one out ({key} = {fraction:g})"
                )
            if chances is None:
                held[shuffled[: min(count - 1, max(1, round(fraction * count)))]] = True
            else:
                held[_unlikely(shuffled.sort().values, chances, fraction)] = True
    device = part.labels.device
    return part[(~held).nonzero()[:, 0].to(device)], part[held.nonzero()[:, 0].to(device)]


def with_test(pictures: PictureSet, fraction: float) -> PictureSet:
    """``pictures`` with a test part: its own, or a fixed :func:`split` of the training part."""
    if len(pictures.test):
        return pictures
    rest, held_out = split(
        pictures.train, fraction, TEST_SEED, classes=pictures.classes, key="data.test_fraction", files=pictures.files
    )
    return pictures.replaced(rest, held_out)


def with_fold(pictures: PictureSet, fold: tuple[int, int]) -> PictureSet:
    """``pictures`` with the k-th of n folds of the training part as the test part, ``fold`` being (k, n).

    Each class is split evenly; groups stay whole. The source's own test part is not used.

    Raises:
        DataError: a class has fewer than n pictures, or there are fewer than n groups.
    """
    k, n = fold
    part, files = pictures.train, pictures.files
    assert part.ids is not None, "folds are drawn by the files' contents"
    labels = part.labels.cpu()
    chances = _chances(files.digests[part.ids], derive(TEST_SEED, "fold"))
    if files.groups is not None:
        folds = _folds_of_groups(part.ids, files.groups, n)
    else:
        folds = torch.zeros(len(part), dtype=torch.int64)
        start = 0
        for label in sorted(set(labels.tolist())):
            places = (labels == label).nonzero()[:, 0]
            distinct, ranks = np.unique(chances[places.numpy()], return_inverse=True)  # copies have one rank
            if len(distinct) < n:
                raise DataError(
                    f"class {pictures.classes[label]}: got {len(distinct)} different pictures; accepted: at least {n}, "
                    f"one for each fold (data.fold = [{k}, {n}])"
                )
            folds[places] = (torch.from_numpy(ranks) + start) % n
            start += len(distinct)
    here = folds == k - 1
    return pictures.replaced(part[(~here).nonzero()[:, 0]], part[here.nonzero()[:, 0]])


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
    """Each class in ``labels`` with the places of its pictures, shuffled."""
    for label in sorted(set(labels.tolist())):
        places = (labels == label).nonzero()[:, 0]
        # With a generator of its own, a class does not depend on the number of pictures in others.
        yield label, places[torch.randperm(len(places), generator=generator(seed, purpose, label))]


def _chances(digests: torch.Tensor, seed: int) -> Chances:
    """A number in [0, 1) for each file, from its digest and ``seed`` alone, uint8 ``[N, 16] -> [N]``."""
    values = np.ascontiguousarray(digests.numpy()[:, :8]).view("<u8")[:, 0] ^ np.uint64(seed)
    # The finalizer of splitmix64.
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    chances: Chances = ((values ^ (values >> np.uint64(31))) >> np.uint64(11)) / 2.0**53
    return chances


def _unlikely(places: torch.Tensor, chances: Chances, fraction: float) -> torch.Tensor:
    """The pictures of a class, at ``places``, to hold out: those whose chance is below ``fraction``.

    The number is kept within a half of ``fraction`` of them, or as near as exact copies, which have one chance, allow.
    """
    own = chances[places.numpy()]
    count = len(places)
    least, most = max(1, math.floor(fraction * count / 2)), min(count - 1, math.ceil(1.5 * fraction * count))
    order = np.argsort(own, kind="stable")
    chosen = min(max(int((own < fraction).sum()), least), most)
    cuts = np.flatnonzero(np.diff(own[order])) + 1  # between no copies
    chosen = min(cuts.tolist(), key=lambda cut: abs(cut - chosen), default=chosen)
    return places[torch.from_numpy(order[:chosen])]


def _held_groups(
    ids: torch.Tensor, labels: torch.Tensor, groups: Sequence[str], fraction: float, seed: int, key: str
) -> torch.Tensor:
    """Which pictures belong to the groups that are held out."""
    members: dict[str, list[int]] = {}
    for place, file in enumerate(ids.tolist()):
        members.setdefault(groups[file], []).append(place)
    if len(members) < 2:
        raise DataError(f"data.group: got {len(members)} group; accepted: at least 2, to hold one out ({key})")
    target = fraction * len(ids)
    held = torch.zeros(len(ids), dtype=torch.bool)
    drawn = sorted(members, key=lambda name: derive(seed, "group", key, name))

    def empties_a_class(name: str) -> bool:
        left, taken = torch.bincount(labels[~held]), torch.bincount(labels[members[name]])
        return bool((left[: len(taken)] <= taken)[taken > 0].any())

    for name in drawn:
        done = int(held.sum())
        if done + len(members[name]) - target <= target - done and not empties_a_class(name):
            held[members[name]] = True
    if not held.any():
        by_size = sorted(drawn, key=lambda name: len(members[name]))
        smallest = next((name for name in by_size if not empties_a_class(name)), None)
        if smallest is None:
            raise DataError(
                f"data.group: got groups of which none can be held out ({key}), as each has a class of its own"
            )
        held[members[smallest]] = True
    return held


def _folds_of_groups(ids: torch.Tensor, groups: Sequence[str], n: int) -> torch.Tensor:
    """The fold of each picture: groups, the largest first, each in the fold that has the fewest pictures."""
    names = [groups[i] for i in ids.tolist()]
    counts = Counter(names)
    if len(counts) < n:
        raise DataError(f"data.fold: got {len(counts)} groups; accepted: at least {n}, one for each fold")
    sizes, fold_of = [0] * n, {}
    for name in sorted(counts, key=lambda name: (-counts[name], derive(TEST_SEED, "fold", name))):
        fold_of[name] = sizes.index(min(sizes))
        sizes[fold_of[name]] += counts[name]
    return torch.tensor([fold_of[name] for name in names])


def _even_shares(available: Sequence[int], total: int) -> list[int]:
    """Split ``total`` over classes as evenly as the number ``available`` of each allows."""
    shares = [0] * len(available)
    left = total
    # Small classes first: larger ones get the rest.
    for done, i in enumerate(sorted(range(len(available)), key=lambda i: (available[i], -i))):
        shares[i] = min(available[i], left // (len(available) - done))
        left -= shares[i]
    return shares
