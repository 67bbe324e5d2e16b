"""The cost of a round against the tasks seen before it: `python -m benchmarks.rounds`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
from rich.console import Console
from rich.progress import track

from benchmarks.cases import CASES, meta_batch
from benchmarks.measure import by_turns
from benchmarks.outcome import Bar, Outcome, Panel, PartOptions, Table, main
from metaleader import FTML, Batch, Retention, devices

TITLE = "Cost of a round against tasks seen"
BUDGET = 1000  # datapoints
LEARNERS: Mapping[str, FTML] = MappingProxyType(
    {
        "FTML": FTML(),
        f"FTML, reservoir of {BUDGET}": FTML(retention=Retention("reservoir", BUDGET)),
        f"FTML, last {BUDGET}": FTML(retention=Retention("last", BUDGET)),
    }
)


@dataclass(frozen=True)
class Options(PartOptions):
    """Time one `observe` of the Rainbow MNIST net, 4 tasks in the meta-batch, after many or few tasks."""

    tasks: tuple[int, ...] = (10, 100, 1000, 10_000)
    """Tasks seen."""
    chunk: int = 20
    """Datapoints that arrive at a time; a task has as many."""
    rounds: int = 10
    """Turns of every number of tasks."""


@dataclass
class Standing:
    """A learner after so many tasks, which goes on with the newest of them."""

    learner: FTML
    state: Any
    newest: int
    arriving: Batch

    def observe(self) -> None:
        """More datapoints of the newest task arrive."""
        self.state, _ = self.learner.observe(PROBLEM, self.state, self.newest, self.arriving)
        jax.block_until_ready(self.state)


PROBLEM = CASES["rainbow-mnist"].problem


def measure(options: Options) -> Outcome:
    """A row for every number of tasks."""
    devices.start()
    tasks = (2, 60) if options.quick else tuple(sorted(options.tasks))
    of = meta_batch(CASES["rainbow-mnist"], 8, options.chunk, 1).train
    arrivals = [jax.tree.map(lambda leaf, i=i: leaf[i], of) for i in range(8)]
    standings = {
        (name, n): Standing(learner, _after(learner, n, arrivals), n - 1, arrivals[0])
        for name, learner in LEARNERS.items()
        for n in tasks
    }
    for standing in standings.values():
        standing.observe()
    rounds = 1 if options.quick else options.rounds
    timings = by_turns({f"{name} {n}": partial(Standing.observe, s) for (name, n), s in standings.items()}, rounds, "")
    least = {key: timings[f"{key[0]} {key[1]}"].least for key in standings}
    rows = tuple(
        (
            name,
            f"{n:,}",
            f"{least[name, n] * 1e3:.1f}",
            f"{timings[f'{name} {n}'].median * 1e3:.1f}",
            f"{_megabytes(standings[name, n].state):,.1f}",
        )
        for name, n in standings
    )
    most = max(tasks)
    reference = min((n for n in tasks if n < most), key=lambda n: abs(n - 100), default=most)
    note = (
        f"One `observe` of {options.chunk} datapoints, {FTML().meta_steps} meta-steps on {FTML().meta_batch} tasks, "
        f"Rainbow MNIST net; all rows in one process, {rounds} rounds by turns."
    )
    columns = ("learner", "tasks seen", "min, ms", "median, ms", "state, MB")
    return Outcome(
        TITLE,
        (Table(TITLE, columns, rows, note),),
        tuple(
            Bar(f"a round at {most:,} tasks, times one at {reference:,} ({name})", ratio, 1.1)
            for name in LEARNERS
            for ratio in [least[name, most] / least[name, reference]]
        ),
        (
            Panel(
                TITLE,
                "tasks seen",
                "time of one observe (s)",
                {name: (tasks, [least[name, n] for n in tasks]) for name in LEARNERS},
                log_y=False,
            ),
        ),
    )


def _after(learner: FTML, tasks: int, arrivals: list[Batch]) -> Any:
    """The state of a learner that observed so many tasks, learning as little as it can on the way."""
    idle = replace(learner, meta_steps=1, train_size=1, validation_size=1)
    state = learner.init(PROBLEM, jax.random.key(0), arrivals[0])
    console = Console(stderr=True)
    shown = track(range(tasks), f"{tasks:,} tasks", console=console, disable=not console.is_terminal, transient=True)
    for task in shown:
        state, _ = idle.observe(PROBLEM, state, task, arrivals[task % len(arrivals)])
    return state


def _megabytes(state: Any) -> float:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e6


if __name__ == "__main__":
    main(Options, measure)
