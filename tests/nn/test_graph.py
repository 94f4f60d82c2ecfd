"""Channel groups, proved by brute force on networks of plain PyTorch layers: nothing but its readers reads a group."""

import copy
from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.errors import InputError
from ramify.nn.graph import ChannelGraph, ChannelGroup, channel_graph
from tests.nn.foreign import FOREIGN, foreign, pictures

Part = tuple[str, int, int]
"""A row, column or entry: a tensor's name, a dimension, and the place along it."""

every_foreign = pytest.mark.parametrize("name", list(FOREIGN))
ANSWERS = {"the answers of the network": 3}

GROUPS: dict[str, dict[tuple[str, ...], tuple[int, str]]] = {
    # By the layers that make them: how many groups, and the layers that read each.
    "residual": {
        ("stem.0", "layers.0.conv2"): (4, "layers.0.conv1 layers.1.downsample.0 layers.1.conv1"),
        ("layers.0.conv1",): (4, "layers.0.conv2"),
        ("layers.1.downsample.0", "layers.1.conv2", "layers.2.conv2"): (5, "layers.2.conv1 fc"),
        ("layers.1.conv1",): (5, "layers.1.conv2"),
        ("layers.2.conv1",): (5, "layers.2.conv2"),
    },
    "dense": {
        ("stem",): (4, "convs.0 convs.1 convs.2 transition.2"),
        ("convs.0",): (3, "convs.1 convs.2 transition.2"),
        ("convs.1",): (3, "convs.2 transition.2"),
        ("convs.2",): (3, "transition.2"),
        ("transition.2",): (6, "classifier"),
    },
    "mobilenet": {
        ("features.0", "features.2.project.0"): (4, "features.2.expand.0 features.3.expand.0"),
        ("features.2.expand.0",): (6, "features.2.gate.1 features.2.project.0"),
        ("features.2.gate.1",): (2, "features.2.gate.3"),
        ("features.3.expand.0",): (7, "features.3.gate.1 features.3.project.0"),
        ("features.3.gate.1",): (2, "features.3.gate.3"),
        ("features.3.project.0",): (5, "features.4"),
        ("features.4",): (8, "classifier.0"),
        ("classifier.0",): (6, "classifier.3"),
    },
    "vgg": {
        ("features.0",): (4, "features.3"),
        ("features.3",): (5, "features.6"),
        ("features.6",): (4, "head.0"),
        ("head.0",): (7, "head.3"),
    },
    "vit": {
        ("blocks.0.attn.qkv",): (2, "blocks.0.attn.proj"),
        ("blocks.0.mlp.0",): (6, "blocks.0.mlp.2"),
        ("blocks.1.attn.qkv",): (2, "blocks.1.attn.proj"),
        ("blocks.1.mlp.0",): (6, "blocks.1.mlp.2"),
    },
    "reused": {("stem", "refine"): (4, "refine branch"), ("branch",): (5, "hidden"), ("hidden",): (6, "head")},
}

PINNED = {
    # What keeps the others: only the stream of tokens stays, which layer norms read together.
    "vit": {
        "positions, which differs in more than its channels",
        "layer_norm, which reads all channels together",
        "a linear layer that reads a channel in part",
        "add of channels with what is none",
        *ANSWERS,
    }
}


def graph_of(network: nn.Module) -> ChannelGraph:
    return channel_graph(network, pictures())


def made(group: ChannelGroup) -> list[Part]:
    """All that belongs to a group but what reads it."""
    rows = [(f"{name}.weight", dim, i) for name, at, dim in (*group.makers, *group.gates, *group.filters) for i in at]
    return rows + [(name, dim, i) for name, at, dim in group.vectors for i in at]


def read(group: ChannelGroup) -> list[Part]:
    return [(f"{name}.weight", dim, i) for name, at, dim in group.readers for i in at]


