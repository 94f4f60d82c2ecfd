"""How long a start takes: of a command, of training, and of decoding pictures, with an empty and a full cache.

    python bench/start.py [ARCHIVE]

``ramify --help``, and ``ramify train`` on the embedded digits up to its first step, each in a fresh process, five
times. With ARCHIVE, ``ramify data`` also runs in fresh processes that share a cache, empty at the first start: first
and second start alternate. Medians, and the ratio that the cache makes.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch
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


def seconds_of(*words: str, cache: str | None = None) -> float:
    """Seconds that a fresh Python takes for ``words``, with the cache folder ``cache``."""
    environment = os.environ if cache is None else {**os.environ, "RAMIFY_CACHE": cache}
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], env=environment, capture_output=True, check=True)
    return time.perf_counter() - start


def show(name: str, times: list[float]) -> None:
    print(f"{name:22} {statistics.median(times):6.2f} s  (of {', '.join(f'{value:.2f}' for value in times)})")


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("archive", nargs="?")
    args = parser.parse_args()
    print(machine(torch.get_num_threads()))
    show("ramify --help", [seconds_of("-m", "ramify", "--help") for _ in range(STARTS)])
    with tempfile.TemporaryDirectory() as folder:
        steps = [seconds_of("-c", FIRST_STEP, f"runs_dir={folder}/{turn}") for turn in range(STARTS)]
    show("first step on digits", steps)
    if args.archive:
        first: list[float] = []
        second: list[float] = []
        for _ in range(PAIRS):
            with tempfile.TemporaryDirectory() as cache:
                for times in (first, second):
                    times.append(seconds_of("-m", "ramify", "data", f"data.source={args.archive}", cache=cache))
        show("first start", first)
        show("second start", second)
        print(f"ratio {statistics.median(first) / statistics.median(second):.1f}")


if __name__ == "__main__":
    main()
