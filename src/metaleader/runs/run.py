"""Running learners on streams, into folders that can be resumed."""

from __future__ import annotations

import itertools
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np

from metaleader import devices
from metaleader.buffer.store import task_id
from metaleader.errors import RunFailed, UserError
from metaleader.learners import Learner
from metaleader.online import OnlineProtocol, Record, RunState, begin
from metaleader.online import resume as go_on
from metaleader.online.description import RunDescription, described
from metaleader.online.protocol import peeked
from metaleader.problem import Problem
from metaleader.problem.batch import Batch, joined
from metaleader.runs import source
from metaleader.runs.folder import RunFolder
from metaleader.streams import Task

ENDED = ("finished", "diverged")
PAUSED = "paused"  # at `Plan.until_round`: no outcome is written, and the run can go on
Progress = Callable[[str, int, "int | None", RunState, "Record | None"], None]


@dataclass(frozen=True)
class Plan:
    """Which runs to make.

    Attributes:
        problem: what is learned.
        streams: the tasks, for every seed.
        learners: by name, in order; each runs on the same streams.
        protocol: how a round goes.
        out: the folder that takes LEARNER/seed-SEED for each run.
        about: what the runs are of; what differs between them is filled in.
        illustrate: arrays of a picture of what was learned, from the learner's name, the learner, its state and the
            seed.
        checkpoint_seconds: how much time a kill may cost.
        checkpoint_rounds: checkpoint at the end of every round too, so that a kill costs the round under way at most.
        until_round: pause every run, saved, once this many rounds are complete; a later plan goes on by resuming it.
            None: run to the end.
    """

    problem: Problem
    streams: Mapping[int, Iterable[Task]]
    learners: Mapping[str, Learner]
    protocol: OnlineProtocol
    out: Path
    about: RunDescription
    illustrate: Callable[[str, Learner, Any, int], Mapping[str, np.ndarray]] | None = None
    checkpoint_seconds: float = 20.0
    checkpoint_rounds: bool = False
    until_round: int | None = None

    def description(self, learner: str, seed: int) -> RunDescription:
        """What a run is of."""
        stream = self.streams[seed]
        return replace(
            self.about,
            learner=learner,
            seed=seed,
            rounds=rounds_of(stream),
            settings={**self.about.settings, "learner": described(self.learners[learner])},
            data=dict(getattr(stream, "sources", ())),
        )

    def folder(self, learner: str, seed: int) -> RunFolder:
        """The folder of a run."""
        return RunFolder(self.out / learner / f"seed-{seed}")

    @property
    def runs(self) -> list[tuple[str, int]]:
        """The learner and the seed of every run, in order."""
        return [(learner, seed) for learner in self.learners for seed in self.streams]


def rounds_of(stream: Iterable[Task]) -> int | None:
    """How many tasks a stream has; None where it does not say."""
    return len(stream) if isinstance(stream, Sized) else None


class RunInterrupted(Exception):  # noqa: N818 - a stop that was asked for is no error
    """The user asked to stop; the state is saved."""


def run(plan: Plan, resume: bool = False, progress: Progress | None = None) -> dict[str, str]:
    """Make all runs of `plan`, one after another, and return how each ended, by folder.

    A run that fails is noted and does not stop the others. With `resume`, runs that ended are kept, and the
    others go on from their last checkpoint to the same records; one that finished goes on where its stream has more
    rounds now. A run that stops at `plan.until_round` is `paused`.

    Raises:
        UserError: a folder exists (or, resuming, was made with other settings), or cannot be written.
        RunInterrupted: on Ctrl-C, after the chunk under way; everything is saved.
        RunFailed: a run failed, with several processes; with one, the failure is noted and the next run begins.
    """
    check(plan, resume)
    outcomes = {}
    with writing(plan.out), interrupts() as interrupted:
        for learner, seed in plan.runs:
            folder = plan.folder(learner, seed)
            outcome = devices.on_first(partial(_begin, folder, plan.description(learner, seed)))
            if outcome not in ENDED:
                outcome = _one(plan, folder, learner, seed, interrupted, progress)
                if outcome != PAUSED:
                    devices.on_first(partial(folder.end, outcome))
            outcomes[str(folder.path)] = outcome
    return outcomes


def check(plan: Plan, resume: bool) -> None:
    """Make sure, before anything runs, that all runs of `plan` can.

    Raises:
        UserError: see `run`.
    """
    with writing(plan.out):
        devices.on_first(lambda: _check_folders(plan, resume))


