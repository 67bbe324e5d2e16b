"""The task buffer B (paper, Algorithm 1): datapoints of tasks that may interleave and come back.

Examples lie in slots of arrays on the device, whose capacity doubles when they are full. Which slots are whose stays on
the host, so that nothing waits for the device.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from metaleader.problem.batch import Batch, check_alike

TaskKey: TypeAlias = int | str  # which task a datapoint is of
CAPACITY = 1024  # slots of a new buffer, at least
SMALL = 1 << 20  # bytes that a new buffer may take where that is more slots; to grow is to compile anew
ROWS = 64  # tasks that a new buffer has room for


class TaskBuffer(NamedTuple):
    """The datapoints kept of the tasks seen so far.

    Each task with retained data has a row; rows are in order of first arrival. Places number the retained datapoints,
    row after row, and within a row by arrival.

    Attributes:
        data: the slots: a `Batch` of device arrays `(capacity, ...)`.
        order: host array `(capacity,)`: the slot of each place.
        arrivals: host array `(capacity,)`: the number of the datapoint at each place, counting all that were seen.
        ids: host array `(rows,)`: which task each row is of (see `task_id`).
        counts: host array `(rows,)`: datapoints held of it; 0 behind the last row.
        seen: host array `(rows,)`: datapoints seen of it, held or not.
        ages: host array `(rows,)`: how many tasks were observed since it last was; 0 for the current one.
        total: host scalar: datapoints seen of all tasks.
        seed: host array `(2,)`: settles what a limited memory keeps by chance.
    """

    data: Batch
    order: Any
    arrivals: Any
    ids: Any
    counts: Any
    seen: Any
    ages: Any
    total: Any
    seed: Any

    @property
    def size(self) -> int:
        """How many datapoints are held."""
        return int(self.counts.sum())

    @property
    def rows(self) -> int:
        """How many tasks have retained data."""
        return int(np.count_nonzero(self.counts))

    @property
    def past(self) -> int:
        """How many of the datapoints held are of other tasks than the current one."""
        return int(self.counts[self.ages > 0].sum())

    @property
    def starts(self) -> Int[np.ndarray, " rows"]:
        """The first place of every row."""
        return np.cumsum(self.counts, dtype=np.int32) - self.counts

    def row_of(self, task: TaskKey) -> int | None:
        """The row of a task; None where none of its data is retained."""
        found = np.flatnonzero((self.ids == task_id(task)) & (self.counts > 0))
        return int(found[0]) if len(found) else None

    def is_current(self, task: TaskKey) -> bool:
        """Whether the task is the one observed last, and has retained data."""
        row = self.row_of(task)
        return row is not None and int(self.ages[row]) == 0


def task_id(task: TaskKey) -> int:
    """A number of 63 bits for a task's key, the same in every process.

    Raises:
        ValueError: the key is neither an integer nor a string.
    """
    if isinstance(task, np.integer):
        task = int(task)
    if not isinstance(task, (int, str)) or isinstance(task, bool):
        raise ValueError(f"a task's key must be an integer or a string, got {task!r}")
    kind = "i" if isinstance(task, int) else "s"
    digest = hashlib.blake2b(f"{kind}{task}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def empty(example: Batch, key: Array, capacity: int) -> TaskBuffer:
    """A buffer for examples of the shapes and types in `example`, with room for `capacity` of them at first.

    `key` settles what a limited memory will keep by chance.
    """

    def room(kind: Any) -> Array:
        return jax.device_put(np.zeros((capacity, *kind.shape), kind.dtype))  # by NumPy: nothing is compiled

    data = jax.tree.map(room, kinds(example))
    seed = np.asarray(jax.random.key_data(key)).astype(np.uint32)
    places, rows = np.zeros(capacity, np.int32), np.zeros(ROWS, np.int32)
    return TaskBuffer(
        data,
        places,
        np.zeros(capacity, np.int64),
        np.zeros(ROWS, np.int64),
        rows,
        np.zeros(ROWS, np.int64),
        rows,
        np.zeros((), np.int64),
        seed,
    )


def kinds(example: Batch) -> Batch:
    """The shape and type that an example like these has on a device."""

    def kind(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(np.shape(leaf)[1:], jax.dtypes.canonicalize_dtype(leaf.dtype))

    return jax.tree.map(kind, Batch(example.inputs, example.targets, example.weights))


def size(*kinds: Any) -> int:
    """Bytes of what `kinds` tells of."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kinds))


