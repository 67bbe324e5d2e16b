"""The thread that learns, and that alone changes what is learned and its snapshots."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from metaleader.errors import WriteError, check_not_negative, check_positive, in_one_line
from metaleader.live import keeping
from metaleader.live.course import Course, Progress, Stopped, copied
from metaleader.live.events import Ended, Event, Forgetting, NotInTime
from metaleader.live.shelf import KEPT, Shelf
from metaleader.live.snapshot import Unsaveable

if TYPE_CHECKING:
    from metaleader.live.shared import Lease

LOOK = 0.1  # seconds between two looks for what other processes stored
KEEPING = 20.0  # times as long as a snapshot took, at least, until the next
FIRST = 0.1  # seconds that the first event counts as taking, at most: most of it is compiling
RETRY = 1.0  # seconds until a database that did not answer is asked again

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """How much learning and keeping may take. Nothing here changes what is learned, only when.

    Raises:
        ValueError: a number is negative, or `share` is not in (0, 1].

    Examples:
        >>> from metaleader.live import Pace
        >>> Pace(share=0.25)  # a quarter of the time at most
        Pace(share=0.25, refresh=0.5, snapshot=60.0, cache_bytes=67108864, lease=10.0)
    """

    share: float = 1.0
    """How much of its time the thread that learns may spend learning; the rest of it, it sleeps."""
    refresh: float = 0.5
    """Seconds for which predictions may be made from an older state of the learner, with all datapoints of their task.
    Each refresh copies the state, buffer included; parameters adapted to tasks are kept between two of them."""
    snapshot: float = 60.0
    """Seconds between snapshots, while there is something new to learn: so much is learned again at most after a
    kill. More, where writing them would take more than a twentieth of the time."""
    cache_bytes: int = 64 << 20
    """Memory for parameters adapted to tasks, and for their datapoints; those used least recently go first."""
    lease: float = 10.0
    """Seconds after which another process may go on learning where this one stopped answering, in a database."""

    def __post_init__(self) -> None:
        check_not_negative(self, "refresh", "snapshot", "cache_bytes")
        check_positive(self, "lease")
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, got {self.share}")


class Published(NamedTuple):
    """A state to predict from, that nothing changes.

    Attributes:
        state: of the learner, a copy.
        sequence: the number of the last event that it has learned.
        version: how many there were before.
    """

    state: Any
    sequence: int
    version: int


class Worker:
    """Learns the events of a log in order, as they come, in a thread of its own."""

    def __init__(self, course: Course, shelf: Shelf, lease: Lease | None, progress: Progress, pace: Pace) -> None:
        self._course, self._shelf, self._lease, self._pace = course, shelf, lease, pace
        self.progress = progress
        self.published = Published(copied(progress.state), progress.sequence, 0)
        self._saved, self._published_at = progress.sequence, time.monotonic()
        self._save_at = time.monotonic() + pace.snapshot
        self._change = threading.Condition()
        self._requests: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._closing = self._ended = False
        self._failure: BaseException | None = None
        self._took = deque([FIRST], maxlen=2)  # seconds of the events learned last
        self._rests_until = 0.0
        self._thread = threading.Thread(target=self._run, name="metaleader-live", daemon=True)

    # For other threads

    def start(self) -> None:
        """Begin to learn; first, finish what a process that was killed left to be forgotten."""
        self.finish_forgetting()
        self._thread.start()

    def tell(self) -> None:
        """There is something new in the log."""
        with self._change:
            self._change.notify_all()

    def check(self) -> None:
        """Make sure that learning goes on.

        Raises:
            Ended: it does not.
        """
        if self._failure is not None:
            raise self._of_failure() from self._failure
        if self._ended:
            raise Ended("the learner is closed: open it by Live.open")

    @property
    def failed(self) -> bool:
        """Whether learning ended by an error."""
        return self._failure is not None

    def wait(self, sequence: int, timeout: float | None) -> None:
        """Wait until that event is learned, and published.

        Raises:
            UserError: learning ended, or that took longer than `timeout` seconds.
        """
        began, late = time.monotonic(), NotInTime(f"not all is learned after {timeout} seconds: wait longer")
        with self._change:
            if not self._change.wait_for(lambda: self._ended or self.progress.sequence >= sequence, timeout):
                raise late
        if self.published.sequence < sequence or self.published.sequence < self.progress.sequence:
            try:
                self.ask(self._publish, None if timeout is None else max(began + timeout - time.monotonic(), 0.0))
            except TimeoutError:
                raise late from None
        else:
            self.check()

    def ask(self, what: Callable[[], Any], timeout: float | None = None) -> Any:
        """What `what` gives, called by the thread that learns, between two events.

        Raises:
            UserError: learning ended; or what `what` raises.
            TimeoutError: that takes longer than `timeout` seconds, after which it is called all the same.
        """
        future: Future[Any] = Future()
        with self._change:
            self.check()
            self._requests.append((what, future))
            self._change.notify_all()
        return future.result(timeout)

    def forgotten(self, sequence: int) -> None:
        """Wait until what that event forgot is in no file.

        Raises:
            UserError: learning ended.
            WriteError: the file system refuses.
        """
        self.wait(sequence, None)
        self.ask(self.finish_forgetting)

    def close(self) -> None:
        """Stop after the event that is being learned, and write a snapshot."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        if self._failure is None and self.progress.sequence > self._saved:
            self._try(self.save)

    # For the thread

    def save(self, required: bool = False) -> None:
        """Write a snapshot of what is learned, and finish what could not be finished before.

        Raises:
            Unsaveable: there can be none, and it is `required`.
            WriteError: the file system refuses.
        """
        self._snapshot(KEPT, required)
        self.finish_forgetting()

    def _snapshot(self, keep: int, required: bool = False) -> None:
        began = time.monotonic()
        try:
            keeping.save(self._course, self._shelf, self.progress, keep)
        except Unsaveable:
            self._shelf.tidy(0)  # the log is the only account of what is to come
            if required:
                raise
        finally:  # if it was refused, it is tried again then
            now = time.monotonic()
            self._save_at = now + max(self._pace.snapshot, KEEPING * (now - began))
        self._saved = self.progress.sequence

    def finish_forgetting(self) -> None:
        """Remove what was forgotten by the events learned so far from all files.

        First there is a snapshot without it; then those with it go; then the log can do without it.

        Raises:
            WriteError: the file system refuses.
        """
        if self._course.store.unfinished(self.progress.sequence):
            self._publish()
            self._snapshot(1)
            self._course.store.delete(self.progress.sequence, self._fence)

    def _fence(self, connection: Any) -> None:
        if self._lease is not None:
            self._lease.fence(connection)

    def rebuild(self) -> None:
        """Learn the log anew, without what was forgotten.

        Raises:
            WriteError: the file system refuses the snapshot; once opened again, the learner is as it was.
        """
        self.progress = self._course.learned(self.progress.sequence, self._stops)
        self._publish(again=True)
        self._snapshot(1)  # those before lead to other weights

    def _run(self) -> None:
        try:
            self._work()
        except Stopped:
            pass
        except BaseException as error:
            self._failure = error
            _log.error("learning ended by an error", exc_info=True)
        with self._change:
            self._ended = True
            for _, future in self._requests:
                closed = Ended("the learner was closed before this was done: open it again")
                future.set_exception(closed if self._failure is None else self._of_failure())
            self._requests.clear()
            self._change.notify_all()

    def _of_failure(self) -> Ended:
        assert self._failure is not None
        return Ended(
            f"learning ended by an error after event {self.progress.sequence} of the log: "
            f"{in_one_line(self._failure)}. All datapoints are still there; "
            "predictions are made from what was learned before. Repair the cause, then open it again"
        )

    def _work(self) -> None:
        events: Iterator[Event] = iter(())
        while True:
            if self._lease is not None:
                self._lease.check()
            with self._change:
                self._change.wait_for(lambda: self._closing or self._requests or self._ready, self._until_due())
                if self._closing:
                    return
                request = self._requests.popleft() if self._requests else None
            try:
                if request is not None:
                    self._perform(*request)
                if self._ready:  # however many requests there are
                    if (event := next(events, None)) is None:
                        events = self._course.store.events(self.progress.sequence)
                        event = next(events)
                    self._learn(event)
                elif request is None:
                    self._course.store.refresh()
            except WriteError as error:  # the database did not answer; nothing was learned of the event
                _log.warning("%s", error)
                events = iter(())
                with self._change:
                    self._change.wait_for(lambda: self._closing, RETRY)
            if self._stale and self._until_due() == 0:
                self._publish()
            if self.progress.sequence > self._saved and time.monotonic() >= self._save_at:
                self._try(self.save)

    def _learn(self, event: Event) -> None:
        began = time.monotonic()
        progress = self._course.after(self.progress, event, self._stops)
        with self._change:
            self.progress = progress
            self._change.notify_all()
        if isinstance(event, Forgetting):
            self._try(self.finish_forgetting)
        if self._pace.share < 1:
            took = time.monotonic() - began
            # One that is slow for once, since a program was compiled for it, counts as one of those before.
            self._rests_until = began + took + min(took, max(self._took)) * (1 / self._pace.share - 1)
            self._took.append(took)

    def _perform(self, what: Callable[[], Any], future: Future[Any]) -> None:
        try:
            future.set_result(what())
        except Stopped:
            future.set_exception(Ended("the learner was closed before this was done: open it again"))
            raise
        except Exception as error:
            future.set_exception(error)

    def _try(self, what: Callable[[], Any]) -> None:
        """Do something that can be done later as well, if the file system refuses."""
        try:
            what()
        except WriteError as error:
            _log.warning("%s", error)

    def _publish(self, again: bool = False) -> None:
        if self._stale or again:
            self.published = Published(copied(self.progress.state), self.progress.sequence, self.published.version + 1)
        self._published_at = time.monotonic()

    @property
    def _behind(self) -> bool:
        return self._course.store.last > self.progress.sequence

    @property
    def _ready(self) -> bool:
        """Whether there is something to learn, and time for it."""
        return self._behind and time.monotonic() >= self._rests_until

    @property
    def _stale(self) -> bool:
        return self.published.sequence < self.progress.sequence

    def _until_due(self) -> float:
        """Seconds until the next state is to be published, the next snapshot made, or the log looked at."""
        now = time.monotonic()
        due = [now + LOOK]
        if self._behind and self._rests_until > now:
            due.append(self._rests_until)
        if self._stale:
            due.append(self._published_at + self._pace.refresh)
        if self.progress.sequence > self._saved:
            due.append(self._save_at)
        return max(min(due) - now, 0.0)

    def _stops(self) -> bool:
        return self._closing
