"""Compaction of networks of plain PyTorch layers, with what stands between two convolutions or linear layers."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ramify
from ramify.nn.attach import attach_exits, branches
from ramify.nn.attached import Attached
from ramify.nn.data_form import description, from_description
from ramify.nn.graph import ChannelGroup
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import prune
from tests.ops.pruning.touching import lose


def pictures(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Scaled(nn.Module):
    """A product with a parameter."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Constant(nn.Module):
    """A sum with a tensor that is no parameter or buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.rand(1, 8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


class Gated(nn.Module):
    """A map times a statistic of itself, in either order, or of another map."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.other = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        if self.kind == "mutual":
            other = self.other(x)
            mutual: Tensor = x * other.mean((2, 3), keepdim=True) + other * mean
            return mutual
        return {
            "after": lambda: x * mean.sigmoid(),
            "before": lambda: mean.sigmoid() * x,
            "normed": lambda: (x - mean) / (x.std((2, 3), keepdim=True) + 1e-3),
        }[self.kind]()


class Attention(nn.Module):
    """Heads are taken apart by unflatten, in one of the ways to write it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.split = nn.Unflatten(-1, (4, 2))

    def heads(self, x: Tensor) -> Tensor:
        heads: Tensor
        if self.kind == "module":
            heads = self.split(x)
        elif self.kind == "keywords":
            heads = x.unflatten(dim=-1, sizes=(4, 2))
        elif self.kind == "reshape":
            heads = torch.reshape(x, shape=(x.shape[0], 64, 4, 2))
        else:
            heads = x.unflatten(2, (4, 2) if self.kind == "sizes" else (4, -1))
        return heads

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        query, key, value = (self.heads(layer(x)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(query, key, value)
        given: Tensor = mixed.transpose(1, 2).flatten(2).transpose(1, 2).unflatten(2, (8, 8))
        return given


NORMS = [
    partial(norm, 8, affine=affine, track_running_stats=track)
    for norm in (nn.BatchNorm2d, nn.InstanceNorm2d)
    for affine in (True, False)
    for track in (True, False)
]
BETWEEN: list[Callable[[], nn.Module]] = [
    *(partial(Scaled, *shape) for shape in ((8, 1, 1), (1, 8, 1, 1), (1, 8, 8, 8))),
    Constant,
    *(partial(Gated, kind) for kind in ("after", "before", "normed", "mutual")),
    *NORMS,
    *(partial(Attention, kind) for kind in ("module", "keywords", "reshape", "sizes", "rest")),
]


def attached(between: nn.Module) -> Attached:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), between, nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    module += nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(32, 5))
    return attach_exits(module.eval(), ["3"], example=pictures(1), seed=0)


@pytest.mark.parametrize("make", BETWEEN, ids=lambda make: repr(make).removeprefix("functools."))
def test_half_of_the_channels_go_from_any_network_which_is_kept_then(make: Callable[[], nn.Module]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = attached(make())
    prune(network, 0.9, "magnitude", unit="channel")
    spaces: dict[tuple[str, ...], list[ChannelGroup]] = {}
    for group in network.channel_groups():
        spaces.setdefault(group.space, []).append(group)
    lose(network, [group for groups in spaces.values() for group in groups[1::2]])
    small, receipt = compact(network)
    assert all(after <= before // 2 for before, after in receipt.layers.values())
    assert len(receipt.layers) >= len(spaces)
    assert all(after.macs < before.macs for after, before in zip(receipt.after, receipt.before, strict=True))
    twin = from_description(description(small))
    twin.load_state_dict(small.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(small(pictures()), network(pictures()), rtol=1e-4, atol=1e-5)
        assert torch.equal(twin(pictures()), small(pictures()))
    small.train()(pictures()).sum().backward()


def test_what_stages_to_come_read_stays() -> None:
    def block(reads: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(reads, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))

    network = branches(nn.Identity(), [block(3), block(8), block(8)], example=pictures(1), classes=5).eval()
    assert network.pinned() == {"what is read outside of the network": 8 + 5}
    prune(network, 0.5, "magnitude", unit="channel")
    small, receipt = compact(network)
    assert receipt.layers == {"stages.0.body.net.1.0": (8, 4)}
    while not small.complete:
        ramify.grow(small)
    assert small(pictures()).shape == (3, 4, 5)
    # Once the last stage exists, what its exit alone reads may go.
    assert small.channel_groups()[-1].space == ("stages.2.body.net.2",)


class Projected(nn.Module):
    """A linear step by a weight that is no layer's own, or attention."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.proj_weight, self.kind = nn.Parameter(torch.rand(8, 8)), kind
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        out = self.layer(tokens) if self.kind == "attention" else F.linear(tokens, self.proj_weight)
        mapped: Tensor = out.transpose(1, 2).reshape(x.shape)
        return mapped


@pytest.mark.parametrize("kind", ["linear", "attention"])
def test_channels_that_a_weight_of_no_layer_reads_stay(kind: str) -> None:
    network = attached(Projected(kind))
    prune(network, 0.6, "magnitude", unit="channel")
    small, _ = compact(network)
    assert small.get_parameter("stages.0.body.net.0.weight").shape[0] == 8
    with torch.no_grad():
        torch.testing.assert_close(small(pictures()), network(pictures()), rtol=1e-4, atol=1e-5)
