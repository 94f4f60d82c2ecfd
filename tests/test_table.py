"""bench/table.py: what a training costs, and that everything that was asked for is gone on with."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import ramify
from ramify.config.rules import Config, GrowthConfig, NetworkConfig, TrainConfig
from ramify.errors import ConfigError
from ramify.files import write_atomic
from ramify.nn.network import Network
from ramify.ops.cost import cost
from tests.conftest import edit_config


@pytest.fixture(scope="module")
def table() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent.parent / "bench"))
        yield importlib.import_module("table")


def test_a_training_costs_six_operations_for_each_mac_of_the_stages_that_exist(
    table: ModuleType, tmp_path: Path
) -> None:
    network = NetworkConfig(structure=(1, 0, 1), channels=4, input_shape=(1, 8, 8), classes=3)
    config = Config(network=network, growth=GrowthConfig(epochs=(3, 6)), train=TrainConfig(epochs=10))
    first, second, last = (each.macs for each in cost(Network(network, stages=3)))
    whole = 6 * 100 * (2 * first + 3 * second + 5 * last) / 1e15
    assert table.work(config, 100, tmp_path) == pytest.approx((0, whole))
    write_atomic(tmp_path / "metrics.jsonl", b'{"epoch": 1, "stages": 1}\n{"epoch": 2, "stages": 1}\n')
    assert table.work(config, 100, tmp_path) == pytest.approx((6 * 100 * 2 * first / 1e15, whole))


def test_what_was_asked_for_is_noted_once_and_in_order(table: ModuleType, tmp_path: Path) -> None:
    jobs = [table.Job("digits", seed, ("data.limit=60", "data.source=digits"), 4) for seed in (1, 0)]
    assert table.add_jobs(tmp_path / "new", jobs[:1]) == jobs[:1]
    assert table.add_jobs(tmp_path / "new", jobs) == jobs
    assert table.add_jobs(tmp_path / "new", ()) == jobs
    assert jobs[0].name == "digits-limit-60-rescaled-to-4-epochs-seed1"  # without the place of the pictures


@pytest.mark.usefixtures("kept_graphs")
def test_a_run_of_another_preset_is_not_published(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "INT8_LOSS", -1.0)  # however little int8 loses, it is fine-tuned
    job = table.Job(
        "digits", 0, ("data.limit=60", "network.structure=[1,0]", "network.channels=4", "data.batch_size=32"), 3
    )
    row = table.train_job(job, tmp_path, 0.005)
    assert len(row.exits) == 2
    assert row.policy is not None
    assert row.int8 is not None
    assert row.tuned is not None
    child = ramify.read_config([tmp_path / f"{job.name}-int8" / "config.yaml"])
    assert (child.train.quantize, child.prune.enabled, child.train.epochs) == ("int8", False, 5)
    monkeypatch.setattr(table, "INT8_LOSS", 1.0)
    again = table.train_job(job, tmp_path, 0.005)  # read, not trained again
    assert (again.exits, again.int8, again.tuned) == (row.exits, row.int8, None)
    edit_config(tmp_path / job.name, "momentum: 0.9", "momentum: 0.8")
    with pytest.raises(ConfigError, match=r"train\.momentum 0\.8; accepted: 0\.9"):
        table.train_job(job, tmp_path, 0.005)
