"""A stream and a learner of one's own, in one file: `metaleader run examples/own_experiment.py`.

Each task is a user who sorts points into three piles around centres of their own. The learner keeps the mean of
each pile and predicts the nearest; FTML, which is told nothing of piles, is compared with it on the same data.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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

    def stream(self, seed: int, data_dir: Path | None = None) -> ml.Stream:  # noqa: ARG002
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
    """A learner with the three verbs; it keeps nothing between users, so its state is just a count."""

    shrinkage: float = 1.0
    """How many points at the origin to mix into every mean."""
    adaptation: ml.UpdateProcedure = field(default_factory=ml.Identity)

    def init(self, problem: ml.Problem, key: Any, like: ml.Batch, capacity: int = 1024) -> ml.State:  # noqa: ARG002
        """Nothing to learn."""
        return ml.State(params={}, opt_state=(), buffer=(), key=key, gradient_evaluations=np.int64(0))

    def observe(self, problem: ml.Problem, state: ml.State, task: int, batch: ml.Batch) -> ml.State:  # noqa: ARG002
        """Nothing to store."""
        return state

    def adapt(self, problem: ml.Problem, state: ml.State, batch: ml.Batch) -> Any:  # noqa: ARG002
        """A linear classifier whose largest output is that of the nearest mean."""
        members = np.eye(PILES)[batch.targets]
        means = members.T @ batch.inputs / (members.sum(axis=0) + self.shrinkage)[:, None]
        head = {"kernel": jnp.asarray(means.T, jnp.float32), "bias": jnp.asarray(-(means**2).sum(axis=1) / 2)}
        return {"hidden": [], "head": head}


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
    score=ml.accuracy,
    presets={"laptop": laptop, "smoke": replace(laptop, stream=Users(rounds=3))},
    compared=("ftml", "nearest-mean"),
)
