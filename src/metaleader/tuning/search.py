"""Tuning: the same number of trials for every learner, on task orders and seeds that results never use."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from metaleader.errors import UserError, failure, writing
from metaleader.files import write_json
from metaleader.online import Record, RunState
from metaleader.online.description import differences
from metaleader.runs.folder import RunFolder, changed
from metaleader.runs.run import Progress, RunInterrupted, check, interrupts, rounds_of
from metaleader.runs.workers import LOSSES, LocalWorkers
from metaleader.tuning.found import next_change, summary
from metaleader.tuning.plan import FIRST_SEED, Tuning, folder_of, run_command, searched, stated_of, trial_of
from metaleader.tuning.spaces import stated
from metaleader.tuning.studies import Ended, Rungs, drawn, keep, optuna, studies
from metaleader.tuning.trials import TrialJob, attempt, forget, job, planned

DECIDES = ("experiment", "preset", "seeds", "held_out", "set", "spaces", "rounds", "rungs", "reduction")
Show: TypeAlias = Callable[[str, float, float], None]


def check_all(tuning: Tuning, resume: bool) -> Rungs:
    """Make sure, before anything runs, that all trials can; returns the rungs of the stream.

    Raises:
        UserError: there is something to overwrite (or, resuming, trials with other settings), data is missing, rungs
            are impossible, or Optuna is not installed.
    """
    optuna()
    out = tuning.plan.out
    plans = [planned(trial_of(tuning, learner, 0, {})) for learner in tuning.plan.learners]
    for plan in plans:
        check(plan, resume)
    rounds = rounds_of(plans[0].streams[FIRST_SEED])
    if rounds is None:
        raise UserError(
            f"{tuning.plan.experiment.name} has a stream that does not say how long it is: give it a length"
        )
    rungs = tuning.pruning.rungs(rounds)
    if resume and (out / "tune.json").exists():
        before = json.loads((out / "tune.json").read_text())
        for difference in differences(before, stated_of(tuning, rungs), DECIDES):
            raise UserError(changed(out, *difference))
    else:
        RunFolder(out).refuse_existing()
    return rungs


def tune(
    tuning: Tuning,
    resume: bool = False,
    show: Show | None = None,
    workers: LocalWorkers[TrialJob, Ended | None] | None = None,
) -> dict[str, Any]:
    """Make all trials of every learner, and return all that is known of them: what `tune.json` holds.

    Trial 0 is the preset, and never pruned, so that it is always compared whole. The others are drawn by a
    tree-structured Parzen estimator (TPE) from the trials before and a seed of their own, and pruned by successive
    halving (see `Rungs`); so going on after a stop makes what would have been made without it. A trial that
    diverges or fails counts as the worst. After them, if asked for, come trials that change a single setting of the
    best: what is better takes its place, until no change is or there are `tuning.around` of them. The trials of a
    learner follow one another, while those of other learners may go on at the same time: the number of workers
    changes nothing but the time.

    `optuna-journal.log` and `tune.json` in the folder are all that it takes to go on; without the folder of the trial
    under way, that one is made again.

    Args:
        tuning: what to tune.
        resume: keep the trials in the folder, and go on with those under way.
        show: is told what is being done, and how many trials of how many are, with the part of the one under way.
        workers: processes that make the trials, by `trials.perform`; None: this process makes one after another.

    Raises:
        UserError: see `check_all` and `run.run`; or the folder holds more trials than asked for.
        RunInterrupted: on Ctrl-C; everything is saved.
    """
    rungs, plan = check_all(tuning, resume), tuning.plan
    with writing(plan.out):
        plan.out.mkdir(parents=True, exist_ok=True)
        if not (plan.out / "tune.json").exists():
            write_json(plan.out / "tune.json", stated_of(tuning, rungs))
        of_learners = studies(plan.out / "optuna-journal.log", plan.learners, plan.experiment.score.higher_is_better)
        for learner, study in of_learners.items():
            if (made := _drawn(study)) > tuning.trials:
                raise UserError(f"{plan.out} holds {made} trials of {learner}: --trials must be at least that")
            for number in range(len(study.trials)):
                forget(folder_of(plan.out, learner, number))  # a kill may have come between its end and this
        try:
            _search(tuning, rungs, of_learners, show, workers)
        finally:
            if workers is not None:
                workers.close()
        tuned = _tuned(tuning, rungs, of_learners)
        write_json(plan.out / "tune.json", tuned)
    return tuned


@dataclass(frozen=True)
class _Turn:
    """A trial whose turn it is.

    Attributes:
        learner: name.
        number: of the trial, from 0.
        settings: what is searched.
        around: whether they are the best's with a single change.
    """

    learner: str
    number: int
    settings: Mapping[str, Any]
    around: bool = False


def _search(
    tuning: Tuning,
    rungs: Rungs,
    of_learners: Mapping[str, Any],
    show: Show | None,
    workers: LocalWorkers[TrialJob, Ended | None] | None,
) -> None:
    """Make all trials that there are not; at most one of every learner is under way at any time."""
    running: dict[Future[Ended | None], _Turn] = {}
    lost: Counter[Any] = Counter()
    slots = workers.slots if workers else 1
    ended = {learner: len(study.trials) for learner, study in of_learners.items()}
    left = dict.fromkeys(of_learners, tuning.trials + tuning.around)  # with those that have ended

    def close(future: Future[Ended | None]) -> None:
        turn = running.pop(future)
        folder = folder_of(tuning.plan.out, turn.learner, turn.number)
        if isinstance(future.exception(), BrokenExecutor):
            # Its worker died: the trial goes on from its checkpoints in another, unless that helps it no further.
            reached = tuple(RunFolder(path).rounds for path in sorted(folder.glob("*/seed-*")))
            lost[turn.learner, turn.number, reached] += 1
            if lost[turn.learner, turn.number, reached] < LOSSES:
                return
            outcome: Ended | None = Ended(f"failed: {LOSSES} workers were lost in the same round", None, {}, 0, 0.0)
        else:
            outcome = future.result()
        if outcome is not None:
            keep(of_learners[turn.learner], tuning.spaces[turn.learner], turn.settings, rungs, outcome, turn.around)
            forget(folder)
            ended[turn.learner] += 1
            write_json(tuning.plan.out / "tune.json", _tuned(tuning, rungs, of_learners))

    with interrupts() as interrupted:
        while not interrupted.is_set():
            busy = {turn.learner for turn in running.values()}
            for learner in sorted(of_learners, key=ended.__getitem__):
                if learner in busy or ended[learner] >= left[learner] or len(running) == slots:
                    continue
                if (turn := _turn(tuning, learner, of_learners[learner])) is None:
                    left[learner] = ended[learner]
                    continue
                done = sum(ended.values()), sum(left.values())
                running[_begin(tuning, rungs, turn, of_learners[learner], show, done, workers)] = turn
            if not running:
                return
            if show and workers:
                now = ", ".join(f"{turn.learner} {turn.number + 1}/{left[turn.learner]}" for turn in running.values())
                show(now, sum(ended.values()), sum(left.values()))
            for future in wait(running, timeout=0.5, return_when=FIRST_COMPLETED).done:
                close(future)
        if workers is not None:
            workers.stop()
        for future in wait(running).done:
            close(future)
        raise RunInterrupted


def _turn(tuning: Tuning, learner: str, study: Any) -> _Turn | None:
    """The next trial of a learner; None, if there is none."""
    number, space = len(study.trials), tuning.spaces[learner]
    if not number:
        return _Turn(learner, number, stated(space, tuning.plan.preset))
    if (made := _drawn(study)) < tuning.trials:
        return _Turn(learner, number, drawn(study, space, number))
    if number - made >= tuning.around:
        return None
    settings = next_change(_trials(study), space, tuning.plan.experiment.score.higher_is_better)
    return None if settings is None else _Turn(learner, number, settings, around=True)


def _drawn(study: Any) -> int:
    """How many trials there are besides single changes of the best."""
    return sum(not trial["around"] for trial in _trials(study))


def _trials(study: Any) -> list[dict[str, Any]]:
    """The trials of a learner, as `tune.json` has them."""
    return [{"trial": trial.number, "around": False, **trial.user_attrs} for trial in study.trials]


def _begin(
    tuning: Tuning,
    rungs: Rungs,
    turn: _Turn,
    study: Any,
    show: Show | None,
    done: tuple[int, int],
    workers: LocalWorkers[TrialJob, Ended | None] | None,
) -> Future[Ended | None]:
    """Begin a trial in a worker, or make it here; one whose settings do not go together has failed."""
    before, future = study.trials if turn.number else None, Future[Ended | None]()
    try:
        selection = trial_of(tuning, turn.learner, turn.number, turn.settings if turn.number else {})
    except ValueError as error:
        future.set_result(Ended(failure(error), None, {}, 0, 0.0))
        return future
    if workers is not None:
        values = {**tuning.fixed, **(searched(tuning, turn.learner, turn.settings) if turn.number else {})}
        return workers.submit(job(tuning.source, values, selection, rungs, before))
    label = f"{turn.learner} trial {turn.number + 1}"
    if show:
        show(label, *done)
    progress = _progress(show, selection.seeds, label, *done) if show else None
    higher = tuning.plan.experiment.score.higher_is_better
    future.set_result(attempt(planned(selection), rungs, higher, before, progress))
    return future


def _progress(show: Show, seeds: Sequence[int], label: str, done: int, total: int) -> Progress:
    def progress(learner: str, seed: int, rounds: int | None, state: RunState, record: Record | None) -> None:  # noqa: ARG001
        show(label, done + (seeds.index(seed) + state.round / (rounds or 1)) / len(seeds), total)

    return progress


def _tuned(tuning: Tuning, rungs: Rungs, of_learners: Mapping[str, Any]) -> dict[str, Any]:
    """All that is known of the trials so far."""
    higher = tuning.plan.experiment.score.higher_is_better
    learners = {
        name: summary(_trials(study), tuning.spaces[name], rungs, higher) for name, study in of_learners.items()
    }
    return {**stated_of(tuning, rungs), "run": run_command(tuning, learners), "learners": learners}


def failures(tuned: Mapping[str, Any], out: Path) -> dict[str, str]:
    """How trials failed, by folder."""
    return {
        str(folder_of(out, name, trial["trial"])): trial["outcome"]
        for name, of_learner in tuned["learners"].items()
        for trial in of_learner["trials"]
        if trial["outcome"].startswith("failed")
    }
