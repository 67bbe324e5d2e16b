"""Linear and logistic regression: pooled, for each task alone, and pooled with shrunken deviations of a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float64

from metaleader.buffer import TaskKey
from metaleader.errors import check_positive
from metaleader.learners.external import examples
from metaleader.learners.external.examples import LEAST, Rows, Totals
from metaleader.learners.external.means import TotalsOnly
from metaleader.problem.batch import Batch
from metaleader.problem.problem import Problem

GROWTH = 1.25  # of the data, after which a logistic regression is fitted again
AT_MOST = 50_000  # most recent rows that it is fitted on


class Linear(NamedTuple):
    """A linear function of the inputs.

    Attributes:
        classes: how many; 0 for a regression.
        weights: `(1 + p, k)`, the intercept first; of classes, they give logits.
    """

    classes: int
    weights: Float64[np.ndarray, "d k"]


class PredictsLinearly:
    """A learner whose predictions for a task are linear in the inputs."""

    def predict(self, problem: Problem, adapted: Linear, inputs: Any) -> np.ndarray:  # noqa: ARG002
        """Numbers `(n, 1)`, or logarithms of probabilities `(n, classes)`."""
        values = with_ones(np.asarray(inputs, np.float64)) @ adapted.weights
        return examples.outputs(softmax(values) if adapted.classes else values, adapted.classes)


class Pooled(NamedTuple):
    """The state of a model of all data.

    Attributes:
        totals: of the targets.
        moments: Z'Z of all rows z = (1, x, y) of a regression, `(2 + p, 2 + p)`; None for classes.
        rows: the most recent ones, of classes; None for a regression.
        weights: of the logistic regression fitted last, `(1 + p, k)`; None for a regression.
        fitted_on: the rows seen at that time.
    """

    totals: Totals
    moments: Float64[np.ndarray, "m m"] | None
    rows: Rows | None
    weights: Float64[np.ndarray, "d k"] | None
    fitted_on: int


@dataclass(frozen=True)
class PooledLinear(PredictsLinearly):
    """One linear model of the data of all tasks so far, the task's own included; nothing is adapted.

    Ridge regression, `min_w sum_i (y_i - b - x_i'w)^2 + penalty |w|^2` (Hoerl and Kennard, 1970), solved by running
    sums, so that a datapoint costs O(p^2). For classes, multinomial logistic regression,
    `min_W sum_i -log softmax(b + W'x_i)_{y_i} + penalty |W|^2 / 2`, on the 50,000 most recent rows; it is fitted again,
    from the weights before, when the data grew by a quarter.

    Raises:
        ValueError: the penalty is not positive and finite.
    """

    penalty: float = 1.0
    """Of the slopes, not of the intercept."""

    def __post_init__(self) -> None:
        check_positive(self, "penalty")

    def init(self, problem: Problem, key: Array, example: Batch) -> Pooled:  # noqa: ARG002
        """No datapoint yet.

        Raises:
            UserError: the inputs are no vectors, or the targets neither numbers nor labels.
        """
        totals, p = examples.begin(self, problem, example), example.inputs.shape[1]
        if totals.classes:
            return Pooled(totals, None, Rows.none(totals, example), np.zeros((p + 1, totals.classes)), 0)
        return Pooled(totals, np.zeros((p + 2, p + 2)), None, None, 0)

    def observe(self, problem: Problem, state: Pooled, task: TaskKey, batch: Batch) -> tuple[Pooled, int]:  # noqa: ARG002
        """Add the rows, and fit again where that is due; the cost, in gradients, does not apply, and is 0."""
        inputs, targets = examples.arrays(state.totals, batch)
        totals = state.totals.plus(targets)
        if state.moments is not None:
            return state._replace(totals=totals, moments=state.moments + moments(inputs, targets)), 0
        assert state.rows is not None
        assert state.weights is not None
        rows, weights, fitted_on = state.rows.plus(task, inputs, targets, AT_MOST), state.weights, state.fitted_on
        if rows.due(fitted_on, GROWTH):
            inputs, targets, _ = rows.recent(AT_MOST)
            weights = logistic(inputs, targets, np.zeros(totals.classes), (0.0, self.penalty), weights)
            fitted_on = rows.seen
        return Pooled(totals, None, rows, weights, fitted_on), 0

    def adapt(self, problem: Problem, state: Pooled, task: TaskKey, batch: Batch) -> tuple[Linear, int]:  # noqa: ARG002
        """The model of all data; before any, 0 or equal probabilities."""
        if state.weights is not None:
            return Linear(state.totals.classes, state.weights), 0
        assert state.moments is not None
        if not state.totals.datapoints:
            return Linear(0, np.zeros((len(state.moments) - 1, 1))), 0
        return Linear(0, ridge(state.moments, (0.0, self.penalty))), 0


@dataclass(frozen=True)
class ShrunkenLinear(PooledLinear):
    """A linear model of all data, plus a deviation of the task, of slopes and intercept, that is shrunk to 0.

    With the pooled (b, w) of `PooledLinear` and the residuals `r_i = y_i - b - x_i'w` of the task's own data,

        `min_{c, v} sum_{i in D_t} (r_i - c - x_i'v)^2 + intercept c^2 + deviation |v|^2`,

    and predictions are `(b + c) + x'(w + v)`: those of a mixed model with known variances, `intercept` and `deviation`
    being the ratios of the variance of the noise to those of the random effects (Robinson, 1991). For classes it is the
    logistic regression of the task's data with the pooled logits as offset, `intercept` and `deviation` halved as in
    `PooledLinear`. Before the first datapoint of a task it is the pooled model.

    Raises:
        ValueError: a penalty is not positive and finite.
    """

    deviation: float = 10.0
    """Penalty of the deviation of the slopes."""
    intercept: float = 1.0
    """Penalty of the deviation of the intercept."""

    def __post_init__(self) -> None:
        check_positive(self, "penalty", "deviation", "intercept")

    def adapt(self, problem: Problem, state: Pooled, task: TaskKey, batch: Batch) -> tuple[Linear, int]:
        """The pooled model with the task's deviation; the cost, in gradients, does not apply, and is 0."""
        pooled, _ = super().adapt(problem, state, task, batch)
        inputs, targets = examples.arrays(state.totals, batch)
        if not len(inputs):
            return pooled, 0
        shared, penalties = with_ones(inputs) @ pooled.weights, (self.intercept, self.deviation)
        if pooled.classes:
            own = logistic(inputs, targets, shared, penalties, np.zeros_like(pooled.weights))
        else:
            own = ridge(moments(inputs, targets - shared), penalties)
        return Linear(pooled.classes, pooled.weights + own), 0


