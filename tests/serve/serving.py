"""Pictures, requests and a running server, for the tests of ``ramify serve``."""

import contextlib
import importlib
import io
import json
import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from http.client import HTTPConnection
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from PIL import Image

from ramify.serve.run import listening, server_of
from tests.conftest import NIGHTLY
from tests.killing import command_line, forked

Reply = dict[str, Any]
"""A JSON object that was received."""

BOUNDARY = "ramify-test"
REQUESTS = 125 if NIGHTLY else 25
"""Of each of eight clients at once."""

FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


@contextlib.contextmanager
def running(served: FastAPI) -> Iterator[int]:
    """The port on which a real server answers, in a thread of its own."""
    with listening("127.0.0.1", 0) as sock:
        server = server_of(served)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            yield int(sock.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


def picture(seed: int, mode: str = "L", size: tuple[int, int] = (8, 8), kind: str = "PNG") -> bytes:
    """A picture file of noise."""
    random = np.random.default_rng(seed)
    if mode.startswith("I;16"):
        noise = Image.fromarray(random.integers(0, 65536, (size[1], size[0])).astype(np.uint16))
    else:
        # Modes are made from colours, as Pillow has no way from numbers to each.
        noise = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)).convert(mode)
    file = io.BytesIO()
    noise.save(file, kind)
    return file.getvalue()


def huge_header(side: int) -> bytes:
    """A PNG that says to be ``side`` pixels wide and high, and has nothing to decode behind that."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    about = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", about) + chunk(b"IDAT", b"nothing") + chunk(b"IEND", b"")


def form(content: bytes, name: str = "picture.png", field: str = "file") -> bytes:
    """A multipart body with one file."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
    return f"{head}Content-Type: image/png\r\n\r\n".encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def ask(connection: HTTPConnection, body: bytes) -> tuple[int, Reply]:
    """Post ``body`` and read the reply."""
    connection.request("POST", "/api/predict", body, FORM)
    reply = connection.getresponse()
    found: Reply = json.loads(reply.read())
    return reply.status, found


@contextlib.contextmanager
def command(output: Path, *arguments: str, descriptors: int | None = None) -> Iterator[tuple[ForkProcess, int]]:
    """``ramify serve`` in a process of its own, with so many descriptors, and its port once it says it."""

    def serve() -> None:
        if descriptors is not None:
            resource = importlib.import_module("resource")  # which Windows does not have
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
        command_line(output, "serve", "--port", "0", *arguments)

    process = forked(serve)
    try:
        while not (output.exists() and (address := re.search(r"http://127\.0\.0\.1:(\d+)/", output.read_text()))):
            assert process.is_alive()
            time.sleep(0.02)
        yield process, int(address[1])
    finally:
        process.kill()


def ended(process: ForkProcess, by: int, output: Path) -> None:
    """Interrupt the command: it must say that it ended."""
    os.kill(process.pid or 0, by)
    process.join(60)
    written = output.read_text()
    assert (process.exitcode, written.splitlines()[-1]) == (0, "ended")
    assert "Traceback" not in written
