"""An experiment for tests of tuning: quick, since there is nothing to compile, and with known best settings."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from metaleader import Adam, Experiment, GradientDescent, Model, OnlineProtocol, Preset, Score, Stream, Task
from metaleader.problem.losses import squared_error

START = Adam(0.01), GradientDescent(step_size=0.3)


@dataclass(frozen=True)
class Noise:
    """Targets near zero, other ones for every seed and task; farther from it for validation."""

    rounds: int = 3
    held_out: Literal["test", "validation"] = "test"

    def stream(self, seed: int, data_dir: Path | None = None) -> Stream:
        def make(i: int) -> Task:
            x = np.random.default_rng([seed, i]).normal(size=(12, 1)).astype(np.float32)
            far = 0.2 if self.held_out == "validation" else 0.1
            return Task.from_arrays(x[:4], 0.1 * x[:4], x[4:], far * x[4:], f"task {i}")

        return Stream(make, self.rounds)


@dataclass(frozen=True)
class Guess:
    """A learner that is off by the distance of its settings from 0.05, 0.1 and 5 on logarithmic scales.

    If helped, it is half as far off.
    """

    optimizer: Adam
    update: GradientDescent
    steps: int = 3
    helped: bool = False
    most: int = 100
    diverges_above: float = math.inf
    fails_below: float = 0.0

    def __post_init__(self) -> None:
        if self.steps > self.most:
            raise ValueError(f"steps must be at most {self.most}, got {self.steps}")

    def init(self, problem: Any, key: Any, example: Any) -> Any:
        return {}

    def observe(self, problem: Any, state: Any, task: int | str, batch: Any) -> tuple[Any, int]:
        if self.optimizer.learning_rate < self.fails_below:
            raise MemoryError("no room")
        return state, self.steps * len(batch)

    def adapt(self, problem: Any, state: Any, task: int | str, batch: Any) -> tuple[Any, int]:
        rate, step_size = self.optimizer.learning_rate, self.update.step_size
        off = abs(math.log(rate / 0.05)) + abs(math.log(step_size / 0.1)) + abs(math.log(self.steps / 5))
        off *= 0.5 if self.helped else 1.0
        return {"off": jnp.float32(math.nan if rate > self.diverges_above else off)}, self.update.gradient_evaluations(
            len(batch)
        )

    def predict(self, problem: Any, adapted: Any, inputs: Any) -> Any:
        return problem.predict(adapted, inputs)


def _closeness(outputs: Any, targets: Any) -> Any:
    return jnp.exp(-jnp.abs(outputs - targets))[:, 0]


experiment = Experiment(
    "tunable",
    "for tests",
    Score("closeness", _closeness, higher_is_better=True),
    {
        "smoke": Preset(
            Noise(),
            Model(lambda key: {"off": jnp.zeros(())}, lambda params, inputs, weights: params["off"] + 0 * inputs),
            squared_error,
            OnlineProtocol(chunk=2, threshold=0.5),
            {"guess": Guess(*START), "fragile": Guess(*START, diverges_above=0.05, fails_below=0.002)},
        )
    },
    ("guess", "fragile"),
)
