"""Where a search keeps its record: a journal file in its folder, or a database that many machines reach."""

import contextlib
import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock

from ramify.errors import InputError, RunError
from ramify.search.leases import FileLeases, Leases

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

JOURNAL = "journal.log"
PATIENCE = 600.0
"""Seconds for which a database may be away before a worker gives up."""
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
    """``url`` as it may be kept in a file; PostgreSQL itself finds the password in ~/.pgpass or PGPASSWORD.

    Example:
        >>> without_password("postgresql+psycopg://me:secret@db/ramify")
        'postgresql+psycopg://me@db/ramify'
    """
    from sqlalchemy.engine import URL, make_url

    made = make_url(url)
    bare = URL.create(made.drivername, made.username, None, made.host, made.port, made.database, made.query)
    return bare.render_as_string(hide_password=False)


def need_optuna() -> None:
    """Searching is an extra of ramify.

    Raises:
        InputError: Optuna is not installed.
    """
    if importlib.util.find_spec("optuna") is None:
        raise InputError("search: needs optuna, which is not installed; pip install ramify[search]")


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna's notes about itself from the person who searches."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def open_storage(folder: Path, url: str | None, search: str) -> "tuple[BaseStorage, Leases]":
    """The record and the leases of the search called ``search``.

    Args:
        folder: of the search, for the journal file.
        url: of a database, in place of it.
        search: its name.

    Raises:
        InputError: the database does not answer, the address is none, or Optuna is not installed.
    """
    need_optuna()
    return _journal(folder) if url is None else _database(address(url), search)


def _journal(folder: Path) -> "tuple[BaseStorage, Leases]":
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class Lock(JournalFileOpenLock):
        """A lock that the system drops when its process dies, and that mends the line a death cut short."""

        def __init__(self, path: Path) -> None:
            self.path, self.lock = path, FileLock(path.with_name(f".{path.name}.lock"))

        def acquire(self) -> bool:
            self.lock.acquire()
            _drop_half_line(self.path)
            return True

        def release(self) -> None:
            self.lock.release()

    path = folder / JOURNAL
    with quiet_optuna():
        return JournalStorage(JournalFileBackend(str(path), lock_obj=Lock(path))), FileLeases(folder)


def _drop_half_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = file.seek(0, 2)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _database(url: str, search: str) -> "tuple[BaseStorage, Leases]":
    try:
        from optuna.storages import RDBStorage
        from sqlalchemy import create_engine
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError, SQLAlchemyError

        from ramify.search.sqlleases import SqlLeases
    except ImportError as error:
        raise InputError(f"storage: needs {error.name}, which is not installed; pip install ramify[search]") from None
    try:
        made = make_url(url)
        shown = made.render_as_string()
        server = made.get_backend_name() == "postgresql"
        connect = {"connect_timeout": ANSWER_SECONDS} if server else {}
        engine = create_engine(made, connect_args=connect, pool_pre_ping=True)
        engine.connect().close()
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
            return patiently(lambda: (RDBStorage(url, engine_kwargs=options), SqlLeases(engine, search)))
        except (SQLAlchemyError, RuntimeError) as error:
            raise InputError(f"storage: {shown} cannot hold a search ({_reason(error)})") from None


def close_storage(storage: "BaseStorage", leases: Leases) -> None:
    """Close the connections to a database; there is nothing to close of files."""
    from optuna.storages import RDBStorage

    from ramify.search.sqlleases import SqlLeases

    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()
    if isinstance(leases, SqlLeases):
        leases.engine.dispose()


def _reason(error: BaseException) -> str:
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def patiently(call: Callable[[], Result], patience: float = PATIENCE) -> Result:
    """What ``call`` gives; while the database is away, it is tried again, with growing pauses.

    ``call`` must do no harm when it is done twice: a connection may break after the work and before the answer.

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
