"""bench/gpu.sh at toy size, on whatever is here: parts are taken and joined, and runs keep to their time."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.making import encoded, write_tree

SCRIPT = Path(__file__).parent.parent / "bench" / "gpu.sh"
TOY = ("network.channels=4", "data.batch_size=50", "data.augment=none", "train.device=cpu", "train.threads=1")


def call(keep: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "KEEP": str(keep), "PART": "120k", "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(SCRIPT), *map(str, arguments)], env=given, capture_output=True, text=True, check=False, timeout=240
    )


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Some 200 kB of noise in two classes."""
    draws = np.random.default_rng(0)
    files = {
        f"{part}/{label}/{i}.png": encoded(Image.fromarray(draws.integers(0, 256, (32, 32, 3), dtype=np.uint8)))
        for part, count in (("train", 25), ("test", 5))
        for label in range(2)
        for i in range(count)
    }
    return Path(shutil.make_archive(str(tmp_path / "noise"), "zip", write_tree(tmp_path / "noise", files)))


@pytest.mark.slow
def test_parts_are_taken_one_by_one_and_the_runs_leave_what_they_came_to(archive: Path, tmp_path: Path) -> None:
    parts, keep, out = tmp_path / "parts", tmp_path / "keep", tmp_path / "out"
    assert call(keep, "split", archive, parts).returncode == 0
    names = sorted(each.name for each in parts.glob("part-*"))
    assert len(names) > 1
    for at, name in enumerate(names):
        sent = tmp_path / f"sent{at}"
        sent.mkdir()
        for each in (name, "sum"):
            shutil.copy(parts / each, sent)
        assert call(keep, "take", sent).returncode == 0
        if at == 0:
            missing = call(keep, "run", "--out", out)
            assert missing.returncode == 2
            assert "got 1 parts, which are not all of noise.zip" in missing.stderr
    ran = call(keep, "run", "seed-full-ic:0.000005", "--minutes", "4", "--out", out, "--set", *TOY)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads((out / "seed-full-ic-seed0.json").read_text())
    assert found["finished"]
    assert found["epochs"] == found["planned"] == found["wanted"]
    assert found["pflop"] == pytest.approx(0.000005, rel=0.2)
    assert len(found["exits"]) == 4
    assert (out / "runs.tar.gz").exists()


@pytest.mark.slow
def test_a_run_is_as_long_as_its_time(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    gpu = importlib.import_module("gpu")
    job = gpu.Job("seed-iterative", 1.0, TOY, 0)
    found = gpu.run(job, str(archive), str(tmp_path / "runs"), tmp_path, 3.0)
    assert found.epochs <= found.planned < found.wanted
    assert found.finished or found.why
    none = gpu.run(job, str(archive), str(tmp_path / "more"), tmp_path, 0.0)
    assert (none.finished, none.epochs, none.exits) == (False, 0, ())
    assert none.why.startswith("minutes: got ")


def test_what_cannot_run_is_one_sentence(tmp_path: Path) -> None:
    for arguments in (("run",), ("take", tmp_path), ("split", tmp_path, tmp_path), ("other",)):
        failed = call(tmp_path / "keep", *arguments)
        assert failed.returncode == 2
        assert failed.stderr.startswith("error: ")
        assert failed.stderr.count("\n") == 1
