"""What the 2020 recipe needs of a run: grown stages whose rate never falls, and decay of every parameter."""

from pathlib import Path

import pytest
import torch

from ramify.config.rules import Config, GrowthConfig, NetworkConfig
from ramify.errors import ConfigError
from ramify.run.checkpoint import read_model
from ramify.run.events import EpochDone, Event
from ramify.run.saved import load
from ramify.training.run import train
from tests.conftest import tiny


@pytest.mark.parametrize("rate", ["constant", "shared"])
def test_stages_that_grow_go_on_learning_where_their_rate_is_constant(rate: str) -> None:
    kept: list[dict[str, torch.Tensor]] = []

    def keep(event: Event) -> None:
        if isinstance(event, EpochDone):
            network, _ = read_model(Path("runs/mine/last"))
            kept.append({name: each.detach() for name, each in network.named_parameters()})

    schedule = ("train.milestones=[4]", "train.gammas=1e-9", f"growth.learning_rate={rate}")
    train(tiny("name=mine", "train.momentum=0", *schedule), [keep])
    before, after = kept[-2:]  # the rate has fallen to almost nothing before the last epoch
    moved = {name.startswith(("stages.1.", "stages.2.")) for name in after if not after[name].allclose(before[name])}
    assert moved == ({True} if rate == "constant" else set())


def test_a_constant_rate_is_of_stages_that_grow() -> None:
    growth = GrowthConfig(learning_rate="constant")
    with pytest.raises(ConfigError, match=r"growth.learning_rate: got 'constant'; accepted: shared"):
        Config(network=NetworkConfig(kind="full_ic"), growth=growth)
    train(tiny("name=grown", "growth.learning_rate=constant"))
    with pytest.raises(ConfigError, match=r"growth.learning_rate"):
        tiny("parent=runs/grown", "growth.epochs=null", "growth.learning_rate=constant")


def test_decay_of_everything_pulls_at_biases_and_batch_norm() -> None:
    for decay in ("weights", "all"):
        train(tiny(f"name={decay}", "train.weight_decay=2", f"train.decay={decay}"))
    spared, decayed = (
        torch.cat([each.detach().abs() for name, each in load(name_).named_parameters() if "norm" in name])
        for name_ in ("weights", "all")
    )
    assert decayed.mean() < 0.9 * spared.mean()
