"""The folder of a run: its name, its lock and its lines.

::

    runs/<name>/
        config.yaml      the resolved configuration
        metrics.jsonl    a line for each epoch
        events.jsonl     growth, best epochs, resumption, the end
        last/  best/     checkpoints (see ramify.run.checkpoint)
        compact/         the best network without its dead channels (prune.compact)
        summary.json     the results
"""

import contextlib
import dataclasses
import itertools
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from ramify.config.read import to_yaml
from ramify.config.rules import Config
from ramify.data.manifest import MANIFESTS
from ramify.errors import CheckpointError, ConfigError, InputError, field_of
from ramify.files import SUFFIX, cannot_write, finish_swap, is_file, sweep, write_atomic
from ramify.run.summary import Summary
from ramify.sealed import (
    Lines,
    check_seal,
    damage,
    next_number,
    parse_lines,
    parse_object,
    sealed_json,
    sealed_line,
    sealed_lines,
    sealed_text,
    unreadable,
)

CONFIG, METRICS, EVENTS, SUMMARY = "config.yaml", "metrics.jsonl", "events.jsonl", "summary.json"
LOCK = ".lock"
CHECKPOINTS = ("last", "best", "compact")
PASSED_OVER = "passed_over.csv"
"""The list of files that were passed over, and why."""
BEGINNING = frozenset({LOCK, PASSED_OVER, *MANIFESTS})
"""Files that are written before the configuration."""


