"""A run in as many epochs as fit into some minutes."""

from types import SimpleNamespace

import pytest

from ramify.config.rules import Config, DataConfig, GrowthConfig, NetworkConfig, TrainConfig
from ramify.errors import ConfigError
from ramify.training import minutes as module
from ramify.training.minutes import ShortRun, rescale_to_minutes
from tests.conftest import tiny, trained

SMALL = Config(
    data=DataConfig(limit=60),
    network=NetworkConfig(structure=(1, 0), channels=2),
    growth=GrowthConfig(epochs=(11,)),
    train=TrainConfig(epochs=40),
)


def pretend(monkeypatch: pytest.MonkeyPatch, seconds: float, most: int, fixed: float = 0.0) -> list[int]:
    """Replace the short runs: ``seconds`` for a picture and epoch, and ``fixed`` for an epoch; ``most`` pictures.

    Returns the limits they get.
    """
    limits: list[int] = []

    def short_run(_: Config, epochs: int, limit: int) -> ShortRun:
        limits.append(limit)
        pictures = min(limit, most)
        return ShortRun(pictures, fixed + seconds * pictures, 0.0)

    monkeypatch.setattr(module, "short_run", short_run)
    return limits


def test_the_epochs_and_their_schedules_fit_into_the_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = pretend(monkeypatch, 1 / 25, 50)  # all training pictures of SMALL
    fitted = rescale_to_minutes(SMALL, 10)
    assert fitted.train.epochs in (288, 289, 290, 291)  # 600 s less 3 %, in epochs of 2 s
    assert fitted.growth.epochs is not None
    assert fitted.growth.epochs[0] == pytest.approx(1 + 10 * fitted.train.epochs / 40, abs=1)
    assert len(limits) == 1


def test_a_longer_short_run_takes_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = SMALL.model_copy(update={"data": DataConfig(batch_size=16)})
    limits = pretend(monkeypatch, 0.05, 1294)
    fitted = rescale_to_minutes(digits, 50)  # an epoch of all 1,294 pictures takes 65 s
    assert len(limits) == 2
    assert limits[1] * 0.05 == pytest.approx(module.SHORT_EPOCH * 50 * 60, rel=0.01)
    assert fitted.train.epochs == pytest.approx(0.97 * 50 * 60 / (1294 * 0.05), abs=1)


@pytest.mark.parametrize("taken", [None, 20])
def test_a_part_of_an_epoch_is_spread_over_all(taken: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SMALL.model_copy(update={"data": DataConfig(limit=60, epoch_pictures=taken)})
    pictures = taken or 50
    pretend(monkeypatch, 1.0, pictures)
    fitted = rescale_to_minutes(config, 4.5 * pictures / 60 / (1 - module.RESERVE))
    assert fitted.train.epochs == 5
    assert fitted.data.in_epoch(50) == pytest.approx(4.5 / 5 * pictures, abs=1)


@pytest.mark.parametrize("minutes", [10, 23.4, 100])
def test_what_each_epoch_takes_besides_its_pictures_counts(minutes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 0.005, 1294, fixed=0.5)
    fitted = rescale_to_minutes(SMALL.model_copy(update={"data": DataConfig()}), minutes)
    planned = fitted.train.epochs * (0.5 + 0.005 * fitted.data.in_epoch(1294))
    assert planned == pytest.approx((1 - module.RESERVE) * 60 * minutes, rel=module.UNUSED + 0.005)


def test_a_short_run_of_all_there_is_decides() -> None:
    fitted = rescale_to_minutes(SMALL, 60)
    assert fitted.train.epochs > 40
    assert fitted.data == SMALL.data


def test_the_short_runs_find_the_teacher() -> None:
    trained("name=mine")
    assert rescale_to_minutes(tiny("train.teacher=mine", "train.epochs=3"), 60).train.teacher == "mine"


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf"), 1e-6])
def test_minutes_that_do_not_do_are_one_sentence(minutes: float) -> None:
    with pytest.raises(ConfigError, match=r"^minutes: got .*; accepted: "):
        rescale_to_minutes(SMALL, minutes)


@pytest.mark.parametrize("minutes", [0.1, 0.94, 1.7])
def test_the_minutes_that_would_do_are_told(minutes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 1.0, 50)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 0.0))
    # 2 epochs of 50 s, and the reserve: 1.72 minutes
    with pytest.raises(ConfigError, match=r"accepted: 1\.8 or more, for 2 epochs of 50 s"):
        rescale_to_minutes(SMALL, minutes)
    assert rescale_to_minutes(SMALL, 1.8).train.epochs == 3


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="2 processes"):
        rescale_to_minutes(SMALL, 1)
