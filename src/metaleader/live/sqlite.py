"""The log as a SQLite file in WAL mode with `synchronous=FULL`: a transaction that has ended outlives a power cut.

Several processes of one machine may read and write it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa

from metaleader.errors import UserError, WriteError
from metaleader.files import sync, sync_folder
from metaleader.live.tables import END, LOG

PATIENCE = 30.0  # seconds that a statement waits for those of others


class File:
    """A file that holds a log.

    Attributes:
        name: where the learner is, in messages.
        log: what cannot be written, in messages.
        remedy: what to do about it.
        tables: those in the file.
        ascii: whether keys of tasks are stored in ASCII.
        once: gives connections for one statement each.
        reading: for transactions that read as of one moment.
        writing: for transactions of which there is one at a time.
    """

    remedy = "nothing of this call is stored: make room on the disk, then give the same again with the same ids"
    tables: Sequence[sa.Table] = LOG
    ascii = True

    def __init__(self, path: Path) -> None:
        self.path, self.name, self.log = path, str(path.parent), str(path)
        self.once = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)),
            connect_args={"timeout": PATIENCE, "isolation_level": None},  # transactions begin as `_begin` says
            pool_size=16,
            max_overflow=-1,
        )
        sa.event.listen(self.once, "connect", _prepare)
        self.reading = self.once.execution_options(begin="BEGIN")
        self.writing = self.once.execution_options(begin="BEGIN IMMEDIATE")
        for engine in (self.reading, self.writing):
            sa.event.listen(engine, "begin", _begin)
        self._looking, self._look = threading.Lock(), cast(sqlite3.Connection | None, None)
        self._end = str(END.compile(self.once, compile_kwargs={"literal_binds": True}))

    def last(self) -> int:
        """The number of the last event. Every prediction asks for it: by SQLAlchemy that takes five times as long."""
        with self._looking:
            if self._look is None:
                self._look = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            return int(self._look.execute(self._end).fetchone()[0])

    def dispose(self) -> None:
        """Close all connections."""
        self.once.dispose()
        with self._looking:
            if self._look is not None:
                self._look.close()
                self._look = None

    def exists(self) -> bool:
        """Whether there is a log, and complete: its settings are written together with its tables.

        Raises:
            UserError: it is damaged.
        """
        return self.path.exists() and is_log(self.path)

    def prepare(self, _: sa.Connection) -> None:
        """Nothing has to be there before the tables are made."""

    def fill(self, _: sa.Connection) -> None:
        """Nothing more has to be in the tables."""

    def made(self) -> None:
        """Once the tables are made: the file is in its folder after a power cut as well."""
        sync_folder(self.path.parent)

    def lock(self, _: sa.Connection) -> None:
        """Nothing more is needed to be the only one who writes, until a transaction of `writing` ends."""

    def wipe(self) -> None:
        """Write the file anew without free pages, and empty the file of the WAL, which holds former versions of pages.

        Raises:
            WriteError: others read the log and do not end.
        """
        with self.once.connect() as connection:
            connection.exec_driver_sql("VACUUM")
            busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar()
        if busy:
            raise WriteError(f"{self.path} is being read: what was forgotten goes from its files once that has ended")

    def copy(self, path: Path) -> None:
        """Write a copy, as of one moment, to a new file, which is on the disk on return."""
        with self.once.connect() as connection:
            source = connection.connection.driver_connection
            assert isinstance(source, sqlite3.Connection)
            with closing(sqlite3.connect(path)) as copy:
                source.backup(copy)
        with path.open("rb") as file:
            sync(file)

    def damage(self) -> list[str]:
        """What SQLite finds wrong with the file, in its words; nothing: it is sound."""
        with self.once.connect() as connection:
            found = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]
        return [line for line in found if line != "ok"]


def is_log(path: Path) -> bool:
    """Whether a file that exists is a log, and complete.

    Raises:
        UserError: it is damaged.
    """
    try:
        with closing(sqlite3.connect(path, timeout=PATIENCE)) as connection:
            return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchall())
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path} is damaged ({error}): restore the folder from a back-up") from error


def _prepare(connection: sqlite3.Connection, _: Any) -> None:
    """Settings of a connection."""
    for setting in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "fullfsync = ON",  # on macOS, where fsync leaves it in the cache of the disk
        "secure_delete = ON",
    ):
        connection.execute(f"PRAGMA {setting}")


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options()["begin"])