def default_name(config: Config) -> str:
    """The default name of a run: ``<source>-<kind>``, or ``<parent>-`` and the kind of conversion or pruning.

    The name of a backbone, or of the file of a module, stands in place of the kind.
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


def check_free(config: Config, overwrite: bool) -> None:
    """Check that the run may have its name, before anything is computed for it.

    Raises:
        ConfigError: it is that of a run, and ``overwrite`` is False.
    """
    if config.name is not None and not overwrite and is_run(folder := Path(config.runs_dir) / config.name):
        raise _taken(folder)


def _taken(folder: Path) -> ConfigError:
    return ConfigError(
        f"name: got {folder.name}, a run that exists in {folder.parent}; "
        f"accepted: another name, --overwrite, or --resume {folder.name}"
    )


@contextlib.contextmanager
def new_run(config: Config, overwrite: bool) -> Iterator[Path]:
    """A locked folder for a run; the lock ends with the block or the process.

    A run to be overwritten is still in it; :func:`remove_run` removes it once the new one can begin.

    Without ``config.name`` the folder takes the first free of ``<source>-<kind>``, ``<source>-<kind>-2``, ...; a folder
    of a process that died before it wrote a configuration is free. A folder in which the block writes nothing is
    removed.

    Raises:
        ConfigError: ``config.name`` is taken and ``overwrite`` is False, is no run, or is the parent.
        InputError: another process uses the folder.
        RunError: the folder cannot be made.
    """
    base = Path(config.runs_dir) / (config.name or default_name(config))
    numbered = (base.with_name(f"{base.name}-{i}") for i in itertools.count(2))
    for folder in itertools.chain([base], numbered):
        made = False
        try:
            folder.mkdir(parents=True)
            made = True
        except FileExistsError:
            if config.name is None and not overwrite and not _is_blank(folder):
                continue
            if not is_run(folder) and not _is_blank(folder):
                raise ConfigError(
                    f"name: got {folder.name}; accepted: another name, as {folder} is there and no run"
                ) from None
        except OSError as error:
            raise cannot_write(folder, error) from error
        if config.parent is not None and folder.resolve() in (parent := Path(config.parent).resolve(), parent.parent):
            raise ConfigError(f"name: got {folder.name}, the parent of this run; accepted: another name")
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(folder))
            except InputError:
                if config.name is None and not overwrite and not is_run(folder):
                    continue  # another process begins a run of the same name
                raise
            if is_run(folder):
                if not overwrite and config.name is None:
                    continue
                if not overwrite:
                    raise _taken(folder)
            try:
                yield folder
            finally:
                if made and not is_run(folder) and _is_blank(folder):
                    shutil.rmtree(folder, ignore_errors=True)
        return


def write_config(folder: Path, config: Config) -> None:
    """Write ``config.yaml``, which makes the folder that of a run."""
    write_atomic(folder / CONFIG, sealed_text(to_yaml(config).encode()))


def _is_blank(folder: Path) -> bool:
    """Whether ``folder`` holds at most files that are written before the configuration."""
    return folder.is_dir() and all(e.name in BEGINNING or e.suffix == SUFFIX for e in folder.iterdir())


def remove_run(folder: Path) -> None:
    """Remove the run in a locked ``folder``."""
    # The configuration goes last: a half emptied folder is still a run, and can be overwritten.
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == CONFIG):
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock ``folder`` during the block, and remove or repair what killed processes left half written.

    Raises:
        InputError: another process has the lock.
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
        sweep(folder)
        for name in CHECKPOINTS:
            finish_swap(folder / name)
        yield
    finally:
        lock.release()


def is_run(folder: Path) -> bool:
    """Whether ``folder`` is that of a run: it has a configuration that is not empty."""
    path = folder / CONFIG
    return is_file(path) and path.stat().st_size > 0


def append_line(path: Path, record: dict[str, object]) -> None:
    """Add ``record`` as one line of JSON, with its number and a checksum.

    Raises:
        RunError: the line cannot be written.
    """
    try:
        number = next_number(path)
        with path.open("a", encoding="utf-8") as file:
            file.write(sealed_line(record, number))
    except OSError as error:
        raise cannot_write(path, error) from error


def read_lines(path: Path) -> list[dict[str, object]]:
    """The records of a file of JSON lines, without numbers and checksums and without an incomplete last line.

    Raises:
        CheckpointError: a line is damaged or missing; in a finished run, also one at the end.
    """
    lines = _lines(path)
    if lines.damaged:
        raise CheckpointError(f"{damage(path, lines)}; accepted: the lines as ramify wrote them")
    records = list(lines.records)
    if path.exists() and (lines.numbered or not records) and (path.parent / SUMMARY).exists():
        _check_end(path, records)
    return records


def _lines(path: Path) -> Lines:
    try:
        return parse_lines(path.read_bytes() if path.exists() else b"")
    except OSError as error:
        raise unreadable(path, error) from error


def _check_end(path: Path, records: list[dict[str, object]]) -> None:
    """Raise a CheckpointError unless the lines of a finished run are complete."""
    summary = read_summary(path.parent)
    if path.name == METRICS:
        last = records[-1].get("epoch") if records else 0
        whole = summary is None or last == summary.epochs
    else:
        whole = path.name != EVENTS or any(record.get("event") == "finished" for record in records)
    if not whole:
        raise CheckpointError(f"{path}: is cut short; accepted: the lines of the whole run, as ramify wrote them")


def keep_lines(path: Path, keep: Callable[[dict[str, object]], bool]) -> str | None:
    """Rewrite a file of JSON lines with the records for which ``keep`` is true.

    A damaged file is kept as ``<name>.damaged``, and its whole lines are used.

    Returns:
        A sentence about the damage, if any.
    """
    lines = _lines(path)
    note = None
    if lines.damaged:
        aside = path.with_name(f"{path.name}.damaged")
        write_atomic(aside, path.read_bytes())
        note = f"{damage(path, lines)}; the file is kept as {aside.name}, and the run goes on from its checkpoint"
    write_atomic(path, sealed_lines([record for record in lines.records if keep(record)]))
    return note


def keep_lines_until(folder: Path, epoch: int) -> list[str]:
    """Remove the lines after ``epoch``, which is repeated; the result are sentences about damage."""

    def is_done(record: dict[str, object]) -> bool:
        number = record.get("epoch")
        return isinstance(number, int) and number <= epoch and record.get("event") not in ("compacted", "finished")

    notes = [note for name in (METRICS, EVENTS) if (note := keep_lines(folder / name, is_done)) is not None]
    count = len(read_lines(folder / METRICS))
    if count < epoch:
        notes.append(f"{folder / METRICS}: has lines of {count} of the {epoch} epochs; the others are lost")
    return notes


def write_summary(folder: Path, summary: Summary) -> None:
    """Write ``summary.json``."""
    write_atomic(folder / SUMMARY, sealed_json(dataclasses.asdict(summary)))


_SUMMARY = TypeAdapter(Summary)


def read_summary(folder: Path) -> Summary | None:
    """The summary of a finished run, else None.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / SUMMARY
    if not path.exists():
        return None
    try:
        return _SUMMARY.validate_python(check_seal(parse_object(path.read_bytes(), str(path)), str(path)))
    except OSError as error:
        raise unreadable(path, error) from error
    except ValidationError as error:
        raise CheckpointError(
            f"{path}: is damaged ({field_of(error)}); accepted: the file as ramify wrote it"
        ) from error
