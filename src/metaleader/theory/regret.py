"""Regret against the best meta-learner in hindsight (paper, Eqs. 2 and 3), exact for convex streams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metaleader.meta import meta_objective
from metaleader.objective import Problem
from metaleader.theory.exact import TOLERANCE, Quadratic, Update, derivatives, leader, minimise_on_ball, quadratics
from metaleader.theory.problems import Constants, Pool, Setting, SquareLoss
from metaleader.theory.streaming import OnlineLearner, Seen, convexity
from metaleader.theory.streams import ConvexTasks


class Game(NamedTuple):
    """One learner on one stream, round by round.

    Attributes:
        losses: `f_t(U_t(w_t))`, `(rounds,)`.
        order: which task of the pool came, `(rounds,)`.
        bound: of the regret after each round, known before play, `(rounds,)`.
        observed: the bound from the gradients seen, `(rounds,)`.
        state_bytes: size of w_t and of all else that the learner keeps.
    """

    losses: Any
    order: Any
    bound: Any
    observed: Any
    state_bytes: int


def play_convex(
    settings: Sequence[Setting], streams: Sequence[ConvexTasks], learner: OnlineLearner, rounds: int
) -> list[Game]:
    """The online game (paper, section 3) on several streams of equal shape at once: w_t, then f_t, loss, learning.

    The f_t are those of the engine: `meta_objective` and its gradient. Where a stream has no order, an adversary
    chooses the task with the largest `f(U(w_t))`.
    """
    state, *curves = jax.tree.map(np.asarray, _play(*_table(settings, streams, learner, rounds)))
    size = sum(leaf[0].nbytes for leaf in jax.tree.leaves(state))
    losses, order, bound, observed = curves
    return [Game(losses[i], order[i], bound[i], observed[i], size) for i in range(len(streams))]


def state_bytes(setting: Setting, stream: ConvexTasks, learner: OnlineLearner, rounds: int) -> int:
    """The size of w and of all else that a learner keeps after so many rounds, from the shapes of the program alone."""
    shared, _, fixed, *arrays = _table([setting], [stream], learner, rounds)
    state = jax.eval_shape(partial(_play, shared, learner, fixed), *arrays)[0]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def _table(
    settings: Sequence[Setting], streams: Sequence[ConvexTasks], learner: OnlineLearner, rounds: int
) -> tuple[Setting, OnlineLearner, bool, Constants, Pool, Array]:
    """The arguments of `_play`: what all streams share, and arrays with an axis of streams."""
    pools = Pool(*(jnp.stack(leaf) for leaf in zip(*(s.pool for s in streams), strict=True)))
    orders = jnp.stack([jnp.asarray(s.order[:rounds]) if s.order is not None else jnp.arange(rounds) for s in streams])
    known = Constants(*(jnp.asarray(leaf) for leaf in zip(*(s.constants for s in settings), strict=True)))
    shared = settings[0]._replace(constants=Constants(0.0, 0.0, 0.0, 0.0), reach=0.0)  # the same for all that compiles
    return shared, learner, streams[0].order is not None, known, pools, orders


@partial(jax.jit, static_argnums=(0, 1, 2))
def _play(shared: Setting, learner: OnlineLearner, fixed: bool, of_streams: Constants, pools: Pool, orders: Any) -> Any:
    problem, update = shared.problem, shared.update

    def loss_at(w: Array, batch: Any) -> Array:
        return meta_objective(problem, update, {"w": w}, batch, batch)

    def one(known: Constants, pool: Pool, order: Array) -> Any:
        setting = shared._replace(constants=known)

        def step(carry: Any, given: Any) -> Any:
            w, memory = carry
            t, index = given
            if not fixed:
                index = jnp.argmax(jax.vmap(loss_at, in_axes=(None, 0))(w, pool.batch(slice(None))))
            batch = pool.batch(index)
            loss, gradient = jax.value_and_grad(loss_at)(w, batch)
            w, memory = learner.learn(setting, w, memory, Seen(t, gradient, batch))
            return (w, memory), (loss, index, *learner.bound(setting, memory, t))

        start = problem.model.init(jax.random.key(0))["w"], learner.start(setting)
        rounds = jnp.arange(1, len(order) + 1, dtype=float)
        state, curves = jax.lax.scan(step, start, (rounds, order))
        return (state, *curves)

    return jax.vmap(one)(of_streams, pools, orders)


def follow(setting: Setting, pool: Pool, order: Int[np.ndarray, " rounds"], leads_through: Update) -> Game:
    """FTML, or joint training, on a stream in a given order whose f are no quadratics.

    From round to round Newton's method follows the leader to a gradient norm of 1e-10; rounds where it does not get
    there, or leaves the ball, are left to `leader`. A leader keeps how often each task came.
    """
    ws, norms = map(np.array, _newton(setting.problem, leads_through, pool, jnp.asarray(order)))
    lost = ~(norms <= TOLERANCE) | (np.linalg.norm(ws, axis=1) > setting.radius)
    for t in np.flatnonzero(lost):
        counts = np.bincount(order[:t], minlength=len(pool.inputs)).astype(float)
        if t > 0:  # w_1 = 0 is no leader
            ws[t] = leader(setting.problem, leads_through, pool, counts, setting.radius, ws[t - 1]).w
    losses, gradients = map(np.asarray, _losses(setting.problem, setting.update, pool, jnp.asarray(order), ws))
    sigma, lipschitz = (float(value) for value in convexity(setting))
    odd = 2 * np.arange(1, len(order) + 1) - 1
    bound = 2 * lipschitz**2 / sigma * (1 + np.log(odd) / 2)
    observed = np.cumsum(2 * np.sum(gradients**2, axis=1) / (sigma * odd))
    return Game(losses, order, bound, observed, ws[0].nbytes + len(pool.inputs) * 8)


@partial(jax.jit, static_argnums=(0, 1))
def _newton(problem: Problem, update: Update, pool: Pool, order: Any) -> Any:
    """w_1 = 0, and the leader of the rounds before in every later round, with the gradient norm at it."""
    longest = jnp.max(jnp.linalg.norm(pool.inputs, axis=-1))

    def step(carry: Any, index: Array) -> Any:
        counts, w, norm = carry
        after = counts.at[index].add(1.0)

        def local(w: Array) -> Any:
            _, gradient, curvature = derivatives(problem, update, pool, after / jnp.sum(after), w)
            return w, gradient, curvature, 0

        def unfinished(at: Any) -> Array:
            return (jnp.linalg.norm(at[1]) > TOLERANCE) & (at[3] < 50)

        def damped(at: Any) -> Any:
            w, gradient, curvature, tries = at
            move = jnp.linalg.solve(curvature, gradient)
            # The Hessian changes by a factor exp(||x|| ||move||) along the way: short steps where that is large.
            w = w - move / (1 + longest * jnp.linalg.norm(move))
            return *local(w)[:3], tries + 1

        found, gradient, _, _ = jax.lax.while_loop(unfinished, damped, local(w))
        return (after, found, jnp.linalg.norm(gradient)), (w, norm)

    start = jnp.zeros(len(pool.inputs)), jnp.zeros(pool.inputs.shape[-1]), jnp.inf
    return jax.lax.scan(step, start, order)[1]


@partial(jax.jit, static_argnums=(0, 1))
def _losses(problem: Problem, update: Any, pool: Pool, order: Any, ws: Any) -> Any:
    def of_round(w: Array, index: Array) -> Any:
        batch = pool.batch(index)
        return jax.value_and_grad(lambda w: meta_objective(problem, update, {"w": w}, batch, batch))(w)

    return jax.vmap(of_round)(ws, order)


@dataclass(frozen=True)
class RegretCurve:
    """Regret at some rounds, and what it may be at most.

    Attributes:
        rounds: T, `(points,)`.
        regret: `sum_{t<=T} f_t(U_t(w_t)) - min_{||w|| <= radius} sum_{t<=T} f_t(U_t(w))`.
        bound: from the constants.
        observed: from the gradients seen.
    """

    rounds: Int[np.ndarray, " points"]
    regret: Float[np.ndarray, " points"]
    bound: Float[np.ndarray, " points"]
    observed: Float[np.ndarray, " points"]

    @property
    def holds(self) -> bool:
        """Whether the regret is below both bounds everywhere."""
        return bool((self.regret <= self.bound).all() and (self.regret <= self.observed * (1 + 1e-9) + 1e-9).all())

    @property
    def growth(self) -> float:
        """`Regret_T / log T` at the end, over the same a decade before: 1 where it has levelled off.

        It is 0.75 `10^a` for regret that grows as T^a up to T = 10,000: 2.4 for the square root, 7.5 for linear growth.
        It is 0 for a learner that does better than any fixed w.
        """
        early = int(np.argmin(np.abs(self.rounds - self.rounds[-1] / 10)))
        if self.regret[-1] <= 0:
            return 0.0
        before = max(float(self.regret[early]), 0.0) / np.log(self.rounds[early])
        return float(self.regret[-1] / np.log(self.rounds[-1])) / before if before > 0 else math.inf


def checkpoints(rounds: int, points: int = 33) -> Int[np.ndarray, " points"]:
    """About so many rounds from 1 to T, evenly spread on a logarithmic axis."""
    return np.unique(np.round(np.geomspace(1, rounds, points)).astype(int))


def regret(setting: Setting, pool: Pool, game: Game, at: Int[np.ndarray, " points"]) -> RegretCurve:
    """The regret of a game at the rounds `at`, against the best of the whole ball, found anew for each."""
    best = hindsight(setting, pool, game.order, at)
    return RegretCurve(at, np.cumsum(game.losses)[at - 1] - best, game.bound[at - 1], game.observed[at - 1])


def hindsight(
    setting: Setting, pool: Pool, order: Int[np.ndarray, " rounds"], at: Int[np.ndarray, " points"]
) -> Float[np.ndarray, " points"]:
    """`min_{||w|| <= radius} sum_{t<=T} f_t(U_t(w))` for every T in `at`."""
    counts = [np.bincount(order[:t], minlength=len(pool.inputs)).astype(float) for t in at]
    if isinstance(setting.problem.loss, SquareLoss):
        each = quadratics(setting.problem, setting.update, pool)
        return np.asarray(_least(each, jnp.asarray(np.stack(counts)), setting.radius))
    values, w = [], None
    for t, seen in zip(at, counts, strict=True):
        found = leader(setting.problem, setting.update, pool, seen, setting.radius, w)
        values.append(t * found.value)
        w = found.w
    return np.array(values)


@jax.jit
def _least(each: Quadratic, counts: Any, radius: Any) -> Array:
    total = jax.tree.map(lambda leaf: jnp.tensordot(counts, leaf, 1), each)
    return total(jax.vmap(minimise_on_ball, in_axes=(0, None))(total, radius))
