"""Gradient-boosted trees on the data of all tasks, told of the task so far or not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Array, Float64, Int64

from metaleader.buffer import TaskKey
from metaleader.errors import check_not_negative, check_positive, check_word, imported
from metaleader.learners.external import examples
from metaleader.learners.external.examples import Rows, Totals
from metaleader.problem.batch import Batch
from metaleader.problem.problem import Problem

Library = Literal["scikit-learn", "LightGBM"]

GROWTH = 1.5  # of the data, after which trees are grown anew
LEAST = 40  # rows that the first are grown on
AT_MOST = 50_000  # most recent rows that they are grown on


class Forest(NamedTuple):
    """What was fitted last.

    Attributes:
        model: predicts; None: nothing was fitted yet, or all labels were the same.
        others: with features of the task: two models without these, fitted on the tasks of odd and of even numbers,
            each for the tasks that it is not fitted on.
    """

    model: Any = None
    others: tuple[Any, ...] = (None, None)


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
        totals: of the targets of all tasks, for where nothing was fitted.
        model: what was fitted last.
        others: fitted on other tasks only; None where the trees take no features of the task.
        so_far: `(1, s)`: features of the task so far; None where the trees take none.
    """

    totals: Totals
    model: Any
    others: Any
    so_far: Float64[np.ndarray, "1 s"] | None


