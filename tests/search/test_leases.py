"""Claims: one holder, and nobody for ever; the same on files and in a database."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from ramify.search.leases import FileLeases, Leases, Worker, here, is_dead, this_worker
from ramify.search.sqlleases import SqlLeases


def opened(kind: str, folder: Path) -> Leases:
    return FileLeases(folder) if kind == "files" else SqlLeases(create_engine(f"sqlite:///{folder}/leases.db"), "demo")


@pytest.fixture(params=["files", "sql"])
def leases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Leases]:
    found = opened(request.param, tmp_path)
    yield found
    if isinstance(found, SqlLeases):
        found.engine.dispose()


def far(name: str) -> Worker:
    """A worker of another machine, of whose life nothing is known here."""
    return Worker(name, "elsewhere", 1)


def test_one_holder_until_it_lets_go(leases: Leases) -> None:
    me, you = far("me"), far("you")
    assert leases.claim("trial-1", me, 60)
    assert not leases.claim("trial-1", you, 60)
    assert leases.claim("trial-1", me, 60)
    assert leases.claim("trial-2", you, 60)
    assert {name: lease.worker for name, lease in leases.held().items()} == {"trial-1": "me", "trial-2": "you"}
    leases.release("trial-1", you)
    assert not leases.claim("trial-1", you, 60)
    leases.release("trial-1", me)
    assert leases.claim("trial-1", you, 60)


def test_a_claim_that_ran_out_is_free_and_its_holder_learns_of_it(leases: Leases) -> None:
    me, you = far("me"), far("you")
    assert leases.claim("trial-1", me, -5)
    assert leases.held() == {}
    assert leases.renew("trial-1", me, -5)  # nobody took it meanwhile
    assert leases.claim("trial-1", you, 60)
    assert not leases.renew("trial-1", me, 60)
    assert leases.held()["trial-1"].worker == "you"


def test_the_dead_of_this_machine_hold_nothing(leases: Leases) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = Worker("dead", here(), process.pid)
    assert is_dead(dead.host, dead.pid)
    assert not is_dead(here(), os.getpid())
    assert not is_dead("elsewhere", process.pid)
    assert leases.claim("trial-1", dead, 60)
    assert leases.held() == {}
    assert leases.claim("trial-1", this_worker(), 60)
    assert not leases.renew("trial-1", dead, 60)


def _compete(kind: str, folder: Path, name: str, start: Barrier, path: Path) -> None:
    leases, me = opened(kind, folder), replace(this_worker(), name=name)
    won = []
    for i in range(20):
        start.wait()
        if leases.claim(f"trial-{i}", me, 60):
            won.append(i)
    path.write_text(" ".join(map(str, won)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["files", "sql"])
def test_of_two_processes_that_claim_at_once_one_gets_it(kind: str, tmp_path: Path) -> None:
    opened(kind, tmp_path)
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    paths = [tmp_path / name for name in ("one", "two")]
    processes = [context.Process(target=_compete, args=(kind, tmp_path, path.name, start, path)) for path in paths]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    won = [int(word) for path in paths for word in path.read_text().split()]
    assert sorted(won) == list(range(20))


def test_a_lease_in_the_file_outlives_the_object(tmp_path: Path) -> None:
    assert FileLeases(tmp_path).claim("trial-1", far("me"), 60)
    assert not FileLeases(tmp_path).claim("trial-1", far("you"), 60)
    assert FileLeases(tmp_path).held()["trial-1"].until > time.time()
