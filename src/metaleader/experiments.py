"""The experiments: named, frozen values in one registry."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol as Interface
from typing import runtime_checkable

from metaleader.errors import UserError, unknown
from metaleader.learners import FTL, FTML, TOE, Adam, Learner, Scratch, Streaming
from metaleader.models import MLP, ConvNet
from metaleader.objective import (
    CrossEntropy,
    Loss,
    ModelLike,
    Problem,
    Score,
    accuracy,
    mean_squared_error,
    squared_error,
)
from metaleader.protocol import Protocol
from metaleader.streams import RainbowDigits, RainbowMnist, Sinusoid, Stream
from metaleader.update import GradientDescent


@runtime_checkable
class StreamSettings(Interface):
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
    """

    stream: StreamSettings
    model: ModelLike
    loss: Loss
    protocol: Protocol
    learners: Mapping[str, Learner]


@dataclass(frozen=True)
class Experiment:
    """A stream, a model and tuned learners.

    Attributes:
        name: on the command line and in results.
        summary: one line.
        score: what a learner is judged by.
        presets: `smoke` (seconds), `laptop` (minutes on 2 cores), `paper` (the authors' schedule), or others.
        compared: the learners that run if none is named.
    """

    name: str
    summary: str
    score: Score
    presets: Mapping[str, Preset]
    compared: tuple[str, ...] = ("ftml", "ftl", "toe", "scratch")

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
        return Problem(preset.model, preset.loss, self.score)


def find(name: str) -> Experiment:
    """The experiment of that name, or the value `experiment` of a Python file.

    Raises:
        UserError: there is no such experiment or file, or the file does not define one.
    """
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise UserError(f"there is no file {name}: give the path of a Python file that defines `experiment`")
        # As a module of its own, so that the types in its annotations are found by name.
        specification = importlib.util.spec_from_file_location(Path(name).stem, name)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[specification.name] = module
        specification.loader.exec_module(module)
        found = getattr(module, "experiment", None)
        if not isinstance(found, Experiment):
            raise UserError(f"{name} must define `experiment`, a metaleader.Experiment; found {type(found).__name__}")
        return found
    if name not in EXPERIMENTS:
        raise UserError(unknown("experiment", name, EXPERIMENTS))
    return EXPERIMENTS[name]


def _learners(ftml: FTML, ftl: FTL, toe: TOE, scratch: Scratch) -> Mapping[str, Learner]:
    """The learners by name; last-layer FTML and streaming have FTML's settings, where they share any."""
    update = ftml.update
    assert isinstance(update, GradientDescent)
    last_layer = replace(ftml, update=replace(update, only=("head",)))
    streaming = Streaming(
        ftml.update, ftml.meta_steps, ftml.meta_batch, ftml.train_size, ftml.validation_size, ftml.optimizer
    )
    paper = {"ftml": ftml, "ftml-last-layer": last_layer, "ftl": ftl, "toe": toe, "scratch": scratch}
    return MappingProxyType({**paper, "streaming": streaming})


_DIGITS_LAPTOP = Preset(
    stream=RainbowDigits(),
    model=ConvNet(depth=3, image=(16, 16, 3)),
    loss=CrossEntropy(),
    protocol=Protocol(chunk=10, evaluate_at=(10, 20, 30, 50, 70, 100), threshold=0.8),
    learners=_learners(FTML(), FTL(), TOE(), Scratch()),
)

_MNIST_LAPTOP = Preset(
    stream=RainbowMnist(),
    model=ConvNet(depth=4),
    loss=CrossEntropy(),
    protocol=Protocol(chunk=20, evaluate_at=(20, 40, 60, 80, 100, 120, 160, 200, 260, 320, 500, 900), threshold=0.9),
    learners=_learners(FTML(), FTL(), TOE(), Scratch()),
)

# The authors' schedule: 2000 meta-steps a task, 20 images every 50, on past tasks only, 25 tasks a meta-batch;
# twice the steps from scratch (paper.md section 6).
_MNIST_PAPER = Preset(
    stream=RainbowMnist(),
    model=ConvNet(depth=5),
    loss=CrossEntropy(),
    protocol=Protocol(chunk=20, threshold=0.9),
    learners=_learners(
        FTML(meta_steps=50, meta_batch=25, past_only=True),
        FTL(steps=50, batch_size=250),
        TOE(steps=50, batch_size=250),
        Scratch(steps=100),
    ),
)

_SINUSOID_LAPTOP = Preset(
    stream=Sinusoid(),
    model=MLP(),
    loss=squared_error,
    protocol=Protocol(chunk=5, evaluate_at=(5, 10, 20, 50), threshold=0.1),
    learners=_learners(
        FTML(GradientDescent(step_size=0.003), meta_steps=50, optimizer=Adam(3e-3)),
        FTL(GradientDescent(step_size=0.003), steps=50, optimizer=Adam(3e-3)),
        TOE(steps=50, optimizer=Adam(3e-3)),
        Scratch(steps=100, optimizer=Adam(3e-3)),
    ),
)


def _smoke(preset: Preset, **stream: int) -> Preset:
    """The same with few rounds and few examples."""
    return replace(preset, stream=replace(preset.stream, **stream))  # type: ignore[type-var]


EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        experiment.name: experiment
        for experiment in (
            Experiment(
                "rainbow-digits",
                "handwritten digits in colours, scales and rotations; needs no download",
                accuracy,
                MappingProxyType(
                    {
                        "smoke": _smoke(_DIGITS_LAPTOP, rounds=3, examples_per_task=30, test_examples=50),
                        "laptop": _DIGITS_LAPTOP,
                    }
                ),
            ),
            Experiment(
                "rainbow-mnist",
                "Rainbow MNIST (paper, section 6.1; figure 3)",
                accuracy,
                MappingProxyType(
                    {
                        "smoke": _smoke(_MNIST_LAPTOP, rounds=2, examples_per_task=40, test_examples=50),
                        "laptop": _MNIST_LAPTOP,
                        "paper": _MNIST_PAPER,
                    }
                ),
            ),
            Experiment(
                "sinusoid",
                "a family of sinusoids, of which joint training learns the flat mean (paper, figure 1)",
                mean_squared_error,
                MappingProxyType(
                    {
                        "smoke": _smoke(_SINUSOID_LAPTOP, rounds=3, examples_per_task=10),
                        "laptop": _SINUSOID_LAPTOP,
                    }
                ),
            ),
        )
    }
)
