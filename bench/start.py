"""How long a start takes: of a command, of training, and of decoding pictures, with an empty and a full cache.

    python bench/start.py [ARCHIVE]

``ramify --help``, and ``ramify train`` on the embedded digits up to its first step, each in a fresh process, five
times. With ARCHIVE, ``ramify data`` also runs in fresh processes that share a cache, empty at the first start: first
and second start alternate. Medians, and the ratio that the cache makes.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from common import machine, new_parser

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
    """Seconds that a fresh Python takes for ``words``."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=True)
    return time.perf_counter() - start


def describe(times: list[float]) -> str:
    return f"{statistics.median(times):6.2f} s  (of {', '.join(f'{value:.2f}' for value in times)})"


def measure_commands() -> None:
    """Help, and the first step on digits."""
    with tempfile.TemporaryDirectory() as folder:
        helps = [seconds_of("-m", "ramify", "--help") for _ in range(STARTS)]
        steps = [seconds_of("-c", FIRST_STEP, f"runs_dir={folder}/{turn}") for turn in range(STARTS)]
    print(f"ramify --help          {describe(helps)}")
    print(f"first step on digits   {describe(steps)}")


def read_pictures(source: str, cache: str) -> tuple[float, int]:
    """Seconds until ``ramify data`` has counted the pictures, and how many there are."""
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-m", "ramify", "data", f"data.source={source}", "--json"],
        env={**os.environ, "RAMIFY_CACHE": cache},
        capture_output=True,
        check=True,
    )
    seconds = time.perf_counter() - start
    counts = json.loads(process.stdout)
    return seconds, sum(counts["train"]) + sum(counts["test"])


def measure_cache(source: str) -> None:
    """The first start on pictures, and the second."""
    first: list[float] = []
    second: list[float] = []
    pictures = 0
    for _ in range(PAIRS):
        with tempfile.TemporaryDirectory() as cache:
            for times in (first, second):
                seconds, pictures = read_pictures(source, cache)
                times.append(seconds)
    print(f"{source}: {pictures:,} pictures")
    print(f"first start  {describe(first)}")
    print(f"second start {describe(second)}")
    print(f"ratio {statistics.median(first) / statistics.median(second):.1f}")


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("archive", nargs="?")
    args = parser.parse_args()
    print(machine(os.cpu_count() or 1))
    measure_commands()
    if args.archive:
        measure_cache(args.archive)


if __name__ == "__main__":
    main()
