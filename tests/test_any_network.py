"""Networks that ramify did not make go through every operation: pruned, compacted, widened, folded, exported, kept."""

import contextlib
import copy
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ramify
from ramify.errors import InputError
from ramify.nn.attach import attach_exits
from ramify.nn.attached import Attached
from ramify.nn.masked import masked_layers
from ramify.ops.cost import cost
from ramify.ops.fold import fold
from ramify.ops.growing.widen import WideningInit, widen
from ramify.ops.loss import exit_losses
from ramify.ops.pruning.budget import Budget
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import prune
from ramify.ops.surgery import parameter_groups
from tests.nn.foreign import FOREIGN, foreign, pictures

TIMM = ("resnet18", "mobilenetv3_small_050", "convnext_atto")


class StandIn(types.ModuleType):
    """Takes the place of torchvision, which timm imports and which cannot be imported beside this torch."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []  # a package, so that others can be imported from it

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        names = ("NEAREST", "BILINEAR", "BICUBIC", "BOX", "HAMMING", "LANCZOS")  # of ways to resize
        return type(name, (), {each: each for each in names})


def of_timm(name: str) -> nn.Module:
    """A network of timm with random weights; skipped where timm is missing."""
    parts = ("", ".ops", ".ops.misc", ".transforms", ".transforms.functional", ".datasets", ".datasets.folder")
    for part in (*parts, ".models", ".models.feature_extraction"):
        path, module = f"torchvision{part}", StandIn(f"torchvision{part}")
        parent, _, leaf = path.rpartition(".")
        if sys.modules.setdefault(path, module) is module and parent:
            setattr(sys.modules[parent], leaf, module)
    timm = pytest.importorskip("timm")
    network: nn.Module = timm.create_model(name, num_classes=5)
    return network


NETWORKS = [*FOREIGN, *(f"timm/{name}" for name in TIMM)]

LEAST = {"vit": 0.75}
"""Where less than half cannot be reached: layer norms pin what runs between the blocks."""

every_network = pytest.mark.parametrize("name", NETWORKS)


def attached(name: str) -> tuple[Attached, Callable[[int], Tensor]]:
    """One of them with an exit in the middle, in evaluation mode, and what makes pictures for it."""
    torch.manual_seed(0)
    family, _, model = name.partition("/")
    images = (lambda count: torch.rand(count, 3, 64, 64)) if model else pictures
    module = of_timm(model) if model else foreign(family)
    return attach_exits(module, [0.5], example=images(2), seed=0).eval(), images


def close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return float((one - other).abs().max()) <= tolerance * max(1.0, float(other.abs().max()))


@every_network
def test_it_is_compacted_to_half_of_its_macs_and_goes_on(name: str) -> None:
    network, images = attached(name)
    optimizer = torch.optim.SGD(parameter_groups(network, 1e-4), lr=1e-3, momentum=0.9)
    share = LEAST.get(name, 0.5)
    prune(network, 1.0, "magnitude", unit="channel", optimizer=optimizer, budget=Budget(macs=share))
    small, receipt = compact(network, optimizer)
    assert receipt.after[-1].macs <= receipt.before[-1].macs * share
    x = images(4)
    with torch.no_grad():
        assert receipt.difference <= 1e-10 * max(1.0, float(network(x).abs().max()))
        assert close(small(x), network(x), 1e-5)
    assert [each.macs for each in receipt.after] == [each.macs for each in cost(small)]
    exit_losses(small.train()(x), torch.arange(4) % 2).sum().backward()
    optimizer.step()
    assert all(not layer.weight[~layer.mask].any() for layer in masked_layers(small).values())
    assert {id(parameter) for group in optimizer.param_groups for parameter in group["params"]} == {
        id(parameter) for parameter in small.parameters()
    }


@every_network
def test_it_is_kept_and_read_back_without_its_code(name: str, tmp_path: Path) -> None:
    network, images = attached(name)
    prune(network, 0.7, "magnitude", unit="channel")
    small = compact(network)[0]
    ramify.save(small, tmp_path / "kept")
    loaded, x = ramify.load(tmp_path / "kept"), images(3)
    with torch.no_grad():
        assert torch.equal(loaded(x), small(x))
    assert cost(loaded) == cost(small)
    # And once more: what was read back can be pruned, compacted and kept itself.
    prune(loaded, 0.7, "magnitude", unit="channel")
    assert compact(loaded)[1].removed > 0


@every_network
def test_folded_it_answers_the_same(name: str) -> None:
    network, images = attached(name)
    x = images(3)
    with torch.no_grad():
        assert close(fold(network)(x), network(x), 1e-5)
        exact = copy.deepcopy(network).double()
        assert close(fold(exact)(x.double()), exact(x.double()), 1e-10)


@pytest.mark.parametrize("init", ["random", "copy"])
@every_network
def test_a_stage_with_channels_of_its_own_is_widened(name: str, init: WideningInit) -> None:
    network, images = attached(name)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    x = images(3)
    widened = 0
    for stage in range(len(network.stages)):
        before = network(x).detach()
        exit_losses(network(x), torch.arange(3) % 2).sum().backward()
        with contextlib.suppress(InputError):  # where all channels are read by an exit too
            widened += widen(network, stage, 2, optimizer, init=init, seed=0).parameters
        assert close(network(x).detach(), before, 1e-5)
    assert widened > 0
    exit_losses(network.train()(x), torch.arange(3) % 2).sum().backward()
    optimizer.step()


@every_network
def test_its_stages_are_onnx_graphs(name: str) -> None:
    import numpy as np
    from onnxruntime import InferenceSession

    from ramify.exporting.graphs import plain
    from ramify.exporting.onnx import to_stages

    network, images = attached(name)
    prune(network, 0.7, "magnitude", unit="channel")
    small, x = compact(network)[0], images(3)
    given: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = [x.numpy()]
    with torch.no_grad():
        expected = small(x)
    for stage, wanted in zip(to_stages(plain(small)), expected, strict=True):
        session = InferenceSession(stage.SerializeToString())
        given = session.run(None, dict(zip([each.name for each in session.get_inputs()], given, strict=True)))
        logits = given.pop(1) if len(given) == 2 else given[-1]
        assert close(torch.from_numpy(logits), wanted, 1e-5)


def test_its_own_stages_grow() -> None:
    def block(reads: int, stride: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(reads, 8, 3, stride, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1))

    stages = [block(8, 1), block(8, 2), block(8, 2)]
    network = ramify.branches(block(3, 2), stages, example=torch.rand(1, 3, 16, 16), classes=5, seed=0)
    optimizer = torch.optim.SGD(parameter_groups(network, 1e-4), lr=0.01, momentum=0.9)
    x, labels = torch.rand(4, 3, 16, 16), torch.arange(4)
    for exits in (1, 2, 3):
        logits = network.train()(x)
        assert logits.shape == (exits, 4, 5)
        exit_losses(logits, labels).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        if exits < 3:
            before = {name: value.clone() for name, value in network.state_dict().items()}
            report = ramify.grow(network, optimizer)
            assert report.final is (exits == 2)
            assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    held = sum(len(group["params"]) for group in optimizer.param_groups)
    assert held == len(list(network.parameters()))
    with pytest.raises(InputError, match="grow: got a network with all its 3 stages"):
        ramify.grow(network)
    with pytest.raises(InputError, match="accepted: random for stage 2, as it is made of your own layers"):
        ramify.grow(ramify.branches(block(3, 2), stages, example=x, classes=5), init="identity")
