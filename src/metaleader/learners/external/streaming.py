"""Models of river, learned row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Array, Float64

from metaleader.buffer import TaskKey
from metaleader.errors import check_positive, check_word, imported
from metaleader.learners.external import examples
from metaleader.learners.external.examples import Totals
from metaleader.problem.batch import Batch
from metaleader.problem.problem import Problem

RiverName = Literal["linear", "tree", "forest"]


class Streamed(NamedTuple):
    """The state, and what a task is predicted by.

    Attributes:
        totals: of the targets of all tasks.
        model: of river, that of all tasks, or of the task; None: it has learned from no datapoint.
    """

    totals: Totals
    model: Any


@dataclass(frozen=True)
class RiverModel:
    """A model of river (Montiel et al., JMLR 2021) that learns from one datapoint after another, each once.

    Which models there are:

    - `linear`: linear or logistic regression, of one class against the rest where there are several, by stochastic
      gradient descent on inputs that a running mean and variance scale.
    - `tree`: a Hoeffding tree (Domingos and Hulten, 2000).
    - `forest`: five adaptive trees (adaptive random forest; Gomes et al., 2017): a millisecond a row.

    Pooled, one model learns from all tasks as their datapoints arrive; what `adapt` gave before predicts by what the
    model has learned since. For each task, a new model learns from D_t, in order. Without any datapoint the mean of all
    data so far is predicted, or its shares of classes.

    Raises:
        UserError: there is no model of that name.
        ValueError: `step_size` is not positive and finite.
    """

    name: str = "linear"
    """Which model: `linear`, `tree` or `forest`."""
    per_task: bool = False
    """Whether each task has a model of its own."""
    step_size: float = 0.01
    """Of gradient descent, in `linear`; trees have none."""

    def __post_init__(self) -> None:
        check_positive(self, "step_size")
        check_word("model of river", self.name, get_args(RiverName))

    def init(self, problem: Problem, key: Array, example: Batch) -> Streamed:  # noqa: ARG002
        """A new model.

        Raises:
            UserError: river is not installed, the inputs are no vectors, or the targets neither numbers nor labels.
        """
        imported("river", "compare", type(self).__name__)
        return Streamed(examples.begin(self, problem, example), None)

    def observe(self, problem: Problem, state: Streamed, task: TaskKey, batch: Batch) -> tuple[Streamed, int]:  # noqa: ARG002
        """Learn from each datapoint; the cost, in gradients, does not apply, and is 0."""
        inputs, targets = examples.arrays(state.totals, batch)
        model = None if self.per_task else self._learned(state.totals.classes, state.model, inputs, targets)
        return Streamed(state.totals.plus(targets), model), 0

    def adapt(self, problem: Problem, state: Streamed, task: TaskKey, batch: Batch) -> tuple[Streamed, int]:  # noqa: ARG002
        """The model of all tasks, or a new one of the task; the cost, in gradients, does not apply, and is 0."""
        if not self.per_task:
            return state, 0
        return state._replace(model=self._learned(state.totals.classes, None, *examples.arrays(state.totals, batch))), 0

    def predict(self, problem: Problem, adapted: Streamed, inputs: Any) -> np.ndarray:  # noqa: ARG002
        """Numbers `(n, 1)`, or logarithms of probabilities `(n, classes)`."""
        (classes, _, _), model = adapted.totals, adapted.model
        means = np.tile(adapted.totals.mean, (len(inputs), 1))
        if model is not None:
            for i, row in enumerate(_dicts(inputs)):
                if not classes:
                    means[i] = model.predict_one(row)
                elif found := model.predict_proba_one(row):
                    means[i] = [found.get(label, 0.0) for label in range(classes)]
        return examples.outputs(means, classes)

    def _learned(
        self, classes: int, model: Any, inputs: Float64[np.ndarray, "n p"], targets: Float64[np.ndarray, "n k"]
    ) -> Any:
        """The model, or a new one, after it learned from the rows."""
        if model is None and len(inputs):
            model = MODELS[self.name](classes, self.step_size)
        values = targets.argmax(axis=1) if classes else targets[:, 0]
        for row, value in zip(_dicts(inputs), values.tolist(), strict=True):
            model.learn_one(row, bool(value) if classes == 2 else value)
        return model


def _dicts(inputs: Any) -> list[dict[int, float]]:
    """Rows as river takes them."""
    return [dict(enumerate(row)) for row in np.asarray(inputs, np.float64).tolist()]


def _linear(classes: int, step_size: float) -> Any:
    from river import linear_model, multiclass, optim, preprocessing

    of = linear_model.LogisticRegression if classes else linear_model.LinearRegression
    model: Any = of(optim.SGD(step_size), intercept_lr=step_size)
    return preprocessing.StandardScaler() | (multiclass.OneVsRestClassifier(model) if classes > 2 else model)


def _tree(classes: int, step_size: float) -> Any:  # noqa: ARG001
    from river import tree

    return tree.HoeffdingTreeClassifier() if classes else tree.HoeffdingTreeRegressor()


def _forest(classes: int, step_size: float) -> Any:  # noqa: ARG001
    from river import forest

    return forest.ARFClassifier(n_models=5, seed=0) if classes else forest.ARFRegressor(n_models=5, seed=0)


MODELS: Mapping[str, Callable[[int, float], Any]] = {"linear": _linear, "tree": _tree, "forest": _forest}
