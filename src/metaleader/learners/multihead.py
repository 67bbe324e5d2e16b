"""Train on everything with one head per task, for tasks whose labels mean different things (paper, section 6.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from metaleader import buffer as buffers
from metaleader.batch import Batch
from metaleader.buffer import TaskBuffer
from metaleader.errors import check_positive
from metaleader.learners import state as states
from metaleader.learners.state import Adam, Momentum, Optimizer, State
from metaleader.objective import Params, Problem
from metaleader.update import Identity, UpdateProcedure, mask


@dataclass(frozen=True)
class MultiHeadTOE:
    """Train on everything, where every task has a head of its own: `argmin_{a, h_1..h_t} sum_{k<=t} f_k(a, h_k)`.

    All tasks share the parameters a; those named in `own` exist once a task. A minibatch holds `batch_tasks` tasks
    with `batch_size` examples of each, so that a model which normalises by its batch sees one task at a time, as it
    does when it is judged. One of them is always the current task, whose head is new and would see next to nothing of
    a long stream otherwise; the others are drawn in proportion to their datapoints. `adapt` gives (a, h_t) of the
    current task.

    `State.params` is the pair of a and of all heads, stacked; the leaves of the other part are None in each.

    Raises:
        ValueError: a size is not positive.
    """

    steps: int = 10
    """Optimiser steps whenever datapoints arrive."""
    batch_tasks: int = 4
    """Tasks in a minibatch: the current one, and others drawn with replacement."""
    batch_size: int = 25
    """Examples of each of them, all there are if fewer."""
    optimizer: Adam | Momentum | Optimizer = Adam()
    """A function that gives an optax transformation."""
    own: tuple[str, ...] = ("head",)
    """Names of the parameters that every task has for itself."""
    tasks: int = 128
    """How many heads there are: the longest stream."""

    def __post_init__(self) -> None:
        check_positive(self, "steps", "batch_tasks", "batch_size", "tasks")

    @property
    def update(self) -> UpdateProcedure:
        """U(w) = w."""
        return Identity()

    def init(self, problem: Problem, key: Array, like: Batch, capacity: int = 1024) -> State:
        """Random shared parameters and heads, an empty buffer.

        Raises:
            ValueError: no parameter bears a name in `own`.
        """
        key, init_key, heads_key = jax.random.split(key, 3)
        drawn = problem.model.init(init_key)
        is_own = mask(drawn, self.own)

        def head(key: Array) -> Params:
            return _part(problem.model.init(key), is_own, True)

        heads = jax.vmap(head)(jax.random.split(heads_key, self.tasks))
        params = (_part(drawn, is_own, False), heads)
        return State(params, self.optimizer().init(params), buffers.empty(like, capacity), key, states.count(0))

    def observe(self, problem: Problem, state: State, task: int, batch: Batch) -> State:
        """Add the datapoints to the buffer, then train on examples of all rounds.

        Raises:
            ValueError: there are more tasks than heads.
        """
        if task >= self.tasks:
            raise ValueError(f"round {task + 1} has no head, there are {self.tasks}: set tasks to the rounds to come")
        buffer = buffers.append(state.buffer, task, batch)
        params, opt_state, key, examples = _train(problem, self, state.params, state.opt_state, state.key, buffer)
        return State(params, opt_state, buffer, key, states.count(state.gradient_evaluations + int(examples)))

    def adapt(self, problem: Problem, state: State, batch: Batch) -> Params:
        """The shared parameters with the current task's head."""
        joined = _joined(states.averaged_params(state), int(state.buffer.tasks) - 1)
        return states.adapt(problem, self.update, state._replace(params=joined, opt_state=()), batch)


def _part(params: Params, is_own: Any, own: bool) -> Params:
    """The leaves that are a task's own, or those that are shared, and None in place of the others."""
    return jax.tree.map(lambda leaf, its: leaf if its == own else None, params, is_own)


def _joined(params: tuple[Params, Params], task: Any) -> Params:
    """(a, h_task): the parameters of a task, as the model expects them."""
    shared, heads = params
    return jax.tree.map(
        lambda common, stacked: stacked[task] if common is None else common, shared, heads, is_leaf=lambda x: x is None
    )


@partial(jax.jit, static_argnums=(0, 1))
def _train(
    problem: Problem, learner: MultiHeadTOE, params: Any, opt_state: Any, key: Array, buffer: TaskBuffer
) -> tuple[Any, Any, Array, Float[Array, ""]]:
    """`steps` optimiser steps; also how many examples they took."""
    transformation = learner.optimizer()
    counts, starts = jnp.asarray(buffer.counts), jnp.asarray(buffer.starts)
    key, tasks_key, data_key = jax.random.split(key, 3)
    shape = (learner.steps, learner.batch_tasks)
    tasks = buffers.sample_index(tasks_key, counts.astype(jnp.float32), shape)
    tasks = tasks.at[:, 0].set(buffer.tasks - 1)

    def draw(key: Array, task: Array) -> buffers.Draw:
        return buffers.sample_distinct(key, counts[task], learner.batch_size)

    places, weights = jax.vmap(jax.vmap(draw))(jax.random.split(data_key, shape), tasks)

    def step(carry: tuple[Any, Any], drawn: Any) -> tuple[tuple[Any, Any], None]:
        params, opt_state = carry

        def loss(params: Any) -> Float[Array, ""]:
            def of_task(task: Array, places: Array, weights: Array) -> Float[Array, ""]:
                batch = buffers.take(buffer, starts[task] + places, weights)
                return problem.objective(_joined(params, task), batch)

            return jnp.mean(jax.vmap(of_task)(*drawn))

        changes, opt_state = transformation.update(jax.grad(loss)(params), opt_state, params)
        return (optax.apply_updates(params, changes), opt_state), None

    carry, _ = jax.lax.scan(step, (params, opt_state), (tasks, places, weights))
    return *carry, key, jnp.sum(weights)
