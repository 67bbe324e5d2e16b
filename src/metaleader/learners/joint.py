"""Joint training: train on everything, and follow the leader with fine-tuning (paper, sections 3 and 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, fields, replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from metaleader.buffer import store as buffers
from metaleader.buffer.retention import Memory
from metaleader.buffer.store import TaskBuffer
from metaleader.errors import check_not_negative, check_positive
from metaleader.learners import base as states
from metaleader.learners.base import Adam, Momentum, Optimizer, State
from metaleader.problem.batch import Batch
from metaleader.problem.objective import Params, Problem
from metaleader.update import GradientDescent, Identity, UpdateProcedure

Joint = TypeVar("Joint", bound="JointTraining")
OfTask: TypeAlias = Callable[[Params, Any], Params]  # what the model is given for a task: its parameters


@dataclass(frozen=True)
class JointTraining:
    """Minibatches of joint training: `steps` optimiser steps on the data of several tasks whenever datapoints arrive.

    A minibatch holds `batch_tasks` tasks, drawn with replacement in proportion to their datapoints, and of each
    `batch_size` distinct examples, all there are if fewer; its loss is the mean over its tasks. A model that normalises
    by its batch then sees one task at a time, as it does when it is judged. With `batch_tasks` 0 a minibatch is
    `batch_size` examples of all tasks mixed.

    Raises:
        ValueError: a size is negative, or one that must be positive is not.
    """

    steps: int = 10
    """Optimiser steps whenever datapoints arrive."""
    _: KW_ONLY
    batch_tasks: int = 2
    """Tasks in a minibatch; 0: examples of all tasks, mixed."""
    batch_size: int = 25
    """Examples of each task in a minibatch; of all tasks together, where they are mixed."""
    calibration_size: int = 0
    """Further examples of each task that give a model with statistics of a task (`norm="task"`) those by which the
    `batch_size` examples are normalised, as D_t does when test images are predicted. 0: a minibatch normalises
    itself."""
    optimizer: Adam | Momentum | Optimizer = Adam()
    """A function that gives an optax transformation."""
    memory: Memory = Memory()
    """Which datapoints the buffer keeps."""

    def __post_init__(self) -> None:
        check_positive(self, "steps", "batch_size")
        check_not_negative(self, "batch_tasks", "calibration_size")
        if self.calibration_size and not self.batch_tasks:
            raise ValueError(
                f"calibration_size must be 0 where tasks are mixed (batch_tasks=0), got {self.calibration_size}"
            )

    def init(self, problem: Problem, key: Array, like: Batch, capacity: int = 1024) -> State:
        """Random parameters, a fresh optimiser and an empty buffer."""
        return start(problem, self.optimizer, key, like, capacity, self.memory)

    def spending(self: Joint, gradients: int) -> Joint:
        """The same learner with as many steps, at least one, as take about so many per-example gradients."""
        a_step = max(self.batch_tasks, 1) * (self.batch_size + self.calibration_size)
        return replace(self, steps=max(round(gradients / a_step), 1))


@dataclass(frozen=True)
class TOE(JointTraining):
    """Train on everything: one model for all data so far, the current round's included, and no adaptation.

    `w = argmin_w sum_{k<=t} f_k(w)` over the examples of all rounds.
    """

    @property
    def adaptation(self) -> UpdateProcedure:
        """U(w) = w."""
        return Identity()

    def observe(self, problem: Problem, state: State, task: int, batch: Batch) -> State:
        """Add the datapoints to the buffer, then train on examples of all rounds."""
        state = state._replace(buffer=self.memory.append(state.buffer, task, batch))
        return train(problem, self, state)

    def adapt(self, problem: Problem, state: State, batch: Batch) -> Params:
        """The parameters as they are (their average, with `Adam.average`)."""
        return states.adapt(problem, self.adaptation, state, batch)


@dataclass(frozen=True)
class FTL(JointTraining):
    """Follow the leader: joint training on the rounds before this one, then fine-tuning on this one's data."""

    update: GradientDescent | UpdateProcedure = GradientDescent()
    """The fine-tuning."""

    @property
    def adaptation(self) -> UpdateProcedure:
        """The fine-tuning."""
        return self.update

    def observe(self, problem: Problem, state: State, task: int, batch: Batch) -> State:
        """Add the datapoints to the buffer, then train on examples of the rounds before."""
        state = state._replace(buffer=self.memory.append(state.buffer, task, batch))
        return train(problem, self, state, past_only=True)

    def adapt(self, problem: Problem, state: State, batch: Batch) -> Params:
        """The joint model, fine-tuned on the round's data so far."""
        return states.adapt(problem, self.adaptation, state, batch)


