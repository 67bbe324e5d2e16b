"""The log: every datapoint that was acknowledged, on the disk, in one total order.

All SQL is here and in the modules of where a log may be: `sqlite` and `postgres`; what else processes share in a
database is in `shared`. Several processes may read and write; what one keeps in memory it brings up to date before
it is used.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa

from metaleader.buffer import TaskKey
from metaleader.errors import UserError, WriteError
from metaleader.live.commit import GroupCommit, Waiting
from metaleader.live.events import Acknowledged, Event, Forgetting, Group, Known, Stored, digest
from metaleader.live.index import Index
from metaleader.live.postgres import Schema
from metaleader.live.sqlite import File
from metaleader.live.tables import ABOUT, CLEANED, DATAPOINTS, DELETED, FORGOTTEN, LOGGED, METADATA, VERSION

AT_ONCE = 256  # rows read, or names asked for, by one statement

Home: TypeAlias = File | Schema

_ENDS = [sa.select(sa.func.max(table.c.sequence).label("last")) for table in (DATAPOINTS, FORGOTTEN)]
_END = sa.select(sa.func.coalesce(sa.func.max(sa.union_all(*_ENDS).subquery().c.last), 0))
_COUNTED = sa.select(DATAPOINTS.c.task, sa.func.count(), sa.func.max(DATAPOINTS.c.sequence)).group_by(DATAPOINTS.c.task)


class Store:
    """A log, and what it says of tasks in memory. Its methods may be called by any thread."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._writing, self._indexing = threading.Lock(), threading.Lock()
        self._commits = GroupCommit(self._writing, lambda together: self._write(together))
        self._closed = False
        self._index = Index()

    @classmethod
    def create(cls, home: Home, about: Mapping[str, Any]) -> Store:
        """A new, empty log.

        Raises:
            UserError: there is one.
            WriteError: the file system or the database refuses.
        """
        values = {"version": VERSION, **about}
        rows = [{"name": name, "value": json.dumps(value)} for name, value in values.items()]
        with cls(home)._closed_unless_whole() as store, store.refusals():
            made = not home.exists()
            if made:
                try:
                    with home.writing.begin() as connection:
                        home.prepare(connection)
                        METADATA.create_all(connection, tables=home.tables)
                        connection.execute(ABOUT.insert(), rows)
                except sa.exc.DBAPIError:
                    if not home.exists():  # else another process made it meanwhile
                        raise
                    made = False
            if not made:
                raise UserError(
                    f"{home.name} holds a learner already: open it by Live.open, or choose another folder or name"
                )
        home.made()
        return store

    @classmethod
    def open(cls, home: Home) -> Store:
        """The log that is there.

        Raises:
            UserError: there is none, or one of another version.
        """
        with cls(home)._closed_unless_whole() as store:
            with store.refusals(writes=False):
                there = home.exists()
            if not there:
                raise UserError(f"{home.name} holds no learner: make one by Live.create")
            if (version := store.about("version")) != VERSION:
                raise UserError(
                    f"{home.name} was made by another version of metaleader: its format is {version}, this one reads "
                    f"{VERSION}; open it with the version that made it"
                )
            store._read_tasks()
        return store

    @contextmanager
    def _closed_unless_whole(self) -> Iterator[Store]:
        try:
            yield self
        except BaseException:
            self.close()
            raise

    def about(self, name: str) -> Any:
        """A setting, as plain JSON; None: it was not set."""
        with self.refusals(writes=False), self.home.once.connect() as connection:
            found = connection.execute(sa.select(ABOUT.c.value).where(ABOUT.c.name == name)).scalar()
        return None if found is None else json.loads(found)

    def set_about(self, name: str, value: Any) -> Any:
        """Set a setting, unless another process did; returns what it is by then.

        Raises:
            WriteError: the file system or the database refuses.
        """
        with self._writing, self.refusals(), self.home.writing.begin() as connection:
            self.home.lock(connection)
            before = connection.execute(sa.select(ABOUT.c.value).where(ABOUT.c.name == name)).scalar()
            if before is None:
                connection.execute(ABOUT.insert().values(name=name, value=json.dumps(value)))
        return value if before is None else json.loads(before)

    def close(self) -> None:
        """Leave it, once what is being written is."""
        with self._writing:
            self._closed = True
            self.home.once.dispose()

    # Writing

    def append(self, task: TaskKey, ids: Sequence[str], rows: Sequence[bytes]) -> Acknowledged:
        """Store datapoints of a task; returns once they are on the disk.

        Args:
            task: which.
            ids: of each; one that is known, with the same content, is left out.
            rows: the bytes of each.

        Raises:
            UserError: an id is known with other content. Nothing is stored of any of them.
            WriteError: the file system or the database refuses; the same.
        """
        return self._commits.commit(Waiting(task, ids, rows))

    def _write(self, together: list[Waiting]) -> None:
        """Store what several callers gave, in one transaction."""
        try:
            with self.refusals(), self.home.writing.begin() as connection:
                self.home.lock(connection)
                index = self._refreshed(connection)
                last, known, outcomes = index.last, dict[TaskKey, Known](), list[Acknowledged | BaseException]()
                for waiting in together:
                    try:
                        new = self._unknown(connection, index, waiting)
                    except UserError as error:
                        outcomes.append(error)
                        continue
                    before = known.get(waiting.task) or index.known(waiting.task)
                    if new:
                        connection.execute(DATAPOINTS.insert(), self._as_rows(waiting, new, last + 1))
                        last += len(new)
                        before = known[waiting.task] = Known(before.datapoints + len(new), last)
                    outcomes.append(Acknowledged(len(new), before.last))
        except BaseException as error:
            for waiting in together:
                waiting.done = error
            return
        with self._indexing:
            self._index.add(known, last)
        for waiting, outcome in zip(together, outcomes, strict=True):
            waiting.done = outcome

    def _unknown(self, connection: sa.Connection, index: Index, waiting: Waiting) -> list[int]:
        """The places of the datapoints that are new.

        Raises:
            UserError: an id is known with other content.
        """
        stored: dict[str, bytes] = {}
        for start in range(0, len(waiting.ids), AT_ONCE):
            asked = sa.select(DATAPOINTS.c.id, DATAPOINTS.c.digest).where(
                DATAPOINTS.c.task == self._text(waiting.task),
                DATAPOINTS.c.id.in_(waiting.ids[start : start + AT_ONCE]),
                DATAPOINTS.c.sequence > index.since(waiting.task),
            )
            stored.update((row.id, row.digest) for row in connection.execute(asked))
        new, places = dict[str, bytes](), list[int]()
        for place, (name, row) in enumerate(zip(waiting.ids, waiting.rows, strict=True)):
            own = digest(waiting.task, name, row)
            before = stored.get(name, new.get(name))
            if before is None:
                new[name] = own
                places.append(place)
            elif before != own:
                raise UserError(
                    f"id {name!r} of task {waiting.task!r} is known with other content: give a new datapoint an id of "
                    "its own; one that was stored cannot be changed"
                )
        return places

    def _as_rows(self, waiting: Waiting, places: Collection[int], first: int) -> list[dict[str, Any]]:
        task, arrived = self._text(waiting.task), time.time()  # of which nothing depends: clocks may be set back
        return [
            {
                "sequence": first + i,
                "first": first,
                "size": len(places),
                "task": task,
                "id": waiting.ids[place],
                "data": waiting.rows[place],
                "digest": digest(waiting.task, waiting.ids[place], waiting.rows[place]),
                "arrived": arrived,
            }
            for i, place in enumerate(places)
        ]

    def forget(self, task: TaskKey) -> tuple[int, int]:
        """Note that a task is forgotten, on the disk; what it had counts no longer.

        Returns:
            the number of the event, and how many datapoints the task had.

        Raises:
            UserError: the task is not known.
            WriteError: the file system or the database refuses.
        """
        with self._writing, self.refusals():
            with self.home.writing.begin() as connection:
                self.home.lock(connection)
                index = self._refreshed(connection)
                if (known := index.tasks.get(task)) is None:
                    raise UserError(f"task {task!r} is not known: nothing of it is stored")
                sequence = index.last + 1
                row = {"sequence": sequence, "task": self._text(task), "stage": LOGGED, "arrived": time.time()}
                connection.execute(FORGOTTEN.insert(), row)
            with self._indexing:
                self._index.forget(task, sequence)
        return sequence, known.datapoints

    def delete(self, until: int, allowed: Callable[[sa.Connection], None] = lambda _: None) -> None:
        """Delete what was forgotten by events up to number `until`, and wipe its bytes from the files.

        Args:
            until: the number.
            allowed: raises, within the transaction, if this process may not.

        Raises:
            WriteError: the file system refuses, or other processes that read the log do not end.
        """
        with self._writing, self.refusals():
            due = {sequence: task for sequence, task in self._index.deleting.items() if sequence <= until}
            with self.home.writing.begin() as connection:
                allowed(connection)
                for sequence, task in due.items():
                    gone = (DATAPOINTS.c.task == self._text(task)) & (DATAPOINTS.c.sequence < sequence)
                    connection.execute(DATAPOINTS.delete().where(gone))
                    event = FORGOTTEN.update().where(FORGOTTEN.c.sequence == sequence)
                    connection.execute(event.values(task=None, stage=DELETED))
            with self._indexing:
                for sequence in due:
                    self._index.deleting.pop(sequence, None)
            self._wipe()
            with self.home.writing.begin() as connection:
                event = FORGOTTEN.update().where(FORGOTTEN.c.stage == DELETED)
                connection.execute(event.values(stage=CLEANED))

    def _wipe(self) -> None:
        self.home.wipe()

    # Reading

    def refresh(self) -> None:
        """Bring what is known of tasks up to date with what other processes wrote.

        Raises:
            WriteError: the database does not answer.
        """
        with self.refusals(writes=False):
            with self.home.once.connect() as connection:
                behind = connection.execute(_END).scalar_one() > self._index.last
            if behind:
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
        asked = sa.select(DATAPOINTS.c.data).where(
            DATAPOINTS.c.task == self._text(task),
            DATAPOINTS.c.sequence > self._index.since(task, until),
            DATAPOINTS.c.sequence <= until,
        )
        with self.refusals(writes=False), self.home.once.connect() as connection:
            return list(connection.execute(asked.order_by(DATAPOINTS.c.sequence)).scalars())

    def events(self, after: int, until: int | None = None) -> Iterator[Event]:
        """The events with numbers above `after`, in order, up to the one that was the last when this was called."""
        until = self.last if until is None else until
        while after < until:
            for event in self._some(after, until):
                after = event.sequence
                yield event

    def _some(self, after: int, until: int) -> list[Event]:
        """The next few events, at least one."""
        column = DATAPOINTS.c
        asked = sa.select(column.sequence, column.first, column.size, column.task, column.data)
        asked = asked.order_by(column.sequence)
        with self.refusals(writes=False), self.home.reading.connect() as connection:
            within = (column.sequence > after) & (column.sequence <= until)
            rows = list(connection.execute(asked.where(within).limit(AT_ONCE)))
            full = len(rows) == AT_ONCE
            if rows and (end := rows[-1].first + rows[-1].size - 1) > rows[-1].sequence:  # of a group that was cut off
                rest = (column.sequence > rows[-1].sequence) & (column.sequence <= end)
                rows += connection.execute(asked.where(rest))
            upto = rows[-1].sequence if full else until
            within = (FORGOTTEN.c.sequence > after) & (FORGOTTEN.c.sequence <= upto)
            forgotten = list(connection.execute(sa.select(FORGOTTEN).where(within)))
        events: list[Event] = []
        for _, group in groupby(rows, key=lambda row: row.first):
            together = list(group)
            events.append(Group(together[-1].sequence, json.loads(together[0].task), [row.data for row in together]))
        events += [Forgetting(row.sequence, row.task and json.loads(row.task)) for row in forgotten]
        return sorted(events, key=lambda event: event.sequence)

    def unfinished(self, until: int) -> bool:
        """Whether of what was forgotten by events up to number `until` something is left in the files."""
        return self._count((FORGOTTEN.c.stage != CLEANED) & (FORGOTTEN.c.sequence <= until))

    @property
    def incomplete(self) -> bool:
        """Whether datapoints that were learned at some time are no longer in the log."""
        return self._count(FORGOTTEN.c.stage != LOGGED)

    def _count(self, which: sa.ColumnElement[bool]) -> bool:
        with self.refusals(writes=False), self.home.once.connect() as connection:
            return bool(connection.execute(sa.select(sa.func.count()).select_from(FORGOTTEN).where(which)).scalar())

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
                task = json.loads(row.task)
                counts = row.sequence > self._index.since(task)
                yield Stored(row.sequence, row.first, row.size, task, row.id, row.data, row.digest, counts)

    # Within

    def _text(self, task: TaskKey) -> str:
        """A task's key as JSON: 1 and "1" differ."""
        return json.dumps(task, ensure_ascii=self.home.ascii)

    def _refreshed(self, connection: sa.Connection) -> Index:
        """What is known of tasks, up to the last event that the transaction sees."""
        with self._indexing:
            end, after = connection.execute(_END).scalar_one(), self._index.last
            if end > after:
                if connection.execute(sa.select(FORGOTTEN.c.sequence).where(FORGOTTEN.c.sequence > after)).first():
                    self._index = self._read(connection)
                else:
                    new = connection.execute(_COUNTED.where(DATAPOINTS.c.sequence > after)).all()
                    told = {json.loads(task): (count, last) for task, count, last in new}
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
        index = Index(deleting={row.sequence: json.loads(row.task) for row in connection.execute(waits)})
        gone = set(index.deleting.values())
        rows = list(connection.execute(_COUNTED.where(column.task.not_in(set(map(self._text, gone))))))
        for task in gone:
            own = (column.task == self._text(task)) & (column.sequence > index.since(task))
            rows += connection.execute(_COUNTED.where(own))
        known = {json.loads(task): Known(count, last) for task, count, last in rows}
        index.add(known, connection.execute(_END).scalar_one())
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
