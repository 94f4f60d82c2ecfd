"""The rules by which channels pass through operations, for :mod:`ramify.nn.graph`.

Each element of a tensor carries the number of the channel that it belongs to, its *label*; 0 is none. An operation
that moves elements moves their labels alike, so reshapes, concatenations and attention heads need no rules of their
own.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ramify.nn.recording import Operation, flat_tensors

Labels = npt.NDArray[np.int64]
"""Labels of channels, ``[N]``."""


class Call(NamedTuple):
    """One use of a convolution or linear layer: the channels that its rows make, and those that its columns read."""

    name: str
    made: Labels
    read: Labels


class Slots(NamedTuple):
    """The elements of a parameter or buffer that a tensor holds: its name and shape, and their flat indices."""

    name: str
    shape: torch.Size
    indices: Tensor


def distinct_pairs(one: Tensor, other: Tensor) -> Tensor:
    """The distinct pairs of numbers at the same place of two tensors of one shape, ``[N, 2]``, sorted.

    Example:
        >>> distinct_pairs(torch.tensor([[1, 1], [0, 0]]), torch.tensor([[2, 2], [3, 3]])).tolist()
        [[0, 3], [1, 2]]
    """
    for dim in range(one.dim()):  # most are constant over the map: one place of such a dimension is enough
        first, second = one.narrow(dim, 0, 1), other.narrow(dim, 0, 1)
        if one.numel() and bool((one == first).all()) and bool((other == second).all()):
            one, other = first, second
    if one.numel() == 0:
        return torch.empty(0, 2, dtype=torch.int64)
    base = int(other.max()) + 1
    keys = (one * base + other).unique()
    return torch.stack((keys // base, keys % base), dim=1)


def differ(labels: Tensor, dim: int) -> bool:
    """Whether labels are not the same all along a dimension."""
    return bool((labels != labels.narrow(dim, 0, min(1, labels.shape[dim]))).any())


class ChannelTracker:
    """The channels of ``network`` as they are known while its operations are recorded.

    Attributes:
        labels, slots: of each tensor that is alive, by its id.
        axes: the channels along one dimension of a parameter or buffer.
        calls: of layers, in order; without depthwise convolutions, whose names are in ``filters``.
        ties: pairs of channels that can only be removed together; ``sums`` are those that an addition joins.
        gated: channels that are factors of others.
        pins: channels that cannot be removed, and the reason.
        reshaped: labels of the outputs of reshapes.
        count: of channels, with 0.
    """

    def __init__(self, network: nn.Module) -> None:
        self.labels: dict[int, Tensor] = {}
        self.slots: dict[int, Slots] = {}
        self.axes: dict[tuple[str, int], Labels] = {}
        self.calls: list[Call] = []
        self.filters: set[str] = set()
        self.ties: list[Labels] = []
        self.sums: list[Labels] = []
        self.gated: list[Labels] = []
        self.pins: list[tuple[Labels, str]] = []
        self.reshaped: list[Tensor] = []
        self.count = 1
        self._alive: list[Tensor] = []  # no id is used twice
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            indices = torch.arange(tensor.numel(), device="cpu").view(tensor.shape)
            self.slots[id(tensor)] = Slots(name, tensor.shape, indices)

    def follow(self, operation: Operation) -> None:
        """Label the output of one operation."""
        self._alive += flat_tensors(operation.output)
        labeled = [value for value in operation.tensors if id(value) in self.labels]
        rule = RULES.get(operation.name, _pointwise if operation.pointwise else None)
        if labeled or rule is _apply_layer:
            if rule is None:
                self.pin(labeled, f"{operation.name}, which ramify does not know")
                for value in flat_tensors(operation.output):
                    self.label(value, torch.zeros(value.shape, dtype=torch.int64, device="cpu"))
            else:
                rule(self, operation)
        elif operation.tensors and all(id(value) in self.slots for value in operation.tensors):
            self._follow_slots(operation)

    def _follow_slots(self, operation: Operation) -> None:
        """A view of a parameter, or its product with its mask, holds elements of that parameter."""
        first = self.slots[id(operation.tensors[0])]
        if operation.name == "mul" and len({value.shape for value in operation.tensors}) == 1:
            self.slots[id(operation.output)] = first
        elif operation.name in MOVES and len(operation.tensors) == 1:
            moved = operation.on(lambda value: self.slots[id(value)].indices.contiguous())
            for value, index in zip(flat_tensors(operation.output), flat_tensors(moved), strict=True):
                self.slots[id(value)] = first._replace(indices=index)

    def label(self, value: Tensor, labels: Tensor) -> None:
        """Label a tensor."""
        self.labels[id(value)] = labels.expand(value.shape)

    def labels_of(self, value: Tensor) -> Tensor:
        """The labels of a tensor; zeros where it has none."""
        labels = self.labels.get(id(value))
        return torch.zeros(value.shape, dtype=torch.int64, device="cpu") if labels is None else labels

    def new_labels(self, count: int) -> Labels:
        """Labels of ``count`` new channels."""
        self.count += count
        return np.arange(self.count - count, self.count)

    def pin(self, values: list[Tensor], reason: str) -> None:
        """Keep the channels of tensors from being removed."""
        for value in values:
            self.pin_labels(self.labels_of(value), reason)

    def pin_labels(self, labels: Tensor, reason: str) -> None:
        self.pins.append((labels.unique().numpy(), reason))

    def tie(self, one: Tensor, other: Tensor) -> Labels:
        """Tie channels element by element, and give the pairs."""
        pairs: Labels = distinct_pairs(one, other).numpy()
        both: Labels = pairs[(pairs > 0).all(axis=1)]
        self.ties.append(both)
        return both

    def tie_all(self, labels: Tensor) -> None:
        """Tie all these channels."""
        distinct: Labels = labels.unique().numpy()
        distinct = distinct[distinct > 0]
        self.ties.append(np.stack((distinct[:-1], distinct[1:]), axis=1))

    def put(self, tensor: str, dim: int, labels: Labels) -> None:
        """Set the channels along a dimension of a parameter or buffer; those of a layer that is used twice are tied."""
        known = self.axes.setdefault((tensor, dim), labels)
        if known is not labels:
            self.tie(torch.from_numpy(known), torch.from_numpy(labels))
            one_alone = np.where((known > 0) != (labels > 0), known + labels, 0)
            self.pins.append((one_alone, f"{tensor}, which is used twice"))

    def along(self, labels: Tensor, dim: int, reason: str) -> Labels:
        """The channels along a dimension; those that are not alike in all the others are pinned."""
        rows = labels.movedim(dim, 0).flatten(1)
        first = rows[:, 0].clone()
        mixed = (rows != first[:, None]).any(dim=1)
        if mixed.any():
            self.pin_labels(rows[mixed], reason)
            first[mixed] = 0
        channels: Labels = first.numpy()
        return channels

    def vector(self, value: object, labels: Labels) -> None:
        """Set the channels of a parameter or buffer with a number for each."""
        slots = self.slots.get(id(value))
        if slots is not None and slots.shape == slots.indices.shape:
            self.put(slots.name, 0, labels)
        elif slots is not None:
            self.pin_labels(torch.from_numpy(labels), f"{slots.name}, of which a view has a number for each")

    def own_weight(self, operation: Operation) -> Slots | None:
        """The parameter that is the weight of a layer; None where it is computed from others."""
        slots = self.slots.get(id(operation.tensor("weight")))
        return slots if slots is not None and slots.name.rpartition(".")[2] == "weight" else None


Rule = Callable[[ChannelTracker, Operation], None]


def _pass(tracker: ChannelTracker, operation: Operation) -> None:
    """The output is labeled as the first input."""
    tracker.label(operation.result, tracker.labels_of(operation.tensors[0]))


def _move(tracker: ChannelTracker, operation: Operation) -> None:
    """Labels move as the elements do."""
    moved = operation.on(lambda value: tracker.labels_of(value).contiguous())
    for value, labels in zip(flat_tensors(operation.output), flat_tensors(moved), strict=True):
        tracker.labels[id(value)] = labels
    if operation.name in RESHAPES:
        tracker.reshaped += flat_tensors(moved)


def _take(tracker: ChannelTracker, operation: Operation) -> None:
    """A part of a tensor, by numbers that would mean others once a channel before them is gone."""
    labels, dim = tracker.labels_of(operation.tensors[0]), operation.argument("dim")
    rows = labels.movedim(dim if isinstance(dim, int) else 0, 0).flatten(1)
    outputs = list(flat_tensors(operation.output))
    whole = len(outputs) == 1 and outputs[0].shape == operation.tensors[0].shape  # a slice from first to last
    if not differ(rows, 1) and differ(rows, 0) and not whole:
        tracker.pin_labels(labels, f"{operation.name} of channels")
    _move(tracker, operation)


def _chunk(tracker: ChannelTracker, operation: Operation) -> None:
    """Parts of one size stay of one size: the same place of all of them is tied."""
    _move(tracker, operation)
    first, *others = flat_tensors(operation.output)
    for other in others:
        if other.shape != first.shape:
            tracker.pin(operation.tensors, f"{operation.name} into parts that are not of one size")
        else:
            tracker.tie(tracker.labels_of(first), tracker.labels_of(other))


def _pointwise(tracker: ChannelTracker, operation: Operation) -> None:
    """What meets in an element is tied; a factor of fewer elements than what it multiplies is a gate."""
    output = operation.result
    labels = torch.zeros(output.shape, dtype=torch.int64, device="cpu")
    for value in operation.tensors:
        if id(value) not in tracker.labels:
            continue
        spread = tracker.labels[id(value)].expand(output.shape)
        pairs = tracker.tie(labels, spread)
        if operation.name not in ("mul", "div"):
            tracker.sums.append(pairs)
        else:  # a statistic of a map by which that map is scaled has its channels, and is no gate
            others = pairs[pairs[:, 0] != pairs[:, 1]]
            factors = zip(operation.tensors, others.T, strict=False)
            tracker.gated += [column for factor, column in factors if factor.numel() < output.numel()]
        labels = torch.where(labels > 0, labels, spread)
    differing = [dim for dim in range(labels.dim()) if differ(labels, dim)]
    for value in operation.tensors:
        if id(value) in tracker.slots and id(value) not in tracker.labels:
            _scale(tracker, tracker.slots[id(value)], value, labels)
            continue
        sizes = (*[1] * (labels.dim() - value.dim()), *value.shape)
        if any(sizes[dim] > 1 for dim in differing):  # else it is the same for all channels
            unlabeled = tracker.labels_of(value).expand(labels.shape) == 0
            tracker.pin_labels(labels[unlabeled], f"{operation.name} of channels with what is none")
    tracker.label(output, labels)


def _scale(tracker: ChannelTracker, slots: Slots, value: Tensor, labels: Tensor) -> None:
    """A parameter or buffer that meets channels, such as a scale for each."""
    pairs = distinct_pairs(slots.indices.expand(labels.shape), labels)
    if value.numel() == 1:
        return
    stride = 1
    for dim, size in reversed([*enumerate(slots.shape)]):
        places = pairs[:, 0] // stride % size
        stride *= size
        distinct = torch.stack((places, pairs[:, 1]), dim=1).unique(dim=0)
        if size > 1 and torch.equal(distinct[:, 0], torch.arange(size, device="cpu")):  # places say the channel
            tracker.put(slots.name, dim, distinct[:, 1].numpy())
            return
    tracker.pin_labels(labels, f"{slots.name}, which differs in more than its channels")


def _prelu(tracker: ChannelTracker, operation: Operation) -> None:
    """A slope for each channel, or one for all."""
    labels, slope = tracker.labels_of(operation.tensors[0]), operation.tensors[1]
    if slope.numel() > 1:
        tracker.vector(slope, tracker.along(labels, 1, "prelu over what is no channel"))
    _pass(tracker, operation)


def _batch_norm(tracker: ChannelTracker, operation: Operation) -> None:
    """Each channel by itself, with numbers of its own."""
    labels = tracker.labels_of(operation.tensor("input"))
    channels = tracker.along(labels, 1, "a batch norm over what is no channel")
    for name in ("weight", "bias", "running_mean", "running_var"):
        tracker.vector(operation.argument(name), channels)
    tracker.label(operation.result, labels)


def _normalize_together(tracker: ChannelTracker, operation: Operation) -> None:
    """Layer norm and others: each channel counts for all the others, so all stay."""
    tracker.pin(operation.tensors[:1], f"{operation.name}, which reads all channels together")
    _pass(tracker, operation)


def _apply_layer(tracker: ChannelTracker, operation: Operation) -> None:
    """A convolution, or a linear layer, whose channels are those of the last dimension."""
    value, weight, linear = operation.tensor("input"), tracker.own_weight(operation), operation.name == "linear"
    kind, groups = ("a linear layer", 1) if linear else ("a convolution", operation.number("groups"))
    rows = len(operation.tensor("weight"))
    if weight is None or not (linear or weight.indices.dim() == value.dim()):
        tracker.pin([value], f"{kind} whose weight is no layer's own")
        return
    read = tracker.along(tracker.labels_of(value), -1 if linear else 1, f"{kind} that reads a channel in part")
    layer = weight.name.rpartition(".")[0]
    made: Labels
    if groups == 1:
        made = tracker.new_labels(rows)
        tracker.put(weight.name, 1, read)
        tracker.calls.append(Call(layer, made, read))
    elif operation.tensor("weight").shape[1] == 1:
        tracker.filters.add(layer)
        made = read.repeat(rows // groups)
    else:
        made = tracker.new_labels(rows)
        tracker.calls.append(Call(layer, made, read))
        for inside, outside in zip(np.split(read, groups), np.split(made, groups), strict=True):
            tracker.tie_all(torch.from_numpy(np.concatenate((inside, outside))))
            if not inside.all():
                tracker.pins.append((outside, "a grouped convolution of what is no channel"))
    tracker.put(weight.name, 0, made)
    tracker.vector(operation.argument("bias"), made)
    _label_channels(tracker, operation.result, made, -1 if linear else 1)


def _label_channels(tracker: ChannelTracker, output: Tensor, channels: Labels, dim: int) -> None:
    """Label a tensor by its channels along a dimension."""
    behind = output.dim() - 1 - dim % output.dim()
    tracker.label(output, torch.from_numpy(channels).view(-1, *[1] * behind))


def _pool(tracker: ChannelTracker, operation: Operation) -> None:
    """Poolings and resizings of the map: channels are those of dimension 1."""
    channels = tracker.along(tracker.labels_of(operation.tensors[0]), 1, "a pooling over channels")
    _label_channels(tracker, operation.result, channels, 1)


def _reduce(tracker: ChannelTracker, operation: Operation) -> None:
    """Means and sums over dimensions along which a channel does not end."""
    value, dims = operation.tensors[0], operation.argument("dim")
    labels = tracker.labels_of(value)
    listed = [dims] if isinstance(dims, int) else list(dims) if isinstance(dims, list | tuple) else []
    over = [dim for dim in listed if isinstance(dim, int)] or list(range(value.dim()))
    least, most = labels.amin(over, keepdim=True), labels.amax(over, keepdim=True)
    mixed = least != most
    if mixed.any():
        tracker.pin_labels(labels[mixed.expand(labels.shape)], f"{operation.name} over channels")
        least = least.masked_fill(mixed, 0)
    tracker.label(operation.result, least.reshape(operation.result.shape))


def _softmax(tracker: ChannelTracker, operation: Operation) -> None:
    labels = tracker.labels_of(operation.tensors[0])
    if differ(labels, operation.number("dim")):
        tracker.pin_labels(labels, f"{operation.name} over channels")
    _pass(tracker, operation)


def _multiply_matrices(tracker: ChannelTracker, operation: Operation) -> None:
    """``[..., m, k] x [..., k, n]``: channels that are summed over are tied; summed over tokens, channels go on."""
    left, right = operation.tensors[:2]
    if left.dim() < 3 or left.dim() != right.dim():
        tracker.pin([left, right], f"{operation.name} with what is no layer's own weight")
        return
    output, one, other = operation.result, tracker.labels_of(left), tracker.labels_of(right)
    if differ(one, -1) or differ(other, -2):
        # The number of channels may set a scale, so a head goes as a whole.
        both = torch.cat((one.transpose(-1, -2).expand(*right.shape[:-1], left.shape[-2]), other), dim=-1)
        heads = both.flatten(-2)
        _tie_rows(tracker, heads)
        tracker.label(output, heads.amax(dim=-1)[..., None, None])
        return
    rows, columns = one[..., :1].expand(output.shape), other[..., :1, :].expand(output.shape)
    if differ(rows, -2):
        tracker.pin([left, right], f"{operation.name} of channels with channels")
        return
    tracker.tie(rows, columns)
    tracker.label(output, torch.where(columns > 0, columns, rows))


def _attend(tracker: ChannelTracker, operation: Operation) -> None:
    """Attention of ``[..., heads, tokens, channels]``: a head goes as a whole."""
    query, key, value = (tracker.labels_of(operation.tensor(name)) for name in ("query", "key", "value"))
    if operation.argument("attn_mask") is not None or operation.argument("enable_gqa"):
        tracker.pin(operation.tensors, "attention with a mask")
    if query.dim() != 4:
        tracker.pin(operation.tensors, "attention without heads")
    _tie_rows(tracker, torch.cat([part.flatten(-2) for part in (query, key, value)], dim=-1))
    tracker.label(operation.result, value[..., :1, :])


def _tie_rows(tracker: ChannelTracker, rows: Tensor) -> None:
    """Tie the channels of each last dimension."""
    for row in rows.reshape(-1, rows.shape[-1]).unique(dim=0):
        tracker.tie_all(row)


def _pad(tracker: ChannelTracker, operation: Operation) -> None:
    """Borders belong to the channels that they surround."""
    labels, sizes = tracker.labels_of(operation.tensors[0]), operation.argument("pad")
    assert isinstance(sizes, list | tuple)
    for place in range(len(sizes) // 2):
        dim, before, after = labels.dim() - 1 - place, sizes[2 * place], sizes[2 * place + 1]
        if (before, after) == (0, 0):
            continue
        if differ(labels, dim):
            tracker.pin_labels(labels, "a padding of channels")
        index = torch.arange(-before, labels.shape[dim] + after, device="cpu").clamp(0, labels.shape[dim] - 1)
        labels = labels.index_select(dim, index)
    tracker.label(operation.result, labels)


_RESHAPES = "view reshape _unsafe_view view_as reshape_as flatten unflatten _reshape_alias"
_TAKES = (
    "slice select narrow split split_with_sizes tensor_split unsafe_split unbind roll flip repeat tile index_select"
)
_CHUNKS = "chunk unsafe_chunk"
_OTHER_MOVES = (
    "permute transpose t numpy_T movedim moveaxis swapaxes swapdims squeeze unsqueeze expand expand_as cat concat "
    "concatenate stack contiguous clone alias detach pixel_shuffle pixel_unshuffle channel_shuffle ravel"
)

RESHAPES = frozenset(_RESHAPES.split())  # they may divide or join dimensions
MOVES = frozenset(f"{_RESHAPES} {_TAKES} {_CHUNKS} {_OTHER_MOVES}".split())

_NAMES: dict[Rule, str] = {
    _move: f"{_RESHAPES} {_OTHER_MOVES}",
    _take: _TAKES,
    _chunk: _CHUNKS,
    _pass: "dropout feature_dropout alpha_dropout to _to_copy type_as",
    _prelu: "prelu _prelu_kernel",
    _batch_norm: "batch_norm instance_norm native_batch_norm _native_batch_norm_legit_no_training cudnn_batch_norm",
    _normalize_together: "layer_norm native_layer_norm group_norm rms_norm local_response_norm",
    _apply_layer: "conv1d conv2d conv3d linear",
    _pool: "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d upsample_nearest1d upsample_nearest2d upsample_bilinear2d upsample_bicubic2d lp_pool2d",
    _reduce: "mean sum amax amin logsumexp std var",
    _softmax: "softmax log_softmax _softmax",
    _multiply_matrices: "matmul bmm",
    _attend: "scaled_dot_product_attention",
    _pad: "pad constant_pad_nd",
}

RULES: dict[str, Rule] = {name: rule for rule, names in _NAMES.items() for name in names.split()}
"""The rule for each operation that is no plain function of single elements, by its name in ATen."""
