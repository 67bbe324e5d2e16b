"""A live display of a run; quiet when nobody is at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from metaleader.online import Record, RunState
from metaleader.results.formats import significant
from metaleader.runs.run import Plan
from metaleader.runs.run import Progress as Callback
from metaleader.runs.sweep import JobLike, Show


def _watched() -> bool:
    """Whether bars are for a person: not by rich's `is_terminal`, which FORCE_COLOR makes true of files."""
    return sys.stderr.isatty()


@contextmanager
def live(plan: Plan, quiet: bool = False) -> Iterator[Callback]:
    """A bar for each run of the plan, on standard error, with the round and the latest score."""
    score_name = plan.about.score.name
    bars: dict[tuple[str, int], TaskID] = {}
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet or not _watched(),
    ) as display:
        for learner, seed in plan.runs:
            label = f"{learner} seed {seed}" if len(plan.streams) > 1 else learner
            bars[learner, seed] = display.add_task(label, start=False, total=None, state="waiting")

        def show(learner: str, seed: int, rounds: int | None, state: RunState, record: Record | None) -> None:
            bar = bars[learner, seed]
            if not display.tasks[bar].started:
                display.start_task(bar)
            display.update(bar, total=rounds, completed=state.round)
            if record is not None:
                none = "undefined" if record.undefined else "not finite"
                score = none if record.score is None else significant(record.score)
                of = "" if rounds is None else f"/{rounds}"
                said = f"round {record.round:>3}{of}  {record.datapoints:>4} datapoints  {score_name} {score}"
                display.update(bar, state=said)

        yield show


@contextmanager
def live_sweep(jobs: Sequence[JobLike]) -> Iterator[Show]:
    """A bar for the sweep and one for each run under way, on standard error."""
    bars: dict[Any, TaskID] = {}
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not _watched(),
    ) as display:
        whole = display.add_task("sweep", total=len(jobs), unit="runs")

        def show(outcomes: Mapping[str, str], running: Collection[Any]) -> None:
            if display.disable:
                return
            display.update(whole, completed=len(outcomes))
            for job in bars.keys() - set(running):
                display.remove_task(bars.pop(job))
            for job in running:
                done, planned = job.folder.rounds
                if planned:  # otherwise its turn has not come
                    if job not in bars:
                        label = " ".join([job.out.name, job.learner, f"seed {job.seed}"])
                        bars[job] = display.add_task(label, total=planned, unit="rounds")
                    display.update(bars[job], completed=done, total=planned)

        yield show


@contextmanager
def steps() -> Iterator[Callable[[str, float, float], None]]:
    """One bar on standard error: what is being done, and how many steps of how many are."""
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not _watched(),
    ) as display:
        bar = display.add_task("", total=None)
        yield lambda name, done, total: display.update(bar, description=name, completed=done, total=total)
