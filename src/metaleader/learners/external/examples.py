"""What the learners here share: examples as rows of numbers, totals of targets, and the rows that models are fitted on.

A target is a vector of `k` numbers: of a regression the value, `k = 1`; of classes a 1 in the place of the label and 0
elsewhere, so that the mean of targets is the share of every class. Examples of weight 0 take no part; all others count
as one. What is computed is in double precision.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Float64, Int64

from metaleader.buffer import TaskKey
from metaleader.buffer.store import task_id
from metaleader.errors import UserError
from metaleader.problem.batch import Batch
from metaleader.problem.model import applied
from metaleader.problem.problem import Problem

LEAST = 1e-6  # of a probability that is predicted, so that the loss of a class never seen is finite
CAPACITY = 1024  # rows that there is room for at first


class Totals(NamedTuple):
    """Totals of the targets of all tasks so far.

    Attributes:
        classes: how many; 0 for a regression.
        datapoints: how many, and where there are classes one more, that is of all classes to equal parts.
        sums: of their targets.
    """

    classes: int
    datapoints: float
    sums: Float64[np.ndarray, " k"]

    @property
    def mean(self) -> Float64[np.ndarray, " k"]:
        """The mean target, or the share of every class; before any datapoint 0, or equal shares."""
        return self.sums / max(self.datapoints, 1.0)

    def plus(self, targets: Float64[np.ndarray, "n k"]) -> Totals:
        """The totals with more datapoints."""
        return Totals(self.classes, self.datapoints + len(targets), self.sums + targets.sum(axis=0))


def begin(learner: object, problem: Problem, example: Batch) -> Totals:
    """Totals before the first datapoint, if a learner can take such data.

    Raises:
        UserError: naming the learner: inputs are no vectors, targets neither one number nor one label an example, or
            the problem does not tell how many classes there are.
    """
    name = type(learner).__name__
    inputs, targets = example.inputs, example.targets
    if not hasattr(inputs, "shape") or len(inputs.shape) != 2:
        got = [tuple(leaf.shape) for leaf in jax.tree.leaves(inputs)]
        raise UserError(
            f"{name} takes vectors, inputs of shape (n, p), got {' and '.join(map(str, got))}: give each example as a "
            f"row of numbers, or leave {name} out"
        )
    if not hasattr(targets, "shape"):
        raise UserError(f"{name} takes one array of targets, got {type(targets).__name__}: leave {name} out")
    if jnp.issubdtype(targets.dtype, jnp.floating):
        if targets.shape[1:] != (1,):
            raise UserError(
                f"{name} predicts one number an example, targets of shape (n, 1), got {tuple(targets.shape)}: "
                f"reshape them by .reshape(-1, 1), or leave {name} out"
            )
        return Totals(0, 0.0, np.zeros(1))
    if targets.ndim != 1:
        raise UserError(
            f"{name} takes one label an example, targets of shape (n,), got {tuple(targets.shape)}: leave {name} out"
        )
    classes = _outputs(name, problem, example)
    return Totals(classes, 1.0, np.full(classes, 1 / classes))


def _outputs(name: str, problem: Problem, example: Batch) -> int:
    """How many numbers the model gives an example."""
    if problem.model is None:
        raise UserError(f"{name} finds the number of classes in the outputs of the model: give Problem a model")
    params = jax.eval_shape(problem.init, jax.random.key(0))
    arrays = example.inputs, example.weights, jax.random.key(0)
    outputs = jax.eval_shape(partial(applied, problem.model, training=False), params, *arrays)
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise UserError(
            f"{name} gives one number a class, and the model's outputs have shape {outputs.shape}: give Problem a "
            "model with an output for each class"
        )
    return int(outputs.shape[1])


def arrays(totals: Totals, batch: Batch) -> tuple[Float64[np.ndarray, "n p"], Float64[np.ndarray, "n k"]]:
    """Inputs and targets of the examples that have weight."""
    batch = batch.weighted
    inputs, targets = np.asarray(batch.inputs, np.float64), np.asarray(batch.targets)
    if totals.classes:
        return inputs, np.eye(totals.classes)[targets.astype(int)]
    return inputs, targets.astype(np.float64)


def outputs(means: Float64[np.ndarray, "n k"], classes: int) -> Float32[np.ndarray, "n k"]:
    """Predictions as losses and scores take them: numbers as they are, of probabilities the logarithms."""
    return (np.log(np.clip(means, LEAST, 1.0)) if classes else means).astype(np.float32)


class Rows(NamedTuple):
    """The most recent rows of all tasks, in order of arrival.

    New rows are written behind those that are held, into the same arrays while there is room.

    Attributes:
        inputs: `(capacity, p)`.
        targets: `(capacity, k)`.
        tasks: `(capacity,)`: of which task each row is: its number, tasks being counted as they arrive.
        ids: `(capacity,)`: the same by `task_id`.
        held: how many rows.
        seen: how many rows there were, those that were dropped included.
        met: how many tasks there were; one that comes back when none of its rows is held counts as another.
    """

    inputs: Float32[np.ndarray, "capacity p"]
    targets: Float32[np.ndarray, "capacity k"]
    tasks: Int64[np.ndarray, " capacity"]
    ids: Int64[np.ndarray, " capacity"]
    held: int
    seen: int
    met: int

    @classmethod
    def none(cls, totals: Totals, example: Batch) -> Rows:
        """No rows yet."""
        inputs = np.zeros((CAPACITY, example.inputs.shape[1]), np.float32)
        targets = np.zeros((CAPACITY, len(totals.sums)), np.float32)
        return cls(inputs, targets, np.zeros(CAPACITY, np.int64), np.zeros(CAPACITY, np.int64), 0, 0, 0)

    def number_of(self, task: TaskKey) -> int:
        """The number of a task; of one without rows, that of the next."""
        places = np.flatnonzero(self.ids[: self.held] == task_id(task))
        return int(self.tasks[places[-1]]) if len(places) else self.met

    def plus(self, task: TaskKey, inputs: np.ndarray, targets: np.ndarray, at_most: int) -> Rows:
        """With the rows of a task; if the arrays are full, rows before the last `at_most` are dropped."""
        rows, number, n = self, self.number_of(task), len(inputs)
        if self.held + n > len(self.inputs):
            drop = min(max(self.held + n - at_most, 0), self.held)
            rows = self._moved(drop, 2 * (self.held - drop + n))
        new = slice(rows.held, rows.held + n)
        rows.inputs[new], rows.targets[new], rows.tasks[new], rows.ids[new] = inputs, targets, number, task_id(task)
        met = max(rows.met, number + 1) if n else rows.met
        return rows._replace(held=rows.held + n, seen=rows.seen + n, met=met)

    def recent(self, at_most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs, targets and numbers of tasks of the last rows, `at_most` of them."""
        last = slice(max(self.held - at_most, 0), self.held)
        return self.inputs[last].astype(np.float64), self.targets[last].astype(np.float64), self.tasks[last]

    def due(self, fitted_on: int, growth: float, least: int = 1) -> bool:
        """Whether a model that was fitted when `fitted_on` rows had been seen is to be fitted again."""
        return self.seen >= max(growth * fitted_on, least)

    def _moved(self, first: int, capacity: int) -> Rows:
        """The rows from the `first` on, in new arrays."""

        def moved(old: np.ndarray) -> np.ndarray:
            new = np.zeros((capacity, *old.shape[1:]), old.dtype)
            new[: self.held - first] = old[first : self.held]
            return new

        return self._replace(
            inputs=moved(self.inputs),
            targets=moved(self.targets),
            tasks=moved(self.tasks),
            ids=moved(self.ids),
            held=self.held - first,
        )


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread: what is fitted here is small, and threads wait for one another far longer than they help.

    Where other processes keep the processors busy, small fits take 20 times as long with two threads. With one, the
    same data give the same numbers, too.
    """
    with _libraries("lightgbm" in sys.modules).limit(limits=1):
        yield


@cache
def _libraries(lightgbm: bool) -> Any:  # noqa: ARG001
    """What sets the numbers of threads of the libraries that are loaded; finding them takes a while.

    Args:
        lightgbm: whether LightGBM, which brings threads of its own, is among them.
    """
    import sklearn.ensemble  # noqa: F401 - loads them
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
