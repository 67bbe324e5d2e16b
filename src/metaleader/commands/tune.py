"""`metaleader tune`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metaleader import devices
from metaleader.commands.terminal import results_in, stopped, told
from metaleader.errors import UserError
from metaleader.experiments import Experiment, find
from metaleader.experiments.parsing import chosen, parse
from metaleader.results.report import rich_table
from metaleader.runs.progress import steps
from metaleader.runs.run import RunInterrupted
from metaleader.runs.workers import LocalWorkers, slots
from metaleader.tuning import page, trials
from metaleader.tuning.plan import Pruning, prepare
from metaleader.tuning.search import failures, tune


@dataclass(frozen=True)
class TuneOptions:
    """Search the settings of every learner with the same number of trials, on seeds that results never use.

    Trial 0 is the preset, and never pruned. What is searched: learning rates within a factor of 10 either way of the
    preset's, step sizes of update procedures within a factor of 5, and what the experiment names. Where a stream can
    hold out a part of the training images (stream.held-out), learners are judged on that. A file by-hand.md in the
    folder of the results, on what was tried by hand, goes into the page.
    """

    experiment: tyro.conf.Positional[str | None] = None
    """Name of an experiment, or a Python file that defines one."""
    learner: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Learners to tune, by name; may be given several times. None: those that the experiment compares."""
    preset: str = "laptop"
    """The settings to begin with."""
    trials: int = 24
    """Trials of every learner, the preset among them."""
    around: int = 0
    """Afterwards, as many trials of every learner at most that change a single setting of the best: a number by a
    factor of 3 either way, a choice to each other one. What is better takes its place, until no change is."""
    rungs: int | None = None
    """Rounds after which trials are first compared, and most of them end; again after --reduction times as many, and so
    on. None: a sixth of the stream."""
    reduction: int = 3
    """One in so many trials goes on from each rung."""
    prune: bool = True
    """Whether trials end early. Otherwise each takes the whole stream."""
    seeds: int = 1
    """Runs of every trial: seeds from 1000, while results have seeds from 0."""
    search: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME=LOW:HIGH, as in --search ftml.meta-steps=1:8: a setting of a learner to search too, or between other ends;
    NAME=A|B|..., as in --search 'ftml.update.first-order=false|true': one to choose. May be given several times. NAME
    is an option of `metaleader run EXPERIMENT`."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME=VALUE, as in --set stream.rounds=20: a setting of all trials, which is not searched; may be given several
    times."""
    out: Path | None = None
    """Folder for the results. None: a new one under runs/."""
    data_dir: Path | None = None
    """Folder with data sets, searched first."""
    cores: int = 1
    """CPU cores for each trial."""
    workers: int | None = None
    """Learners that are tuned at the same time, which does not change the trials. None: as many as there are cores
    for."""
    resume: bool = False
    """Go on in the folder (without --out, the newest): trials that have ended are kept. More --trials and --around may
    be given."""


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    options: TuneOptions = parse(TuneOptions, arguments, "metaleader tune")
    if options.experiment is None:
        raise UserError("name an experiment: metaleader tune EXPERIMENT")
    for name in ("seeds", "trials", "cores", "workers"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    if options.around < 0:
        raise UserError(f"--around must not be negative, got {options.around}")
    devices.start(options.cores)
    experiment = find(options.experiment)
    with results_in(options.out, f"tune-{experiment.name}-{options.preset}", options.resume) as out:
        return _tune(options, experiment, out, arguments)


def _tune(options: TuneOptions, experiment: Experiment, out: Path, arguments: list[str]) -> int:
    planned = prepare(
        experiment,
        options.preset,
        chosen(options.learner),
        options.seeds,
        options.trials,
        options.search,
        options.set,
        out,
        options.data_dir,
        shlex.join(["metaleader", "tune", *arguments]),
        Pruning(options.rungs, options.reduction, options.prune),
        options.experiment or "",
        options.around,
    )
    at_once = min(slots(options.workers, options.cores), len(planned.plan.learners))
    workers = LocalWorkers(at_once, options.cores, trials.perform) if at_once > 1 else None
    try:
        with steps() as show:
            tuned = tune(planned, options.resume, show, workers)
    except RunInterrupted:
        return stopped(["tune", *arguments], options.out, out)
    shown = rich_table(page.HEADINGS, page.rows(tuned), page.title(tuned), page.note(tuned))
    exit_code = told([shown], page.write(tuned, out), failures(tuned, out))
    print(f"with the best of every learner:\n{page.run_command(tuned)}")
    return exit_code
