"""Regret against the best meta-learner in hindsight (paper, Eqs. 2 and 3), exact for convex streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metaleader.problem.problem import Problem
from metaleader.theory.domains import Ball, Domain
from metaleader.theory.exact import TOLERANCE, Update, derivatives
from metaleader.theory.hindsight import best_on, hindsight, smoothness
from metaleader.theory.problems import Constants, Pool, Setting
from metaleader.theory.streaming import OnlineLearner, Seen, convexity, paper_bound
from metaleader.theory.streams import ConvexTasks
from metaleader.update.meta import meta_objective

AT_ONCE = 256  # leaders that are sought together


class Game(NamedTuple):
    """One learner on one stream, round by round.

    Attributes:
        losses: `f_t(U_t(w_t))`, `(rounds,)`.
        order: which task of the pool came, `(rounds,)`.
        bound: of the regret after each round, known before play, `(rounds,)`.
        observed: the bound from the gradients seen, `(rounds,)`.
        domain: K, where every w_t is.
    """

    losses: Any
    order: Any
    bound: Any
    observed: Any
    domain: Domain


def play_convex(
    settings: Sequence[Setting], streams: Sequence[ConvexTasks], learner: OnlineLearner, rounds: int
) -> list[Game]:
    """The online game (paper, section 3) on several streams of equal shape at once: w_t, then f_t, loss, learning.

    The f_t are those of the engine: `meta_objective` and its gradient. Where a stream has no order, an adversary
    chooses the task with the largest `f(U(w_t))`.

    Examples:
        >>> import jax
        >>> from metaleader.theory import ConvexStream, Frozen, Leader, play_convex, setting
        >>> stream = ConvexStream(rounds=20).tasks(seed=0)
        >>> given = setting(stream.problem, stream.pool, radius=2.0)
        >>> with jax.enable_x64(True):
        ...     led, frozen = (play_convex([given], [stream], learner, 20)[0] for learner in (Leader(), Frozen()))
        >>> bool(led.losses[0] == frozen.losses[0]), bool(led.losses.sum() < frozen.losses.sum())
        (True, True)
    """
    pools = Pool(*(jnp.stack(leaf) for leaf in zip(*(s.pool for s in streams), strict=True)))
    orders = jnp.stack([jnp.asarray(s.order[:rounds]) if s.order is not None else jnp.arange(rounds) for s in streams])
    known = jax.tree.map(lambda *leaves: jnp.asarray(leaves), *((s.constants, s.steepest) for s in settings))
    # What is left is the same for all streams, and compiles once.
    shared = settings[0]._replace(constants=Constants(0.0, 0.0, 0.0, 0.0), reach=0.0, steepest=0.0)
    curves = (np.asarray(c) for c in _play(shared, learner, streams[0].order is not None, known, pools, orders))
    domain = learner.domain(shared)
    return [Game(*each, domain) for each in zip(*curves, strict=True)]  # type: ignore[call-arg]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _play(shared: Setting, learner: OnlineLearner, fixed: bool, of_streams: Any, pools: Pool, orders: Any) -> Any:
    problem, update = shared.problem, shared.update

    def loss_at(w: Array, batch: Any) -> Array:
        return meta_objective(problem, update, {"w": w}, batch, batch)

    def one(known: tuple[Constants, Any], pool: Pool, order: Array) -> Any:
        setting = shared._replace(constants=known[0], steepest=known[1])

        def step(carry: Any, given: Any) -> Any:
            w, memory = carry
            t, index = given
            if not fixed:
                index = jnp.argmax(jax.vmap(loss_at, in_axes=(None, 0))(w, pool.batch(slice(None))))
            batch = pool.batch(index)
            loss, gradient = jax.value_and_grad(loss_at)(w, batch)
            w, memory = learner.learn(setting, w, memory, Seen(t, gradient, batch))
            return (w, memory), (loss, index, *learner.bound(setting, memory, t))

        start = problem.net.init(jax.random.key(0))["w"], learner.start(setting)
        rounds = jnp.arange(1, len(order) + 1, dtype=float)
        return jax.lax.scan(step, start, (rounds, order))[1]

    return jax.vmap(one)(of_streams, pools, orders)


def follow(
    setting: Setting, pool: Pool, order: Int[np.ndarray, " rounds"], leads_through: Update, factor: float = 1.0
) -> Game:
    """FTML, or joint training, on a stream in a given order whose f are no quadratics.

    From round to round Newton's method follows the leader to a gradient norm of 1e-10; rounds where it does not get
    there, or leaves the ball, are left to `best_on`. `factor` is that of `Leader`.

    Raises:
        UserError: a leader was not found, as happens where f(U(w)) is not convex.

    Examples:
        >>> import jax
        >>> from metaleader.theory import ConvexStream, Leader, follow, play_convex, setting
        >>> stream = ConvexStream(rounds=20).tasks(seed=0)
        >>> given = setting(stream.problem, stream.pool, radius=2.0)
        >>> with jax.enable_x64(True):
        ...     game = follow(given, stream.pool, stream.order, given.update)
        ...     (closed,) = play_convex([given], [stream], Leader(), 20)
        >>> bool(abs(game.losses - closed.losses).max() < 1e-8)  # quadratics have a closed form, too
        True
    """
    domain = Ball(setting.radius)
    leaders, norms = map(np.array, _newton(setting.problem, leads_through, pool, jnp.asarray(order)))
    lost = ~(norms <= TOLERANCE) | (np.linalg.norm(leaders, axis=1) > setting.radius)
    lost[0] = False  # w_1 = 0 is no leader
    for some in np.array_split(np.flatnonzero(lost), -(-lost.sum() // AT_ONCE) or 1):
        if len(some):
            counts = np.stack([np.bincount(order[:t], minlength=len(pool.inputs)) for t in some])
            counts = np.pad(counts, [(0, AT_ONCE - len(some)), (0, 0)], constant_values=1)  # so that one shape compiles
            largest = smoothness(setting._replace(update=leads_through))
            leaders[some] = best_on(setting.problem, leads_through, pool, counts, domain, largest).w[: len(some)]
    ws = leaders if factor == 1 else np.asarray(_overdone(domain, factor, jnp.asarray(leaders)))
    losses, gradients = map(np.asarray, _losses(setting.problem, setting.update, pool, jnp.asarray(order), ws))
    sigma, lipschitz = (float(value) for value in convexity(setting))
    odd = 2 * np.arange(1, len(order) + 1) - 1
    bound = 2 * lipschitz**2 / sigma * (1 + np.log(odd) / 2)
    observed = np.cumsum(2 * np.sum(gradients**2, axis=1) / (sigma * odd))
    return Game(losses, order, bound, observed, domain)


@partial(jax.jit, static_argnums=(0, 1))
def _overdone(domain: Domain, factor: float, leaders: Any) -> Array:
    """`w_{t+1} = projection(w_t + factor (leader - w_t))`, from w_1."""

    def step(w: Array, leader: Array) -> tuple[Array, Array]:
        return domain.project(w + factor * (leader - w)), w

    start = leaders[0]
    return jax.lax.scan(step, start, jnp.concatenate([leaders[1:], leaders[-1:]]))[1]


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
        regret: `sum_{t<=T} f_t(U_t(w_t)) - min_{w in K} sum_{t<=T} f_t(U_t(w))` with the learner's domain K; where the
            minimum is not exact, an upper bound of it.
        gap: how much of that may be due to the minimum.
        bounds: by name, each `(points,)`: "gradients", from the gradients seen, "constants", and for FTML "paper".

    Examples:
        >>> import numpy as np
        >>> from metaleader.theory import RegretCurve
        >>> bounds = {"gradients": np.array([1.0, 2.0]), "constants": np.array([5.0, 9.0])}
        >>> curve = RegretCurve(np.array([1, 10]), np.array([0.5, 3.0]), np.zeros(2), bounds)
        >>> curve.holds("gradients"), curve.holds("constants")
        (False, True)
    """

    rounds: Int[np.ndarray, " points"]
    regret: Float[np.ndarray, " points"]
    gap: Float[np.ndarray, " points"]
    bounds: Mapping[str, Float[np.ndarray, " points"]]

    def holds(self, name: str) -> bool:
        """Whether the regret is at most that bound at every T, but for rounding (1e-9, relative and absolute)."""
        return bool((self.regret <= self.bounds[name] * (1 + 1e-9) + 1e-9).all())


