"""What is installed: the wheel of ramify holds all it needs, and the runtime answers without torch as ramify does."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ramify.exporting.write import Export
from tests.conftest import TINY, CommandLine

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
import sysconfig

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
    command: list[str | Path] = [sys.executable, "-c", NO_TORCH, exported.folder, photos]
    lines = run(command, tmp_path, PYTHONPATH=str(tmp_path / "site")).splitlines()
    found = [json.loads(line) for line in lines]
    expected = json.loads(ramify("predict", str(demo), str(photos), "--json").out)["pictures"]
    assert len(found) == len(expected) == 9
    for own, torchs in zip(found, expected, strict=True):
        assert all(own[key] == torchs[key] for key in ("picture", "label", "name", "exit"))
        assert own["confidence"] == pytest.approx(torchs["confidence"], abs=1e-4)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``ramify`` of a fresh environment with the wheel; what that depends on is taken from this environment."""
    place = tmp_path_factory.mktemp("fresh")
    built = wheel(ROOT, place / "wheel")
    run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], place)
    python = place / "venv" / "bin" / "python"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", "--no-deps", "--no-index", built], place)
    [packages] = place.glob("venv/lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    where = run([python, "-c", "import ramify; print(ramify.__file__)"], place).strip()
    assert Path(where).is_relative_to(place)
    return python.with_name("ramify")


COMMANDS = """
import json
import sys

from ramify.cli import main

for arguments in json.loads(sys.argv[1]):
    sys.argv = ["ramify", *arguments]
    try:
        main()
    except SystemExit as leaving:
        if leaving.code:
            raise
"""


@pytest.mark.timeout(900)
def test_an_installed_wheel_does_the_main_jobs(installed: Path, tmp_path: Path) -> None:
    assert "photos-pretrained" in run([installed, "config", "--presets"], tmp_path)
    # Two commands in one process, as each takes seconds to import what it needs.
    train = ["train", "digits", *TINY, "name=mine"]
    search = ["search", "start", "demo", "--trials", "1", "data.limit=120"]
    run([installed.with_name("python"), "-c", COMMANDS, json.dumps([train, search])], tmp_path)
    assert (tmp_path / "runs" / "mine" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "searches" / "demo").is_dir()


def test_the_readme_of_the_wheel_has_no_link_that_only_the_repository_follows(installed: Path) -> None:
    [metadata] = installed.parent.parent.glob("lib/python*/site-packages/ramify-*.dist-info/METADATA")
    text = metadata.read_text()
    assert "## Your own pictures" in text
    assert re.findall(r"\]\((?!https?:)", text) == []
