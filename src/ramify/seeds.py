"""Random numbers that depend on their purpose, not on earlier draws.

Every draw of a run takes a seed derived from the run's seed and a purpose (``"stage", 3`` or ``"order", epoch``), so a
resumed run draws the same as an uninterrupted one, and no state is saved.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A seed in [0, 2**63) for one purpose.

    Example:
        >>> derive(0, "stage", 1) == derive(0, "stage", 1), derive(0, "stage", 1) == derive(0, "stage", 2)
        (True, False)
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose: the same numbers whatever device the work runs on."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


@contextlib.contextmanager
def drawing(seed: int | None, *purpose: str | int) -> Iterator[None]:
    """Draw from a derived seed inside the block and leave PyTorch's own CPU generator as it was.

    With ``seed`` None the block draws from PyTorch's generator, as any module does.
    """
    if seed is None:
        yield
        return
    # Without an accelerator, torch.manual_seed formats the stack three times for the generators that do not exist.
    seed_all = torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed
    with torch.random.fork_rng(devices=[]):
        seed_all(derive(seed, *purpose))
        yield