@dataclass(frozen=True)
class PooledTrees:
    """Histogram gradient boosting (Friedman, 2001; Ke et al., 2017) on the data of all tasks so far.

    With `task_features` a row (x, y) of a task has, beside x, features of the `n` datapoints that came before it in its
    task:

        `n`, `sum_j y_j / (n + m)`, `sum_j (y_j - g(x_j)) / (n + m)` and `g(x)`,

    with `m` = `prior_strength` and the predictions g of half as many trees without these features. In training these
    are the earlier datapoints of each row; in use all of D_t. A row's own target is in none of its features, by no way:
    g is fitted on every other task (those whose numbers, in order of arrival, are odd for the tasks of even numbers,
    and the other way round), in training and in use alike.

    Trees are grown on the 50,000 most recent rows, from 40 rows on, and anew when the data grew by half. Before, the
    mean of all data is predicted.

    scikit-learn and LightGBM both grow a tree leaf by leaf, the best first, of at least 20 rows a leaf; here in one
    thread, so that the same data give the same trees.

    Raises:
        UserError: there is no library of that name.
        ValueError: a setting is out of its range.
    """

    task_features: bool = False
    """Whether rows have features of the task so far."""
    trees: int = 60
    """Boosting rounds: each grows a tree, and of more than two classes one for each of them."""
    learning_rate: float = 0.15
    """By which each tree's values are multiplied."""
    leaves: int = 15
    """Of a tree, at most."""
    l2: float = 1.0
    """Penalty of the squares of a leaf's values."""
    prior_strength: float = 2.0
    """m: how many datapoints of 0 are added in the means of a task so far."""
    library: str = "scikit-learn"
    """Which grows the trees: `scikit-learn` or `LightGBM`."""

    def __post_init__(self) -> None:
        check_positive(self, "trees", "learning_rate", "prior_strength")
        check_not_negative(self, "l2")
        if self.leaves < 2:
            raise ValueError(f"leaves must be at least 2, got {self.leaves}")
        check_word("library of trees", self.library, get_args(Library))

    def init(self, problem: Problem, key: Array, example: Batch) -> Grown:  # noqa: ARG002
        """No datapoint yet.

        Raises:
            UserError: LightGBM is asked for and not installed, the inputs are no vectors, or the targets neither
                numbers nor labels.
        """
        if self.library == "LightGBM":
            imported("lightgbm", "compare", type(self).__name__)
        totals = examples.begin(self, problem, example)
        return Grown(totals, Rows.none(totals, example), Forest(), 0)

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
        totals, model = state.totals, state.forest.model
        if model is None or not self.task_features:
            return OfTask(totals, model, None, None), 0
        others = state.forest.others[state.rows.number_of(task) % 2]
        inputs, targets = examples.arrays(totals, batch)
        told = _told(targets, _predicted(others, inputs, totals))
        return OfTask(totals, model, others, self._features(told.sum(axis=0, keepdims=True))), 0

    def predict(self, problem: Problem, adapted: OfTask, inputs: Any) -> np.ndarray:  # noqa: ARG002
        """Numbers `(n, 1)`, or logarithms of probabilities `(n, classes)`."""
        totals, model, others, so_far = adapted
        rows = np.asarray(inputs, np.float64)
        if model is None:
            return examples.outputs(np.tile(totals.mean, (len(rows), 1)), totals.classes)
        if so_far is not None:
            rows = np.hstack([rows, _predicted(others, rows, totals), np.repeat(so_far, len(rows), axis=0)])
        return examples.outputs(_predicted(model, rows, totals), totals.classes)

    def _grown(
        self,
        inputs: Float64[np.ndarray, "n p"],
        targets: Float64[np.ndarray, "n k"],
        tasks: Int64[np.ndarray, " n"],
        totals: Totals,
    ) -> Forest:
        """All models, fitted."""
        if not self.task_features:
            return Forest(self._fitted(inputs, targets, totals.classes))
        rows, others = self.training(inputs, targets, tasks, totals)
        return Forest(self._fitted(rows, targets, totals.classes), others)

    def training(
        self,
        inputs: Float64[np.ndarray, "n p"],
        targets: Float64[np.ndarray, "n k"],
        tasks: Int64[np.ndarray, " n"],
        totals: Totals,
    ) -> tuple[Float64[np.ndarray, "n f"], tuple[Any, ...]]:
        """Rows with features of their tasks, which the trees are fitted on, and the two models without."""
        own = [tasks % 2 == parity for parity in (0, 1)]
        less = replace(self, trees=max(self.trees // 2, 1))
        others = tuple(less._fitted(inputs[~rows], targets[~rows], totals.classes) for rows in own)
        without = np.zeros_like(targets)
        for rows, model in zip(own, others, strict=True):
            without[rows] = _predicted(model, inputs[rows], totals)
        return np.hstack([inputs, without, self._features(_before(_told(targets, without), tasks))]), others

    def _fitted(self, inputs: Float64[np.ndarray, "n p"], targets: Float64[np.ndarray, "n k"], classes: int) -> Any:
        """A model with the methods of scikit-learn's; None where there is nothing to fit."""
        if len(inputs) < LEAST // 2 or (classes and np.count_nonzero(targets.sum(axis=0)) < 2):
            return None
        model = (_of_lightgbm if self.library == "LightGBM" else _of_scikit_learn)(self, classes)
        with examples.one_thread():
            return model.fit(inputs, targets.argmax(axis=1) if classes else targets[:, 0])

    def _features(self, sums: Float64[np.ndarray, "n s"]) -> Float64[np.ndarray, "n s"]:
        """Of a task so far, from sums over its datapoints of what `_told` gives."""
        n = sums[:, :1]
        return np.hstack([n, sums[:, 1:] / (n + self.prior_strength)])


def _of_scikit_learn(settings: PooledTrees, classes: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    return (HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor)(
        max_iter=settings.trees,
        learning_rate=settings.learning_rate,
        max_leaf_nodes=settings.leaves,
        l2_regularization=settings.l2,
        early_stopping=False,
        random_state=0,
    )


def _of_lightgbm(settings: PooledTrees, classes: int) -> Any:
    from lightgbm import LGBMClassifier, LGBMRegressor

    return (LGBMClassifier if classes else LGBMRegressor)(
        n_estimators=settings.trees,
        learning_rate=settings.learning_rate,
        num_leaves=settings.leaves,
        reg_lambda=settings.l2,
        n_jobs=1,
        random_state=0,
        deterministic=True,
        force_row_wise=True,  # the other way, which it would choose by timing, sums in another order
        verbose=-1,
    )


def _told(targets: Float64[np.ndarray, "n k"], without: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, "n s"]:
    """What each datapoint tells of its task: that it is one, its target and its residual."""
    return np.hstack([np.ones((len(targets), 1)), targets, targets - without])


def _before(values: Float64[np.ndarray, "n s"], tasks: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, "n s"]:
    """For each row, the sum of the values of earlier rows of its task, its own left out."""
    order, found = np.argsort(tasks, kind="stable"), np.zeros_like(values)
    for places in np.split(order, np.flatnonzero(np.diff(tasks[order])) + 1):
        found[places[1:]] = np.cumsum(values[places[:-1]], axis=0)
    return found


def _predicted(model: Any, inputs: Float64[np.ndarray, "n p"], totals: Totals) -> Float64[np.ndarray, "n k"]:
    """Numbers or probabilities; 0 without a model."""
    found = np.zeros((len(inputs), len(totals.sums)))
    if model is not None and len(inputs):
        with examples.one_thread():
            if totals.classes:
                found[:, model.classes_] = _probabilities(model, inputs)
            else:
                found[:, 0] = getattr(model, "booster_", model).predict(inputs)
    return found


def _probabilities(model: Any, inputs: Float64[np.ndarray, "n p"]) -> Float64[np.ndarray, "n c"]:
    """Of the classes of a model; LightGBM's by its own interface, as checks make the other one eight times slower."""
    if not hasattr(model, "booster_"):
        return model.predict_proba(inputs)
    found = model.booster_.predict(inputs)
    return np.column_stack([1 - found, found]) if found.ndim == 1 else found
