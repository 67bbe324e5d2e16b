"""Running learners on an experiment, into folders that can be resumed."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

import jax

from metaleader import devices
from metaleader.errors import UserError, unknown
from metaleader.experiments import Experiment, Preset, illustrations
from metaleader.play.protocol import Position, advance, start
from metaleader.play.record import Record, RunFolder
from metaleader.runs import source
from metaleader.streams import Stream

ENDED = ("finished", "diverged")
PAUSED = "paused"  # at `Plan.until_round`: no outcome is written, and the run can go on
Progress = Callable[[str, int, int, Position, "Record | None"], None]


@dataclass(frozen=True)
class Plan:
    """Which runs to make.

    Attributes:
        experiment: what is run.
        preset_name: which of its presets the settings began as.
        preset: the settings.
        learners: names, in order; each runs on the same streams.
        seeds: each a task order, a split of the data and a draw of the learner's randomness.
        out: the folder that takes a folder for each run.
        data_dir: where to look for data first.
        command: the command that would make these runs again.
        checkpoint_seconds: how much time a kill may cost.
        checkpoint_rounds: checkpoint at the end of every round too, so that a kill costs the round under way at most.
        setting: what sets these runs apart from others of a sweep, each as `NAME=VALUE`.
        until_round: pause every run, saved, once this many rounds are complete; a later plan goes on by resuming it.
            None: run to the end.
    """

    experiment: Experiment
    preset_name: str
    preset: Preset
    learners: tuple[str, ...]
    seeds: tuple[int, ...]
    out: Path
    data_dir: Path | None = None
    command: str = ""
    checkpoint_seconds: float = 20.0
    checkpoint_rounds: bool = False
    setting: tuple[str, ...] = ()
    until_round: int | None = None


class RunFailed(Exception):  # noqa: N818 - with the other two ways in which a run stops
    """One of several processes cannot go on with a run, and the others cannot without it."""


class RunInterrupted(Exception):  # noqa: N818 - a stop that was asked for is no error
    """The user asked to stop; the state is saved."""


def run(plan: Plan, resume: bool = False, progress: Progress | None = None) -> dict[str, str]:
    """Make all runs of `plan`, one after another, and return how each ended, by folder.

    A run that fails is noted and does not stop the others. With `resume`, runs that ended are kept, and the
    others go on from their last checkpoint to the same records. A run that stops at `plan.until_round` is `paused`.

    Raises:
        UserError: a learner is unknown, a folder exists (or, resuming, was made with other settings), data is
            missing, or a folder cannot be written.
        RunInterrupted: on Ctrl-C, after the chunk under way; everything is saved.
        RunFailed: a run failed, with several processes; with one, the failure is noted and the next run begins.
    """
    streams = check(plan, resume)
    runs = [
        (RunFolder(plan.out / learner / f"seed-{seed}"), learner, seed)
        for learner in plan.learners
        for seed in plan.seeds
    ]
    outcomes = {}
    with writing(plan.out), interrupts() as interrupted:
        for folder, learner, seed in runs:
            begin = partial(_begin, folder, _config(plan, learner, seed, streams[seed]))
            outcome = devices.on_first(begin)
            if outcome not in ENDED:
                outcome = _one(plan, folder, learner, seed, streams[seed], interrupted, progress)
                if outcome != PAUSED:
                    devices.on_first(partial(folder.end, outcome))
            outcomes[str(folder.path)] = outcome
    return outcomes


def check(plan: Plan, resume: bool) -> dict[int, Stream]:
    """Make sure, before anything runs, that all runs of `plan` can; returns the stream of every seed.

    Raises:
        UserError: see `run`.
    """
    for name in plan.learners:
        if name not in plan.preset.learners:
            raise UserError(unknown("learner", name, plan.preset.learners))
    streams = devices.on_all(lambda: {seed: plan.preset.stream.stream(seed, plan.data_dir) for seed in plan.seeds})
    with writing(plan.out):
        devices.on_first(lambda: _check_folders(plan, resume, streams))
    return streams


def _check_folders(plan: Plan, resume: bool, streams: Mapping[int, Stream]) -> None:
    for learner in plan.learners:
        for seed in plan.seeds:
            folder = RunFolder(plan.out / learner / f"seed-{seed}")
            begun = (folder.path / "config.json").exists()
            if begun and resume:
                folder.check_settings(_determinants(plan, learner, seed, streams[seed]))
            elif not begun or not resume:
                folder.refuse_existing()


def _begin(folder: RunFolder, config: dict[str, Any]) -> str | None:
    """Make the folder when its run's turn comes; returns the outcome of one that ended before."""
    if not (folder.path / "config.json").exists():
        folder.create(config)
    return folder.outcome


