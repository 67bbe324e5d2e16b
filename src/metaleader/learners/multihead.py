"""Joint training with one head per task, for tasks whose labels mean different things (paper, section 6.2)."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
from jaxtyping import Array

from metaleader.buffer import TaskKey
from metaleader.errors import check_positive
from metaleader.learners import base
from metaleader.learners.base import Learned
from metaleader.learners.joint import JointTraining, train
from metaleader.problem.batch import Batch
from metaleader.problem.model import Params
from metaleader.problem.problem import Problem
from metaleader.update import HeadFirst, Identity, UpdateProcedure, mask


@dataclass(frozen=True)
class MultiHead(JointTraining):
    """Joint training in which each task has its own head: `argmin_{a, h_1..h_t} sum_{k<=t} f_k(a, h_k)`.

    All tasks share the parameters a; each task has its own copy of those named in `own`, in order of first arrival.
    `Learned.params` is the pair of a and of all heads, stacked; the leaves of the other part are None in each.

    Raises:
        ValueError: see `JointTraining`; or tasks are to be mixed, or the buffer is limited.
    """

    _: KW_ONLY
    own: tuple[str, ...] = ("head",)
    """Names of the parameters that every task has for itself."""
    tasks: int = 128
    """How many heads there are: the most tasks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "batch_tasks", "tasks")
        if self.retention.policy != "all":
            raise ValueError(f"retention must keep all where every task has a head of its own, got {self.retention}")

    def init(self, problem: Problem, key: Array, example: Batch) -> Learned:
        """Random shared parameters and heads, an empty buffer.

        Raises:
            ValueError: no parameter bears a name in `own`.
        """
        key, init_key, heads_key = jax.random.split(key, 3)
        drawn = problem.init(init_key)
        is_own = mask(drawn, self.own)

        def head(key: Array) -> Params:
            return _part(problem.init(key), is_own, True)

        heads = jax.vmap(head)(jax.random.split(heads_key, self.tasks))
        params = (_part(drawn, is_own, False), heads)
        return Learned(params, base.optimizer_state(self.optimizer, params), self.retention.empty(example, key), key)

    def _append(self, state: Learned, task: TaskKey, batch: Batch) -> Learned:
        """The state with the datapoints in its buffer.

        Raises:
            ValueError: there are more tasks than heads.
        """
        buffer = self.retention.append(state.buffer, task, batch)
        if buffer.rows > self.tasks:
            raise ValueError(
                f"task {task!r} has no head: it is task number {buffer.rows} and tasks is {self.tasks}; set tasks to "
                "the most that will come"
            )
        return state._replace(buffer=buffer)

    def _adapted(
        self, problem: Problem, state: Learned, task: TaskKey, batch: Batch, update: UpdateProcedure
    ) -> tuple[Params, int]:
        row = state.buffer.row_of(task)
        own = min(state.buffer.rows, self.tasks - 1) if row is None else row  # a task to come has the next head
        return base.adapted(problem, update, of_task(state.leader, own), state.buffer, state.key, batch)


@dataclass(frozen=True)
class MultiHeadTOE(MultiHead):
    """Train on everything, each task with its own head.

    The current task, whose head is new and would see next to nothing of a long stream otherwise, is one of the tasks of
    every minibatch. `adapt` gives (a, h_t) of the task.

    Raises:
        ValueError: see `MultiHead`; or minibatches are of the current task alone, and earlier ones would not be drawn.

    Examples:
        >>> import numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
        >>> opposite = [ml.Task.from_arrays(x, sign * x, x, sign * x) for sign in (1, -1)]
        >>> learner = ml.MultiHeadTOE(50, optimizer=ml.Adam(0.1), tasks=2)
        >>> [record.loss < 0.05 for record in ml.play(problem, opposite, learner)]  # one head could not do both
        [True, True]
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_tasks < 2:
            raise ValueError(
                f"batch_tasks must be at least 2, got {self.batch_tasks}: the current task is in every minibatch, and "
                "earlier ones would never be drawn again; for training on the current task alone, see Scratch"
            )

    def observe(self, problem: Problem, state: Learned, task: TaskKey, batch: Batch) -> tuple[Learned, int]:
        """Add the datapoints to the buffer, then train on examples of all tasks.

        Raises:
            ValueError: there are more tasks than heads.
        """
        state = self._append(state, task, batch)
        return train(problem, self.optimizer, self.minibatches, state, self.steps, of_task=of_task, current_first=True)

    def adapt(self, problem: Problem, state: Learned, task: TaskKey, batch: Batch) -> tuple[Params, int]:
        """The shared parameters with the task's head."""
        return self._adapted(problem, state, task, batch, Identity())


@dataclass(frozen=True)
class MultiHeadFTL(MultiHead):
    """Follow the leader: joint training on the other tasks, each with its own head, then fine-tuning.

    The head of a task that was never another's past is as it was drawn; `HeadFirst` begins with one of its own.

    Examples:
        >>> import numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
        >>> state = ml.begin(problem, ml.MultiHeadFTL(tasks=3), ml.Task.from_arrays(x, x))
        >>> shared, heads = state.learner.params  # of so small a net, the head is all
        >>> heads["head"]["kernel"].shape  # one for each of 3 tasks
        (3, 1, 1)
    """

    update: HeadFirst | UpdateProcedure = HeadFirst()
    """The fine-tuning."""

    def observe(self, problem: Problem, state: Learned, task: TaskKey, batch: Batch) -> tuple[Learned, int]:
        """Add the datapoints to the buffer, then train on examples of the other tasks.

        Raises:
            ValueError: there are more tasks than heads.
        """
        state = self._append(state, task, batch)
        return train(problem, self.optimizer, self.minibatches, state, self.steps, "past", of_task)

    def adapt(self, problem: Problem, state: Learned, task: TaskKey, batch: Batch) -> tuple[Params, int]:
        """The shared parameters with the task's head, fine-tuned on the task's data so far."""
        return self._adapted(problem, state, task, batch, self.update)


def _part(params: Params, is_own: Any, own: bool) -> Params:
    """The leaves that are a task's own, or those that are shared, and None in place of the others."""
    return jax.tree.map(lambda leaf, its: leaf if its == own else None, params, is_own)


def of_task(params: tuple[Params, Params], row: Any) -> Params:
    """(a, h_row): the parameters of a task, as the model expects them."""
    shared, heads = params
    return jax.tree.map(
        lambda common, stacked: stacked[row] if common is None else common, shared, heads, is_leaf=lambda x: x is None
    )
