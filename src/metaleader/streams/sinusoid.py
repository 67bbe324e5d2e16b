"""The family of sinusoids (paper, figure 1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metaleader.errors import UserError
from metaleader.streams.task import Stream, Task


@dataclass(frozen=True)
class Sinusoid:
    """Tasks `y = a sin(x + phase)` with `a` uniform in [0.1, 5], `phase` in [0, pi] and `x` in [-5, 5].

    Inputs and targets are `(n, 1)`, float32. Joint training learns the mean over the family, which is like none of
    its members: `E[a] (2 / pi) cos x = 1.62 cos x`.

    Raises:
        UserError: a number is not positive.

    Examples:
        >>> import metaleader as ml
        >>> stream = ml.Sinusoid(rounds=2, examples_per_task=10).stream(seed=0)
        >>> [(task.name, task.train.inputs.shape, task.held_out.inputs.shape) for task in stream]
        [('a=3.22 phase=0.85', (10, 1), (200, 1)), ('a=4.46 phase=1.75', (10, 1), (200, 1))]
    """

    rounds: int = 50
    """Tasks in the stream."""
    examples_per_task: int = 50
    """Training points of each task."""
    test_examples: int = 200
    """Held-out points of each task."""

    def __post_init__(self) -> None:
        if min(self.rounds, self.examples_per_task, self.test_examples) < 1:
            raise UserError(f"rounds, examples_per_task and test_examples must be at least 1, got {self}")

    def stream(self, seed: int, data_dir: Path | None = None) -> Stream:  # noqa: ARG002 - there is none to read
        """The stream whose amplitudes, phases and points are drawn by `seed`."""

        def make(i: int) -> Task:
            random = np.random.default_rng([seed, i])
            amplitude, phase = random.uniform(0.1, 5), random.uniform(0, np.pi)
            x = random.uniform(-5, 5, (self.examples_per_task + self.test_examples, 1))
            y = amplitude * np.sin(x + phase)
            x, y, n = x.astype(np.float32), y.astype(np.float32), self.examples_per_task
            return Task.from_arrays(x[:n], y[:n], x[n:], y[n:], name=f"a={amplitude:.2f} phase={phase:.2f}")

        return Stream(make, self.rounds)
