"""Writing files so that a reader never meets half of one."""

import os
import shutil
import tempfile
from pathlib import Path

from ramify.errors import RunError


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` through a temporary name, so that ``path`` is old or new, never between.

    Raises:
        RunError: the disk is full or the folder cannot be written; ``path`` is as it was.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def replace_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Write a whole folder of files at once: a reader finds all old or all new ones.

    The new files are written beside, then swapped in by renaming. A process killed between the two
    renames leaves the old folder as ``<name>.old``: :func:`readable_folder` finds it there.

    Raises:
        RunError: the disk is full or the place cannot be written; the old folder is intact.
    """
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    _undo_swap(folder, old)
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for name, content in files.items():
            write_atomic(fresh / name, content)
        if folder.exists():
            folder.replace(old)
        fresh.replace(folder)
    except OSError as error:
        _undo_swap(folder, old)
        raise cannot_write(folder, error) from error
    except RunError:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def readable_folder(folder: Path) -> Path:
    """Where the content of ``folder`` is to be read: there, or beside it after a swap that was cut short."""
    old = folder.with_name(folder.name + ".old")
    return old if old.exists() and not folder.exists() else folder


def _undo_swap(folder: Path, old: Path) -> None:
    if old.exists() and not folder.exists():
        old.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def cannot_write(path: Path, error: OSError) -> RunError:
    """The sentence for a file that the system refused to write."""
    return RunError(f"{path}: cannot be written ({error.strerror or error}); free some space or check the permissions")
