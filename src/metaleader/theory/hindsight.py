"""The best meta-learner in hindsight, `min_{w in K} sum_t f_t(U_t(w))`, with a certificate of how exact it is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metaleader.errors import UserError
from metaleader.problem.problem import Problem
from metaleader.theory.domains import Ball, Domain
from metaleader.theory.exact import Quadratic, Update, minimise_on_ball, quadratics
from metaleader.theory.problems import Pool, Setting, SquareLoss
from metaleader.update import Identity
from metaleader.update.meta import meta_objective

CERTIFIED = 1e-9  # of the mean loss, or relative where that is above 1
STEPS = 5000  # of projected gradient descent, at most


class Best(NamedTuple):
    """Minimisers of mean losses over a domain K, with an axis of points first.

    Attributes:
        w: `(points, d)`.
        value: the mean loss F at w, `(points,)`; not below the minimum, but for rounding.
        gap: `max_{u in K} grad F(w)'(w - u)`, `(points,)`. F is convex, so its minimum is not below `value - gap`.

    Examples:
        >>> import numpy as np
        >>> from metaleader.theory import Best
        >>> best = Best(w=np.zeros((1, 2)), value=np.array([0.25]), gap=np.array([1e-12]))
        >>> bool(best.value[0] - best.gap[0] <= 0.25)  # no w of the domain has a smaller loss than that
        True
    """

    w: Any
    value: Any
    gap: Any


def best_on(problem: Problem, update: Update, pool: Pool, counts: Any, domain: Domain, smoothness: float) -> Best:
    """Minimise `sum_i counts_i f_i(U_i(w)) / sum_i counts_i` over the domain, for several counts at once.

    In closed form for quadratics on the Euclidean ball, otherwise by projected gradient descent with step
    `1 / smoothness`, which for strongly convex losses gains a fixed factor in every step.

    Args:
        problem: model and loss.
        update: U; `Identity` gives joint training.
        pool: the tasks.
        counts: how often each came, `(points, tasks)`, in no row all zero.
        domain: K.
        smoothness: a Lipschitz constant of the gradient of every f(U(w)); quadratics take their own.

    Raises:
        UserError: the gap stayed above 1e-9, as happens where f(U(w)) is not convex.

    Examples:
        >>> import jax, numpy as np, metaleader as ml
        >>> from metaleader.theory import Ball, Pool, best_on, convex_problem
        >>> from metaleader.theory.problems import SquareLoss
        >>> centres = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> pool = Pool(np.sqrt(2) * np.stack([np.eye(2)] * 2), np.sqrt(2) * centres)  # f_i(w) = ||w - c_i||^2 / 2
        >>> with jax.enable_x64(True):
        ...     counts = [[1, 0], [1, 1]]  # of the first task alone, and of both
        ...     best = best_on(convex_problem(SquareLoss(), 2), ml.Identity(), pool, counts, Ball(2.0), smoothness=1.0)
        >>> best.w.round(6).tolist(), best.value.round(6).tolist()
        ([[1.0, 0.0], [0.5, 0.5]], [0.0, 0.25])
    """
    counts = jnp.asarray(counts, float)
    weights = counts / jnp.sum(counts, axis=1, keepdims=True)
    if isinstance(problem.loss, SquareLoss):
        found = _of_quadratics(quadratics(problem, update, pool), weights, domain)
    else:
        found = _of_tasks(problem, update, pool, weights, domain, smoothness)
    found = Best(*map(np.asarray, found))
    allowed = CERTIFIED * np.maximum(1, np.abs(found.value))
    if not (found.gap <= allowed).all():
        raise UserError(
            f"no best in hindsight: the gap to the minimum is certified to {np.max(found.gap):.3g} only, "
            f"{CERTIFIED:g} is needed; the sum of f(U(w)) may not be convex"
        )
    return found


def hindsight(
    setting: Setting, pool: Pool, order: Any, at: Any, domain: Domain
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """A lower bound of `min_{w in K} sum_{t<=T} f_t(U_t(w))` for every T in `at`, and by how much it may be too low.

    Regret is measured against the lower bound: an inexact minimum then makes the regret larger, never smaller.
    """
    counts = np.stack([np.bincount(order[:t], minlength=len(pool.inputs)) for t in at])
    found = best_on(setting.problem, setting.update, pool, counts, domain, smoothness(setting))
    gap = np.maximum(found.gap, 0)
    return at * (found.value - gap), at * gap


def smoothness(setting: Setting) -> float:
    """A Lipschitz constant of the gradient of every f(U(w)), for any alpha and number of steps.

    With q the Lipschitz constant of one step, DU of k steps is Lipschitz with `alpha rho q^(k-1) sum_{j<k} q^j`:
    `L = q^(2k) beta + alpha rho G q^(k-1) sum_{j<k} q^j`; for one step within Theorem 1, at most 9 beta / 8.
    """
    g, beta, rho, mu = setting.constants
    if isinstance(setting.update, Identity):
        return float(beta)
    alpha, k = setting.update.step_size, setting.update.steps
    q = max(abs(1 - alpha * mu), abs(1 - alpha * beta))
    return float(q ** (2 * k) * beta + alpha * rho * g * q ** (k - 1) * sum(q**j for j in range(k)))


@partial(jax.jit, static_argnums=2)
def _of_quadratics(each: Quadratic, weights: Any, domain: Domain) -> Best:
    def one(mean: Quadratic) -> Best:
        def slope(w: Array) -> Array:
            return mean.A @ w + mean.b

        if isinstance(domain, Ball) and domain.p == 2:
            w = minimise_on_ball(mean, domain.radius)
        else:
            w = descend(slope, domain, jnp.zeros_like(mean.b), jnp.linalg.eigvalsh(mean.A)[-1])
        return Best(w, mean(w), _gap(slope(w), w, domain))

    return jax.vmap(one)(jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), each))


@partial(jax.jit, static_argnums=(0, 1, 4))
def _of_tasks(problem: Problem, update: Update, pool: Pool, weights: Any, domain: Domain, largest: Any) -> Best:
    tasks = pool.batch(slice(None))

    def one(weights: Array) -> Best:
        def mean(w: Array) -> Array:
            return weights @ jax.vmap(lambda task: meta_objective(problem, update, {"w": w}, task, task))(tasks)

        slope = jax.grad(mean)
        w = descend(slope, domain, jnp.zeros(pool.inputs.shape[-1]), largest)
        return Best(w, mean(w), _gap(slope(w), w, domain))

    return jax.vmap(one)(weights)


def descend(slope: Callable[[Array], Array], domain: Domain, start: Array, largest: Any) -> Array:
    """Projected gradient descent, `w <- projection(w - grad F(w) / L)`, until w moves by no more than rounding."""

    def unfinished(carry: Any) -> Array:
        w, moved, steps = carry
        return (moved > 1e-15 * (1 + jnp.linalg.norm(w))) & (steps < STEPS)

    def step(carry: Any) -> Any:
        w, _, steps = carry
        new = domain.project(w - slope(w) / largest)
        return new, jnp.linalg.norm(new - w), steps + 1

    return jax.lax.while_loop(unfinished, step, (start, jnp.asarray(jnp.inf), 0))[0]


def _gap(gradient: Array, w: Array, domain: Domain) -> Array:
    """`max_{u in K} g'(w - u)`, the gap of Frank and Wolfe (1956; Jaggi, 2013)."""
    return gradient @ w + domain.support(-gradient)
