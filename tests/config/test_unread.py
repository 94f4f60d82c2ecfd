"""A key that somebody set and that a run does not read is named, with the reason; no other is."""

from pathlib import Path

import pytest

from ramify.config.presets import presets
from ramify.config.read import read_config, to_yaml
from ramify.config.rescaling import rescale
from ramify.config.rules import resolve
from ramify.config.unread import unread

GROWN = ("train.epochs=20", "network.structure=[1,0]", "growth.epochs=[3]")
PRUNED = ("prune.enabled=true", "prune.epochs=[2]")
MOVED = ("prune.enabled=true", "prune.policy=set")
PARENT = ("parent=somewhere", "train.learning_rate=0.1")
CASES = {
    "momentum": (("train.optimizer=adamw",), "train.momentum=0.5", "train.optimizer is adamw"),
    "gammas": (("train.schedule=cosine",), "train.gammas=0.5", "train.schedule is cosine"),
    "decay": (("train.weight_decay=0",), "train.decay=all", "train.weight_decay is 0"),
    "temperature": ((), "train.distill_temperature=2", "train.distill is 0 and train.teacher null"),
    "focus": (("network.kind=full",), "train.exit_focus=0.5", "the network has one exit"),
    "mixing": ((), "data.mix_ramp=0.5", "data.mixup and data.cutmix are 0"),
    "by loss": (GROWN, "growth.until=0.3", "growth.mode is scheduled"),
    "grown": (("network.kind=full_ic",), "growth.freeze=before", "the network does not grow"),
    "pruned": ((), "prune.keep_ratio=0.3", "prune.enabled is false"),
    "minimum": (PRUNED, "prune.min_ratio=0.3", "prune.policy is normal"),
    "moved": (PRUNED, "prune.interval=3", "prune.policy is normal"),
    "unscored": ((*PRUNED, "prune.criterion=magnitude"), "prune.batches=3", "prune.criterion is magnitude"),
    "unscored and moved": (MOVED, "prune.batches=3", "prune.policy is set"),
}
READ = {
    "momentum": ("train.optimizer=normed_muon",),
    "gammas": (),
    "decay": (),
    "temperature": ("train.distill=0.5",),
    "focus": ("network.kind=full_ic",),
    "mixing": ("data.cutmix=1",),
    "by loss": ("growth.mode=loss",),
    "grown": GROWN,
    "pruned": PRUNED,
    "minimum": (*PRUNED, "prune.policy=iterative"),
    "moved": MOVED,
    "unscored": PRUNED,
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_named_with_the_key_on_which_it_depends(case: str) -> None:
    others, override, why = CASES[case]
    assert unread(read_config(overrides=others)) == ()
    key = override.partition("=")[0]
    assert unread(read_config(overrides=[*others, override])) == (f"{key}: not read, as {why}",)


@pytest.mark.parametrize("case", [case for case in CASES if case != "gammas"])
def test_the_file_of_a_run_says_the_same_for_as_many_epochs_as_one_likes(case: str, tmp_path: Path) -> None:
    """There, keys that were left open are filled in, and gammas without milestones are gone."""
    others, override, _ = CASES[case]
    for given in (others, (*others, override)):
        config = read_config(overrides=given)
        (tmp_path / "config.yaml").write_text(to_yaml(resolve(config)))
        again = read_config([tmp_path / "config.yaml"])
        assert unread(again) == unread(resolve(again)) == unread(rescale(again, 60)) == unread(config)


@pytest.mark.parametrize("case", READ)
def test_one_that_is_read_is_not_named(case: str) -> None:
    assert unread(read_config(overrides=[*READ[case], CASES[case][1]])) == ()


@pytest.mark.parametrize("preset", presets().values(), ids=presets())
def test_no_preset_has_one(preset: Path) -> None:
    config = read_config([preset])
    assert unread(config) == unread(rescale(config, 2 * config.train.epochs)) == ()


def test_keys_of_one_reason_share_a_sentence() -> None:
    notes = unread(read_config(overrides=["prune.epochs=[2]", "prune.keep_ratio=0.3", "prune.compact=true"]))
    assert notes == ("prune.keep_ratio, prune.epochs: not read, as prune.enabled is false",)


def test_what_a_run_with_a_parent_took_from_it_about_growth_is_not_named() -> None:
    assert unread(read_config(overrides=[*PARENT, "growth.until=0.3"])) == ()
