"""What is installed: the wheel of ramify holds all it needs, and the runtime answers without torch as ramify does."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ramify.exporting.write import Export
from tests.conftest import CommandLine

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


def run(command: list[str | Path], cwd: Path, **environment: str) -> str:
    """What a command writes; it must succeed."""
    env = {**os.environ, "PYTHONPATH": "", **environment}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wheel(project: Path, folder: Path) -> Path:
    """The wheel of ``project``, built with the packages of this environment."""
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], project)
    [built] = folder.glob("*.whl")
    return built


NO_TORCH = """
import runpy
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in sys.stdlib_module_names | {"numpy", "onnxruntime", "PIL", "ramify_runtime"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
runpy.run_module("ramify_runtime", run_name="__main__")
"""


def test_the_runtime_without_torch_answers_photographs_as_ramify_does(
    exported: Export, demo: Path, ramify: CommandLine, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    draw = np.random.default_rng(0)
    for number, (mode, shape) in enumerate({"L": (30, 20), "RGB": (25, 40, 3), "RGBA": (16, 16, 4)}.items()):
        for again in range(3):
            pixels = draw.integers(0, 256, shape).astype(np.uint8)
            Image.fromarray(pixels, mode).resize((60, 50)).save(photos / f"{number}{again}.png")
    built = wheel(ROOT / "packaging" / "runtime", tmp_path / "wheel")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(tmp_path / "site")
    command = [sys.executable, "-c", NO_TORCH, exported.folder, photos]
    lines = run(command, tmp_path, PYTHONPATH=str(tmp_path / "site")).splitlines()
    found = [json.loads(line) for line in lines]
    expected = json.loads(ramify("predict", str(demo), str(photos), "--json").out)["pictures"]
    assert len(found) == len(expected) == 9
    for own, torchs in zip(found, expected, strict=True):
        assert all(own[key] == torchs[key] for key in ("picture", "label", "name", "exit"))
        assert own["confidence"] == pytest.approx(torchs["confidence"], abs=1e-4)
