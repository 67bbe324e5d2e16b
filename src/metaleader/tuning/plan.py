"""What to tune: an experiment, its preset, what is searched, and how trials end early."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from metaleader.errors import UserError, unknown
from metaleader.experiments import Experiment, Preset
from metaleader.experiments.parsing import as_arguments, by_name, check_used, values_of
from metaleader.experiments.plans import Selection
from metaleader.experiments.settings import has_setting, replaced
from metaleader.tuning.spaces import Space, spaces, stated
from metaleader.tuning.studies import Rungs

FIRST_SEED = 1000  # results take 0, 1, ...


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
        fixed: what is fixed, by the names of settings.
        spaces: what is searched of every learner.
        trials: of every learner.
        around: single changes of the best that are tried of every learner afterwards, at most.
        pruning: how trials are ended early.
        held_out: the part of the data on which trials are judged; None, where the stream does not say.
        source: the experiment, as a command names it.
    """

    plan: Selection
    fixed: Mapping[str, Any]
    spaces: Mapping[str, Space]
    trials: int
    around: int
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
    around: int = 0,
) -> Tuning:
    """What to tune, from the options of the command: see `commands.tune.TuneOptions`.

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
    values = values_of(experiment, preset, fixed)
    preset = replaced(preset, values)
    check_used(fixed, "--set", preset.learners, chosen)
    plan = Selection(
        experiment,
        preset_name,
        preset,
        chosen,
        tuple(range(FIRST_SEED, FIRST_SEED + seeds)),
        out,
        data_dir,
        command,
        setting=tuple(f"{option}={value}" for option, value in fixed.items()),
    )
    searched = spaces(experiment, preset, chosen, search, fixed)
    return Tuning(
        plan, values, searched, trials, around, pruning or Pruning(), _held_out(preset), source or experiment.name
    )


def _held_out(preset: Preset) -> str | None:
    """On which data the stream has learners judged, where it says so."""
    stream: Any = preset.stream
    return str(stream.held_out) if has_setting(preset, "stream.held-out") else None


def trial_of(tuning: Tuning, learner: str, number: int, setting: Mapping[str, Any]) -> Selection:
    """The runs of a trial, in a folder of its own."""
    plan = tuning.plan
    others = plan.preset.learners.keys() - {learner}
    fixed = [text for text in plan.setting if text.partition(".")[0] not in others]
    return replace(
        plan,
        preset=replaced(plan.preset, searched(tuning, learner, setting)),
        learners=(learner,),
        out=folder_of(plan.out, learner, number),
        setting=(*fixed, *(f"{option}={value}" for option, value in setting.items())),
    )


def searched(tuning: Tuning, learner: str, setting: Mapping[str, Any]) -> dict[str, Any]:
    """The values of settings that a trial's stand for, by name, but for those of the preset that are no choice."""
    space = tuning.spaces[learner]
    preset = stated(space, tuning.plan.preset)
    return {
        option: space[option].meant(value)
        for option, value in setting.items()
        if value in space[option] or value != preset[option]
    }


def folder_of(out: Path, learner: str, number: int) -> Path:
    """Where the runs of a trial are, in the folder of the search."""
    return out / learner / f"trial-{number:03d}"


def stated_of(tuning: Tuning, rungs: Rungs) -> dict[str, Any]:
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


def run_command(tuning: Tuning, learners: Mapping[str, Any]) -> list[str]:
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
