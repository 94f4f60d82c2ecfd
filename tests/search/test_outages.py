"""A real Dask cluster that loses a worker and gets another, and a real PostgreSQL that goes away."""

import contextlib
import importlib
import multiprocessing
import os
import socket
import threading
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from ramify.errors import InputError
from ramify.search.coordinator import WorkEvent, coordinate
from ramify.search.engine import open_engine
from ramify.search.study import open_search, start_search
from ramify.search.task import TaskResult, TrialStep
from tests.killing import forked
from tests.search.postgres import server
from tests.search.quick import HERE, WANTED, finish, quick_space, quick_step, record


def slow_step(step: TrialStep) -> TaskResult:
    time.sleep(0.25)
    return quick_step(step)


def dask(kind: str, begin: Event, *arguments: str) -> None:
    """The command ``dask scheduler`` or ``dask worker``, in a process forked for it."""
    begin.wait()
    with Path(os.devnull).open("wb") as nowhere:
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
    importlib.import_module(f"distributed.cli.dask_{kind}").main([*arguments, "--no-dashboard"])


@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_whose_workers_come_and_go(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    now, later = context.Event(), context.Event()
    now.set()
    worker = (f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--no-nanny")
    importlib.import_module("distributed.cli.dask_worker")  # once for all three
    with contextlib.ExitStack() as stack:
        scheduler = forked(dask, "scheduler", now, "--host", "127.0.0.1", "--port", str(port))
        first, second = (forked(dask, "worker", begin, *worker) for begin in (now, later))
        for process in (scheduler, first, second):
            stack.callback(process.kill)
        until = time.monotonic() + 120
        while True:
            try:
                engine = stack.enter_context(open_engine(f"dask://127.0.0.1:{port}"))
                break
            except InputError:
                assert time.monotonic() < until
        search = start_search("quick", quick_space(), 8, searches_dir=tmp_path)
        events: list[WorkEvent] = []

        def notify(event: WorkEvent) -> None:
            events.append(event)
            if len(events) == 4:  # in the middle of a step
                first.kill()
                later.set()

        coordinate(search, engine, notify, step=slow_step)
        search.close()
    assert all(trial.finished and trial.failed is None for trial in search.trials())
    assert record(search) == record(finish(tmp_path / "calm", 8))


def test_a_database_that_goes_away_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with server() as postgres:
        search = start_search("quick", quick_space(), WANTED, storage=postgres.url, searches_dir=tmp_path)

        def twice() -> None:
            for _ in range(2):
                time.sleep(0.4)
                postgres.away(0.5)

        outages = threading.Thread(target=twice)
        # Another folder does not help: the database knows that somebody works on it.
        with pytest.raises(InputError, match="a search that another process works on"):
            start_search("quick", storage=postgres.url, searches_dir=tmp_path / "elsewhere")
        outages.start()
        coordinate(search, HERE, step=slow_step)
        outages.join()
        search.close()
        assert record(search) == record(finish(tmp_path / "calm"))
        there = open_search("quick", storage=postgres.url, searches_dir=tmp_path / "elsewhere")
        assert record(there) == record(search)
        there.close()
        with pytest.raises(InputError, match="another space"):
            start_search(
                "quick", quick_space().model_copy(update={"seed": 5}), storage=postgres.url, searches_dir=tmp_path
            )
        start_search("quick", storage=postgres.url, searches_dir=tmp_path).close()
