"""Two processes, one run: started as a user does, once for the whole module, for each costs seconds to start.

What two processes compute is compared with what one computes on the same batches by a network without batch norm
(lenet300), since batch norm sees half a batch in each. One that has it must be the same in both processes, which the
run itself checks after every change and epoch.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from ramify.config.read import read_config
from ramify.errors import ConfigError
from ramify.nn.network import Network
from ramify.run.distributed import ALONE, Team, shared_checksum, together
from ramify.run.folder import read_lines
from ramify.run.readback import describe
from ramify.run.saved import load
from ramify.training.prepare import prepare_run
from ramify.training.run import resume, train
from tests.conftest import edit_config, tiny

COMMON = """
data: {limit: 240, batch_size: 32, valid_fraction: 0.2}
train: {epochs: 6, learning_rate: 0.05, device: cpu, threads: 1}
prune: {enabled: true, epochs: [4], keep_ratio: 0.5}
"""
WITHOUT_NORM = f"""
name: two-plain
network: {{cells: lenet300, kind: iterative}}
growth: {{epochs: [3]}}
{COMMON.replace("train: {", "train: {exit_gradients: equilibrium, distill: 0.5, trunk_first: 1, ")}"""
WITH_NORM = f"""
name: two-normed
network: {{structure: [1, 0, 1], channels: 4}}
growth: {{epochs: [2, 3, 5], plan: [deeper, wider, deeper], init: identity}}
{COMMON.replace("device: cpu", "device: cpu, ema: 0.9").replace("batch_size: 32", "batch_size: 32, cutmix: 1")}"""
BY_LOSS = f"""
name: two-by-loss
network: {{structure: [1, 0, 1], channels: 4}}
growth: {{mode: loss, patience: 1, min_epochs: 1, min_improvement: 0.0, freeze: before}}
{COMMON.replace("prune: {enabled: true, epochs: [4], keep_ratio: 0.5}", "")}"""
MOVING = f"""
name: two-moving
network: {{structure: [1, 0, 1], channels: 4}}
growth: {{epochs: [2, 3]}}
{COMMON.replace("epochs: [4], keep_ratio: 0.5", "policy: rigl, keep_ratio: 0.3, interval: 3")}"""

JOB = """
import os, signal, sys, threading, time
from pathlib import Path
from ramify.cli import main

sys.argv = ["ramify", "train", "runs.yaml"]
try:
    main()
except SystemExit as leaving:
    print("the four have ended with", leaving.code or 0, flush=True)

def die() -> None:
    lines = Path("runs/dying/metrics.jsonl")
    while not (lines.exists() and lines.read_text().count("\\n") >= 2):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

if os.environ["RANK"] == "1":
    threading.Thread(target=die, daemon=True).start()
