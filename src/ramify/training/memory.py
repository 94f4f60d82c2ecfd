"""Peak memory of a process and of its CUDA device."""

import sys

import torch


def peak_memory() -> int | None:
    """The most bytes of main memory that this process has held so far; None where the system does not say.

    Example:
        >>> peak = peak_memory()
        >>> peak is None or peak > 1_000_000
        True
    """
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts in KiB


def forget_device_peak(device: torch.device) -> None:
    """Begin a new measurement for :func:`device_peak`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def device_peak(device: torch.device) -> int | None:
    """The most bytes that PyTorch has held on a CUDA ``device`` since :func:`forget_device_peak`; None for others."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
