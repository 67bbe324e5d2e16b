"""What an experiment is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, runtime_checkable
from typing import Protocol as Interface

from metaleader.errors import UserError, unknown
from metaleader.learners import FTL, FTML, TOE, Learner, MultiHeadTOE, Scratch, Streaming
from metaleader.objective import Loss, ModelLike, Problem, Score
from metaleader.protocol import Protocol
from metaleader.streams import Stream
from metaleader.update import (
    GradientDescent,
    InnerAdam,
    InnerMomentum,
    MetaSGD,
    Optimized,
    Proximal,
    Reptile,
    UpdateProcedure,
)


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


def learners(ftml: FTML, ftl: FTL, toe: TOE | MultiHeadTOE, scratch: Scratch) -> Mapping[str, Learner]:
    """The learners of the paper by name, and FTML with other update procedures, otherwise with its settings."""
    descent = ftml.update
    assert isinstance(descent, GradientDescent)
    steps, step_size = descent.steps, descent.step_size
    others: Mapping[str, UpdateProcedure] = {
        "ftml-last-layer": replace(descent, only=("head",)),
        "ftml-first-order": replace(descent, first_order=True),
        "ftml-reptile": Reptile(steps, step_size),
        "ftml-meta-sgd": MetaSGD(steps, step_size),
        # The momentum of 0.9 takes about 2.6 times as far in five steps.
        "ftml-momentum": Optimized(steps, InnerMomentum(step_size / 2)),
        "ftml-adam": Optimized(steps, InnerAdam(step_size / 10)),
        "ftml-imaml": Proximal(2 * steps, step_size),
    }
    data_steps = replace(ftml, update=MetaSGD(steps, 2 * step_size, half_at=10.0), vary_train_size=True)
    streaming = Streaming(
        descent, ftml.meta_steps, ftml.meta_batch, ftml.train_size, ftml.validation_size, ftml.optimizer
    )
    return MappingProxyType(
        {
            "ftml": ftml,
            **{name: replace(ftml, update=update) for name, update in others.items()},
            "ftml-data-steps": data_steps,
            "streaming": streaming,
            "ftl": ftl,
            "toe": toe,
            "scratch": scratch,
        }
    )


def smaller(preset: Preset, **stream: Any) -> Preset:
    """The same with another stream, say of few rounds and few examples."""
    return replace(preset, stream=replace(preset.stream, **stream))  # type: ignore[type-var]
