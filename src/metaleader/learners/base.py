"""What a learner is: four verbs and a state of its own; and what the learners here share."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from metaleader.buffer import Retention, store
from metaleader.buffer.store import TaskBuffer, TaskKey
from metaleader.learners.optimizers import averaged
from metaleader.problem.batch import Batch, bucket_size, pad
from metaleader.problem.content import Static
from metaleader.problem.model import Params, calibrates_on_all_tasks
from metaleader.problem.problem import Problem
from metaleader.problem.rates import with_rates, without_rates
from metaleader.update import MetaParams, UpdateProcedure, adapt
from metaleader.update.optimizer import Optimizer, transformation

FEW, MORE = 16, 128  # pad to one of these, or to a power of two above: compiling for each size would cost more,
WASTE = 2**18  # unless padding would be more than so many numbers: images take longer than compiling does
POPULATION = 512  # examples of all tasks whose statistics stand for those of all data
State: TypeAlias = Any  # of a learner: whatever it likes, a pytree or not
Adapted: TypeAlias = Any  # what a learner makes of its state for a task


@runtime_checkable
class Learner(Protocol):
    """A value of hyperparameters with four verbs; all that changes is in a state that nobody else reads.

    Costs are per-example gradients, a Hessian-vector product counting as two.

    Examples:
        >>> import numpy as np, metaleader as ml
        >>> class Mean:  # predicts the mean of the task's targets
        ...     def init(self, problem, key, example):
        ...         return ()
        ...     def observe(self, problem, state, task, batch):
        ...         return state, 0
        ...     def adapt(self, problem, state, task, batch):
        ...         return batch.targets.mean(axis=0), 0
        ...     def predict(self, problem, adapted, inputs):
        ...         return np.broadcast_to(adapted, (len(inputs), len(adapted)))
        >>> isinstance(Mean(), ml.Learner)
        True
        >>> problem = ml.Problem(None, ml.squared_error, ml.mean_squared_error)
        >>> x, y = np.zeros((4, 1), np.float32), np.array([[0], [2], [0], [2]], np.float32)
        >>> records = ml.play(problem, [ml.Task.from_arrays(x, y, x, y)], Mean(), ml.OnlineProtocol(chunk=2))
        >>> [record.loss for record in records]
        [1.0, 1.0]
    """

    def init(self, problem: Problem, key: Array, example: Batch) -> State:
        """The state before the first datapoint.

        Args:
            problem: what is learned.
            key: a random key; the same key gives the same run.
            example: a batch with the shapes and types of the data to come.
        """
        ...

    def observe(self, problem: Problem, state: State, task: TaskKey, batch: Batch) -> tuple[State, int]:
        """The state after new datapoints of a task, stored and learned from; and what that cost.

        Datapoints of several tasks may interleave, and a task may come back. The state given is used up: only the one
        returned may be used afterwards.
        """
        ...

    def adapt(self, problem: Problem, state: State, task: TaskKey, batch: Batch) -> tuple[Adapted, int]:
        """What the learner would predict a task by, from all of its datapoints so far; and what that cost.

        `batch` may be empty: before the first datapoint.
        """
        ...

    def predict(self, problem: Problem, adapted: Adapted, inputs: Any) -> Any:
        """Outputs for inputs of that task, as the problem's loss and scores take them."""
        ...


@runtime_checkable
class Spends(Protocol):
    """A learner that can be told how many gradients to take.

    Examples:
        >>> import metaleader as ml
        >>> from metaleader.learners import Spends
        >>> learner = ml.FTML(meta_batch=2)
        >>> a_step = learner.meta_gradient_evaluations()
        >>> isinstance(learner, Spends), learner.spending(10 * a_step).meta_steps
        (True, 10)
    """

    def spending(self, gradients: int) -> Learner:
        """The same learner, taking about so many per-example gradients, at least one step, in each `observe`."""
        ...


class Learned(NamedTuple):
    """The state of the learners here.

    Attributes:
        params: w_t, what was learned so far: the last iterate.
        opt_state: of the outer optimiser; it may hold the average of the iterates.
        buffer: the datapoints kept.
        key: the random key of what comes next.

    Examples:
        >>> import numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
        >>> learned = ml.begin(problem, ml.FTML(), ml.Task.from_arrays(x, x)).learner
        >>> learned._fields, learned.buffer.size  # before the first datapoint
        (('params', 'opt_state', 'buffer', 'key'), 0)
    """

    params: MetaParams
    opt_state: Any
    buffer: TaskBuffer
    key: Array

    @property
    def leader(self) -> MetaParams:
        """The w_t that adaptation begins from: the average of the iterates, where one is kept, or the last one."""
        return averaged(self.params, self.opt_state)


class PredictsByModel:
    """A learner whose predictions for a task are the model's, with parameters of that task."""

    def predict(self, problem: Problem, adapted: Params, inputs: Any) -> Any:
        """The model's outputs."""
        return problem.predict(adapted, inputs)


