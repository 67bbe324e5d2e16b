"""A live display of a run; quiet when nobody is at the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from metaleader.protocol import Position
from metaleader.record import Record
from metaleader.run import Plan
from metaleader.run import Progress as Callback


@contextmanager
def live(plan: Plan) -> Iterator[Callback]:
    """A bar for each run of the plan, on standard error, with the round and the latest score."""
    console = Console(stderr=True)
    score_name = plan.experiment.score.name
    bars: dict[tuple[str, int], TaskID] = {}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as display:
        for learner in plan.learners:
            for seed in plan.seeds:
                label = f"{learner} seed {seed}" if len(plan.seeds) > 1 else learner
                bars[learner, seed] = display.add_task(label, start=False, total=None, state="waiting")

        def show(learner: str, seed: int, rounds: int, position: Position, record: Record | None) -> None:
            bar = bars[learner, seed]
            if not display.tasks[bar].started:
                display.start_task(bar)
            completed = int(position.round)
            display.update(bar, total=rounds, completed=completed)
            if record is not None:
                score = "not finite" if record.score is None else f"{record.score:.3f}"
                state = f"round {record.round:>3}/{rounds}  {record.datapoints:>4} datapoints  {score_name} {score}"
                display.update(bar, state=state)

        yield show


@contextmanager
def steps() -> Iterator[Callable[[str, int, int], None]]:
    """One bar on standard error: what is being done, and how many steps of how many are."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn(), console=console,
        disable=not console.is_terminal,
    ) as display:  # fmt: skip
        bar = display.add_task("", total=None)
        yield lambda name, done, total: display.update(bar, description=name, completed=done, total=total)
