"""Leases: who is at work on what, until when.

A worker claims a trial before it touches it and renews the claim while it is alive. A claim that was not renewed has
run out and may be taken by anyone, as may one of a process that is known to be dead. Claiming is atomic: of workers
that claim the same at the same moment, one gets it.
"""

import json
import os
import platform
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from ramify.files import write_atomic

LEASE_SECONDS = 60.0
"""How long a claim holds if it is not renewed; machines that share a folder must agree on the time to well below."""


@dataclass(frozen=True)
class Worker:
    """A process that works: where it is, and a name that no other has."""

    name: str
    host: str
    pid: int


def this_worker() -> Worker:
    """A new identity for this process."""
    host = here()
    return Worker(f"{platform.node()}-{os.getpid()}-{secrets.token_hex(3)}", host, os.getpid())


def here() -> str:
    """The machine, and the name space of its process numbers: only there a number says who is alive."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return f"{platform.node()} {space}".strip()


def is_dead(host: str, pid: int) -> bool:
    """Whether that process is known to be gone; of other machines nothing is known."""
    if host != here():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    try:
        # A process that was killed but not yet waited for does no work.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except (OSError, IndexError):
        return False


@dataclass(frozen=True)
class Lease:
    """A claim: whose it is, and when it runs out, in seconds since 1970."""

    worker: str
    host: str
    pid: int
    until: float


class Leases(Protocol):
    """Claims on names."""

    def claim(self, name: str, worker: Worker, seconds: float) -> bool:
        """Take ``name`` for so long, unless another holds it; whether that was granted."""

    def renew(self, name: str, worker: Worker, seconds: float) -> bool:
        """Hold ``name`` for so long from now on; False if it is not this worker's any more."""

    def release(self, name: str, worker: Worker) -> None:
        """Give ``name`` back, if it is this worker's."""

    def held(self) -> dict[str, Lease]:
        """The claims that hold now."""


class FileLeases:
    """Leases in a file of a folder that all workers share.

    Example:
        >>> import tempfile
        >>> leases, me, you = FileLeases(Path(tempfile.mkdtemp())), this_worker(), this_worker()
        >>> leases.claim("trial-3", me, 60), leases.claim("trial-3", you, 60)
        (True, False)
        >>> leases.release("trial-3", me)
        >>> leases.claim("trial-3", you, 60)
        True
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "leases.json"
        # The system drops this lock when its process dies, however it dies.
        self.lock = FileLock(folder / ".leases.lock")

    def claim(self, name: str, worker: Worker, seconds: float) -> bool:
        with self.lock:
            leases = self._read()
            other = leases.get(name)
            if other is not None and other.worker != worker.name and _holds(other):
                return False
            self._write({**leases, name: _lease(worker, seconds)})
            return True

    def renew(self, name: str, worker: Worker, seconds: float) -> bool:
        with self.lock:
            leases = self._read()
            if name not in leases or leases[name].worker != worker.name:
                return False
            self._write({**leases, name: _lease(worker, seconds)})
            return True

    def release(self, name: str, worker: Worker) -> None:
        with self.lock:
            leases = self._read()
            if name in leases and leases[name].worker == worker.name:
                del leases[name]
                self._write(leases)

    def held(self) -> dict[str, Lease]:
        return {name: lease for name, lease in self._read().items() if _holds(lease)}

    def _read(self) -> dict[str, Lease]:
        try:
            return {name: Lease(**fields) for name, fields in json.loads(self.path.read_text()).items()}
        except FileNotFoundError:
            return {}

    def _write(self, leases: dict[str, Lease]) -> None:
        content = {name: asdict(lease) for name, lease in leases.items()}
        write_atomic(self.path, json.dumps(content, indent=1).encode())


def _lease(worker: Worker, seconds: float) -> Lease:
    return Lease(worker.name, worker.host, worker.pid, time.time() + seconds)


def _holds(lease: Lease) -> bool:
    return lease.until > time.time() and not is_dead(lease.host, lease.pid)
