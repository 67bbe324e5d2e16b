"""The tables of the log, and how its file is opened."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from metaleader.errors import UserError

VERSION = 1  # of the tables and of what is in them
PATIENCE = 30.0  # seconds that a statement waits for those of others

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
# Stages of what was forgotten. Predictions leave it out from the first on.
LOGGED = "logged"  # its datapoints are still in the files
DELETED = "deleted"  # their bytes may be
CLEANED = "cleaned"  # not even these


def is_log(path: Path) -> bool:
    """Whether a file that exists is a log, and complete: its settings are written together with its tables.

    Raises:
        UserError: it is damaged.
    """
    try:
        with closing(sqlite3.connect(path, timeout=PATIENCE)) as connection:
            return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchall())
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path} is damaged ({error}): restore the folder from a back-up") from error


def prepare(connection: sqlite3.Connection, _: Any) -> None:
    """Settings of a connection."""
    for setting in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "fullfsync = ON",  # on macOS, where fsync leaves it in the cache of the disk
        "secure_delete = ON",
    ):
        connection.execute(f"PRAGMA {setting}")
