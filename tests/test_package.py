"""What users of the package rely on besides its code."""

import subprocess
import sys
from pathlib import Path

import ramify


def test_the_package_tells_type_checkers_that_it_is_typed() -> None:
    assert Path(ramify.__file__).with_name("py.typed").exists()


def test_the_module_and_the_console_script_are_one() -> None:
    module = subprocess.run([sys.executable, "-m", "ramify", "--version"], capture_output=True, text=True, check=True)
    script = Path(sys.executable).with_name("ramify")
    console = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert module.stdout == console.stdout == f"ramify {ramify.__version__}\n"
