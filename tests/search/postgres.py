"""A PostgreSQL of its own for the tests, where the machine has one installed."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Server:
    """A running server; ``url`` is that of its database."""

    url: str
    control: tuple[str, ...]

    def away(self, seconds: float) -> None:
        """Stop the server, which cuts every connection, and start it again after ``seconds``."""
        subprocess.run([*self.control, "-m", "fast", "stop"], check=True, stdout=subprocess.DEVNULL, timeout=60)
        time.sleep(seconds)
        subprocess.run([*self.control, "start"], check=True, stdout=subprocess.DEVNULL, timeout=60)


def binaries() -> Path | None:
    """Where ``initdb`` and ``pg_ctl`` are, None where there are none."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    if found is not None:
        folders.insert(0, Path(found).resolve().parent)
    return next((each for each in folders if (each / "initdb").exists() and (each / "pg_ctl").exists()), None)


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A server on 127.0.0.1 that is gone after the block; skips the test where none can be had."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed here (no initdb and pg_ctl)")
    as_other: tuple[str, ...] = ()
    folder = Path(tempfile.mkdtemp(prefix="ramify-postgres-"))
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root.
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = next((name for name in ("postgres", "nobody") if name in names), None)
        runuser = shutil.which("runuser")
        if user is None or runuser is None:
            pytest.skip("PostgreSQL does not run as root, and there is no other user to run it as")
        shutil.chown(folder, user)
        as_other = (runuser, "-u", user, "--")
    data = folder / "data"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
    control = (*as_other, str(programs / "pg_ctl"), "-D", str(data), "-w", "-o", options, "-l", str(folder / "log"))

    def run(*command: str, check: bool = True) -> None:
        subprocess.run(
            command, check=check, timeout=120, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    try:
        run(*as_other, str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "ramify", "-N")
        run(*control, "start")
        yield Server(f"postgresql://ramify@127.0.0.1:{port}/postgres", control)
    finally:
        run(*control, "-m", "immediate", "stop", check=False)
        shutil.rmtree(folder, ignore_errors=True)
