"""Convex losses and their constants, computed on a ball (paper, sections 3 and 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metaleader.errors import UserError
from metaleader.problem.batch import AnyArray, Batch
from metaleader.problem.model import Params, keep
from metaleader.problem.problem import Problem
from metaleader.problem.scores import Score
from metaleader.update import GradientDescent, Identity

SLACK = 1e-9  # relative: what rounding may take from an inequality that holds with equality


@dataclass(frozen=True)
class LinearModel:
    """`x -> (w'x, ridge / 2 ||w||^2)`: the margin of each example, and the penalty beside it.

    Parameters are `{"w": (dimension,)}`. The mean of margin loss plus penalty over a batch is then a regularised loss.
    """

    dimension: int
    """Length of w."""
    ridge: float = 0.0
    """The factor of `||w||^2 / 2` in the loss."""

    def init(self, key: Array) -> Params:  # noqa: ARG002 - the theory allows any w_1
        """w_1 = 0, the centre of the ball."""
        return {"w": jnp.zeros(self.dimension)}

    def apply(
        self,
        params: Params,
        inputs: Float[AnyArray, "n d"],
        weights: Float[AnyArray, " n"],  # noqa: ARG002
    ) -> Float[Array, "n 2"]:
        """Margins and penalty."""
        w = params["w"]
        margins = inputs @ w
        return jnp.stack([margins, jnp.full_like(margins, self.ridge / 2 * (w @ w))], axis=-1)

    def calibrate(self, params: Params, batch: Batch) -> Params:
        """The parameters as they are."""
        return keep(params, batch)


@dataclass(frozen=True)
class SquareLoss:
    """`(margin - y)^2 / 2 + penalty`: every f is a quadratic in w, as in appendix A."""

    def __call__(self, outputs: Float[Array, "n 2"], targets: AnyArray) -> Float[Array, " n"]:
        """The loss of each example."""
        return jnp.square(outputs[:, 0] - targets) / 2 + outputs[:, 1]


@dataclass(frozen=True)
class LogisticLoss:
    """`log(1 + exp(-y margin)) + penalty` with `y` in {-1, 1}."""

    def __call__(self, outputs: Float[Array, "n 2"], targets: AnyArray) -> Float[Array, " n"]:
        """The loss of each example, in nats."""
        return jax.nn.softplus(-targets * outputs[:, 0]) + outputs[:, 1]


def convex_problem(loss: SquareLoss | LogisticLoss, dimension: int, ridge: float = 0.0) -> Problem:
    """Regularised regression with `loss`, judged by that loss: `f_t(w) = L(D_t, w)`.

    Examples:
        >>> import jax.numpy as jnp, metaleader as ml
        >>> from metaleader.theory import convex_problem
        >>> from metaleader.theory.problems import SquareLoss
        >>> problem = convex_problem(SquareLoss(), dimension=1, ridge=0.5)
        >>> data = ml.Batch.of(jnp.ones((1, 1)), jnp.zeros(1))
        >>> float(problem.objective({"w": jnp.array([2.0])}, data))  # (2 - 0)^2 / 2 + 0.5 (2^2) / 2
        3.0
    """
    return Problem(LinearModel(dimension, ridge), loss, Score("loss", loss, higher_is_better=False))


class Pool(NamedTuple):
    """Tasks of equal size, the f_i that a stream is made of.

    Attributes:
        inputs: array `(tasks, n, d)`.
        targets: array `(tasks, n)`.

    Examples:
        >>> import numpy as np
        >>> from metaleader.theory import Pool
        >>> inputs, targets = np.ones((3, 5, 2), np.float32), np.zeros((3, 5), np.float32)
        >>> pool = Pool(inputs, targets)  # three tasks of five datapoints
        >>> len(pool.batch(0)), pool.batch(0).inputs.shape
        (5, (5, 2))
    """

    inputs: Any
    targets: Any

    def batch(self, index: Any) -> Batch:
        """The data of one task, or of several."""
        inputs = self.inputs[index]
        return Batch(inputs, self.targets[index], jnp.ones(inputs.shape[:-1], inputs.dtype))


class Constants(NamedTuple):
    """What the theory assumes of every f (paper, section 4), valid on a ball around 0.

    Attributes:
        lipschitz: G, a bound of `||grad f||`.
        smoothness: beta, a bound of the eigenvalues of the Hessian from above.
        hessian_lipschitz: rho, of the Hessian in the spectral norm; 0 for quadratics.
        strong_convexity: mu, a bound of the eigenvalues of the Hessian from below.

    Examples:
        >>> from metaleader.theory import Constants
        >>> Constants(lipschitz=2.0, smoothness=1.0, hessian_lipschitz=0.0, strong_convexity=0.5).largest_step
        0.5
        >>> Constants(lipschitz=2.0, smoothness=1.0, hessian_lipschitz=0.1, strong_convexity=0.5).largest_step
        0.3125
    """

    lipschitz: Any
    smoothness: Any
    hessian_lipschitz: Any
    strong_convexity: Any

    @property
    def largest_step(self) -> float:
        """`min{1 / (2 beta), mu / (8 rho G)}`: up to this alpha, Theorem 1 holds."""
        curved = 8 * self.hessian_lipschitz * self.lipschitz
        return float(min(1 / (2 * self.smoothness), self.strong_convexity / curved if curved > 0 else math.inf))


def constants(problem: Problem, pool: Pool, radius: float) -> Constants:
    """G, beta, rho and mu that hold for every task of `pool` on the ball `||w|| <= radius`.

    With `M = X'X / n` of a task and `r = ridge`:

    - square loss: the Hessian is `M + r I` everywhere, so beta and mu are its extreme eigenvalues and rho = 0;
      `||grad f(w)|| <= ||grad f(0)|| + beta radius`.
    - logistic loss: the Hessian is `mean s_i (1 - s_i) x_i x_i' + r I` with `s_i` the logistic function of the margin,
      and `s (1 - s)` lies between its value at the largest margin on the ball, `radius max ||x||`, and 1/4. Its
      derivative is at most `1 / (6 sqrt 3)`, so `rho = lambda_max(mean ||x_i|| x_i x_i') / (6 sqrt 3)`. The
      gradient is also at most `mean ||x_i|| + r radius`.

    Raises:
        UserError: the radius is not positive and finite (a strongly convex f has no Lipschitz constant on an
            unbounded domain).

    Examples:
        >>> import numpy as np
        >>> from metaleader.theory import Pool, constants, convex_problem
        >>> from metaleader.theory.problems import SquareLoss
        >>> pool = Pool(np.sqrt(2) * np.eye(2)[None], np.sqrt(2) * np.array([[1.0, 0.0]]))  # of ||w - (1, 0)||^2 / 2
        >>> [round(value, 3) for value in constants(convex_problem(SquareLoss(), 2), pool, radius=3.0)]  # G is 1 + 3
        [4.0, 1.0, 0.0, 1.0]
    """
    gradient, beta, rho, mu = _of_each(problem, pool, radius)
    return Constants(float(gradient.max()), float(beta.max()), float(rho.max()), float(mu.min()))


def _of_each(problem: Problem, pool: Pool, radius: float) -> Constants:
    """The same of every task for itself, arrays `(tasks,)`."""
    if not 0 < radius < math.inf:
        raise UserError(
            f"G < inf fails: with mu > 0, ||grad f|| grows without bound on the domain ||w|| <= {radius}; "
            "the theory needs a radius that is positive and finite"
        )
    x, ridge, n = np.asarray(pool.inputs), problem.net.ridge, pool.inputs.shape[1]  # type: ignore[attr-defined]
    eigenvalues = np.linalg.eigvalsh(np.einsum("tni,tnj->tij", x, x) / n)
    at_zero = gradient_at_zero(problem, pool)
    if isinstance(problem.loss, SquareLoss):
        beta, mu = eigenvalues[:, -1] + ridge, eigenvalues[:, 0] + ridge
        gradient = at_zero + np.abs(beta) * radius
        rho = np.zeros(len(x))
    else:
        norms = np.linalg.norm(x, axis=-1)
        flattest = _logistic_slope(radius * norms.max(axis=1))
        beta, mu = eigenvalues[:, -1] / 4 + ridge, flattest * eigenvalues[:, 0] + ridge
        gradient = np.minimum(at_zero + np.abs(beta) * radius, norms.mean(axis=1) + abs(ridge) * radius)
        rho = np.linalg.eigvalsh(np.einsum("tn,tni,tnj->tij", norms, x, x) / n)[:, -1] / (6 * math.sqrt(3))
    return Constants(gradient, beta, rho, mu)


def steepest(problem: Problem, pool: Pool, radius: float, update: GradientDescent | Identity) -> float:
    """A bound L of `||grad f~||` on the ball `||w|| <= radius`, with `f~(w) = f(U(w))`.

    Along a step, `grad f(U(w)) = (I - alpha H') grad f(w)` with a mean H' of Hessians, and `grad f~(w) = (I - alpha H)
    grad f(U(w))`. With `q_i = max(|1 - alpha mu_i|, |1 - alpha beta_i|)` of task i, on the ball that holds U(w), and
    `G_i >= ||grad f_i||` on the domain, k steps give `L = max_i q_i^(2k) G_i`. Without adaptation it is `max_i G_i`.
    """
    inside = _of_each(problem, pool, radius).lipschitz
    if isinstance(update, Identity):
        return float(inside.max())
    wide = _of_each(problem, pool, enlarged(problem, pool, radius, update))
    alpha = update.step_size
    q = np.maximum(np.abs(1 - alpha * wide.strong_convexity), np.abs(1 - alpha * wide.smoothness))
    return float((q ** (2 * update.steps) * inside).max())


def gradient_at_zero(problem: Problem, pool: Pool) -> Float[np.ndarray, " tasks"]:
    """`||grad f(0)||` of every task."""
    slope = -1.0 if isinstance(problem.loss, SquareLoss) else -0.5
    mean = np.einsum("tni,tn->ti", np.asarray(pool.inputs), slope * np.asarray(pool.targets)) / pool.inputs.shape[1]
    return np.linalg.norm(mean, axis=-1)


def enlarged(problem: Problem, pool: Pool, radius: float, update: GradientDescent) -> float:
    """The radius of a ball around 0 that holds w and every step of U(w), for all `||w|| <= radius` and all tasks.

    Along the segment from 0 to v, `grad f(v) = grad f(0) + H v` with a mean H of Hessians, whose eigenvalues lie
    between mu and beta. A step therefore gives `||v - alpha grad f(v)|| <= q ||v|| + alpha ||grad f(0)||` with
    `q = max(|1 - alpha mu|, |1 - alpha beta|)`.

    Examples:
        >>> import numpy as np, metaleader as ml
        >>> from metaleader.theory import Pool, convex_problem, enlarged
        >>> from metaleader.theory.problems import SquareLoss
        >>> pool = Pool(np.sqrt(2) * np.eye(2)[None], np.sqrt(2) * np.array([[2.0, 0.0]]))  # of ||w - (2, 0)||^2 / 2
        >>> problem, update = convex_problem(SquareLoss(), 2), ml.GradientDescent(1, 0.5, derivative="plain")
        >>> [round(enlarged(problem, pool, radius, update), 3) for radius in (1.0, 3.0)]  # a step goes half the way
        [1.5, 3.0]
    """
    at_zero, reach, largest = float(gradient_at_zero(problem, pool).max()), radius, radius
    for _ in range(update.steps):
        known = constants(problem, pool, reach)
        q = max(abs(1 - update.step_size * k) for k in (known.strong_convexity, known.smoothness))
        reach = q * reach + update.step_size * at_zero
        largest = max(largest, reach)
    return largest


class Setting(NamedTuple):
    """A problem, a domain and an update procedure, with the constants that tie them together.

    Attributes:
        problem: regression with a square or a logistic loss.
        radius: of the domain `||w|| <= radius`, in which learners and the best in hindsight are.
        update: U.
        reach: radius of the ball that holds the domain and U of it.
        constants: G, beta, rho and mu on the ball of radius `reach`.
        steepest: L, a bound of `||grad f(U(w))||` on the domain.

    Examples:
        >>> from metaleader.theory import ConvexStream, setting
        >>> stream = ConvexStream(rounds=20).tasks(seed=0)
        >>> given = setting(stream.problem, stream.pool, radius=2.0)
        >>> given.outside is None, given.reach >= given.radius
        (True, True)
    """

    problem: Problem
    radius: float
    update: GradientDescent | Identity
    reach: float
    constants: Constants
    steepest: Any

    @property
    def outside(self) -> str | None:
        """The first assumption of Theorem 1 that fails, with the values in it; None if all hold."""
        g, beta, rho, mu = self.constants
        if isinstance(self.update, Identity):
            return None if mu > 0 else f"mu > 0 fails: mu = {mu:.6g} on ||w|| <= {self.reach:.6g}"
        alpha, steps, curved = self.update.step_size, self.update.steps, 8 * rho * g
        if mu <= 0:
            return f"mu > 0 fails: f is not strongly convex on ||w|| <= {self.reach:.6g}, mu = {mu:.6g}"
        if steps != 1:
            return f"steps = 1 fails: Theorem 1 is on one gradient step, U takes {steps}"
        if alpha > (1 + SLACK) / (2 * beta):
            return f"alpha <= 1 / (2 beta) fails: alpha = {alpha:.6g}, 1 / (2 beta) = {1 / (2 * beta):.6g}"
        if alpha * curved > mu * (1 + SLACK):
            return (
                f"alpha <= mu / (8 rho G) fails: alpha = {alpha:.6g}, mu / (8 rho G) = {mu / curved:.6g} with "
                f"mu = {mu:.6g}, rho = {rho:.6g}, G = {g:.6g}"
            )
        return None


def setting(
    problem: Problem, pool: Pool, radius: float, step: float = 1.0, steps: int = 1, outside_theory: bool = False
) -> Setting:
    """The setting whose alpha is `step` times the largest that Theorem 1 allows.

    Alpha, the ball that holds U(w) and the constants on it depend on one another. The bound on alpha from the largest
    conceivable ball, that of `alpha = 1 / (2 beta)`, holds on the smaller ball that this alpha needs.

    Raises:
        UserError: an assumption of Theorem 1 fails and `outside_theory` is not set, or the radius is not finite.

    Examples:
        >>> from metaleader.theory import ConvexStream, setting
        >>> stream = ConvexStream(rounds=20).tasks(seed=0)
        >>> given = setting(stream.problem, stream.pool, radius=2.0, step=0.5)
        >>> round(given.update.step_size / given.constants.largest_step, 6)  # half of what Theorem 1 allows
        0.5
    """
    first = constants(problem, pool, radius)
    if not 0 < step < math.inf:
        raise UserError(f"step must be positive and finite, a multiple of the bound on alpha; got {step}")
    if first.strong_convexity <= 0 or first.smoothness <= 0:
        # No alpha is allowed; 1 / (2 beta) serves to go on outside the theory.
        alpha = 1 / (2 * max(first.smoothness, -first.strong_convexity, 1e-12))
    else:
        widest = GradientDescent(steps, 1 / (2 * first.smoothness), derivative="plain")
        alpha = constants(problem, pool, enlarged(problem, pool, radius, widest)).largest_step
    update = GradientDescent(steps, step * alpha, derivative="plain")
    found = _with(problem, radius, pool, update)
    if found.outside and not outside_theory:
        raise UserError(f"{found.outside}; to run all the same, and have it marked so, ask for outside_theory")
    return found


def with_step(given: Setting, pool: Pool, alpha: float) -> Setting:
    """The same with another alpha, and the constants on the ball that it needs; inside the theory or not.

    Examples:
        >>> from metaleader.theory import ConvexStream, setting, with_step
        >>> stream = ConvexStream(rounds=20).tasks(seed=0)
        >>> given = setting(stream.problem, stream.pool, radius=2.0)
        >>> with_step(given, stream.pool, alpha=1.0).outside.split(":")[0]
        'alpha <= 1 / (2 beta) fails'
    """
    steps = 1 if isinstance(given.update, Identity) else given.update.steps
    return _with(given.problem, given.radius, pool, GradientDescent(steps, alpha, derivative="plain"))


def without_adaptation(given: Setting, pool: Pool) -> Setting:
    """The same with U the identity, and the constants on the domain itself."""
    return _with(given.problem, given.radius, pool, Identity())


def _with(problem: Problem, radius: float, pool: Pool, update: GradientDescent | Identity) -> Setting:
    reach = radius if isinstance(update, Identity) else enlarged(problem, pool, radius, update)
    known = constants(problem, pool, reach)
    return Setting(problem, radius, update, reach, known, steepest(problem, pool, radius, update))


def _logistic_slope(margin: Any) -> Any:
    """`s (1 - s)` with s the logistic function."""
    return 1 / (2 + np.exp(margin) + np.exp(-margin))
