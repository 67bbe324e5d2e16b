"""`metaleader reproduce`: every experiment of the paper in one go. The page of verdicts: `results.verdict_page`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metaleader.commands.terminal import results_in, stopped, told
from metaleader.errors import UserError, unknown
from metaleader.experiments import EXPERIMENTS, sweeps
from metaleader.experiments.parsing import by_name, chosen, parse, values_of
from metaleader.experiments.plans import Job, folder_name, perform
from metaleader.experiments.settings import has_setting, replaced
from metaleader.results import verdict_page, words
from metaleader.results.claims import claimed
from metaleader.results.report import rich_table
from metaleader.runs import sweep as pool
from metaleader.runs.progress import live_sweep
from metaleader.runs.run import RunInterrupted
from metaleader.runs.workers import LocalWorkers, slots


@dataclass(frozen=True)
class ReproduceOptions:
    """Run every experiment of the paper with all its learners, and judge each of the paper's claims.

    Runs go on side by side, each on one core. Paragraphs in a file notes.md in the folder of the results go into the
    page: those below a heading such as `## rainbow-mnist` with that experiment, others at its end.
    """

    experiment: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Experiments to run, by name; may be given several times. None: all about which the paper claims something."""
    preset: str = "laptop"
    """The preset of every experiment."""
    seeds: int | None = None
    """Number of seeds, from 0, of every experiment; a verdict needs at least two. None: what each asks for, 6 or 3."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME=VALUE, a setting of all learners alike, as in --set model.norm=batch, the authors' normalisation. Runs go
    into a folder of their own beside those of the preset, and the page shows both; experiments in which it changes
    nothing are left out. May be given several times."""
    workers: int | None = None
    """Runs at a time, each on one core. None: as many as there are cores."""
    out: Path | None = None
    """Folder for the results. None: a new one under runs/."""
    data_dir: Path | None = None
    """Folder with data sets, searched first."""
    resume: bool = False
    """Go on in the folder (without --out, the newest): what has ended is kept, the rest goes on."""
    report_only: bool = False
    """Run nothing: make the pages again from what is in the folder (without --out, the newest)."""


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    options: ReproduceOptions = parse(ReproduceOptions, arguments, "metaleader reproduce")
    for name in ("seeds", "workers"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    goes_on = options.resume or options.report_only
    with results_in(options.out, f"reproduce-{options.preset}", goes_on) as out:
        return _reproduce(options, out, arguments)


def _reproduce(options: ReproduceOptions, out: Path, arguments: list[str]) -> int:
    outcomes: dict[str, str] = {}
    if not options.report_only:
        command = shlex.join(["metaleader", "reproduce", *arguments])
        data_dir = options.data_dir and options.data_dir.absolute()
        names = chosen(options.experiment)
        jobs = planned_jobs(names, options.preset, options.seeds, options.set, out, data_dir, command)
        check(jobs, options.resume)
        workers = LocalWorkers(slots(options.workers), 1, perform)
        try:
            with live_sweep(jobs) as show:
                outcomes = pool.sweep(jobs, workers, show)
        except RunInterrupted:
            return stopped(["reproduce", *arguments], options.out, out)
    page, judged = verdict_page.conclude(out)
    tables = []
    for title, of_section in judged:
        headings, *rows = [[row[i] for i in words.BRIEF] for row in (words.HEADINGS, *words.rows(of_section))]
        tables.append(rich_table(headings, rows, title))
    return told(tables, page, outcomes)


def planned_jobs(
    names: Sequence[str],
    preset_name: str,
    seeds: int | None,
    settings: Sequence[str],
    out: Path,
    data_dir: Path | None,
    command: str,
) -> list[Job]:
    """A run for each experiment, learner that it compares, and seed.

    Args:
        names: experiments; none: all about which the paper claims something.
        preset_name: the settings of every experiment.
        seeds: how many; None: as many as each experiment asks for.
        settings: `NAME=VALUE`, in all learners' runs alike; experiments in which they change nothing are left out.
        out: the folder; a run lies in EXPERIMENT/LEARNER/seed-SEED, with settings in EXPERIMENT/SETTINGS/LEARNER/...
        data_dir: where to look for data first.
        command: the command that would make these runs again.

    Raises:
        UserError: an experiment, preset or setting is unknown or impossible, a setting is of one learner, or the
            settings change nothing in any experiment.
    """
    known = claimed()
    for name in names:
        if name not in known:
            raise UserError(unknown("experiment", name, known))
    given = by_name(settings, "--set", "NAME=VALUE such as model.norm=batch")
    setting = tuple(f"{key}={value}" for key, value in given.items())
    planned = []
    for name in names or known:
        experiment = EXPERIMENTS[name]
        began = experiment.preset(preset_name)
        for key in given:
            if (owner := key.partition(".")[0]) in began.learners:
                raise UserError(
                    f"--set {key} is a setting of {owner}, and verdicts compare learners in the same settings: "
                    f"set what belongs to stream, model, loss or protocol, or use `metaleader sweep {name}`"
                )
        if not all(has_setting(began, key) for key in given):
            continue
        values = values_of(experiment, began, given)
        if given and replaced(began, values) == began:
            continue
        where = out.absolute() / name / folder_name(",".join(setting))
        planned += [
            Job(name, preset_name, setting, learner, seed, where, data_dir, command)
            for learner in experiment.compared
            for seed in range(experiment.seeds if seeds is None else seeds)
        ]
    if not planned:
        raise UserError(f"--set {' '.join(setting)} changes nothing in {', '.join(names or known)}: give another value")
    return planned


def check(planned: Sequence[Job], resume: bool) -> None:
    """Make sure, before anything runs, that all of it can; see `sweeps.check_all`.

    Raises:
        UserError: an experiment has runs in the folder already (or, resuming, with other settings), or data is missing.
    """
    for out in dict.fromkeys(job.out for job in planned):
        sweeps.check_all([job for job in planned if job.out == out], out, resume)
