"""The record of a search: a journal file in its folder, or a database.

Only the coordinator of a search writes, and it holds a lock.
"""

import contextlib
import os
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock, Timeout

from ramify.errors import CheckpointError, InputError, RunError, first_line
from ramify.files import cannot_write, write_atomic
from ramify.needs import need
from ramify.sealed import check_seal, next_number, parse_line, parse_lines, parse_object, sealed_json, sealed_line

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy import Connection

JOURNAL, SEARCH = "journal.log", "search.json"
END = "journal_lines"
"""The field of ``search.json`` with the number of lines of the journal, while no process works on the search."""
_PATIENCE = 600.0
"""Seconds that a database may be away before the coordinator gives up."""
ANSWER_SECONDS = 5
"""Seconds in which a database must answer when a search is opened."""

Result = TypeVar("Result")


def address(url: str) -> str:
    """``url`` with the driver that ramify uses for PostgreSQL.

    Example:
        >>> address("postgresql://me@db/ramify")
        'postgresql+psycopg://me@db/ramify'
    """
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return "postgresql+psycopg://" + url.removeprefix(scheme)
    return url


def without_password(url: str) -> str:
    """``url`` for a file; PostgreSQL finds the password in ~/.pgpass or PGPASSWORD.

    Example:
        >>> without_password("postgresql+psycopg://me:secret@db/ramify")
        'postgresql+psycopg://me@db/ramify'
    """
    from sqlalchemy.engine import URL, make_url

    made = make_url(url)
    bare = URL.create(made.drivername, made.username, None, made.host, made.port, made.database, made.query)
    return bare.render_as_string(hide_password=False)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence the messages of Optuna."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


class Owner:
    """The right to write the record of the search ``name``, which one process has at a time.

    It is the lock of a file in the folder, and with PostgreSQL an advisory lock of the database as well. Both end with
    the process.
    """

    def __init__(self, name: str, folder: Path, url: str | None) -> None:
        self.taken = InputError(
            f"name: got {name}, a search that another process works on; accepted: to wait for it, "
            f"ramify search stop {name}, or another name"
        )
        self._file = FileLock(folder / ".lock")
        self._url = url if url is not None and url.startswith("postgresql") else None
        self._key = zlib.crc32(f"ramify search {name}".encode())
        self._connection: Connection | None = None

    def acquire(self) -> None:
        """Take the locks.

        Raises:
            InputError: another process has it.
        """
        try:
            self._file.acquire(timeout=0)
        except Timeout:
            raise self.taken from None
        try:
            self.check()
        except InputError:
            self.release()
            raise

    def check(self) -> None:
        """Check that the locks are still held: a database that was away has dropped its lock.

        Raises:
            InputError: another process has taken it.
        """
        if self._url is not None:
            patiently(self._check)

    def _check(self) -> None:
        from sqlalchemy import create_engine, text
        from sqlalchemy.exc import SQLAlchemyError

        try:
            if self._connection is None:
                engine = create_engine(self._url or "", connect_args={"connect_timeout": ANSWER_SECONDS})
                self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                query = text("select pg_try_advisory_lock(:key)")
                if not self._connection.execute(query, {"key": self._key}).scalar_one():
                    raise self.taken
            self._connection.execute(text("select 1"))
        except (SQLAlchemyError, InputError):
            self._disconnect()
            raise

    def release(self) -> None:
        """Release the locks."""
        self._disconnect()
        self._file.release()

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.invalidate()
            connection.close()
            connection.engine.dispose()


def open_storage(folder: Path, url: str | None) -> "BaseStorage":
    """The record in the journal of ``folder``, or in the database at ``url``.

    Raises:
        InputError: the database does not answer, the address is wrong, the journal is damaged, or Optuna is missing.
    """
    need("search", "optuna")
    return open_journal(folder / JOURNAL) if url is None else _database(url)


