"""The log as a schema of a PostgreSQL database, in which any number of processes read and write.

Numbers are given in transactions that hold the lock of one row until they have ended. So events become visible in the
order of their numbers: a reader that has met one has met all before it; and what is rolled back leaves no gap.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from metaleader.errors import UserError, imported
from metaleader.files import sync
from metaleader.live.sqlite import File
from metaleader.live.tables import ABOUT, END, LOG, METADATA, OWNER, SHARED, rows

LEARNER = "learner"  # of the URL's query: the name of the learner, and of its schema
DEFAULT = "metaleader"
NAME = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
STOPPED = "5s"  # after which the database ends the transaction of a process that stopped amid it, and holds a lock


class Schema:
    """A schema that holds a log.

    Attributes:
        name: where the learner is, in messages; without a password.
        log: what cannot be written, in messages.
        remedy: what to do about it.
        tables: those in the schema.
        ascii: whether keys of tasks are stored in ASCII; not here, as what is indexed must be short.
        once: gives connections for one statement each.
        reading: for transactions that read as of one moment.
        writing: for transactions that write.
    """

    remedy = (
        "it may be that nothing of this call is stored: once the database is there, give the same again with the same "
        "ids, which counts once"
    )
    tables: Sequence[sa.Table] = (*LOG, *SHARED)
    ascii = False

    def __init__(self, url: str) -> None:
        address, self.schema = parsed(url)
        imported("psycopg", "postgres", "a PostgreSQL database")
        self.name = self.log = shown(url)
        engine = sa.create_engine(address, pool_size=16, max_overflow=-1, pool_pre_ping=True).execution_options(
            schema_translate_map={None: self.schema}
        )
        self.once = engine.execution_options(isolation_level="AUTOCOMMIT")
        self.reading = engine.execution_options(isolation_level="REPEATABLE READ")
        self.writing = engine.execution_options(isolation_level="READ COMMITTED")
        sa.event.listen(self.writing, "begin", _begin)

    def last(self) -> int:
        """The number of the last event."""
        with self.once.connect() as connection:
            return int(connection.execute(END).scalar_one())

    def dispose(self) -> None:
        """Close all connections."""
        self.once.dispose()

    def exists(self) -> bool:
        """Whether there is a log, and complete: its settings are written together with its tables."""
        with self.once.connect() as connection:
            return sa.inspect(connection).has_table(ABOUT.name, schema=self.schema)

    def prepare(self, connection: sa.Connection) -> None:
        """Make the schema, unless somebody who may has made it."""
        if not sa.inspect(connection).has_schema(self.schema):
            connection.execute(sa.schema.CreateSchema(self.schema))

    def fill(self, connection: sa.Connection) -> None:
        """Once the tables are made: nobody learns."""
        connection.execute(OWNER.insert().values(number=0))

    def made(self) -> None:
        """Nothing is left to do once the transaction that made the tables has ended."""

    def lock(self, connection: sa.Connection) -> None:
        """Be the only one who gives numbers, until the transaction ends."""
        connection.execute(sa.select(ABOUT.c.name).where(ABOUT.c.name == "version").with_for_update())

    def wipe(self) -> None:
        """Rows that are deleted are out of reach; when their bytes are written over is the database's affair."""

    def copy(self, path: Path) -> None:
        """Write a copy, as of one moment, to a new SQLite file, which is on the disk on return."""
        file = File(path)
        try:
            with self.reading.connect() as connection, file.writing.begin() as copy:
                METADATA.create_all(copy, tables=LOG)
                for table, some in rows(connection, file.ascii):
                    copy.execute(table.insert(), some)
        finally:
            file.dispose()
        with path.open("rb") as written:
            sync(written)

    def damage(self) -> list[str]:
        """Nothing: the files are the database's affair."""
        return []


def _begin(connection: sa.Connection) -> None:
    """Settings of a transaction that writes; of the transaction alone, as poolers give connections to others."""
    sync, idle = "synchronous_commit", "idle_in_transaction_session_timeout"
    told = sa.func.current_setting(sync)
    level = sa.case((told == "off", "on"), else_=told)  # else it is acknowledged before it is on the disk
    connection.execute(sa.select(sa.func.set_config(sync, level, True), sa.func.set_config(idle, STOPPED, True)))


def is_url(place: str | Path) -> bool:
    """Whether this is not the path of a folder."""
    return isinstance(place, str) and "://" in place


def parsed(url: str) -> tuple[sa.URL, str]:
    """The address of a database, and the name of a learner in it.

    Raises:
        UserError: it is none.
    """
    try:
        address = sa.make_url(url)
    except sa.exc.ArgumentError:
        address = sa.URL.create("none")
    if address.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        kind = url.split("://")[0]
        raise UserError(
            f"a learner lives in a folder or in a PostgreSQL database, got an address of {kind!r}: give "
            "postgresql+psycopg://user@host/database?learner=NAME"
        )
    learner = address.query.get(LEARNER, DEFAULT)
    if not isinstance(learner, str) or not NAME.fullmatch(learner):
        raise UserError(
            f"the name of a learner in a database must be of lower-case letters, digits and _, begin with no digit "
            f"nor pg_, and be of at most 63 characters, got {learner!r}"
        )
    return address.set(drivername="postgresql+psycopg").difference_update_query([LEARNER]), learner


def shown(url: str) -> str:
    """The address of a learner without its password."""
    address, learner = parsed(url)
    named = address.difference_update_query(["password"]).update_query_dict({LEARNER: learner})
    return named.render_as_string(hide_password=True)
