"""`metaleader run`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from metaleader import devices
from metaleader.commands.terminal import finish, results_in, stopped
from metaleader.errors import UserError
from metaleader.experiments import find
from metaleader.experiments.parsing import chosen, parse_with_settings
from metaleader.experiments.plans import Selection
from metaleader.runs.progress import live
from metaleader.runs.run import RunInterrupted, run
from metaleader.runs.tracking import tracked, trackers

MAIN_JOB = "coloured-digits"


@dataclass(frozen=True)
class RunOptions:
    """Run learners on an experiment, one after another on the same streams, and report."""

    learner: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Learners to run, by name; may be given several times. None: those that the experiment compares."""
    seeds: int = 1
    """Number of seeds, from 0: each is an order of the tasks, a split of the data and a draw of the weights."""
    preset: str = "laptop"
    """smoke (seconds, to try things), laptop (minutes on 2 cores), full (whole streams, hours) or paper (the authors'
    schedule)."""
    out: Path | None = None
    """Folder for the results. None: a new one under runs/."""
    data_dir: Path | None = None
    """Folder with data sets, searched first."""
    checkpoint_seconds: float = 20.0
    """Time between checkpoints, which is what a kill may cost; Ctrl-C costs nothing."""
    resume: bool = False
    """Go on with the runs in the folder (without --out, the newest) from their last checkpoints."""
    track: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Trackers to tell of every record: csv, tensorboard, mlflow, wandb, trackio."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where several processes share every meta-batch: give the same command to each, and
    its number as --process-id. `auto`: JAX finds all three on SLURM, Open MPI, Kubernetes and Cloud TPU."""
    processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which of them this one is, from 0."""


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else MAIN_JOB
    experiment = find(name)
    options, preset = parse_with_settings(RunOptions, experiment, arguments, f"metaleader run {name}")
    if options.seeds < 1:
        raise UserError(f"--seeds must be at least 1, got {options.seeds}")
    learners, track = chosen(options.learner) or experiment.compared, chosen(options.track)
    trackers(track)  # before anything is made: a name may be unknown, or a package not installed
    devices.start()
    if options.coordinator is not None:
        devices.join(options.coordinator, options.processes, options.process_id)
    elif options.processes is not None or options.process_id is not None:
        raise UserError("--processes and --process-id need --coordinator HOST:PORT")
    with ExitStack() as ours:
        folder = results_in(options.out, f"{experiment.name}-{options.preset}", options.resume)
        out = devices.on_first(partial(ours.enter_context, folder))
        selection = Selection(
            experiment,
            options.preset,
            preset,
            learners,
            tuple(range(options.seeds)),
            out,
            options.data_dir,
            shlex.join(["metaleader", "run", name, *arguments]),
        )
        return _run(selection, options, track, [name, *arguments])


def _run(selection: Selection, options: RunOptions, track: Sequence[str], arguments: list[str]) -> int:
    plan, out = selection.plan(checkpoint_seconds=options.checkpoint_seconds), selection.out
    try:
        first = devices.is_first()
        with live(plan, quiet=not first) as bars, tracked(plan, track if first else (), bars) as progress:
            outcomes = run(plan, options.resume, progress)
    except RunInterrupted:
        return stopped(["run", *arguments], options.out, out)
    if not devices.is_first():
        return int(any(outcome.startswith("failed") for outcome in outcomes.values()))
    return finish(out, outcomes)
