"""Channel groups of any network: which channels can only be removed together, and which weights make and read them.

The network runs once while every operation is recorded, and each channel is followed through reshapes, poolings and
additions to the weights that read it. There is no table of layer types. An unknown operation pins the channels that it
reads, and is named.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ramify.errors import InputError
from ramify.nn.channel_rules import ChannelTracker, Labels
from ramify.nn.modes import keeping_modes
from ramify.nn.recording import Operation, OperationRecorder, flat_tensors


class Places(NamedTuple):
    """Rows (dimension 0) or columns (1) of the weight of a layer, or entries of a tensor, by the name of either."""

    name: str
    at: tuple[int, ...]
    dim: int = 0


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can only be removed together.

    Attributes:
        makers: rows of the convolution and linear weights that make them.
        readers: columns of the weights that read them.
        filters: rows of depthwise convolutions that they pass.
        gates: rows of the weights that make factors for them, as in squeeze-and-excitation.
        vectors: entries of biases, batch norms and scales along the way, by the name of the tensor.
        carried: whether a shortcut carries them around a layer, as in a residual stream.
    """

    makers: tuple[Places, ...]
    readers: tuple[Places, ...]
    filters: tuple[Places, ...]
    gates: tuple[Places, ...]
    vectors: tuple[Places, ...]
    carried: bool

    @property
    def space(self) -> tuple[str, ...]:
        """The layers that make them; groups with the same ones lie side by side."""
        return tuple(place.name for place in self.makers)


@dataclass(frozen=True)
class ChannelGraph:
    """All channel groups of a network.

    Attributes:
        groups: in the order in which the network makes them.
        pinned: reasons why channels cannot be removed, and how many channels each keeps.
    """

    groups: tuple[ChannelGroup, ...]
    pinned: Mapping[str, int]


@contextlib.contextmanager
def attention_in_parts() -> Iterator[None]:
    """Without the one fused operation that hides what PyTorch's layers of attention do in evaluation mode."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def channel_graph(
    network: nn.Module, images: Tensor, forward: Callable[[Tensor], object] | None = None, seconds: float = 120.0
) -> ChannelGraph:
    """The channel groups of ``network``, from one run on ``images`` in evaluation mode.

    Args:
        network: ``images -> Tensor``, on any device; it is not changed.
        images: two or more pictures, on its device; their values do not matter.
        forward: what runs in place of the network, and gives all that is read outside of it.
        seconds: how long the run may take.

    Raises:
        InputError: the run takes longer.

    Example:
        >>> own = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(32, 2))
        >>> graph = channel_graph(own, torch.zeros(2, 1, 8, 8))
        >>> [(group.space, group.readers[0].name, len(group.readers[0].at)) for group in graph.groups][3:5]
        [(('0',), '2', 1), (('2',), '4', 16)]
    """
    tracker = ChannelTracker(network)
    deadline, read = time.monotonic() + seconds, 0

    def follow(operation: Operation) -> None:
        nonlocal read
        read += 1
        if time.monotonic() > deadline:
            raise InputError(
                f"network: got one that could not be read in {seconds:g} s ({read} operations, the last "
                f"{operation.name}); accepted: one whose operations can be followed in that time"
            )
        tracker.follow(operation)

    with attention_in_parts(), keeping_modes(network), torch.inference_mode(), OperationRecorder(follow):
        network.eval()
        output = (forward or network)(images)
    reason = "the answers of the network" if forward is None else "what is read outside of the network"
    tracker.pin(list(flat_tensors(output)), reason)
    return _graph(tracker)


def _graph(tracker: ChannelTracker) -> ChannelGraph:
    roots = _roots(tracker)
    fixed = np.zeros(tracker.count, dtype=bool)
    fixed[0] = True
    pinned: dict[str, int] = {}
    torn = [(_torn(roots[labels.numpy()]), "a reshape that tears channels apart") for labels in tracker.reshaped]
    for labels, reason in tracker.pins + torn:
        kept = np.unique(roots[labels[labels > 0]])
        if len(kept):
            pinned[reason] = pinned.get(reason, 0) + len(kept)
        fixed[kept] = True
    made = [root for call in tracker.calls for root in roots[call.made].tolist() if not fixed[root]]
    numbers = np.full(tracker.count, -1)
    for number, root in enumerate(dict.fromkeys(made)):
        numbers[root] = number
    axes = {key: numbers[roots[labels]] for key, labels in tracker.axes.items()}
    carried = {int(numbers[root]) for root in _carried(tracker, roots)}
    return ChannelGraph(_groups(tracker, axes, int(numbers.max()) + 1, carried), pinned)


def _torn(labels: Labels) -> Labels:
    """Channels of a value that no removal of whole slices along its dimensions can remove."""
    whole: set[int] = set()
    for dim in range(1, labels.ndim):
        rows = np.moveaxis(labels, dim, 0).reshape(labels.shape[dim], -1)
        alike = (rows == rows[:, :1]).all(axis=1)
        whole |= set(np.unique(rows[alike])) - set(np.unique(rows[~alike]))
    return np.array(sorted(set(np.unique(labels)) - whole), dtype=np.int64)


def _roots(tracker: ChannelTracker) -> Labels:
    """For each channel the first one of all that are tied to it."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = np.concatenate([np.zeros((0, 2), dtype=np.int64), *tracker.ties])
    links = coo_array((np.ones(len(pairs), dtype=bool), tuple(pairs.T)), shape=(tracker.count, tracker.count))
    tied: Labels = connected_components(links, directed=False)[1]
    _, firsts = np.unique(tied, return_index=True)
    roots: Labels = firsts[tied]
    return roots


