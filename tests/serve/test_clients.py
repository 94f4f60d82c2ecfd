"""The command `ramify serve` under slow and many clients."""

import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ramify.answer.answerer import answerer
from ramify.errors import InputError
from ramify.serve import connections
from ramify.serve.guard import Origins
from ramify.serve.server import app
from ramify.training.run import train
from tests.conftest import CommandLine, tiny
from tests.serve.serving import BOUNDARY, REQUESTS, ask, command, ended, form, picture, running

resource = pytest.importorskip("resource")
HEADER = f"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
HALVES = (HEADER.encode(), f"{HEADER}Content-Length: 5000\r\n\r\n--{BOUNDARY}\r\n".encode(), b"")
"""A request that is cut in its headers, in its body, and before it began."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(train(tiny(f"runs_dir={tmp_path_factory.mktemp('runs')}", "name=served")).folder)


@pytest.fixture(scope="module")
def served(run: Path) -> FastAPI:
    return app(answerer(run))


def half_open(port: int, number: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=60)
    made.sendall(HALVES[number % len(HALVES)])
    return made


def good_client(port: int, seed: int, asked: int) -> list[int]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    body = form(picture(seed))
    statuses = [ask(connection, body)[0] for _ in range(asked)]
    connection.close()
    return statuses


def flood(port: int, count: int, at_once: int, opened: ExitStack) -> None:
    """Open ``count`` half-open requests, ``at_once`` without a pause, and have a picture answered after each of these.

    It is accepted after them. Without it the kernel would drop those for which the server's queue has no room, and
    they would try again a second later.
    """
    for number in range(count):
        opened.enter_context(half_open(port, number))
        if (number + 1) % at_once == 0:
            assert good_client(port, number, 1) == [200]


def test_no_picture_is_lost_beside_1100_half_open_requests(run: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2000), hard))
    output = tmp_path / "output"
    with (
        command(output, str(run), "--samples", "0", descriptors=1024) as (process, port),
        ExitStack() as opened,
        ThreadPoolExecutor(8) as clients,
    ):
        assert good_client(port, 0, 1) == [200]
        seen = psutil.Process(process.pid)
        memory = seen.memory_info().rss
        good = [clients.submit(good_client, port, seed, REQUESTS) for seed in range(8)]
        flood(port, 1100, 50, opened)
        statuses = [status for client in good for status in client.result()]
        assert statuses == [200] * 8 * REQUESTS
        assert len(seen.net_connections("tcp")) <= connections.MOST_CONNECTIONS + 65
        assert seen.memory_info().rss - memory < 100_000_000
        # Some are open still, and nobody waits for them.
        ended(process, signal.SIGINT, output)


def test_few_descriptors_serve_few_connections(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    with command(output, str(run), "--samples", "0", descriptors=100) as (process, port), ExitStack() as opened:
        flood(port, 150, 3, opened)
        assert good_client(port, 1, 20) == [200] * 20
        ended(process, signal.SIGTERM, output)


def test_too_few_descriptors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 20))
    with pytest.raises(InputError, match="serve: got 20 file descriptors"):
        connections.room_for_connections()


def test_headers_and_bodies_have_time_limits(served: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.4)
    with running(served) as port:
        for number, part in ((0, "headers"), (1, "body"), (2, "headers")):
            with half_open(port, number) as slow:
                reply = slow.makefile("rb").read()
                head, _, body = reply.partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 408 ")
                assert json.loads(body)["error"].startswith(f"{part}: not complete after")
        # Who drips is no better off than who is silent.
        with half_open(port, 0) as slow:
            with suppress(ConnectionError):
                for _ in range(20):
                    slow.sendall(b"x")
                    time.sleep(0.05)
            slow.settimeout(0.1)
            with suppress(ConnectionError):
                assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert good_client(port, 1, 3) == [200] * 3


def test_the_end_waits_for_nobody_who_has_not_asked(served: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as opened, running(served) as port:
        for number in range(12):
            opened.enter_context(half_open(port, number))
        assert good_client(port, 1, 1) == [200]
    assert [record for record in caplog.records if record.exc_info or record.levelname in ("WARNING", "ERROR")] == []


OTHERS = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:1"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
    {"sec-fetch-site": "same-site"},
]
OWN: list[dict[str, str]] = [
    {},
    {"origin": "http://127.0.0.1"},
    {"sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
]


def test_pages_of_other_sites_are_refused(served: FastAPI) -> None:
    client = TestClient(served, base_url="http://127.0.0.1")
    for headers in OTHERS:
        for reply in (
            client.get("/api/model", headers=headers),
            client.post("/api/predict", files={"file": ("a.png", picture(0))}, headers=headers),
        ):
            assert (reply.status_code, reply.json()["error"].partition(":")[0]) == (403, "origin")
            assert "access-control-allow-origin" not in reply.headers
    for headers in OWN:
        assert client.get("/api/model", headers=headers).status_code == 200


def test_a_site_that_is_named_may_ask(run: Path) -> None:
    site = "https://labels.example"
    client = TestClient(app(answerer(run), origins=Origins((site,))), base_url="http://127.0.0.1")
    reply = client.get("/api/model", headers={"origin": site, "sec-fetch-site": "cross-site"})
    assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, site)
    assert client.get("/api/model", headers={"origin": f"{site}.evil"}).status_code == 403
    asked = {"origin": site, "access-control-request-method": "POST"}
    assert client.options("/api/predict", headers=asked).status_code == 200


def test_what_is_no_origin_is_told(ramify: CommandLine, run: Path) -> None:
    answer = ramify("serve", str(run), "--allow_origin", "labels.example/page")
    assert (answer.code, "allow_origin: got 'labels.example/page'" in answer.err) == (2, True)
