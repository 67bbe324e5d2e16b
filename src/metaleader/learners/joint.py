"""Joint training: train on everything, and follow the leader with fine-tuning (paper, sections 3 and 6)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import optax
from jaxtyping import Array, Int

from metaleader import buffer as buffers
from metaleader.batch import Batch
from metaleader.buffer import TaskBuffer
from metaleader.errors import check_positive
from metaleader.learners import state as states
from metaleader.learners.state import Adam, Momentum, Optimizer, State
from metaleader.memory import Memory
from metaleader.objective import Params, Problem
from metaleader.update import GradientDescent, Identity, UpdateProcedure


@dataclass(frozen=True)
class TOE:
    """Train on everything: one model for all data so far, the current round's included, and no adaptation.

    `w = argmin_w sum_{k<=t} f_k(w)` over the examples of all rounds, by minibatches drawn from all of them.

    Raises:
        ValueError: a size is not positive.
    """

    steps: int = 10
    """Optimiser steps whenever datapoints arrive."""
    batch_size: int = 50
    """Examples in a minibatch."""
    optimizer: Adam | Momentum | Optimizer = Adam()
    """A function that gives an optax transformation."""
    memory: Memory = Memory()
    """Which datapoints the buffer keeps."""

    def __post_init__(self) -> None:
        check_positive(self, "steps", "batch_size")

    @property
    def update(self) -> UpdateProcedure:
        """U(w) = w."""
        return Identity()

    def init(self, problem: Problem, key: Array, like: Batch, capacity: int = 1024) -> State:
        """Random parameters, an empty buffer."""
        return start(problem, self.optimizer, key, like, capacity, self.memory)

    def observe(self, problem: Problem, state: State, task: int, batch: Batch) -> State:
        """Add the datapoints to the buffer, then train on examples of all rounds."""
        state = state._replace(buffer=self.memory.append(state.buffer, task, batch))
        return train(problem, self.optimizer, self.steps, self.batch_size, state, state.buffer.size)

    def adapt(self, problem: Problem, state: State, batch: Batch) -> Params:
        """The parameters as they are (their average, with `Adam.average`)."""
        return states.adapt(problem, self.update, state, batch)


@dataclass(frozen=True)
class FTL:
    """Follow the leader: joint training on the rounds before this one, then fine-tuning on this one's data.

    Raises:
        ValueError: a size is not positive.
    """

    update: GradientDescent | UpdateProcedure = GradientDescent()
    """The fine-tuning."""
    steps: int = 10
    """Optimiser steps of joint training whenever datapoints arrive."""
    batch_size: int = 50
    """Examples in a minibatch."""
    optimizer: Adam | Momentum | Optimizer = Adam()
    """A function that gives an optax transformation."""
    memory: Memory = Memory()
    """Which datapoints the buffer keeps."""

    def __post_init__(self) -> None:
        check_positive(self, "steps", "batch_size")

    def init(self, problem: Problem, key: Array, like: Batch, capacity: int = 1024) -> State:
        """Random parameters, an empty buffer."""
        return start(problem, self.optimizer, key, like, capacity, self.memory)

    def observe(self, problem: Problem, state: State, task: int, batch: Batch) -> State:
        """Add the datapoints to the buffer, then train on examples of the rounds before."""
        state = state._replace(buffer=self.memory.append(state.buffer, task, batch))
        return train(problem, self.optimizer, self.steps, self.batch_size, state, state.buffer.past)

    def adapt(self, problem: Problem, state: State, batch: Batch) -> Params:
        """The joint model, fine-tuned on the round's data so far."""
        return states.adapt(problem, self.update, state, batch)


def start(
    problem: Problem, optimizer: Optimizer, key: Array, like: Batch, capacity: int, memory: Memory = Memory()
) -> State:
    """Random parameters, a fresh optimiser and an empty buffer."""
    key, init_key = jax.random.split(key)
    params = problem.model.init(init_key)
    return State(params, optimizer().init(params), memory.empty(like, key, capacity), key, states.count(0))


def train(problem: Problem, optimizer: Optimizer, steps: int, batch_size: int, state: State, examples: int) -> State:
    """`steps` optimiser steps on minibatches of the first `examples` in the buffer; none if there are none.

    The examples of a minibatch are distinct; where fewer than `batch_size` exist, it holds them all.
    """
    if examples == 0:
        return state
    params, opt_state, key = _train(
        problem,
        optimizer,
        steps,
        batch_size,
        state.params,
        state.opt_state,
        state.key,
        state.buffer,
        examples,
    )
    spent = states.count(state.gradient_evaluations + steps * min(batch_size, examples))
    return State(params, opt_state, state.buffer, key, spent)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _train(
    problem: Problem,
    optimizer: Optimizer,
    steps: int,
    batch_size: int,
    params: Params,
    opt_state: Any,
    key: Array,
    buffer: TaskBuffer,
    examples: Int[Array, ""],
) -> tuple[Params, Any, Array]:
    transformation = optimizer()

    def step(carry: tuple[Params, Any], draw: buffers.Draw) -> tuple[tuple[Params, Any], None]:
        params, opt_state = carry
        gradient = jax.grad(problem.objective)(params, buffers.take(buffer, *draw))
        changes, opt_state = transformation.update(gradient, opt_state, params)
        return (optax.apply_updates(params, changes), opt_state), None

    key, data_key = jax.random.split(key)
    sample = partial(buffers.sample_distinct, count=examples, n=batch_size)
    carry, _ = jax.lax.scan(step, (params, opt_state), jax.vmap(sample)(jax.random.split(data_key, steps)))
    return *carry, key