@dataclass(frozen=True)
class TaskLinear(TotalsOnly, PredictsLinearly):
    """A linear model of the task's own data alone.

    Ridge regression, as `PooledLinear`, of D_t. For classes it is the logistic regression of D_t with the logarithms of
    the shares of classes in all data as offset, where the penalty is on the intercept, too: of a class that the task
    has not had yet, D_t alone would say that it never comes. Before the first datapoint of a task: the mean of all
    data so far, or its shares of classes.

    Raises:
        ValueError: the penalty is not positive and finite.
    """

    penalty: float = 1.0
    """Of the slopes."""

    def __post_init__(self) -> None:
        check_positive(self, "penalty")

    def adapt(self, problem: Problem, state: Totals, task: TaskKey, batch: Batch) -> tuple[Linear, int]:  # noqa: ARG002
        """The model of the task's data; the cost, in gradients, does not apply, and is 0."""
        inputs, targets = examples.arrays(state, batch)
        constant = np.zeros((1 + inputs.shape[1], len(state.mean)))
        constant[0] = np.log(np.maximum(state.mean, LEAST)) if state.classes else state.mean
        if not len(inputs):
            return Linear(state.classes, constant), 0
        if not state.classes:
            return Linear(0, ridge(moments(inputs, targets), (0.0, self.penalty))), 0
        own = logistic(inputs, targets, constant[0], (self.penalty, self.penalty), np.zeros_like(constant))
        return Linear(state.classes, constant + own), 0


def with_ones(inputs: Float64[np.ndarray, "n p"]) -> Float64[np.ndarray, "n d"]:
    """The rows (1, x)."""
    return np.concatenate([np.ones((len(inputs), 1)), inputs], axis=1)


def moments(inputs: Float64[np.ndarray, "n p"], targets: Float64[np.ndarray, "n 1"]) -> Float64[np.ndarray, "m m"]:
    """Z'Z of the rows z = (1, x, y)."""
    rows = np.concatenate([with_ones(inputs), targets], axis=1)
    return rows.T @ rows


def ridge(moments: Float64[np.ndarray, "m m"], penalties: tuple[float, float]) -> Float64[np.ndarray, "d 1"]:
    """Intercept and slopes, `(1 + p, 1)`, of least squares with penalties on the squares of both."""
    matrix = moments[:-1, :-1] + np.diag([penalties[0], *np.full(len(moments) - 2, penalties[1])])
    return np.linalg.solve(matrix, moments[:-1, -1:])


def softmax(logits: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, "n k"]:
    """Probabilities."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def logistic(
    inputs: Float64[np.ndarray, "n p"],
    targets: Float64[np.ndarray, "n k"],
    offset: Float64[np.ndarray, "*n k"],
    penalties: tuple[float, float],
    start: Float64[np.ndarray, "d k"],
) -> Float64[np.ndarray, "d k"]:
    """Weights W of the multinomial logistic regression with logits `offset + (1, x)'W`, by L-BFGS (scipy).

    `min_W sum_i -log softmax_{y_i} + (penalties_0 |W_0|^2 + penalties_1 |W_1..|^2) / 2`, from `start` on.
    """
    from scipy.optimize import minimize

    rows, n = with_ones(inputs), len(inputs)
    penalty = np.array([penalties[0], *np.full(len(start) - 1, penalties[1])])[:, None] / n

    def mean_loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(start.shape)
        logits = offset + rows @ weights
        logits -= logits.max(axis=1, keepdims=True)
        exponentials = np.exp(logits)
        total = exponentials.sum(axis=1, keepdims=True)
        loss = (np.log(total).sum() - np.vdot(targets, logits)) / n + np.vdot(penalty * weights, weights) / 2
        gradient = rows.T @ (exponentials / total - targets) / n + penalty * weights
        return float(loss), gradient.ravel()

    options = {"maxiter": 200, "gtol": 1e-5, "ftol": 1e-9}
    with examples.one_thread():
        found = minimize(mean_loss, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x, np.float64).reshape(start.shape)