def open_journal(path: Path) -> "BaseStorage":
    """The record in the journal file ``path``.

    Raises:
        InputError: it is damaged.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class SealedFile(JournalFileBackend):
        """A journal with numbers and checksums in its lines."""

        def append_logs(self, logs: list[dict[str, object]]) -> None:
            try:
                number = next_number(path)
                lines = "".join(sealed_line(log, at) for at, log in enumerate(logs, start=number))
                with path.open("ab") as file:
                    file.write(lines.encode())
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise cannot_write(path, error) from error

    class NoLock(JournalFileOpenLock):
        """The only writer holds the lock of the search."""

        def acquire(self) -> bool:
            return True

        def release(self) -> None:
            return None

    damage = _damage(path)
    if damage is not None:
        raise InputError(
            f"{path}: is damaged ({damage}); accepted: the record of a search "
            f"(ramify search start {path.parent.name} saves what can be saved)"
        )
    with quiet_optuna():
        return JournalStorage(SealedFile(str(path), lock_obj=NoLock(str(path))))


def journal_record(line: bytes) -> dict[str, object] | None:
    """The record in a line of a journal; None where there is none."""
    parsed = parse_line(line)
    return parsed[0] if parsed is not None and "op_code" in parsed[0] else None


def _damage(path: Path) -> str | None:
    """The damage of a journal; None without. Optuna does not check lines, and counts trials by them."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    except OSError as error:
        return error.strerror or str(error)
    end = kept_number(path.parent, END) if path.name == JOURNAL else 0
    if path.exists() and len(lines) < end:
        return f"it ends after line {len(lines)} of {end}"
    births, before = 0, parse_lines(b"".join(line + b"\n" for line in lines)).damaged
    if before:
        return f"line {before[0]} of {len(lines)}"
    for number, line in enumerate(lines, start=1):
        record = journal_record(line)
        if record is None or (number == 1 and "study_name" not in record):
            return f"line {number} of {len(lines)}"
        attrs, trial = record.get("user_attrs"), record.get("trial_id", -1)
        if not isinstance(trial, int) or trial >= births:
            return f"line {number} of {len(lines)} is about a trial that is not there"
        if isinstance(attrs, dict):
            if attrs.get("number", births) != births:
                return f"trial {births} is missing before line {number}"
            births += 1
    return None


def kept_values(folder: Path) -> dict[str, object]:
    """The content of ``search.json`` in the folder of a search; empty without the file.

    Raises:
        CheckpointError: it is damaged or cannot be read.
    """
    path = folder / SEARCH
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    return check_seal(parse_object(content, str(path)), str(path))


def kept_number(folder: Path, key: str) -> int:
    """A number in ``search.json``; 0 where it is missing or the file is damaged."""
    try:
        value = kept_values(folder).get(key)
    except CheckpointError:
        return 0
    return value if isinstance(value, int) else 0


def keep_end(journal: Path, known: bool = True) -> None:
    """Keep the number of lines of the journal in ``search.json``, by which a lost end is noticed; or remove it.

    Raises:
        RunError: the file cannot be written.
    """
    if journal.is_file():
        with contextlib.suppress(CheckpointError):
            document = kept_values(journal.parent)
            if document:
                document.pop(END, None)
                end = {END: len(journal.read_bytes().splitlines())} if known else {}
                write_atomic(journal.with_name(SEARCH), sealed_json({**document, **end}))


def _database(url: str) -> "BaseStorage":
    need("search", "sqlalchemy")
    from optuna.storages import RDBStorage
    from sqlalchemy import create_engine
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        made = make_url(url)
        shown = made.render_as_string()
        server = made.get_backend_name() == "postgresql"
        connect = {"connect_timeout": ANSWER_SECONDS} if server else {}
        engine = create_engine(made, connect_args=connect)
        engine.connect().close()
        engine.dispose()
    except ArgumentError:
        raise InputError(
            f"storage: got {url!r}; accepted: an address such as postgresql://user@host/database"
        ) from None
    except ImportError as error:
        raise InputError(f"storage: got {url.partition(':')[0]}, which needs {error.name}; pip install it") from None
    except SQLAlchemyError as error:
        raise InputError(f"storage: {shown} does not answer ({_reason(error)})") from None
    options = {"connect_args": connect, "pool_pre_ping": True}
    with quiet_optuna():
        try:
            # It has answered: a connection that breaks from here on is waited for.
            return patiently(lambda: RDBStorage(url, engine_kwargs=options))
        except (SQLAlchemyError, RuntimeError) as error:
            raise InputError(f"storage: {shown} cannot hold a search ({_reason(error)})") from None


def close_storage(storage: "BaseStorage") -> None:
    """Close the connections to a database."""
    from optuna.storages import RDBStorage

    inner = getattr(storage, "_backend", storage)
    if isinstance(inner, RDBStorage):
        inner.remove_session()
        inner.engine.dispose()


def _reason(error: BaseException) -> str:
    return first_line(getattr(error, "orig", None) or error)


def patiently(call: Callable[[], Result], patience: float = _PATIENCE) -> Result:
    """The result of ``call``, which is repeated with growing pauses while the database is away.

    ``call`` must be safe to repeat: a connection may break after the work and before the answer.

    Raises:
        RunError: the database has been away for longer than ``patience`` seconds.
    """
    from optuna.exceptions import StorageInternalError

    pause, began = 0.5, time.monotonic()
    while True:
        try:
            return call()
        except Exception as error:
            if not (isinstance(error, StorageInternalError) or _connection_lost(error)):
                raise
            if time.monotonic() - began > patience:
                raise RunError(f"storage: does not answer any more ({_reason(error.__cause__ or error)})") from error
            time.sleep(pause)
            pause = min(2 * pause, 30.0)


def _connection_lost(error: BaseException) -> bool:
    try:
        from sqlalchemy.exc import InterfaceError, OperationalError
    except ImportError:
        return False
    return isinstance(error, InterfaceError | OperationalError)
