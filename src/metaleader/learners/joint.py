"""Joint training: train on everything, and follow the leader with fine-tuning (paper, sections 3 and 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from metaleader import devices
from metaleader.buffer import Retention, TaskBuffer, TaskKey, sampling
from metaleader.errors import check_not_negative, check_positive
from metaleader.learners import base
from metaleader.learners.base import Learned, PredictsByModel
from metaleader.learners.optimizers import Adam, Momentum
from metaleader.problem.batch import Batch
from metaleader.problem.content import Static
from metaleader.problem.model import Params, calibrates_by_task
from metaleader.problem.problem import Problem
from metaleader.problem.rates import with_rates, without_rates
from metaleader.update import GradientDescent, Identity, UpdateProcedure, mean_over_tasks
from metaleader.update.optimizer import Optimizer, transformation

Joint = TypeVar("Joint", bound="JointTraining")
OfTask: TypeAlias = Callable[[Params, Any], Params]  # what the model is given for a task: its parameters
Which: TypeAlias = Literal["all", "past", "current"]  # tasks: all, all but the current one, or that alone


@dataclass(frozen=True)
class JointTraining(PredictsByModel):
    """Minibatches of joint training: `steps` optimiser steps on the data of several tasks whenever datapoints arrive.

    A minibatch holds `batch_tasks` tasks, drawn with replacement in proportion to their datapoints, and of each
    `batch_size` distinct examples, all there are if fewer; its loss is the mean over its tasks. A model that normalises
    by its batch then sees one task at a time, as it does when it is judged. With `batch_tasks` 0 a minibatch is
    `batch_size` examples of all tasks mixed.

    Raises:
        ValueError: a size is negative, or one that must be positive is not.

    Examples:
        >>> import metaleader as ml
        >>> from metaleader.learners import JointTraining
        >>> [isinstance(learner, JointTraining) for learner in (ml.FTL(), ml.TOE(), ml.FTML())]
        [True, True, False]
        >>> ml.TOE(batch_tasks=4, batch_size=10).spending(4000).steps  # steps of 40 gradients
        100
    """

    steps: int = 10
    """Optimiser steps whenever datapoints arrive."""
    _: KW_ONLY
    batch_tasks: int = 2
    """Tasks in a minibatch; 0: examples of all tasks, mixed."""
    batch_size: int = 25
    """Examples of each task in a minibatch; of all tasks together, where they are mixed."""
    calibration_size: int = 0
    """Further examples of each task, or of all tasks where they are mixed, that give a model with statistics of a task
    (`norm="task"`) those by which the `batch_size` examples are normalised, as D_t does when test images are predicted.
    0, and with models that have no such statistics: a minibatch normalises itself."""
    optimizer: Adam | Momentum | Optimizer = Adam()
    """An optax transformation, or a function that gives one."""
    retention: Retention = Retention()
    """Which datapoints the buffer keeps."""

    def __post_init__(self) -> None:
        check_positive(self, "steps", "batch_size")
        check_not_negative(self, "batch_tasks", "calibration_size")

    def init(self, problem: Problem, key: Array, example: Batch) -> Learned:
        """Random parameters, a fresh optimiser and an empty buffer."""
        return start(problem, self.optimizer, key, example, self.retention)

    def spending(self: Joint, gradients: int) -> Joint:
        """The same learner with as many steps, at least one, as take about so many per-example gradients."""
        a_step = max(self.batch_tasks, 1) * (self.batch_size + self.calibration_size)
        return replace(self, steps=max(round(gradients / a_step), 1))

    @property
    def minibatches(self) -> Minibatches:
        """How they are made."""
        return Minibatches(self.batch_tasks, self.batch_size, self.calibration_size)


@dataclass(frozen=True)
class TOE(JointTraining):
    """Train on everything: one model for all data so far, the current task's included, and no adaptation.

    `w = argmin_w sum_{k<=t} f_k(w)` over the examples of all rounds.

    Examples:
        >>> import numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
        >>> lines = [ml.Task.from_arrays(x, 5 * x + t % 2, x, 5 * x + t % 2) for t in range(8)]  # one of two offsets
        >>> records = list(ml.play(problem, lines, ml.TOE(steps=20, optimizer=ml.Adam(0.2))))
        >>> 0.1 < records[-1].loss < 0.5  # it learned the slope and the mean offset; it does not adapt
        True
    """

    def observe(self, problem: Problem, state: Learned, task: TaskKey, batch: Batch) -> tuple[Learned, int]:
        """Add the datapoints to the buffer, then train on examples of all tasks."""
        state = state._replace(buffer=self.retention.append(state.buffer, task, batch))
        return train(problem, self.optimizer, self.minibatches, state, self.steps)

    def adapt(self, problem: Problem, state: Learned, task: TaskKey, batch: Batch) -> tuple[Params, int]:  # noqa: ARG002
        """The parameters as they are (their average, where the optimiser keeps one)."""
        return base.adapted(problem, Identity(), state.leader, state.buffer, state.key, batch)


@dataclass(frozen=True)
class FTL(JointTraining):
    """Follow the leader: joint training on the rounds before this one, then fine-tuning on this one's data.

    Where tasks interleave or come back, the rounds before are all data but the current task's, whose datapoints the
    fine-tuning is for: that of the task observed last.

    Examples:
        >>> import numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
        >>> lines = [ml.Task.from_arrays(x, 5 * x + t % 2, x, 5 * x + t % 2) for t in range(8)]  # one of two offsets
        >>> learner = ml.FTL(steps=20, optimizer=ml.Adam(0.2), update=ml.GradientDescent(step_size=0.2))
        >>> list(ml.play(problem, lines, learner))[-1].loss < 0.1  # joint training, fine-tuned to the last line
        True
    """

    update: GradientDescent | UpdateProcedure = GradientDescent()
    """The fine-tuning."""

    def __post_init__(self) -> None:
        super().__post_init__()
        base.check_keeps_past(self.retention)

    def observe(self, problem: Problem, state: Learned, task: TaskKey, batch: Batch) -> tuple[Learned, int]:
        """Add the datapoints to the buffer, then train on examples of the other tasks."""
        state = state._replace(buffer=self.retention.append(state.buffer, task, batch))
        return train(problem, self.optimizer, self.minibatches, state, self.steps, "past")

    def adapt(self, problem: Problem, state: Learned, task: TaskKey, batch: Batch) -> tuple[Params, int]:  # noqa: ARG002
        """The joint model, fine-tuned on the task's data so far."""
        return base.adapted(problem, self.update, state.leader, state.buffer, state.key, batch)


