"""What a learner makes of a log: a function of the events in their order, and of nothing else.

Neither time nor threads decide on anything here, so that a learner that was stopped and goes on arrives, bit for bit,
where one that never was does.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from metaleader.buffer import TaskKey
from metaleader.buffer.store import without
from metaleader.learners import Learned, Learner
from metaleader.learners.multihead import MultiHead
from metaleader.live.events import Event, Forgetting, Group
from metaleader.live.layout import Layout
from metaleader.live.prequential import Prequential
from metaleader.problem import Problem

if TYPE_CHECKING:
    from metaleader.live.store import Store


class Stopped(Exception):  # noqa: N818 - not an error
    """The learner is closed while it learns the log anew."""


@dataclass(frozen=True)
class Progress:
    """Where a learner stands in its log.

    Attributes:
        state: of the learner; used up by learning the next event.
        sequence: the number of the last event that was learned.
        score: the account of what was judged.
        anew: whether the weights are what the datapoints now in the log make of them, and nothing else.
    """

    state: Any
    sequence: int
    score: Prequential
    anew: bool = True


@dataclass(frozen=True, eq=False)
class Course:
    """All that decides what is learned.

    Attributes:
        problem: what is learned.
        learner: by which learner.
        layout: of the datapoints.
        store: the log.
        seed: of the learner's randomness.
        window: how many judged datapoints are recent.
    """

    problem: Problem
    learner: Learner
    layout: Layout
    store: Store
    seed: int
    window: int

    @cached_property
    def structure(self) -> Any:
        """That of the learner's state before the first event."""
        return jax.tree.structure(self.begin().state)

    def begin(self) -> Progress:
        """Before the first event. The learner sees zeros as an example, so that it owes nothing to any datapoint."""
        state = self.learner.init(self.problem, jax.random.key(self.seed), self.layout.example())
        return Progress(state, 0, Prequential(self.window))

    def after(self, progress: Progress, event: Event, stopped: Callable[[], bool]) -> Progress:
        """Where the learner stands after the next event.

        Datapoints are judged, then learned, all of a group by one `observe`. A task that is forgotten leaves the
        buffer of a learner of this package, whose weights stay; any other learner learns the rest of the log anew.

        Raises:
            Stopped: `stopped` said so while the log was learned anew.
        """
        if isinstance(event, Forgetting):
            return self._forgotten(progress, event, stopped)
        batch, until = self.layout.unpacked(event.rows), event.first - 1
        before = self.layout.unpacked(self.store.of_task(event.task, until))
        adapted, _ = self.learner.adapt(self.problem, progress.state, event.task, before)
        outputs = self.learner.predict(self.problem, adapted, batch.inputs)
        score = progress.score.after(self.problem, event.task, len(before), outputs, batch)
        state, _ = self.learner.observe(self.problem, progress.state, event.task, batch)
        jax.block_until_ready(state)
        return Progress(state, event.sequence, score, progress.anew)

    def learned(self, until: int, stopped: Callable[[], bool]) -> Progress:
        """Where the learner stands after event `until`, had the tasks that were forgotten never been there.

        Raises:
            Stopped: `stopped` said so.
        """
        progress = self.begin()
        for event in self.store.events(0, until):
            if stopped():
                raise Stopped
            if isinstance(event, Group) and not self.store.is_forgotten(event, until):
                progress = self.after(progress, event, stopped)
        return Progress(progress.state, until, progress.score)

    def _forgotten(self, progress: Progress, event: Forgetting, stopped: Callable[[], bool]) -> Progress:
        task = event.task
        if task is None:  # its datapoints are no longer in the log, and were not learned
            return Progress(progress.state, event.sequence, progress.score, progress.anew)
        state = self._without(progress.state, task)
        if state is None:
            return self.learned(event.sequence, stopped)
        return Progress(state, event.sequence, progress.score.without(task), anew=False)

    def _without(self, state: Any, task: TaskKey) -> Any:
        """The state without the datapoints of a task; None: nobody knows where they are in it.

        A learner with a head for each task finds it by the order of the tasks in its buffer, which must not change.
        """
        if not isinstance(state, Learned) or isinstance(self.learner, MultiHead):
            return None
        return state._replace(buffer=without(state.buffer, task))


def copied(state: Any) -> Any:
    """A copy of a state, from which one can predict while learning uses up the state itself.

    `observe` may write over the arrays of the state it is given, on devices (buffers that are donated) and on the host.
    """
    return jax.block_until_ready(jax.tree.map(_copied, state))


def _copied(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jax.random.key_data(leaf).copy(), impl=jax.random.key_impl(leaf))
    if isinstance(leaf, (jax.Array, np.ndarray)):
        return leaf.copy()
    return deepcopy(leaf)