def start(
    problem: Problem, optimizer: Optimizer, key: Array, like: Batch, capacity: int, memory: Memory = Memory()
) -> State:
    """Random parameters, a fresh optimiser and an empty buffer."""
    key, init_key = jax.random.split(key)
    params = problem.model.init(init_key)
    return State(params, optimizer().init(params), memory.empty(like, key, capacity), key, states.count(0))


def everywhere(params: Params, task: Any) -> Params:  # noqa: ARG001
    """The same parameters for every task."""
    return params


def train(
    problem: Problem,
    training: JointTraining,
    state: State,
    past_only: bool = False,
    of_task: OfTask = everywhere,
    newest_first: bool = False,
    steps: int | None = None,
) -> State:
    """Optimiser steps on minibatches from the buffer; none if there is nothing to learn from.

    Args:
        problem: the model and its loss.
        training: how minibatches are made.
        state: what is trained, and the data.
        past_only: leave out the newest task.
        of_task: the model's parameters for a task, from all parameters and the task's row in the buffer.
        newest_first: make the newest task the first of every minibatch.
        steps: how many of `training.steps` to take; None: all.
    """
    if (state.buffer.past if past_only else state.buffer.size) == 0:
        return state
    # Without what a subclass adds: fine-tuned otherwise, the same training is the same program.
    own = {field.name: getattr(training, field.name) for field in fields(JointTraining)}
    params, opt_state, key, spent = _train(
        problem,
        JointTraining(**own),
        of_task,
        state.params,
        state.opt_state,
        state.key,
        past_only,
        newest_first,
        state.buffer,
        np.int32(training.steps if steps is None else steps),
    )
    total = states.count(state.gradient_evaluations + int(spent))
    return State(params, opt_state, state.buffer, key, total)


@partial(jax.jit, static_argnums=(0, 1, 2, 6, 7))
def _train(
    problem: Problem,
    training: JointTraining,
    of_task: OfTask,
    params: Params,
    opt_state: Any,
    key: Array,
    past_only: bool,
    newest_first: bool,
    buffer: TaskBuffer,
    count: Any,
) -> tuple[Params, Any, Array, Float[Array, ""]]:
    """The first `count` of the steps; also how many examples they took."""
    transformation = training.optimizer()
    key, data_key = jax.random.split(key)
    tasks, places, weights = _draws(training, data_key, buffer, past_only, newest_first)
    first = training.calibration_size

    def loss_of_task(params: Params, task: Array, places: Array, weights: Array) -> Float[Array, ""]:
        own = of_task(params, task)
        batch = buffers.take(buffer, places, weights)
        if first:
            own = problem.model.calibrate(own, batch[:first])
        return problem.objective(own, batch[first:])

    def step(i: Array, carry: tuple[Params, Any, Array]) -> tuple[Params, Any, Array]:
        params, opt_state, spent = carry
        drawn = jax.tree.map(lambda leaf: leaf[i], (tasks, places, weights))
        gradient = jax.grad(lambda params: jnp.mean(jax.vmap(partial(loss_of_task, params))(*drawn)))(params)
        changes, opt_state = transformation.update(gradient, opt_state, params)
        return optax.apply_updates(params, changes), opt_state, spent + jnp.sum(drawn[2])

    params, opt_state, spent = jax.lax.fori_loop(0, count, step, (params, opt_state, jnp.zeros(())))
    return params, opt_state, key, spent


def _draws(
    training: JointTraining, key: Array, buffer: TaskBuffer, past_only: bool, newest_first: bool
) -> tuple[Int[Array, "steps tasks"], Int[Array, "steps tasks n"], Float[Array, "steps tasks n"]]:
    """For every step, the rows of its tasks, and the places of the examples of each with their weights."""
    counts, starts = jnp.asarray(buffer.counts), jnp.asarray(buffer.starts)
    if past_only:
        counts = jnp.where(buffer.rounds == buffer.tasks - 1, 0, counts)
    if not training.batch_tasks:  # the newest task's examples are the last
        draw = partial(buffers.sample_distinct, count=jnp.sum(counts), n=training.batch_size)
        places, weights = jax.vmap(draw)(jax.random.split(key, training.steps))
        return jnp.zeros((training.steps, 1), jnp.int32), places[:, None], weights[:, None]
    tasks_key, data_key = jax.random.split(key)
    shape = (training.steps, training.batch_tasks)
    tasks = buffers.sample_index(tasks_key, counts.astype(jnp.float32), shape)
    if newest_first:
        tasks = tasks.at[:, 0].set(jnp.argmax(jnp.where(counts > 0, jnp.asarray(buffer.rounds), -1)))
    draws = buffers.sample_splits(data_key, counts, tasks, training.calibration_size, training.batch_size)
    places, weights = (jnp.concatenate(parts, axis=-1) for parts in zip(*draws, strict=True))
    return tasks, starts[tasks][..., None] + places, weights
