"""What trackers are given: names that all of them take, figures that are those of the run."""

import re

from hypothesis import given
from hypothesis import strategies as st

from ramify.config.keys import keys
from ramify.config.read import read_config
from ramify.config.rules import Config
from ramify.run.evaluate import Score
from ramify.run.events import EpochDone, ExitFigures
from ramify.show.trackers.scalars import MAIN, main_settings, scalars, settings

SHARES = st.floats(0, 1)


@given(
    exits=st.lists(st.tuples(SHARES, SHARES, SHARES), min_size=1, max_size=5),
    held_out=st.booleans(),
    parity=st.none() | SHARES,
)
def test_every_figure_of_an_epoch_has_a_name_of_its_own(
    exits: list[tuple[float, float, float]], held_out: bool, parity: float | None
) -> None:
    event = EpochDone(
        epoch=3,
        epochs=9,
        stages=len(exits),
        learning_rate=0.1,
        loss=2.0,
        seconds=1.5,
        pictures_per_second=100.0,
        exits=tuple(
            ExitFigures(Score(1.0, train), Score(2.0, valid) if held_out else None) for train, valid, _ in exits
        ),
        density=tuple(density for _, _, density in exits),
        revived=0,
        gradient_parity=parity,
    )
    found = scalars(event)
    assert all(re.fullmatch(r"[a-z_]+(/[a-z_]+)*(/exit_[1-9]\d*)?", name) for name in found)
    for number, (train, valid, density) in enumerate(exits, start=1):
        assert found[f"accuracy/train/exit_{number}"] == train
        assert found.get(f"accuracy/valid/exit_{number}") == (valid if held_out else None)
        assert found[f"network/density/exit_{number}"] == density
    assert found.get("training/gradient_parity") == parity


def test_settings_are_the_whole_configuration_but_its_place() -> None:
    found = settings(Config(name="mine", runs_dir="elsewhere"))
    assert found == settings(Config())
    left_out = {key for key, _ in keys()} - set(found)
    assert left_out == {"name", "runs_dir", "data.mirror", "train.threads"}


def test_the_main_settings_hold_what_was_chosen() -> None:
    assert set(main_settings(Config())) == set(MAIN)
    chosen = main_settings(read_config(overrides=["train.momentum=0.5", "prune.epochs=[3]"]))
    assert set(chosen) == {*MAIN, "train.momentum", "prune.epochs"}
    assert chosen["prune.epochs"] == "[3]"