def _groups(
    tracker: ChannelTracker, axes: Mapping[tuple[str, int], Labels], count: int, carried: set[int]
) -> tuple[ChannelGroup, ...]:
    gated = np.concatenate([np.zeros(0, dtype=np.int64), *tracker.gated])
    gates = {call.name for call in tracker.calls if np.isin(call.made, gated).all()}
    order = {name: place for place, name in enumerate(dict.fromkeys(call.name for call in tracker.calls))}
    parts: defaultdict[str, defaultdict[int, list[Places]]] = defaultdict(lambda: defaultdict(list))
    for (tensor, dim), numbers in axes.items():
        layer, _, last = tensor.rpartition(".")
        if last != "weight" or layer not in tracker.filters | set(order):
            kind, name = "vectors", tensor
        elif layer in tracker.filters:
            kind, name = "filters", layer
        elif dim == 1:
            kind, name = "readers", layer
        else:
            kind, name = "gates" if layer in gates else "makers", layer
        by_group: defaultdict[int, list[int]] = defaultdict(list)
        for place, number in enumerate(numbers.tolist()):
            if number >= 0:
                by_group[number].append(place)
        for number, at in by_group.items():
            parts[kind][number].append(Places(name, tuple(at), dim))
    groups: list[ChannelGroup] = []
    for number in range(count):
        if not parts["makers"][number]:  # maps that are gates of each other
            parts["makers"][number] = parts["gates"].pop(number, [])
        if not parts["makers"][number]:
            continue
        makers = sorted(parts["makers"][number], key=lambda place: order[place.name])
        readers = sorted(parts["readers"][number], key=lambda place: order[place.name])
        filters, gating, vectors = (tuple(parts[kind][number]) for kind in ("filters", "gates", "vectors"))
        groups.append(ChannelGroup(tuple(makers), tuple(readers), filters, gating, vectors, number in carried))
    return tuple(groups)


def _carried(tracker: ChannelTracker, roots: Labels) -> set[int]:
    """The channels in which an addition joins what a layer makes with what it is made from."""
    maker = np.full(tracker.count, -1)
    makers: defaultdict[int, set[int]] = defaultdict(set)
    for number, call in enumerate(tracker.calls):
        maker[call.made] = number
        for root in np.unique(roots[call.made]).tolist():
            makers[root].add(number)
    before: list[int] = []  # for each call those that it depends on, a bit each
    for number, call in enumerate(tracker.calls):
        bits = 0
        for root in np.unique(roots[call.read]).tolist():
            for earlier in makers[root]:
                if earlier < number:
                    bits |= before[earlier] | 1 << earlier
        before.append(bits)
    carried: set[int] = set()
    for pairs in tracker.sums:
        calls = np.sort(maker[pairs], axis=1)
        for (early, late), root in zip(calls.tolist(), roots[pairs[:, 0]].tolist(), strict=True):
            if early >= 0 and before[late] >> early & 1:
                carried.add(root)
    return carried
