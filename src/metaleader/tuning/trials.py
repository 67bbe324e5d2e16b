"""A trial of a search: runs of one learner with one setting, rung by rung, here or in a worker."""

from __future__ import annotations

import gc
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from metaleader import devices
from metaleader.experiments import find
from metaleader.experiments.plans import Selection
from metaleader.experiments.settings import replaced
from metaleader.results import metrics
from metaleader.results.metrics import Run
from metaleader.runs.folder import RunFolder
from metaleader.runs.run import PAUSED, Plan, Progress, RunInterrupted, run
from metaleader.runs.workers import stop_if_asked
from metaleader.tuning.studies import Ended, Rungs, pruned

CHECKPOINT_SECONDS = 60.0  # a checkpoint holds all data seen: more of them would take longer than what a kill costs


def attempt(
    plan: Plan, rungs: Rungs, higher_is_better: bool, before: Sequence[Any] | None, progress: Progress | None = None
) -> Ended:
    """Make the runs of a trial, all of them to a rung before any goes on, and say how the trial ended.

    Whether it goes on from a rung follows from the records; so a trial that was stopped goes on from its checkpoints,
    comes by the rungs that it had reached and decides there as it did before.

    Args:
        plan: the runs of the trial; their folder may hold what a stop left.
        rungs: where the trial is compared.
        higher_is_better: which way scores are compared.
        before: the trials against which it is compared, as Optuna keeps them; None: it is never pruned.
        progress: see `run.run`.

    Raises:
        UserError: see `run.run`.
        RunInterrupted: on Ctrl-C; everything is saved.
    """
    try:
        return _attempt(plan, rungs, higher_is_better, before, progress)
    finally:
        jax.clear_caches()  # what was compiled for this trial serves no other, and many of them fill the memory
        gc.collect()


def _attempt(
    plan: Plan, rungs: Rungs, higher_is_better: bool, before: Sequence[Any] | None, progress: Progress | None
) -> Ended:
    direction = "maximize" if higher_is_better else "minimize"
    scores: dict[int, float] = {}
    for rung in rungs.ends if rungs.prune else ():
        outcomes = run(replace(_judged_for(plan, rung), until_round=rung), True, progress)
        if not all(_passed(RunFolder(Path(path)), outcome, rung) for path, outcome in outcomes.items()):
            break
        score = score_after(metrics.load([plan.out]), rung)
        if score is None:  # nothing to compare yet
            continue
        scores[rung] = score
        if before is not None and pruned(before, direction, rungs, scores):
            finite = math.isfinite(scores[rung])
            return _ended(plan, rungs, f"pruned at round {rung}" if finite else "diverged", scores)
    else:
        outcomes = run(_judged_for(plan, rungs.rounds) if rungs.prune else plan, True, progress)
    lost = sorted(set(outcomes.values()) - {"finished", PAUSED})
    return _ended(plan, rungs, lost[-1] if lost else "finished", scores)  # failed before diverged


def _judged_for(plan: Plan, rounds: int) -> Plan:
    """The plan, judging in those rounds alone that `score_after` asks for: the others cost as much, for nothing.

    Where rounds end at proficiency, all of them are judged.
    """
    if plan.protocol.move_on:
        return plan
    return replace(plan, protocol=replace(plan.protocol, evaluate_from=metrics.last_third_from(rounds)))


def _passed(folder: RunFolder, outcome: str, rung: int) -> bool:
    """Whether a run completed the rounds to the rung; one that a stop left without its trial may have ended later."""
    return outcome in (PAUSED, "finished") or folder.rounds[0] > rung


def _ended(plan: Plan, rungs: Rungs, outcome: str, scores: Mapping[int, float]) -> Ended:
    runs, score, at = metrics.load([plan.out]), None, dict[int, float | None](scores)
    if outcome == "finished":
        score, at = score_after(runs, rungs.rounds), {rung: score_after(runs, rung) for rung in rungs.ends}
        if score is None:
            outcome = "failed: no score is defined"
        elif not math.isfinite(score):
            outcome = "diverged"
    ends = [each.records[-1] for each in runs if each.records]
    return Ended(
        outcome,
        _finite(score),
        {rung: _finite(value) for rung, value in at.items()},
        sum(end.gradient_evaluations for end in ends),
        round(sum(end.train_seconds + end.evaluation_seconds for end in ends), 1),
        _made(runs),
    )


def _finite(score: float | None) -> float | None:
    return score if score is not None and math.isfinite(score) else None


def _made(runs: Sequence[Run]) -> dict[str, Any]:
    """What it takes to make the runs again, and to tell that they are the same: see `Ended`."""
    first, checksums = runs[0].about, {str(each.about.seed): each.sha256 for each in runs}
    return {"commit": first.commit, "machine": dict(first.machine), "records_sha256": checksums}


def score_after(runs: Sequence[Run], rounds: int) -> float | None:
    """What a trial is judged by once `rounds` rounds are complete.

    The mean score over all sizes judged in the last third of these rounds, then over the runs; NaN if a run has none of
    these evaluations, or one of them was not finite. Those whose score is undefined (see `Record`) do not count; None
    if no other is there.
    """
    first = metrics.last_third_from(rounds)
    counted = [[record for record in each.records if first <= record.round <= rounds] for each in runs]
    if not all(counted):
        return math.nan
    scores = [[record.score for record in of_run if not record.undefined] for of_run in counted]
    means = [np.array(of_run, float).mean() for of_run in scores if of_run]
    return float(np.mean(means)) if means else None


def forget(out: Path) -> None:
    """Delete the checkpoints of a trial that has ended, which hold all data seen."""
    for checkpoints in out.glob("*/seed-*/checkpoints"):
        shutil.rmtree(checkpoints)


@dataclass(frozen=True)
class TrialJob:
    """A trial as it travels to a worker.

    Attributes:
        experiment: its name, or an absolute path to a Python file.
        values: settings that differ from the preset's, by name.
        selection: the rest of what is run, its fields by name.
        rungs: see `attempt`.
        before: see `attempt`.
    """

    experiment: str
    values: Mapping[str, Any]
    selection: Mapping[str, Any]
    rungs: Rungs
    before: Sequence[Any] | None


def planned(selection: Selection) -> Plan:
    """The runs of a trial."""
    return selection.plan(checkpoint_seconds=CHECKPOINT_SECONDS)


def job(
    experiment: str, values: Mapping[str, Any], selection: Selection, rungs: Rungs, before: Sequence[Any] | None
) -> TrialJob:
    """The trial that `attempt` would make, for a worker, which finds the experiment by that name or path."""
    data_dir = selection.data_dir and selection.data_dir.absolute()
    rest = {**vars(selection), "out": selection.out.absolute(), "data_dir": data_dir}
    del rest["experiment"], rest["preset"]  # which may hold functions that cannot travel
    return TrialJob(experiment, values, rest, rungs, before)


def perform(job: TrialJob, cores: int) -> Ended | None:
    """Make a trial in a worker; None, if it was asked to stop, with everything saved."""
    devices.start(cores)
    experiment = find(job.experiment)
    preset = replaced(experiment.preset(job.selection["preset_name"]), job.values)
    plan = planned(Selection(experiment=experiment, preset=preset, **job.selection))
    try:
        return attempt(plan, job.rungs, experiment.score.higher_is_better, job.before, stop_if_asked)
    except RunInterrupted:
        return None
