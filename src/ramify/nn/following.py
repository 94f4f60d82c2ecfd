"""How channels go through operations: for each kind of operation the rule by which :mod:`ramify.nn.graph` follows them.

Each element of a value carries the number of the channel that it belongs to, its *label*; 0 is none. What moves
elements moves labels alike, so reshapes, concatenations and attention heads need no rules of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ramify.nn.recording import Operation, flat_tensors

Numbers = npt.NDArray[np.int64]
"""Labels of channels, one after the other."""


class Call(NamedTuple):
    """One use of a convolution or linear layer: the channels that its rows make, and those that its columns read."""

    name: str
    made: Numbers
    read: Numbers


class Slots(NamedTuple):
    """The elements of a parameter or buffer that a value holds: its name, and their flat indices."""

    name: str
    places: Tensor


def distinct_pairs(one: Tensor, other: Tensor) -> Tensor:
    """The pairs of numbers that two tensors of one shape have at the same place, each once, ``[N, 2]`` in their order.

    Most values are the same all over a map; of a dimension along which both are, one place is looked at.

    Example:
        >>> distinct_pairs(torch.tensor([[1, 1], [0, 0]]), torch.tensor([[2, 2], [3, 3]])).tolist()
        [[0, 3], [1, 2]]
    """
    for dim in range(one.dim()):
        first, second = one.narrow(dim, 0, 1), other.narrow(dim, 0, 1)
        if one.numel() and bool((one == first).all()) and bool((other == second).all()):
            one, other = first, second
    if one.numel() == 0:
        return torch.empty(0, 2, dtype=torch.int64)
    base = int(other.max()) + 1
    keys = (one * base + other).unique()
    return torch.stack((keys // base, keys % base), dim=1)


@dataclass
class Trail:
    """What is known of the channels of a network so far.

    Attributes:
        labels, slots: for each value that is alive, by its id.
        axes: the channels along one dimension of a parameter or buffer.
        calls: of layers, in order; without depthwise convolutions, whose names are in ``filters``.
        ties: pairs of channels that can only be removed together; ``sums`` are those that an addition joins.
        gated: channels that are factors of others.
        pins: channels that stay, and why.
        reshaped: labels of values that a reshape gave.
    """

    labels: dict[int, Tensor] = field(default_factory=dict)
    slots: dict[int, Slots] = field(default_factory=dict)
    axes: dict[tuple[str, int], Numbers] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    filters: set[str] = field(default_factory=set)
    ties: list[Numbers] = field(default_factory=list)
    sums: list[Numbers] = field(default_factory=list)
    gated: list[Numbers] = field(default_factory=list)
    pins: list[tuple[Numbers, str]] = field(default_factory=list)
    reshaped: list[Tensor] = field(default_factory=list)
    count: int = 1
    _alive: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, network: nn.Module) -> "Trail":
        """Nothing but where the parameters and buffers of ``network`` lie."""
        trail = cls()
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            trail.slots[id(tensor)] = Slots(name, torch.arange(tensor.numel(), device="cpu").view(tensor.shape))
        return trail

    def follow(self, operation: Operation) -> None:
        """Take note of one operation."""
        self._alive += flat_tensors(operation.output)  # so that no id is given twice
        labeled = [value for value in operation.tensors if id(value) in self.labels]
        rule = RULES.get(operation.name, _pointwise if operation.pointwise else None)
        if labeled or rule in (_convolve, _multiply_linearly):
            if rule is None:
                self.pin(labeled, f"{operation.name}, which ramify does not know")
                for value in flat_tensors(operation.output):
                    self.give(value, torch.zeros(value.shape, dtype=torch.int64, device="cpu"))
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
            moved = operation.on(lambda value: self.slots[id(value)].places.contiguous())
            for value, index in zip(flat_tensors(operation.output), flat_tensors(moved), strict=True):
                self.slots[id(value)] = Slots(first.name, index)

    # Small steps that the rules are made of.

    def give(self, value: object, labels: Tensor) -> None:
        """Label a value."""
        assert isinstance(value, Tensor)
        self.labels[id(value)] = labels.expand(value.shape)

    def of_input(self, value: Tensor) -> Tensor:
        """The labels of a value; zeros where it has none."""
        found = self.labels.get(id(value))
        return torch.zeros(value.shape, dtype=torch.int64, device="cpu") if found is None else found

    def fresh(self, count: int) -> Numbers:
        """Labels of new channels."""
        self.count += count
        return np.arange(self.count - count, self.count)

    def pin(self, values: list[Tensor], reason: str) -> None:
        """Let the channels of values stay."""
        for value in values:
            self.pin_labels(self.of_input(value), reason)

    def pin_labels(self, labels: Tensor, reason: str) -> None:
        self.pins.append((labels.unique().numpy(), reason))

    def tie(self, one: Tensor, other: Tensor) -> Numbers:
        """Let channels be removed together, element by element."""
        pairs: Numbers = distinct_pairs(one, other).numpy()
        both: Numbers = pairs[(pairs > 0).all(axis=1)]
        self.ties.append(both)
        return both

    def tie_all(self, labels: Tensor) -> None:
        """Let all these channels be removed together."""
        found: Numbers = labels.unique().numpy()
        found = found[found > 0]
        self.ties.append(np.stack((found[:-1], found[1:]), axis=1))

    def put(self, tensor: str, dim: int, labels: Numbers) -> None:
        """Note the channels along a dimension of a parameter or buffer; of a layer used twice both are tied."""
        known = self.axes.setdefault((tensor, dim), labels)
        if known is not labels:
            self.tie(torch.from_numpy(known), torch.from_numpy(labels))
            self.pins.append(
                (np.where((known > 0) != (labels > 0), known + labels, 0), f"{tensor}, which is used twice")
            )

    def along(self, labels: Tensor, dim: int, reason: str) -> Numbers:
        """The channels along a dimension; those that are not alike in all the others are pinned."""
        rows = labels.movedim(dim, 0).flatten(1)
        first = rows[:, 0].clone()
        mixed = (rows != first[:, None]).any(dim=1)
        if mixed.any():
            self.pin_labels(rows[mixed], reason)
            first[mixed] = 0
        found: Numbers = first.numpy()
        return found

    def vector(self, value: object, labels: Numbers) -> None:
        """A parameter or buffer with a number for each channel."""
        slots = self.slots.get(id(value))
        if slots is not None:
            self.put(slots.name, 0, labels)


Rule = Callable[[Trail, Operation], None]


def _pass(trail: Trail, operation: Operation) -> None:
    """The output is labeled as the first input, whatever else is read."""
    trail.give(next(flat_tensors(operation.output)), trail.of_input(operation.tensors[0]))


def _move(trail: Trail, operation: Operation) -> None:
    """Labels move as the elements do."""
    moved = operation.on(lambda value: trail.of_input(value).contiguous())
    for value, labels in zip(flat_tensors(operation.output), flat_tensors(moved), strict=True):
        trail.labels[id(value)] = labels
    if operation.name in RESHAPES:
        trail.reshaped += flat_tensors(moved)


def _take(trail: Trail, operation: Operation) -> None:
    """A part of a value, by numbers that would mean others with a channel less before them."""
    labels, dim = trail.of_input(operation.tensors[0]), operation.argument("dim")
    rows = labels.movedim(dim if isinstance(dim, int) else 0, 0).flatten(1)
    if bool((rows == rows[:, :1]).all()) and bool((rows != rows[:1]).any()) and not _takes_all(operation):
        trail.pin_labels(labels, f"{operation.name} of channels")
    _move(trail, operation)


def _takes_all(operation: Operation) -> bool:
    """Whether it is a slice from the first to the last."""
    outputs = list(flat_tensors(operation.output))
    return len(outputs) == 1 and outputs[0].shape == operation.tensors[0].shape


def _chunk(trail: Trail, operation: Operation) -> None:
    """Parts of one size stay so: what stands at one place of all of them is tied."""
    _move(trail, operation)
    first, *others = flat_tensors(operation.output)
    for other in others:
        if other.shape != first.shape:
            trail.pin(operation.tensors, f"{operation.name} into parts that are not of one size")
        else:
            trail.tie(trail.of_input(first), trail.of_input(other))


def _pointwise(trail: Trail, operation: Operation) -> None:
    """What meets in an element is tied; a factor of fewer elements than what it multiplies is a gate."""
    output = operation.output
    assert isinstance(output, Tensor)
    labels = torch.zeros(output.shape, dtype=torch.int64, device="cpu")
    multiplies = operation.name in ("mul", "div")
    for value in operation.tensors:
        if id(value) not in trail.labels:
            continue
        given = trail.labels[id(value)].expand(output.shape)
        pairs = trail.tie(labels, given)
        if not multiplies:
            trail.sums.append(pairs)
        elif value.numel() < output.numel():
            trail.gated.append(trail.labels[id(value)].unique().numpy())
        labels = torch.where(labels > 0, labels, given)
    differing = [dim for dim in range(labels.dim()) if bool((labels != labels.narrow(dim, 0, 1)).any())]
    for value in operation.tensors:
        if id(value) in trail.slots and id(value) not in trail.labels:
            _scale(trail, trail.slots[id(value)], value, labels)
            continue
        sizes = (*[1] * (labels.dim() - value.dim()), *value.shape)
        if any(sizes[dim] > 1 for dim in differing):  # else it is the same for all channels
            trail.pin_labels(
                labels[trail.of_input(value).expand(labels.shape) == 0],
                f"{operation.name} of channels with what is none",
            )
    trail.give(output, labels)


def _scale(trail: Trail, slots: Slots, value: Tensor, labels: Tensor) -> None:
    """A parameter or buffer that meets channels, such as a scale for each."""
    index = slots.places.expand(labels.shape)
    pairs = distinct_pairs(index, labels)
    if value.numel() == 1:
        return
    stride = 1
    for dim in reversed(range(value.dim())):
        size = int(value.shape[dim])
        places = pairs[:, 0] // stride % size
        stride *= size
        found = torch.stack((places, pairs[:, 1]), dim=1).unique(dim=0)
        if size > 1 and len(found) == size:  # the place along this dimension says which channel it is
            trail.put(slots.name, _own_dim(trail, slots, dim, value), found[:, 1].numpy())
            return
    trail.pin_labels(labels, f"{slots.name}, which differs in more than its channels")


def _own_dim(trail: Trail, slots: Slots, dim: int, value: Tensor) -> int:
    """The dimension of the parameter that a dimension of its view is: views by which scales are spread add ones."""
    return sum(1 for size in value.shape[:dim] if size > 1) if value.dim() > 1 else dim


def _rectify(trail: Trail, operation: Operation) -> None:
    """PReLU, with a slope for each channel or one for all."""
    labels, slope = trail.of_input(operation.tensors[0]), operation.tensors[1]
    if slope.numel() > 1:
        trail.vector(slope, trail.along(labels, 1, "prelu over what is no channel"))
    _pass(trail, operation)


def _normalize(trail: Trail, operation: Operation) -> None:
    """Batch norm: each channel by itself, with numbers of its own."""
    labels = trail.of_input(operation.tensor("input"))
    channels = trail.along(labels, 1, "a batch norm over what is no channel")
    for name in ("weight", "bias", "running_mean", "running_var"):
        trail.vector(operation.argument(name), channels)
    trail.give(next(flat_tensors(operation.output)), labels)


def _normalize_together(trail: Trail, operation: Operation) -> None:
    """Layer norm and others: each channel counts for all the others, so all stay."""
    trail.pin(operation.tensors[:1], f"{operation.name}, which reads all channels together")
    _pass(trail, operation)


def _convolve(trail: Trail, operation: Operation) -> None:
    value, groups = operation.tensor("input"), operation.number("groups")
    weight, output = trail.slots.get(id(operation.tensor("weight"))), operation.output
    assert isinstance(output, Tensor)
    rows, columns = operation.tensor("weight").shape[:2]
    if weight is None or not weight.name.endswith("weight") or weight.places.dim() != value.dim():
        trail.pin([value], "a convolution whose weight is no layer's own")
        return
    read = trail.along(trail.of_input(value), 1, "a convolution that reads a channel in part")
    layer = weight.name.rpartition(".")[0]
    made: Numbers
    if groups == 1:
        made = trail.fresh(rows)
        trail.put(weight.name, 1, read)
        trail.calls.append(Call(layer, made, read))
    elif columns == 1:
        trail.filters.add(layer)
        made = read.repeat(rows // groups)
    else:
        made = trail.fresh(rows)
        trail.calls.append(Call(layer, made, read))
        for inside, outside in zip(np.split(read, groups), np.split(made, groups), strict=True):
            trail.tie_all(torch.from_numpy(np.concatenate((inside, outside))))
            if not inside.all():
                trail.pins.append((outside, "a grouped convolution of what is no channel"))
    trail.put(weight.name, 0, made)
    trail.vector(operation.argument("bias"), made)
    trail.give(output, torch.from_numpy(made).view(1, -1, *[1] * (output.dim() - 2)))


def _multiply_linearly(trail: Trail, operation: Operation) -> None:
    value, weight = operation.tensor("input"), trail.slots.get(id(operation.tensor("weight")))
    if weight is None or not weight.name.endswith("weight"):
        trail.pin([value], "a linear layer whose weight is no layer's own")
        return
    read = trail.along(trail.of_input(value), -1, "a linear layer that reads a channel in part")
    made = trail.fresh(len(operation.tensor("weight")))
    trail.put(weight.name, 1, read)
    trail.put(weight.name, 0, made)
    trail.vector(operation.argument("bias"), made)
    trail.calls.append(Call(weight.name.rpartition(".")[0], made, read))
    trail.give(operation.output, torch.from_numpy(made))


def _pool(trail: Trail, operation: Operation) -> None:
    """Poolings and resizings of the map: channels are those of dimension 1."""
    channels = trail.along(trail.of_input(operation.tensors[0]), 1, "a pooling over channels")
    output = next(flat_tensors(operation.output))
    trail.give(output, torch.from_numpy(channels).view(1, -1, *[1] * (output.dim() - 2)))


def _reduce(trail: Trail, operation: Operation) -> None:
    """Means and sums over dimensions along which a channel does not end."""
    value, dims = operation.tensors[0], operation.argument("dim")
    labels = trail.of_input(value)
    listed = [dims] if isinstance(dims, int) else list(dims) if isinstance(dims, list | tuple) else []
    over = [dim for dim in listed if isinstance(dim, int)] or list(range(value.dim()))
    least, most = labels.amin(over, keepdim=True), labels.amax(over, keepdim=True)
    mixed = least != most
    if mixed.any():
        trail.pin_labels(labels[mixed.expand(labels.shape)], f"{operation.name} over channels")
        least = least.masked_fill(mixed, 0)
    output = next(flat_tensors(operation.output))
    trail.give(output, least.reshape(output.shape))


def _softmax(trail: Trail, operation: Operation) -> None:
    labels, dim = trail.of_input(operation.tensors[0]), operation.number("dim")
    if bool((labels != labels.narrow(dim, 0, 1)).any()):
        trail.pin_labels(labels, f"{operation.name} over channels")
    _pass(trail, operation)


def _multiply_matrices(trail: Trail, operation: Operation) -> None:
    """``[..., m, k] x [..., k, n]``: summed over channels, these are tied; summed over tokens, channels go on."""
    left, right = operation.tensors[:2]
    if left.dim() < 3 or left.dim() != right.dim():
        trail.pin([left, right], f"{operation.name} with what is no layer's own weight")
        return
    output = operation.output
    assert isinstance(output, Tensor)
    one, other = trail.of_input(left), trail.of_input(right)
    summed = bool((one != one[..., :1]).any()) or bool((other != other[..., :1, :]).any())
    if summed:
        # The number of channels may set a scale, so a head goes as a whole.
        both = torch.cat((one.transpose(-1, -2).expand(*right.shape[:-1], left.shape[-2]), other), dim=-1)
        heads = both.flatten(-2)
        _tie_rows(trail, heads)
        trail.give(output, heads.amax(dim=-1)[..., None, None])
        return
    rows, columns = one[..., :1].expand(output.shape), other[..., :1, :].expand(output.shape)
    if bool((rows != rows[..., :1, :]).any()):
        trail.pin([left, right], f"{operation.name} of channels with channels")
        return
    trail.tie(rows, columns)
    trail.give(output, torch.where(columns > 0, columns, rows))


def _attend(trail: Trail, operation: Operation) -> None:
    """Attention of ``[..., heads, tokens, channels]``: a head goes as a whole."""
    query, key, value = (trail.of_input(operation.tensor(name)) for name in ("query", "key", "value"))
    if operation.argument("attn_mask") is not None or operation.argument("enable_gqa"):
        trail.pin(operation.tensors, "attention with a mask")
    if query.dim() != 4:
        trail.pin(operation.tensors, "attention without heads")
    _tie_rows(trail, torch.cat([part.flatten(-2) for part in (query, key, value)], dim=-1))
    output = operation.output
    assert isinstance(output, Tensor)
    trail.give(output, value[..., :1, :])


def _tie_rows(trail: Trail, rows: Tensor) -> None:
    """Let the channels of each last dimension be removed together."""
    for row in rows.reshape(-1, rows.shape[-1]).unique(dim=0):
        trail.tie_all(row)


def _pad(trail: Trail, operation: Operation) -> None:
    """Borders belong to the channels that they surround."""
    labels, sizes = trail.of_input(operation.tensors[0]), operation.argument("pad")
    assert isinstance(sizes, list | tuple)
    for place in range(len(sizes) // 2):
        dim, before, after = labels.dim() - 1 - place, sizes[2 * place], sizes[2 * place + 1]
        if (before, after) == (0, 0):
            continue
        if bool((labels != labels.narrow(dim, 0, 1)).any()):
            trail.pin_labels(labels, "a padding of channels")
        index = torch.arange(-before, labels.shape[dim] + after, device="cpu").clamp(0, labels.shape[dim] - 1)
        labels = labels.index_select(dim, index)
    trail.give(operation.output, labels)


_RESHAPES = "view reshape _unsafe_view view_as reshape_as flatten unflatten _reshape_alias"
_TAKES = (
    "slice select narrow split split_with_sizes tensor_split unsafe_split unbind roll flip repeat tile index_select"
)
_CHUNKS = "chunk unsafe_chunk"
_OTHER_MOVES = (
    "permute transpose t numpy_T movedim moveaxis swapaxes swapdims squeeze unsqueeze expand expand_as cat concat "
    "concatenate stack contiguous clone alias detach pixel_shuffle pixel_unshuffle channel_shuffle ravel"
)

RESHAPES = frozenset(_RESHAPES.split())
"""Operations that may divide or join dimensions."""

MOVES = frozenset(f"{_RESHAPES} {_TAKES} {_CHUNKS} {_OTHER_MOVES}".split())
"""Operations that move elements and compute nothing."""

_ALIKE: dict[Rule, str] = {
    _move: f"{_RESHAPES} {_OTHER_MOVES}",
    _take: _TAKES,
    _chunk: _CHUNKS,
    _pass: "dropout feature_dropout alpha_dropout to _to_copy type_as instance_norm",
    _rectify: "prelu _prelu_kernel",
    _normalize: "batch_norm native_batch_norm _native_batch_norm_legit_no_training cudnn_batch_norm",
    _normalize_together: "layer_norm native_layer_norm group_norm rms_norm local_response_norm",
    _convolve: "conv1d conv2d conv3d",
    _multiply_linearly: "linear",
    _pool: "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d upsample_nearest1d upsample_nearest2d upsample_bilinear2d upsample_bicubic2d lp_pool2d",
    _reduce: "mean sum amax amin logsumexp std var",
    _softmax: "softmax log_softmax _softmax",
    _multiply_matrices: "matmul bmm",
    _attend: "scaled_dot_product_attention",
    _pad: "pad constant_pad_nd",
}

RULES: dict[str, Rule] = {name: rule for rule, names in _ALIKE.items() for name in names.split()}
"""The rule for each operation that is no plain function of single elements, by its name in ATen."""