def checkpoints(rounds: int, points: int = 33) -> Int[np.ndarray, " points"]:
    """About so many rounds from 1 to T, evenly spread on a logarithmic axis.

    Examples:
        >>> from metaleader.theory import checkpoints
        >>> checkpoints(1000, points=4).tolist()
        [1, 10, 100, 1000]
    """
    return np.unique(np.round(np.geomspace(1, rounds, points)).astype(int))


def regret(
    setting: Setting, pool: Pool, game: Game, at: Int[np.ndarray, " points"], paper: bool = False
) -> RegretCurve:
    """The regret of a game at the rounds `at`, against the best of the learner's own domain, found anew for each.

    `paper` adds the bound of Corollary 2, `32 G^2 / mu (1 + log T)`.

    Raises:
        UserError: the best in hindsight was not found, as happens where f(U(w)) is not convex.

    Examples:
        >>> import jax
        >>> from metaleader.theory import ConvexStream, Leader, checkpoints, play_convex, regret, setting
        >>> stream = ConvexStream(rounds=20).tasks(seed=0)
        >>> given = setting(stream.problem, stream.pool, radius=2.0)
        >>> with jax.enable_x64(True):
        ...     (game,) = play_convex([given], [stream], Leader(), 20)
        ...     curve = regret(given, stream.pool, game, checkpoints(20, points=3), paper=True)
        >>> [curve.holds(name) for name in ("gradients", "constants", "paper")]
        [True, True, True]
    """
    best, gap = hindsight(setting, pool, game.order, at, game.domain)
    bounds = {"gradients": game.observed[at - 1], "constants": game.bound[at - 1]}
    if paper:
        bounds["paper"] = np.asarray(paper_bound(setting, at))
    return RegretCurve(at, np.cumsum(game.losses)[at - 1] - best, gap, bounds)
