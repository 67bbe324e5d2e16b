"""Theorem 1 by numbers: the Hessian of f(U(w)), and every inequality of its proof (paper, section 4 and appendix B)."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metaleader.problem.batch import Batch
from metaleader.problem.problem import Problem
from metaleader.theory.problems import Pool, Setting
from metaleader.update import GradientDescent

DIFFERENTIATION = 1e-7  # relative: what ratios of small differences lose


class Range(NamedTuple):
    """The least and the largest eigenvalue found of the Hessians of f(U(w)), over all tasks and points."""

    least: float
    largest: float


class Inequality(NamedTuple):
    """A step of the proof.

    Attributes:
        claim: what is at most, or at least, what.
        measured: the worst value found.
        bound: what the constants give.
        at_most: whether the bound is from above.
    """

    claim: str
    measured: float
    bound: float
    at_most: bool

    @property
    def holds(self) -> bool:
        """Whether the worst value found is on the right side of the bound."""
        room = DIFFERENTIATION * max(abs(self.bound), abs(self.measured), 1e-3)
        return bool(self.measured <= self.bound + room if self.at_most else self.measured >= self.bound - room)


def random_points(seed: int, radius: float, dimension: int, count: int) -> Float[np.ndarray, "count d"]:
    """Points of the ball: half uniform in it, half on its sphere."""
    random = np.random.default_rng(seed)
    directions = random.normal(size=(count, dimension))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = np.where(np.arange(count) % 2 == 0, random.random(count) ** (1 / dimension), 1.0)
    return radius * lengths[:, None] * directions


def worst_range(setting: Setting, pool: Pool, points: Float[np.ndarray, "count d"], steps: int = 40) -> Range:
    """Eigenvalues at points sought out by a direct search of the ball.

    From the worst of `points` in every task, each step tries as many points around the best one so far, and goes to
    the best of them; the radius of what it tries falls from that of the ball to a thousandth of it.

    Examples:
        >>> import jax, numpy as np
        >>> from metaleader.theory import ConvexStream, setting, worst_range
        >>> stream = ConvexStream(rounds=20).tasks(seed=0)
        >>> given = setting(stream.problem, stream.pool, radius=2.0)
        >>> with jax.enable_x64(True):
        ...     least, largest = worst_range(given, stream.pool, np.eye(4), steps=2)
        >>> _, beta, _, mu = given.constants
        >>> mu / 8 <= least, largest <= 9 / 8 * beta  # Theorem 1
        (True, True)
    """
    found = _at_all(setting, pool, points)
    worst = []
    for end, sign in ((0, -1.0), (-1, 1.0)):
        values = sign * found[..., end]
        best, at = values.max(axis=1), points[values.argmax(axis=1)]
        for scale in np.geomspace(1, 1e-3, steps):
            tried = at[:, None] + scale * points[None]
            tried *= np.minimum(1, setting.radius / np.maximum(np.linalg.norm(tried, axis=-1, keepdims=True), 1e-12))
            values = sign * np.asarray(_eigenvalues(setting.problem, _alpha(setting), pool, tried))[..., end]
            better = values.max(axis=1) > best
            at = np.where(better[:, None], tried[np.arange(len(at)), values.argmax(axis=1)], at)
            best = np.maximum(best, values.max(axis=1))
        worst.append(sign * float(best.max()))
    return Range(*worst)


def _alpha(setting: Setting) -> float:
    assert isinstance(setting.update, GradientDescent)
    return setting.update.step_size


def _at_all(setting: Setting, pool: Pool, points: Any) -> np.ndarray:
    everywhere = np.broadcast_to(points, (len(pool.inputs), *points.shape))
    return np.asarray(_eigenvalues(setting.problem, _alpha(setting), pool, everywhere))


def proved_range(setting: Setting) -> Range:
    """`(1 - alpha beta)^2 mu - alpha rho G` and `alpha rho G + (1 - alpha mu)^2 beta`: what the proof gives."""
    g, beta, rho, mu = setting.constants
    alpha = _alpha(setting)
    return Range((1 - alpha * beta) ** 2 * mu - alpha * rho * g, alpha * rho * g + (1 - alpha * mu) ** 2 * beta)


def margins(multiple: float = 1.0, seed: int = 0, count: int = 10_000) -> Range:
    """The last step of the proof, for any constants: `proved_range` as multiples of mu / 8 and of 9 beta / 8.

    The constants are drawn over many orders of magnitude, a third of them so that both bounds on alpha bind, and alpha
    is `multiple` times the largest that Theorem 1 allows. The theorem says that the least is at least 1, and the
    largest at most 1; both are reached.

    Examples:
        >>> from metaleader.theory import margins
        >>> least, largest = margins()
        >>> least >= 1 - 1e-9, largest <= 1 + 1e-9  # Theorem 1, for 10,000 random constants
        (True, True)
        >>> margins(multiple=1.1).least >= 1  # beyond its bound on alpha
        False
    """
    random = np.random.default_rng(seed)
    beta = 10 ** random.uniform(-3, 3, count)
    mu = beta * 10 ** random.uniform(-6, 0, count)
    curved = 2 * beta * mu * 10 ** random.uniform(-4, 4, count)  # 8 rho G
    curved = np.where(np.arange(count) % 3 == 0, 2 * beta * mu, curved)
    alpha = multiple * np.minimum(1 / (2 * beta), mu / curved)
    low = (1 - alpha * beta) ** 2 * mu - alpha * curved / 8
    high = alpha * curved / 8 + (1 - alpha * mu) ** 2 * beta
    return Range(float((8 * low / mu).min()), float((8 * high / (9 * beta)).max()))


def inequalities(setting: Setting, pool: Pool, seed: int = 0, pairs: int = 400) -> list[Inequality]:
    """Every step from the constants to Theorem 1, at random pairs u, v of the ball, near and far, on all tasks.

    With `f~(w) = f(U(w))`, `grad f~(u) - grad f~(v)` is the sum of `(DU(u) - DU(v)) grad f(U(u))` and
    `DU(v) (grad f(U(u)) - grad f(U(v)))`. U contracts as `I - alpha H` does, and DU is Lipschitz with `alpha rho`.

    Examples:
        >>> import jax
        >>> from metaleader.theory import ConvexStream, inequalities, setting
        >>> stream = ConvexStream(rounds=20).tasks(seed=0)
        >>> given = setting(stream.problem, stream.pool, radius=2.0)
        >>> with jax.enable_x64(True):
        ...     steps = inequalities(given, stream.pool, pairs=10)
        >>> len(steps), all(step.holds for step in steps)
        (9, True)
    """
    g, beta, rho, mu = setting.constants
    alpha, d = _alpha(setting), pool.inputs.shape[-1]
    wide = random_points(seed, setting.reach, d, pairs)
    u, v = (random_points(seed + i, setting.radius, d, pairs) for i in (1, 2))
    distance = np.geomspace(1e-3, 1, pairs)[:, None]
    v = u + distance * (v - u)  # within the ball, which is convex
    slopes, curvatures = (np.asarray(x) for x in _at_points(setting.problem, pool, wide))
    ratio = {key: np.asarray(x) for key, x in _at_pairs(setting.problem, alpha, pool, u, v).items()}
    low, high = proved_range(setting)
    # Quadratics have rho = 0: what it bounds is 0 whatever the code does, and says nothing.
    curved = [
        Inequality("Hessian of f is rho-Lipschitz", ratio["hessian"].max(), rho, True),
        Inequality(
            "||(DU(u)-DU(v)) grad f(U(u))|| <= alpha rho G ||u-v||", ratio["first"].max(), alpha * rho * g, True
        ),
    ]
    return (curved if rho > 0 else []) + [
        Inequality("||grad f|| <= G", slopes.max(), g, True),
        Inequality("Hessian of f <= beta", curvatures[..., -1].max(), beta, True),
        Inequality("Hessian of f >= mu", curvatures[..., 0].min(), mu, False),
        Inequality("U contracts: ||U(u)-U(v)|| <= (1-alpha mu) ||u-v||", ratio["U"].max(), 1 - alpha * mu, True),
        Inequality("... and >= (1-alpha beta) ||u-v||", ratio["U"].min(), 1 - alpha * beta, False),
        Inequality(
            "||DU(v) (grad f(U(u))-grad f(U(v)))|| <= (1-alpha mu)^2 beta ||u-v||",
            ratio["second"].max(),
            (1 - alpha * mu) ** 2 * beta,
            True,
        ),
        Inequality(
            "... and >= (1-alpha beta)^2 mu ||u-v||", ratio["second"].min(), (1 - alpha * beta) ** 2 * mu, False
        ),
        Inequality(
            "||grad f~(u)-grad f~(v)|| <= [alpha rho G + (1-alpha mu)^2 beta] ||u-v||", ratio["sum"].max(), high, True
        ),
        Inequality("... and >= [(1-alpha beta)^2 mu - alpha rho G] ||u-v||", ratio["sum"].min(), low, False),
    ]


def _meta(problem: Problem, alpha: Any, batch: Batch, w: Array) -> Array:
    """f(w - alpha grad f(w)), written out: here alpha may vary without compiling anew."""
    f = partial(_f, problem, batch)
    return f(w - alpha * jax.grad(f)(w))


def _f(problem: Problem, batch: Batch, w: Array) -> Array:
    return problem.objective({"w": w}, batch)


@partial(jax.jit, static_argnums=0)
def _eigenvalues(problem: Problem, alpha: Any, pool: Pool, points: Any) -> Array:
    """Of the Hessian of f(U(w)), ascending, at each task's `(points, d)`: `(tasks, points, d)`."""

    def of(batch: Batch, w: Array) -> Array:
        return jnp.linalg.eigvalsh(jax.jacfwd(jax.grad(partial(_meta, problem, alpha, batch)))(w))

    return jax.vmap(jax.vmap(of, in_axes=(None, 0)))(pool.batch(slice(None)), points)


