"""The task buffer B, sampling distributions nu over its tasks, and minibatches from it (paper, section 5).

Examples of all tasks lie one after another in arrays on the device, whose capacity doubles when they are full.
Where each task begins and how many examples it has stays on the host, so that nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metaleader.problem.batch import AnyArray, Batch, bucket_size

Draw: TypeAlias = tuple[Int[Array, " _"], Float[Array, " _"]]  # places, and weights: 0 where there is none
Draws: TypeAlias = tuple[Int[Array, "steps tasks _"], Float[Array, "steps tasks _"]]  # of the tasks of every step
Sampling: TypeAlias = Callable[[Float[Array, " tasks"]], Float[Array, " tasks"]]


class Ledger(NamedTuple):
    """What a limited memory keeps account of; a row is a task of which something is held, in order of arrival.

    Attributes:
        order: host array `(capacity,)`: where the examples lie, task after task; their places are reused.
        rounds: host array `(rows,)`: the round, from 0, of every row.
        row_seen: host array `(rows,)`: datapoints seen of it, held or not.
        seen: host scalar: datapoints seen of all tasks.
        seed: host array `(2,)`: settles what is kept by chance.
    """

    order: Any
    rounds: Any
    row_seen: Any
    seen: Any
    seed: Any


class TaskBuffer(NamedTuple):
    """The datapoints kept of the tasks seen so far: all, or those that fit into a limited memory.

    Attributes:
        inputs: device array `(capacity, ...)`.
        targets: device array `(capacity, ...)`.
        starts: host array `(task capacity,)`: where the examples of each task begin.
        counts: host array `(task capacity,)`: how many there are; 0 behind the last task.
        tasks: host scalar: how many tasks were seen.
        ledger: None where all is kept: then row k is task k, and examples lie where `starts` says. Otherwise,
            examples lie where the ledger's `order` has it.
    """

    inputs: Any
    targets: Any
    starts: Any
    counts: Any
    tasks: Any
    ledger: Any = None

    @property
    def size(self) -> int:
        """How many datapoints are stored."""
        return int(self.counts.sum())

    @property
    def rounds(self) -> Any:
        """The task, from 0, that each row of `starts` and `counts` is of."""
        return np.arange(len(self.counts), dtype=np.int32) if self.ledger is None else self.ledger.rounds

    @property
    def past(self) -> int:
        """How many of the datapoints stored are of tasks before the newest; they come first."""
        return int(self.counts[self.rounds < self.tasks - 1].sum())


def empty(like: Batch, capacity: int = 1024, task_capacity: int = 64) -> TaskBuffer:
    """A buffer for examples of the shapes and types in `like`, with room for `capacity` of them at first."""

    def room(leaf: Any) -> Array:
        return jnp.zeros((capacity, *leaf.shape[1:]), jnp.asarray(leaf[:1]).dtype)

    offsets = np.zeros(task_capacity, np.int32)
    return TaskBuffer(room(like.inputs), room(like.targets), offsets, offsets, np.zeros((), np.int32))


def check(buffer: TaskBuffer, task: int, batch: Batch) -> None:
    """Make sure that `batch` of task `task` may be added.

    Raises:
        ValueError: `task` is neither the newest task nor the next, or examples have another shape or type.
    """
    newest = int(buffer.tasks) - 1
    if task not in (newest, newest + 1) or task < 0:
        raise ValueError(f"task {task} cannot take data: expected {newest} (the newest) or {newest + 1} (the next)")
    for kind, stored, new in (
        ("inputs", buffer.inputs, batch.inputs),
        ("targets", buffer.targets, batch.targets),
    ):
        if stored.shape[1:] != new.shape[1:] or stored.dtype != jnp.asarray(new[:1]).dtype:
            raise ValueError(
                f"{kind} are {new.dtype} of shape {new.shape[1:]} an example; the buffer holds {stored.dtype} of "
                f"shape {stored.shape[1:]}: give every task of a stream the same"
            )


def append(buffer: TaskBuffer, task: int, batch: Batch) -> TaskBuffer:
    """The buffer with `batch` added to task `task`, which is the newest one or the next after it.

    The device arrays of the buffer given are donated: only the one returned may be used afterwards.

    Raises:
        ValueError: see `check`.
    """
    check(buffer, task, batch)
    newest = int(buffer.tasks) - 1
    size, added = buffer.size, len(batch)
    # Padding to a few sizes keeps compilation rare; what is written behind `added` is overwritten next time.
    block = jax.tree.map(lambda leaf: _padded(leaf, bucket_size(added)), (batch.inputs, batch.targets))
    inputs, targets = buffer.inputs, buffer.targets
    while size + bucket_size(added) > len(inputs):
        inputs, targets = extended(inputs, len(inputs)), extended(targets, len(targets))
    inputs, targets = _write(inputs, targets, *block, np.int32(size))

    starts, counts = buffer.starts.copy(), buffer.counts.copy()
    if task == len(starts):
        starts, counts = np.pad(starts, (0, task)), np.pad(counts, (0, task))
    if task > newest:
        starts[task] = size
    counts[task] += added
    return TaskBuffer(inputs, targets, starts, counts, np.asarray(max(newest, task) + 1, np.int32))


@dataclass(frozen=True)
class Recency:
    """Sampling weight `2 ** (-age / half_life)` for a task seen `age` rounds ago.

    The default, an infinite half-life, is the uniform distribution over the tasks seen (the paper's nu_t).
    Any function of the ages, an array `(tasks,)`, to weights of the same shape serves as well; the age of a task
    without datapoints is infinite, and its weight does not count.

    Raises:
        ValueError: `half_life` is not positive, or `newest` is not in [0, 1).
    """

    half_life: float = float("inf")
    """Rounds after which a task is drawn half as often; inf: all tasks alike."""
    newest: float = 0.0
    """Probability of drawing the newest task; 0: what its age gives it."""

    def __post_init__(self) -> None:
        if not self.half_life > 0:
            raise ValueError(f"half_life must be positive, got {self.half_life}")
        if not 0 <= self.newest < 1:
            raise ValueError(f"newest must be in [0, 1), got {self.newest}")

    def __call__(self, ages: Float[Array, " tasks"]) -> Float[Array, " tasks"]:
        """The weights, up to a constant factor."""
        weights = jnp.where(jnp.isinf(ages), 0, jnp.exp2(-ages / self.half_life))
        if not self.newest:
            return weights
        others = jnp.sum(jnp.where(ages > 0, weights, 0))
        own = jnp.where(others > 0, others * self.newest / (1 - self.newest), 1)
        return jnp.where(ages > 0, weights, own)


def sampling_weights(
    sampling: Sampling,
    counts: Int[AnyArray, " capacity"],
    tasks: Int[AnyArray, ""],
    rounds: Int[AnyArray, " capacity"] | None = None,
) -> Float[Array, " capacity"]:
    """nu_t up to a constant factor: `sampling` of the tasks' ages, and 0 for a task without datapoints.

    `rounds` are the tasks that the counts are of; 0, 1, ... unless given.
    """
    ages = (tasks - 1 - (jnp.arange(len(counts)) if rounds is None else rounds)).astype(jnp.float32)
    has_data = (counts > 0) & (ages >= 0)
    return jnp.where(has_data, sampling(jnp.where(has_data, ages, jnp.inf)), 0)


def sample_index(key: Array, weights: Float[AnyArray, " capacity"], shape: tuple[int, ...]) -> Int[Array, ...]:
    """Indices drawn with replacement in proportion to `weights`, by inversion of the cumulative sum.

    An index of weight 0 is never drawn, unless all are 0.
    """
    cumulative = jnp.cumsum(weights)
    # In (0, total]: with side="left", an index whose weight is 0 adds no interval to hit.
    points = (1 - jax.random.uniform(key, shape)) * cumulative[-1]
    return jnp.searchsorted(cumulative, points, side="left").astype(jnp.int32)


def sample_distinct(key: Array, count: Int[AnyArray, ""] | int, n: int) -> Draw:
    """`n` distinct numbers below `count` in random order, every arrangement equally likely.

    The first `n` steps of a Fisher-Yates shuffle of `0, ..., count - 1`, of which only the places that were
    swapped are kept.

    Returns:
        The numbers, and weights: 1 for each, and 0 for those that are missing where `count < n`.
    """
    steps = jnp.arange(n)
    left = jnp.maximum(count - steps, 1)
    drawn = steps + jnp.minimum((jax.random.uniform(key, (n,)) * left).astype(jnp.int32), left - 1)

    def look_up(place: Array, moved: Array, before: Array) -> Array:
        # What lies at `place` is what the last of the earlier swaps brought there.
        swaps = jnp.where((drawn == place) & (steps < before), steps, -1)
        last = jnp.max(swaps)
        return jnp.where(last >= 0, moved[last], place)

    def swap(moved: Array, step: Array) -> tuple[Array, Array]:
        taken = look_up(drawn[step], moved, step)
        return moved.at[step].set(look_up(step, moved, step)), taken

    numbers = jax.lax.scan(swap, jnp.zeros(n, jnp.int32), steps)[1]
    present = steps < count
    return jnp.where(present, numbers, 0), present.astype(jnp.float32)


def sample_split(
    key: Array,
    counts: Int[AnyArray, " capacity"],
    task: Int[AnyArray, ""],
    train: int,
    validation: int,
    vary_train: bool = False,
) -> tuple[Draw, Draw]:
    """Places of disjoint minibatches D_tr and D_val within a task, drawn without replacement.

    A task with fewer than `train + validation` datapoints fills both in proportion; the rest has weight 0. With
    `vary_train`, D_tr keeps its first m examples only, m uniform from 1 to `train`.
    """
    total = train + validation
    numbers, weights = sample_distinct(key, counts[task], total)
    # Spread over the draw, so that a draw cut short leaves both parts their share.
    to_train = np.diff(np.arange(total + 1) * train // total) > 0
    kept = weights[to_train]
    if vary_train:
        kept = kept * (jnp.arange(train) < jax.random.randint(jax.random.fold_in(key, 1), (), 1, train + 1))
    return (numbers[to_train], kept), (numbers[~to_train], weights[~to_train])


def sample_splits(
    key: Array,
    counts: Int[AnyArray, " capacity"],
    tasks: Int[Array, "steps tasks"],
    train: int,
    validation: int,
    vary_train: bool = False,
) -> tuple[Draws, Draws]:
    """`sample_split` of every task of every step; the numbers and weights have shape `(steps, tasks, n)`."""
    split = partial(sample_split, train=train, validation=validation, vary_train=vary_train)
    of_steps = jax.vmap(jax.vmap(split, in_axes=(0, None, 0)), in_axes=(0, None, 0))
    drawn: tuple[Draws, Draws] = of_steps(jax.random.split(key, tasks.shape), counts, tasks)
    return drawn


def take(buffer: TaskBuffer, index: Int[AnyArray, " n"], weights: Float[AnyArray, " n"]) -> Batch:
    """The examples at `index`, counted task after task, as a batch."""
    if buffer.ledger is not None:
        index = jnp.asarray(buffer.ledger.order)[index]
    return Batch(buffer.inputs[index], buffer.targets[index], weights)


def extended(stored: Array, room: int) -> Array:
    """The examples `stored`, with room for so many more."""
    return jnp.concatenate([stored, jnp.zeros_like(stored, shape=(room, *stored.shape[1:]))])


def _padded(leaf: Any, size: int) -> np.ndarray:
    leaf = np.asarray(leaf)
    return np.pad(leaf, [(0, size - len(leaf))] + [(0, 0)] * (leaf.ndim - 1))


@partial(jax.jit, donate_argnums=(0, 1))
def _write(inputs: Array, targets: Array, new_inputs: Array, new_targets: Array, at: Array) -> tuple[Array, Array]:
    return (
        jax.lax.dynamic_update_slice_in_dim(inputs, new_inputs.astype(inputs.dtype), at, axis=0),
        jax.lax.dynamic_update_slice_in_dim(targets, new_targets.astype(targets.dtype), at, axis=0),
    )
