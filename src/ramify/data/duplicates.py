"""Copies among the pictures of a set: what is in two parts is no test, and what is in two classes is no label."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ramify.data.pictures import Files, Part
from ramify.data.recolor import recolour

HASH_SIDE = 8
_NEAR = 3
"""Bits of 64 in which the hashes of near-duplicates differ at most."""


@dataclass(frozen=True)
class Copy:
    """A picture that is there more than once: the files, and the part and class of each."""

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
    of = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])
    digests = np.ascontiguousarray(files.digests[ids].numpy())
    _, group, count = np.unique(digests.view(f"V{digests.shape[1]}")[:, 0], return_inverse=True, return_counts=True)
    return _named(files, classes, list(parts), ids.numpy(), of, group, count)


def near_copies(files: Files, classes: Sequence[str], parts: dict[str, Part], near: int = _NEAR) -> tuple[Copy, ...]:
    """Pictures in several parts or classes that look alike: whose :func:`looks` differ in ``near`` bits at most.

    Pictures that are alike through others are one group. With 64 bits in ``near + 1`` pieces, two that are alike have
    one piece in common, so that only those with a common piece are compared.
    """
    ids = torch.cat([part.ids for part in parts.values() if part.ids is not None])
    of = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])
    hashes = np.concatenate([looks(part) for part in parts.values()])
    leader = np.arange(len(hashes))

    def lead(at: int) -> int:
        while leader[at] != at:
            leader[at] = leader[leader[at]]
            at = int(leader[at])
        return at

    width = 64 // (near + 1)
    for piece in range(near + 1):
        key = (hashes >> np.uint64(piece * width)) & np.uint64((1 << width) - 1)
        order = np.argsort(key, kind="stable")
        cuts = np.flatnonzero(np.diff(key[order])) + 1
        for same in np.split(order, cuts):
            for place, first in enumerate(same[:-1].tolist()):
                alike = np.bitwise_count(hashes[same[place + 1 :]] ^ hashes[first]) <= near
                for other in same[place + 1 :][alike].tolist():
                    leader[lead(other)] = lead(first)
    roots = np.array([lead(at) for at in range(len(hashes))])
    _, group, count = np.unique(roots, return_inverse=True, return_counts=True)
    return _named(files, classes, list(parts), ids.numpy(), of, group, count)


def looks(part: Part) -> npt.NDArray[np.uint64]:
    """A perceptual hash of each picture, ``[N]``: which of 8 x 8 places are brighter than the one to their right.

    A picture that was scaled, saved again or made gray has nearly the same (the difference hash).
    """
    found = [np.zeros(0, np.uint64)]
    powers = np.uint64(1) << np.arange(HASH_SIDE**2, dtype=np.uint64)
    for some in part.split(512):
        gray = recolour(some.images.cpu(), 1).float()
        small = F.interpolate(gray, (HASH_SIDE, HASH_SIDE + 1), mode="bilinear", antialias=True, align_corners=False)
        bits = (small[..., :-1] > small[..., 1:] + 0.5).flatten(1).numpy().astype(np.uint64)
        found.append((bits * powers).sum(axis=1, dtype=np.uint64))
    return np.concatenate(found)


def _named(
    files: Files,
    classes: Sequence[str],
    parts: Sequence[str],
    ids: npt.NDArray[np.int64],
    of: npt.NDArray[np.int64],
    group: npt.NDArray[np.int64],
    count: npt.NDArray[np.int64],
) -> tuple[Copy, ...]:
    """The groups of two and more pictures, with names, that leak or disagree."""
    labels = files.labels.numpy()
    many = np.flatnonzero(count[group] > 1)
    many = many[np.argsort(group[many], kind="stable")]
    cuts = np.flatnonzero(np.diff(group[many])) + 1
    found = []
    for places in np.split(many, cuts):
        inside = labels[ids[places]]
        if len(places) > 1 and (len(set(of[places].tolist())) > 1 or len(set(inside.tolist())) > 1):
            names = [files.names[i] for i in ids[places].tolist()]
            found.append(
                Copy(
                    tuple(names),
                    tuple(parts[part] for part in of[places].tolist()),
                    tuple(classes[label] for label in inside.tolist()),
                )
            )
    return tuple(sorted(found, key=lambda copy: copy.files))


def copies_line(found: Sequence[Copy], kind: str = "exact copies") -> str | None:
    """What there is to say of copies, in a sentence; None where there are none."""
    leaks, wrong = sum(copy.leaks for copy in found), sum(copy.disagrees for copy in found)
    if not leaks and not wrong:
        return None
    first = next(copy for copy in found if copy.leaks or copy.disagrees)
    said = [f"{leaks:,} in more than one part" if leaks else "", f"{wrong:,} in more than one class" if wrong else ""]
    return f"{kind} of pictures: {', '.join(filter(None, said))}, such as {first.files[0]} and {first.files[1]}"
