"""Leases in a table of the database that also holds the trials: its clock decides, and its locks."""

from typing import TYPE_CHECKING

from ramify.search.leases import Lease, Worker, is_dead

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Engine


class SqlLeases:
    """Leases of the search called ``search`` in table ``ramify_leases``.

    Example:
        >>> from sqlalchemy import create_engine
        >>> from ramify.search.leases import this_worker
        >>> leases, me, you = SqlLeases(create_engine("sqlite://"), "demo"), this_worker(), this_worker()
        >>> leases.claim("trial-3", me, 60), leases.claim("trial-3", you, 60)
        (True, False)
    """

    def __init__(self, engine: "Engine", search: str) -> None:
        from sqlalchemy import Column, Float, Integer, MetaData, String, Table

        self.engine, self.search = engine, search
        self.table = Table(
            "ramify_leases",
            MetaData(),
            Column("search", String(200), primary_key=True),
            Column("name", String(100), primary_key=True),
            Column("worker", String(200), nullable=False),
            Column("host", String(200), nullable=False),
            Column("pid", Integer, nullable=False),
            Column("until", Float, nullable=False),
        )
        self.table.create(engine, checkfirst=True)

    def claim(self, name: str, worker: Worker, seconds: float) -> bool:
        from sqlalchemy import insert, or_, select, update
        from sqlalchemy.exc import IntegrityError

        table = self.table
        with self.engine.begin() as connection:
            there = connection.execute(select(table).where(self._is(name))).mappings().first()
            if there is not None:
                dead = is_dead(there["host"], there["pid"])
                free = [table.c.until < self._now(), table.c.worker == worker.name]
                # The name of the dead one is asked for again: another may have taken its place meanwhile.
                free += [table.c.worker == there["worker"]] if dead else []
                changed = connection.execute(
                    update(table).where(self._is(name), or_(*free)).values(**self._values(connection, worker, seconds))
                )
                return changed.rowcount == 1
        try:
            with self.engine.begin() as connection:
                values = self._values(connection, worker, seconds)
                connection.execute(insert(table).values(search=self.search, name=name, **values))
        except IntegrityError:
            return False
        return True

    def renew(self, name: str, worker: Worker, seconds: float) -> bool:
        from sqlalchemy import update

        with self.engine.begin() as connection:
            mine = update(self.table).where(self._is(name), self.table.c.worker == worker.name)
            return connection.execute(mine.values(**self._values(connection, worker, seconds))).rowcount == 1

    def release(self, name: str, worker: Worker) -> None:
        from sqlalchemy import delete

        with self.engine.begin() as connection:
            connection.execute(delete(self.table).where(self._is(name), self.table.c.worker == worker.name))

    def held(self) -> dict[str, Lease]:
        from sqlalchemy import select

        table = self.table
        mine = select(table).where(table.c.search == self.search, table.c.until >= self._now())
        with self.engine.begin() as connection:
            rows = connection.execute(mine).mappings().all()
        leases = {row["name"]: Lease(row["worker"], row["host"], row["pid"], row["until"]) for row in rows}
        return {name: lease for name, lease in leases.items() if not is_dead(lease.host, lease.pid)}

    def _is(self, name: str) -> "ColumnElement[bool]":
        from sqlalchemy import and_

        return and_(self.table.c.search == self.search, self.table.c.name == name)

    def _now(self) -> "ColumnElement[float]":
        from sqlalchemy import Float, cast, extract, func

        return cast(extract("epoch", func.now()), Float)

    def _values(self, connection: "Connection", worker: Worker, seconds: float) -> dict[str, object]:
        from sqlalchemy import select

        now = connection.execute(select(self._now())).scalar_one()
        return {"worker": worker.name, "host": worker.host, "pid": worker.pid, "until": now + seconds}
