"""The folder of a run: its name, its lock and its lines.

::

    runs/<name>/
        config.yaml      the resolved configuration
        metrics.jsonl    a line an epoch
        events.jsonl     growth, best epochs, resumption, the end
        last/  best/     checkpoints (see ramify.run.checkpoint)
        compact/         the best network without its dead channels, where prune.compact asks for it
        summary.json     what the run came to
"""

import contextlib
import dataclasses
import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from ramify.config import Config
from ramify.errors import CheckpointError, ConfigError, InputError
from ramify.files import cannot_write, write_atomic
from ramify.run.summary import Summary

CONFIG, METRICS, EVENTS, SUMMARY = "config.yaml", "metrics.jsonl", "events.jsonl", "summary.json"
LOCK = ".lock"


def default_name(config: Config) -> str:
    """The name of a run that was given none: ``<source>-<kind>``, or ``<parent>-`` and what was done to it.

    Of a backbone its name stands in place of the kind, of a module that of its file.
    """
    if config.parent is not None:
        done = config.convert or ("pruned" if config.prune.enabled else "compact")
        exit_ = config.network.exits if config.convert == "cut" else ""
        return f"{Path(config.parent).name}-{done}{exit_}"
    stem = Path(config.data.source).name
    for suffix in (".xz", ".gz", ".tgz", ".tar", ".zip"):
        stem = stem.removesuffix(suffix)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "pictures"
    network = config.network
    kind: str = network.kind
    if network.backbone is not None:
        kind = network.backbone.removeprefix("timm/")
    elif network.module is not None:
        kind = network.module.partition(":")[0].rpartition(".")[2]
    return f"{stem}-{kind}"


@contextlib.contextmanager
def new_run(config: Config, overwrite: bool) -> Iterator[Path]:
    """An empty, locked folder for a run; the lock ends with the block, or with the process, however it dies.

    Without ``config.name`` the folder takes the first free of ``<source>-<kind>``, ``<source>-<kind>-2``, ...

    Raises:
        ConfigError: ``config.name`` is taken and ``overwrite`` is False, what is there is no run, or it is the parent.
        InputError: another process is at work in the folder.
        RunError: the folder cannot be made.
    """
    base = Path(config.runs_dir) / (config.name or default_name(config))
    numbered = (base.with_name(f"{base.name}-{i}") for i in itertools.count(2))
    for folder in itertools.chain([base], numbered):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if config.name is None and not overwrite:
                continue
            if not is_run(folder) and not _is_blank(folder):
                raise ConfigError(
                    f"name: got {folder.name}; accepted: another name, as {folder} is there and no run"
                ) from None
        except OSError as error:
            raise cannot_write(folder, error) from error
        if config.parent is not None and folder.resolve() == Path(config.parent).resolve():
            raise ConfigError(f"name: got {folder.name}, the parent of this run; accepted: another name")
        with locked(folder):
            if is_run(folder):
                if not overwrite:
                    raise ConfigError(
                        f"name: got {folder.name}, a run that exists in {folder.parent}; "
                        f"accepted: another name, --overwrite, or --resume {folder.name}"
                    )
                _empty(folder)
            yield folder
        return


def _is_blank(folder: Path) -> bool:
    """Whether ``folder`` holds nothing, but perhaps the lock of a process that died before it wrote anything."""
    return folder.is_dir() and all(entry.name == LOCK for entry in folder.iterdir())


def _empty(folder: Path) -> None:
    # The configuration goes last: a folder that was emptied by half is still known for a run, and can be overwritten.
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == CONFIG):
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of ``folder`` during the block.

    Raises:
        InputError: another process is in.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{folder}: is in use by another process; wait for it to end, or give the run another name"
        ) from None
    except OSError as error:
        raise cannot_write(folder / LOCK, error) from error
    try:
        yield
    finally:
        lock.release()


def is_run(folder: Path) -> bool:
    """Whether ``folder`` is the folder of a run."""
    return (folder / CONFIG).is_file()


def append_line(path: Path, record: dict[str, object]) -> None:
    """Add ``record`` as one line of JSON.

    Raises:
        RunError: the line cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    except OSError as error:
        raise cannot_write(path, error) from error


def read_lines(path: Path) -> list[dict[str, object]]:
    """The records of a file of JSON lines; a last line that was cut short is left out.

    Raises:
        CheckpointError: another line is damaged.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    records: list[dict[str, object]] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):
                break
            raise CheckpointError(f"{path}:{number}: is damaged; accepted: a line of JSON") from None
        records.append(record)
    return records


def keep_lines(path: Path, keep: Callable[[dict[str, object]], bool]) -> None:
    """Rewrite a file of JSON lines with the records for which ``keep`` is true."""
    kept = [record for record in read_lines(path) if keep(record)]
    write_atomic(path, "".join(json.dumps(record) + "\n" for record in kept).encode())


def write_summary(folder: Path, summary: Summary) -> None:
    """Write ``summary.json``."""
    write_atomic(folder / SUMMARY, (json.dumps(dataclasses.asdict(summary), indent=2) + "\n").encode())


_SUMMARY = TypeAdapter(Summary)


def read_summary(folder: Path) -> Summary | None:
    """The summary of a finished run, None while there is none.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / SUMMARY
    if not path.exists():
        return None
    try:
        return _SUMMARY.validate_json(path.read_bytes())
    except ValidationError as error:
        raise CheckpointError(f"{path}: is damaged ({error.error_count()} wrong fields)") from error
