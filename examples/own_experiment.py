"""A stream and a learner of one's own, in one file: `metaleader run examples/own_experiment.py`.

Each task is a user who sorts points into three piles around centres of their own. The learner keeps the mean of
each pile and predicts the nearest; FTML, which is told nothing of piles, is compared with it on the same data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import metaleader as ml

PILES, FEATURES = 3, 8


@dataclass(frozen=True)
class Users:
    """Users with centres of their own; every field becomes an option, such as --stream.rounds."""

    rounds: int = 40
    """Users."""
    noise: float = 1.0
    """Standard deviation of points around their centre."""

    def stream(self, seed: int, data_dir: Path | None = None) -> ml.Stream:
        """The stream that a seed gives."""

        def make(i: int) -> ml.Task:
            random = np.random.default_rng([seed, i])
            centres, y = random.normal(size=(PILES, FEATURES)), random.integers(0, PILES, 260)
            x = centres[y] + self.noise * random.normal(size=(260, FEATURES))
            x, y = x.astype(np.float32), y.astype(np.int32)
            return ml.Task.from_arrays(x[:60], y[:60], x[60:], y[60:], f"user {i}")

        return ml.Stream(make, self.rounds)


@dataclass(frozen=True)
class NearestMean:
    """A learner of four verbs; it keeps nothing between users, so that it has no state."""

    shrinkage: float = 1.0
    """How many points at the origin to mix into every mean."""

    def init(self, problem: ml.Problem, key: Any, example: ml.Batch) -> None:
        """Nothing to learn."""

    def observe(self, problem: ml.Problem, state: None, task: int | str, batch: ml.Batch) -> tuple[None, int]:
        """Nothing to store, at no cost."""
        return None, 0

    def adapt(self, problem: ml.Problem, state: None, task: int | str, batch: ml.Batch) -> tuple[Any, int]:
        """The mean of each pile."""
        members = np.eye(PILES)[batch.targets]
        return members.T @ batch.inputs / (members.sum(axis=0) + self.shrinkage)[:, None], 0

    def predict(self, problem: ml.Problem, adapted: Any, inputs: Any) -> Any:
        """Minus the squared distance to each mean: the nearest has the largest output."""
        return -jnp.sum((inputs[:, None] - adapted) ** 2, axis=-1)


laptop = ml.Preset(
    stream=Users(),
    model=ml.MLP(inputs=FEATURES, outputs=PILES, depth=0),
    loss=ml.CrossEntropy(label_smoothing=0.0),
    protocol=ml.OnlineProtocol(chunk=5, evaluate_at=(5, 10, 20, 60), threshold=0.85),
    learners={"ftml": ml.FTML(ml.GradientDescent(step_size=0.5)), "nearest-mean": NearestMean()},
)
experiment = ml.Experiment(
    name="own-experiment",
    summary="users who sort points into piles",
    scores=ml.accuracy,
    presets={"laptop": laptop, "smoke": replace(laptop, stream=Users(rounds=3))},
    compared=("ftml", "nearest-mean"),
)
