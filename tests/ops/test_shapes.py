"""Every operation on networks of every shape."""

import copy
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ramify.config.rules import NetworkConfig
from ramify.errors import InputError
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network, plan
from ramify.ops.cost import cost
from ramify.ops.fold import fold
from ramify.ops.growing.convert import cut, to_cnn, to_sdn
from ramify.ops.growing.extend import extend, overlap
from ramify.ops.growing.grow import can_copy, can_keep, grow
from ramify.ops.growing.widen import widen
from ramify.ops.pruning.channels import channels
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import prune
from ramify.ops.pruning.saliency import SALIENCIES
from ramify.ops.surgery import parameter_groups
from ramify.run.checkpoint import Card, pack_model, read_model
from tests.ops.networks import kind_of
from tests.ops.shapes import BASE, SHAPES, pictures, shaped

every_shape = pytest.mark.parametrize("name", list(SHAPES))


@every_shape
def test_costs_are_those_that_are_counted(name: str) -> None:
    network = shaped(name)
    for stages, each in enumerate(cost(network), start=1):
        young = Network(network.config, stages=stages, seed=0).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            young(pictures(network, 1))
        assert each.macs * 2 == counter.get_total_flops()
        assert each.weights == sum(layer.weight.numel() for layer in masked_layers(young).values())
        assert each.parameters == sum(parameter.numel() for parameter in young.parameters())


@every_shape
def test_a_folded_network_answers_the_same(name: str) -> None:
    network = shaped(name)
    exact = copy.deepcopy(network).double()
    with torch.no_grad():
        wanted = exact(pictures(exact))
        scale = float(wanted.abs().max().clamp(min=1))
        torch.testing.assert_close(fold(exact)(pictures(exact)), wanted, rtol=0, atol=1e-12 * scale)
        wanted = network(pictures(network))
        torch.testing.assert_close(fold(network)(pictures(network)), wanted, rtol=0, atol=1e-5 * scale)


@every_shape
def test_a_saved_network_is_read_back(name: str, tmp_path: Path) -> None:
    network = shaped(name, stages=2)
    card = Card(network=network.config, stages=2, classes=tuple("abcde"), epoch=1)
    for file, content in pack_model(network, card).items():
        (tmp_path / file).write_bytes(content)
    read, _ = read_model(tmp_path)
    assert read.plans == network.plans == plan(network.config)
    assert torch.equal(read(pictures(network)), network(pictures(network)))


@pytest.mark.parametrize(
    ("name", "criterion"),
    [*((name, "snip") for name in SHAPES), *(("compact cascade", criterion) for criterion in SALIENCIES)],
)
def test_pruning_keeps_just_what_is_asked_for(name: str, criterion: str) -> None:
    network = shaped(name)
    batch = (pictures(network), torch.arange(5))
    report = prune(network, 0.4, criterion, [batch])
    assert report.after == round(0.4 * report.weights) == cost(network)[-1].kept
    small, receipt = compact(network)
    assert receipt.difference <= 1e-9 * max(1, float(network(pictures(network)).detach().abs().max()))
    assert len(small.plans) == len(network.plans)


@pytest.mark.parametrize("name", [name for name in SHAPES if name not in ("grouped", "strided by hand")])
def test_pruned_channels_are_compacted_away(name: str) -> None:
    network = shaped(name)
    before = cost(network)[-1]
    prune(network, 0.5, "magnitude", unit="channel")
    small, receipt = compact(network)
    assert receipt.removed > 0
    assert receipt.before[-1].kept == receipt.after[-1].weights < before.weights
    assert receipt.after[-1].macs < before.macs
    with torch.no_grad():
        wanted = network.double()(pictures(network))
        scale = float(wanted.abs().max().clamp(min=1))
        torch.testing.assert_close(small.double()(pictures(small)), wanted, rtol=0, atol=1e-12 * scale)
        torch.testing.assert_close(fold(small)(pictures(small)), wanted, rtol=0, atol=1e-12 * scale)


def test_groups_keep_their_channels() -> None:
    assert {kind_of(group) for group in channels(shaped("grouped", kind="dense"))} == {"output"}
    with pytest.raises(InputError, match="grouped cells; accepted: one with channels"):
        widen(shaped("grouped"), 0, 8)


