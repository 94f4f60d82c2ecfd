"""The server: the same answers as the network gives itself, and a sentence for everything else."""

import base64
import importlib.util
import io
import itertools
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import checks
from schemathesis.core.result import Ok

from ramify.answer.answerer import Answerer, TorchAnswerer, answerer
from ramify.answer.picture import read_picture
from ramify.answer.runtime import Answers, Floats
from ramify.answer.samples import pictures_to_try
from ramify.errors import InputError
from ramify.run.calibrate import calibrate_run
from ramify.run.saved import run_behind
from ramify.serve.guard import Hosts
from ramify.serve.run import hosts_of, listening
from ramify.serve.server import Limits, app
from ramify.serve.upload import file_name
from ramify.training.run import train
from tests.conftest import CommandLine, edit_config, tiny
from tests.serve.serving import BOUNDARY, FORM, REQUESTS, Reply, ask, form, huge_header, picture, running


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(train(tiny(f"runs_dir={tmp_path_factory.mktemp('runs')}", "name=served")).folder)


@pytest.fixture(scope="module")
def network(run: Path) -> Answerer:
    # What is noise to such a small network leaves at every one of its exits where the threshold lies in the middle.
    unruled = answerer(run)
    noise = [read_picture(picture(seed), "noise", unruled.input_shape) for seed in range(40)]
    middle = np.quantile([each.confidence for image in noise for each in unruled.opinions(image)[:2]], 0.6)
    return answerer(run, threshold=round(float(middle), 3))


@pytest.fixture(scope="module")
def served(run: Path, network: Answerer) -> FastAPI:
    return app(network, Limits(upload_bytes=200_000), pictures_to_try(run, network, 6))


@pytest.fixture(scope="module")
def client(served: FastAPI) -> Iterator[TestClient]:
    with TestClient(served, base_url="http://127.0.0.1") as made:
        yield made


def post(client: TestClient, content: bytes, name: str = "picture.png") -> tuple[int, Reply]:
    reply = client.post("/api/predict", files={"file": (name, content)})
    found: Reply = reply.json()
    return reply.status_code, found


def refusal(client: TestClient, content: bytes, name: str = "picture.png") -> tuple[int, str]:
    status, found = post(client, content, name)
    assert list(found) == ["error"]
    return status, found["error"]


def test_an_answer_is_the_networks_own_and_adds_up(client: TestClient, network: Answerer) -> None:
    left = set()
    for seed in range(40):
        content = picture(seed)
        status, found = post(client, content)
        image = read_picture(content, "it", network.input_shape)
        own, opinions = network.predict(image[None]), network.opinions(image)
        assert status == 200
        assert found["class"] == network.classes[own.classes[0]]
        assert found["confidence"] == pytest.approx(float(own.confidence[0]))
        assert found["exit"] == own.exits[0] + 1
        assert found["macs"] == network.macs[own.exits[0]]
        assert found["saved"] == pytest.approx(1 - found["macs"] / found["macs_last"])
        assert [each["class"] for each in found["opinions"]] == [network.classes[each.label] for each in opinions]
        assert [each["answered"] for each in found["opinions"]] == [at + 1 == found["exit"] for at in range(3)]
        answered = found["opinions"][found["exit"] - 1]
        assert (answered["class"], answered["confidence"]) == (found["class"], found["confidence"])
        for each in found["opinions"]:
            chances = [chance["probability"] for chance in each["top"]]
            assert len(chances) == 5
            assert chances == sorted(chances, reverse=True)
        left.add(found["exit"])
    assert left == {1, 2, 3}


def test_the_model_is_told(client: TestClient, network: Answerer) -> None:
    found = client.get("/api/model").json()
    assert found["name"] == "served"
    assert found["classes"] == list(network.classes)
    assert found["input_shape"] == [1, 8, 8]
    first, second, last = (each["threshold"] for each in found["exits"])
    assert 0 < first == second < 1
    assert last is None
    assert f"reaches {first:g}" in found["policy"]
    assert found["exits"][-1]["share"] == 1
    assert "not calibrated" in found["policy"]
    assert found["limits"]["upload_bytes"] == 200_000


