"""Running learners on an experiment, into folders that can be resumed."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

import jax

from metaleader import illustrations
from metaleader.errors import UserError, unknown
from metaleader.experiments import Experiment, Preset
from metaleader.protocol import Position, advance, start
from metaleader.record import Record, RunFolder
from metaleader.streams import Stream

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


class RunInterrupted(Exception):  # noqa: N818 - a stop that was asked for is no error
    """The user asked to stop; the state is saved."""


def run(plan: Plan, resume: bool = False, progress: Progress | None = None) -> dict[str, str]:
    """Make all runs of `plan`, one after another, and return how each ended, by folder.

    A run that fails is noted and does not stop the others. With `resume`, runs that ended are kept, and the
    others go on from their last checkpoint to the same records.

    Raises:
        UserError: a learner is unknown, a folder exists (or, resuming, was made with other settings), data is
            missing, or a folder cannot be written.
        RunInterrupted: on Ctrl-C, after the chunk under way; everything is saved.
    """
    for name in plan.learners:
        if name not in plan.preset.learners:
            raise UserError(unknown("learner", name, plan.preset.learners))
    streams = {seed: plan.preset.stream.stream(seed, plan.data_dir) for seed in plan.seeds}
    runs = [
        (
            RunFolder(plan.out / learner / f"seed-{seed}"),
            learner,
            seed,
            _config(plan, learner, seed, streams[seed]),
        )
        for learner in plan.learners
        for seed in plan.seeds
    ]
    with _writing(plan.out):
        # All folders are checked before anything runs, and made as their turn comes.
        for folder, _, _, config in runs:
            begun = (folder.path / "config.json").exists()
            if begun and resume:
                folder.check_settings(config)
            elif not begun or not resume:
                folder.refuse_existing()
        outcomes = {}
        with _interrupts() as interrupted:
            for folder, learner, seed, config in runs:
                if not (folder.path / "config.json").exists():
                    folder.create(config)
                if folder.outcome not in ("finished", "diverged"):
                    folder.end(_one(plan, folder, learner, seed, streams[seed], interrupted, progress))
                outcomes[str(folder.path)] = str(folder.outcome)
    return outcomes


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
    try:
        position = start(problem, stream, learner, seed)
        position = folder.restore(position) or position
        saved = time.monotonic()
        for reached, record in advance(problem, stream, learner, plan.preset.protocol, position):
            position = reached
            if record is not None:
                folder.append(record)
            if progress is not None:
                progress(name, seed, len(stream), position, record)
            if interrupted.is_set() or time.monotonic() - saved > plan.checkpoint_seconds:
                folder.save(position)
                saved = time.monotonic()
            if interrupted.is_set():
                raise RunInterrupted
        folder.save(position)
        if plan.experiment.illustration:
            settings = (plan.preset.stream, learner, position.state, seed, plan.data_dir)
            folder.illustrate(illustrations.record(plan.experiment.illustration, problem, *settings))
        return "diverged" if position.diverged else "finished"
    except (RunInterrupted, OSError):
        raise
    except Exception as error:
        return f"failed: {' '.join(str(error).split()) or type(error).__name__}"


def _config(plan: Plan, learner: str, seed: int, stream: Stream) -> dict[str, Any]:
    """What determines the records, and how and where they were made."""
    preset = plan.preset
    return {
        "experiment": plan.experiment.name,
        "preset": plan.preset_name,
        "learner": learner,
        "seed": seed,
        "rounds": len(stream),
        "command": plan.command,
        "made": datetime.now(UTC).isoformat(),
        "settings": {
            "stream": describe(preset.stream),
            "model": describe(preset.model),
            "loss": describe(preset.loss),
            "protocol": describe(preset.protocol),
            "learner": describe(preset.learners[learner]),
        },
        "score": {
            "name": plan.experiment.score.name,
            "higher_is_better": plan.experiment.score.higher_is_better,
        },
        "illustration": plan.experiment.illustration,
        "shown_at": list(plan.experiment.shown_at),
        "data": dict(stream.sources),
        "versions": {
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in ("metaleader", "jax", "jaxlib", "numpy", "optax")},
        },
        "machine": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "devices": [f"{device.platform} {device.device_kind}" for device in jax.local_devices()],
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
def _writing(out: Path) -> Iterator[None]:
    """Turn what the file system refuses into one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to {error.filename or out}: {error.strerror or error}; make room or choose another folder "
            "with --out, then add --resume to go on from the last checkpoint"
        ) from error


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
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