class Minibatches(NamedTuple):
    """How minibatches are made; see `JointTraining`.

    Attributes:
        tasks: in each; 0: mixed.
        size: examples of each task.
        calibration: further examples of each task.
    """

    tasks: int
    size: int
    calibration: int = 0


def start(problem: Problem, optimizer: Optimizer, key: Array, example: Batch, retention: Retention) -> Learned:
    """Random parameters, a fresh optimiser and an empty buffer."""
    key, init_key = jax.random.split(key)
    params = problem.init(init_key)
    return Learned(params, base.optimizer_state(optimizer, params), retention.empty(example, key), key)


def everywhere(params: Params, row: Any) -> Params:  # noqa: ARG001
    """The same parameters for every task."""
    return params


def train(
    problem: Problem,
    optimizer: Optimizer,
    minibatches: Minibatches,
    state: Learned,
    steps: int,
    which: Which = "all",
    of_task: OfTask = everywhere,
    current_first: bool = False,
    taken: int | None = None,
) -> tuple[Learned, int]:
    """Optimiser steps on minibatches from the buffer, none if there is nothing to learn from; and what they cost.

    Args:
        problem: the model and its loss.
        optimizer: what takes the steps.
        minibatches: how they are made.
        state: what is trained, and the data.
        steps: how many to take.
        which: of which tasks.
        of_task: the model's parameters for a task, from all parameters and the task's row in the buffer.
        current_first: make the current task the first of every minibatch.
        taken: how many of the steps to take; None: all.
    """
    buffer = state.buffer
    if not calibrates_by_task(problem.net):
        minibatches = minibatches._replace(calibration=0)
    if (buffer.past if which == "past" else buffer.size) == 0:
        return state, 0
    taken = steps if taken is None else taken
    drawing = Drawing(minibatches, steps, which, current_first)
    key, rows, places, weights, keys, spent = _draw(drawing, problem.random, state.key, buffer, taken)
    (batches,) = base.minibatches(buffer, (places, weights, keys))
    alike, rates = without_rates(optimizer)
    compiled = Static((problem, alike, minibatches.calibration, of_task))
    params, opt_state = _train(compiled, rates, state.params, state.opt_state, rows, batches, np.int32(taken))
    return Learned(params, opt_state, buffer, key), int(spent)


class Drawing(NamedTuple):
    """What is drawn; see `train`."""

    minibatches: Minibatches
    steps: int
    which: Which = "all"
    current_first: bool = False


class Drawn(NamedTuple):
    """Tasks of all steps; where minibatches are mixed, one that stands for all that were chosen.

    Attributes:
        counts: `(steps, tasks)`: how many datapoints each has.
        starts: `(steps, tasks)`: the place of its first one.
        current: the place of the current task's first datapoint.
        own: how many that task has.
    """

    counts: Int[Array, "steps tasks"]
    starts: Int[Array, "steps tasks"]
    current: Int[Array, ""]
    own: Int[Array, ""]


