"""The log: every datapoint that was acknowledged, on the disk, in one total order. All SQL is here and in `tables`.

A SQLite file in WAL mode with `synchronous=FULL`: a transaction that has ended outlives a power cut. Callers that
arrive while another one's transaction is written share the next one (group commit), so that many callers do not wait
for one `fsync` each.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from metaleader.buffer import TaskKey
from metaleader.errors import UserError, WriteError
from metaleader.files import sync, sync_folder
from metaleader.live.events import Acknowledged, Ended, Event, Forgetting, Group, Known, Stored, UnknownTask, digest
from metaleader.live.tables import (
    ABOUT,
    CLEANED,
    DATAPOINTS,
    DELETED,
    FORGOTTEN,
    LOGGED,
    METADATA,
    PATIENCE,
    VERSION,
    is_log,
    prepare,
)

AT_ONCE = 256  # rows read, or names asked for, by one statement


class _Waiting:
    """Datapoints of one caller, who waits until they are on the disk."""

    def __init__(self, task: TaskKey, ids: Sequence[str], rows: Sequence[bytes]) -> None:
        self.task, self.ids, self.rows = task, ids, rows
        self.done: Acknowledged | BaseException | None = None


class Store:
    """The log in a file, and what it says of tasks in memory. Its methods may be called by any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)),
            connect_args={"timeout": PATIENCE},
            pool_size=16,
            max_overflow=-1,
        )
        sa.event.listen(self._engine, "connect", prepare)
        self._writing, self._turn = threading.Lock(), threading.Condition()
        self._closed = False
        self._led = False  # whether a caller writes, or is about to
        self._queue: list[_Waiting] = []
        self._tasks: dict[TaskKey, Known] = {}
        self._deleting: dict[int, TaskKey] = {}  # by the number of the event: tasks forgotten, but not yet deleted
        self.last = 0

    @classmethod
    def create(cls, path: Path, about: Mapping[str, Any]) -> Store:
        """A new, empty log.

        Raises:
            UserError: there is one.
            WriteError: the file system refuses.
        """
        if path.exists() and is_log(path):
            raise UserError(f"{path.parent} holds a learner already: open it by Live.open, or choose another folder")
        store = cls(path)
        with store._refusals(), store._engine.begin() as connection:
            connection.exec_driver_sql(
                "BEGIN IMMEDIATE"
            )  # all of it, or nothing: tables are made in no transaction else
            METADATA.create_all(connection)
            values = {"version": VERSION, **about}
            rows = [{"name": name, "value": json.dumps(value)} for name, value in values.items()]
            connection.execute(ABOUT.insert(), rows)
        sync_folder(path.parent)
        return store

    @classmethod
    def open(cls, path: Path) -> Store:
        """The log in a file.

        Raises:
            UserError: there is none, or one of another version.
        """
        if not path.exists() or not is_log(path):
            raise UserError(f"{path.parent} holds no learner: make one by Live.create")
        store = cls(path)
        if (version := store.about("version")) != VERSION:
            raise UserError(
                f"{path.parent} was made by another version of metaleader: its format is {version}, this one reads "
                f"{VERSION}; open it with the version that made it"
            )
        store._read_tasks()
        return store

    def about(self, name: str) -> Any:
        """A setting, as plain JSON; None: it was not set."""
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(ABOUT.c.value).where(ABOUT.c.name == name)).scalar()
        return None if found is None else json.loads(found)

    def set_about(self, name: str, value: Any) -> None:
        """Set a setting that was not set."""
        with self._writing, self._refusals(), self._engine.begin() as connection:
            connection.execute(ABOUT.insert().values(name=name, value=json.dumps(value)))

    def close(self) -> None:
        """Close the file, once what is being written is."""
        with self._writing:
            self._closed = True
            self._engine.dispose()

    # Writing

    def append(self, task: TaskKey, ids: Sequence[str], rows: Sequence[bytes]) -> Acknowledged:
        """Store datapoints of a task; returns once they are on the disk.

        Args:
            task: which.
            ids: of each; one that is known, with the same content, is left out.
            rows: the bytes of each.

        Raises:
            UserError: an id is known with other content. Nothing is stored of any of them.
            WriteError: the file system refuses; the same.
        """
        waiting = _Waiting(task, ids, rows)
        with self._turn:
            self._queue.append(waiting)
            self._turn.wait_for(lambda: waiting.done is not None or not self._led)
            leads = waiting.done is None
            self._led = self._led or leads
        if leads:  # one writes for all who wait by then
            try:
                with self._writing:
                    with self._turn:
                        together, self._queue = self._queue, []
                    self._write(together)
            finally:
                with self._turn:
                    self._led = False
                    self._turn.notify_all()
        if isinstance(waiting.done, BaseException):
            raise waiting.done
        assert waiting.done is not None
        return waiting.done

    def _write(self, together: list[_Waiting]) -> None:
        """Store what several callers gave, in one transaction."""
        try:
            with self._refusals(), self._engine.begin() as connection:
                last, known, outcomes = self.last, dict[TaskKey, Known](), list[Acknowledged | BaseException]()
                for waiting in together:
                    try:
                        new = self._unknown(connection, waiting)
                    except UserError as error:
                        outcomes.append(error)
                        continue
                    if new:
                        connection.execute(DATAPOINTS.insert(), _as_rows(waiting, new, last + 1))
                        last += len(new)
                        before = known.get(waiting.task) or self._tasks.get(waiting.task) or Known(0, 0)
                        known[waiting.task] = Known(before.datapoints + len(new), last)
                    of_task = known.get(waiting.task) or self._tasks[waiting.task]
                    outcomes.append(Acknowledged(len(new), of_task.last))
        except BaseException as error:
            for waiting in together:
                waiting.done = error
            return
        self._tasks.update(known)
        self.last = last
        for waiting, outcome in zip(together, outcomes, strict=True):
            waiting.done = outcome

    def _unknown(self, connection: sa.Connection, waiting: _Waiting) -> list[int]:
        """The places of the datapoints that are new.

        Raises:
            UserError: an id is known with other content.
        """
        stored: dict[str, bytes] = {}
        for start in range(0, len(waiting.ids), AT_ONCE):
            asked = sa.select(DATAPOINTS.c.id, DATAPOINTS.c.digest).where(
                DATAPOINTS.c.task == _text(waiting.task),
                DATAPOINTS.c.id.in_(waiting.ids[start : start + AT_ONCE]),
                DATAPOINTS.c.sequence > self._since(waiting.task),
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

    def forget(self, task: TaskKey) -> tuple[int, int]:
        """Note that a task is forgotten, on the disk; what it had counts no longer.

        Returns:
            the number of the event, and how many datapoints the task had.

        Raises:
            UnknownTask: the task is not known.
            WriteError: the file system refuses.
        """
        with self._writing:
            if (known := self._tasks.get(task)) is None:
                raise UnknownTask(f"task {task!r} is not known: nothing of it is stored")
            sequence = self.last + 1
            row = {"sequence": sequence, "task": _text(task), "stage": LOGGED, "arrived": time.time()}
            with self._refusals(), self._engine.begin() as connection:
                connection.execute(FORGOTTEN.insert(), row)
            self._deleting[sequence] = task
            del self._tasks[task]
            self.last = sequence
            return sequence, known.datapoints

    def delete(self, until: int) -> None:
        """Delete what was forgotten by events up to number `until`, and wipe its bytes from the files.

        Raises:
            WriteError: the file system refuses, or other processes that read the log do not end.
        """
        with self._writing, self._refusals():
            due = {sequence: task for sequence, task in self._deleting.items() if sequence <= until}
            with self._engine.begin() as connection:
                for sequence, task in due.items():
                    gone = (DATAPOINTS.c.task == _text(task)) & (DATAPOINTS.c.sequence < sequence)
                    connection.execute(DATAPOINTS.delete().where(gone))
                    event = FORGOTTEN.update().where(FORGOTTEN.c.sequence == sequence)
                    connection.execute(event.values(task=None, stage=DELETED))
            for sequence in due:
                del self._deleting[sequence]
            self._wipe()
            with self._engine.begin() as connection:
                event = FORGOTTEN.update().where(FORGOTTEN.c.stage == DELETED)
                connection.execute(event.values(stage=CLEANED))

    def _wipe(self) -> None:
        """Write the file anew without free pages, and empty the file of the WAL, which holds former versions of pages.

        Raises:
            WriteError: others read the log and do not end.
        """
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM")
            busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar()
        if busy:
            raise WriteError(f"{self.path} is being read: what was forgotten goes from its files once that has ended")

    # Reading

    def tasks(self) -> dict[TaskKey, int]:
        """The tasks that have datapoints, and how many."""
        return {task: known.datapoints for task, known in list(self._tasks.items())}

    def known(self, task: TaskKey) -> Known:
        """What is known of a task."""
        return self._tasks.get(task, Known(0, 0))

    def of_task(self, task: TaskKey, until: int) -> list[bytes]:
        """The datapoints of a task, in order, up to number `until`, without what was forgotten before that."""
        asked = sa.select(DATAPOINTS.c.data).where(
            DATAPOINTS.c.task == _text(task),
            DATAPOINTS.c.sequence > self._since(task, until),
            DATAPOINTS.c.sequence <= until,
        )
        with self._engine.connect() as connection:
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
        with self._engine.connect() as connection:
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
        asked = sa.select(sa.func.count()).where(FORGOTTEN.c.stage != CLEANED, FORGOTTEN.c.sequence <= until)
        with self._engine.connect() as connection:
            return bool(connection.execute(asked).scalar())

    @property
    def incomplete(self) -> bool:
        """Whether datapoints that were learned at some time are no longer in the log."""
        asked = sa.select(sa.func.count()).where(FORGOTTEN.c.stage != LOGGED)
        with self._engine.connect() as connection:
            return bool(connection.execute(asked).scalar())

    def is_forgotten(self, group: Group, until: int) -> bool:
        """Whether an event up to number `until` forgot a group that is still in the log."""
        return group.sequence < self._since(group.task, until)

    def copy(self, path: Path) -> None:
        """Write a copy of the log, as of one moment, to a new file, which is on the disk on return.

        Raises:
            WriteError: the file system refuses.
        """
        with self._refusals(), self._engine.connect() as connection:
            source = connection.connection.driver_connection
            assert isinstance(source, sqlite3.Connection)
            copy = sqlite3.connect(path)
            try:
                source.backup(copy)
            finally:
                copy.close()
        with path.open("rb") as file:
            sync(file)

    def damage(self) -> list[str]:
        """What SQLite finds wrong with the file, in its words; nothing: it is sound."""
        with self._engine.connect() as connection:
            found = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]
        return [line for line in found if line != "ok"]

    def datapoints(self) -> Iterator[Stored]:
        """All datapoints in the file, in order, also those of tasks that are forgotten but not yet deleted."""
        rows = sa.select(DATAPOINTS).order_by(DATAPOINTS.c.sequence)
        with self._engine.connect() as connection:
            for row in connection.execute(rows).yield_per(AT_ONCE):
                task = json.loads(row.task)
                counts = row.sequence > self._since(task)
                yield Stored(row.sequence, row.first, row.size, task, row.id, row.data, row.digest, counts)

    # Within

    def _since(self, task: TaskKey, until: int | None = None) -> int:
        """The number of the last event, up to `until`, that forgot the task, if its datapoints are not yet deleted."""
        events = [sequence for sequence, forgotten in list(self._deleting.items()) if forgotten == task]
        return max((sequence for sequence in events if until is None or sequence <= until), default=0)

    def _read_tasks(self) -> None:
        column = DATAPOINTS.c
        asked = sa.select(column.task, sa.func.count(), sa.func.max(column.sequence)).group_by(column.task)
        with self._engine.connect() as connection:
            waits = sa.select(FORGOTTEN.c.sequence, FORGOTTEN.c.task).where(FORGOTTEN.c.stage == LOGGED)
            self._deleting = {row.sequence: json.loads(row.task) for row in connection.execute(waits)}
            rows = list(connection.execute(asked.where(column.task.not_in(set(map(_text, self._deleting.values()))))))
            for task in set(self._deleting.values()):
                own = (column.task == _text(task)) & (column.sequence > self._since(task))
                rows += connection.execute(asked.where(own))
            self._tasks = {json.loads(task): Known(count, last) for task, count, last in rows}
            ends = [connection.execute(sa.select(sa.func.max(t.c.sequence))).scalar() for t in (DATAPOINTS, FORGOTTEN)]
            self.last = max(end or 0 for end in ends)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Turn what the database or the file system refuses into one line.

        Raises:
            WriteError: saying what.
            Ended: the file is closed; another process may have it.
        """
        if self._closed:
            raise Ended(f"the learner in {self.path.parent} is closed: open it by Live.open")
        try:
            yield
        except (sa.exc.DBAPIError, sqlite3.Error) as error:
            why = getattr(error, "orig", None) or error
            raise WriteError(
                f"cannot write to {self.path}: {why}; nothing of this call is stored: make room on the disk, then give "
                "the same again with the same ids"
            ) from error


def _text(task: TaskKey) -> str:
    """A task's key as JSON: 1 and "1" differ."""
    return json.dumps(task)


def _as_rows(waiting: _Waiting, places: Collection[int], first: int) -> list[dict[str, Any]]:
    task, arrived = _text(waiting.task), time.time()  # of which nothing depends: clocks may be set back
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
