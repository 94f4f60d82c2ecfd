"""A contract for every cell in the registry, and what each type is."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ramify.errors import ConfigError
from ramify.nn.cells import CELLS, CellPlan, output_size
from ramify.nn.cells.base import Squeeze
from ramify.nn.cells.bottleneck import EXPANSION
from ramify.nn.cells.pooling import PoolingCell
from ramify.nn.masked import MaskedConv2d, masked_layers

SQUEEZED = [name for name, cell in CELLS.items() if cell.squeezing]
ONE_LAYER = ("plain", "unpadded", "linear")


def planned(
    name: str,
    channels: tuple[int, int, int],
    stride: int = 1,
    size: tuple[int, int] = (8, 8),
    projects: bool = False,
    squeeze: int = 0,
) -> CellPlan:
    """The plan of a cell; it projects where it must, or where it can and should."""
    read, inner, out = channels
    if name in ONE_LAYER:
        return CellPlan(read, out, out, False, name, stride, size[0] * size[1])
    if name == "separable":
        return CellPlan(read, read, out, False, name, stride)
    if name == "skip_second":
        return CellPlan(read, inner, out, projects or inner != out, name, stride)
    return CellPlan(read, inner, out, projects or read != out or stride != 1, name, stride, squeeze=squeeze)


@pytest.mark.parametrize("name", sorted(CELLS))
@pytest.mark.parametrize("channels", [(4, 4, 4), (8, 4, 4), (4, 6, 4), (3, 5, 7)])
@pytest.mark.parametrize("projects", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (9, 13)])
def test_a_cell_gives_the_map_that_its_plan_says(
    name: str, channels: tuple[int, int, int], projects: bool, stride: int, size: tuple[int, int]
) -> None:
    plan = planned(name, channels, stride, size, projects)
    cell = CELLS[name](plan)
    output = cell(torch.randn(2, channels[0], *size))
    assert output.shape == (2, channels[2], *output_size(plan, *size))
    if name not in ("preactivation", "compact", "pooling"):  # what it gives meets its ReLU in the next cell, or nowhere
        assert (output >= 0).all()
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in cell.parameters())


@pytest.mark.parametrize("name", sorted(CELLS))
def test_a_cell_learns_from_its_whole_input_and_treats_pictures_alike(name: str) -> None:
    torch.manual_seed(0)
    cell = CELLS[name](planned(name, (3, 5, 5))).eval()
    x = torch.randn(8, 3, 8, 8, requires_grad=True)
    output = cell(x)
    torch.testing.assert_close(cell(x[1:2]), output[1:2])
    [gradient] = torch.autograd.grad(output.sum(), x)
    assert (gradient != 0).any(dim=0).all()


@pytest.mark.parametrize("name", SQUEEZED)
@pytest.mark.parametrize("stride", [1, 2])
def test_squeezing_scales_inner_channels_by_what_the_whole_map_says(name: str, stride: int) -> None:
    plan = planned(name, (4, 16, 6), stride, squeeze=3)
    cell, bare = CELLS[name](plan).eval(), CELLS[name](replace(plan, squeeze=0)).eval()
    squeeze = cell.get_submodule("squeeze")
    assert isinstance(squeeze, Squeeze)
    assert (squeeze.reduce.weight.shape, squeeze.expand.weight.shape) == ((3, 16), (16, 3))
    bare.load_state_dict({key: value for key, value in cell.state_dict().items() if "squeeze" not in key})
    x = torch.rand(2, 4, 8, 8)
    assert not torch.allclose(cell(x), bare(x), atol=1e-3)
    torch.nn.init.zeros_(squeeze.expand.weight)
    torch.nn.init.constant_(squeeze.expand.bias, 50)  # the gates stand open
    torch.testing.assert_close(cell(x), bare(x))


@pytest.mark.parametrize("name", SQUEEZED)
def test_a_small_cell_passes_on_what_it_reads_where_the_shape_stays(name: str) -> None:
    """With its last norm silent a cell is its shortcut, and ``compact`` keeps what is negative."""
    cell = CELLS[name](planned(name, (8, 8, 8))).eval()
    last = [part for part in cell.modules() if isinstance(part, nn.BatchNorm2d)][-1]
    torch.nn.init.zeros_(last.weight)
    x = torch.randn(2, 8, 8, 8)
    assert torch.equal(cell(x), x if name == "compact" else F.relu(x))
    changed = CELLS[name](planned(name, (8, 8, 8), stride=2))
    shortcut = {"compact": 0, "depthwise": 64 + 16, "grouped": 64 + 16}[name]
    less, more = (sum(each.numel() for each in one.parameters()) for one in (cell, changed))
    assert more - less == shortcut


def test_the_small_cells_have_the_weights_that_they_say() -> None:
    def weights(name: str, width: int) -> int:
        layers = masked_layers(CELLS[name](planned(name, (width, CELLS[name].inner_channels(width, width), width))))
        return sum(layer.weight.numel() for layer in layers.values())

    assert weights("basic", 32) == 18 * 32**2
    assert weights("depthwise", 32) == 2 * (9 * 32 + 32**2)
    assert weights("grouped", 32) == 2 * 32**2 + 72 * 32
    assert weights("compact", 32) == 2 * EXPANSION * 32**2 + 9 * EXPANSION * 32


@pytest.mark.parametrize(("channels", "groups"), [(16, 2), (12, 3), (7, 7), (4, 1)])
def test_groups_are_of_eight_channels_or_of_what_divides_them(channels: int, groups: int) -> None:
    conv = masked_layers(CELLS["grouped"](planned("grouped", (3, channels, 5))))["conv2"]
    assert isinstance(conv, MaskedConv2d)
    assert conv.groups == groups


@pytest.mark.parametrize("name", ["basic", "skip_second", "preactivation"])
def test_a_cell_of_two_layers_has_a_shortcut(name: str) -> None:
    """With the second convolution silent, what the cell gives is what its shortcut carries."""
    cell = CELLS[name](planned(name, (4, 4, 4))).eval()
    layers = masked_layers(cell)
    assert len(layers) == 2
    x = torch.rand(2, 4, 8, 8) - (0.5 if name == "preactivation" else 0)
    torch.nn.init.zeros_(layers["conv2"].weight)
    carried = cell(x)
    if name == "skip_second":
        assert not torch.equal(carried, x)
        assert (carried > 0).any()
    else:
        assert torch.equal(carried, x)


@pytest.mark.parametrize("name", ["basic", "preactivation"])
def test_a_stride_is_in_the_first_layer_and_the_shortcut(name: str) -> None:
    cell = CELLS[name](planned(name, (2, 3, 4), stride=2))
    strides = {layer: part.stride for layer, part in masked_layers(cell).items() if isinstance(part, MaskedConv2d)}
    shortcut = "shortcut.0" if name == "basic" else "shortcut"
    assert strides == {"conv1": (2, 2), "conv2": (1, 1), shortcut: (2, 2)}


def test_a_preactivation_cell_normalises_before_its_layers() -> None:
    """What its layers add to the shortcut does not depend on the scale of what it reads."""
    cell = CELLS["preactivation"](planned("preactivation", (3, 4, 5)))
    shortcut = cell.get_submodule("shortcut")
    x = torch.randn(6, 3, 8, 8)
    torch.testing.assert_close(cell(x) - shortcut(x), cell(x * 9) - shortcut(x * 9), rtol=0, atol=1e-3)
    assert [name for name, part in cell.named_modules() if isinstance(part, nn.BatchNorm2d)] == ["norm1", "norm2"]


def test_a_plain_cell_pools_where_it_strides() -> None:
    one, other = (CELLS["plain"](planned("plain", (2, 0, 3), stride)).eval() for stride in (1, 2))
    other.load_state_dict(one.state_dict())
    x = torch.rand(2, 2, 8, 8)
    assert torch.equal(other(x), F.max_pool2d(one(x), 2))
    assert other(torch.rand(2, 2, 1, 1)).shape == (2, 3, 1, 1)


def test_a_pooling_cell_starts_as_an_identity_and_pools_behind_its_first_layer() -> None:
    cell = PoolingCell(CellPlan(3, 5, 5, stride=2, area=49)).eval()
    x = torch.randn(2, 3, 7, 7)
    torch.testing.assert_close(cell.conv1(x)[:, :3], x)
    pooled = F.max_pool2d(cell.conv1(x), 2)
    expected = F.gelu(cell.norm2(cell.conv2(F.gelu(cell.norm1(pooled)))))
    torch.testing.assert_close(cell(x), expected)
    assert PoolingCell(CellPlan(3, 5, 5, stride=2))(x[..., :1, :1]).shape == (2, 5, 1, 1)


def test_a_separable_cell_filters_each_channel_by_itself() -> None:
    cell = CELLS["separable"](planned("separable", (3, 0, 5))).eval()
    conv = masked_layers(cell)["conv1"]
    assert conv.weight.shape == (3, 1, 3, 3)
    x = torch.rand(1, 3, 8, 8)
    louder = x.clone()
    louder[:, 1] += 1
    changed = (conv(louder) != conv(x)).flatten(2).any(dim=2)
    assert changed.tolist() == [[False, True, False]]


def test_a_filter_of_one_channel_starts_he_normal_over_its_own_fan_out() -> None:
    cell = CELLS["separable"](planned("separable", (512, 0, 8)))
    assert masked_layers(cell)["conv1"].weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)


def test_the_cells_of_lenet_5_make_what_they_made_in_1998() -> None:
    first, second = planned("unpadded", (1, 0, 20), size=(28, 28)), planned("unpadded", (20, 0, 50), size=(12, 12))
    assert output_size(first, 28, 28) == (12, 12)
    assert output_size(second, 12, 12) == (4, 4)
    last = planned("linear", (50, 0, 500), size=(4, 4))
    x = torch.rand(2, 1, 28, 28)
    for plan in (first, second, last):
        x = CELLS[plan.type](plan)(x)
    assert x.shape == (2, 500, 1, 1)
    assert sum(parameter.numel() for parameter in CELLS["linear"](last).parameters()) == 800 * 500 + 500


@pytest.mark.parametrize("size", [(4, 4), (5, 5), (3, 9)])
def test_a_map_too_small_for_a_cell_is_refused(size: tuple[int, int]) -> None:
    assert output_size(planned("unpadded", (1, 0, 1)), 6, 7) == (1, 1)
    with pytest.raises(ConfigError, match=rf"^network\.input_shape: got .* map of {size[0]} x {size[1]}"):
        output_size(planned("unpadded", (1, 0, 1)), *size)


def test_a_machine_without_memory_is_no_map_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hungry(PoolingCell):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 154618822656 bytes.")

    monkeypatch.setitem(CELLS, "pooling", Hungry)
    with pytest.raises(RuntimeError, match="allocate"):
        output_size(CellPlan(3, 5, 5, type="pooling"), 8, 8)


def test_sizes_are_found_without_a_draw() -> None:
    before = torch.get_rng_state()
    for name in CELLS:
        output_size(planned(name, (5, 11, 7), size=(11, 11)), 11, 11)
    assert torch.equal(torch.get_rng_state(), before)
