"""Judging after several numbers of adaptation steps, from one pass of the longest (for benchmarks.adaptation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from metaleader import Batch, Learner, MetaSGD, MultiHeadFTL, Problem, State, UserError
from metaleader.learners import base as states
from metaleader.learners.multihead import of_task
from metaleader.problem.model import Params
from metaleader.update import HeadFirst, InnerAdam, InnerMomentum

Kind = Literal["descent", "momentum", "adam"]


@dataclass(frozen=True)
class Procedure:
    """Full-batch steps from w_t on all of D_t, whose step size is left open.

    Attributes:
        kind: gradient descent, momentum of 0.9, or Adam, as `update.InnerMomentum` and `update.InnerAdam` have them.
        head: what is done to the head before the first step; None: nothing. Its own `steps` are not taken.
    """

    kind: Kind
    head: HeadFirst | None = None

    def __str__(self) -> str:
        return f"head first, {self.kind}" if self.head else self.kind

    def optimizer(self, step_size: Any) -> optax.GradientTransformation:
        """The optax transformation; the step size may be traced, so that all share one program."""
        if self.kind == "adam":
            return optax.adam(step_size, eps=0.0, eps_root=InnerAdam.epsilon**2)
        return optax.sgd(step_size, InnerMomentum.decay if self.kind == "momentum" else 0.0)


def start(learner: Learner, state: State) -> Params:
    """w_t, from which `learner.adapt` sets out, as the model expects it.

    Raises:
        UserError: what the learner learned is more than parameters.
    """
    if isinstance(getattr(learner, "update", None), MetaSGD):
        raise UserError("step sizes that are learned cannot be replaced: choose learners with plain parameters")
    params = states.averaged_params(state)
    if isinstance(learner, MultiHeadFTL):
        params = of_task(params, int(state.buffer.tasks) - 1)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), params)


def scores(
    problem: Problem,
    procedure: Procedure,
    step_size: float,
    marks: Sequence[int],
    params: Params,
    train: Batch,
    test: Batch,
) -> Float[np.ndarray, " marks"]:
    """The score on `test` after each number of steps in `marks`; NaN where the loss or the score is not finite.

    Args:
        problem: what is learned.
        procedure: the steps.
        step_size: of the procedure.
        marks: numbers of steps, ascending, 0 for none.
        params: where the steps begin.
        train: D_t.
        test: held-out data.

    Raises:
        UserError: the model predicts by statistics of all tasks, which D_t does not give.
    """
    if getattr(problem.model, "calibrates_on_all_tasks", False):
        raise UserError('norm="running" is not supported here: choose model.norm task or batch')
    losses, found = _scores(problem, procedure, tuple(marks), params, train, test, jnp.float32(step_size))
    return np.where(np.isfinite(losses) & np.isfinite(found), found, np.nan)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _scores(
    problem: Problem,
    procedure: Procedure,
    marks: tuple[int, ...],
    params: Params,
    train: Batch,
    test: Batch,
    step_size: Array,
) -> tuple[Float[Array, " marks"], Float[Array, " marks"]]:
    if procedure.head is not None:
        params = replace(procedure.head, steps=0)(problem.objective, params, train)
    optimizer = procedure.optimizer(step_size)
    marked = np.isin(np.arange(marks[-1] + 1), marks)

    def judge(params: Params) -> tuple[Array, Array]:
        return problem.evaluate(problem.model.calibrate(params, train), test)

    def step(carry: tuple[Params, Any], is_mark: Array) -> tuple[tuple[Params, Any], tuple[Array, Array]]:
        params, state = carry
        judged = jax.lax.cond(is_mark, lambda: judge(params), lambda: (jnp.zeros(()), jnp.zeros(())))
        changes, state = optimizer.update(jax.grad(problem.objective)(params, train), state, params)
        return (optax.apply_updates(params, changes), state), judged

    _, judged = jax.lax.scan(step, (params, optimizer.init(params)), jnp.asarray(marked))
    losses, found = (each[np.flatnonzero(marked)] for each in judged)
    return losses, found