def _check_folders(plan: Plan, resume: bool) -> None:
    for learner, seed in plan.runs:
        folder = plan.folder(learner, seed)
        if folder.begun and resume:
            folder.check_settings(plan.description(learner, seed))
        elif not folder.begun or not resume:
            folder.refuse_existing()


def _begin(folder: RunFolder, description: RunDescription) -> str | None:
    """Make the folder when its run's turn comes; returns the outcome of one that ended before."""
    if not folder.begun:
        folder.create(replace(description, **made()))
    elif folder.outcome == "finished" and (description.rounds or 0) > (folder.description.rounds or 0):
        folder.reopen(description)
    return folder.outcome


def made() -> dict[str, Any]:
    """How and where a run is made."""
    return {
        "made": datetime.now(UTC).isoformat(),
        "commit": source.commit(),
        "versions": {
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in ("metaleader", "jax", "jaxlib", "numpy", "optax")},
        },
        "machine": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "devices": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
            "processes": jax.process_count(),
        },
    }


def _one(
    plan: Plan,
    folder: RunFolder,
    name: str,
    seed: int,
    interrupted: threading.Event,
    progress: Progress | None,
) -> str:
    """Run one learner to its end, and say how it ended."""
    problem, learner, stream = plan.problem, plan.learners[name], plan.streams[seed]
    first = devices.is_first()
    try:
        state, tasks = _restored(plan, folder, learner, stream, seed)
        if _pauses(plan, stream, state):
            return PAUSED
        saved = time.monotonic()
        for reached, record in go_on(problem, tasks, learner, plan.protocol, state):
            state = reached
            if first and record is not None:
                folder.append(record)
            if progress is not None:
                progress(name, seed, rounds_of(stream), state, record)
            stop = devices.any_process(interrupted.is_set())
            pauses = _pauses(plan, stream, state)
            due = time.monotonic() - saved > plan.checkpoint_seconds
            if first and (stop or pauses or due or (plan.checkpoint_rounds and state.datapoints == 0)):
                folder.save(state)
                saved = time.monotonic()
            if stop:
                raise RunInterrupted
            if pauses:
                return PAUSED
        if first and not plan.checkpoint_rounds:
            folder.save(state)
        if first and plan.illustrate is not None:
            folder.illustrate(plan.illustrate(name, learner, state.learner, seed))
        return "diverged" if state.diverged else "finished"
    except (RunInterrupted, OSError):
        raise
    except Exception as error:
        outcome = f"failed: {' '.join(str(error).split()) or type(error).__name__}"
        if not devices.joined():
            return outcome
        # The others may wait for this process within a computation: there is no going on to the next run.
        if first:
            folder.end(outcome)
        raise RunFailed(f"{folder.path}: {outcome}") from error


def _restored(
    plan: Plan, folder: RunFolder, learner: Learner, stream: Iterable[Task], seed: int
) -> tuple[RunState, Iterable[Task]]:
    """Where the run stands, and the tasks to come, that of the round under way first."""
    task, tasks = peeked(stream)
    state = begin(plan.problem, learner, task, seed)
    state = folder.restore(state.learner) or state
    if state.round == 0:
        return state, tasks
    if iter(stream) is stream:
        raise UserError(
            f"the stream can be iterated over once only, so that round {state.round + 1} cannot be reached again: give "
            "a list, a Stream or another iterable that begins anew, or go on from the state with metaleader.resume"
        )
    if isinstance(stream, Sequence) and not state.arrived:
        return state, (stream[i] for i in range(state.round, len(stream)))
    earlier: dict[int, Batch] = {}
    met = [task for task in itertools.islice(tasks, state.round) if task.key is not None]
    for task, arrived in zip(met, state.arrived, strict=True):
        number, batch = task_id(task.key), task.train[:arrived]  # type: ignore[arg-type] # those with keys
        earlier[number] = joined(earlier[number], batch) if number in earlier else batch
    return replace(state, earlier=earlier), tasks


def _pauses(plan: Plan, stream: Iterable[Task], state: RunState) -> bool:
    """Whether the plan ends here while the run can still go on."""
    until, rounds = plan.until_round, rounds_of(stream)
    goes_on = not state.diverged and (rounds is None or state.round < rounds)
    return until is not None and until <= state.round and goes_on


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn what the file system refuses into one line.

    Raises:
        UserError: naming the file, or `out`.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to {error.filename or out}: {error.strerror or error}; make room or choose another folder "
            "with --out, then add --resume to go on from the last checkpoint"
        ) from error


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C (or a request to terminate) sets; the second one stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread receives signals
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            signal.default_int_handler(number, frame)
        event.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
