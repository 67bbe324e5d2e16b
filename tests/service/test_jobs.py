"""Where jobs are done: quick ones by the event loop itself, others in threads."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from metaleader.service.jobs import QUICK, Jobs


def thread() -> int:
    return threading.get_ident()


def busy() -> int:
    until = time.thread_time() + 30 * QUICK
    while time.thread_time() < until:
        pass
    return thread()


def asleep() -> int:
    time.sleep(2 * QUICK)
    return thread()


def where(jobs: Jobs, *what: Callable[[], int], waits: bool = False) -> list[bool]:
    """Whether each was done by the thread of the event loop."""

    async def run() -> list[bool]:
        return [await jobs.run(each, None, waits) == thread() for each in what]

    try:
        return asyncio.run(run())
    finally:
        jobs.close()


def test_jobs_are_done_by_the_event_loop_while_they_are_quick() -> None:
    found = where(Jobs("quick", 1, 8, waits=False), thread, thread, busy, thread, *[thread] * 60, thread)
    assert found[:4] == [
        False,
        True,
        True,
        False,
    ]  # the first shows how quick they are, and the slow one that it is not
    assert found[-1]  # it was the only one


def test_what_others_take_of_the_processors_makes_no_job_slow() -> None:
    assert where(Jobs("asleep", 1, 8, waits=False), asleep, asleep) == [False, True]


@pytest.mark.parametrize("always", [True, False])
def test_jobs_that_may_wait_are_done_in_threads(always: bool) -> None:
    assert where(Jobs("waiting", 1, 8, waits=always), thread, thread, waits=not always) == [False, False]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no choice of processors")
def test_a_processor_is_left_by_all_threads_of_a_process() -> None:
    code = """
import os, threading
from metaleader.processes import leave_a_processor
held = threading.Event()
thread = threading.Thread(target=held.wait)
thread.start()
before = os.sched_getaffinity(0)
leave_a_processor()
after = [os.sched_getaffinity(each) for each in (0, thread.native_id)]
held.set()
assert after == [before - {min(before)} if len(before) > 1 else before] * 2, (before, after)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
