"""Gradient-boosted trees on the data of all tasks, told of the task so far or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float64, Int64

from metaleader.buffer import TaskKey
from metaleader.errors import check_not_negative, check_positive
from metaleader.learners.external import examples
from metaleader.learners.external.examples import Rows, Totals
from metaleader.problem.batch import Batch
from metaleader.problem.problem import Problem

GROWTH = 1.5  # of the data, after which trees are grown anew
LEAST = 40  # rows that the first are grown on
AT_MOST = 50_000  # most recent rows that they are grown on


class Forest(NamedTuple):
    """What was fitted last.

    Attributes:
        model: predicts; None: nothing was fitted yet, or all labels were the same.
        others: with features of the task: two models without these, fitted on the tasks of odd and of even numbers,
            each for the residuals of the other tasks.
        mean: `(k,)`, of all targets then.
    """

    model: Any
    others: tuple[Any, ...]
    mean: Float64[np.ndarray, " k"]


class Grown(NamedTuple):
    """The state.

    Attributes:
        totals: of the targets.
        rows: the most recent ones.
        forest: what was fitted last.
        fitted_on: the rows seen at that time.
    """

    totals: Totals
    rows: Rows
    forest: Forest
    fitted_on: int


class OfTask(NamedTuple):
    """What a task is predicted by.

    Attributes:
        classes: how many; 0 for a regression.
        forest: what was fitted last.
        parity: of the task's number, which tells the model of the other tasks.
        so_far: `(1, f)`: features of the task so far; no columns where the trees take none.
    """

    classes: int
    forest: Forest
    parity: int
    so_far: Float64[np.ndarray, "1 f"]


@dataclass(frozen=True)
class PooledTrees:
    """Histogram gradient boosting of scikit-learn (Friedman, 2001; Ke et al., 2017) on the data of all tasks so far.

    With `task_features` a row (x, y) of a task has, beside x, features of the `n` datapoints that came before it in its
    task:

        `n`, `(sum_j y_j + m mean) / (n + m)`, `sum_j (y_j - g(x_j)) / (n + m)` and `g(x)`,

    with `m` = `prior_strength`, the mean of all targets, and the predictions g of a model without these features. In
    training these are the earlier datapoints of each row; in use all of D_t. A row's own target is in none of its
    features, by no way: g is fitted on every other task (those whose numbers, in order of arrival, are odd for the
    tasks of even numbers, and the other way round), in training and in use alike.

    Trees are grown on the 50,000 most recent rows, from 40 rows on, and anew when the data grew by half. Before, the
    mean of all data is predicted.

    Raises:
        ValueError: a setting is out of its range.
    """

    task_features: bool = False
    """Whether rows have features of the task so far."""
    trees: int = 60
    """Boosting rounds."""
    learning_rate: float = 0.15
    """By which each tree's values are multiplied."""
    leaves: int = 15
    """Of a tree, at most."""
    l2: float = 1.0
    """Penalty of the squares of a leaf's values."""
    prior_strength: float = 2.0
    """m: how many datapoints the mean of all data counts as in the features of a task."""

    def __post_init__(self) -> None:
        check_positive(self, "trees", "learning_rate", "prior_strength")
        check_not_negative(self, "l2")
        if self.leaves < 2:
            raise ValueError(f"leaves must be at least 2, got {self.leaves}")

    def init(self, problem: Problem, key: Array, example: Batch) -> Grown:  # noqa: ARG002
        """No datapoint yet.

        Raises:
            UserError: the inputs are no vectors, or the targets neither numbers nor labels.
        """
        totals = examples.begin(self, problem, example)
        return Grown(totals, Rows.none(totals, example), Forest(None, (None, None), totals.mean), 0)

    def observe(self, problem: Problem, state: Grown, task: TaskKey, batch: Batch) -> tuple[Grown, int]:  # noqa: ARG002
        """Add the rows, and grow trees where that is due; the cost, in gradients, does not apply, and is 0."""
        inputs, targets = examples.arrays(state.totals, batch)
        rows, totals = state.rows.plus(task, inputs, targets, AT_MOST), state.totals.plus(targets)
        state = state._replace(totals=totals, rows=rows)
        if not rows.due(state.fitted_on, GROWTH, LEAST):
            return state, 0
        forest = self._grown(*rows.recent(AT_MOST), totals)
        return state._replace(forest=forest, fitted_on=rows.seen), 0

    def adapt(self, problem: Problem, state: Grown, task: TaskKey, batch: Batch) -> tuple[OfTask, int]:  # noqa: ARG002
        """The trees, and features of the task so far; the cost, in gradients, does not apply, and is 0."""
        classes, forest, parity = state.totals.classes, state.forest, state.rows.number_of(task) % 2
        if forest.model is None:
            return OfTask(classes, forest._replace(mean=state.totals.mean), parity, np.zeros((1, 0))), 0
        if not self.task_features:
            return OfTask(classes, forest, parity, np.zeros((1, 0))), 0
        inputs, targets = examples.arrays(state.totals, batch)
        told = _told(targets, _predicted(forest.others[parity], inputs, forest.mean, classes))
        return OfTask(classes, forest, parity, self._features(told.sum(axis=0, keepdims=True), forest.mean)), 0

    def predict(self, problem: Problem, adapted: OfTask, inputs: Any) -> np.ndarray:  # noqa: ARG002
        """Numbers `(n, 1)`, or logarithms of probabilities `(n, classes)`."""
        classes, forest, rows = adapted.classes, adapted.forest, np.asarray(inputs, np.float64)
        if self.task_features and forest.model is not None:
            without = _predicted(forest.others[adapted.parity], rows, forest.mean, classes)
            rows = np.concatenate([rows, without, np.repeat(adapted.so_far, len(rows), axis=0)], axis=1)
        return examples.outputs(_predicted(forest.model, rows, forest.mean, classes), classes)

    def _grown(
        self,
        inputs: Float64[np.ndarray, "n p"],
        targets: Float64[np.ndarray, "n k"],
        tasks: Int64[np.ndarray, " n"],
        totals: Totals,
    ) -> Forest:
        """All models, fitted."""
        if not self.task_features:
            return Forest(self._fitted(inputs, targets, totals.classes), (), totals.mean)
        own = [tasks % 2 == parity for parity in (0, 1)]
        others = tuple(self._fitted(inputs[~rows], targets[~rows], totals.classes) for rows in own)
        without = np.zeros_like(targets)
        for rows, model in zip(own, others, strict=True):
            without[rows] = _predicted(model, inputs[rows], totals.mean, totals.classes)
        features = self._features(_before(_told(targets, without), tasks), totals.mean)
        rows = np.concatenate([inputs, without, features], axis=1)
        return Forest(self._fitted(rows, targets, totals.classes), others, totals.mean)

    def _fitted(self, inputs: Float64[np.ndarray, "n p"], targets: Float64[np.ndarray, "n k"], classes: int) -> Any:
        """A model of scikit-learn; None where there is nothing to fit."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        if len(inputs) < LEAST // 2 or (classes and np.count_nonzero(targets.sum(axis=0)) < 2):
            return None
        kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
        model = kind(
            max_iter=self.trees,
            learning_rate=self.learning_rate,
            max_leaf_nodes=self.leaves,
            l2_regularization=self.l2,
            early_stopping=False,
            random_state=0,
        )
        with examples.one_thread():
            return model.fit(inputs, targets.argmax(axis=1) if classes else targets[:, 0])

    def _features(
        self, sums: Float64[np.ndarray, "n s"], mean: Float64[np.ndarray, " k"]
    ) -> Float64[np.ndarray, "n s"]:
        """Of a task so far, from sums over its datapoints of what `_told` gives."""
        n, (targets, residuals) = sums[:, :1], np.split(sums[:, 1:], 2, axis=1)
        m = self.prior_strength
        return np.concatenate([n, (targets + m * mean) / (n + m), residuals / (n + m)], axis=1)


def _told(targets: Float64[np.ndarray, "n k"], without: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, "n s"]:
    """What each datapoint tells of its task: that it is one, its target and its residual."""
    return np.concatenate([np.ones((len(targets), 1)), targets, targets - without], axis=1)


def _before(values: Float64[np.ndarray, "n s"], tasks: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, "n s"]:
    """For each row, the sum of the values of earlier rows of its task, its own left out."""
    order = np.argsort(tasks, kind="stable")
    sums, ordered = np.zeros_like(values), tasks[order]
    sums[1:] = np.cumsum(values[order], axis=0)[:-1]
    first = np.searchsorted(ordered, ordered)  # the place of the first row of each row's task
    found = np.empty_like(values)
    found[order] = sums - sums[first]
    return found


def _predicted(
    model: Any, inputs: Float64[np.ndarray, "n p"], mean: Float64[np.ndarray, " k"], classes: int
) -> Float64[np.ndarray, "n k"]:
    """Numbers or probabilities; the mean without a model."""
    if model is None or not len(inputs):
        return np.tile(mean, (len(inputs), 1))
    with examples.one_thread():
        if not classes:
            return np.asarray(model.predict(inputs), np.float64)[:, None]
        probabilities = np.zeros((len(inputs), classes))
        probabilities[:, model.classes_] = model.predict_proba(inputs)
    return probabilities