sys.argv = ["ramify", "train", "dying.yaml", "train.epochs=400", "growth.epochs=[2]", "train.milestones=[2]"]
main()
"""
"""Trains the four runs, and one of which a process dies."""


@dataclass(frozen=True)
class Job:
    """What a job of two processes left: its folder, its exit code, and what it wrote."""

    folder: Path
    code: int
    out: str
    err: str


def launch(folder: Path, script: str) -> Job:
    (folder / "job.py").write_text(script)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAMIFY_CACHE": str(folder / "cache"), "PYTHONWARNINGS": ""}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*torchrun, "job.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    return Job(folder, done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("pair")
    for number, document in enumerate((WITHOUT_NORM, WITH_NORM, BY_LOSS, MOVING)):
        (folder / f"{number}.yaml").write_text(document)
    (folder / "runs.yaml").write_text("---".join((WITHOUT_NORM, WITH_NORM, BY_LOSS, MOVING)))
    (folder / "dying.yaml").write_text(
        WITHOUT_NORM.replace("two-plain", "dying").replace("enabled: true, epochs: [4]", "enabled: false, epochs: []")
    )
    return launch(folder, JOB)


@pytest.fixture
def there(pair: Job, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert pair.out.count("the four have ended with 0") == 2, pair.err[-3000:]
    monkeypatch.chdir(pair.folder)
    return pair.folder


def test_one_process_speaks(there: Path, pair: Job) -> None:
    assert pair.out.count("epoch 6/6") == 4
    assert pair.out.count("two-plain") >= 1
    for name in ("two-plain", "two-normed", "two-by-loss", "two-moving"):
        assert describe(there / "runs" / name).finished
        assert len(read_lines(there / "runs" / name / "metrics.jsonl")) == 6


def test_two_processes_compute_what_one_does(there: Path) -> None:
    alone = train(read_config([there / "0.yaml"], ["name=alone"]))
    one, two = load(alone.folder), load("two-plain")
    for (name, here), (_, other) in zip(one.state_dict().items(), two.state_dict().items(), strict=True):
        if here.is_floating_point():
            torch.testing.assert_close(other, here, rtol=0, atol=1e-4, msg=name)
        else:
            assert torch.equal(other, here), name
    lines = [read_lines(Path("runs", name, "metrics.jsonl")) for name in ("alone", "two-plain")]
    for single, shared in zip(*lines, strict=True):
        assert float(str(shared["loss"])) == pytest.approx(float(str(single["loss"])), abs=1e-4)


def test_growth_widening_and_pruning_are_shared(there: Path) -> None:
    events = [line["event"] for line in read_lines(there / "runs/two-normed/events.jsonl")]
    assert [event for event in events if event != "best"] == ["grew", "widened", "pruned", "grew", "finished"]
    network = load("two-normed")
    assert isinstance(network, Network)
    assert network.complete
    assert [cell.inner_channels for stage in network.plans for cell in stage.cells] == [4, 6, 6][: len(network.plans)]


def test_growth_by_loss_is_decided_once(there: Path) -> None:
    events = read_lines(there / "runs/two-by-loss/events.jsonl")
    assert any(line["event"] in ("grew", "growth_ended") for line in events)


def test_two_processes_move_the_same_connections(there: Path) -> None:
    """The run itself compares the masks after every epoch; here is that they moved, and how many there are."""
    lines = read_lines(there / "runs/two-moving/metrics.jsonl")
    assert all(line["regrown"] for line in lines[:4])
    assert all(stage.density == pytest.approx(0.3, abs=0.002) for stage in describe(there / "runs/two-moving").stages)


def test_a_run_of_two_goes_on_alone(there: Path) -> None:
    """What two processes saved, one reads: the whole state is in the folder."""
    summary = resume(there / "runs/two-normed")
    assert summary.finished
    again = train(read_config([there / "1.yaml"], ["name=again"]))
    assert again.exits[-1].test is not None


def test_a_process_that_dies_ends_the_job_and_the_run_goes_on(there: Path, pair: Job) -> None:
    assert pair.code != 0
    assert "error: another process of this run has died" in pair.err, pair.err[-4000:]
    assert f"signal {signal.SIGKILL.value}" in pair.err.lower() or "sigkill" in pair.err.lower()
    folder = there / "runs" / "dying"
    kept = read_lines(folder / "metrics.jsonl")
    assert len(kept) >= 2
    edit_config(folder, "epochs: 400", f"epochs: {len(kept) + 3}")
    assert resume(folder).epochs == len(kept) + 3


@pytest.mark.parametrize(("batch", "size"), [(64, 3), (2, 2), (63, 2)])
def test_a_batch_that_cannot_be_shared_out_is_refused(batch: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", str(size))
    message = f"data.batch_size: got {batch}; accepted: a multiple of {size}, the number of processes"
    with pytest.raises(ConfigError, match=message), together(torch.device("cpu"), batch):
        pass


@pytest.mark.parametrize("key", ["limit", "epoch_pictures"])
def test_two_pictures_a_process_are_the_least(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Team, "decided", lambda team, decide: decide())
    with pytest.raises(ConfigError, match=rf"data\.{key}: got .* pictures; accepted: 32 or more, 2 a process"):
        prepare_run(tiny(f"data.{key}=20"), Team(rank=0, size=16))


def test_alone_nothing_is_shared() -> None:
    with together(torch.device("cpu"), 63) as team:
        assert team == ALONE
        assert team.decided(lambda: 3) == 3
        assert torch.equal(team.summed(torch.ones(2)), torch.ones(2))
        assert list(range(10))[team.share(10)] == list(range(10))


def test_a_checksum_sees_every_bit() -> None:
    module = torch.nn.BatchNorm2d(3)
    before = shared_checksum(module)
    assert shared_checksum(module) == before
    module.running_mean[1] = 1e-30  # type: ignore[index]
    assert shared_checksum(module) != before


def test_the_processes_are_compared_after_every_change_and_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr("ramify.run.distributed.Team.compare", lambda team, network, when: seen.append(when))
    train(tiny("prune.enabled=true", "prune.epochs=[4]", "growth.plan=[wider,deeper,deeper]", "growth.epochs=[2,3,4]"))
    assert [when for when in seen if "before" in when] == [f"epoch {i}, before its first step" for i in (2, 3, 4)]
    assert [when for when in seen if "before" not in when] == [f"epoch {i}" for i in (1, 2, 3, 4)]
