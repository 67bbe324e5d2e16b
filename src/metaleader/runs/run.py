"""Running learners on streams, into folders that can be resumed."""

from __future__ import annotations

import itertools
import platform
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack, contextmanager
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
from metaleader.errors import RunFailed, UserError, WriteError, failure
from metaleader.learners import Learner
from metaleader.online import OnlineProtocol, Record, RunState, begin
from metaleader.online import resume as go_on
from metaleader.online.description import RunDescription, described, differences
from metaleader.online.protocol import peeked
from metaleader.problem import Problem
from metaleader.problem.batch import Batch, joined
from metaleader.runs import source
from metaleader.runs.folder import RunFolder
from metaleader.streams import Task

ENDED = ("finished", "diverged")
SAVING = 0.05  # the share of a run's time that its checkpoints take at most
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
        checkpoint_seconds: how much time a kill may cost; more where checkpoints would take over 5 % of the time.
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
        UserError: a folder exists (or, resuming, was made with other settings), is damaged, or is another process's.
        WriteError: the file system refuses; with the runs to come, nothing is tried.
        RunInterrupted: on Ctrl-C, after the chunk under way; everything is saved.
        RunFailed: a run failed, with several processes; with one, the failure is noted and the next run begins.
    """
    check(plan, resume)
    outcomes = {}
    with interrupts() as interrupted:
        for learner, seed in plan.runs:
            folder = plan.folder(learner, seed)
            with ExitStack() as ours:
                devices.on_first(partial(ours.enter_context, folder.owned()))
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
        UserError: see `run`; or no round of a stream would be judged.
    """

    def on_first() -> None:
        _check_judged(plan)
        _check_folders(plan, resume)

    devices.on_first(on_first)


def _check_judged(plan: Plan) -> None:
    first = plan.protocol.evaluate_from
    for rounds in map(rounds_of, plan.streams.values()):
        if first is not None and rounds is not None and first > rounds:
            raise UserError(
                f"evaluate_from is {first}, and the stream has {rounds} rounds, so that none would be judged: give at "
                f"most {rounds}"
            )


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
        return None
    before, outcome = folder.description, folder.outcome
    if outcome != "diverged" and (description.rounds or 0) > (before.rounds or 0):
        folder.lengthen(description)
        outcome = None
    if outcome not in ENDED and (other := _elsewhere(before, replace(before, **made()))):
        warnings.warn(
            f"{folder.path} goes on with {other}: its records may differ, in their last digits, from those of a run "
            "without a stop",
            stacklevel=2,
        )
    return outcome


def _elsewhere(before: RunDescription, now: RunDescription) -> str:
    """What differs between where a run began and where it goes on; nothing, if empty."""
    found = differences(before.as_json(), now.as_json(), ("versions", "machine"))
    return "; ".join(f"{name} = {new!r}, before {old!r}" for name, old, new in found if name != "machine.system")


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
            "cores": devices.available_cores(),
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
        saved, took = time.monotonic(), 0.0
        for reached, record in go_on(problem, tasks, learner, plan.protocol, state):
            state = reached
            if first and record is not None:
                folder.append(record)
            if progress is not None:
                progress(name, seed, rounds_of(stream), state, record)
            stop = devices.any_process(interrupted.is_set())
            pauses = _pauses(plan, stream, state)
            due = time.monotonic() - saved > max(plan.checkpoint_seconds, took / SAVING)
            if first and (stop or pauses or due):
                began = time.monotonic()
                folder.save(state)
                saved = time.monotonic()
                took = saved - began
            if stop:
                raise RunInterrupted
            if pauses:
                return PAUSED
        if first:
            folder.save(state)
        if first and plan.illustrate is not None:
            folder.illustrate(plan.illustrate(name, learner, state.learner, seed))
        return "diverged" if state.diverged else "finished"
    except (RunInterrupted, WriteError):
        raise
    except Exception as error:
        outcome = folder.failed(error) if first else failure(error)
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
    state, tasks = _found(plan, folder, learner, stream, seed)
    devices.on_first(partial(folder.rewind, state.records))
    return state, tasks


def _found(
    plan: Plan, folder: RunFolder, learner: Learner, stream: Iterable[Task], seed: int
) -> tuple[RunState, Iterable[Task]]:
    task, tasks = peeked(stream)
    state = replace(begin(plan.problem, learner, task, seed), first=task.checksum)
    if (saved := folder.restore(state.learner)) is not None:
        if saved.first != state.first:
            raise UserError(
                f"{folder.path} began with another first task than the stream has now: go on with the same stream, or "
                "choose another folder with --out"
            )
        state = saved
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
def interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C, a request to terminate or a closed terminal sets; the second one stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread receives signals
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            signal.default_int_handler(number, frame)
        event.set()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
