"""Callers that arrive while another one's transaction is written share the next (group commit)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from metaleader.buffer import TaskKey
from metaleader.live.events import Acknowledged


class Waiting:
    """Datapoints of one caller, who waits until they are on the disk."""

    def __init__(self, task: TaskKey, ids: Sequence[str], rows: Sequence[bytes]) -> None:
        self.task, self.ids, self.rows = task, ids, rows
        self.done: Acknowledged | BaseException | None = None


class GroupCommit:
    """One caller at a time writes for all who wait by then, so that many do not wait for one `fsync` each."""

    def __init__(self, writing: threading.Lock, write: Callable[[list[Waiting]], None]) -> None:
        self._writing, self._write, self._turn = writing, write, threading.Condition()
        self._led = False  # whether a caller writes, or is about to
        self.queue: list[Waiting] = []

    def commit(self, waiting: Waiting) -> Acknowledged:
        """What `write` found, once it has written this, perhaps with others.

        Raises:
            BaseException: what it found instead.
        """
        with self._turn:
            self.queue.append(waiting)
            self._turn.wait_for(lambda: waiting.done is not None or not self._led)
            leads = waiting.done is None
            self._led = self._led or leads
        if leads:
            try:
                with self._writing:
                    with self._turn:
                        together, self.queue = self.queue, []
                    self._write(together)
            finally:
                with self._turn:
                    self._led = False
                    self._turn.notify_all()
        if isinstance(waiting.done, BaseException):
            raise waiting.done
        assert waiting.done is not None
        return waiting.done
