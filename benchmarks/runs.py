"""Where the time of whole runs goes: `python -m benchmarks.runs`."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from jaxtyping import Array
from rich.console import Console

from benchmarks.events import Compiling, compiling
from benchmarks.outcome import Bar, Outcome, Panel, PartOptions, Table, in_own_process, main
from metaleader import Batch, Learner, Problem, Record, RunState, devices
from metaleader.buffer import TaskKey
from metaleader.experiments import find
from metaleader.experiments.plans import Selection
from metaleader.learners.base import Adapted, State
from metaleader.runs.folder import RunFolder
from metaleader.runs.run import run

TITLE = "Whole runs of Rainbow MNIST"
SPENT = ("compiling", "meta-update", "adapting and judging", "Python and bookkeeping", "checkpoints")


@dataclass(frozen=True)
class Options(PartOptions):
    """Run learners on Rainbow MNIST as `metaleader run rainbow-mnist` does, each in a process of its own."""

    learners: tuple[str, ...] = ("ftml", "ftl", "toe", "scratch")
    """Which learners. The first one runs whole."""
    rounds: int = 56
    """Rounds of the first learner."""
    other_rounds: int = 8
    """Rounds of the other learners."""


def measure(options: Options) -> Outcome:
    """A table of seconds by learner."""
    console, found = Console(stderr=True), {}
    for i, name in enumerate(options.learners):
        rounds = options.rounds if i == 0 else options.other_rounds
        with console.status(f"{name}, {rounds} rounds"):
            arguments = ["--only", name, "--rounds", str(rounds), *["--quick"] * options.quick]
            found[name] = in_own_process("runs", *arguments)
    rows = tuple(
        (
            name,
            f"{spent['rounds']:.0f}",
            f"{spent['total']:.1f}",
            *(f"{spent[what]:.1f} ({100 * spent[what] / spent['total']:.1f} %)" for what in SPENT),
            f"{spent['score']:.3f}",
        )
        for name, spent in found.items()
    )
    note = (
        "Preset laptop, seed 0, an empty compilation cache, from reading the data to the last checkpoint. Seconds, and "
        "their share of the run. Meta-update: `observe`, for learners without one their training. Python and "
        "bookkeeping: what the main thread computes, compiling aside, while it hands out work, and all outside "
        "`observe`, `adapt` and judging. Score: mean accuracy at the end of a round, over the last half of them."
    )
    columns = ("learner", "rounds", "total, s", *(f"{what}, s" for what in SPENT), "accuracy")
    first = found[options.learners[0]]
    share = {what: 100 * first[what] / first["total"] for what in SPENT}
    name = options.learners[0]
    bars = (
        Bar(f"Rainbow MNIST, {name}, preset laptop, {first['rounds']:.0f} rounds", first["total"], 180, unit=" s"),
        Bar(f"Python and bookkeeping, {name}", share["Python and bookkeeping"], 5, unit=" %"),
        Bar(f"checkpoints, {name}", share["checkpoints"], 5, unit=" %"),
    )
    panels = tuple(
        Panel(f"{name}, {spent['rounds']:.0f} rounds", "time (s)", "", {"": (SPENT, [spent[w] for w in SPENT])}, False)
        for name, spent in found.items()
    )
    return Outcome(TITLE, (Table(TITLE, columns, rows, note),), bars, panels)


@dataclass
class Clock:
    """Seconds of a run by what they were spent on.

    Attributes:
        seen: what JAX compiled meanwhile.
        handing_out: what the main thread itself computes in each verb, by name, but for calls that compile.
        saving: wall time in checkpoints.
    """

    seen: Compiling
    handing_out: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    saving: float = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note what compiling belongs to, and what the main thread computes."""
        self.seen.phase = name
        began, known = time.thread_time(), len(self.seen.intervals)
        yield
        if len(self.seen.intervals) == known:
            self.handing_out[name] += time.thread_time() - began


@dataclass(frozen=True)
class Timed:
    """A learner whose verbs are timed."""

    learner: Learner
    clock: Clock

    def init(self, problem: Problem, key: Array, example: Batch) -> State:
        """The learner's."""
        with self.clock.phase("init"):
            return self.learner.init(problem, key, example)

    def observe(self, problem: Problem, state: State, task: TaskKey, batch: Batch) -> tuple[State, int]:
        """The learner's."""
        with self.clock.phase("observe"):
            return self.learner.observe(problem, state, task, batch)

    def adapt(self, problem: Problem, state: State, task: TaskKey, batch: Batch) -> tuple[Adapted, int]:
        """The learner's."""
        with self.clock.phase("adapt"):
            return self.learner.adapt(problem, state, task, batch)

    def predict(self, problem: Problem, adapted: Adapted, inputs: Any) -> Any:
        """The learner's; its time is that of adapting and judging."""
        with self.clock.phase("adapt"):
            return self.learner.predict(problem, adapted, inputs)


def _one(name: str, rounds: int, quick: bool) -> dict[str, float]:
    """Run a learner in this process, and give the seconds by what they were spent on."""
    experiment = find("rainbow-mnist")
    preset_name = "smoke" if quick else "laptop"
    preset: Any = experiment.preset(preset_name)
    preset = replace(preset, stream=replace(preset.stream, rounds=min(rounds, preset.stream.rounds)))
    devices.start()
    scores: dict[int, float] = {}
    last: list[RunState] = []

    def note(_: str, __: int, ___: int | None, state: RunState, record: Record | None) -> None:
        clock.seen.phase = ""
        last[:] = [state]
        if record is not None and record.score is not None:
            scores[record.round] = record.score

    with compiling() as seen, tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", f"{folder}/compiled")
        clock = Clock(seen)
        timed = replace(preset, learners={name: Timed(preset.learners[name], clock)})
        plan = Selection(experiment, preset_name, timed, (name,), (0,), Path(folder) / "runs").plan()
        began = time.perf_counter()
        with mock.patch.object(RunFolder, "save", _timed(RunFolder.save, clock)):
            outcomes = run(plan, progress=note)
        total = time.perf_counter() - began
    if set(outcomes.values()) != {"finished"}:
        raise RuntimeError(f"the run did not finish: {outcomes}")
    state, end = last[0], max(scores)
    training = state.train_seconds - seen.seconds("observe") - clock.handing_out["observe"]
    evaluating = state.evaluation_seconds - seen.seconds("adapt") - clock.handing_out["adapt"]
    return {
        "total": total,
        "compiling": seen.seconds(),
        "meta-update": training,
        "adapting and judging": evaluating,
        "Python and bookkeeping": total - training - evaluating - clock.saving - seen.seconds(),
        "handing out work": sum(clock.handing_out.values()),
        "checkpoints": clock.saving,
        "rounds": float(end),
        "score": float(np.mean([score for t, score in scores.items() if t > end / 2])),
    }


def _timed(save: Callable[..., None], clock: Clock) -> Callable[..., None]:
    @wraps(save)
    def timed(*arguments: Any) -> None:
        clock.seen.phase = "save"
        began, compiled = time.perf_counter(), clock.seen.seconds("save")
        save(*arguments)
        clock.saving += time.perf_counter() - began - (clock.seen.seconds("save") - compiled)

    return timed


if __name__ == "__main__":
    main(Options, measure, lambda options: _one(options.only, options.rounds, options.quick))
