"""Engines: a task whose worker dies is started again, and what a batch system is given."""

import os
import signal
import sys
import time
from concurrent.futures import BrokenExecutor
from functools import partial
from pathlib import Path

import pytest

from ramify.errors import ConfigError, RunError
from ramify.search.engine import DEATHS, Processes, TaskEngine, Tasks, batch_cluster, open_engine


def step(notes: Path, deaths: int) -> int:
    """Note that it was begun, and kill its own worker so often."""
    with notes.open("a") as file:
        file.write("x")
    begun = len(notes.read_text())
    if begun <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return begun


def everything(tasks: Tasks[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    until = time.monotonic() + 120
    while tasks.running:
        assert time.monotonic() < until
        found |= dict(tasks.ended(1.0))
    return found


def test_a_task_is_started_again_where_its_worker_dies_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    with open_engine(None, 2, gpus=False) as engine:
        tasks: Tasks[str, int] = Tasks(engine, lambda why: -1)
        assert tasks.free == 2
        tasks.start("dies twice", partial(step, tmp_path / "one", 2))
        tasks.start("lives", partial(step, tmp_path / "two", 0))
        assert tasks.free == 0
        assert everything(tasks) == {"dies twice": 3, "lives": 1}
        # One that only ever kills its worker is given up; one that gets on is not.
        tasks.start("deadly", partial(step, tmp_path / "three", 99))
        slow = tmp_path / "four"
        tasks.start("gets on", partial(step, slow, DEATHS + 1), lambda: len(slow.read_text()) if slow.exists() else 0)
        found = everything(tasks)
        assert found["deadly"] == -1
        assert found["gets on"] == DEATHS + 2
        assert len((tmp_path / "three").read_text()) == DEATHS


def visible() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_each_process_sees_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    executor = Processes(2, gpus=2)
    first, second = executor.submit(visible), executor.submit(visible)
    assert {first.result(120), second.result(120)} == {"3", "5"}
    executor.shutdown()


def test_one_task_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"--workers: got 2; accepted: up to 1, one a GPU, or train\.device=cpu"):
        open_engine(None, 2).__enter__()


class Gone:
    def submit(self, fn: object) -> object:
        raise RuntimeError("cannot schedule new futures after shutdown")


def test_an_engine_that_is_gone_is_a_sentence() -> None:
    tasks: Tasks[str, int] = Tasks(TaskEngine(Gone(), lambda: 1, (BrokenExecutor,), "dask://a:1"), lambda why: -1)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="dask://a:1: takes no task"):
        tasks.start("a", lambda: 1)


@pytest.mark.parametrize(
    ("system", "lines"),
    [
        ("slurm", ["#SBATCH -p gpu", "#SBATCH --cpus-per-task=4", "#SBATCH -t 04:00:00", "#SBATCH --gres=gpu:1"]),
        ("pbs", ["#PBS -q gpu", "#PBS -l walltime=04:00:00", "#PBS --gres=gpu:1"]),
        ("lsf", ["#BSUB -q gpu", "#BSUB -n 4", "#BSUB --gres=gpu:1"]),
        ("sge", ["#$ -q gpu", "#$ -l h_rt=04:00:00", "#$ --gres=gpu:1"]),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_job_is_one_worker_that_takes_one_task(system: str, lines: list[str]) -> None:
    options = {"queue": "gpu", "walltime": "04:00:00", "cores": 4, "job_extra_directives": ["--gres=gpu:1"]}
    options |= {"use_stdin": False} if system == "lsf" else {}
    with batch_cluster(system, options) as cluster:
        script = cluster.job_script()
    for line in lines:
        assert line in script
    command = next(line for line in script.splitlines() if "dask_worker" in line)
    assert command.endswith("--nthreads 1")
    assert "--nworkers" not in command


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"processes": 4}, "--engine_options: processes: got 4; accepted: 1, as a job takes one task"),
        ({"quue": "gpu"}, "--engine_options: .*'quue'.*accepted: arguments of SLURMCluster"),
    ],
)
def test_bad_engine_options_are_a_sentence(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        batch_cluster("slurm", options).__enter__()


@pytest.mark.parametrize("text", ["[1]", "{", "\0"])
def test_an_engine_file_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "gpu.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"--engine_options: .*gpu\.yaml"):
        open_engine("slurm", 1, tmp_path / "gpu.yaml").__enter__()
