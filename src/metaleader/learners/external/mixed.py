"""Linear mixed models: statsmodels fits the variances, and a new task's effects are predicted in closed form."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float64, Int64

from metaleader.buffer import TaskKey
from metaleader.errors import UserError, check_not_negative, check_positive, imported
from metaleader.learners.external import examples
from metaleader.learners.external.examples import Rows, Totals
from metaleader.learners.external.linear import Linear, PredictsLinearly, with_ones
from metaleader.problem.batch import Batch
from metaleader.problem.problem import Problem

GROWTH = 2.0  # of the data, after which the model is fitted again
LEAST = 40  # rows that it is fitted on first


class Effects(NamedTuple):
    """A fitted mixed model.

    Attributes:
        fixed: beta, `(1 + p,)`, the intercept first.
        random: `(q,)`: which of them have a random effect, 0 for the intercept.
        covariance: G, `(q, q)`, of the random effects.
        noise: sigma^2.
    """

    fixed: Float64[np.ndarray, " d"]
    random: Int64[np.ndarray, " q"]
    covariance: Float64[np.ndarray, "q q"]
    noise: float


class Mixed(NamedTuple):
    """The state.

    Attributes:
        totals: of the targets.
        rows: the most recent ones.
        effects: fitted last; None before.
        fitted_on: the rows seen when a fit was last tried.
    """

    totals: Totals
    rows: Rows
    effects: Effects | None
    fitted_on: int


@dataclass(frozen=True)
class MixedModel(PredictsLinearly):
    """A linear mixed model (Laird and Ware, 1982) of the data of all tasks so far, by statsmodels: regression only.

        `y = (1, x)'beta + z'b + e`, `b ~ N(0, G)` for each task, `e ~ N(0, sigma^2)`,

    where z is 1 and the `slopes` inputs whose effects differ most between tasks (see `varying`). beta, G and sigma^2
    are fitted by restricted maximum likelihood on the `at_most` most recent rows, from 40 rows of 3 tasks on, and anew
    when the data doubled; where inputs determine each other, beta is the shortest of those that fit as well. Of a task
    the best linear unbiased prediction (Henderson, 1975; Robinson, 1991) is

        `b = G Z' (Z G Z' + sigma^2 I)^-1 (y - X beta)`, with the rows X = (1, x) and Z of D_t.

    Before the first fit, and where a fit fails and there is none before, the mean of all data is predicted.

    Raises:
        ValueError: `slopes` is negative, or `at_most` not positive.
    """

    slopes: int = 2
    """Inputs with a random slope, all there are if fewer."""
    at_most: int = 10_000
    """Most recent rows that are fitted on: fitting takes about a second for 10,000."""

    def __post_init__(self) -> None:
        check_not_negative(self, "slopes")
        check_positive(self, "at_most")

    def init(self, problem: Problem, key: Array, example: Batch) -> Mixed:  # noqa: ARG002
        """No datapoint yet.

        Raises:
            UserError: statsmodels is not installed, the inputs are no vectors, or the targets no numbers.
        """
        imported("statsmodels", "compare", type(self).__name__)
        totals = examples.begin(self, problem, example)
        if totals.classes:
            raise UserError("MixedModel is for regression, and the targets are labels: leave it out")
        return Mixed(totals, Rows.none(totals, example), None, 0)

    def observe(self, problem: Problem, state: Mixed, task: TaskKey, batch: Batch) -> tuple[Mixed, int]:  # noqa: ARG002
        """Add the rows, and fit where that is due; the cost, in gradients, does not apply, and is 0."""
        inputs, targets = examples.arrays(state.totals, batch)
        rows = state.rows.plus(task, inputs, targets, self.at_most)
        state = state._replace(totals=state.totals.plus(targets), rows=rows)
        if rows.met < 3 or not rows.due(state.fitted_on, GROWTH, LEAST):
            return state, 0
        inputs, targets, tasks = rows.recent(self.at_most)
        with examples.one_thread():
            enough = len(np.unique(tasks)) > 2
            found = fitted(inputs, targets[:, 0], tasks, self.slopes, state.effects) if enough else None
        return state._replace(effects=found or state.effects, fitted_on=rows.seen), 0

    def adapt(self, problem: Problem, state: Mixed, task: TaskKey, batch: Batch) -> tuple[Linear, int]:  # noqa: ARG002
        """The fixed effects plus the task's predicted ones; the cost, in gradients, does not apply, and is 0."""
        inputs, targets = examples.arrays(state.totals, batch)
        if state.effects is None:
            return Linear(0, np.append(state.totals.mean, np.zeros(inputs.shape[1]))[:, None]), 0
        weights = state.effects.fixed.copy()
        weights[state.effects.random] += predicted(state.effects, inputs, targets[:, 0])
        return Linear(0, weights[:, None]), 0


