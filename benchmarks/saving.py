"""What a checkpoint writes as tasks add up: `python -m benchmarks.saving`."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.progress import track

import metaleader as ml
from benchmarks.outcome import Outcome, Panel, PartOptions, Table, main
from metaleader.runs import checkpoint

TITLE = "What a checkpoint writes"
FEATURES, DATAPOINTS = 16, 20


@dataclass(frozen=True)
class Options(PartOptions):
    """Save the state of FTML on small tasks, and again after one more task: the second is measured."""

    tasks: tuple[int, ...] = (10, 100, 1000, 10_000)
    """Tasks stored."""


def measure(options: Options) -> Outcome:
    """A row for every number of tasks."""
    marks = (10, 100) if options.quick else tuple(sorted(options.tasks))
    problem = ml.Problem(ml.MLP(inputs=FEATURES), ml.squared_error, ml.mean_squared_error)
    learner = ml.FTML(ml.GradientDescent(steps=1, step_size=0.05), optimizer=ml.Adam(3e-3), meta_batch=5)
    random, console = np.random.default_rng(0), Console(stderr=True)

    def datapoints() -> ml.Batch:
        x = random.normal(size=(DATAPOINTS, FEATURES)).astype(np.float32)
        return ml.Batch.of(x, x.sum(axis=1, keepdims=True))

    state, found = learner.init(problem, jax.random.key(0), datapoints()), []
    for i in track(range(marks[-1]), "tasks", console=console, disable=not console.is_terminal, transient=True):
        if i + 1 not in marks:
            state, _ = learner.observe(problem, state, i, datapoints())
            continue
        with tempfile.TemporaryDirectory() as name:
            checkpoint.save(Path(name), ml.RunState(state))
            state, _ = learner.observe(problem, state, i, datapoints())
            there, began = _files(Path(name)), time.perf_counter()
            checkpoint.save(Path(name), ml.RunState(state))
            seconds, sizes = time.perf_counter() - began, _files(Path(name))
        written = sum(size for path, size in sizes.items() if path not in there)
        found.append((i + 1, sum(there.values()), written, seconds))
    rows = tuple(
        (f"{tasks:,}", f"{whole / 1e6:.2f}", f"{written / 1e6:.2f}", f"{seconds * 1e3:.0f}")
        for tasks, whole, written, seconds in found
    )
    note = (
        f"FTML on an MLP, tasks of {DATAPOINTS} datapoints of {FEATURES} numbers. Large arrays are kept in chunks of "
        f"{checkpoint.CHUNK >> 10} KiB, of which those that changed are written, and smaller ones whole."
    )
    columns = ("tasks stored", "checkpoint, MB", "written after one more task, MB", "time, ms")
    series: dict[str, tuple[list[int], list[float]]] = {
        name: ([each[0] for each in found], [each[column] / 1e6 for each in found])
        for column, name in ((1, "the checkpoint"), (2, "written after one more task"))
    }
    return Outcome(TITLE, (Table(TITLE, columns, rows, note),), (), (Panel("", "tasks stored", "MB", series),))


def _files(folder: Path) -> dict[Path, int]:
    """The size of every file."""
    return {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    main(Options, measure)
