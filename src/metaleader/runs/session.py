"""Running learners from Python: `metaleader.run`."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from metaleader import devices
from metaleader.errors import UserError
from metaleader.learners import Learner
from metaleader.online import OnlineProtocol, Record, begin
from metaleader.online import resume as go_on
from metaleader.online.description import RunDescription
from metaleader.online.protocol import peeked
from metaleader.problem import Problem
from metaleader.processes import owned_for_results
from metaleader.results import metrics
from metaleader.results.metrics import Run
from metaleader.results.results import Results
from metaleader.runs import run as runs
from metaleader.runs.progress import live
from metaleader.runs.run import Plan, Progress
from metaleader.runs.tracking import Track, tracked
from metaleader.streams import Stream, Task

Tasks: TypeAlias = Iterable[Task] | Callable[[int], Iterable[Task]]  # the same for all seeds, or of each


def run(
    problem: Problem,
    stream: Tasks,
    learners: Mapping[str, Learner] | Learner,
    *,
    protocol: OnlineProtocol | None = None,
    seeds: int | Sequence[int] = 1,
    rounds: int | None = None,
    out: str | Path | None = None,
    name: str = "run",
    resume: bool = False,
    progress: bool = True,
    track: Track = (),
) -> Results:
    """Run learners on a stream, one after another, and return what they gave.

    >>> from metaleader import FTML, TOE, EXPERIMENTS
    >>> smoke = EXPERIMENTS["sinusoid"].preset("smoke")
    >>> problem = EXPERIMENTS["sinusoid"].problem(smoke)
    >>> results = run(problem, smoke.stream.stream, {"ftml": FTML(), "toe": TOE()}, rounds=2, progress=False)
    >>> sorted(results.summary["learners"])
    ['ftml', 'toe']

    Args:
        problem: what is learned: model, loss and scores.
        stream: the tasks, in order of arrival: a list or another iterable, which every run begins anew; or a function
            that gives the tasks of a seed.
        learners: by name, or one.
        protocol: chunks, sizes at which to evaluate, proficiency.
        seeds: how many, from 0, or which: each a draw of the learner's randomness and, if `stream` is a function, of
            the tasks.
        rounds: as many at most; None: all tasks of the stream.
        out: a folder that keeps the results and checkpoints; None: they are kept in memory.
        name: what tables call the experiment.
        resume: go on with the runs in `out`, from their last checkpoints, to the same records; those that finished go
            on where there are more rounds now.
        progress: show a bar for every run, in a terminal or a notebook.
        track: trackers that are told of every record: csv, tensorboard, mlflow, wandb, trackio, or one of your own
            (`metaleader.Tracker`). One that fails is left out, with a warning.

    Raises:
        ValueError: a task does not fit the problem; or the stream can be iterated over once only, and several runs
            need it.
        UserError: `out` exists and `resume` is not given, or was made with other settings; or learners have no names.

    Warns:
        RuntimeWarning: a run in `out` failed; the others went on.
    """
    devices.keep_compiled()
    protocol = protocol or OnlineProtocol()
    if not isinstance(learners, Mapping) and not hasattr(learners, "observe"):
        raise UserError(f"learners are one learner, or several by name as {{'ftml': ml.FTML()}}; got {learners!r:.200}")
    named = dict(learners) if isinstance(learners, Mapping) else {type(learners).__name__.lower(): learners}
    numbers = list(range(seeds)) if isinstance(seeds, int) else [int(seed) for seed in seeds]
    if not numbers or not named:
        raise UserError(f"at least one seed and one learner must run, got {seeds} and {', '.join(named) or 'none'}")
    streams = {seed: _tasks(stream, seed, rounds) for seed in numbers}
    once = [tasks for tasks in streams.values() if iter(tasks) is tasks]
    if once and len(named) * len(numbers) > 1:
        raise UserError(
            f"the stream can be iterated over once only, and {len(named) * len(numbers)} runs need it: give a list, a "
            "Stream, or a function that gives the tasks of a seed"
        )
    about = RunDescription.of(name, "own", problem, protocol)
    plan = Plan(problem, streams, named, protocol, Path(out or "."), about)
    with (
        live(plan) if progress else contextlib.nullcontext() as bars,
        tracked(plan, track, bars, keeps=out is not None) as show,
    ):
        if out is None:
            return Results(tuple(_in_memory(plan, learner, seed, show) for learner, seed in plan.runs))
        with owned_for_results(plan.out):
            outcomes = runs.run(plan, resume, show)
        for folder, outcome in outcomes.items():
            if outcome.startswith("failed"):
                warnings.warn(f"{folder}: {outcome} (see traceback.txt there)", RuntimeWarning, stacklevel=2)
    return Results(tuple(metrics.load([plan.folder(learner, seed).path for learner, seed in plan.runs])))


def _tasks(stream: Tasks, seed: int, rounds: int | None) -> Iterable[Task]:
    tasks = stream(seed) if callable(stream) else stream
    if rounds is None:
        return tasks
    if isinstance(tasks, Sequence):  # each task is still made when its round comes
        return Stream(tasks.__getitem__, min(rounds, len(tasks)), getattr(tasks, "sources", ()))
    return list(itertools.islice(tasks, rounds))


def _in_memory(plan: Plan, name: str, seed: int, show: Progress) -> Run:
    """The run of a learner, without a folder."""
    learner, records = plan.learners[name], list[Record]()
    first, tasks = peeked(plan.streams[seed])
    state = begin(plan.problem, learner, first, seed)
    for reached, record in go_on(plan.problem, tasks, learner, plan.protocol, state):
        state = reached
        if record is not None:
            records.append(record)
        show(name, seed, runs.rounds_of(plan.streams[seed]), state, record)
    about = replace(plan.description(name, seed), **runs.made())
    return Run(about, tuple(records), "diverged" if state.diverged else "finished")
