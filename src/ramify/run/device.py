"""Device, precision and threads of a run."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ramify.config.rules import Config
from ramify.errors import ConfigError
from ramify.run.distributed import ALONE, Team, world

SMALL = 16 * 16
"""The most pixels of pictures that are computed with one thread by default."""


@dataclass(frozen=True)
class Place:
    """Device and precision of a run, and the processes that share it."""

    device: torch.device
    precision: str
    team: Team = ALONE


def place_of(config: Config) -> Place:
    """The device and precision that ``train.device`` and ``train.precision`` ask for.

    Raises:
        ConfigError: this machine has no such device.
    """
    name = config.train.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and world()[1] > 1:
        name = f"cuda:{world()[2]}"
    device = torch.device(name)
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available[device.type]:
        names = ", ".join(kind for kind, usable in available.items() if usable)
        raise ConfigError(f"train.device: got '{name}'; accepted: auto, {names} on this machine")
    precision = config.train.precision
    if precision == "auto":
        precision = "bfloat16" if _gains_by_bfloat16(device, config.network.input_shape) else "float32"
    return Place(device, precision)


def _gains_by_bfloat16(device: torch.device, shape: tuple[int, int, int] | None) -> bool:
    """Whether ``device`` has bfloat16 instructions, and pictures of ``shape`` are large enough to gain by them."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type != "cpu" or shape is None or shape[1] * shape[2] <= SMALL:
        return False
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("bf16"))


@contextlib.contextmanager
def computing_with(config: Config) -> Iterator[None]:
    """Compute with ``train.threads`` processor threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(config.train.threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
