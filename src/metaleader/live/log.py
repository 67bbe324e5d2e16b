"""What there is in a log, and what it says of tasks, in memory, brought up to date with what other processes wrote."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa

from metaleader.buffer import TaskKey
from metaleader.errors import UserError, WriteError
from metaleader.live.events import Event, Forgetting, Group, Known, Stored
from metaleader.live.index import Index
from metaleader.live.postgres import Schema
from metaleader.live.sqlite import File
from metaleader.live.tables import ABOUT, CLEANED, DATAPOINTS, END, FORGOTTEN, LOGGED, key

AT_ONCE = 256  # rows read by one statement

Home: TypeAlias = File | Schema

_COUNTED = sa.select(DATAPOINTS.c.task, sa.func.count(), sa.func.max(DATAPOINTS.c.sequence)).group_by(DATAPOINTS.c.task)
# Statements of every prediction and of every datapoint are made once: making one takes longer than running it.
_SINCE, _UNTIL = DATAPOINTS.c.sequence > sa.bindparam("after"), DATAPOINTS.c.sequence <= sa.bindparam("until")
_COUNTED_SINCE = _COUNTED.where(_SINCE)
_FORGOTTEN_SINCE = sa.select(FORGOTTEN.c.sequence).where(FORGOTTEN.c.sequence > sa.bindparam("after")).limit(1)
_OF_TASK = (
    sa.select(DATAPOINTS.c.data)
    .where(DATAPOINTS.c.task == sa.bindparam("task"), _SINCE, _UNTIL)
    .order_by(DATAPOINTS.c.sequence)
)
_ROWS = (
    sa.select(*(DATAPOINTS.c[name] for name in ("sequence", "first", "size", "task", "data")))
    .where(_SINCE, _UNTIL)
    .order_by(DATAPOINTS.c.sequence)
)
_SOME_ROWS = _ROWS.limit(AT_ONCE)
_FORGOTTEN_WITHIN = sa.select(FORGOTTEN).where(
    FORGOTTEN.c.sequence > sa.bindparam("after"), FORGOTTEN.c.sequence <= sa.bindparam("until")
)


class Log:
    """A log to be read. Its methods may be called by any thread."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._indexing = threading.Lock()
        self._closed = False
        self._index = Index()

    def about(self, name: str) -> Any:
        """A setting, as plain JSON; None: it was not set."""
        with self.refusals(writes=False), self.home.once.connect() as connection:
            found = connection.execute(sa.select(ABOUT.c.value).where(ABOUT.c.name == name)).scalar()
        return None if found is None else json.loads(found)

    def refresh(self) -> None:
        """Bring what is known of tasks up to date with what other processes wrote.

        Raises:
            WriteError: the database does not answer.
        """
        with self.refusals(writes=False):
            if self.home.last() > self._index.last:
                with self.home.reading.connect() as connection:
                    self._refreshed(connection)

    @property
    def last(self) -> int:
        """The number of the last event, as far as is known."""
        return self._index.last

    def tasks(self) -> dict[TaskKey, int]:
        """The tasks that have datapoints, and how many."""
        return {task: known.datapoints for task, known in list(self._index.tasks.items())}

    def known(self, task: TaskKey) -> Known:
        """What is known of a task."""
        return self._index.known(task)

    def of_task(self, task: TaskKey, until: int) -> list[bytes]:
        """The datapoints of a task, in order, up to number `until`, without what was forgotten before that."""
        asked = {"task": self._text(task), "after": self._index.since(task, until), "until": until}
        with self.refusals(writes=False), self.home.once.connect() as connection:
            return list(connection.execute(_OF_TASK, asked).scalars())

    def events(self, after: int, until: int | None = None) -> Iterator[Event]:
        """The events with numbers above `after`, in order, up to the one that was the last when this was called."""
        until = self.last if until is None else until
        while after < until:
            for event in self._some(after, until):
                after = event.sequence
                yield event

    def _some(self, after: int, until: int) -> list[Event]:
        """The next few events, at least one."""
        with self.refusals(writes=False), self.home.reading.connect() as connection:
            rows = list(connection.execute(_SOME_ROWS, {"after": after, "until": until}))
            full = len(rows) == AT_ONCE
            if rows and (end := rows[-1].first + rows[-1].size - 1) > rows[-1].sequence:  # of a group that was cut off
                rows += connection.execute(_ROWS, {"after": rows[-1].sequence, "until": end})
            upto = rows[-1].sequence if full else until
            forgotten = list(connection.execute(_FORGOTTEN_WITHIN, {"after": after, "until": upto}))
        events: list[Event] = []
        for _, group in groupby(rows, key=lambda row: row.first):
            together = list(group)
            events.append(Group(together[-1].sequence, key(together[0].task), [row.data for row in together]))
        events += [Forgetting(row.sequence, row.task and key(row.task)) for row in forgotten]
        return sorted(events, key=lambda event: event.sequence)

    def unfinished(self, until: int) -> bool:
        """Whether of what was forgotten by events up to number `until` something is left in the files."""
        return self._count((FORGOTTEN.c.stage != CLEANED) & (FORGOTTEN.c.sequence <= until)) > 0

    @property
    def incomplete(self) -> bool:
        """Whether datapoints that were learned at some time are no longer in the log."""
        return self.removed > 0

    @property
    def removed(self) -> int:
        """How many events have removed datapoints from the log."""
        return self._count(FORGOTTEN.c.stage != LOGGED)

    def _count(self, which: sa.ColumnElement[bool]) -> int:
        with self.refusals(writes=False), self.home.once.connect() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(FORGOTTEN).where(which)).scalar_one()

    def is_forgotten(self, group: Group, until: int) -> bool:
        """Whether an event up to number `until` forgot a group that is still in the log."""
        return group.sequence < self._index.since(group.task, until)

    def copy(self, path: Path) -> None:
        """Write a copy of the log, as of one moment, to a new SQLite file, which is on the disk on return.

        Raises:
            WriteError: the file system or the database refuses.
        """
        with self.refusals():
            self.home.copy(path)

    def damage(self) -> list[str]:
        """What the database finds wrong with its file, in its words; nothing: it is sound."""
        return self.home.damage()

    def datapoints(self) -> Iterator[Stored]:
        """All datapoints in the log, in order, also those of tasks that are forgotten but not yet deleted."""
        rows = sa.select(DATAPOINTS).order_by(DATAPOINTS.c.sequence)
        with self.refusals(writes=False), self.home.reading.connect() as connection:
            for row in connection.execute(rows).yield_per(AT_ONCE):
                task = key(row.task)
                counts = row.sequence > self._index.since(task)
                yield Stored(row.sequence, row.first, row.size, task, row.id, row.data, row.digest, counts)

    # Within

    def _text(self, task: TaskKey) -> str:
        """A task's key as JSON: 1 and "1" differ."""
        return json.dumps(task, ensure_ascii=self.home.ascii)

    def _refreshed(self, connection: sa.Connection) -> Index:
        """What is known of tasks, up to the last event that the transaction sees."""
        with self._indexing:
            end, after = connection.execute(END).scalar_one(), self._index.last
            if end > after:
                if connection.execute(_FORGOTTEN_SINCE, {"after": after}).first():
                    self._index = self._read(connection)
                else:
                    new = connection.execute(_COUNTED_SINCE, {"after": after}).all()
                    told = {key(task): (count, last) for task, count, last in new}
                    known = {
                        task: Known(self._index.known(task).datapoints + n, last) for task, (n, last) in told.items()
                    }
                    self._index.add(known, end)
            return self._index

    def _read_tasks(self) -> None:
        with self.refusals(writes=False), self.home.reading.connect() as connection, self._indexing:
            self._index = self._read(connection)

    def _read(self, connection: sa.Connection) -> Index:
        """What the whole log says of tasks."""
        column = DATAPOINTS.c
        waits = sa.select(FORGOTTEN.c.sequence, FORGOTTEN.c.task).where(FORGOTTEN.c.stage == LOGGED)
        index = Index(deleting={row.sequence: key(row.task) for row in connection.execute(waits)})
        gone = set(index.deleting.values())
        rows = list(connection.execute(_COUNTED.where(column.task.not_in(set(map(self._text, gone))))))
        for task in gone:
            own = (column.task == self._text(task)) & (column.sequence > index.since(task))
            rows += connection.execute(_COUNTED.where(own))
        known = {key(task): Known(count, last) for task, count, last in rows}
        index.add(known, connection.execute(END).scalar_one())
        return index

    @contextmanager
    def refusals(self, writes: bool = True) -> Iterator[None]:
        """Turn what the database or the file system refuses into one line.

        Raises:
            WriteError: saying what.
            UserError: the log is closed; another process may have it.
        """
        if self._closed:
            raise UserError(f"the learner in {self.home.name} is closed: open it by Live.open")
        try:
            yield
        except (sa.exc.DBAPIError, sqlite3.Error) as error:
            why = " ".join(str(getattr(error, "orig", None) or error).split())
            if not writes:
                raise WriteError(f"cannot read {self.home.log}: {why}") from error
            raise WriteError(f"cannot write to {self.home.log}: {why}; {self.home.remedy}") from error
