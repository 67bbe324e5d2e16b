"""Joint training with one head per task, for tasks whose labels mean different things (paper, section 6.2)."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
from jaxtyping import Array

from metaleader.errors import check_positive
from metaleader.learners import base as states
from metaleader.learners.base import State
from metaleader.learners.joint import JointTraining, train
from metaleader.problem.batch import Batch
from metaleader.problem.objective import Params, Problem
from metaleader.update import HeadFirst, Identity, UpdateProcedure, mask


@dataclass(frozen=True)
class MultiHead(JointTraining):
    """Joint training in which each task has its own head: `argmin_{a, h_1..h_t} sum_{k<=t} f_k(a, h_k)`.

    All tasks share the parameters a; each task has its own copy of those named in `own`. `State.params` is the pair of
    a and of all heads, stacked; the leaves of the other part are None in each.

    Raises:
        ValueError: see `JointTraining`; or tasks are to be mixed, or the buffer is limited.
    """

    _: KW_ONLY
    own: tuple[str, ...] = ("head",)
    """Names of the parameters that every task has for itself."""
    tasks: int = 128
    """How many heads there are: the longest stream."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "batch_tasks", "tasks")
        if self.memory.policy != "all":
            raise ValueError(f"memory must keep all where every task has a head of its own, got {self.memory}")

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
        return State(
            params, self.optimizer().init(params), self.memory.empty(like, key, capacity), key, states.count(0)
        )

    def _append(self, state: State, task: int, batch: Batch) -> State:
        """The state with the datapoints in its buffer.

        Raises:
            ValueError: there are more tasks than heads.
        """
        if task >= self.tasks:
            raise ValueError(f"round {task + 1} has no head, there are {self.tasks}: set tasks to the rounds to come")
        return state._replace(buffer=self.memory.append(state.buffer, task, batch))

    def _adapt(self, problem: Problem, state: State, batch: Batch, update: UpdateProcedure) -> Params:
        joined = of_task(states.averaged_params(state), int(state.buffer.tasks) - 1)
        return states.adapt(problem, update, state._replace(params=joined, opt_state=()), batch)


@dataclass(frozen=True)
class MultiHeadTOE(MultiHead):
    """Train on everything, each task with its own head.

    The current task, whose head is new and would see next to nothing of a long stream otherwise, is one of the tasks of
    every minibatch. `adapt` gives (a, h_t) of the current task.
    """

    @property
    def adaptation(self) -> UpdateProcedure:
        """U(w) = w."""
        return Identity()

    def observe(self, problem: Problem, state: State, task: int, batch: Batch) -> State:
        """Add the datapoints to the buffer, then train on examples of all rounds.

        Raises:
            ValueError: there are more tasks than heads.
        """
        return train(problem, self, self._append(state, task, batch), of_task=of_task, newest_first=True)

    def adapt(self, problem: Problem, state: State, batch: Batch) -> Params:
        """The shared parameters with the current task's head."""
        return self._adapt(problem, state, batch, self.adaptation)


@dataclass(frozen=True)
class MultiHeadFTL(MultiHead):
    """Follow the leader: joint training on the rounds before, each task with its own head, then fine-tuning.

    The current task's head is as it was drawn; `HeadFirst` begins with one of its own.
    """

    update: HeadFirst | UpdateProcedure = HeadFirst()
    """The fine-tuning."""

    @property
    def adaptation(self) -> UpdateProcedure:
        """The fine-tuning."""
        return self.update

    def observe(self, problem: Problem, state: State, task: int, batch: Batch) -> State:
        """Add the datapoints to the buffer, then train on examples of the rounds before.

        Raises:
            ValueError: there are more tasks than heads.
        """
        return train(problem, self, self._append(state, task, batch), past_only=True, of_task=of_task)

    def adapt(self, problem: Problem, state: State, batch: Batch) -> Params:
        """The shared parameters with the current task's head, fine-tuned on the round's data so far."""
        return self._adapt(problem, state, batch, self.adaptation)


def _part(params: Params, is_own: Any, own: bool) -> Params:
    """The leaves that are a task's own, or those that are shared, and None in place of the others."""
    return jax.tree.map(lambda leaf, its: leaf if its == own else None, params, is_own)


def of_task(params: tuple[Params, Params], task: Any) -> Params:
    """(a, h_task): the parameters of a task, as the model expects them."""
    shared, heads = params
    return jax.tree.map(
        lambda common, stacked: stacked[task] if common is None else common, shared, heads, is_leaf=lambda x: x is None
    )
