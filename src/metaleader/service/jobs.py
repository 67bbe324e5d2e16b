"""Threads in which the verbs of a learner run, with a bound on what waits for them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from metaleader.service.limits import whole_seconds
from metaleader.service.refusal import Refusal

T = TypeVar("T")
QUICK = 0.005  # seconds that the event loop may be held up
NEWEST = 0.1  # weight of the newest job in the mean


class Jobs:
    """A few threads, and at most `most` jobs that run or wait for one. To be used from one event loop.

    Jobs that do not wait for anything, and have been quick so far, are done by the event loop itself: one interpreter
    does one thing at a time, and handing it from thread to thread takes longer than such a job.

    Args:
        name: of the threads.
        threads: how many.
        most: jobs at a time.
        waits: whether jobs may wait for a disk, a network or a lock.
    """

    def __init__(self, name: str, threads: int, most: int, waits: bool = True) -> None:
        self.name, self.most, self.now = name, most, 0
        self._threads = ThreadPoolExecutor(threads, f"metaleader-{name}")
        self._waits, self._usual = waits, math.inf

    async def run(self, job: Callable[[], T], timeout: float | None, waits: bool = False) -> T:
        """What `job` returns.

        Args:
            job: what to do.
            timeout: seconds that it may take, in a thread; None: any.
            waits: whether this one is to be done in a thread, however quick others were.

        Raises:
            Refusal: there are too many jobs, or this one is not done after `timeout` seconds; it then goes on, and
                counts until it is done.
        """
        if self.now >= self.most:
            raise Refusal(
                503, f"{self.now} requests are being worked on: try again later", {"Retry-After": whole_seconds(1)}
            )
        if self._usual <= QUICK and not (waits or self._waits):
            return self._timed(job)
        self.now += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, self._timed, job)
        future.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(future), timeout)
        except TimeoutError:
            raise Refusal(
                504,
                f"not done after {timeout:g} seconds, but it may still be done: give datapoints again with the same "
                "ids, so that they count once",
            ) from None

    def _timed(self, job: Callable[[], T]) -> T:
        began = time.thread_time()  # not what others took of the processors meanwhile
        try:
            return job()
        finally:
            took = time.thread_time() - began
            self._usual = took if math.isinf(self._usual) else (1 - NEWEST) * self._usual + NEWEST * took

    def _done(self, future: asyncio.Future[T]) -> None:
        self.now -= 1
        if not future.cancelled():
            future.exception()  # looked at here, as whoever waited may be gone

    def close(self) -> None:
        """Take no more jobs. A thread ends with its job, which the end of the learner ends."""
        self._threads.shutdown(wait=False)
