"""A search loses or doubles nothing when processes die: real searches on digits, real ``kill -9``.

    python bench/search_kills.py kills       # 30 workers and 10 coordinators, at random moments
    python bench/search_kills.py postgres    # PostgreSQL away for 20 s, twice
    python bench/search_kills.py dask        # a scheduler and three workers: one is killed, one joins late

Each part ends with a sentence, kept in ``bench/results/search_kills.json``. ``kills`` has one worker and one seed, and
its front is compared with that of the same search left alone.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from common import RESULTS, new_parser, write_json

from ramify.run.folder import read_lines
from ramify.search.front import front_of
from ramify.search.study import Search, open_search

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.search.postgres import server

SPACE = """
base:
  data: {limit: 900, batch_size: 32, valid_fraction: 0.2}
  network.structure: [1, 0, 1]
  train.device: cpu
  train.threads: 1
vary:
  network.channels: {choice: [4, 6, 8]}
  train.learning_rate: {log: [0.02, 0.1]}
  growth_times: {float: [0.1, 0.5]}
objectives: [accuracy, macs, weights]
epochs: 12
rungs: [4, 12]
eta: 2
sampler: tpe
"""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def start(folder: Path, trials: int, *options: str) -> "subprocess.Popen[bytes]":
    """``ramify search start demo`` in ``folder``."""
    (folder / "space.yaml").write_text(SPACE)
    words = f"-m ramify search start demo space.yaml --trials {trials} --json".split()
    with (folder / "events.jsonl").open("ab") as out:
        return subprocess.Popen([sys.executable, *words, *options], cwd=folder, stdout=out, env=ENVIRONMENT)


def workers(coordinator: int) -> list[psutil.Process]:
    """The processes that train: the children of the coordinator's fork server."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(coordinator).children()
        servers = [child for child in children if "forkserver" in " ".join(child.cmdline())]
        return [worker for fork_server in servers for worker in fork_server.children()]
    return []


def check(folder: Path, count: int, storage: str | None = None) -> Search:
    """The search, after a check that every trial exists once, finished, with every epoch trained once."""
    search = open_search("demo", searches_dir=folder / "searches", storage=storage)
    trials = search.trials()
    assert [trial.number for trial in trials] == list(range(count))
    assert all(trial.finished and trial.failed is None for trial in trials), [trial.failed for trial in trials]
    for trial in trials:
        lines = read_lines(folder / "searches" / "demo" / "runs" / trial.name / "metrics.jsonl")
        assert [line["epoch"] for line in lines] == list(range(1, trial.epochs + 1))
    return search


def outcome(search: Search) -> list[object]:
    """Trials and front, for comparison."""
    trials = [(trial.number, dict(trial.params), trial.results, trial.ancestor) for trial in search.trials()]
    return [trials, [trial.number for trial in front_of(search).best]]


def kills(folder: Path, trials: int, workers_killed: int, coordinators_killed: int, seed: int) -> str:
    """Kill workers and coordinators at random moments, and compare with a search left alone."""
    calm, killed = folder / "calm", folder / "killed"
    calm.mkdir()
    killed.mkdir()
    start_time = time.monotonic()
    assert start(calm, trials).wait() == 0
    alone = time.monotonic() - start_time
    draw = random.Random(seed)
    victims = ["worker"] * workers_killed + ["coordinator"] * coordinators_killed
    draw.shuffle(victims)
    process, kill_counts = start(killed, trials), {"worker": 0, "coordinator": 0}
    for victim in victims:
        time.sleep(draw.uniform(0.5, 2.5 * alone / len(victims)))
        if process.poll() is not None:
            break
        if victim == "coordinator":
            process.kill()
            process.wait()
            process = start(killed, trials)
        else:
            until = time.monotonic() + 60
            while not (running := workers(process.pid)) and time.monotonic() < until:
                time.sleep(0.05)
            for worker in running:
                worker.send_signal(signal.SIGKILL)
            if not running:
                continue
        kill_counts[victim] += 1
    assert process.wait() == 0
    same = outcome(check(calm, trials)) == outcome(check(killed, trials))
    assert same, "the killed search ended otherwise"
    summary = f"{kill_counts['worker']} workers and {kill_counts['coordinator']} coordinators killed (seed {seed})"
    return (
        f"{summary}: {trials} of {trials} trials finished once, the record and the front are those of the search "
        f"left alone ({alone:.0f} s)"
    )


def postgres(folder: Path, trials: int, seconds: float) -> str:
    """Three workers, and a database that stops twice."""
    with server() as database:
        process = start(folder, trials, "--storage", database.url, "--workers", "3")
        before: set[int] = set()
        for _ in range(2):
            while process.poll() is None and len(workers(process.pid)) < 3:
                time.sleep(0.5)
            time.sleep(10)
            before |= {worker.pid for worker in workers(process.pid)}
            assert process.poll() is None, "the search was over before the database was stopped"
            database.away(seconds)
        after = {worker.pid for worker in workers(process.pid)}
        assert process.wait() == 0
        check(folder, trials, database.url).close()
    assert len(before) == 3
    assert not after - before, "a worker died"
    return f"PostgreSQL away for {seconds:g} s twice: {trials} of {trials} trials finished once by the same 3 workers"


@contextlib.contextmanager
def dask(*arguments: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """``dask scheduler`` or ``dask worker``, killed after the block."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{arguments[0]}", *arguments[1:]],
            stdout=out,
            stderr=out,
            env=ENVIRONMENT,
        )
    try:
        yield process
    finally:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            child.kill()
        process.kill()
        process.wait()


def cluster(folder: Path, trials: int) -> str:
    """A scheduler and two workers: one is killed during a trial, and a third joins late."""
    with contextlib.ExitStack() as stack:
        port = str(random.randrange(20_000, 30_000))
        address, alone = f"tcp://127.0.0.1:{port}", ["--nthreads", "1", "--no-nanny", "--no-dashboard"]
        scheduler = ["scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
        stack.enter_context(dask(*scheduler, log=folder / "scheduler.log"))
        first, _ = (
            stack.enter_context(dask("worker", address, *alone, "--name", name, log=folder / f"{name}.log"))
            for name in ("first", "second")
        )
        process = start(folder, trials, "--on", f"dask://127.0.0.1:{port}")
        while not any((folder / "searches" / "demo" / "runs").glob("*/metrics.jsonl")):
            time.sleep(0.1)
            assert process.poll() is None
        first.kill()
        stack.enter_context(dask("worker", address, *alone, "--name", "third", log=folder / "third.log"))
        assert process.wait() == 0
        check(folder, trials)
    return f"Dask on 127.0.0.1, one of three workers killed, one joined late: {trials} of {trials} trials finished once"


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("part", choices=["kills", "postgres", "dask"])
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--workers", type=int, default=30, help="killed")
    parser.add_argument("--coordinators", type=int, default=10, help="killed")
    parser.add_argument("--seconds", type=float, default=20, help="for which PostgreSQL is away")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.part == "kills":
            sentence = kills(folder, args.trials, args.workers, args.coordinators, args.seed)
        elif args.part == "postgres":
            sentence = postgres(folder, args.trials, args.seconds)
        else:
            sentence = cluster(folder, args.trials)
    print(sentence)
    path = RESULTS / "search_kills.json"
    sentences = json.loads(path.read_text()) if path.exists() else {}
    write_json(path, {**sentences, args.part: sentence})


if __name__ == "__main__":
    main()
