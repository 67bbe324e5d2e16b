"""Processes of this machine that do jobs, each in a pool of its own, so that one that dies takes no other along."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, Generic, TypeVar

from metaleader import devices
from metaleader.errors import UserError
from metaleader.processes import end_with_parent

LOSSES = 3  # workers that one job may lose, without getting any further, before it counts as failed
J = TypeVar("J")
R = TypeVar("R")


def slots(asked: int | None, cores: int = 1) -> int:
    """How many processes of so many cores work at a time: as many as asked for, or as there are cores for.

    Raises:
        UserError: fewer than one is asked for.
    """
    if asked is not None and asked < 1:
        raise UserError(f"--workers must be at least 1, got {asked}")
    return asked or max(1, devices.available_cores() // cores)


class LocalWorkers(Generic[J, R]):
    """Worker processes that call `perform(job, cores)`, a function that can be pickled by its name.

    `perform` should call `stop_if_asked` now and then, and treat the signal that it raises as Ctrl-C.
    """

    def __init__(self, slots: int, cores: int, perform: Callable[[J, int], R]) -> None:
        self.slots, self._cores, self._perform = slots, cores, perform
        self._context = multiprocessing.get_context("spawn")
        self._stop = self._context.Event()
        self._idle: list[tuple[ProcessPoolExecutor, str]] = []
        self._pools: dict[Future[R], tuple[ProcessPoolExecutor, str]] = {}
        self._processes: set[Any] = set()

    def submit(self, job: J, kind: str = "") -> Future[R]:
        """Begin a job in an idle process, or a new one; the future raises `BrokenExecutor` if the process dies.

        Jobs of one `kind` share processes. One that did jobs of another kind is ended instead of used, and what it had
        loaded and compiled for them is given back.
        """
        for future in [future for future in self._pools if future.done()]:
            pool, did = self._pools.pop(future)
            if future.exception() is None:
                self._idle.append((pool, did))
            else:
                pool.shutdown(wait=False)
        self._idle.sort(key=lambda idle: idle[1] == kind)  # those of this kind last, which are taken first
        pool, did = self._idle.pop() if self._idle else (self._pool(), kind)
        if did != kind:
            pool.shutdown()
            pool = self._pool()
        others = set(multiprocessing.active_children())
        # A new process inherits this mask, and so does not die of a Ctrl-C while it is still starting.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            future = pool.submit(self._perform, job, self._cores)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._processes |= set(multiprocessing.active_children()) - others
        self._pools[future] = pool, kind
        return future

    def _pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, self._context, _begin, (self._stop,))

    def stop(self) -> None:
        """Ask all jobs to save and stop."""
        self._stop.set()

    def close(self) -> None:
        """End the processes, at once where they still work."""
        if any(not future.done() for future in self._pools):
            for process in self._processes:
                process.kill()
        for pool, _ in [*self._idle, *self._pools.values()]:
            pool.shutdown()


# In a worker.

_asked_to_stop: Callable[[], bool] = lambda: False  # noqa: E731 - replaced in a local worker


def _begin(stop: Any) -> None:
    global _asked_to_stop
    end_with_parent()
    os.setpgrp()  # Ctrl-C in the terminal is for the parent, which asks its workers to stop
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _asked_to_stop = stop.is_set


def stop_if_asked(*_: Any) -> None:
    """In a worker that was asked to stop, raise the signal of Ctrl-C; takes any arguments, as a progress callback."""
    if _asked_to_stop():
        signal.raise_signal(signal.SIGINT)