def _draw(drawing: Drawing, keyed: bool, key: Array, buffer: TaskBuffer, taken: int) -> Any:
    """The next key; and for every step, the rows of its tasks, the places of the examples of each, weights and keys.

    Also how many examples the first `taken` steps take.
    """
    minibatches, steps, which, current_first = drawing
    tasks, data = Static((minibatches.tasks, steps, which, current_first)), Static((minibatches, which, keyed))
    key, data_key, rows, drawn = _draw_tasks(tasks, key, buffer.counts, buffer.ages)
    return key, rows, *_draw_data(data, data_key, drawn, np.int32(taken))


@partial(jax.jit, static_argnums=0)
def _draw_tasks(static: Static[tuple[int, int, Which, bool]], key: Array, counts: Any, ages: Any) -> Any:
    """The next key and one for the data; and for every step, the rows of its tasks, and what they hold.

    Compiled for every number of rows that the buffer has room for, unlike `_draw_data`, which takes longer to compile.
    """
    tasks, steps, which, current_first = static.value
    all_counts = jnp.asarray(counts)
    current = (jnp.asarray(ages) == 0) & (all_counts > 0)
    chosen = {"all": all_counts > 0, "past": ~current, "current": current}[which]
    counts, starts = jnp.where(chosen, all_counts, 0), jnp.cumsum(all_counts) - all_counts
    key, data_key = jax.random.split(key)
    first, own = jnp.sum(jnp.where(current, starts, 0)), jnp.sum(jnp.where(current, all_counts, 0))
    if not tasks:
        rows = jnp.zeros((steps, 1), jnp.int32)
        return key, data_key, rows, Drawn(jnp.full(rows.shape, jnp.sum(counts)), rows, first, own)
    tasks_key, data_key = jax.random.split(data_key)
    rows = sampling.sample_rows(tasks_key, counts.astype(jnp.float32), (steps, tasks))
    if current_first:
        rows = rows.at[:, 0].set(jnp.argmax(current).astype(rows.dtype))
    return key, data_key, rows, Drawn(counts[rows], starts[rows], first, own)


@partial(jax.jit, static_argnums=0)
def _draw_data(static: Static[tuple[Minibatches, Which, bool]], key: Array, drawn: Drawn, taken: Any) -> Any:
    """For every step, the places of the examples of each task, their weights and keys; and how many are taken."""
    minibatches, which, keyed = static.value
    draws = sampling.sample_splits(key, drawn.counts, minibatches.calibration, minibatches.size)
    numbers, weights = (jnp.concatenate(parts, axis=-1) for parts in zip(*draws, strict=True))
    if minibatches.tasks:
        places = drawn.starts[..., None] + numbers
    else:
        # Numbered among the examples of the tasks chosen: those of the current one are skipped, or come first.
        of_past = jnp.where(numbers >= drawn.current, numbers + drawn.own, numbers)
        places = {"all": numbers, "past": of_past, "current": numbers + drawn.current}[which]
    spent = jnp.sum(jnp.where((jnp.arange(len(weights)) < taken)[:, None, None], weights, 0))
    return places, weights, base.random_keys(keyed, key, drawn.counts.shape), spent


@partial(jax.jit, static_argnums=0)
def _train(
    static: Static[tuple[Problem, Optimizer, int, OfTask]],
    rates: Any,
    params: Params,
    opt_state: Any,
    rows: Any,
    batches: Batch,
    taken: Any,
) -> tuple[Params, Any]:
    """The first `taken` of the steps, each on a row of minibatches."""
    problem, optimizer, calibration, of_task = static.value
    outer = transformation(with_rates(optimizer, rates))

    def loss_of_task(params: Params, drawn: tuple[Array, Batch]) -> Float[Array, ""]:
        row, batch = drawn
        own = of_task(params, row)
        if calibration:
            own = problem.net.calibrate(own, batch[:calibration])
        return problem.objective(own, batch[calibration:])

    def step(i: Array, carry: tuple[Params, Any]) -> tuple[Params, Any]:
        params, opt_state = carry
        drawn = jax.tree.map(lambda leaf: leaf[i], (rows, batches))
        _, gradient = mean_over_tasks(loss_of_task, params, drawn, devices.tasks_at_once())
        changes, opt_state = outer.update(gradient, opt_state, params)
        return optax.apply_updates(params, changes), opt_state

    return jax.lax.fori_loop(0, taken, step, (params, opt_state))
