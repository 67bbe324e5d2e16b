"""Predicting from the snapshots of another process, which learns."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from typing import Never, Protocol

from metaleader.errors import WriteError, in_one_line
from metaleader.live import keeping
from metaleader.live.course import Course
from metaleader.live.events import Ended, Follows, NotInTime
from metaleader.live.shelf import Shelf
from metaleader.live.snapshot import Damaged
from metaleader.live.worker import LOOK, Pace, Published

ALONE = 5.0  # seconds without a process that learns, after which it is no use to wait for one

_log = logging.getLogger(__name__)


class Learning(Protocol):
    """The process that learns, of the one that follows it."""

    @property
    def failed(self) -> bool:
        """Whether it has ended."""

    def ask(self, verb: str, /) -> None:
        """Let it `save` or `rebuild`.

        Raises:
            UserError: it refuses, or has ended.
        """


class Follower:
    """Loads the newest snapshot whenever there is one, in a thread of its own; learns and writes nothing."""

    def __init__(
        self,
        course: Course,
        shelf: Shelf,
        learned_by: Callable[[], str | None],
        pace: Pace,
        learning: Learning | None,
    ) -> None:
        self._course, self._shelf, self._learned_by, self._pace = course, shelf, learned_by, pace
        self._learning = learning
        self._begun = self.progress = course.begin()
        self.published = Published(self.progress.state, 0, 0)
        self._mark: Hashable = None
        self._change = threading.Condition()
        self._closing = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="metaleader-follow", daemon=True)

    def start(self) -> None:
        """Begin with the newest snapshot, and follow."""
        self._load()
        self._thread.start()

    def tell(self) -> None:
        """There is something new in the log: the process that learns looks for it."""

    def check(self) -> None:
        """Make sure that snapshots are followed.

        Raises:
            Ended: that ended by an error.
        """
        if self._failure is not None:
            raise Ended(
                f"following ended by an error at event {self.progress.sequence} of the log: "
                f"{in_one_line(self._failure)}; open it again"
            ) from self._failure

    @property
    def failed(self) -> bool:
        """Whether following ended by an error, or the process that learns, where that is this one's own."""
        return self._failure is not None or (self._learning is not None and self._learning.failed)

    def wait(self, sequence: int, timeout: float | None) -> None:
        """Wait until a snapshot that has learned that event is loaded.

        Raises:
            Ended: no process learns.
            UserError: that took longer than `timeout` seconds.
        """
        self._until(lambda: self.progress.sequence >= sequence, timeout)

    def forgotten(self, sequence: int) -> None:
        """Wait until the process that learns has removed what that event forgot from all files, and this one as well.

        Raises:
            Ended: no process learns: the one that does next removes it.
        """
        self._until(lambda: self.progress.sequence >= sequence and not self._course.store.unfinished(sequence), None)

    def ask(self, verb: str) -> None:
        """Let the process that learns do something, if it is this one's own: `save` or `rebuild`.

        Raises:
            Follows: it is not.
            UserError: it refuses.
        """
        if self._learning is None:
            self.refuse()
        self._learning.ask(verb)

    def refuse(self) -> Never:
        """Refuse what changes or keeps what is learned.

        Raises:
            Follows: always.
        """
        who = self._learned_by() or "one that opens it by Live.open"
        raise Follows(f"this process follows, and neither learns nor saves: ask the one that learns, {who}")

    def close(self) -> None:
        """Follow no longer."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def _until(self, done: Callable[[], bool], timeout: float | None) -> None:
        began = last_met = time.monotonic()
        while not done():
            self.check()
            if self._closing:
                raise Ended("the learner is closed: open it again")
            now = time.monotonic()
            if timeout is not None and now >= began + timeout:
                raise NotInTime(f"not all is learned after {timeout} seconds: wait longer")
            if self._learned_by() is not None:
                last_met = now
            elif now >= last_met + ALONE:
                raise Ended("no process learns: start one by Live.open; all that is stored is learned then")
            with self._change:
                self._change.wait(LOOK)

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closing, max(self._pace.refresh, LOOK))
                if self._closing:
                    return
            try:
                self._load()
            except WriteError as error:  # the database did not answer
                _log.warning("%s", error)
            except BaseException as error:
                self._failure = error
                _log.error("following ended by an error", exc_info=True)
                return

    def _load(self) -> None:
        """Go on to the newest sound snapshot, if there is a newer one."""
        self._course.store.refresh()  # also for who asks how many datapoints there are
        if (mark := self._shelf.mark()) is None or mark == self._mark:
            return
        sound = True
        for name in self._shelf.names():
            try:
                progress = keeping.restored(self._course, self._shelf, name, self._begun)
            except Damaged as damage:
                _log.warning("%s; following the one before", damage)
                sound = False
                continue
            if progress is not None:
                break
        else:
            return
        if sound or self.published.version == 0:
            with self._change:
                self.progress = progress
                self.published = Published(progress.state, progress.sequence, self.published.version + 1)
                self._change.notify_all()
        self._mark = mark if sound else None  # the next one may take the same place
