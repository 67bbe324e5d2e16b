"""The tables of the log, of a file as of a database; and those of a database that several processes share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from metaleader.buffer import TaskKey
from metaleader.errors import UserError

VERSION = 1  # of the tables and of what is in them

_LARGE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # there, a key of this type is the row's own number
METADATA = sa.MetaData()
ABOUT = sa.Table(
    "about", METADATA, sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False)
)
DATAPOINTS = sa.Table(
    "datapoints",
    METADATA,
    sa.Column("sequence", _LARGE, primary_key=True, autoincrement=False),
    sa.Column("first", _LARGE, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("arrived", sa.Float, nullable=False),
    # Not unique: while a task that was forgotten is not yet deleted, it may come back with the same ids.
    sa.Index("by_id", "task", "id"),
    sa.Index("by_task", "task", "sequence"),
)
FORGOTTEN = sa.Table(
    "forgotten",
    METADATA,
    sa.Column("sequence", _LARGE, primary_key=True, autoincrement=False),
    sa.Column("task", sa.Text),  # until it is deleted
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("arrived", sa.Float, nullable=False),
)
LOG = (ABOUT, DATAPOINTS, FORGOTTEN)
_ENDS = [sa.select(sa.func.max(table.c.sequence).label("last")) for table in (DATAPOINTS, FORGOTTEN)]
END = sa.select(
    sa.func.coalesce(sa.func.max(sa.union_all(*_ENDS).subquery().c.last), 0)
)  # the number of the last event
# Stages of what was forgotten. Predictions leave it out from the first on.
LOGGED = "logged"  # its datapoints are still in the files
DELETED = "deleted"  # their bytes may be
CLEANED = "cleaned"  # not even these

# Beside a file, these are a lock and files of their own.
OWNER = sa.Table(
    "owner",
    METADATA,
    sa.Column("number", _LARGE, primary_key=True, autoincrement=False),  # how often it was taken; there is one row
    sa.Column("token", sa.Text),  # known to the owner alone; none: there is no owner
    sa.Column("owner", sa.Text),
    sa.Column("expires", sa.Double),  # in seconds since 1970, by the clock of the database
)
SNAPSHOTS = sa.Table(
    "snapshots",
    METADATA,
    sa.Column("number", _LARGE, primary_key=True, autoincrement=False),  # in the order in which they were written
    sa.Column("sequence", _LARGE, nullable=False),
    sa.Column("written", sa.Double, nullable=False),  # in seconds since 1970; nothing depends on it
)
CHUNKS = sa.Table(
    "chunks",
    METADATA,
    sa.Column("snapshot", _LARGE, primary_key=True, autoincrement=False),
    sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
SHARED = (OWNER, SNAPSHOTS, CHUNKS)


AT_ONCE = 256  # rows copied together


def key(text: str) -> TaskKey:
    """The key of a task, which a log stores as JSON.

    Raises:
        UserError: it is none.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, (str, int)):
        raise UserError(
            f"the log is damaged: it holds {text!r:.100} where the name of a task should be; restore a back-up"
        )
    return found


def rows(connection: sa.Connection, ascii: bool) -> Iterator[tuple[sa.Table, list[dict[str, Any]]]]:  # noqa: A002
    """The rows of a log, in portions, each with its table; keys of tasks as the log that is to have them stores them.

    Args:
        connection: to a log.
        ascii: whether keys are to be stored in ASCII.
    """
    for table in LOG:
        for some in connection.execute(sa.select(table)).yield_per(AT_ONCE).partitions():
            own = [row._asdict() for row in some]
            for row in own:
                if row.get("task") is not None:
                    row["task"] = json.dumps(key(row["task"]), ensure_ascii=ascii)
            yield table, own
