"""The log: every datapoint that was acknowledged, on the disk, in one total order. Any process may write it.

All SQL is here, in `log`, which reads, and in the modules of where a log may be: `sqlite` and `postgres`; what else
processes share in a database is in `shared`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from metaleader.buffer import TaskKey
from metaleader.errors import UserError
from metaleader.live.commit import GroupCommit, Waiting
from metaleader.live.events import Acknowledged, Known, UnknownTask, digest
from metaleader.live.index import Index
from metaleader.live.log import Home, Log
from metaleader.live.tables import ABOUT, CLEANED, DATAPOINTS, DELETED, FORGOTTEN, LOGGED, METADATA, VERSION

AT_ONCE = 256  # names asked for by one statement

# Made once, as in `log`.
_INSERTED = DATAPOINTS.insert()
_OF_IDS = sa.select(DATAPOINTS.c.id, DATAPOINTS.c.digest).where(
    DATAPOINTS.c.task == sa.bindparam("task"),
    DATAPOINTS.c.id.in_(sa.bindparam("ids", expanding=True)),
    DATAPOINTS.c.sequence > sa.bindparam("after"),
)


class Store(Log):
    """A log to be read and written. Its methods may be called by any thread."""

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self._writing = threading.Lock()
        self._commits = GroupCommit(self._writing, lambda together: self._write(together))

    @classmethod
    def create(cls, home: Home, about: Mapping[str, Any]) -> Store:
        """A new, empty log.

        Raises:
            UserError: there is one.
            WriteError: the file system or the database refuses.
        """
        values = {"version": VERSION, **about}
        rows = [{"name": name, "value": json.dumps(value)} for name, value in values.items()]
        return cls.filled(home, lambda connection: connection.execute(ABOUT.insert(), rows))

    @classmethod
    def filled(cls, home: Home, fill: Callable[[sa.Connection], Any]) -> Store:
        """A new log, with what `fill` puts in its tables within one transaction, settings at least.

        Raises:
            UserError: there is one.
            WriteError: the file system or the database refuses.
        """
        with cls(home)._closed_unless_whole() as store, store.refusals():
            made = not home.exists()
            if made:
                try:
                    with home.writing.begin() as connection:
                        home.prepare(connection)
                        METADATA.create_all(connection, tables=home.tables)
                        home.fill(connection)
                        fill(connection)
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
            self.home.dispose()

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
                        connection.execute(_INSERTED, self._as_rows(waiting, new, last + 1))
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
            asked = {
                "task": self._text(waiting.task),
                "ids": waiting.ids[start : start + AT_ONCE],
                "after": index.since(waiting.task),
            }
            stored.update((row.id, row.digest) for row in connection.execute(_OF_IDS, asked))
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
            UnknownTask: the task is not known.
            WriteError: the file system or the database refuses.
        """
        with self._writing, self.refusals():
            with self.home.writing.begin() as connection:
                self.home.lock(connection)
                index = self._refreshed(connection)
                if (known := index.tasks.get(task)) is None:
                    raise UnknownTask(f"task {task!r} is not known: nothing of it is stored")
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
            due = {sequence: task for sequence, task in list(self._index.deleting.items()) if sequence <= until}
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
