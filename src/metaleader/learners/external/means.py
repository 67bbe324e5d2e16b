"""A task's own mean, and kernel regression on its own data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float64

from metaleader.buffer import TaskKey
from metaleader.errors import check_not_negative, check_positive
from metaleader.learners.external import examples
from metaleader.learners.external.examples import Totals
from metaleader.problem.batch import Batch
from metaleader.problem.problem import Problem


class Mean(NamedTuple):
    """A mean target, or shares of classes, predicted whatever the input.

    Attributes:
        classes: how many; 0 for a regression.
        mean: `(k,)`.
    """

    classes: int
    mean: Float64[np.ndarray, " k"]


class TotalsOnly:
    """A learner that needs of other tasks no more than their mean."""

    def init(self, problem: Problem, key: Array, example: Batch) -> Totals:  # noqa: ARG002
        """No datapoint yet.

        Raises:
            UserError: the inputs are no vectors, or the targets neither numbers nor labels.
        """
        return examples.begin(self, problem, example)

    def observe(self, problem: Problem, state: Totals, task: TaskKey, batch: Batch) -> tuple[Totals, int]:  # noqa: ARG002
        """Add the targets to the totals; no gradients are taken."""
        return state.plus(examples.arrays(state, batch)[1]), 0


@dataclass(frozen=True)
class TaskMean(TotalsOnly):
    """The mean of the task's own targets, or its shares of classes, shrunk towards those of all data so far.

        `(sum_{i in D_t} y_i + m mean) / (|D_t| + m)`

    with `m` = `prior_strength` and `mean` over all tasks so far, this one included: the posterior mean of a Gaussian,
    or of a categorical distribution with a Dirichlet prior (Gelman et al., Bayesian Data Analysis, 2013, sections 2.4
    and 3.4). Before the first datapoint of a task it is `mean`, and before that of any task 0, or equal shares.

    Raises:
        ValueError: `prior_strength` is negative.
    """

    prior_strength: float = 1.0
    """m: how many datapoints the mean of all data counts as."""

    def __post_init__(self) -> None:
        check_not_negative(self, "prior_strength")

    def adapt(self, problem: Problem, state: Totals, task: TaskKey, batch: Batch) -> tuple[Mean, int]:  # noqa: ARG002
        """The task's mean; no gradients are taken."""
        _, targets = examples.arrays(state, batch)
        if not len(targets):
            return Mean(state.classes, state.mean), 0
        total = targets.sum(axis=0) + self.prior_strength * state.mean
        return Mean(state.classes, total / (len(targets) + self.prior_strength)), 0

    def predict(self, problem: Problem, adapted: Mean, inputs: Any) -> np.ndarray:  # noqa: ARG002
        """The mean for every input, `(n, 1)`; or the logarithms of the shares, `(n, classes)`."""
        return examples.outputs(np.tile(adapted.mean, (len(inputs), 1)), adapted.classes)


class Neighbours(NamedTuple):
    """What a kernel regression predicts by.

    Attributes:
        classes: how many; 0 for a regression.
        mean: `(k,)`, of all tasks.
        inputs: of the task's data.
        targets: of the task's data.
    """

    classes: int
    mean: Float64[np.ndarray, " k"]
    inputs: Float64[np.ndarray, "n p"]
    targets: Float64[np.ndarray, "n k"]


@dataclass(frozen=True)
class TaskNeighbours(TotalsOnly):
    """Kernel regression or classification by the task's own data (Nadaraya, 1964; Watson, 1964), with a prior.

        `(sum_{i in D_t} K(x, x_i) y_i + m mean) / (sum_{i in D_t} K(x, x_i) + m)`,
        `K(x, z) = exp(-|x - z|^2 / (2 p h^2))`

    for inputs of `p` numbers, with `h` = `bandwidth`, `m` = `prior_strength` and `mean` over all tasks so far: it is
    predicted far from all datapoints, and before the first one.

    Raises:
        ValueError: a setting is not positive and finite.
    """

    bandwidth: float = 0.5
    """h: the root mean square difference of inputs at which a datapoint counts 0.6 times as much as nearby."""
    prior_strength: float = 0.3
    """m: how many datapoints nearby the mean of all data counts as."""

    def __post_init__(self) -> None:
        check_positive(self, "bandwidth", "prior_strength")

    def adapt(self, problem: Problem, state: Totals, task: TaskKey, batch: Batch) -> tuple[Neighbours, int]:  # noqa: ARG002
        """The task's data; no gradients are taken."""
        return Neighbours(state.classes, state.mean, *examples.arrays(state, batch)), 0

    def predict(self, problem: Problem, adapted: Neighbours, inputs: Any) -> np.ndarray:  # noqa: ARG002
        """Numbers `(n, 1)`, or logarithms of probabilities `(n, classes)`."""
        from scipy.spatial.distance import cdist

        asked = np.asarray(inputs, np.float64)
        distances = cdist(asked, adapted.inputs, "sqeuclidean") / asked.shape[1]
        kernel = np.exp(-distances / (2 * self.bandwidth**2))
        total = kernel @ adapted.targets + self.prior_strength * adapted.mean
        return examples.outputs(total / (kernel.sum(axis=1, keepdims=True) + self.prior_strength), adapted.classes)
