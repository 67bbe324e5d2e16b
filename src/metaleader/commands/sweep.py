"""`metaleader sweep`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metaleader.commands.terminal import finish, results_in, stopped
from metaleader.errors import UserError
from metaleader.experiments import sweeps
from metaleader.experiments.parsing import chosen, parse
from metaleader.experiments.plans import perform
from metaleader.runs import sweep as pool
from metaleader.runs.progress import live_sweep
from metaleader.runs.run import RunInterrupted
from metaleader.runs.workers import LocalWorkers, slots


@dataclass(frozen=True)
class SweepOptions:
    """Run experiments x settings x learners x seeds, several at a time, and report on all of them."""

    experiments: tyro.conf.Positional[tuple[str, ...]]
    """Names of experiments, or Python files that define one."""
    learner: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Learners to run, by name; may be given several times. None: those that each experiment compares."""
    seeds: int = 1
    """Number of seeds, from 0."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME=VALUE,VALUE,... as in --set ftml.meta-steps=2,4,8; given several times, every combination runs. NAME is
    an option of `metaleader run EXPERIMENT`."""
    preset: str = "laptop"
    """The preset of every experiment to begin with."""
    out: Path | None = None
    """Folder for the results. None: a new one under runs/."""
    data_dir: Path | None = None
    """Folder with data sets, searched first."""
    cores: int = 1
    """CPU cores for each run."""
    workers: int | None = None
    """Runs at a time. None: as many as there are cores for."""
    ray: bool = False
    """Start Ray on this machine and run there. Otherwise: in processes of this machine."""
    ray_address: str | None = None
    """Run on the Ray cluster at this address (auto: the one this machine belongs to)."""
    gpus: float = 0.0
    """GPUs for each run on Ray; 0.5: two runs share one."""
    resume: bool = False
    """Go on with the sweep in the folder (without --out, the newest): what has ended is kept, the rest goes on."""


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    options: SweepOptions = parse(SweepOptions, arguments, "metaleader sweep")
    if not options.experiments:
        raise UserError("name at least one experiment: metaleader sweep EXPERIMENT...")
    for name in ("seeds", "cores", "workers"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    with results_in(options.out, f"sweep-{options.preset}", options.resume) as out:
        return _sweep(options, out, arguments)


def _sweep(options: SweepOptions, out: Path, arguments: list[str]) -> int:
    learners = chosen(options.learner)
    command = shlex.join(["metaleader", "sweep", *arguments])
    data_dir = options.data_dir and options.data_dir.absolute()
    jobs = sweeps.jobs(
        options.experiments, options.preset, learners, range(options.seeds), options.set, out, data_dir, command
    )
    sweeps.check_all(jobs, out, options.resume)
    workers: pool.Workers
    if options.ray or options.ray_address is not None:
        workers = pool.RayWorkers(options.ray_address, options.workers, options.cores, perform, options.gpus)
    else:
        workers = LocalWorkers(slots(options.workers, options.cores), options.cores, perform)
    try:
        with live_sweep(jobs) as show:
            outcomes = pool.sweep(jobs, workers, show)
    except RunInterrupted:
        return stopped(["sweep", *arguments], options.out, out)
    return finish(out, outcomes)
