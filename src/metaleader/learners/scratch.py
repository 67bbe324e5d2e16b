"""Learning every task from scratch (paper, section 6)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
from jaxtyping import Array

from metaleader.buffer import store as buffers
from metaleader.errors import check_positive
from metaleader.learners import base as states
from metaleader.learners.base import Adam, Momentum, Optimizer, State
from metaleader.learners.joint import JointTraining, start, train
from metaleader.problem.batch import Batch
from metaleader.problem.objective import Params, Problem
from metaleader.update import Identity, UpdateProcedure

MORE = 8  # how many times as many steps to take at most


@dataclass(frozen=True)
class Scratch:
    """New random weights every round, trained on that round's data only, as it arrives.

    Raises:
        ValueError: a size is not positive.
    """

    steps: int = 40
    """Optimiser steps whenever datapoints arrive."""
    batch_size: int = 50
    """Examples in a minibatch, all there are if fewer."""
    optimizer: Adam | Momentum | Optimizer = Adam()
    """A function that gives an optax transformation."""
    equal_gradients: bool = False
    """Take as many per-example gradients whenever datapoints arrive: a minibatch of fewer than `batch_size` datapoints
    costs less, and more steps are taken, up to `MORE` times `steps`."""

    def __post_init__(self) -> None:
        check_positive(self, "steps", "batch_size")

    @property
    def adaptation(self) -> UpdateProcedure:
        """U(w) = w: `observe` has done the learning."""
        return Identity()

    def init(self, problem: Problem, key: Array, like: Batch, capacity: int = 1024) -> State:
        """A first set of random parameters."""
        return start(problem, self.optimizer, key, like, capacity)

    def observe(self, problem: Problem, state: State, task: int, batch: Batch) -> State:
        """Forget everything when a task is new; then train on the data of the round."""
        if task + 1 != state.buffer.tasks:
            key, init_key = jax.random.split(state.key)
            params = problem.model.init(init_key)
            forgotten = state.buffer._replace(counts=0 * state.buffer.counts, tasks=state.buffer.tasks * 0 + task)
            state = state._replace(params=params, opt_state=self.optimizer().init(params), buffer=forgotten, key=key)
        state = state._replace(buffer=buffers.append(state.buffer, task, batch))
        most = self.steps * MORE if self.equal_gradients else self.steps
        one_task = JointTraining(most, batch_tasks=0, batch_size=self.batch_size, optimizer=self.optimizer)
        a_step = min(state.buffer.size, self.batch_size)
        return train(problem, one_task, state, steps=min(round(self.steps * self.batch_size / a_step), most))

    def spending(self, gradients: int) -> Scratch:
        """The same learner with as many steps, at least one, as take about so many per-example gradients."""
        return replace(self, steps=max(round(gradients / self.batch_size), 1), equal_gradients=True)

    def adapt(self, problem: Problem, state: State, batch: Batch) -> Params:
        """The parameters trained on this round's data."""
        return states.adapt(problem, self.adaptation, state, batch)
