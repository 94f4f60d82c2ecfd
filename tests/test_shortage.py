"""What a machine refuses is a sentence."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ramify.errors import ConfigError, InputError, RunError
from ramify.run.device import place_of
from ramify.shortage import refusal, usable_threads
from ramify.training.feeding import Batch
from ramify.training.preflight import check_run, few_pictures
from ramify.training.regrowing import Moves
from ramify.training.step import Step
from tests.conftest import TINY, CommandLine, tiny


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EMFILE, errno.EIO])
def test_a_file_that_the_system_refuses_is_named_with_the_reason(number: int) -> None:
    told = refusal(OSError(number, os.strerror(number), "runs/demo"))
    assert isinstance(told, InputError if number in (errno.EACCES, errno.EROFS) else RunError)
    assert str(told).startswith("runs/demo: ")
    assert os.strerror(number) in str(told)


def test_memory_that_is_not_there_is_told_with_what_was_asked() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    told = refusal(caught.value)
    assert isinstance(told, RunError)
    assert str(told).startswith("memory: got 4,000,000 GB at once; accepted: ")
    assert "\n" not in str(told)


def test_faults_of_our_own_stay_what_they_are() -> None:
    assert refusal(RuntimeError("shapes differ")) is None


def test_no_more_threads_than_processors() -> None:
    threads, note = usable_threads(1_000_000)
    assert threads == os.cpu_count()
    assert note is not None
    assert note.startswith("threads: got 1,000,000; ")


def test_what_is_known_to_fail_is_refused() -> None:
    def refused(*overrides: str) -> str:
        config = tiny(*overrides)
        shaped = config.model_copy(
            update={"network": config.network.model_copy(update={"input_shape": (1, 8, 8), "classes": 10})}
        )
        with pytest.raises(ConfigError) as caught:
            check_run(shaped, place_of(shaped))
        return str(caught.value)

    assert refused("train.device=cpu", "train.record=true").startswith("train.record: got true")
    pruned = ("prune.enabled=true", "prune.epochs=[1]")
    assert refused(*pruned, "prune.keep_ratio=0.00001").startswith("prune.keep_ratio: got 1e-05")


def test_a_saliency_asked_for_on_more_pictures_than_there_are_is_told() -> None:
    config = tiny("prune.enabled=true", "prune.epochs=[1]", "prune.criterion=snip", "prune.batch_size=500")
    assert [note.partition(":")[0] for note in few_pictures(config, 100)] == ["prune.batch_size"]
    assert few_pictures(config, 500) == few_pictures(tiny(), 100) == ()


def test_a_key_is_explained_alone(ramify: CommandLine) -> None:
    found = ramify("config", "--keys", "train.ema")
    assert (found.code, found.out.count(" = ")) == (0, 1)
    assert ramify("config", "--keys", "train.emma").code == 2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
@pytest.mark.parametrize(("shell", "code"), [("> /dev/full", 1), (">&-", 2), ("2>&- <&-", 0)])
def test_outputs_that_take_nothing_are_told(shell: str, code: int) -> None:
    run = [sys.executable, "-m", "ramify", "config", "--presets"]
    done = subprocess.run(["sh", "-c", f'"$@" {shell}', "sh", *run], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == (code != 0)
    assert code == 0 or done.stderr.startswith("error: standard output: ")


def test_memory_that_ends_in_mid_training_is_told_and_the_checkpoint_stays(
    ramify: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, take = 0, Step.take

    def full(step: Step, fed: Batch, whole: int, taus: Tensor, rate: float, moves: Moves) -> Tensor:
        nonlocal taken
        taken += 1
        if taken == 5:  # in the second epoch of three steps
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 154618822656 bytes.")
        return take(step, fed, whole, taus, rate, moves)

    with monkeypatch.context() as patched:
        patched.setattr(Step, "take", full)
        answer = ramify("train", *TINY, "name=mine")
    assert (answer.code, "got 155 GB at once" in answer.err, answer.err.count("\n")) == (1, True, 1), answer.err
    assert ramify("train", "--resume", "mine", "--quiet").code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_limit_of_a_shell_counts_as_memory() -> None:
    code = (
        "import resource; from ramify.shortage import free_memory; "
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)); print(free_memory())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(found.stdout) < 2**30
