"""Grad-CAM of every exit, against a computation by hand."""

import copy
import sys

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ramify.config.rules import NetworkConfig
from ramify.errors import InputError
from ramify.nn.network import Network, Stage
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import PruneUnit, prune
from ramify.show.report.gradcam import heat_maps

SEED_CONFIG = NetworkConfig(structure=(1, 0, 1, 0), channels=4, input_shape=(3, 12, 10), classes=5)
CONFIGS = {
    "iterative": SEED_CONFIG,
    "dense": SEED_CONFIG.model_copy(update={"kind": "dense"}),
    "full_ic": SEED_CONFIG.model_copy(update={"kind": "full_ic"}),
    "full": SEED_CONFIG.model_copy(update={"kind": "full"}),
    "last stage without cells": SEED_CONFIG.model_copy(update={"structure": (1, 0, 1)}),
    "dense without last cells": SEED_CONFIG.model_copy(update={"structure": (1, 0, 1), "kind": "dense"}),
}


def built(config: NetworkConfig, seed: int = 0) -> Network:
    """A whole network whose batch norms have seen pictures."""
    network = Network(config, stages=config.exits, seed=seed)
    network.set_normalization((0.4,) * network.mean.numel(), (0.3,) * network.mean.numel())
    with torch.no_grad():
        for _ in range(3):
            network.train()(drawn(config, 16, seed=7))
    return network.eval()


def drawn(config: NetworkConfig, count: int, seed: int = 1) -> Tensor:
    assert config.input_shape is not None
    return torch.rand(count, *config.input_shape, generator=torch.Generator().manual_seed(seed))


def asked(network: Network, count: int) -> Tensor:
    """A class for each exit and picture, not always the one that is answered."""
    draw = torch.Generator().manual_seed(3)
    return torch.randint(network.config.classes or 0, (len(network.stages), count), generator=draw)


def by_hand(network: Network, images: Tensor, classes: Tensor) -> Tensor:
    """``ReLU(sum_k mean(dy / dA_k) A_k)`` for a picture at a time, written out; A is the last map of a cell."""
    rows: list[Tensor] = []
    for exit_ in range(len(network.stages)):
        row: list[Tensor] = []
        for image, wanted in zip(images, classes[exit_].tolist(), strict=True):
            trunk = network.enter(image[None])
            seen = trunk
            logits = trunk
            for stage in list(network.stages)[: exit_ + 1]:
                assert isinstance(stage, Stage)
                for plan, cell in zip(stage.plan.cells, stage.cells, strict=True):
                    output = cell(trunk)
                    if plan.type != "linear":
                        seen = output
                    trunk = torch.cat((trunk, output), dim=1) if stage.dense else output
                logits = stage.exit(trunk[:, -stage.plan.exit_channels :])
            (slope,) = torch.autograd.grad(logits[0, wanted], seen)
            total = seen.new_zeros(seen.shape[2:])
            for k in range(seen.shape[1]):
                total = total + slope[0, k].mean() * seen[0, k].detach()
            total = total.clamp(min=0)
            large = F.interpolate(total[None, None], size=image.shape[1:], mode="bilinear")[0, 0]
            row.append(large / large.max() if large.max() > 0 else large)
        rows.append(torch.stack(row))
    return torch.stack(rows)


