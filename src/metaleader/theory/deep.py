"""Regret of deep learners, estimated against a meta-learner trained offline on all tasks (paper, Eq. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from metaleader.errors import UserError
from metaleader.learners import Learner
from metaleader.online.protocol import OnlineProtocol, play
from metaleader.problem.batch import Batch
from metaleader.problem.model import Params
from metaleader.problem.problem import Problem
from metaleader.streams import Task
from metaleader.update import UpdateProcedure
from metaleader.update.meta import meta_objective


@dataclass(frozen=True)
class Offline:
    """A meta-learner trained on all tasks at once: it estimates `min_w sum_t f_t(U_t(w))` from above.

    Attributes:
        losses: `f_t(U_t(w))` of every task at the best w found, `(tasks,)`.
        gap: how far the sum of losses still fell in the last tenth of the training, by its running best. What is left
            to gain is unknown for a loss that is not convex; this is the sign of it that can be measured.
        gradient_norm: of the sum at that w.

    Examples:
        >>> import numpy as np
        >>> from metaleader.theory import Offline
        >>> offline = Offline(losses=np.array([0.5, 0.25]), gap=1e-3, gradient_norm=0.01)
        >>> float(offline.losses.sum()), offline.gap < 0.01  # training had nearly settled
        (0.75, True)
    """

    losses: Float[np.ndarray, " tasks"]
    gap: float
    gradient_norm: float


@dataclass(frozen=True)
class RegretEstimate:
    """`sum_t f_t(U_t(w_t)) - sum_t f_t(U_t(w*))` with w* the offline meta-learner's.

    The regret itself is at least that, as the best w in hindsight loses no more than w*, and for a loss that is never
    negative at most the first sum.

    Attributes:
        losses: held-out loss at the end of every round, all of its data adapted to, `(rounds,)`.
        offline: the comparator.

    Examples:
        >>> import numpy as np
        >>> from metaleader.theory import Offline, RegretEstimate
        >>> offline = Offline(np.array([0.5, 0.25]), gap=0.0, gradient_norm=0.0)
        >>> estimate = RegretEstimate(np.array([3.0, 1.0]), offline)
        >>> estimate.regret, estimate.largest
        (3.25, 4.0)
    """

    losses: Float[np.ndarray, " rounds"]
    offline: Offline

    @property
    def regret(self) -> float:
        """The estimate."""
        return float(self.losses.sum() - self.offline.losses.sum())

    @property
    def largest(self) -> float:
        """What the regret is at most, for a loss that is never negative."""
        return float(self.losses.sum())


def estimate_regret(
    problem: Problem, tasks: Sequence[Task], learner: Learner, protocol: OnlineProtocol, offline: Offline, seed: int = 0
) -> RegretEstimate:
    """Play the stream, and compare with `offline`, which `train_offline` made for the same tasks and update procedure.

    `f_t(U_t(w))` is the held-out loss of task t with U on all of D_t.

    Raises:
        UserError: the learner diverged, or moves on before a round's data is complete.

    Examples:
        >>> import numpy as np, metaleader as ml
        >>> from metaleader.theory import Offline, estimate_regret
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
        >>> lines = [ml.Task.from_arrays(x, 5 * x + t % 2, x, 5 * x + t % 2) for t in range(8)]  # one of two offsets
        >>> learner = ml.FTML(ml.GradientDescent(step_size=0.2), optimizer=ml.Adam(0.2))
        >>> offline = Offline(np.zeros(8), gap=0.0, gradient_norm=0.0)  # of a comparator without loss
        >>> estimate = estimate_regret(problem, lines, learner, ml.OnlineProtocol(), offline)
        >>> estimate.regret == estimate.largest, bool(estimate.losses[-1] < estimate.losses[0])
        (True, True)
    """
    records = list(play(problem, tasks, learner, protocol, seed))
    last = {r.round: r.loss for r in records if r.datapoints == len(tasks[r.round - 1].train)}
    if len(last) < len(tasks) or None in last.values():
        raise UserError(f"a loss is needed at the end of all {len(tasks)} rounds, got {len(last)} and {last}")
    return RegretEstimate(np.array([last[t + 1] for t in range(len(tasks))], float), offline)


def train_offline(
    problem: Problem,
    update: UpdateProcedure,
    tasks: Sequence[Task],
    steps: int = 2000,
    step_size: float = 3e-3,
    seed: int = 0,
) -> Offline:
    """Adam on the sum over all tasks, whole batches, the step size falling to 0 along a cosine; the best w is kept.

    Raises:
        UserError: tasks differ in size.

    Examples:
        >>> import numpy as np, metaleader as ml
        >>> from metaleader.theory import train_offline
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
        >>> lines = [ml.Task.from_arrays(x, 5 * x + t % 2, x, 5 * x + t % 2) for t in range(8)]  # one of two offsets
        >>> offline = train_offline(problem, ml.GradientDescent(step_size=0.2), lines, steps=200, step_size=0.2)
        >>> offline.losses.shape, bool(offline.losses.max() < 0.1), bool(offline.gap < 0.1)
        ((8,), True, True)
    """
    sizes = {(len(task.train), len(task.held_out)) for task in tasks}
    if len(sizes) != 1:
        raise UserError(f"tasks must be of one size to be trained on together, got {sorted(sizes)}")
    train, test = (
        jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *batches)
        for batches in ([task.train for task in tasks], [task.held_out for task in tasks])
    )
    params = update.init(problem.net.init(jax.random.key(seed)))
    curve, norm, losses = (np.asarray(x) for x in _train(problem, update, steps, step_size, params, train, test))
    before = np.minimum.accumulate(curve)
    return Offline(losses.astype(float), float(before[-steps // 10] - before[-1]), float(norm))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _train(
    problem: Problem, update: UpdateProcedure, steps: int, step_size: Any, params: Params, train: Batch, test: Batch
) -> Any:
    """The sum of losses before every step; gradient norm and losses at the best w."""
    optimizer = optax.adam(optax.cosine_decay_schedule(step_size, steps))

    def losses(w: Params) -> Array:
        return jax.vmap(lambda d, v: meta_objective(problem, update, w, d, v))(train, test)

    def step(carry: Any, _: None) -> Any:
        w, opt_state, best, least, norm = carry
        value, gradient = jax.value_and_grad(lambda w: jnp.sum(losses(w)))(w)
        better = value < least
        best = jax.tree.map(lambda old, new: jnp.where(better, new, old), best, w)
        norm = jnp.where(better, optax.tree.norm(gradient), norm)
        changes, opt_state = optimizer.update(gradient, opt_state, w)
        return (optax.apply_updates(w, changes), opt_state, best, jnp.minimum(value, least), norm), value

    start = (params, optimizer.init(params), params, jnp.inf, jnp.inf)
    (_, _, best, _, norm), curve = jax.lax.scan(step, start, length=steps)
    return curve, norm, losses(best)
