"""Gradient equilibrium: nothing changes on the way forward, and on the way back each stage gets a mean."""

import pytest
import torch
from torch import Tensor, nn

from ramify.config.rules import NetworkConfig
from ramify.nn.attach import attach_exits
from ramify.nn.branching import Branching
from ramify.nn.equilibrium import Balanced, balanced_logits, scale_gradient, shares
from ramify.nn.network import Network
from ramify.ops.growing.grow import grow

STRUCTURE = (1, 0, 1, 1)


def network(kind: str, stages: int = 4) -> Network:
    config = NetworkConfig(kind=kind, structure=STRUCTURE, channels=3, input_shape=(2, 8, 8), classes=3)
    return Network(config, stages=stages, seed=0).double().train()


def attached() -> Branching:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten()]
    own = nn.Sequential(*layers, nn.Linear(256, 3))
    return attach_exits(own.double(), ["1", "3"], example=torch.rand(1, 2, 8, 8, dtype=torch.float64), seed=0)


def images() -> Tensor:
    return torch.rand(6, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def gradients(made: nn.Module, logits: Tensor, weights: list[float]) -> dict[str, Tensor]:
    """Of a weighted sum of one loss for each exit."""
    made.zero_grad()
    losses = logits.square().mean(dim=(1, 2))
    (losses * losses.new_tensor(weights)).sum().backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in made.named_parameters()}


class Scalars(Branching):
    """Numbers for layers: stage s multiplies the trunk by ``w[s]``, and its exit answers with ``v[s]`` times it."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(Scalar(w, v) for w, v in ((2.0, 3.0), (5.0, 7.0), (11.0, 13.0)))

    def enter(self, images: Tensor) -> Tensor:
        return images


class Scalar(nn.Module):
    def __init__(self, w: float, v: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))
        self.v = nn.Parameter(torch.tensor(v, dtype=torch.float64))

    def forward(self, trunk: Tensor, share: float = 1.0) -> tuple[Tensor, Tensor]:
        trunk = trunk * self.w
        return trunk, scale_gradient(trunk, share) * self.v


def test_the_gradients_of_a_toy_are_those_derived_by_hand() -> None:
    toy = Scalars()
    logits = balanced_logits(toy, torch.ones(1, 1, dtype=torch.float64))
    assert logits.flatten().tolist() == [6.0, 70.0, 1430.0]
    logits.sum().backward()
    w, v = zip(*((float(s.w.grad), float(s.v.grad)) for s in toy.stages), strict=True)  # type: ignore[arg-type]
    assert v == (2.0, 10.0, 110.0)  # the exits learn from the whole
    assert w == pytest.approx(((3 + 5 * 7 + 5 * 11 * 13) / 3, (2 * 7 + 2 * 11 * 13) / 2, 2 * 5 * 13), rel=1e-14)


def test_in_a_cascade_the_trunk_gets_as_much_and_the_exits_get_more() -> None:
    """Each loss comes back through its own exit and all before it, here with a gradient of one each."""
    toy = Scalars()
    toy.cascade = True
    logits = balanced_logits(toy, torch.ones(1, 1, dtype=torch.float64))
    assert logits.flatten().tolist() == [6.0, 76.0, 1506.0]
    logits.sum().backward()
    w, v = zip(*((float(s.w.grad), float(s.v.grad)) for s in toy.stages), strict=True)  # type: ignore[arg-type]
    assert v == (3 * 2.0, 2 * 10.0, 110.0)
    assert w == pytest.approx(((3 + 5 * 7 + 5 * 11 * 13) / 3, (2 * 7 + 2 * 11 * 13) / 2, 2 * 5 * 13), rel=1e-14)


@pytest.mark.parametrize("exits", [1, 2, 5])
def test_at_every_stage_the_factors_make_a_mean(exits: int) -> None:
    for stage in range(exits):
        on_the_way = 1.0
        for at in range(stage, exits):
            own, behind = shares(exits, at)
            assert on_the_way * own == pytest.approx(1 / (exits - stage))
            on_the_way *= behind


@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("kind", ["full_ic", "iterative", "dense", "attached"])
def test_the_forward_pass_is_the_same_bit_for_bit(kind: str, cascade: bool) -> None:
    made = attached() if kind == "attached" else network(kind)
    made.cascade = cascade
    assert torch.equal(balanced_logits(made, images()), made(images()))
    with torch.autocast("cpu", torch.bfloat16):
        half = made.float()
        assert torch.equal(balanced_logits(half, images().float()), half(images().float()))


@pytest.mark.parametrize("kind", ["full_ic", "dense", "attached"])
def test_each_stage_gets_the_mean_of_what_the_exits_behind_it_ask_for(kind: str) -> None:
    made = attached() if kind == "attached" else network(kind)
    exits = len(made.stages)
    weights = [0.3, 1.7, 0.9, 1.0][:exits]
    balanced = gradients(made, balanced_logits(made, images()), weights)
    summed = gradients(made, made(images()), weights)
    compared = 0
    for name, gradient in summed.items():
        stage = int(name.split(".")[1]) if name.startswith("stages") else 0
        is_head = ".exit." in name
        factor = 1.0 if is_head else 1 / (exits - stage)
        torch.testing.assert_close(balanced[name], factor * gradient, rtol=1e-10, atol=1e-14, msg=name)
        compared += not is_head and bool(gradient.abs().max() > 0)
    assert compared > exits


@pytest.mark.parametrize("kind", ["iterative", "dense"])
def test_growth_renews_the_factors(kind: str) -> None:
    made = network(kind, stages=1)
    name = "stem.conv.weight"
    for exits in (1, 2, 3, 4):
        weights = [0.0] * (exits - 1) + [1.0]
        balanced = gradients(made, balanced_logits(made, images()), weights)[name]
        torch.testing.assert_close(balanced * exits, gradients(made, made(images()), weights)[name])
        if not made.complete:
            grow(made, seed=0)


@pytest.mark.parametrize("kind", ["full_ic", "dense"])
def test_it_is_one_graph_for_a_compiler(kind: str) -> None:
    made = network(kind)
    plain = gradients(made, balanced_logits(made, images()), [1.0] * 4)
    compiled = torch.compile(Balanced(made), backend="aot_eager", fullgraph=True, dynamic=False)
    found = gradients(made, compiled(images()), [1.0] * 4)
    for name, gradient in plain.items():
        torch.testing.assert_close(found[name], gradient, msg=name)
