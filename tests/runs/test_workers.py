"""Worker processes: which jobs share one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from metaleader.runs.workers import LocalWorkers


def which(job: int, cores: int) -> int:
    return os.getpid()


def test_jobs_of_a_kind_share_a_process_and_those_of_another_end_it() -> None:
    workers = LocalWorkers(1, 1, which)
    try:
        one, again, other = (workers.submit(0, kind).result() for kind in ("a", "a", "b"))
        assert one == again != other
        if Path("/proc").is_dir():
            assert not Path(f"/proc/{one}").exists()
        assert workers.submit(0, "b").result() == other
    finally:
        workers.close()


@pytest.mark.parametrize("kinds", [("", ""), ("a", "b")])
def test_jobs_at_a_time_have_processes_of_their_own(kinds: tuple[str, str]) -> None:
    workers = LocalWorkers(2, 1, which)
    try:
        assert len({future.result() for future in [workers.submit(0, kind) for kind in kinds]}) == 2
    finally:
        workers.close()


def test_an_idle_process_of_the_same_kind_is_taken_first() -> None:
    workers = LocalWorkers(2, 1, which)
    try:
        one, other = (future.result() for future in [workers.submit(0, kind) for kind in ("a", "b")])
        assert [workers.submit(0, kind).result() for kind in ("a", "b", "a")] == [one, other, one]
    finally:
        workers.close()