def check(network: Network, count: int = 3) -> None:
    """In float64, so that the order of sums does not matter; in float32 it is right to what that has."""
    images, classes = drawn(network.config, count), asked(network, count)
    rough = heat_maps(network, images, classes)
    assert rough.shape == (len(network.stages), count, *images.shape[2:])
    assert rough.dtype == torch.float32
    network = copy.deepcopy(network).double()
    images = images.double()
    found, wanted = heat_maps(network, images, classes), by_hand(network, images, classes)
    assert (rough - wanted).abs().max() <= 1e-3
    assert (found - wanted).abs().max() <= 1e-9
    # A comparison of zeros would prove nothing.
    assert int((wanted.amax(dim=(2, 3)) > 0).sum()) >= wanted.shape[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_exit_equals_the_equation(name: str) -> None:
    check(built(CONFIGS[name]))


@pytest.mark.parametrize("cells", ["resnet56", "vgg16", "mobilenet", "wideresnet32_4", "lenet5"])
def test_published_networks_have_maps(cells: str) -> None:
    given = {"cells": cells, "kind": "full_ic", "input_shape": (1, 16, 16), "classes": 4}
    if cells != "lenet5":
        # Two early exits and the final one: the whole of a wide network would take long.
        given["structure"] = (0, 1, 1) + (0,) * (1 if cells == "wideresnet32_4" else 4)
    check(built(NetworkConfig.model_validate(given)), count=2)


def test_a_network_that_still_grows_has_the_exits_that_exist() -> None:
    check(Network(SEED_CONFIG, stages=2, seed=0).eval())


@pytest.mark.parametrize("unit", ["weight", "channel"])
def test_pruned_and_compacted_networks_have_maps(unit: PruneUnit) -> None:
    network = built(SEED_CONFIG)
    labels = torch.zeros(8, dtype=torch.int64)
    prune(network, 0.5, batches=[(drawn(SEED_CONFIG, 8), labels)], unit=unit)
    check(network)
    if unit == "channel":
        check(compact(network)[0])


def test_the_network_is_left_as_it_was() -> None:
    network = built(SEED_CONFIG)
    images, classes = drawn(SEED_CONFIG, 2), asked(network, 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for training in (True, False):
        network.train(training)
        heat_maps(network, images, classes)
        assert all(module.training == training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert all(not module._forward_hooks and not module._backward_hooks for module in network.modules())
    assert images.grad is None
    assert not images.requires_grad


def test_the_mode_of_the_caller_does_not_matter() -> None:
    network = built(SEED_CONFIG)
    images, classes = drawn(SEED_CONFIG, 2), asked(network, 2)
    plain = heat_maps(network, images, classes)
    assert not plain.requires_grad
    with torch.no_grad():
        assert torch.equal(heat_maps(network, images, classes), plain)
    with torch.inference_mode():
        assert torch.equal(heat_maps(network, images.clone(), classes.clone()), plain)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    assert torch.equal(heat_maps(network, images, classes), plain)


def test_a_picture_has_the_same_map_in_any_batch() -> None:
    network = built(SEED_CONFIG)
    images, classes = drawn(SEED_CONFIG, 6), asked(network, 6)
    whole = heat_maps(network, images, classes)
    alone = torch.cat([heat_maps(network, images[i : i + 1], classes[:, i : i + 1]) for i in range(6)], dim=1)
    assert torch.allclose(whole, alone, atol=1e-5)


def test_each_map_reaches_one_or_is_empty() -> None:
    network = built(SEED_CONFIG)
    tops = heat_maps(network, drawn(SEED_CONFIG, 20), asked(network, 20)).amax(dim=(2, 3))
    assert set(tops.flatten().tolist()) <= {0.0, 1.0}


def test_without_a_convolution_there_is_a_sentence() -> None:
    config = NetworkConfig.model_validate(
        {"cells": "lenet300", "kind": "full_ic", "input_shape": (1, 8, 8), "classes": 3}
    )
    network = Network(config)
    with pytest.raises(InputError, match="exit 1 with no convolution before it"):
        heat_maps(network, drawn(config, 2), torch.zeros(2, 2, dtype=torch.int64))


def test_shapes_that_do_not_fit_are_refused() -> None:
    network = built(SEED_CONFIG)
    images = drawn(SEED_CONFIG, 2)
    with pytest.raises(InputError, match=r"classes: got torch.int64 of shape \(2,\); accepted: .* \(3, 2\)"):
        heat_maps(network, images, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(InputError, match=r"images: got torch\.uint8"):
        heat_maps(network, (255 * images).to(torch.uint8), asked(network, 2))


def test_without_captum_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    network = built(SEED_CONFIG)
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(InputError, match=r"pip install 'ramify\[explain\]'"):
        heat_maps(network, drawn(SEED_CONFIG, 1), asked(network, 1))
