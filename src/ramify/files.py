"""Writing files so that a reader never sees a part of one."""

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from ramify.errors import RunError

if sys.platform != "win32":
    import fcntl

SUFFIX = ".tmp"
"""The end of temporary names. The writing process holds a lock on the file, which :func:`sweep` checks."""


def is_file(path: Path) -> bool:
    """Whether ``path`` is a file; False for a name that the system refuses, such as a too long one."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises where a name is too long


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` through a temporary name, so that ``path`` is either old or new.

    Temporary files that killed processes left of it are removed.

    Raises:
        RunError: the disk is full or the folder cannot be written; ``path`` is as it was.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, path.name)
        while True:
            handle, name = tempfile.mkstemp(prefix=_prefix(path.name), suffix=SUFFIX, dir=path.parent)
            temporary = Path(name)
            if _lock(handle):
                break
            os.close(handle)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o644)
            if sys.platform != "win32":  # under the lock; Windows renames no open file
                temporary.replace(path)
        if sys.platform == "win32":
            temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def replace_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Write a whole folder of files at once: a reader sees all old or all new ones.

    The new folder is written beside the old one, then swapped in by renaming. A process killed between the two renames
    leaves the old folder as ``<name>.old``, where :func:`readable_folder` finds it.

    Raises:
        RunError: the disk is full or the place cannot be written; the old folder is intact.
    """
    old = folder.with_name(folder.name + ".old")
    finish_swap(folder)
    with contextlib.ExitStack() as stack:
        fresh: Path | None = None
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            sweep(folder.parent, folder.name)
            fresh = Path(tempfile.mkdtemp(prefix=_prefix(folder.name), suffix=SUFFIX, dir=folder.parent))
            if sys.platform != "win32":
                handle = os.open(fresh, os.O_RDONLY)
                stack.callback(os.close, handle)
                _lock(handle)
            fresh.chmod(0o755)
            for name, content in files.items():
                write_atomic(fresh / name, content)
            if folder.exists():
                folder.replace(old)
            fresh.replace(folder)
        except (OSError, RunError) as error:
            finish_swap(folder)
            if fresh is not None:
                shutil.rmtree(fresh, ignore_errors=True)
            if isinstance(error, RunError):
                raise
            raise cannot_write(folder, error) from error
    shutil.rmtree(old, ignore_errors=True)


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files of killed processes from ``folder``: those of ``name``, or all.

    Those of living processes stay, and on Windows temporary folders.
    """
    with contextlib.suppress(OSError):
        for path in [entry for entry in folder.iterdir() if _is_temporary(entry.name, name)]:
            with contextlib.suppress(OSError):
                _remove_unlocked(path)


def _prefix(name: str) -> str:
    return f".{os.fsdecode(os.fsencode(name)[:200])}."  # a name has 255 bytes at most


def _is_temporary(entry: str, name: str | None) -> bool:
    """Whether ``entry`` is a temporary name (of ``name``); what mkstemp inserts has no dot."""
    if not (entry.startswith(".") and entry.endswith(SUFFIX)):
        return False
    before, dot, _ = entry.removesuffix(SUFFIX).rpartition(".")
    return bool(dot and before) and (name is None or before + "." == _prefix(name))


def _lock(handle: int) -> bool:
    """Lock an open file against :func:`sweep`; whether it still exists then."""
    if sys.platform == "win32":
        return True  # an open file cannot be removed there
    fcntl.flock(handle, fcntl.LOCK_EX)
    return os.fstat(handle).st_nlink > 0


def _remove_unlocked(path: Path) -> None:
    if sys.platform == "win32":
        path.unlink()
        return
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(handle)


def readable_folder(folder: Path) -> Path:
    """Where the content of ``folder`` is read: there, or beside it after an interrupted swap."""
    old = folder.with_name(folder.name + ".old")
    return old if os.path.isdir(old) and not folder.exists() else folder  # noqa: PTH112 - see is_file


def finish_swap(folder: Path) -> None:
    """Repair ``folder`` after an interrupted swap."""
    old = folder.with_name(folder.name + ".old")
    with contextlib.suppress(OSError):
        if old.exists() and not folder.exists():
            old.replace(folder)
        shutil.rmtree(old, ignore_errors=True)


def cannot_write(path: Path, error: OSError) -> RunError:
    """The sentence for a file that the system refused to write."""
    return RunError(f"{path}: cannot be written ({error.strerror or error}); free some space or check the permissions")
