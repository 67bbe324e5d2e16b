"""The process that learns, beside the one that serves: they share no interpreter, so that learning slows no answer."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

import jax

from metaleader.errors import UserError, in_one_line
from metaleader.learners import external
from metaleader.live import Ended, Live, Pace, keeping, settings
from metaleader.processes import end_with_parent, leave_a_processor
from metaleader.service.logs import log_json

LOOK = 0.5  # seconds between two looks whether learning goes on
AGAIN, LONGEST = 1.0, 60.0  # seconds until it is started again, the first time and at most
LOWER = 15  # by how much it leaves the processors to answers, as `nice` counts
WITHIN = tuple(external.SEARCHED)  # learners whose state cannot be saved, so that nobody can follow them

ENDED = "the process that learns has ended, and is started again: its log says why"

_log = logging.getLogger(__name__)


class Beside:
    """Starts the process that learns, asks it, and starts it again if it ends by itself.

    Attributes:
        refused: why it could not have the learner, after it had waited for that; then this process is interrupted.
    """

    def __init__(self, place: str, pace: Pace, wait: float) -> None:
        self._given = place, pace, wait
        self._asking, self._over = threading.Lock(), threading.Event()
        self.refused: UserError | None = None
        self._had = False  # whether one that was started before has had the learner
        self._start()
        self._thread = threading.Thread(target=self._watch, name="metaleader-beside", daemon=True)

    def begin(self) -> None:
        """Wait until it has the learner, unless it may wait for that itself.

        Raises:
            UserError: it cannot have it.
        """
        _, _, wait = self._given
        if wait == 0:
            self._take_up()
        self._thread.start()

    @property
    def failed(self) -> bool:
        """Whether it has ended."""
        return self._process.exitcode is not None

    def ask(self, verb: str) -> None:
        """Let it `save` or `rebuild`, and wait until that is done.

        Raises:
            UserError: it refuses.
            Ended: it is not there, or does not have the learner yet.
        """
        with self._asking:
            if not self._has and not self._connection.poll():
                raise Ended("another process still learns, or this one begins to: ask again later")
            self._take_up()
            try:
                self._connection.send(verb)
            except OSError as error:
                raise Ended(ENDED) from error
            self._receive()

    def close(self) -> None:
        """Let it end: it writes a snapshot before, unless it still waits for the learner, perhaps for ever.

        What it is asked to do meanwhile, it gives up.
        """
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        if not self._has and not self._connection.poll():
            self._process.kill()
        # To close it would be no end to the other side while a thread here reads from it.
        with socket.socket(fileno=os.dup(self._connection.fileno())) as end, suppress(OSError):
            end.shutdown(socket.SHUT_WR)
        self._process.join()
        self._connection.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_learn, args=(*self._given, theirs), name="metaleader-learning")
        self._process.start()
        theirs.close()
        self._has = False  # whether it has said that it has the learner

    def _take_up(self) -> None:
        """Wait until it has the learner.

        Raises:
            UserError: it cannot have it.
        """
        if self._has:
            return
        try:
            self._receive()
        except Ended:
            raise
        except UserError as error:
            self.refused = None if self._had else error
            raise
        self._has = self._had = True

    def _receive(self) -> None:
        """Wait for an answer.

        Raises:
            UserError: which is the answer, or since the process has ended.
        """
        try:
            answer = self._connection.recv()
        except (OSError, EOFError) as error:
            raise Ended(ENDED) from error
        if answer is not None:
            raise answer

    def _watch(self) -> None:
        pause = AGAIN
        while not self._over.wait(LOOK):
            if self._process.exitcode is None:
                continue
            if self._waited_in_vain():
                os.kill(os.getpid(), signal.SIGINT)
                while not self._over.wait(LONGEST):  # once more, should it have come before anyone listened
                    os.kill(os.getpid(), signal.SIGINT)
                return
            _log.error("the process that learns ended with exit code %s: starting it again", self._process.exitcode)
            if self._over.wait(pause):
                return
            pause = min(2 * pause, LONGEST)
            with self._asking:
                self._connection.close()
                self._start()

    def _waited_in_vain(self) -> bool:
        """Whether it may not have the learner, and none had it before: then the service is to end."""
        with self._asking:
            if not self._has and self._connection.poll():
                with suppress(UserError):
                    self._take_up()
        return self.refused is not None


@contextmanager
def learning_beside(place: str, pace: Pace, wait: float) -> Iterator[Live]:
    """A learner that this process follows, and that a process of its own learns, as long as the block lasts.

    Args:
        place: folder or URL.
        pace: of both. A snapshot is written, and followed, every `refresh` seconds.
        wait: as in `Live.open`; meanwhile, the process that has the learner is followed.

    Raises:
        UserError: as `Live.open`; after `wait` seconds, the block is left by an interrupt for it.
    """
    beside = Beside(place, pace, wait)
    try:
        beside.begin()
        with Live.follow(place, pace=pace, learning=beside) as live:
            yield live
    finally:
        beside.close()
        if beside.refused is not None:
            raise beside.refused


def followable(place: str) -> bool:
    """Whether the state of the learner that is there can be saved, and so followed.

    Raises:
        UserError: there is none.
    """
    where = keeping.place(place)
    with where.followed() as kept:
        stored = settings.current(where.name, kept.store.about("settings"))
        _, learner = settings.problem_and_learner(where.name, stored)
    return not isinstance(learner, WITHIN)


def _learn(place: str, pace: Pace, wait: float, connection: Connection) -> None:
    """What the process does."""
    end_with_parent()
    for each in (signal.SIGTERM, signal.SIGINT):  # a terminal and some supervisors send them to all: the parent decides
        signal.signal(each, signal.SIG_IGN)
    os.nice(LOWER)
    log_json()
    try:
        live = Live.open(place, wait=wait, pace=pace)
    except UserError as error:
        _log.error("%s", error)
        connection.send(error)
        return
    jax.devices()  # XLA takes as many threads as there are processors, by which sums may differ in their last bits
    leave_a_processor()
    with (
        ThreadPoolExecutor(1) as asked,
        live,  # closed first, which ends what is asked
        suppress(EOFError, BrokenPipeError, ConnectionResetError),  # the parent has closed its end: the end
    ):
        connection.send(None)
        while True:
            if connection.poll(LOOK):  # also while it does what it was asked: nothing comes then but the end
                verb = connection.recv()
                asked.submit(_answer, connection, {"save": live.save, "rebuild": live.rebuild}[verb])
            elif live.status().failed:  # its log has told why
                raise SystemExit(3)


def _answer(connection: Connection, do: Callable[[], None]) -> None:
    """Do what is asked, and tell that it is done, or why not."""
    outcome: UserError | None = None
    try:
        do()
    except UserError as error:
        outcome = error
    except Exception as error:
        _log.exception("what was asked failed")
        outcome = Ended(f"it was not done: {in_one_line(error)}; the log says more")
    with suppress(OSError):
        connection.send(outcome)
