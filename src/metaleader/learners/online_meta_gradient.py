"""Online gradient steps on the meta-objective, without data of past tasks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import optax
from jaxtyping import Array

from metaleader.buffer.store import TaskBuffer
from metaleader.errors import check_positive
from metaleader.learners import base as states
from metaleader.learners.base import Adam, Optimizer, State
from metaleader.learners.ftml import FTML
from metaleader.problem.batch import Batch, bucket_size
from metaleader.problem.objective import Params, Problem
from metaleader.update import GradientDescent, UpdateProcedure


@dataclass(frozen=True)
class AdaGrad:
    """AdaGrad (Duchi et al., 2011): the step of a coordinate falls with the sum of its squared gradients."""

    learning_rate: float = 1e-2
    """Step size at first."""
    average: float = 0.0
    """Decay of the moving average of the iterates, as in `Adam`; 0: the last one is used."""

    def __post_init__(self) -> None:
        check_positive(self, "learning_rate")
        states.check_average(self.average)

    def __call__(self) -> optax.GradientTransformation:
        """The optax transformation."""
        return states.averaging(optax.adagrad(self.learning_rate), self.average)


class CurrentRound(NamedTuple):
    """The round under way.

    Attributes:
        round: host scalar: which one, from 0; -1 before the first.
        data: its datapoints alone.
    """

    round: Any
    data: TaskBuffer

    @property
    def size(self) -> int:
        """How many datapoints are stored."""
        return self.data.size


@dataclass(frozen=True)
class Streaming:
    """Online gradient descent on the meta-objective of the current task: `w <- w - eta grad_w L(D_t_val, U_t(w))`.

    FTML (Eq. 4) sums over all tasks so far and keeps their data. Here each round's data goes when the round ends, and
    what the tasks before taught is in w and in the optimiser: the state has the size of a round, however many there
    were. It is the deep form of the streaming learners of the theory (`metaleader.theory.streaming`). Each `observe`
    runs one Meta-Update (Algorithm 2) whose nu_t is all on the current task.

    Raises:
        ValueError: a size is not positive.
    """

    update: GradientDescent | UpdateProcedure = GradientDescent()
    """The update procedure U, differentiated through in Meta-Update and applied by `adapt`."""
    meta_steps: int = 4
    """N_meta: outer steps whenever datapoints arrive."""
    meta_batch: int = 4
    """Draws of D_tr and D_val in the estimate of one meta-gradient."""
    train_size: int = 10
    """Examples in D_tr, on which the update procedure acts."""
    validation_size: int = 10
    """Examples in D_val, on which its result is judged."""
    optimizer: Adam | AdaGrad | Optimizer = Adam()
    """The outer optimiser: a function that gives an optax transformation."""

    def __post_init__(self) -> None:
        check_positive(self, "meta_steps", "meta_batch", "train_size", "validation_size")

    def init(self, problem: Problem, key: Array, like: Batch, capacity: int = 1024) -> State:  # noqa: ARG002
        """Random w_1, no data; room for what is in `like` at first."""
        state = self._meta_update().init(problem, key, like, bucket_size(len(like)))
        one_task = {name: getattr(state.buffer, name)[:1] for name in ("starts", "counts")}
        return state._replace(buffer=CurrentRound(np.asarray(-1, np.int64), state.buffer._replace(**one_task)))

    def observe(self, problem: Problem, state: State, task: int, batch: Batch) -> State:
        """Forget the round before when a task is new; add the datapoints, then Meta-Update on this round's."""
        data = state.buffer.data
        if task != state.buffer.round:
            data = data._replace(counts=0 * data.counts, tasks=0 * data.tasks)
        state = self._meta_update().observe(problem, state._replace(buffer=data), 0, batch)
        return state._replace(buffer=CurrentRound(np.asarray(task, np.int64), state.buffer))

    def adapt(self, problem: Problem, state: State, batch: Batch) -> Params:
        """U(w_t) on all data of the round so far."""
        return states.adapt(problem, self.adaptation, state._replace(buffer=state.buffer.data), batch)

    @property
    def adaptation(self) -> UpdateProcedure:
        """U."""
        return self.update

    def spending(self, gradients: int) -> Streaming:
        """The same learner with as many meta-steps, at least one, as take about so many per-example gradients."""
        return replace(self, meta_steps=self._meta_update().spending(gradients).meta_steps)

    def _meta_update(self) -> FTML:
        """FTML with these settings; on a buffer of one task it is this learner."""
        return FTML(
            update=self.update,
            meta_steps=self.meta_steps,
            meta_batch=self.meta_batch,
            train_size=self.train_size,
            validation_size=self.validation_size,
            optimizer=self.optimizer,
        )
