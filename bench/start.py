"""How long a start takes: of a command, of training, and of decoding pictures the first time and every time after.

    python bench/start.py [ARCHIVE]

``ramify --help``, and what ``ramify train`` does on the embedded digits up to its first step, are timed from the shell,
each in a fresh process, five times. Where a folder or archive is given, it is decoded the first time, and read from the
cache after: each start is a fresh process of ``ramify data``, imports included, with a cache of its own that is empty
at the first start; first and second alternate. Medians are printed, and the ratio that the cache makes.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import torch

PAIRS, STARTS = 3, 5

FIRST_STEP = """
import sys
from ramify.cli import main  # what the command imports
from ramify.training.allocator import keep_freed_memory
keep_freed_memory()
from ramify.config.read import read_configs
from ramify.run.events import StepDone
from ramify.training.run import train
from ramify.show.trackers.registry import trackers

class Stepped(Exception):
    pass

def watch(event):
    if isinstance(event, StepDone):
        raise Stepped

try:
    train(read_configs([], sys.argv[1:])[0], [watch])
except Stepped:
    pass
"""
"""What ``ramify train`` does, up to its first step."""


def seconds_of(*words: str) -> float:
    """From the shell until a fresh Python is done with ``words``."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=True)
    return time.perf_counter() - began


def told(times: list[float]) -> str:
    return f"{statistics.median(times):6.2f} s  (of {', '.join(f'{value:.2f}' for value in times)})"


def begin() -> None:
    """Help, and the first step on digits."""
    with tempfile.TemporaryDirectory() as folder:
        helped = [seconds_of("-m", "ramify", "--help") for _ in range(STARTS)]
        stepped = [seconds_of("-c", FIRST_STEP, f"runs_dir={folder}/{turn}") for turn in range(STARTS)]
    print(f"ramify --help          {told(helped)}")
    print(f"first step on digits   {told(stepped)}")


def start(source: str, cache: str) -> tuple[float, int]:
    """Seconds from the shell until the pictures are counted, and how many there are."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "ramify", "data", f"data.source={source}", "--json"],
        env={**os.environ, "RAMIFY_CACHE": cache},
        capture_output=True,
        check=True,
    )
    seconds = time.perf_counter() - began
    counted = json.loads(done.stdout)
    return seconds, sum(counted["train"]) + sum(counted["test"])


def main() -> None:
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}, torch {torch.__version__}"
    )
    begin()
    for source in sys.argv[1:2]:
        decode(source)


def decode(source: str) -> None:
    """The first start on pictures, and those after."""
    first: list[float] = []
    second: list[float] = []
    pictures = 0
    for _ in range(PAIRS):
        with tempfile.TemporaryDirectory() as cache:
            for times in (first, second):
                seconds, pictures = start(source, cache)
                times.append(seconds)
    print(f"{source}: {pictures:,} pictures")
    print(f"first start  {told(first)}")
    print(f"second start {told(second)}")
    print(f"ratio {statistics.median(first) / statistics.median(second):.1f}")


if __name__ == "__main__":
    main()
