"""Every experiment of the paper in one go: which runs that takes. The page of verdicts: `verdict_page`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from metaleader.errors import UserError, unknown
from metaleader.experiments import EXPERIMENTS, sweeps
from metaleader.experiments.parsing import by_name, values_of
from metaleader.experiments.plans import Job
from metaleader.experiments.settings import has_setting, replaced
from metaleader.results.claims import claimed


def jobs(
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
        folder = out.absolute() / name / re.sub(r"[^\w.,=+-]", "_", ",".join(setting))
        planned += [
            Job(name, preset_name, tuple(values.items()), setting, learner, seed, folder, data_dir, command)
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
    for folder in dict.fromkeys(job.out for job in planned):
        sweeps.check_all([job for job in planned if job.out == folder], folder, resume)
