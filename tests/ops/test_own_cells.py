"""A cell of one's own, one class and one entry, goes through every operation."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ramify.config.read import read_config
from ramify.config.rules import NetworkConfig
from ramify.errors import ConfigError, InputError
from ramify.exporting.check import Staged, logits_of
from ramify.exporting.graphs import plain
from ramify.exporting.onnx import to_stages
from ramify.nn.cells import CELLS, Cell, CellPlan
from ramify.nn.cells.base import Identities
from ramify.nn.masked import MaskedConv2d, masked_layers
from ramify.nn.network import Network
from ramify.ops.cost import cost
from ramify.ops.fold import fold
from ramify.ops.growing.grow import can_copy, can_keep, grow
from ramify.ops.growing.widen import widen
from ramify.ops.loss import exit_losses
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import prune
from ramify.ops.surgery import parameter_groups
from ramify.run.checkpoint import Card, pack_model, read_model

IMAGES = torch.rand(6, 2, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 3


class Gated(Cell):
    summary = "a 3x3 layer times gates of a 1x1 layer"

    def __init__(self, plan: CellPlan) -> None:
        super().__init__(plan)
        self.conv = MaskedConv2d(plan.in_channels, plan.out_channels, 3, plan.stride)
        self.gate = MaskedConv2d(plan.in_channels, plan.out_channels, 1, plan.stride, bias=True)
        self.norm = nn.BatchNorm2d(plan.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x))) * torch.sigmoid(self.gate(x))


class Carrying(Cell):
    """It can start as an identity, and has inner channels of its own, as many as 2 for each that it gives."""

    summary, projecting, widens, rectified = "a stream to which a 1x1 and a 3x3 layer add", True, True, False

    def __init__(self, plan: CellPlan) -> None:
        super().__init__(plan)
        self.carries = not plan.projects
        self.wide = MaskedConv2d(plan.in_channels, plan.inner_channels, 1, plan.stride)
        self.norm = nn.BatchNorm2d(plan.inner_channels)
        self.back = MaskedConv2d(plan.inner_channels, plan.out_channels, 3)

    @staticmethod
    def inner_channels(reads: int, gives: int) -> int:
        return 2 * gives

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.back(F.relu(self.norm(self.wide(x))))
        return x + added if self.carries else added

    def pass_on(self, places: Tensor, outputs: Tensor) -> Identities:
        self.back.weight[outputs] = 0
        return {}


OWN: dict[str, type[Cell]] = {"gated": Gated, "carrying": Carrying}


@pytest.fixture(params=OWN)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    kind: str = request.param
    monkeypatch.setitem(CELLS, kind, OWN[kind])
    return kind


def built(name: str, kind: str = "iterative", stages: int | None = None) -> Network:
    """A network whose batch norms have the statistics and scales of a trained one."""
    given = {"kind": kind, "cell": name, "structure": (0, 1, 0), "channels": 6, "final": "mixed"}
    config = NetworkConfig.model_validate({**given, "input_shape": (2, 8, 8), "classes": 3})
    network = Network(config, stages=config.exits if stages is None else stages, seed=0)
    draw = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(generator=draw)
            module.running_var.uniform_(0.5, 2, generator=draw)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=draw)
            nn.init.normal_(module.bias, generator=draw)
    return network.eval()


def answers(network: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = network.eval()(IMAGES.to(next(network.parameters())))
    return found


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance * float(wanted.abs().max().clamp(min=1)))


def test_a_configuration_names_it(name: str) -> None:
    assert read_config(overrides=[f"network.cell={name}"]).network.cell == name
    with pytest.raises(ConfigError, match=rf"network\.cell: got 'other'; accepted: basic, .*, {name}"):
        read_config(overrides=["network.cell=other"])
    with pytest.raises(ConfigError, match=r"network\.squeeze: got 0.5; accepted: null"):
        read_config(overrides=[f"network.cell={name}", "network.squeeze=0.5"])


@pytest.mark.parametrize("kind", ["iterative", "dense"])
def test_it_learns_and_is_counted(name: str, kind: str) -> None:
    network = built(name, kind)
    with FlopCounterMode(display=False) as counter:
        network(IMAGES[:1])
    assert cost(network)[-1].macs * 2 == counter.get_total_flops()
    optimizer = torch.optim.SGD(parameter_groups(network, 1e-4), lr=0.1)
    before = copy.deepcopy(network.state_dict())
    exit_losses(network.train()(IMAGES), LABELS).sum().backward()
    optimizer.step()
    assert all(not torch.equal(before[key], value) for key, value in network.named_parameters())


@pytest.mark.parametrize("kind", ["iterative", "dense"])
@pytest.mark.parametrize("criterion", ["magnitude", "snip"])
def test_it_is_pruned_by_weights(name: str, kind: str, criterion: str) -> None:
    network = built(name, kind)
    report = prune(network, 0.4, criterion, [(IMAGES, LABELS)])
    assert report.after == round(0.4 * report.weights) == cost(network)[-1].kept


@pytest.mark.parametrize("kind", ["iterative", "dense"])
def test_its_channels_are_pruned_and_compacted(name: str, kind: str) -> None:
    network = built(name, kind).double()
    before = cost(network)[-1]
    prune(network, 0.5, "magnitude", unit="channel")
    small, receipt = compact(network)
    assert receipt.removed > 0
    assert cost(small)[-1].macs < before.macs
    close(answers(small), answers(network), 1e-10)
    close(answers(fold(small)), answers(network), 1e-10)


@pytest.mark.parametrize("init", ["random", "copy"])
def test_it_is_widened_where_it_has_channels_of_its_own(name: str, init: str) -> None:
    network = built(name).double()
    wanted = answers(network)
    if name == "gated":
        with pytest.raises(InputError, match="gated cells; accepted: "):
            widen(network, 0, 2, init=init)  # type: ignore[arg-type]
        return
    widen(network, 0, 2, init=init, seed=0, images=IMAGES.double())  # type: ignore[arg-type]
    close(answers(network), wanted, 1e-10)
    assert network.plans[0].cells[0].inner_channels == 14
    rebuilt = Network(network.config, stages=2, plans=network.plans).double()
    rebuilt.load_state_dict(network.state_dict())
    close(answers(rebuilt), wanted, 1e-10)


@pytest.mark.parametrize("kind", ["iterative", "dense"])
@pytest.mark.parametrize("init", ["random", "identity", "copy"])
def test_it_grows(name: str, kind: str, init: str) -> None:
    network = built(name, kind, stages=1)
    optimizer = torch.optim.SGD(parameter_groups(network, 1e-4), lr=0.1, momentum=0.9)
    before = answers(network)
    # In dense wiring the final classifier reads what the exit before it read, whatever the cells are.
    keeps = init == "identity" and (name == "carrying" or kind == "dense")
    obstacle = {"random": "", "identity": can_keep(network), "copy": can_copy(network)}[init]
    assert bool(obstacle) == (init == "identity" and not keeps)
    if obstacle:
        with pytest.raises(InputError, match="accepted: random for stage"):
            grow(network, optimizer, init="identity", seed=1)
        return
    grow(network, optimizer, init=init, seed=1, images=IMAGES)  # type: ignore[arg-type]
    after = answers(network)
    assert torch.equal(after[0], before[0])
    if keeps:
        close(after[1], before[0])
    if init == "copy" and kind == "iterative":
        old, new = (masked_layers(network.stages[stage].get_submodule("cells")) for stage in (0, 1))
        layer = next(iter(new)).removeprefix("0.")
        assert torch.equal(new[f"0.{layer}"].weight, old[f"1.{layer}"].weight)
    exit_losses(network.train()(IMAGES), LABELS).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", ["iterative", "dense"])
def test_it_is_folded_and_kept(name: str, kind: str, tmp_path: Path) -> None:
    network = built(name, kind)
    wanted = answers(network)
    close(answers(fold(network)), wanted, 1e-5)
    close(answers(fold(copy.deepcopy(network).double())), answers(copy.deepcopy(network).double()), 1e-10)
    card = Card(network=network.config, stages=2, classes=tuple("abc"), epoch=1)
    for file, content in pack_model(network, card).items():
        (tmp_path / file).write_bytes(content)
    assert torch.equal(answers(read_model(tmp_path)[0]), wanted)


@pytest.mark.slow
def test_it_is_exported(name: str) -> None:
    network = built(name)
    staged = Staged([graph.SerializeToString() for graph in to_stages(plain(network))])
    close(logits_of(staged, IMAGES), answers(network), 1e-5)