def _one(
    plan: Plan,
    folder: RunFolder,
    name: str,
    seed: int,
    stream: Stream,
    interrupted: threading.Event,
    progress: Progress | None,
) -> str:
    """Run one learner to its end, and say how it ended."""
    problem, learner = plan.experiment.problem(plan.preset), plan.preset.learners[name]
    first = devices.is_first()
    try:
        position = start(problem, stream, learner, seed)
        position = folder.restore(position) or position
        if _pauses(plan, stream, position):
            return PAUSED
        saved = time.monotonic()
        for reached, record in advance(problem, stream, learner, plan.preset.protocol, position):
            position = reached
            if first and record is not None:
                folder.append(record)
            if progress is not None:
                progress(name, seed, len(stream), position, record)
            stop = devices.any_process(interrupted.is_set())
            pauses = _pauses(plan, stream, position)
            due = time.monotonic() - saved > plan.checkpoint_seconds
            if first and (stop or pauses or due or (plan.checkpoint_rounds and position.datapoints == 0)):
                folder.save(position)
                saved = time.monotonic()
            if stop:
                raise RunInterrupted
            if pauses:
                return PAUSED
        if first and not plan.checkpoint_rounds:
            folder.save(position)
        if first and plan.experiment.illustration:
            settings = (plan.preset.stream, learner, position.state, seed, plan.data_dir)
            folder.illustrate(illustrations.record(plan.experiment.illustration, problem, *settings))
        return "diverged" if position.diverged else "finished"
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


def _pauses(plan: Plan, stream: Stream, position: Position) -> bool:
    """Whether the plan ends here while the run can still go on."""
    until = len(stream) if plan.until_round is None else plan.until_round
    return until <= int(position.round) < len(stream) and not bool(position.diverged)


def _determinants(plan: Plan, learner: str, seed: int, stream: Stream) -> dict[str, Any]:
    """What determines the records."""
    preset = plan.preset
    return {
        "experiment": plan.experiment.name,
        "preset": plan.preset_name,
        "learner": learner,
        "seed": seed,
        "rounds": len(stream),
        "settings": {
            "stream": describe(preset.stream),
            "model": describe(preset.model),
            "loss": describe(preset.loss),
            "protocol": describe(preset.protocol),
            "learner": describe(preset.learners[learner]),
        },
        "gradients": preset.gradients,
        "score": {
            "name": plan.experiment.score.name,
            "higher_is_better": plan.experiment.score.higher_is_better,
        },
        "illustration": plan.experiment.illustration,
        "shown_at": list(plan.experiment.shown_at),
        "data": dict(stream.sources),
    }


def _config(plan: Plan, learner: str, seed: int, stream: Stream) -> dict[str, Any]:
    """What determines the records, and how and where they were made."""
    return {
        **_determinants(plan, learner, seed, stream),
        "setting": list(plan.setting),
        "command": plan.command,
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


def describe(value: Any) -> Any:
    """A setting as plain JSON: a dataclass with its type's name, a function by its name, inf as a string."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (str, int, float, type(None))):
        return value
    if isinstance(value, Sequence):
        return [describe(item) for item in value]
    return getattr(value, "__qualname__", repr(value))


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