def test_without_a_policy_all_pictures_go_to_the_last_exit_and_it_is_said(run: Path) -> None:
    client = TestClient(app(answerer(run)), base_url="http://127.0.0.1")
    assert "none was calibrated" in client.get("/api/model").json()["policy"]
    assert [post(client, picture(seed))[1]["exit"] for seed in range(5)] == [3] * 5


def test_samples_are_test_pictures_that_leave_at_every_exit(client: TestClient) -> None:
    samples = client.get("/api/model").json()["samples"]
    assert len(samples) == 6
    found = []
    for each in samples:
        content = client.get(f"/{each['url']}").content
        assert Image.open(io.BytesIO(content)).size == (8, 8)
        found.append(post(client, content)[1])
    assert {each["exit"] for each in found} == {1, 2, 3}
    # A test picture is already what the network reads.
    assert not any(each["picture"]["converted"] for each in found)
    assert client.get("/api/samples/6").status_code == 404


def test_nothing_is_fetched_for_samples(run: Path, network: Answerer, tmp_path: Path) -> None:
    shutil.copy(run / "config.yaml", tmp_path)
    edit_config(tmp_path, "source: digits", "source: cifar10")
    assert pictures_to_try(tmp_path, network, 6) == ()
    assert pictures_to_try(run, network, 0) == ()


def test_a_run_is_found_from_what_lies_in_it(run: Path) -> None:
    assert run_behind("served", run.parent) == run
    assert run_behind(str(run / "best"), "runs") == run
    assert run_behind("unheard-of", "runs") is None


PICTURES: dict[str, tuple[bytes, str]] = {
    "gray png": (picture(0), ""),
    "larger gray png": (picture(0, size=(64, 48)), "64x48 gray made 8x8 gray"),
    "colour jpeg": (picture(0, "RGB", (30, 20), "JPEG"), "30x20 RGB made 8x8 gray"),
    "cmyk jpeg": (picture(0, "CMYK", (8, 8), "JPEG"), "8x8 RGB made 8x8 gray"),
    "rgba png": (picture(0, "RGBA"), "8x8 RGB with transparency made 8x8 gray"),
    "16-bit png": (picture(0, "I;16", (16, 16)), "16x16 gray made 8x8 gray"),
    "1-bit png": (picture(0, "1", (9, 9)), "9x9 gray made 8x8 gray"),
    "gif": (picture(0, "P", (16, 16), "GIF"), "16x16 RGB made 8x8 gray"),
    "webp": (picture(0, "RGB", (16, 16), "WEBP"), "16x16 RGB made 8x8 gray"),
    "bmp": (picture(0, "RGB", (16, 16), "BMP"), "16x16 RGB made 8x8 gray"),
    "tiff": (picture(0, "L", (8, 8), "TIFF"), ""),
    "4 pixels": (picture(0, size=(4, 4)), "4x4 gray made 8x8 gray"),
    "pgm": (picture(0, "L", (8, 8), "PPM"), ""),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_of_any_kind_are_converted_as_for_training(client: TestClient, network: Answerer, kind: str) -> None:
    content, conversion = PICTURES[kind]
    status, found = post(client, content)
    assert status == 200
    assert (found["picture"]["conversion"] or "") == conversion
    assert found["picture"]["converted"] == bool(conversion)
    head, _, data = found["picture"]["seen"].partition(",")
    assert head == "data:image/png;base64"
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) / 255
    assert seen == pytest.approx(read_picture(content, kind, network.input_shape)[0], abs=1e-6)


