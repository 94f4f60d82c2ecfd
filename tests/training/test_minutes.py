"""A run in as many epochs as fit into some minutes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.config.rules import Config, DataConfig, GrowthConfig, NetworkConfig, TrainConfig
from ramify.errors import ConfigError
from ramify.training import minutes as module
from ramify.training.minutes import ShortRun, rescale_to_minutes, seconds_of

SMALL = Config(
    data=DataConfig(limit=60),
    network=NetworkConfig(structure=(1, 0), channels=2),
    growth=GrowthConfig(epochs=(11,)),
    train=TrainConfig(epochs=40),
)


@given(st.floats(0, 10), st.floats(1e-5, 1), st.integers(1, 500), st.integers(501, 2000), st.integers(2001, 100_000))
def test_an_epoch_is_a_line_in_the_pictures(fixed: float, slope: float, few: int, more: int, pictures: int) -> None:
    runs = [ShortRun(count, fixed + slope * count, 0.0) for count in (few, more)]
    assert seconds_of(pictures, runs) == pytest.approx(fixed + slope * pictures, rel=1e-6)


def test_short_runs_stay_within_their_share_and_the_epochs_within_the_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []

    def pretended(_: Config, epochs: int, limit: int) -> ShortRun:
        limits.append(limit)
        return ShortRun(min(limit, 50), 2.0, 0.0)

    monkeypatch.setattr(module, "short_run", pretended)
    fitted = rescale_to_minutes(SMALL, 10)
    assert fitted.train.epochs in (288, 289, 290, 291)  # 600 s less 3 %, in epochs of 2 s
    assert fitted.growth.epochs is not None
    assert fitted.growth.epochs[0] == pytest.approx(1 + 10 * fitted.train.epochs / 40, abs=1)
    assert len(limits) == 1


def test_a_short_run_of_all_there_is_decides() -> None:
    fitted = rescale_to_minutes(SMALL, 60)
    assert fitted.train.epochs > 40
    assert fitted.data == SMALL.data


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf"), 1e-6])
def test_minutes_that_do_not_do_are_one_sentence(minutes: float) -> None:
    with pytest.raises(ConfigError, match=r"^minutes: got .*; accepted: "):
        rescale_to_minutes(SMALL, minutes)


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="2 processes"):
        rescale_to_minutes(SMALL, 1)