class Trial:
    """A network of which parts are set, to see what it answers; each time anew."""

    def __init__(self, network: nn.Module, dtype: torch.dtype = torch.float64) -> None:
        self.network = copy.deepcopy(network).to(dtype).eval()
        self.before = copy.deepcopy(self.network.state_dict())
        self.tensors = dict(self.network.named_parameters()) | dict(self.network.named_buffers())
        self.pictures = pictures().to(dtype)

    def answers(self, *settings: tuple[list[Part], float]) -> Tensor:
        """The logits where all of some parts are a number."""
        with torch.no_grad():
            self.network.load_state_dict(self.before)
            for parts, value in settings:
                for name, dim, place in parts:
                    self.tensors[name].select(dim, place).fill_(value)
            logits: Tensor = self.network(self.pictures)
        return logits


@every_foreign
def test_the_groups_are_those_that_one_counts_by_hand(name: str) -> None:
    graph = graph_of(foreign(name))
    counts = Counter(group.space for group in graph.groups)
    assert counts == {space: count for space, (count, _) in GROUPS[name].items()}
    for group in graph.groups:
        assert [place.name for place in group.readers] == GROUPS[name][group.space][1].split(), group.space
    assert set(graph.pinned) == set(PINNED.get(name, ANSWERS))
    assert graph.pinned["the answers of the network"] == 3
    carried = {group.space for group in graph.groups if group.carried}
    assert carried == {space for space in GROUPS[name] if name in ("residual", "mobilenet") and len(space) > 1}


@every_foreign
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_nothing_but_its_readers_reads_a_group(name: str, dtype: torch.dtype, tolerance: float) -> None:
    """Once they do not, all that makes it may be zero, or anything else."""
    trial = Trial(foreign(name), dtype)
    for group in graph_of(foreign(name)).groups:
        unread = (read(group), 0.0)
        expected = trial.answers(unread)
        for value in (0.0, 3.0):
            found = trial.answers(unread, (made(group), value))
            torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * max(1, float(expected.abs().max())))


