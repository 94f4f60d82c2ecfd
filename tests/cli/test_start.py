"""A start costs what is needed: help and settings are told without the libraries that train, draw or serve."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "plotly", "matplotlib", "onnx", "onnxruntime", "sklearn", "tensorboard", "fastapi", "PIL")

WATCHED = """
import sys
from ramify.cli import main
sys.argv = ["ramify", *sys.argv[1:]]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("loaded:", *[name for name in {heavy!r} if name in sys.modules])
"""


@pytest.mark.parametrize("words", [("--help",), ("train", "--help"), ("--version",)])
def test_what_is_told_without_training_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    heavy = (*HEAVY, "pydantic") if words == ("--help",) else HEAVY
    done = subprocess.run(
        [sys.executable, "-c", WATCHED.format(heavy=heavy), *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].split() == ["loaded:"]
