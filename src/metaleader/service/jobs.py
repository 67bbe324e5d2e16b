"""Threads in which the verbs of a learner run, with a bound on what waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from metaleader.service.limits import whole_seconds
from metaleader.service.refusal import Refusal

T = TypeVar("T")


class Jobs:
    """A few threads, and at most `most` jobs that run or wait for one. To be used from one event loop."""

    def __init__(self, name: str, threads: int, most: int) -> None:
        self.name, self.most, self.now = name, most, 0
        self._threads = ThreadPoolExecutor(threads, f"metaleader-{name}")

    async def run(self, job: Callable[[], T], timeout: float | None) -> T:
        """What `job` returns.

        Raises:
            Refusal: there are too many jobs, or this one is not done after `timeout` seconds; it then goes on, and
                counts until it is done.
        """
        if self.now >= self.most:
            raise Refusal(
                503, f"{self.now} requests are being worked on: try again later", {"Retry-After": whole_seconds(1)}
            )
        self.now += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, job)
        future.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(future), timeout)
        except TimeoutError:
            raise Refusal(
                504,
                f"not done after {timeout:g} seconds, but it may still be done: give datapoints again with the same "
                "ids, so that they count once",
            ) from None

    def _done(self, future: asyncio.Future[T]) -> None:
        self.now -= 1
        if not future.cancelled():
            future.exception()  # looked at here, as whoever waited may be gone

    def close(self) -> None:
        """Take no more jobs. A thread ends with its job, which the end of the learner ends."""
        self._threads.shutdown(wait=False)