def adapted(
    problem: Problem, update: UpdateProcedure, params: MetaParams, buffer: TaskBuffer, key: Array, batch: Batch
) -> tuple[Params, int]:
    """U(w) on `batch`, with the statistics that the model predicts by; and what it cost.

    The batch is padded to one of a few sizes (see `padded_size`), so that a growing D_t rarely compiles.
    A model that `calibrates_on_all_tasks` gets its statistics from `POPULATION` examples of the buffer, evenly spread
    over it; so does any model for a task without datapoints.
    """
    params, key = _on_first((params, key))
    batch = batch.weighted
    if problem.random:
        batch = Batch(batch.inputs, batch.targets, batch.weights, jax.random.fold_in(key, len(batch)))
    padded = pad(batch, padded_size(batch))
    of_all = calibrates_on_all_tasks(problem.net) or len(batch) == 0
    population = _population(buffer) if of_all else None
    alike, rates = without_rates(update)
    found = _adapted(Static((problem, alike, len(batch) == 0)), rates, params, padded, population)
    return found, update.gradient_evaluations(len(batch))


def check_keeps_past(retention: Retention) -> None:
    """Refuse a buffer without the data of any task but the current one, for a learner that learns from the others.

    Raises:
        ValueError: it is one.
    """
    if retention.unit == "tasks" and retention.budget == 1:
        raise ValueError(
            f"there would be nothing to learn from: the tasks before the current one are learned from, and {retention} "
            "keeps none of them; give a larger budget, or another policy"
        )


def padded_size(batch: Batch) -> int:
    """How many examples a batch to adapt to is padded to.

    `FEW`, `MORE` or the next power of two; or, where that would be more than `WASTE` numbers of padding, the next
    `bucket_size`.

    Examples:
        >>> import numpy as np, metaleader as ml
        >>> rows, images = np.zeros((900, 8)), np.zeros((900, 28, 28, 3), np.uint8)
        >>> [padded_size(ml.Batch.of(x[:n], x[:n])) for x in (rows, images) for n in (10, 20, 320, 640, 900)]
        [16, 128, 512, 1024, 1024, 16, 128, 320, 640, 960]
    """
    n = len(batch)
    size = FEW if n <= FEW else max(MORE, 1 << (n - 1).bit_length())
    an_example = sum(np.size(leaf) for leaf in jax.tree.leaves(batch.inputs)) // max(n, 1)
    return size if (size - n) * an_example <= WASTE else bucket_size(n)


def _on_first(tree: Any) -> Any:
    """The arrays as one device has them, of which several may hold a copy each."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf, tree)


def _population(buffer: TaskBuffer) -> Batch | None:
    size = buffer.size
    if size == 0:
        return None
    spread = np.linspace(0, size - 1, min(size, POPULATION)).astype(np.int32)
    weights = (np.arange(POPULATION) < size).astype(np.float32)
    return store.taken(_on_first(buffer.data), buffer.order[np.pad(spread, (0, POPULATION - len(spread)))], weights)


@partial(jax.jit, static_argnums=0)
def _adapted(
    static: Static[tuple[Problem, UpdateProcedure, bool]],
    rates: Any,
    params: MetaParams,
    batch: Batch,
    population: Batch | None,
) -> Params:
    problem, update, no_data = static.value
    update = with_rates(update, rates)
    if population is None and not no_data:
        return adapt(problem, update, params, batch)
    if no_data:
        problem = _WithoutData(problem.model, problem.loss, problem.scores)
    found = update(problem, params, batch)
    return found if population is None else problem.net.calibrate(found, population)


class _WithoutData(Problem):
    """A problem before the first datapoint: padding without an example to repeat is zeros.

    A model need not have a derivative there.
    """

    def objective(self, params: Params, batch: Batch) -> Array:  # noqa: ARG002
        """0."""
        return jnp.zeros(())


def random_keys(asked: bool, key: Array, shape: tuple[int, ...]) -> Array | None:
    """A random key for every minibatch of a shape, if the model asks for one."""
    return jax.random.split(jax.random.fold_in(key, 0), shape) if asked else None


def minibatches(buffer: TaskBuffer, *draws: tuple[Array, Array, Array | None]) -> list[Batch]:
    """For each draw, the examples at its places, an array of any shape, with its weights and keys.

    The leaves of a `Batch` have the shape of its places in front.
    """
    found = _gathered(buffer.data, buffer.order, [(places, weights) for places, weights, _ in draws])
    return [
        Batch(each.inputs, each.targets, each.weights, keys) for each, (_, _, keys) in zip(found, draws, strict=True)
    ]


@jax.jit
def _gathered(data: Batch, order: Any, draws: Any) -> list[Batch]:
    order = jnp.asarray(order)
    return [store.take(data, order[places], weights) for places, weights in draws]


def optimizer_state(optimizer: Optimizer, params: MetaParams) -> Any:
    """The state of an optimiser before its first step."""
    alike, rates = without_rates(optimizer)
    return _optimizer_state(Static(alike), rates, params)


@partial(jax.jit, static_argnums=0)
def _optimizer_state(static: Static[Optimizer], rates: Any, params: MetaParams) -> Any:
    return transformation(with_rates(static.value, rates)).init(params)