@every_shape
@pytest.mark.parametrize("init", ["random", "identity", "copy"])
def test_a_new_stage_keeps_what_it_promises(name: str, init: str) -> None:
    network = shaped(name, stages=1, **({"final": SHAPES[name].get("exit", "mixed")} if init == "identity" else {}))
    optimizer = torch.optim.SGD(parameter_groups(network, 1e-4), lr=0.1, momentum=0.9)
    images = pictures(network)
    while not network.complete:
        before = network(images)
        obstacle = {"random": "", "identity": can_keep(network), "copy": can_copy(network)}[init]
        if obstacle:
            with pytest.raises(InputError, match="accepted: random for stage"):
                grow(network, optimizer, init=init, seed=1)  # type: ignore[arg-type]
            grow(network, optimizer, seed=1)
        else:
            grow(network, optimizer, init=init, seed=1)  # type: ignore[arg-type]
        after = network.eval()(images)
        assert torch.equal(after[:-1], before)
        if init == "identity" and not obstacle:
            torch.testing.assert_close(after[-1], before[-1], rtol=1e-4, atol=1e-4)
        assert not (network.cascade and init == "identity" and obstacle)
    network.train()(images).sum().backward()
    optimizer.step()
    assert all(parameter.grad is not None for parameter in network.parameters() if parameter.requires_grad)
    assert network(images).isfinite().all()


def test_in_a_cascade_a_new_exit_answers_as_the_last_whatever_its_cells_and_head_are() -> None:
    network = shaped("compact cascade", stages=1)
    images = pictures(network)
    grow(network, init="identity", seed=0)
    grow(network, init="identity", seed=0)
    logits = network.eval()(images)
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[1], logits[2])


def test_where_the_map_shrinks_identity_says_that_it_cannot() -> None:
    assert "halves the map" in can_keep(shaped("strided", stages=1))
    assert "halves the trunk" in can_keep(shaped("dense strided", stages=1))
    assert "no shortcut" in can_keep(shaped("dense compact", stages=1, cascade=False, strides=(0,) * 5, channels=4))


@pytest.mark.parametrize("name", ["strided", "dense strided", "depthwise", "compact", "compact cascade"])
@pytest.mark.parametrize("init", ["random", "copy"])
def test_a_wider_network_computes_the_same(name: str, init: str) -> None:
    network = shaped(name).double()
    optimizer = torch.optim.Adam(parameter_groups(network, 1e-4))
    network.train()(pictures(network)).sum().backward()
    optimizer.step()
    images = pictures(network)
    wanted = network.eval()(images).detach()
    report = widen(network, 1, 3, optimizer, init=init, seed=0, images=images)  # type: ignore[arg-type]
    assert all(after == before + 3 for before, after in report.cells.values())
    scale = float(wanted.abs().max().clamp(min=1))
    torch.testing.assert_close(network.eval()(images), wanted, rtol=0, atol=1e-12 * scale)
    rebuilt = Network(network.config, stages=3, plans=network.plans).double().eval()
    rebuilt.load_state_dict(network.state_dict(), strict=True)
    assert torch.equal(rebuilt(images), network(images))
    network.train()(images).sum().backward()
    optimizer.step()
    assert network(images).isfinite().all()


@every_shape
def test_a_network_that_is_cut_answers_as_before(name: str) -> None:
    network = shaped(name)
    images = pictures(network)
    for exit_ in (1, 2, 3):
        shorter = cut(network, exit_)
        assert torch.equal(shorter(images), network(images)[:exit_])


def test_exits_come_and_go_unless_they_add_up() -> None:
    network = shaped("strided", kind="full_ic")
    images = pictures(network)
    assert torch.equal(to_cnn(network)(images)[0], network(images)[-1])
    again = to_sdn(to_cnn(network), network.config)
    assert torch.equal(again(images)[-1], network(images)[-1])
    with pytest.raises(InputError, match=r"^network\.strides: got"):
        to_sdn(network, network.config.model_copy(update={"strides": (0, 1, 1, 0, 0)}))
    cascade = shaped("cascade")
    for convert in (to_cnn, lambda each: to_sdn(each, each.config)):
        with pytest.raises(InputError, match=r"^network\.cascade: got true; accepted: false"):
            convert(cascade)


@pytest.mark.parametrize("name", ["strided", "compact", "cascade", "dense strided"])
def test_a_deeper_network_begins_as_a_shorter_one_so_far_as_their_shapes_agree(name: str) -> None:
    long = NetworkConfig.model_validate({**BASE, **SHAPES[name], "final": SHAPES[name].get("exit", "mixed")})
    strides = (*long.strided, 0, 0)
    deeper = long.model_copy(update={"structure": (0, 1, 0, 1, 0, 1, 0), "strides": strides})
    found = overlap(long, deeper)
    assert found is not None
    assert found.cells == (4 if name in ("cascade", "dense strided") else 5)
    network = shaped(name, final=long.final)
    images = pictures(network)
    longer = extend(network, deeper, seed=0).network.eval()
    assert torch.equal(longer(images)[:2], network(images)[:2])
    elsewhere = deeper.model_copy(update={"strides": (1, *(0,) * 6), "channels": (4, 6)})
    assert overlap(long, elsewhere) is None
