"""What an experiment is made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from metaleader.buffer import Retention
from metaleader.errors import UserError, check_not_negative, unknown
from metaleader.learners import (
    FTL,
    FTML,
    TOE,
    JointTraining,
    Learner,
    MultiHeadFTL,
    MultiHeadTOE,
    OnlineMetaGradient,
    Scratch,
    Spends,
)
from metaleader.online.protocol import OnlineProtocol
from metaleader.problem.losses import Loss
from metaleader.problem.model import ModelLike, calibrates_by_task
from metaleader.problem.problem import Problem
from metaleader.problem.scores import Score, several
from metaleader.streams import Stream
from metaleader.update import (
    GradientDescent,
    HeadFirst,
    InnerAdam,
    InnerMomentum,
    MetaSGD,
    OptimizerSteps,
    Proximal,
    Reptile,
    Ridge,
    UpdateProcedure,
)

FINE_TUNING: Mapping[str, str] = MappingProxyType(  # of HeadFirst
    {
        "head-steps": "1:100",
        "head-step-size": "0.03:2.0",
        "steps": "1:60",
        "step-size": "0.01:0.5",
        "decay": "0.0|0.9",
    }
)


@runtime_checkable
class StreamSettings(Protocol):
    """A frozen dataclass of what determines a stream, besides the seed."""

    def stream(self, seed: int, data_dir: Path | None = None) -> Stream:
        """The stream; the seed sets the order of the tasks and which examples each has."""
        ...


@dataclass(frozen=True)
class Preset:
    """Every setting of an experiment; the command line has an option for each.

    Attributes:
        stream: which tasks.
        model: the model.
        loss: per-example loss.
        protocol: how a round goes.
        learners: by name.
        gradients: per-example gradients that every learner takes to learn whenever datapoints arrive, a Hessian-vector
            product counting as two: its number of steps is what that pays for, to the nearest whole step, at least one.
            0, or a learner that cannot be told (`learners.Spends`): as many steps as its own settings say.
        own_steps: learners, by name, whose own number of steps holds all the same.

    Raises:
        ValueError: `gradients` is negative, or a learner has a name that options and folders cannot have: it is longer
            than 100 characters, has others than letters, digits, -, _ and + or begins with -; a part of the preset has
            this name; or two differ in dashes and underscores only.

    Examples:
        >>> import metaleader as ml
        >>> learners = {"ftml": ml.FTML(), "toe": ml.TOE()}
        >>> protocol = ml.OnlineProtocol(chunk=5)
        >>> preset = ml.Preset(ml.Sinusoid(5), ml.MLP(), ml.squared_error, protocol, learners, gradients=2000)
        >>> preset.learners["ftml"].meta_steps, preset.learners["toe"].steps  # what 2000 gradients pay for
        (3, 40)
    """

    stream: StreamSettings
    model: ModelLike
    loss: Loss
    protocol: OnlineProtocol
    learners: Mapping[str, Learner]
    gradients: int = 0
    own_steps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_not_negative(self, "gradients")
        _check_learner_names(self.learners)
        learners = dict(self.learners)  # of its own, and ready to travel to another process
        for name, learner in learners.items() if self.gradients else ():
            if name in self.own_steps:
                continue
            if isinstance(learner, JointTraining) and not calibrates_by_task(self.model):
                paying = replace(learner, calibration_size=0)  # it takes no such examples
                learners[name] = replace(learner, steps=paying.spending(self.gradients).steps)
            elif isinstance(learner, Spends):
                learners[name] = learner.spending(self.gradients)
        object.__setattr__(self, "learners", learners)


def _check_learner_names(names: Iterable[str]) -> None:
    parts, seen = {field.name for field in fields(Preset)}, dict[str, str]()
    for name in names:
        if not re.fullmatch(r"[\w+][\w+-]{,99}", name):
            raise ValueError(
                "the name of a learner must be at most 100 letters, digits, -, _ and +, and not begin with -, as its "
                f"options and folders are called by it; got {name[:120]!r}"
            )
        if name in parts:
            raise ValueError(
                f"a learner cannot be called {name!r}, which is a part of every preset: choose another name"
            )
        if (other := seen.setdefault(name.replace("_", "-"), name)) != name:
            raise ValueError(
                f"learners {other!r} and {name!r} would have the same options: choose another name for one"
            )


@dataclass(frozen=True)
class Experiment:
    """A stream, a model and tuned learners.

    Attributes:
        name: on the command line and in results.
        summary: one line.
        scores: what a learner is judged by; the first decides on proficiency.
        presets: `smoke` (seconds), `laptop` (minutes on 2 cores), `full` (the paper's stream in its whole length, in
            hours; what `laptop` is where that is whole already), `paper` (the authors' schedule), or others.
        compared: the learners that run if none is named.
        report_sizes: sizes of D_t that figures and tables show. None named: some of those evaluated.
        seeds: how many seeds its results rest on, unless told.
        search: what `metaleader tune` searches beside learning rates and step sizes: options of learners, by name, with
            `LOW:HIGH` or choices `A|B|C`.
        differs: how a preset differs from the paper's experiment, by its name; in words, for the top of a page.
        illustration: a picture of what was learned, by its name in `illustrations.ILLUSTRATIONS`; none, if empty.

    Examples:
        >>> import metaleader as ml
        >>> experiment = ml.EXPERIMENTS["sinusoid"]
        >>> sorted(experiment.presets), experiment.compared
        (['full', 'laptop', 'paper', 'smoke'], ('ftml', 'ftl', 'toe', 'scratch'))
        >>> experiment.problem(experiment.preset("smoke")).score.name
        'squared error'
    """

    name: str
    summary: str
    scores: tuple[Score, ...] | Score
    presets: Mapping[str, Preset]
    compared: tuple[str, ...] = ("ftml", "ftl", "toe", "scratch")
    report_sizes: tuple[int, ...] = ()
    illustration: str = ""
    seeds: int = 6
    search: Mapping[str, str] = field(default_factory=dict)
    differs: Mapping[str, str] = field(default_factory=dict)

    def preset(self, name: str) -> Preset:
        """The preset of that name.

        Raises:
            UserError: there is none.
        """
        if name not in self.presets:
            raise UserError(unknown("preset", name, self.presets))
        return self.presets[name]

    def problem(self, preset: Preset) -> Problem:
        """What is learned under `preset`."""
        return Problem(preset.model, preset.loss, self.scores)

    @property
    def score(self) -> Score:
        """The score that decides on proficiency."""
        return several(self.scores)[0]


def learners(
    ftml: FTML,
    ftl: FTL | MultiHeadFTL,
    toe: TOE | MultiHeadTOE,
    scratch: Scratch,
    last_layer: FTML | None = None,
) -> Mapping[str, Learner]:
    """The learners of the paper by name, and variants: FTML with other update procedures, FTL fine-tuned otherwise.

    The baseline that adapts its last layer alone is given as `last_layer`; or else it is FTML, but for that.
    """
    descent = ftml.update
    assert isinstance(descent, GradientDescent)
    steps, step_size = descent.steps, descent.step_size
    others: Mapping[str, UpdateProcedure] = {
        "ftml-first-order": replace(descent, first_order=True),
        "ftml-second-order": replace(descent, first_order=False),
        "ftml-reptile": Reptile(steps, step_size),
        "ftml-meta-sgd": MetaSGD(steps, step_size),
        # The momentum of 0.9 takes about 2.6 times as far in five steps.
        "ftml-momentum": OptimizerSteps(steps, InnerMomentum(step_size / 2)),
        "ftml-adam": OptimizerSteps(steps, InnerAdam(step_size / 10)),
        "ftml-imaml": Proximal(2 * steps, step_size),
    }
    last_layer = last_layer or replace(ftml, update=replace(descent, adapt_only=("head",)))
    ridge = replace(ftml, update=Ridge(), adapt_steps=None)
    data_steps = replace(ftml, update=MetaSGD(steps, 2 * step_size, prior_strength=10.0), vary_train_size=True)
    # It has the current task's data alone to learn from.
    own_memory = ("retention", "past_only")
    streaming = OnlineMetaGradient(**{f.name: getattr(ftml, f.name) for f in fields(FTML) if f.name not in own_memory})
    return MappingProxyType(
        {
            "ftml": ftml,
            "ftml-last-layer": last_layer,
            **{name: replace(ftml, update=update) for name, update in others.items()},
            "ftml-data-steps": data_steps,
            "ftml-ridge": ridge,
            "streaming": streaming,
            "ftl": ftl,
            "ftl-adam": replace(ftl, update=OptimizerSteps(20, InnerAdam(0.003))),
            "ftl-head-first": replace(ftl, update=HeadFirst()),
            "toe": toe,
            # No task of these streams comes back: the data of the current one are all that it needs.
            "scratch": replace(scratch, retention=Retention("last", 1, "tasks")),
        }
    )


def search_space(
    step_size: str,
    fine_tuning: Mapping[str, str],
    *,
    inner_steps: str = "1:5",
    adapt_steps: str = "1:30",
    train_size: str = "5:20",
    validation_size: str = "10:60",
    tasks: str = "1:8",
    mixed: bool = True,
    batch_size: str = "10:60",
    calibrated: bool = True,
    variants: Iterable[str] = (),
) -> Mapping[str, str]:
    """What is searched of the four learners of the paper, beside learning rates.

    For all: how minibatches are made of the gradients there are, and how many iterates are averaged. For those that
    adapt: how far, and by which steps.

    Args:
        step_size: of FTML's inner steps.
        fine_tuning: of FTL's `update`, by the name of the setting.
        inner_steps: of FTML in Meta-Update.
        adapt_steps: of FTML in adapting to D_t.
        train_size: of D_k_tr.
        validation_size: of D_k_val.
        tasks: in a meta-batch, and in a minibatch of joint training.
        mixed: whether minibatches of joint training may mix all tasks, too (0 tasks): where no task has its own head.
        batch_size: examples of a task in a minibatch of joint training; from scratch, 10 to 100 are searched.
        calibrated: whether the model normalises by statistics of a task, so that joint training may set examples apart.
        variants: of FTML that are baselines, of which all is searched that is searched of FTML.
    """
    averages = "0.9|0.98|0.99|0.995"
    of_minibatch = f"0:{tasks.partition(':')[2]}" if mixed else tasks
    joint = {"optimizer.average": averages, "batch-tasks": of_minibatch, "batch-size": batch_size}
    if calibrated:
        joint["calibration-size"] = "0|10|25"
    of_learners: dict[str, Mapping[str, str]] = {
        "ftml": {
            "optimizer.average": averages,
            "update.steps": inner_steps,
            "update.step-size": step_size,
            "update.first-order": "false|true",
            "adapt-steps": adapt_steps,
            "meta-batch": tasks,
            "train-size": train_size,
            "validation-size": validation_size,
            "sampling.newest": "0.0|0.1|0.25|0.5",
        },
        "ftl": {**joint, **{f"update.{name}": values for name, values in fine_tuning.items()}},
        "toe": joint,
        "scratch": {"optimizer.average": "0.0|0.5|0.9|0.98", "batch-size": "10:100"},
    }
    of_learners |= dict.fromkeys(variants, of_learners["ftml"])
    return MappingProxyType(
        {f"{learner}.{name}": values for learner, space in of_learners.items() for name, values in space.items()}
    )


def smaller(preset: Preset, gradients: int | None = None, **stream: Any) -> Preset:
    """The same with another stream, say of few rounds and few examples, and with other gradients if they are given."""
    gradients = preset.gradients if gradients is None else gradients
    return replace(preset, gradients=gradients, stream=replace(preset.stream, **stream))  # type: ignore[type-var]