@every_foreign
def test_every_reader_and_every_part_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one reader left the group is heard, and each layer, norm and bias that belongs to it speaks."""
    network = foreign(name)
    groups = graph_of(network).groups
    # So that nothing is lost in what an activation cuts off.
    for activation in ("relu", "hardswish"):
        monkeypatch.setattr(F, activation, lambda x, inplace=False: F.leaky_relu(x, 0.3))
    monkeypatch.setattr(F, "hardsigmoid", lambda x, inplace: x.sigmoid())
    trial = Trial(network)
    whole = trial.answers()
    for group in groups:
        for reader in group.readers:
            deaf = ([part for part in read(group) if part[0] != f"{reader.name}.weight"], 0.0)
            loud = (made(group), 0.5)
            assert not torch.equal(trial.answers(deaf, loud), trial.answers(deaf)), (group.space, reader)
        for part in made(group):
            # A bias of keys adds the same to all that a query is compared with.
            counts = not (part[0].endswith("qkv.bias") and part[2] // 8 == 1)
            assert not counts or not torch.equal(trial.answers(([part], 0.5)), whole), part


@every_foreign
def test_groups_are_disjoint_and_the_rest_is_named(name: str) -> None:
    network = foreign(name)
    graph = graph_of(network)
    parts = [part for group in graph.groups for part in made(group) + read(group)]
    assert len(parts) == len(set(parts))
    # A layer's rows go or stay side by side: in these networks all of them, but those of a gate, belong to groups.
    for key, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and name != "vit":
            rows = {part for part in parts if part[:2] == (f"{key}.weight", 0)}
            final = key == [*dict(network.named_children())][-1] or key.endswith(("classifier.3", "head.3"))
            assert len(rows) == (0 if final else len(layer.weight)), key


@every_foreign
def test_a_network_stays_as_it_is(name: str) -> None:
    network = foreign(name).train()
    next(network.children()).eval()
    modes = [module.training for module in network.modules()]
    before = copy.deepcopy(network.state_dict())
    fast = torch.backends.mha.get_fastpath_enabled()
    first = graph_of(network)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.backends.mha.get_fastpath_enabled() is fast
    assert graph_of(network.eval()) == first


class Own(nn.Module):
    """Two convolutions with an operation between them, in which channels may meet."""

    def __init__(self, kind: str, reads: int = 6) -> None:
        super().__init__()
        self.kind = kind
        self.one = nn.Conv2d(3, 6, 3, padding=1)
        self.other = nn.Conv2d(reads, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.rand(6))
        self.slope = nn.PReLU(6)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = getattr(self, self.kind)(self.one(x))
        logits: Tensor = self.head(self.other(x).mean(dim=(2, 3)))
        return logits

    def cumulative(self, x: Tensor) -> Tensor:
        return x.cumsum(dim=1)

    def halves(self, x: Tensor) -> Tensor:
        """Two of the six channels, by their numbers."""
        return x[:, :2]

    def glued(self, x: Tensor) -> Tensor:
        """An addition to what is no channel."""
        return x + torch.linspace(0, 1, 6)[:, None, None]

    def spread(self, x: Tensor) -> Tensor:
        """Parts that are as large as one another, of which one multiplies the other."""
        one, other = x.chunk(2, dim=1)
        return one * other.sigmoid()

    def torn(self, x: Tensor) -> Tensor:
        """A reshape across channels."""
        return x.flatten(2).reshape(len(x), 4, -1).reshape(len(x), 6, 16, 16)

    def shuffled(self, x: Tensor) -> Tensor:
        return x.view(len(x), 2, 3, 16, 16).transpose(1, 2).reshape(len(x), 6, 16, 16)

    def normed(self, x: Tensor) -> Tensor:
        return F.group_norm(x, 2)

    def shifted(self, x: Tensor) -> Tensor:
        """A map for all channels, a scale for each, a slope for each."""
        lines = torch.linspace(0, 1, 16)
        scaled = F.hardswish(x + lines) * self.scale.view(1, -1, 1, 1)
        activated: Tensor = self.slope(scaled)
        return activated


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cumulative", "cumsum, which ramify does not know"),
        ("halves", "slice of channels"),
        ("glued", "add of channels with what is none"),
        ("torn", "a reshape that tears channels apart"),
        ("shuffled", "a reshape that tears channels apart"),
        ("normed", "group_norm, which reads all channels together"),
    ],
)
def test_what_is_not_known_pins_and_is_named(kind: str, reason: str) -> None:
    graph = graph_of(Own(kind, reads=2 if kind == "halves" else 6))
    assert graph.pinned == {reason: 6, **ANSWERS}
    assert Counter(group.space for group in graph.groups) == {("other",): 4}


def test_numbers_for_each_channel_go_with_it() -> None:
    network = Own("shifted")
    trial, first = Trial(network), graph_of(network).groups[0]
    names = {"one.bias", "scale", "slope.weight"}
    assert {(vector.name, vector.at) for vector in first.vectors} == {(name, (0,)) for name in names}
    expected = trial.answers((read(first), 0.0))
    assert torch.equal(trial.answers((read(first), 0.0), (made(first), 0.0)), expected)


def test_halves_that_meet_go_together() -> None:
    graph = graph_of(Own("spread", reads=3))
    assert [group.makers[0].at for group in graph.groups if group.space == ("one",)] == [(0, 3), (1, 4), (2, 5)]
    assert [group.readers[0].at for group in graph.groups if group.space == ("one",)] == [(0,), (1,), (2,)]


def test_one_that_takes_too_long_is_refused_and_says_how_far_it_came() -> None:
    with pytest.raises(InputError, match=r"network: got one that could not be read in 0 s \(\d+ operations, the last "):
        channel_graph(foreign("vgg"), pictures(), seconds=0)


# Physical removal of groups from foreign networks, and of what `compact` takes out of them, is tested with
# `attach_exits`, which gives them masks: tests/nn/test_attach.py.
