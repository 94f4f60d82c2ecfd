"""Copies among the pictures of a set: between parts they leak, between classes they disagree."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ramify.data.pictures import Files, Part
from ramify.data.recolor import recolor

HASH_SIDE = 8
_NEAR = 3
"""Bits of 64 in which the hashes of near-duplicates differ at most."""


@dataclass(frozen=True)
class Copy:
    """Copies of a picture: the files, and the part and class of each."""

    files: tuple[str, ...]
    parts: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def leaks(self) -> bool:
        """Whether it is in more than one part."""
        return len(set(self.parts)) > 1

    @property
    def disagrees(self) -> bool:
        """Whether it is in more than one class."""
        return len(set(self.classes)) > 1


def copies(files: Files, classes: Sequence[str], parts: dict[str, Part]) -> tuple[Copy, ...]:
    """Exact copies, by the digests of the files, that are in several of ``parts`` or in several classes."""
    ids = torch.cat([part.ids for part in parts.values() if part.ids is not None])
    digests = np.ascontiguousarray(files.digests[ids].numpy())
    return _copies_in(files, classes, parts, digests.view(f"V{digests.shape[1]}")[:, 0])


def near_copies(files: Files, classes: Sequence[str], parts: dict[str, Part], near: int = _NEAR) -> tuple[Copy, ...]:
    """Pictures in several parts or classes whose :func:`difference_hash` differs in ``near`` bits at most.

    Pictures that are alike through others are one group. Of ``near + 1`` pieces of the 64 bits, two alike pictures have
    one in common, so that only those with a common piece are compared.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    hashes = np.concatenate([difference_hash(part) for part in parts.values()])
    pairs: list[tuple[int, int]] = []
    width = 64 // (near + 1)
    for piece in range(near + 1):
        key = (hashes >> np.uint64(piece * width)) & np.uint64((1 << width) - 1)
        order = np.argsort(key, kind="stable")
        cuts = np.flatnonzero(np.diff(key[order])) + 1
        for same in np.split(order, cuts):
            for place, first in enumerate(same[:-1].tolist()):
                alike = np.bitwise_count(hashes[same[place + 1 :]] ^ hashes[first]) <= near
                pairs += [(first, other) for other in same[place + 1 :][alike].tolist()]
    one, other_one = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    links = coo_array((np.ones(len(pairs), dtype=bool), (one, other_one)), shape=(len(hashes), len(hashes)))
    return _copies_in(files, classes, parts, connected_components(links, directed=False)[1])


def difference_hash(part: Part) -> npt.NDArray[np.uint64]:
    """The difference hash of each picture, ``[N]``: which of 8 x 8 places are brighter than the one to their right.

    A picture that was scaled, saved again or made gray has nearly the same.
    """
    hashes = [np.zeros(0, np.uint64)]
    powers = np.uint64(1) << np.arange(HASH_SIDE**2, dtype=np.uint64)
    for chunk in part.split(512):
        gray = recolor(chunk.images.cpu(), 1).float()
        small = F.interpolate(gray, (HASH_SIDE, HASH_SIDE + 1), mode="bilinear", antialias=True, align_corners=False)
        bits = (small[..., :-1] > small[..., 1:] + 0.5).flatten(1).numpy().astype(np.uint64)
        hashes.append((bits * powers).sum(axis=1, dtype=np.uint64))
    return np.concatenate(hashes)


def _copies_in(
    files: Files, classes: Sequence[str], parts: dict[str, Part], keys: np.ndarray[tuple[int], np.dtype[np.generic]]
) -> tuple[Copy, ...]:
    """The pictures with equal keys that leak or disagree."""
    ids = torch.cat([part.ids for part in parts.values() if part.ids is not None]).tolist()
    part_names = [name for name, part in parts.items() for _ in range(len(part))]
    labels = files.labels.tolist()
    _, group, count = np.unique(keys, return_inverse=True, return_counts=True)
    places_of: dict[int, list[int]] = {}
    for place in np.flatnonzero(count[group] > 1).tolist():
        places_of.setdefault(int(group[place]), []).append(place)
    groups = (
        Copy(
            tuple(files.names[ids[place]] for place in places),
            tuple(part_names[place] for place in places),
            tuple(classes[labels[ids[place]]] for place in places),
        )
        for places in places_of.values()
    )
    return tuple(sorted((copy for copy in groups if copy.leaks or copy.disagrees), key=lambda copy: copy.files))


def copies_line(copies: Sequence[Copy], kind: str = "exact copies") -> str | None:
    """A sentence about copies; None where there are none."""
    leaks, wrong = sum(copy.leaks for copy in copies), sum(copy.disagrees for copy in copies)
    if not leaks and not wrong:
        return None
    first = next(copy for copy in copies if copy.leaks or copy.disagrees)
    counts = [f"{leaks:,} in more than one part" if leaks else "", f"{wrong:,} in more than one class" if wrong else ""]
    return f"{kind} of pictures: {', '.join(filter(None, counts))}, such as {first.files[0]} and {first.files[1]}"
