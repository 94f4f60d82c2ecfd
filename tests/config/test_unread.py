"""A key that somebody set and that a run does not read is named, with the reason; no other is."""

from pathlib import Path

import pytest

from ramify.config.presets import presets
from ramify.config.read import read_config, to_yaml
from ramify.config.rules import resolve
from ramify.config.unread import unread

GROWN = ("train.epochs=20", "network.structure=[1,0]", "growth.epochs=[3]")
PRUNED = ("prune.enabled=true", "prune.epochs=[2]")
PARENT = ("parent=somewhere", "train.learning_rate=0.1")
CASES = {
    "momentum": (("train.optimizer=adamw",), "train.momentum=0.5"),
    "gammas": (("train.schedule=cosine",), "train.gammas=0.5"),
    "decay": (("train.weight_decay=0",), "train.decay=all"),
    "temperature": ((), "train.distill_temperature=2"),
    "tau": ((*PARENT, "train.exits_only=true", "network.structure=[1,0]"), "train.tau_max=[0.5]"),
    "focus": (("network.kind=full",), "train.exit_focus=0.5"),
    "mixing": ((), "data.mix_ramp=0.5"),
    "by loss": (GROWN, "growth.min_epochs=3"),
    "grown": (("network.kind=full_ic",), "growth.freeze=before"),
    "widened": (GROWN, "growth.widen=3"),
    "pruned": ((), "prune.keep_ratio=0.3"),
    "minimum": (PRUNED, "prune.min_ratio=0.3"),
    "moved": (PRUNED, "prune.interval=3"),
    "unscored": ((*PRUNED, "prune.criterion=magnitude"), "prune.batches=3"),
    "unscored and moved": (("prune.enabled=true", "prune.policy=set"), "prune.batches=3"),
    "budget": ((*PRUNED, "prune.unit=channel", "prune.max_macs=0.5"), "prune.keep_ratio=0.3"),
}
READ = {
    "momentum": ("train.optimizer=normed_muon",),
    "gammas": (),
    "decay": (),
    "temperature": ("train.distill=0.5",),
    "mixing": ("data.cutmix=1",),
    "by loss": ("growth.mode=loss",),
    "grown": GROWN,
    "widened": ("train.epochs=20", "network.structure=[1,0]", "growth.plan=[deeper,wider]"),
    "pruned": PRUNED,
    "minimum": (*PRUNED, "prune.policy=iterative"),
    "moved": ("prune.enabled=true", "prune.policy=set"),
    "unscored": PRUNED,
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_named_with_the_key_on_which_it_depends(case: str) -> None:
    others, override = CASES[case]
    assert unread(read_config(overrides=others)) == ()
    [note] = unread(read_config(overrides=[*others, override]))
    key, _, why = note.partition(": not read, as ")
    assert key == override.partition("=")[0]
    assert why


@pytest.mark.parametrize("case", [case for case in CASES if case != "gammas"])
def test_the_file_of_a_run_says_the_same(case: str, tmp_path: Path) -> None:
    """There, keys that were left open are filled in, and gammas without milestones are gone."""
    others, override = CASES[case]
    for given in (others, (*others, override)):
        config = read_config(overrides=given)
        (tmp_path / "config.yaml").write_text(to_yaml(resolve(config)))
        assert unread(read_config([tmp_path / "config.yaml"])) == unread(config)


@pytest.mark.parametrize("case", READ)
def test_one_that_is_read_is_not_named(case: str) -> None:
    assert unread(read_config(overrides=[*READ[case], CASES[case][1]])) == ()


@pytest.mark.parametrize("preset", presets().values(), ids=presets())
def test_no_preset_has_one(preset: Path) -> None:
    assert unread(read_config([preset])) == ()


def test_keys_of_one_reason_share_a_sentence() -> None:
    notes = unread(read_config(overrides=["prune.epochs=[2]", "prune.keep_ratio=0.3", "prune.compact=true"]))
    assert notes == ("prune.keep_ratio, prune.epochs: not read, as prune.enabled is false",)


def test_what_a_run_with_a_parent_took_from_it_about_growth_is_not_named() -> None:
    assert unread(read_config(overrides=[*PARENT, "growth.min_epochs=3"])) == ()
