"""The meta-objective and its gradient (paper, Eqs. 4 and 5)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metaleader.problem.batch import Batch
from metaleader.problem.model import Params, calibrates_by_task
from metaleader.problem.problem import Problem
from metaleader.update.procedure import MetaParams, PullsBack, UpdateProcedure


def adapt(problem: Problem, update: UpdateProcedure, meta_params: MetaParams, batch: Batch) -> Params:
    """The task's parameters: U(w) on `batch`, with the model's statistics of that task, where it keeps any.

    Examples:
        >>> import jax.numpy as jnp, metaleader as ml
        >>> model = ml.Model(lambda key: jnp.zeros(()), lambda w, x, weights: w * x)
        >>> problem = ml.Problem(model, ml.squared_error, ml.mean_squared_error)
        >>> data = ml.Batch.of(jnp.ones((1, 1)), 2 * jnp.ones((1, 1)))  # the loss is (w - 2)^2
        >>> adapted = ml.adapt(problem, ml.GradientDescent(steps=3, step_size=0.25), jnp.zeros(()), data)
        >>> float(adapted), 2 - 2 * (1 - 2 * 0.25) ** 3  # as in closed form
        (1.75, 1.75)
    """
    return problem.net.calibrate(update(problem, meta_params, batch), batch)


def meta_objective(
    problem: Problem, update: UpdateProcedure, meta_params: MetaParams, train: Batch, validation: Batch
) -> Float[Array, ""]:
    """L(D_val, U(w)) with U(w) on D_tr: one task's term in Eq. 5, and what a procedure like Reptile adds to it.

    Examples:
        >>> import jax.numpy as jnp, metaleader as ml
        >>> model = ml.Model(lambda key: jnp.zeros(()), lambda w, x, weights: w * x)
        >>> problem = ml.Problem(model, ml.squared_error, ml.mean_squared_error)
        >>> data = ml.Batch.of(jnp.ones((1, 1)), 2 * jnp.ones((1, 1)))  # the loss is (w - 2)^2
        >>> updates = ml.Identity(), ml.GradientDescent(1, 0.25), ml.GradientDescent(2, 0.25)
        >>> [float(ml.meta_objective(problem, update, jnp.zeros(()), data, data)) for update in updates]
        [4.0, 1.0, 0.25]
    """
    updated = update(problem, meta_params, train)
    # A model that predicts by the statistics of all tasks has none of them here: D_val is normalised by its own.
    judged = problem.net.calibrate(updated, train) if calibrates_by_task(problem.net) else updated
    loss = problem.objective(judged, validation)
    return loss + update.pull(meta_params, updated) if isinstance(update, PullsBack) else loss


def meta_gradient(
    problem: Problem,
    update: UpdateProcedure,
    meta_params: MetaParams,
    train: Batch,
    validation: Batch,
    tasks_at_once: int = 1,
) -> tuple[Float[Array, ""], MetaParams]:
    """The mean over tasks of L(D_k_val, U_k(w)) and its gradient g_t(w) in w (Eq. 5).

    Args:
        problem: the model and its loss.
        update: the update procedure U.
        meta_params: w.
        train: D_k_tr of every task: the leaves of a `Batch`, with an axis of tasks before that of examples.
        validation: D_k_val, likewise.
        tasks_at_once: how many tasks share one vectorised computation; the rest wait their turn. One at a
            time keeps the working set within a CPU's cache, and all at once fills a GPU.

    Returns:
        The mean and its gradient. A task without examples of weight contributes zeros.

    Examples:
        >>> import jax.numpy as jnp, metaleader as ml
        >>> model = ml.Model(lambda key: jnp.zeros(()), lambda w, x, weights: w * x)
        >>> problem = ml.Problem(model, ml.squared_error, ml.mean_squared_error)
        >>> tasks = ml.Batch(jnp.ones((2, 1, 1)), jnp.array([2.0, 4.0]).reshape(2, 1, 1), jnp.ones((2, 1)))
        >>> update, points = ml.GradientDescent(1, 0.25), (-0.5, 0.0, 0.5)
        >>> below, at, above = [ml.meta_gradient(problem, update, jnp.array(w), tasks, tasks) for w in points]
        >>> float(at[1]), float(above[0] - below[0])  # the gradient, and a finite difference
        (-1.5, -1.5)
    """

    def of_task(params: MetaParams, batches: tuple[Batch, Batch]) -> Float[Array, ""]:
        return meta_objective(problem, update, params, *batches)

    return mean_over_tasks(of_task, meta_params, (train, validation), tasks_at_once)


def mean_over_tasks(
    of_task: Callable[[MetaParams, Any], Float[Array, ""]], params: MetaParams, tasks: Any, tasks_at_once: int = 1
) -> tuple[Float[Array, ""], MetaParams]:
    """The mean over tasks of a function of parameters and a task, and its gradient in the parameters.

    Args:
        of_task: the function.
        params: the parameters.
        tasks: a pytree whose leaves have an axis of tasks in front.
        tasks_at_once: as in `meta_gradient`.
    """

    def of_one(task: Any) -> Any:
        return jax.value_and_grad(of_task)(params, task)

    def of_group(group: Any) -> Any:
        return jax.tree.map(partial(jnp.sum, axis=0), jax.vmap(of_one)(group))

    # Summing as the tasks go by keeps one gradient in memory, not one a task.
    def add(total: Any, group: Any) -> tuple[Any, None]:
        each = of_one(group) if size == 1 else of_group(group)  # tracing a vmap over one task takes its time
        return jax.tree.map(lambda t, e: t + e.astype(t.dtype), total, each), None

    count = len(jax.tree.leaves(tasks)[0])
    size = _divisor(count, tasks_at_once)
    groups = (count,) if size == 1 else (count // size, size)
    grouped = jax.tree.map(lambda leaf: leaf.reshape(*groups, *leaf.shape[1:]), tasks)
    total = jax.lax.scan(add, (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)), grouped)[0]
    loss, gradient = jax.tree.map(lambda t: t / count, total)
    return loss, gradient


def _divisor(n: int, at_most: int) -> int:
    """The largest divisor of `n` that is at most `at_most`."""
    return max(d for d in range(1, n + 1) if n % d == 0 and d <= max(at_most, 1))
