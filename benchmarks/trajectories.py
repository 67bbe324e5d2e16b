"""Judging after several numbers of adaptation steps, from one pass of the longest (for benchmarks.adaptation)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from metaleader import Batch, Identity, Learner, MetaSGD, Problem, Ridge, UserError
from metaleader.buffer.store import TaskKey
from metaleader.learners.base import State
from metaleader.problem.content import Static
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


def start(problem: Problem, learner: Learner, state: State, task: TaskKey, batch: Batch) -> Params:
    """w_t, from which `learner.adapt` sets out for a task, as the model expects it.

    Args:
        problem: what is learned.
        learner: one that has an update procedure.
        state: of it.
        task: which.
        batch: datapoints of the task; they are not looked at.

    Raises:
        UserError: the learner has no update procedure, or one that learns more than parameters.
    """
    update = getattr(learner, "update", None)
    if update is None:
        raise UserError(f"{type(learner).__name__} has no update procedure: choose another learner")
    if isinstance(update, MetaSGD | Ridge):
        raise UserError(
            f"{type(update).__name__} learns more than parameters, and step sizes that are learned cannot be replaced: "
            "choose learners with plain parameters"
        )
    settings = {"update": Identity(), **({"adapt_steps": None} if hasattr(learner, "adapt_steps") else {})}
    params, _ = replace(learner, **settings).adapt(problem, state, task, batch[:0])  # type: ignore[type-var]
    return params


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
    if getattr(problem.net, "calibrates_on_all_tasks", False):
        raise UserError('norm="running" is not supported here: choose model.norm task or batch')
    static, size = Static((problem, procedure)), jnp.float32(step_size)
    params, state = _begun(static, params, train, size)
    found, taken = [], 0
    for mark in marks:
        params, state = _stepped(static, params, state, train, size, jnp.int32(mark - taken))
        taken = mark
        loss, judged = problem.judge(problem.predict(_calibrated(static, params, train), test.inputs), test)
        score = judged[problem.score.name]
        found.append(score if math.isfinite(loss) and math.isfinite(score) else math.nan)
    return np.array(found)


@partial(jax.jit, static_argnums=0)
def _begun(
    static: Static[tuple[Problem, Procedure]], params: Params, train: Batch, step_size: Array
) -> tuple[Params, Any]:
    """The parameters before the first step, and the state of the optimiser."""
    problem, procedure = static.value
    if procedure.head is not None:
        params = replace(procedure.head, steps=0)(problem, params, train)
    return params, procedure.optimizer(step_size).init(params)


@partial(jax.jit, static_argnums=0)
def _stepped(
    static: Static[tuple[Problem, Procedure]], params: Params, state: Any, train: Batch, step_size: Array, steps: Array
) -> tuple[Params, Any]:
    """So many steps further; one program serves all numbers of steps and step sizes."""
    problem, procedure = static.value
    optimizer = procedure.optimizer(step_size)

    def step(_: Array, carry: tuple[Params, Any]) -> tuple[Params, Any]:
        params, state = carry
        changes, state = optimizer.update(jax.grad(problem.objective)(params, train), state, params)
        return optax.apply_updates(params, changes), state

    return jax.lax.fori_loop(0, steps, step, (params, state))


@partial(jax.jit, static_argnums=0)
def _calibrated(static: Static[tuple[Problem, Procedure]], params: Params, train: Batch) -> Params:
    """With the model's statistics of the task, where it keeps any."""
    problem, _ = static.value
    return problem.net.calibrate(params, train)