JPEG = picture(0, "RGB", (64, 64), "JPEG")
REFUSED: dict[str, tuple[bytes, int, str]] = {
    "text": (b"Dear all, this is no picture.", 415, "picture.png: is not a picture"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "is not a picture"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n", 415, "is not a picture"),
    "cut jpeg": (JPEG[: len(JPEG) // 2], 422, "picture.png: cannot be decoded"),
    "cut png": (picture(0, size=(64, 64))[:200], 422, "picture.png: "),
    "only a beginning": (b"\x89PNG\r\n\x1a\n", 422, "picture.png: "),
    "empty": (b"", 422, "got an empty file"),
    "100 megapixels": (huge_header(10_000), 422, "100,000,000 pixels; accepted: up to 89,000,000"),
    "10 gigapixels": (huge_header(100_000), 422, "pixels; accepted: up to 89,000,000"),
    "too many bytes": (bytes(200_001), 413, "got more than 0.2 MB; accepted: up to 0.2 MB"),
    "far too many bytes": (bytes(900_000), 413, "got more than 0.2 MB; accepted: up to 0.2 MB"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_answered_is_refused_in_a_sentence(client: TestClient, kind: str) -> None:
    content, status, sentence = REFUSED[kind]
    got, error = refusal(client, content)
    assert (got, error.count("\n")) == (status, 0)
    assert sentence in error


def test_a_form_holds_one_picture(client: TestClient) -> None:
    file = ("a.png", picture(0))

    def error(reply_of: Callable[[], object]) -> tuple[int, str]:
        reply = reply_of()
        assert hasattr(reply, "json")
        assert hasattr(reply, "status_code")
        return reply.status_code, reply.json()["error"]

    for case, status, sentence in (
        (lambda: client.post("/api/predict", files=[("file", file), ("file", file)]), 422, "got 2 parts"),
        (lambda: client.post("/api/predict", files=[("file", file)] * 30), 422, "the form cannot be read"),
        (lambda: client.post("/api/predict", files={"image": file}), 422, "got the field 'image'"),
        (lambda: client.post("/api/predict", files={"file": file}, data={"path": "/etc/passwd"}), 422, "got 2 parts"),
        (lambda: client.post("/api/predict", content=b"", headers=FORM), 422, "file: "),
        (lambda: client.post("/api/predict", content=f"--{BOUNDARY}--\r\n", headers=FORM), 422, "got nothing"),
        (lambda: client.post("/api/predict"), 415, "content-type: got ''"),
        (lambda: client.post("/api/predict", json={"file": "/etc/passwd"}), 415, "got 'application/json'"),
        (lambda: client.post("/api/predict", data={"file": "text"}), 415, "x-www-form-urlencoded"),
        (lambda: client.post("/api/predict", headers={"content-type": "multipart/form-data"}), 422, "boundary"),
    ):
        got, reply = error(case)
        assert (got, sentence in reply) == (status, True), reply
        assert reply.endswith("as multipart/form-data")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/predict", 405),
        ("DELETE", "/api/model", 405),
        ("PUT", "/", 405),
        ("GET", "/docs", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/api/samples/%2e%2e%2fconfig.yaml", 404),
        ("GET", "/api/samples/one", 422),
        ("GET", "/api/samples/-1", 404),
    ],
)
def test_other_requests_get_a_sentence_too(client: TestClient, method: str, path: str, status: int) -> None:
    reply = client.request(method, path)
    assert reply.status_code == status
    assert list(reply.json()) == ["error"]
    if status == 405:
        allowed = {"/api/predict": {"POST"}, "/api/model": {"GET"}, "/": {"GET", "HEAD"}}[path]
        assert set(reply.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "", "a b", "[::1", "1"]
)
def test_a_request_that_names_another_host_is_refused(client: TestClient, host: str) -> None:
    for path in ("/", "/api/model"):
        reply = client.get(path, headers={"host": host})
        assert reply.status_code == 400
        assert reply.json()["error"].endswith("accepted: 127.0.0.1, ::1, localhost")


def test_a_server_for_all_answers_to_addresses_but_not_to_strange_names() -> None:
    everywhere = hosts_of("0.0.0.0")
    assert everywhere.accept("192.0.2.7:8000")
    assert everywhere.accept("[2001:db8::1]:8000")
    assert everywhere.accept(socket.gethostname())
    assert not everywhere.accept("evil.example")
    assert not Hosts().accept("192.0.2.7")
    assert hosts_of("Gpu7").accept("gpu7:80")


def test_every_reply_forbids_what_is_not_its_own(client: TestClient) -> None:
    for path in ("/", "/page.js", "/page.css", "/icon.svg", "/api/model", "/openapi.json", "/nowhere"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


@given(name=st.text())
def test_a_file_name_is_never_a_path(name: str) -> None:
    said = file_name(name)
    assert 0 < len(said) <= 80
    assert "/" not in said
    assert "\\" not in said
    assert said.isprintable()


FRAGMENTS = st.sampled_from(
    [
        f"--{BOUNDARY}\r\n".encode(),
        f"--{BOUNDARY}--\r\n".encode(),
        b'Content-Disposition: form-data; name="file"; filename="a.png"\r\n',
        b'Content-Disposition: form-data; name="file"\r\n',
        b"Content-Disposition: form-data\r\n",
        b"Content-Type: image/png\r\n",
        b"\r\n",
        b"\x89PNG\r\n\x1a\n",
        picture(0),
        JPEG,
    ]
)
BOUNDED = settings(max_examples=80, suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink))


@BOUNDED
@given(parts=st.lists(FRAGMENTS | st.binary(max_size=40), max_size=9))
def test_no_body_brings_it_down(client: TestClient, parts: list[bytes]) -> None:
    reply = client.post("/api/predict", content=b"".join(parts), headers=FORM)
    assert reply.status_code in (200, 415, 422)
    assert reply.status_code == 200 or list(reply.json()) == ["error"]


@BOUNDED
@given(place=st.integers(0, len(JPEG) - 1), value=st.integers(0, 255), cut=st.integers(1, len(JPEG)))
def test_no_damaged_picture_brings_it_down(client: TestClient, place: int, value: int, cut: int) -> None:
    damaged = bytearray(JPEG)
    damaged[place] = value
    assert post(client, bytes(damaged[:cut]))[0] in (200, 415, 422)


def test_schemathesis_finds_no_fault_against_the_openapi_document(run: Path, network: Answerer) -> None:
    called_so = Hosts(frozenset({"testserver"}))
    served = app(network, samples=pictures_to_try(run, network, 6), hosts=called_so)
    schema = schemathesis.openapi.from_asgi("/openapi.json", served)
    checks.load_all_checks()
    # A document cannot say which bytes are a picture, so that what it lets through may yet be refused with 415.
    unfit = checks.CHECKS.get_one("positive_data_acceptance")
    assert not isinstance(unfit, type)
    called = set()
    for operation, mode in itertools.product(
        [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)], schemathesis.GenerationMode
    ):
        if mode.is_negative and operation.path in ("/api/health", "/api/model"):
            continue  # they take nothing that could be wrong

        @settings(BOUNDED, max_examples=25)
        @given(case=operation.as_strategy(generation_mode=mode))
        def conforms(case: schemathesis.Case[Any]) -> None:
            called.add(case.path)
            case.call_and_validate(excluded_checks=[unfit])

        conforms()
    assert called == {"/api/health", "/api/model", "/api/samples/{number}", "/api/predict"}


def test_the_requests_of_eight_clients_are_all_answered_as_the_network_does(served: FastAPI, network: Answerer) -> None:
    files = [picture(seed, "RGB" if seed % 3 == 0 else "L", (8 + seed % 5, 8)) for seed in range(50)]
    bodies = [form(content) for content in files]
    expected = []
    for content in files:
        found = network.predict(read_picture(content, "it", network.input_shape)[None])
        expected.append((network.classes[found.classes[0]], int(found.exits[0]) + 1, float(found.confidence[0])))

    def client(port: int, first: int) -> list[tuple[int, int, Reply]]:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        asked = [(first + 7 * count) % len(bodies) for count in range(REQUESTS)]
        found = [(which, *ask(connection, bodies[which])) for which in asked]
        connection.close()
        return found

    with running(served) as port, ThreadPoolExecutor(8) as clients:
        got = [each for some in clients.map(client, [port] * 8, range(8)) for each in some]
    assert len(got) == 8 * REQUESTS
    for which, status, reply in got:
        assert status == 200
        assert (reply["class"], reply["exit"], reply["confidence"]) == expected[which]


def test_a_large_body_is_refused_while_it_is_read(network: Answerer) -> None:
    """Told by its length or not, a client that sends 11 MB gets its sentence, and the next one its answer."""
    large = form(bytes(11_000_000))
    with running(app(network)) as port:
        for chunked in (False, True):
            connection = HTTPConnection("127.0.0.1", port, timeout=60)
            body = iter([large[at : at + 65536] for at in range(0, len(large), 65536)]) if chunked else large
            connection.request("POST", "/api/predict", body, FORM, encode_chunked=chunked)
            reply = connection.getresponse()
            assert reply.status == 413
            assert b"got more than 10 MB" in reply.read()
            connection.close()
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        assert ask(connection, form(picture(1)))[0] == 200
        connection.close()


def test_a_client_that_leaves_midway_is_no_fault(served: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    body = form(picture(0, size=(64, 64)))
    with running(served) as port:
        for _ in range(5):
            connection = HTTPConnection("127.0.0.1", port, timeout=60)
            connection.putrequest("POST", "/api/predict")
            for name, value in {**FORM, "Content-Length": str(len(body))}.items():
                connection.putheader(name, value)
            connection.endheaders(body[: len(body) // 2])
            connection.close()
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        assert ask(connection, body)[0] == 200
        connection.close()
    assert [each.getMessage() for each in caplog.records if each.levelname in ("WARNING", "ERROR")] == []


class Slow(TorchAnswerer):
    """An answerer that waits to be let go, and counts who is inside."""

    inside = most = 0

    def __init__(self, inner: Answerer) -> None:
        vars(self).update(vars(inner))
        self.go = threading.Event()

    def predict(self, pictures: Floats) -> Answers:
        self.inside += 1
        self.most = max(self.most, self.inside)
        assert self.go.wait(60)
        self.inside -= 1
        return super().predict(pictures)


def test_others_are_served_while_pictures_wait_for_their_turn(network: Answerer) -> None:
    slow = Slow(network)
    with running(app(slow)) as port, ThreadPoolExecutor(8) as clients:

        def client(seed: int) -> int:
            connection = HTTPConnection("127.0.0.1", port, timeout=60)
            status, _ = ask(connection, form(picture(seed)))
            connection.close()
            return status

        waiting = [clients.submit(client, seed) for seed in range(8)]
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        for _ in range(3):
            connection.request("GET", "/api/health")
            assert connection.getresponse().read() == b'{"status":"ok"}'
        connection.close()
        assert not any(each.done() for each in waiting)
        slow.go.set()
        assert [each.result() for each in waiting] == [200] * 8
    assert slow.most == 1


def test_a_port_that_is_taken_and_wrong_limits_are_told() -> None:
    with listening("127.0.0.1", 0) as sock, pytest.raises(InputError, match="--port 0 finds one"):
        listening("127.0.0.1", sock.getsockname()[1])
    with pytest.raises(InputError, match="cannot listen on nowhere"):
        listening("nowhere.invalid", 0)
    with pytest.raises(InputError, match="upload_bytes: got 0"):
        Limits(upload_bytes=0)


def test_a_missing_package_is_told_in_a_sentence(
    ramify: CommandLine, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    found = ramify("serve", str(run))
    assert found.code == 2
    assert found.err == "error: serve: needs the package uvicorn; install it with: pip install 'ramify[serve]'\n"


def test_the_command_refuses_what_it_cannot_serve(ramify: CommandLine, run: Path) -> None:
    assert ramify("serve", "unheard-of").code == 2
    wrong = ramify("serve", str(run), "--threshold", "2")
    assert (wrong.code, "threshold: got 2" in wrong.err) == (2, True)
    with listening("127.0.0.1", 0) as sock:
        taken = ramify("serve", str(run), "--port", str(sock.getsockname()[1]), "--samples", "0")
    assert (taken.code, taken.err.count("\n")) == (2, 1)
    assert "cannot listen" in taken.err


def test_a_calibrated_policy_travels_along(run: Path) -> None:
    calibrate_run(run, max_macs=0.8)
    client = TestClient(app(answerer(run)), base_url="http://127.0.0.1")
    assert client.get("/api/model").json()["policy"].startswith("policy: calibrated")
