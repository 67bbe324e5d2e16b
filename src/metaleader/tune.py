"""Tuning: the same number of trials for every learner, on task orders and seeds that results never use."""

from __future__ import annotations

import gc
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

from metaleader import figures, metrics, report
from metaleader.errors import UserError, unknown
from metaleader.experiments import Experiment
from metaleader.files import write_text
from metaleader.options import by_name, check_used, with_settings
from metaleader.protocol import Position
from metaleader.record import Record, RunFolder, check_unchanged, write_json
from metaleader.run import Plan, Progress, check, run, writing
from metaleader.spaces import Space, spaces, value_of
from metaleader.studies import drawn, keep, optuna, studies

FIRST_SEED = 1000  # results take 0, 1, ...
HEADINGS = ("learner", "trials", "preset", "best", "gradients", "time", "options of the best")
Show: TypeAlias = Callable[[str, float, float], None]


@dataclass(frozen=True)
class Tuning:
    """What to tune.

    Attributes:
        plan: the preset, with what is fixed for all trials: trial 0 of every learner.
        spaces: what is searched of every learner.
        trials: of every learner.
    """

    plan: Plan
    spaces: Mapping[str, Space]
    trials: int


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
) -> Tuning:
    """What to tune, from the options of the command: see `cli.TuneOptions`.

    Raises:
        UserError: a name is unknown, a value or range is impossible, or a learner has nothing to search.
    """
    preset, chosen = experiment.preset(preset_name), tuple(learners) or experiment.compared
    for name in chosen:
        if name not in preset.learners:
            raise UserError(unknown("learner", name, preset.learners))
    fixed = by_name(settings, "--set", "NAME=VALUE such as stream.rounds=20")
    preset = with_settings(experiment, preset, fixed)
    check_used(fixed, "--set", preset.learners, chosen)
    tuning_seeds = tuple(range(FIRST_SEED, FIRST_SEED + seeds))
    setting = tuple(f"{option}={value}" for option, value in fixed.items())
    plan = Plan(experiment, preset_name, preset, chosen, tuning_seeds, out, data_dir, command, setting=setting)
    return Tuning(plan, spaces(experiment, preset, chosen, search, fixed), trials)


def check_all(tuning: Tuning, resume: bool) -> None:
    """Make sure, before anything runs, that all trials can.

    Raises:
        UserError: there is something to overwrite (or, resuming, trials with other settings or more of them), data is
            missing, or Optuna is not installed.
    """
    optuna()
    out = tuning.plan.out
    if resume and (out / "tune.json").exists():
        check_unchanged(out / "tune.json", _stated(tuning), ("experiment", "preset", "seeds", "set", "spaces"))
    else:
        RunFolder(out).refuse_existing()
    for learner in tuning.plan.learners:
        check(_trial(tuning, learner, 0, {}), resume)
        if (made := len(list((out / learner).glob("trial-*")))) > tuning.trials:
            raise UserError(f"{out} holds {made} trials of {learner}: --trials must be at least that")


def tune(tuning: Tuning, resume: bool = False, show: Show | None = None) -> dict[str, Any]:
    """Make all trials, of each learner in turn, and return all that is known of them: what `tune.json` holds.

    Trial 0 is the preset. The others are drawn by a tree-structured Parzen estimator (TPE) from the trials before and
    a seed of their own, so that going on after a stop draws what would have been drawn without it. A trial that
    diverges or fails counts as the worst.

    Args:
        tuning: what to tune.
        resume: keep the trials in the folder, and go on with the one under way.
        show: is told what is being done, and how many trials of how many are, with the part of the one under way.

    Raises:
        UserError: see `check_all` and `run.run`.
        RunInterrupted: on Ctrl-C; everything is saved.
    """
    check_all(tuning, resume)
    plan = tuning.plan
    with writing(plan.out):
        plan.out.mkdir(parents=True, exist_ok=True)
        write_json(plan.out / "tune.json", _stated(tuning))
        of_learners = studies(plan.out / "optuna-journal.log", plan.learners, plan.experiment.score.higher_is_better)
        turns = list(itertools.product(range(tuning.trials), plan.learners))
        for done, (number, learner) in enumerate(turns):
            study, space = of_learners[learner], tuning.spaces[learner]
            if number < len(study.trials):
                continue
            trial = _trial(tuning, learner, number, drawn(study, space, number) if number else {})
            label = f"{learner} trial {number + 1}/{tuning.trials}"
            if show:
                show(label, done, len(turns))
            run(trial, resume, show and _progress(show, trial.seeds, label, done, len(turns)))
            keep(study, space, {option: value_of(trial.preset, option) for option in space}, **_judged(trial))
            jax.clear_caches()  # what was compiled for this trial serves no other, and many of them fill the memory
            gc.collect()
    return {**_stated(tuning), "learners": {name: _summary(study) for name, study in of_learners.items()}}


def _trial(tuning: Tuning, learner: str, number: int, setting: Mapping[str, float]) -> Plan:
    """The runs of a trial, in a folder of its own."""
    plan, texts = tuning.plan, {option: repr(value) for option, value in setting.items()}
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