@partial(jax.jit, static_argnums=0)
def _at_points(problem: Problem, pool: Pool, points: Any) -> Any:
    """`||grad f||` and the eigenvalues of the Hessian of f, for all tasks and points."""

    def of(batch: Batch, w: Array) -> Any:
        f = partial(_f, problem, batch)
        return jnp.linalg.norm(jax.grad(f)(w)), jnp.linalg.eigvalsh(jax.jacfwd(jax.grad(f))(w))

    return jax.vmap(jax.vmap(of, in_axes=(None, 0)), in_axes=(0, None))(pool.batch(slice(None)), points)


@partial(jax.jit, static_argnums=0)
def _at_pairs(problem: Problem, alpha: Any, pool: Pool, us: Any, vs: Any) -> Any:
    """What the proof bounds, over `||u - v||`, for all tasks and pairs."""

    def of(batch: Batch, u: Array, v: Array) -> Any:
        slope = jax.grad(partial(_f, problem, batch))
        # Stacked, so that each derivative compiles once.
        slopes, hessians = jax.vmap(slope)(jnp.stack([u, v])), jax.vmap(jax.jacfwd(slope))(jnp.stack([u, v]))
        moved = jnp.stack([u, v]) - alpha * slopes
        after = jax.vmap(slope)(moved)
        turn = jnp.eye(len(u)) - alpha * hessians
        first, second = (turn[0] - turn[1]) @ after[0], turn[1] @ (after[0] - after[1])
        vectors = {"U": moved[0] - moved[1], "first": first, "second": second, "sum": first + second}
        norms = {key: jnp.linalg.norm(vector) for key, vector in vectors.items()}
        norms["hessian"] = jnp.max(jnp.abs(jnp.linalg.eigvalsh(hessians[0] - hessians[1])))
        return jax.tree.map(lambda norm: norm / jnp.linalg.norm(u - v), norms)

    return jax.vmap(jax.vmap(of, in_axes=(None, 0, 0)), in_axes=(0, None, None))(pool.batch(slice(None)), us, vs)