def predicted(
    effects: Effects, inputs: Float64[np.ndarray, "n p"], targets: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " q"]:
    """The best linear unbiased prediction of a task's random effects; without datapoints 0.

    It is `(G Z'Z + sigma^2 I)^-1 G Z' (y - X beta)`, which is `q` equations for whatever number of datapoints.
    """
    rows = with_ones(inputs)
    own = rows[:, effects.random]
    right = effects.covariance @ own.T @ (targets - rows @ effects.fixed)
    return np.linalg.solve(effects.covariance @ own.T @ own + effects.noise * np.eye(len(effects.random)), right)


def fitted(
    inputs: Float64[np.ndarray, "n p"],
    targets: Float64[np.ndarray, " n"],
    tasks: Int64[np.ndarray, " n"],
    slopes: int,
    before: Effects | None = None,
) -> Effects | None:
    """The mixed model by restricted maximum likelihood, beginning from the effects fitted `before`; None: it failed."""
    from statsmodels.regression.mixed_linear_model import MixedLM

    mean = inputs.mean(axis=0)
    _, sizes, directions = np.linalg.svd(inputs - mean, full_matrices=False)
    apart = directions[sizes > 1e-6 * max(sizes[0], 1e-30)].T  # inputs that determine each other have no unique beta
    random = np.append(0, 1 + varying(inputs, targets, tasks, slopes))
    design = with_ones((inputs - mean) @ apart)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of variances at 0, which are a result like others
        try:
            model = MixedLM(targets, design, tasks, with_ones(inputs)[:, random])
            # From a good start one method is enough; otherwise statsmodels tries several, each from the last one's end.
            warm = {} if before is None else {"start_params": _start(model, random, before), "method": "lbfgs"}
            found = model.fit(reml=True, **warm)
        except (np.linalg.LinAlgError, ValueError):
            return None
    slope = apart @ np.asarray(found.fe_params)[1:]
    fixed = np.append(found.fe_params[0] - mean @ slope, slope)
    effects = Effects(fixed, random, np.asarray(found.cov_re, np.float64), float(found.scale))
    finite = all(np.isfinite(part).all() for part in (effects.fixed, effects.covariance, effects.noise))
    return effects if finite and effects.noise > 0 else None


def _start(model: Any, random: Int64[np.ndarray, " q"], before: Effects) -> Any:
    """Where a fit begins: the covariance fitted before, relative to the noise, and the identity for other effects.

    A little is added to the variances, since at a variance of 0 the likelihood is flat in its root, over which it is
    maximised. Measured on a made-up table, windows of 5,000 and 10,000 rows: less than half the time of fits without
    it, and a likelihood as high or higher.
    """
    from statsmodels.regression.mixed_linear_model import MixedLMParams

    _, here, there = np.intersect1d(random, before.random, return_indices=True)
    covariance = np.eye(len(random))
    covariance[np.ix_(here, here)] = (before.covariance / before.noise)[np.ix_(there, there)]
    return MixedLMParams.from_components(fe_params=np.zeros(model.k_fe), cov_re=covariance + 0.1 * np.eye(len(random)))


def varying(
    inputs: Float64[np.ndarray, "n p"], targets: Float64[np.ndarray, " n"], tasks: Int64[np.ndarray, " n"], slopes: int
) -> Int64[np.ndarray, " s"]:
    """The inputs, `slopes` of them, whose slopes differ most between tasks, by the score test of a variance.

    With inputs and targets less their means in the task, and residuals r of one least-squares fit of all tasks, it is
    the largest `(sum_t (x_tj'r_t)^2 - s^2 sum_t |x_tj|^2) / sqrt(sum_t |x_tj|^4)`, s^2 being the mean of r^2 (Lin,
    Biometrika, 1997).
    """
    _, places, counts = np.unique(tasks, return_inverse=True, return_counts=True)

    def summed(values: np.ndarray) -> np.ndarray:
        totals = np.zeros((len(counts), *values.shape[1:]))
        np.add.at(totals, places, values)
        return totals

    within, rest = (values - (summed(values).T / counts).T[places] for values in (inputs, targets))
    residuals = rest - within @ np.linalg.lstsq(within, rest, rcond=None)[0]
    products, squares = summed(within * residuals[:, None]), summed(within**2)
    scores = (products**2 - np.mean(residuals**2) * squares).sum(axis=0)
    scores /= np.sqrt((squares**2).sum(axis=0)) + 1e-12
    return np.sort(np.argsort(-scores, kind="stable")[:slopes])