def _judged(trial: Plan) -> dict[str, Any]:
    """How a trial ended, what it took, and its score: None, unless every evaluation that counts has one.

    The score is the mean over all sizes and the last third of the rounds, and over the seeds.
    """
    runs = metrics.load([trial.out])
    outcome, score = next((each.outcome for each in runs if each.outcome != "finished"), "finished"), math.nan
    if outcome == "finished":
        counted = [
            [record.score for record in each.records if counts[record.round - 1]]
            for each, counts in zip(runs, metrics.last_third(runs), strict=True)
        ]
        score = float(np.mean([np.array(of_run, float).mean() for of_run in counted]))
    ends = [each.records[-1] for each in runs if each.records]
    return {
        "score": score if math.isfinite(score) else None,
        "outcome": "diverged" if outcome == "finished" and not math.isfinite(score) else outcome,
        "gradient_evaluations": sum(end.gradient_evaluations for end in ends),
        "seconds": round(sum(end.train_seconds + end.evaluation_seconds for end in ends), 1),
    }


def _stated(tuning: Tuning) -> dict[str, Any]:
    """What determines the trials, and how they were made."""
    plan, score = tuning.plan, tuning.plan.experiment.score
    return {
        "experiment": plan.experiment.name,
        "preset": plan.preset_name,
        "score": {"name": score.name, "higher_is_better": score.higher_is_better},
        "seeds": list(plan.seeds),
        "set": list(plan.setting),
        "spaces": {
            name: {option: {**asdict(ends), "log": ends.log} for option, ends in space.items()}
            for name, space in tuning.spaces.items()
        },
        "trials": tuning.trials,
        "command": plan.command,
        "versions": {name: metadata.version(name) for name in ("metaleader", "jax", "optuna")},
    }


def _summary(study: Any) -> dict[str, Any]:
    trials = [{"trial": trial.number, **trial.user_attrs} for trial in study.trials]
    scored = [trial for trial in trials if trial["score"] is not None]
    best = max if study.direction.name == "MAXIMIZE" else min  # the first of several, so that the preset goes first
    return {
        "best": best(scored, key=lambda trial: float(trial["score"])) if scored else None,
        "gradient_evaluations": sum(trial["gradient_evaluations"] for trial in trials),
        "seconds": round(sum(trial["seconds"] for trial in trials), 1),
        "trials": trials,
    }


def rows(tuned: Mapping[str, Any]) -> list[list[str]]:
    """A row of text for every learner, under `HEADINGS`."""
    table = []
    for name, of_learner in tuned["learners"].items():
        best, trials = of_learner["best"], of_learner["trials"]
        lost = Counter(trial["outcome"].partition(":")[0] for trial in trials if trial["score"] is None)
        numbers = ", ".join(f"{count} {outcome}" for outcome, count in lost.items())
        options = [f"--{option}={value:g}" for option, value in (best["settings"] if best else {}).items()]
        table.append(
            [
                figures.style(name).short,
                f"{len(trials)}" + (f" ({numbers})" if numbers else ""),
                "-" if trials[0]["score"] is None else f"{trials[0]['score']:.3f}",
                f"{best['score']:.3f}" if best else "-",
                report.readable(of_learner["gradient_evaluations"]),
                report.minutes(of_learner["seconds"]),
                "the preset" if best and best["trial"] == 0 else " ".join(options) or "-",
            ]
        )
    return table


def write(tuned: Mapping[str, Any], out: Path) -> Path:
    """Write `tune.json`, `tune.md` and `figures/tune.*` into `out`, and return the page."""
    with writing(out):
        write_json(out / "tune.json", tuned)
        (out / "figures").mkdir(exist_ok=True)
        figure, caption = figures.search(tuned)
        report.save_figure(figure, out / "figures" / "tune")
        page = out / "tune.md"
        table = report.markdown_table(HEADINGS, rows(tuned))
        picture = f"![Score against settings](figures/tune.png)\n\n{caption}"
        made = f"## How this was made\n\n```\n{tuned['command']}\n```\n"
        write_text(page, f"# {title(tuned)}\n\n{note(tuned)}\n\n{table}\n{picture}\n\n{made}")
    return page


def failures(tuned: Mapping[str, Any], out: Path) -> dict[str, str]:
    """How trials failed, by folder."""
    return {
        str(_folder(out, name, trial["trial"])): trial["outcome"]
        for name, of_learner in tuned["learners"].items()
        for trial in of_learner["trials"]
        if trial["outcome"].startswith("failed")
    }


def title(tuned: Mapping[str, Any]) -> str:
    """What the table is called."""
    return ", ".join([f"Tuning {tuned['experiment']} ({tuned['preset']})", *tuned["set"]])


def note(tuned: Mapping[str, Any]) -> str:
    """What the table says, and what it rests on."""
    seeds, score = tuned["seeds"], tuned["score"]
    return (
        f"Every learner had {tuned['trials']} trials, the preset first. Their scores: held-out {score['name']} "
        f"({'higher' if score['higher_is_better'] else 'lower'} is better), mean over all sizes and the last third of "
        f"the rounds, on seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}: task orders, splits and weights "
        "that results, on seeds 0, 1, ..., never use. Trials that diverged or failed count as the worst. "
        "Gradients and time are those of all trials; gradients are per-example gradient evaluations, a "
        "Hessian-vector product counting as two."
    )
