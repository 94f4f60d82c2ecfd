"""The same run in other epochs: order and number of what happens stay."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ramify.config.rescaling import rescale
from ramify.config.rules import Config, DataConfig, GrowthConfig, NetworkConfig, PruneConfig, TrainConfig
from ramify.errors import ConfigError

SEED = Config(
    network=NetworkConfig(structure=(0, 0, 1, 0, 0, 1, 0, 1, 0)),
    growth=GrowthConfig(epochs=(25, 50, 75)),
    prune=PruneConfig(enabled=True, policy="skip_layer", epochs=(10, 35, 60, 85)),
    train=TrainConfig(epochs=250, milestones=(120, 160, 180), gammas=(0.1, 0.01, 0.01)),
)


@given(st.integers(8, 2000))
def test_what_happens_keeps_its_number_and_order(epochs: int) -> None:
    short = rescale(SEED, epochs)
    assert short.train.epochs == epochs
    assert short.growth.epochs is not None
    assert short.train.milestones is not None
    assert (len(short.growth.epochs), len(short.prune.epochs), len(short.train.milestones)) == (3, 4, 3)
    after = [*short.prune.epochs, *short.growth.epochs]
    before = [*SEED.prune.epochs, *(SEED.growth.epochs or ())]
    assert [before.index(epoch) for epoch in sorted(before)] == [after.index(epoch) for epoch in sorted(after)]
    for moments in (short.growth.epochs, short.prune.epochs, short.train.milestones):
        assert 1 <= min(moments) <= max(moments) <= epochs
    assert short.growth.epochs[0] >= 2


@given(
    st.lists(st.integers(1, 40), min_size=1, unique=True).map(sorted),
    st.lists(st.integers(2, 40), max_size=3, unique=True).map(sorted),
    st.integers(4, 80),
    st.sampled_from(["normal", "gradual"]),
)
@example([37], [38, 39, 40], 4, "gradual")
def test_prunings_of_the_whole_network_that_meet_become_one(
    pruned: list[int], grown: list[int], epochs: int, policy: str
) -> None:
    network = NetworkConfig(kind="iterative" if grown else "full_ic", structure=(*(1,) * len(grown), 0))
    long = Config.model_validate(
        {
            "network": network,
            "growth": {"epochs": grown or None},
            "prune": {"enabled": True, "policy": policy, "epochs": pruned},
            "train": {"epochs": 40},
        }
    )
    short = rescale(long, epochs)
    after, growths = short.prune.epochs, short.growth.epochs or ()
    assert 1 <= len(after) <= len(pruned)
    assert list(after) == sorted({*after})
    assert 1 <= after[0] <= after[-1] <= epochs
    for old, new in ((pruned[0], after[0]), (pruned[-1], after[-1])):
        # Growths stay before and after it, at least in its epoch.
        assert sum(epoch <= old for epoch in grown) <= sum(epoch <= new for epoch in growths)
        assert sum(epoch > old for epoch in grown) <= sum(epoch >= new for epoch in growths)
    if not grown and epochs != 40:
        assert abs((pruned[-1] - 1) / 40 - (after[-1] - 1) / epochs) <= 1 / epochs


@given(st.integers(40, 400))
def test_long_enough_runs_keep_the_shares(epochs: int) -> None:
    short = rescale(SEED, epochs)
    for before, after in zip(SEED.prune.epochs, short.prune.epochs, strict=True):
        assert abs((before - 1) / 250 - (after - 1) / epochs) <= 0.5 / epochs + 1e-9


def test_as_many_epochs_change_nothing() -> None:
    assert rescale(SEED, 250) == SEED


def test_patience_and_frozen_epochs_move_along() -> None:
    network = NetworkConfig(kind="full_ic", module="mine:Net", exits_at=(0.5,))
    short = rescale(Config(network=network, train=TrainConfig(epochs=30, patience=10, freeze_epochs=20)), 6)
    assert (short.train.patience, short.train.freeze_epochs) == (2, 4)
    whole = Config(network=NetworkConfig(kind="full_ic"), train=TrainConfig(epochs=30, patience=10))
    assert rescale(whole, 1).train.patience == 1


@pytest.mark.parametrize("policy", ["gradual", "normal", "iterative"])
def test_what_is_pruned_after_training_is_never_pruned_before(policy: str) -> None:
    prune = {"enabled": True, "policy": policy, "epochs": [20]}
    long = Config.model_validate({"network": {"kind": "full_ic"}, "prune": prune, "train": {"epochs": 30}})
    assert rescale(long, 2).prune.epochs == (2,)
    with pytest.raises(ConfigError, match=r"train\.epochs: got 1; accepted: at least 2"):
        rescale(long, 1)


def test_prunings_stay_behind_growths_that_the_configuration_does_not_name() -> None:
    prune = {"enabled": True, "epochs": [13]}  # the network grows before epochs 5, 8 and 12
    short = rescale(Config.model_validate({"prune": prune, "train": {"epochs": 30}}), 5)
    assert (short.growth.epochs, short.prune.epochs) == ((2, 3, 4), (4,))
    every = {"every": 3, "init": "identity"}
    long = Config.model_validate({"growth": every, "prune": {"enabled": True, "epochs": [11]}, "train": {"epochs": 30}})
    assert rescale(long, 5).prune.epochs == (5,)


def test_a_warm_up_and_sizes_move_along() -> None:
    long = Config(
        data=DataConfig(sizes=((1, 16), (101, 24), (161, 32))),
        train=TrainConfig(epochs=200, schedule="cosine", warmup=10),
    )
    short = rescale(long, 20)
    assert (short.train.warmup, short.data.sizes) == (1.0, ((1, 16), (11, 24), (17, 32)))


def test_what_is_null_stays_null() -> None:
    short = rescale(Config(), 12)
    assert (short.growth.epochs, short.train.milestones, short.growth.patience) == (None, None, None)


@pytest.mark.parametrize("epochs", [0, 1, 7])
def test_too_few_epochs_are_told(epochs: int) -> None:
    with pytest.raises(ConfigError, match=f"train.epochs: got {epochs}; accepted: "):
        rescale(SEED, epochs)


@pytest.mark.parametrize(("policy", "named"), [("skip_layer", True), ("gradual", False)])
def test_a_refusal_names_the_keys_that_need_the_epochs(policy: str, named: bool) -> None:
    prune = SEED.prune.model_copy(update={"policy": policy})
    with pytest.raises(ConfigError, match=r"growth\.epochs") as caught:
        rescale(SEED.model_copy(update={"prune": prune}), 1)
    assert ("prune.epochs" in str(caught.value)) == named
