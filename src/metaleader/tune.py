"""Tuning: the same number of trials for every learner, on task orders and seeds that results never use."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

from metaleader.errors import UserError, unknown
from metaleader.experiments import Experiment, Preset
from metaleader.found import summary
from metaleader.options import as_arguments, by_name, check_used, with_settings
from metaleader.protocol import Position
from metaleader.record import Record, RunFolder, check_unchanged, write_json
from metaleader.run import Plan, Progress, RunInterrupted, check, interrupts, writing
from metaleader.spaces import Space, spaces, stated
from metaleader.studies import Ended, Rungs, drawn, keep, optuna, studies
from metaleader.trials import TrialJob, attempt, forget, job
from metaleader.workers import LOSSES, LocalWorkers

FIRST_SEED = 1000  # results take 0, 1, ...
CHECKPOINT_SECONDS = 60.0  # a checkpoint holds all data seen: more of them would take longer than what a kill costs
DECIDES = ("experiment", "preset", "seeds", "held_out", "set", "spaces", "rounds", "rungs", "reduction")
Show: TypeAlias = Callable[[str, float, float], None]


@dataclass(frozen=True)
class Pruning:
    """How trials are ended early.

    Attributes:
        first: rounds to the first rung; None: a sixth of the stream.
        reduction: the factor between rungs, and one in how many trials goes on from each.
        prune: False: every trial takes the whole stream.
    """

    first: int | None = None
    reduction: int = 3
    prune: bool = True

    def rungs(self, rounds: int) -> Rungs:
        """The rungs on a stream of so many rounds.

        Raises:
            UserError: the first rung lies outside of the stream, or the reduction factor is below 2.
        """
        try:
            return Rungs(
                rounds, max(1, round(rounds / 6)) if self.first is None else self.first, self.reduction, self.prune
            )
        except ValueError as error:
            raise UserError(f"--rungs and --reduction: {error}") from None


@dataclass(frozen=True)
class Tuning:
    """What to tune.

    Attributes:
        plan: the preset, with what is fixed for all trials: trial 0 of every learner.
        spaces: what is searched of every learner.
        trials: of every learner.
        pruning: how trials are ended early.
        held_out: the part of the data on which trials are judged; None, where the stream does not say.
        source: the experiment, as a command names it.
    """

    plan: Plan
    spaces: Mapping[str, Space]
    trials: int
    pruning: Pruning
    held_out: str | None
    source: str


def prepare(
    experiment: Experiment,
    preset_name: str,
    learners: Sequence[str],
    seeds: int,
    trials: int,
    search: Iterable[str],
    settings: Iterable[str],
    out: Path,
    data_dir: Path | None = None,
    command: str = "",
    pruning: Pruning | None = None,
    source: str = "",
) -> Tuning:
    """What to tune, from the options of the command: see `cli.TuneOptions`.

    A stream that can hold out a part of the training images for validation (a field `held_out`) does so, unless
    `settings` says otherwise: a search must not choose by the images that results are judged on.

    Raises:
        UserError: a name is unknown, a value or range is impossible, or a learner has nothing to search.
    """
    preset, chosen = experiment.preset(preset_name), tuple(learners) or experiment.compared
    for name in chosen:
        if name not in preset.learners:
            raise UserError(unknown("learner", name, preset.learners))
    fixed = by_name(settings, "--set", "NAME=VALUE such as stream.rounds=20")
    if _held_out(preset) is not None:
        fixed.setdefault("stream.held-out", "validation")
    preset = with_settings(experiment, preset, fixed)
    check_used(fixed, "--set", preset.learners, chosen)
    plan = Plan(
        experiment,
        preset_name,
        preset,
        chosen,
        tuple(range(FIRST_SEED, FIRST_SEED + seeds)),
        out,
        data_dir,
        command,
        CHECKPOINT_SECONDS,
        setting=tuple(f"{option}={value}" for option, value in fixed.items()),
    )
    searched = spaces(experiment, preset, chosen, search, fixed)
    return Tuning(plan, searched, trials, pruning or Pruning(), _held_out(preset), source or experiment.name)


def _held_out(preset: Preset) -> str | None:
    """On which data the stream has learners judged, where it says so."""
    stream: Any = preset.stream
    named = is_dataclass(stream) and "held_out" in {field.name for field in fields(stream)}
    return str(stream.held_out) if named else None


def check_all(tuning: Tuning, resume: bool) -> Rungs:
    """Make sure, before anything runs, that all trials can; returns the rungs of the stream.

    Raises:
        UserError: there is something to overwrite (or, resuming, trials with other settings), data is missing, rungs
            are impossible, or Optuna is not installed.
    """
    optuna()
    out = tuning.plan.out
    streams = [check(_trial(tuning, learner, 0, {}), resume) for learner in tuning.plan.learners]
    rungs = tuning.pruning.rungs(len(streams[0][FIRST_SEED]))
    if resume and (out / "tune.json").exists():
        check_unchanged(out / "tune.json", _stated(tuning, rungs), DECIDES)
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
    halving (see `Rungs`); so going on after a stop makes what would have been made without it. A trial that diverges
    or fails counts as the worst. The trials of a learner follow one another, while those of other learners may go on at
    the same time: the number of workers changes nothing but the time.

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
            write_json(plan.out / "tune.json", _stated(tuning, rungs))
        of_learners = studies(plan.out / "optuna-journal.log", plan.learners, plan.experiment.score.higher_is_better)
        for learner, study in of_learners.items():
            if (made := len(study.trials)) > tuning.trials:
                raise UserError(f"{plan.out} holds {made} trials of {learner}: --trials must be at least that")
            for number in range(made):
                forget(_folder(plan.out, learner, number))  # a kill may have come between its end and this
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
    """A trial under way.

    Attributes:
        learner: name.
        number: of the trial, from 0.
        trial: its runs.
    """

    learner: str
    number: int
    trial: Plan


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
    slots, total = workers.slots if workers else 1, tuning.trials * len(of_learners)
    ended = {learner: len(study.trials) for learner, study in of_learners.items()}

    def close(future: Future[Ended | None]) -> None:
        turn = running.pop(future)
        if isinstance(future.exception(), BrokenExecutor):
            # Its worker died: the trial goes on from its checkpoints in another, unless that helps it no further.
            reached = tuple(RunFolder(path).rounds for path in sorted(turn.trial.out.glob("*/seed-*")))
            lost[turn.learner, turn.number, reached] += 1
            if lost[turn.learner, turn.number, reached] < LOSSES:
                return
            outcome: Ended | None = Ended(f"failed: {LOSSES} workers were lost in the same round", None, {}, 0, 0.0)
        else:
            outcome = future.result()
        if outcome is not None:
            space = tuning.spaces[turn.learner]
            keep(of_learners[turn.learner], space, stated(space, turn.trial.preset), rungs, outcome)
            forget(turn.trial.out)
            ended[turn.learner] += 1
            write_json(tuning.plan.out / "tune.json", _tuned(tuning, rungs, of_learners))

    with interrupts() as interrupted:
        while not interrupted.is_set():
            busy = {turn.learner for turn in running.values()}
            waiting = [name for name in of_learners if name not in busy and ended[name] < tuning.trials]
            for learner in sorted(waiting, key=ended.__getitem__)[: slots - len(running)]:
                turn = _turn(tuning, learner, of_learners[learner])
                running[_begin(tuning, rungs, turn, of_learners[learner], show, sum(ended.values()), workers)] = turn
            if not running:
                return
            if show and workers:
                now = ", ".join(f"{turn.learner} {turn.number + 1}/{tuning.trials}" for turn in running.values())
                show(now, sum(ended.values()), total)
            for future in wait(running, timeout=0.5, return_when=FIRST_COMPLETED).done:
                close(future)
        if workers is not None:
            workers.stop()
        for future in wait(running).done:
            close(future)
        raise RunInterrupted


def _turn(tuning: Tuning, learner: str, study: Any) -> _Turn:
    """The next trial of a learner."""
    number, space = len(study.trials), tuning.spaces[learner]
    return _Turn(learner, number, _trial(tuning, learner, number, drawn(study, space, number) if number else {}))


def _begin(
    tuning: Tuning,
    rungs: Rungs,
    turn: _Turn,
    study: Any,
    show: Show | None,
    ended: int,
    workers: LocalWorkers[TrialJob, Ended | None] | None,
) -> Future[Ended | None]:
    """Begin a trial in a worker, or make it here."""
    before = study.trials if turn.number else None
    if workers is not None:
        return workers.submit(job(tuning.source, turn.trial, rungs, before))
    label, total = f"{turn.learner} trial {turn.number + 1}/{tuning.trials}", tuning.trials * len(tuning.plan.learners)
    if show:
        show(label, ended, total)
    progress = _progress(show, turn.trial.seeds, label, ended, total) if show else None
    future: Future[Ended | None] = Future()
    future.set_result(attempt(turn.trial, rungs, tuning.plan.experiment.score.higher_is_better, before, progress))
    return future


def _trial(tuning: Tuning, learner: str, number: int, setting: Mapping[str, Any]) -> Plan:
    """The runs of a trial, in a folder of its own."""
    plan = tuning.plan
    texts = {option: value if isinstance(value, str) else repr(value) for option, value in setting.items()}
    others = plan.preset.learners.keys() - {learner}
    fixed = [text for text in plan.setting if text.partition(".")[0] not in others]
    return replace(
        plan,
        preset=with_settings(plan.experiment, plan.preset, texts),
        learners=(learner,),
        out=_folder(plan.out, learner, number),
        setting=(*fixed, *(f"{option}={text}" for option, text in texts.items())),
    )


def _folder(out: Path, learner: str, number: int) -> Path:
    return out / learner / f"trial-{number:03d}"


def _progress(show: Show, seeds: Sequence[int], label: str, done: int, total: int) -> Progress:
    def progress(learner: str, seed: int, rounds: int, position: Position, record: Record | None) -> None:  # noqa: ARG001
        show(label, done + (seeds.index(seed) + int(position.round) / rounds) / len(seeds), total)

    return progress


def _stated(tuning: Tuning, rungs: Rungs) -> dict[str, Any]:
    """What determines the trials, and how they were made."""
    plan, score = tuning.plan, tuning.plan.experiment.score
    return {
        "experiment": plan.experiment.name,
        "preset": plan.preset_name,
        "score": {"name": score.name, "higher_is_better": score.higher_is_better},
        "seeds": list(plan.seeds),
        "held_out": tuning.held_out,
        "set": list(plan.setting),
        "spaces": {
            name: {option: entry.description() for option, entry in space.items()}
            for name, space in tuning.spaces.items()
        },
        "rounds": rungs.rounds,
        "rungs": list(rungs.ends) if rungs.prune else [],
        "reduction": rungs.reduction if rungs.prune else None,
        "trials": tuning.trials,
        "command": plan.command,
        "versions": {name: metadata.version(name) for name in ("metaleader", "jax", "optuna")},
    }


def _tuned(tuning: Tuning, rungs: Rungs, of_learners: Mapping[str, Any]) -> dict[str, Any]:
    """All that is known of the trials so far."""
    higher = tuning.plan.experiment.score.higher_is_better
    learners = {
        name: summary(
            [{"trial": trial.number, **trial.user_attrs} for trial in study.trials], tuning.spaces[name], rungs, higher
        )
        for name, study in of_learners.items()
    }
    return {**_stated(tuning, rungs), "run": _run_command(tuning, learners), "learners": learners}


def _run_command(tuning: Tuning, learners: Mapping[str, Any]) -> list[str]:
    """The command that runs every learner with the best that was found, a line a learner; on images not used here."""
    plan = tuning.plan
    preset = plan.experiment.preset(plan.preset_name)
    fixed = dict(text.split("=", 1) for text in plan.setting)
    fixed.pop("stream.held-out", None)
    named = (
        [] if plan.learners == plan.experiment.compared else [w for name in plan.learners for w in ("--learner", name)]
    )
    first = ["metaleader", "run", tuning.source, "--preset", plan.preset_name, *named, *as_arguments(preset, fixed)]
    lines = [first]
    for of_learner in learners.values():
        best = of_learner["best"]
        if best is not None and best["trial"] > 0:
            lines.append(as_arguments(preset, {option: str(value) for option, value in best["settings"].items()}))
    return [shlex.join(line) for line in lines if line]


def failures(tuned: Mapping[str, Any], out: Path) -> dict[str, str]:
    """How trials failed, by folder."""
    return {
        str(_folder(out, name, trial["trial"])): trial["outcome"]
        for name, of_learner in tuned["learners"].items()
        for trial in of_learner["trials"]
        if trial["outcome"].startswith("failed")
    }
