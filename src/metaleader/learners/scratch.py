"""Learning every task from scratch (paper, section 6)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
from jaxtyping import Array

from metaleader.buffer import Retention, TaskKey
from metaleader.errors import check_positive
from metaleader.learners import base
from metaleader.learners.base import Learned, PredictsByModel
from metaleader.learners.joint import Minibatches, start, train
from metaleader.learners.optimizers import Adam, Momentum
from metaleader.problem.batch import Batch
from metaleader.problem.model import Params
from metaleader.problem.problem import Problem
from metaleader.update import Identity
from metaleader.update.optimizer import Optimizer

MORE = 8  # how many times as many steps to take at most


@dataclass(frozen=True)
class Scratch(PredictsByModel):
    """New random weights for every task, trained on that task's data only, as it arrives.

    Where tasks interleave, the weights are those of the task observed last: when another one's datapoints arrive, even
    of a task that was met before, it begins with new weights, and trains them on all of that task's data that is kept.

    Raises:
        ValueError: a size is not positive.

    Examples:
        >>> import numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
        >>> lines = [ml.Task.from_arrays(x, 3 * x, x, 3 * x) for _ in range(3)]  # the same line again and again
        >>> records = list(ml.play(problem, lines, ml.Scratch(steps=10, optimizer=ml.Adam(0.1))))
        >>> min(record.loss for record in records) > 0.5  # nothing carries over from task to task
        True
    """

    steps: int = 40
    """Optimiser steps whenever datapoints arrive."""
    batch_size: int = 50
    """Examples in a minibatch, all there are if fewer."""
    optimizer: Adam | Momentum | Optimizer = Adam()
    """An optax transformation, or a function that gives one."""
    equal_gradients: bool = False
    """Take as many per-example gradients whenever datapoints arrive: a minibatch of fewer than `batch_size` datapoints
    costs less, and more steps are taken, up to `MORE` times `steps`."""
    retention: Retention = Retention()
    """Which datapoints the buffer keeps. Where no task comes back, `Retention("last", 1, "tasks")` learns the same with
    the memory of one task."""

    def __post_init__(self) -> None:
        check_positive(self, "steps", "batch_size")

    def init(self, problem: Problem, key: Array, example: Batch) -> Learned:
        """A first set of random parameters."""
        return start(problem, self.optimizer, key, example, self.retention)

    def observe(self, problem: Problem, state: Learned, task: TaskKey, batch: Batch) -> tuple[Learned, int]:
        """Forget what was learned when another task's datapoints arrive; then train on the data of the task."""
        if not state.buffer.is_current(task):
            key, init_key = jax.random.split(state.key)
            params = problem.init(init_key)
            state = Learned(params, base.optimizer_state(self.optimizer, params), state.buffer, key)
        state = state._replace(buffer=self.retention.append(state.buffer, task, batch))
        most = self.steps * MORE if self.equal_gradients else self.steps
        row = state.buffer.row_of(task)
        a_step = min(int(state.buffer.counts[row]) if row is not None else 1, self.batch_size)
        taken = min(round(self.steps * self.batch_size / a_step), most)
        minibatches = Minibatches(0, self.batch_size)
        return train(problem, self.optimizer, minibatches, state, most, "current", taken=taken)

    def adapt(self, problem: Problem, state: Learned, task: TaskKey, batch: Batch) -> tuple[Params, int]:
        """The parameters trained on this task's data; for another than the current task, by training new ones."""
        cost, trained = 0, state
        if not state.buffer.is_current(task):
            trained = self.init(problem, jax.random.fold_in(state.key, len(batch)), state.buffer.data)
            if len(batch):
                trained, cost = self.observe(problem, trained, task, batch)
        # Without datapoints of the task, the statistics of a model are those of the tasks before.
        buffer = trained.buffer if len(batch) else state.buffer
        params, _ = base.adapted(problem, Identity(), trained.leader, buffer, trained.key, batch)
        return params, cost

    def spending(self, gradients: int) -> Scratch:
        """The same learner with as many steps, at least one, as take about so many per-example gradients."""
        return replace(self, steps=max(round(gradients / self.batch_size), 1), equal_gradients=True)
