"""Many runs at once, in processes of this machine or on a Ray cluster."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Protocol, TypeAlias, runtime_checkable

from metaleader.errors import UserError
from metaleader.runs.folder import RunFolder
from metaleader.runs.run import ENDED, RunInterrupted, interrupts
from metaleader.runs.workers import LOSSES


@runtime_checkable
class JobLike(Protocol):
    """A run to make, elsewhere."""

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        ...


Show: TypeAlias = Callable[[Mapping[str, str], Collection[Any]], None]


@runtime_checkable
class Workers(Protocol):
    """What runs jobs: processes of this machine, or a cluster."""

    slots: int

    def submit(self, job: Any) -> Future[str]:
        """Begin a job; the future gives how it ended, and raises where its worker was lost."""
        ...

    def stop(self) -> None:
        """Ask all jobs to save and stop."""
        ...

    def close(self) -> None:
        """End all workers, at once where they still work."""
        ...


def sweep(planned: Sequence[JobLike], workers: Workers, show: Show | None = None) -> dict[str, str]:
    """Run all jobs that have not ended before, and return how each ended, by folder.

    A job whose worker is lost goes on from its last checkpoint, the end of the round before, on another one.

    Args:
        planned: see `jobs`.
        workers: where to run them.
        show: is told now and then what has ended and what is running.

    Raises:
        RunInterrupted: on Ctrl-C; every job under way has saved its state.
    """
    waiting, running, outcomes = deque[JobLike](), dict[Future[str], JobLike](), dict[str, str]()
    lost: dict[Any, list[int]] = {}  # for every job, the rounds in which it lost a worker
    for job in planned:
        if (outcome := job.folder.outcome) in ENDED:
            outcomes[str(job.folder.path)] = outcome
        else:
            waiting.append(job)
    try:
        with interrupts() as interrupted:
            while (waiting or running) and not interrupted.is_set():
                while waiting and len(running) < workers.slots:
                    job = waiting.popleft()
                    running[workers.submit(job)] = job
                if show is not None:
                    show(outcomes, running.values())
                for future in wait(running, timeout=0.5, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    outcome = f"lost its worker: {future.exception()}" if future.exception() else future.result()
                    if outcome.startswith(("lost", "interrupted")):
                        lost.setdefault(job, []).append(job.folder.rounds[0])
                        if lost[job].count(lost[job][-1]) < LOSSES:
                            waiting.appendleft(job)
                            continue
                        outcome = f"failed: {LOSSES} workers were lost in the same round, the last one so: {outcome}"
                    outcomes[str(job.folder.path)] = outcome
            if interrupted.is_set():
                workers.stop()
                wait(running)
                raise RunInterrupted
        if show is not None:
            show(outcomes, ())
    finally:
        workers.close()
    return outcomes


class RayWorkers:
    """The workers of a Ray cluster; run folders must lie on a file system that all its machines share."""

    def __init__(
        self,
        address: str | None,
        slots: int | None,
        cores: int,
        perform: Callable[[Any, int], str],
        gpus: float = 0.0,
    ) -> None:
        """Start Ray on this machine, with room for `slots` jobs, or join the cluster at `address`.

        `perform(job, cores)` runs a job in a worker and says how it ended.

        Raises:
            UserError: Ray is not installed, or the cluster cannot be joined.
        """
        try:
            import ray
        except ImportError:
            raise UserError("Ray is not installed: pip install 'metaleader[ray]', or leave out --ray") from None
        self.slots, self._ray, self._cores = 1 << 20, ray, cores  # Ray queues what does not fit
        known = {name: value for name, value in os.environ.items() if name == "METALEADER_DATA"}
        try:
            ray.init(
                address or "local",
                num_cpus=slots * cores if slots is not None and address is None else None,
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": known} if known else None,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"cannot join the Ray cluster at {address}: {' '.join(str(error).split())}") from error
        # The sweep itself begins a lost job again, so that it can tell a crash that repeats itself.
        self._perform = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=0)(perform)
        self._references: list[Any] = []

    def submit(self, job: Any) -> Future[str]:
        """Queue a job."""
        reference = self._perform.remote(job, self._cores)
        self._references.append(reference)
        future: Future[str] = reference.future()
        return future

    def stop(self) -> None:
        """Ask all jobs to save and stop."""
        for reference in self._references:
            self._ray.cancel(reference)

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._ray.shutdown()