def first_capacity(example: Batch) -> int:
    """Slots of a new buffer for examples like these."""
    return max(CAPACITY, 1 << (SMALL // size(kinds(example))).bit_length() >> 1)


def take(data: Batch, slots: Any, weights: Any) -> Batch:
    """The examples in `slots`, an array of any shape, each with its own weight times that given."""
    inputs, targets = jax.tree.map(lambda leaf: leaf[slots], (data.inputs, data.targets))
    return Batch(inputs, targets, data.weights[slots] * weights)


taken = jax.jit(take)  # for a few, where one operation after the other takes longer than all of them together


def held(buffer: TaskBuffer, places: Any) -> Batch:
    """The examples at places, each with its own weight."""
    return take(buffer.data, buffer.order[np.asarray(places)], np.ones(len(places), np.float32))


class Arrival(NamedTuple):
    """A buffer about to take datapoints of a task.

    Attributes:
        buffer: as it was.
        row: of the task; the next free one for a task without retained data.
        ids: as in `TaskBuffer`, for the rows in use and that one.
        counts: likewise, before the datapoints arrive.
        seen: likewise, before the datapoints arrive.
        ages: likewise, with the task as the current one.
        arriving: how many datapoints there are.
    """

    buffer: TaskBuffer
    row: int
    ids: np.ndarray
    counts: np.ndarray
    seen: np.ndarray
    ages: np.ndarray
    arriving: int


def arrival(buffer: TaskBuffer, task: TaskKey, batch: Batch) -> Arrival:
    """What is at hand when `batch` arrives for `task`.

    Raises:
        ValueError: see `check_alike` and `task_id`.
    """
    check_alike(batch, buffer.data, "the buffer holds")
    used, row = buffer.rows, buffer.row_of(task)
    ids, counts, seen, ages = (rows[:used] for rows in (buffer.ids, buffer.counts, buffer.seen, buffer.ages))
    if row is None:
        row = used
        ids, counts, seen = np.append(ids, task_id(task)), np.append(counts, np.int32(0)), np.append(seen, np.int64(0))
        ages = np.append(ages, np.iinfo(np.int32).max)
    # Tasks observed more recently than this one was are now one task further away.
    ages = np.where(ages < ages[row], ages + 1, ages).astype(np.int32)
    ages[row] = 0
    return Arrival(buffer, row, ids, counts, seen, ages, len(batch))


def stored(came: Arrival, batch: Batch, kept: Int[np.ndarray, " kept"] | None, most: int | None = None) -> TaskBuffer:
    """The buffer that holds what is `kept`, with room for `most` datapoints at most.

    The device arrays of the buffer before are donated: only the one returned may be used afterwards.

    Args:
        came: what is at hand.
        batch: what arrives.
        kept: places of the buffer and, numbered behind all places held, datapoints that arrive; ascending. None: all.
        most: None: no limit.
    """
    before, held = came.buffer, int(came.counts.sum())
    if kept is None:
        staying, entering = np.arange(held), np.arange(came.arriving)
    else:
        staying, entering = kept[kept < held], kept[kept >= held] - held
    size = len(staying) + len(entering)
    data, capacity = before.data, len(before.order)
    while size > capacity:
        added = min(capacity, (most or 2 * capacity) - capacity)
        data, capacity = _extended(added, data), capacity + added
    slots = before.order[staying]
    if kept is None:
        free = np.arange(size)[len(slots) :]
    else:
        is_free = np.ones(capacity, bool)
        is_free[slots] = False
        free = np.flatnonzero(is_free)[: len(entering)]
    data = _written(data, batch, entering, free.astype(np.int32), capacity)

    counts = came.counts.astype(np.int64)
    if kept is not None:
        counts = np.bincount(np.repeat(np.arange(len(counts)), counts)[staying], minlength=len(counts))
    at = int(counts[: came.row + 1].sum())  # behind the task's own places
    counts[came.row] += len(entering)
    seen = came.seen.copy()
    seen[came.row] += came.arriving
    keeps, rows = counts > 0, len(before.counts)
    while keeps.sum() > rows:
        rows *= 8  # what draws by them is compiled again

    def places(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        joined = np.concatenate([old[:at], new, old[at:]])
        return _lengthened(joined, capacity, old.dtype)

    def filled(values: np.ndarray, like: np.ndarray) -> np.ndarray:
        return _lengthened(values[keeps], rows, like.dtype)

    return TaskBuffer(
        data,
        places(slots, free),
        places(before.arrivals[staying], before.total + entering),
        filled(came.ids, before.ids),
        filled(counts, before.counts),
        filled(seen, before.seen),
        filled(came.ages, before.ages),
        np.asarray(before.total + came.arriving, np.int64),
        before.seed,
    )


def without(buffer: TaskBuffer, task: TaskKey) -> TaskBuffer:
    """The buffer without the datapoints of a task; of their bytes nothing is left in its arrays.

    What is kept of the other tasks, and in which order, stays. The task is a new one if it comes back. What was counted
    of all tasks (`total`) still counts it, as a limited memory chooses by that.
    """
    row = buffer.row_of(task)
    if row is None:
        return buffer
    owners = np.repeat(np.arange(len(buffer.counts)), buffer.counts)
    kept, rows = np.flatnonzero(owners != row), np.flatnonzero(np.arange(len(buffer.counts)) != row)
    size, capacity = len(kept), len(buffer.order)
    # Those kept move to the first slots: where all is kept, `stored` counts on it that the free ones come last.
    slots = jnp.asarray(np.pad(buffer.order[kept], (0, capacity - size)))

    def moved(leaf: Array) -> Array:
        there = (jnp.arange(capacity) < size).reshape(-1, *[1] * (leaf.ndim - 1))
        return jnp.where(there, leaf[slots], jnp.zeros_like(leaf))

    def left(values: np.ndarray) -> np.ndarray:
        return np.append(values[rows], np.zeros_like(values[:1]))

    order, arrivals = np.zeros_like(buffer.order), np.zeros_like(buffer.arrivals)
    order[:size], arrivals[:size] = np.arange(size), buffer.arrivals[kept]
    return buffer._replace(
        data=jax.tree.map(moved, buffer.data),
        order=order,
        arrivals=arrivals,
        ids=left(buffer.ids),
        counts=left(buffer.counts),
        seen=left(buffer.seen),
        ages=left(buffer.ages),
    )


def _written(data: Batch, batch: Batch, entering: np.ndarray, slots: np.ndarray, capacity: int) -> Batch:
    """The slots with the examples `entering` of the batch, padded to 16, 128, 1024, ...: writing costs little."""
    if not len(entering):
        return data
    size = 16
    while size < len(entering):
        size *= 8
    index = _lengthened(entering, size, np.int64)
    examples = Batch(batch.inputs, batch.targets, batch.weights)
    new = jax.tree.map(lambda leaf: np.asarray(leaf)[index], examples)
    # The places of padding lie outside and are dropped.
    return _scatter(data, new, _lengthened(slots, size, slots.dtype, capacity))


def _lengthened(values: np.ndarray, size: int, dtype: Any, by: int = 0) -> np.ndarray:
    """The values, and as many times `by` as make them `size`; np.pad takes ten times as long."""
    longer = np.full(size, by, dtype)
    longer[: len(values)] = values
    return longer


@partial(jax.jit, static_argnums=0)
def _extended(room: int, data: Batch) -> Batch:
    return jax.tree.map(lambda leaf: jnp.pad(leaf, [(0, room), *[(0, 0)] * (leaf.ndim - 1)]), data)


@partial(jax.jit, donate_argnums=0)
def _scatter(data: Batch, new: Batch, slots: Any) -> Batch:
    return jax.tree.map(lambda held, leaf: held.at[slots].set(leaf.astype(held.dtype), mode="drop"), data, new)
