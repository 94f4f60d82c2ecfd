"""Every control of pruning, with every policy, unit and layout of the weights."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch

from ramify.config.rules import NetworkConfig
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.ops.pruning.prune import prune
from tests.conftest import CommandLine

CONTROLS, POLICIES, UNITS = (
    ("none", "shuffle", "invert", "reinit"),
    ("skip_layer", "normal", "iterative"),
    ("weight", "channel"),
)
RUN = (
    "train.epochs=2",
    "train.device=cpu",
    "data.limit=40",
    "data.batch_size=20",
    "network.kind=full_ic",
    "network.structure=[1,0]",
    "network.channels=4",
    "prune.enabled=true",
    "prune.epochs=[2]",
    "prune.criterion=magnitude",
    "prune.keep_ratio=0.6",
)


@pytest.mark.parametrize(("control", "policy", "unit"), [*product(CONTROLS, POLICIES, UNITS)])
def test_a_training_takes_every_control(ramify: CommandLine, control: str, policy: str, unit: str) -> None:
    """Weights lie channels last in a training."""
    given = (f"prune.control={control}", f"prune.policy={policy}", f"prune.unit={unit}")
    answer = ramify("train", *RUN, *given, "name=mine", "--quiet")
    if answer.code == 2:
        assert unit == "channel" and "accepted: " in answer.err, answer.err  # noqa: PT018 - a control of weights alone
        return
    assert answer.code == 0, answer.err
    events = [json.loads(line) for line in Path("runs/mine/events.jsonl").read_text().splitlines()]
    [pruned] = [event for event in events if event["event"] == "pruned"]
    assert pruned["after"] < pruned["before"]


@pytest.mark.parametrize(("control", "unit"), [*product(CONTROLS, UNITS)])
def test_the_layout_of_weights_changes_no_mask(control: str, unit: str) -> None:
    config = NetworkConfig(structure=(1, 0), kind="full_ic", channels=4, input_shape=(1, 8, 8), classes=3)
    found: list[dict[str, torch.Tensor]] = []
    for layout in (torch.contiguous_format, torch.channels_last):
        network = Network(config, seed=1)
        network.to(memory_format=layout)  # type: ignore[call-overload]  # its types lack the layout
        prune(network, 0.6, "magnitude", unit=unit, control=control, seed=2)  # type: ignore[arg-type]  # by name
        found.append({name: layer.mask for name, layer in masked_layers(network).items()})
    assert all(torch.equal(mask, found[1][name]) for name, mask in found[0].items())
    assert not all(mask.all() for mask in found[0].values())
