"""How long a start takes: decoding a folder or archive of pictures the first time, and reading the cache after.

    python bench/start.py path/to/cifar10-jpeg.tar.xz

Each start is a fresh process of ``ramify data``, imports included, with a cache of its own that is empty at the
first start; first and second alternate. Medians are printed, and the ratio that the cache makes.
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

PAIRS = 3


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
    source = sys.argv[1]
    first: list[float] = []
    second: list[float] = []
    pictures = 0
    for _ in range(PAIRS):
        with tempfile.TemporaryDirectory() as cache:
            for times in (first, second):
                seconds, pictures = start(source, cache)
                times.append(seconds)
    print(f"{source}: {pictures:,} pictures")
    print(f"first start  {statistics.median(first):6.2f} s  (of {', '.join(f'{value:.2f}' for value in first)})")
    print(f"second start {statistics.median(second):6.2f} s  (of {', '.join(f'{value:.2f}' for value in second)})")
    print(f"ratio {statistics.median(first) / statistics.median(second):.1f}")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
