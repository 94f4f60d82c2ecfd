"""Several processes in one run, started by ``torchrun --nproc_per_node 2 -m ramify train ...``.

Every process holds the whole network and computes its share of each batch; DistributedDataParallel averages the
gradients. The first process (rank 0) decides, writes the files and prints; all compare a checksum after every change of
the network and after every epoch.
"""

import contextlib
import datetime
import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from ramify.errors import ConfigError, ProcessLostError, RamifyError, RunError

T = TypeVar("T")
WAIT = datetime.timedelta(minutes=30)
"""The longest wait for the other processes, as while the first one tests."""

LOST = (
    "another process of this run has died, or the job was ended; all that was trained up to the last epoch is kept: go "
    "on with torchrun ... -m ramify train --resume NAME, with as many processes as you like"
)


@dataclass(frozen=True)
class Team:
    """The processes of a run: the rank of this one, and their number."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process decides, writes and prints."""
        return self.rank == 0

    def decided(self, decide: Callable[[], T]) -> T:
        """The result of ``decide`` in the first process, in all; an error there is raised in all.

        Raises:
            RamifyError: as ``decide`` raised it.
        """
        if self.size == 1:
            return decide()
        outcome: list[tuple[T | None, RamifyError | None]] = [(None, None)]
        if self.first:
            try:
                outcome[0] = (decide(), None)
            except RamifyError as error:
                outcome[0] = (None, type(error)(*error.problems))
        dist.broadcast_object_list(outcome, src=0)
        value, problem = outcome[0]
        if problem is not None:
            raise problem
        return cast(T, value)

    def summed(self, values: Tensor) -> Tensor:
        """``values`` summed over the processes."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def share(self, count: int) -> slice:
        """The share of ``count`` items that this process has: every ``size``-th."""
        return slice(self.rank, count, self.size)

    def average_buffers(self, network: nn.Module) -> None:
        """Average the statistics of batch norm over the processes."""
        if self.size > 1:
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    dist.all_reduce(buffer)
                    buffer.div_(self.size)

    def compare(self, network: nn.Module, when: str) -> None:
        """Raise a RunError unless all processes hold the same network, bit for bit."""
        if self.size == 1:
            return
        checksums: list[str] = [""] * self.size
        dist.all_gather_object(checksums, shared_checksum(network))
        other = [str(rank) for rank, checksum in enumerate(checksums) if checksum != checksums[0]]
        if other:
            raise RunError(
                f"{when}: the network of process {', '.join(other)} is not that of process 0; this is a fault of ramify"
            )


ALONE = Team()


def shared_checksum(network: nn.Module) -> str:
    """SHA-256 of every parameter and buffer."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def world() -> tuple[int, int, int]:
    """Rank, number of processes, and rank on this machine, as torchrun sets them; ``(0, 1, 0)`` without it."""
    environ = os.environ
    return int(environ.get("RANK", 0)), int(environ.get("WORLD_SIZE", 1)), int(environ.get("LOCAL_RANK", 0))


@contextlib.contextmanager
def together(device: torch.device, batch_size: int) -> Iterator[Team]:
    """Join the processes that torchrun started, on gloo or, on GPUs, NCCL; alone without it.

    Raises:
        ConfigError: ``batch_size`` is not a multiple of the number of processes.
        ProcessLostError: another process has died, inside the block.
    """
    size = world()[1]
    if size == 1:
        yield ALONE
        return
    if batch_size % size or batch_size // size < 2:
        raise ConfigError(
            f"data.batch_size: got {batch_size}; accepted: a multiple of {size}, the number of processes, with 2 "
            "pictures or more for each"
        )
    store, rank, size = next(rendezvous("env://"))
    # One job may train several runs in turn. Each has its own names in the store, so that no process reads an address
    # of the run before.
    turn = store.add(f"ramify/{rank}", 1)
    backend = "nccl" if device.type == "cuda" else "gloo"
    own = PrefixStore(f"ramify/{turn}", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=WAIT)
    # When a process dies, torchrun ends the others: they see the signal or the broken connection first.
    before = signal.signal(signal.SIGTERM, _ended)
    try:
        yield Team(rank, size)
    except RuntimeError as error:
        if not _lost(error):
            raise
        # A later signal must not silence the sentence below.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise ProcessLostError(LOST) from error
    finally:
        if signal.getsignal(signal.SIGTERM) is _ended:
            signal.signal(signal.SIGTERM, before)
        dist.destroy_process_group()


def _ended(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise ProcessLostError(LOST)


def _lost(error: Exception) -> bool:
    """Whether ``error`` says that a process cannot be reached."""
    text = str(error)
    signs = ("Connection closed", "Connection reset", "Broken pipe", "timed out", "Timed out", "NCCL", "gloo")
    return isinstance(error, dist.DistError) or any(sign in text for sign in signs)
