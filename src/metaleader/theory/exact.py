"""Leaders computed exactly: FTML (paper, Eq. 4) and joint training (Eq. 2), in closed form or of second order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jaxtyping import Array, Float

from metaleader.buffer import Retention, TaskBuffer, TaskKey
from metaleader.errors import UserError, check_positive
from metaleader.learners import Learned, base
from metaleader.learners.base import PredictsByModel
from metaleader.problem.batch import Batch
from metaleader.problem.model import Params
from metaleader.problem.problem import Problem
from metaleader.theory.problems import Pool, SquareLoss
from metaleader.update import GradientDescent, Identity
from metaleader.update.meta import meta_objective

TOLERANCE = 1e-10  # of the gradient norm at a leader
Update = GradientDescent | Identity


class Quadratic(NamedTuple):
    """`w' A w / 2 + b' w + c`.

    Attributes:
        A: symmetric array `(..., d, d)`.
        b: array `(..., d)`.
        c: array `(...)`.
    """

    A: Any
    b: Any
    c: Any

    def __call__(self, w: Any) -> Any:
        """The value at `w`, `(..., d)`."""
        return jnp.sum(w * (jnp.einsum("...ij,...j->...i", self.A, w) / 2 + self.b), axis=-1) + self.c


def quadratic_of(problem: Problem, batch: Batch) -> Quadratic:
    """One task's f: `A = X'X / n + ridge I`, `b = -X'y / n`, `c = y'y / (2 n)` (appendix A, with means for sums)."""
    x, y, n = batch.inputs, batch.targets, batch.inputs.shape[0]
    ridge = problem.net.ridge * jnp.eye(x.shape[1])  # type: ignore[attr-defined]
    return Quadratic(x.T @ x / n + ridge, -x.T @ y / n, y @ y / (2 * n))


def adapted(f: Quadratic, update: Update) -> Quadratic:
    """`f(U(w))`, again a quadratic (appendix A, for any number k of steps).

    `U(w) = P w + q` with `P = (I - alpha A)^k` and `q = -alpha sum_{j<k} (I - alpha A)^j b`, and as P commutes with A:
    `A+ = P A P`, `b+ = P (A q + b)`, `c+ = q' A q / 2 + b' q + c`. For a nonsingular A, `b+ = (I - alpha A)^{2k} b`.
    """
    if isinstance(update, Identity):
        return f
    identity = jnp.eye(f.b.shape[-1])
    once = identity - update.step_size * f.A

    def step(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        power, q = carry
        return power @ once, once @ q - update.step_size * f.b

    power, q = jax.lax.fori_loop(0, update.steps, step, (identity, jnp.zeros_like(f.b)))
    return Quadratic(power @ f.A @ power, power @ (f.A @ q + f.b), f(q))


@jax.jit
def minimise_on_ball(f: Quadratic, radius: Any) -> Float[Array, " d"]:
    """The minimiser of a positive definite quadratic over `||w|| <= radius`.

    Inside, it solves `A w = -b`; else `(A + nu I) w = -b` with the nu > 0 that puts w on the sphere, found by Newton's
    method on `1 / ||w(nu)||`, which is concave in nu and nearly linear (Moré & Sorensen, 1983).
    """
    eigenvalues, vectors = jnp.linalg.eigh(f.A)
    b = vectors.T @ f.b

    def step(_: Any, nu: Array) -> Array:
        w = b / (eigenvalues + nu)
        norm = jnp.linalg.norm(w)
        slope = jnp.sum(w * w / (eigenvalues + nu))
        return jnp.maximum(0, nu + (norm - radius) / radius * norm**2 / jnp.where(slope > 0, slope, 1))

    nu = jax.lax.fori_loop(0, 20, step, jnp.zeros(()))
    return -vectors @ (b / (eigenvalues + nu))


class Leader(NamedTuple):
    """A minimiser over the ball, and how well it was found.

    Attributes:
        w: array `(d,)`.
        value: of the mean objective at w.
        gradient_norm: of the mean objective plus the multiplier's `nu ||w||^2 / 2`; at most 1e-10.
        multiplier: nu, 0 where w lies inside the ball.
    """

    w: Any
    value: float
    gradient_norm: float
    multiplier: float


def leader(
    problem: Problem, update: Update, pool: Pool, counts: Float[np.ndarray, " tasks"], radius: float, start: Any = None
) -> Leader:
    """`argmin_{||w|| <= radius} sum_i counts_i f_i(U_i(w))`, by SciPy's trust-region Newton method `trust-exact`.

    Value, gradient and Hessian come from the same `meta_objective` that deep learners descend. Where the minimiser
    lies outside the ball, the multiplier nu that puts it on the sphere is found by Brent's method: the norm of the
    minimiser of `F(w) + nu ||w||^2 / 2` falls as nu grows.

    Args:
        problem: model and loss.
        update: U; `Identity` gives joint training.
        pool: the tasks.
        counts: how often each came, not all zero.
        radius: of the ball.
        start: where to begin; None: at 0.

    Raises:
        UserError: the gradient norm did not get below 1e-10, as happens where f(U(w)) is not convex.

    Examples:
        >>> import jax, numpy as np, metaleader as ml
        >>> from metaleader.theory import Pool, convex_problem, leader
        >>> from metaleader.theory.problems import SquareLoss
        >>> centres = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> pool = Pool(np.sqrt(2) * np.stack([np.eye(2)] * 2), np.sqrt(2) * centres)  # f_i(w) = ||w - c_i||^2 / 2
        >>> with jax.enable_x64(True):
        ...     found = leader(convex_problem(SquareLoss(), 2), ml.Identity(), pool, np.array([1.0, 3.0]), radius=2.0)
        >>> found.w.round(6).tolist(), found.gradient_norm <= 1e-10
        ([0.25, 0.75], True)
    """
    check_precision()
    weights = jnp.asarray(counts / np.sum(counts))
    start = np.zeros(pool.inputs.shape[-1]) if start is None else np.asarray(start)

    def inside(nu: float, w: np.ndarray) -> Leader:
        memory: dict[bytes, Any] = {}

        def at(w: np.ndarray) -> Any:
            key = w.tobytes()
            if key not in memory:
                memory.clear()
                value, slope, curvature = map(np.asarray, derivatives(problem, update, pool, weights, w))
                memory[key] = (
                    float(value + nu / 2 * w @ w),
                    slope + nu * w,
                    curvature + nu * np.eye(len(w)),
                )
            return memory[key]

        for _ in range(3):  # restart: rounding can reject the last step
            if np.linalg.norm(at(w)[1]) <= TOLERANCE:
                break
            w = scipy.optimize.minimize(
                lambda v: at(v)[0],
                w,
                jac=lambda v: at(v)[1],
                hess=lambda v: at(v)[2],
                method="trust-exact",
                options={"gtol": TOLERANCE},
            ).x
            # One plain Newton step: near the minimum values are equal to rounding, gradients are not.
            newton = w - np.linalg.solve(at(w)[2], at(w)[1])
            w = newton if np.linalg.norm(at(newton)[1]) < np.linalg.norm(at(w)[1]) else w
        value, slope, _ = at(w)
        return Leader(w, value - nu / 2 * float(w @ w), float(np.linalg.norm(slope)), nu)

    found = inside(0.0, start)
    if np.linalg.norm(found.w) > radius:
        tried = {0.0: found}

        def excess(nu: float) -> float:
            tried[nu] = inside(nu, np.asarray(found.w) * radius / float(np.linalg.norm(found.w)))
            return float(np.linalg.norm(tried[nu].w)) - radius

        high = 1.0
        while excess(high) > 0:
            high *= 4
        found = inside(scipy.optimize.brentq(excess, 0.0, high, xtol=1e-14), np.asarray(tried[high].w))
    if not found.gradient_norm <= TOLERANCE:
        raise UserError(
            f"no leader: the gradient norm stopped at {found.gradient_norm:.3g}, above {TOLERANCE:g}; "
            "the sum of f(U(w)) may not be convex"
        )
    return found


@partial(jax.jit, static_argnums=(0, 1))
def derivatives(problem: Problem, update: Update, pool: Pool, weights: Any, w: Any) -> Any:
    """The weighted mean of f_i(U_i(w)) with gradient and Hessian."""

    def mean(w: Array) -> Array:
        each = jax.vmap(lambda x, y: _of_task(problem, update, w, x, y))(pool.inputs, pool.targets)
        return weights @ each

    def slope(w: Array) -> tuple[Array, tuple[Array, Array]]:
        value, gradient = jax.value_and_grad(mean)(w)
        return gradient, (value, gradient)

    curvature, (value, gradient) = jax.jacfwd(slope, has_aux=True)(w)
    return value, gradient, curvature


def _of_task(problem: Problem, update: Update, w: Array, x: Array, y: Array) -> Array:
    batch = Batch(x, y, jnp.ones(len(y), x.dtype))
    return meta_objective(problem, update, {"w": w}, batch, batch)


def check_precision() -> None:
    """Make sure that JAX computes in float64.

    Raises:
        UserError: it does not.
    """
    if jnp.zeros(()).dtype != jnp.float64:
        raise UserError("exact leaders need float64, JAX computes in float32: use them within `jax.enable_x64(True)`")


@dataclass(frozen=True)
class ExactFTML(PredictsByModel):
    """Follow the meta leader exactly: in round t, `w_t = argmin_{||w|| <= radius} sum_{k<t} f_k(U_k(w))` (Eq. 4).

    A learner with the verbs of the deep ones, for `convex_problem`s in float64: in closed form for the square loss, by
    `leader` otherwise. `f_k` is the mean over all data of round k, and w_1 is what the model draws.

    Raises:
        ValueError: `radius` is not positive and finite.

    Examples:
        >>> import jax, metaleader as ml
        >>> from metaleader.theory import ConvexStream, ExactFTML, as_tasks
        >>> stream = ConvexStream(rounds=10).tasks(seed=0)
        >>> with jax.enable_x64(True):
        ...     learner, tasks = ExactFTML(radius=2.0), as_tasks(stream.pool, stream.order)
        ...     records = list(ml.play(stream.problem, tasks, learner, ml.OnlineProtocol(chunk=12)))
        >>> sum(record.loss for record in records[5:]) < sum(record.loss for record in records[:5])
        True
    """

    update: GradientDescent | Identity = GradientDescent(steps=1, derivative="plain")
    """U, in the leader and in `adapt`."""
    radius: float = 1.0
    """Of the domain."""

    def __post_init__(self) -> None:
        check_positive(self, "radius")

    @property
    def leads_through(self) -> Update:
        """The update procedure in the sum that is minimised."""
        return self.update

    def init(self, problem: Problem, key: Array, example: Batch) -> Learned:
        """w_1, an empty buffer."""
        check_precision()
        return Learned(problem.init(key), (), Retention().empty(example, key), key)

    def observe(self, problem: Problem, state: Learned, task: TaskKey, batch: Batch) -> tuple[Learned, int]:
        """Take the lead over the tasks before when a new one begins; then store the datapoints. Costs no gradient."""
        if state.buffer.rows > 0 and state.buffer.row_of(task) is None:
            pool, counts = _stored(state.buffer)
            w = lead(problem, self.leads_through, pool, counts, self.radius, state.params["w"])
            state = state._replace(params={"w": w})
        return state._replace(buffer=Retention().append(state.buffer, task, batch)), 0

    def adapt(self, problem: Problem, state: Learned, task: TaskKey, batch: Batch) -> tuple[Params, int]:  # noqa: ARG002
        """U(w_t) on all data of the task so far."""
        return base.adapted(problem, self.update, state.params, state.buffer, state.key, batch)


@dataclass(frozen=True)
class ExactFTL(ExactFTML):
    """Joint training exactly: in round t, `w_t = argmin_{||w|| <= radius} sum_{k<t} f_k(w)` (follow the leader).

    `update` is the fine-tuning; with `Identity` the loss of a round is f_t(w_t), that of Eq. 2.

    Examples:
        >>> import jax, metaleader as ml
        >>> from metaleader.theory import ConvexStream, ExactFTL, as_tasks
        >>> stream = ConvexStream(rounds=10).tasks(seed=0)
        >>> with jax.enable_x64(True):
        ...     learner, tasks = ExactFTL(radius=2.0), as_tasks(stream.pool, stream.order)
        ...     records = list(ml.play(stream.problem, tasks, learner, ml.OnlineProtocol(chunk=12)))
        >>> sum(record.loss for record in records[5:]) < sum(record.loss for record in records[:5])
        True
        >>> learner.leads_through  # the sum that it minimises knows no adaptation
        Identity()
    """

    @property
    def leads_through(self) -> Update:
        """No adaptation."""
        return Identity()


def lead(problem: Problem, update: Update, pool: Pool, counts: Any, radius: float, start: Any = None) -> Array:
    """The leader's w: in closed form where f is a quadratic, else by `leader`.

    Examples:
        >>> import jax, numpy as np, metaleader as ml
        >>> from metaleader.theory import Pool, convex_problem, lead
        >>> from metaleader.theory.problems import SquareLoss
        >>> centres = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> pool = Pool(np.sqrt(2) * np.stack([np.eye(2)] * 2), np.sqrt(2) * centres)  # f_i(w) = ||w - c_i||^2 / 2
        >>> with jax.enable_x64(True):
        ...     w = lead(convex_problem(SquareLoss(), 2), ml.Identity(), pool, counts=[1, 3], radius=2.0)
        >>> w.round(6).tolist()
        [0.25, 0.75]
    """
    if not isinstance(problem.loss, SquareLoss):
        return jnp.asarray(leader(problem, update, pool, np.asarray(counts, float), radius, start).w)
    weights = jnp.asarray(counts) / np.sum(counts)
    total = jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), quadratics(problem, update, pool))
    return minimise_on_ball(total, radius)


@partial(jax.jit, static_argnums=(0, 1))
def quadratics(problem: Problem, update: Update, pool: Pool) -> Quadratic:
    """f_i(U_i(w)) of every task of a pool, `(tasks, ...)`."""
    batches = Batch(pool.inputs, pool.targets, jnp.ones(pool.targets.shape))
    return jax.vmap(lambda batch: adapted(quadratic_of(problem, batch), update))(batches)


def _stored(buffer: TaskBuffer) -> tuple[Pool, np.ndarray]:
    """The tasks of the buffer, with empty ones up to a power of two so that few shapes compile, and which are real.

    Raises:
        UserError: they differ in size.
    """
    tasks, counts = buffer.rows, buffer.counts[: buffer.rows]
    if (counts != counts[0]).any():
        raise UserError(f"exact leaders need tasks of equal size, got {counts.min()} to {counts.max()} datapoints")
    room = max(16, 1 << (tasks - 1).bit_length())
    pool = []
    for leaf in (buffer.data.inputs, buffer.data.targets):
        stored = np.asarray(leaf)[buffer.order[: buffer.size]].reshape(tasks, counts[0], *leaf.shape[1:])
        pool.append(np.pad(stored, [(0, room - tasks)] + [(0, 0)] * leaf.ndim))
    return Pool(*pool), np.arange(room) < tasks
