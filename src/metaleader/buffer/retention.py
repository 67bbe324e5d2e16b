"""Limited memory: which datapoints a task buffer keeps within a budget.

The choice is made on the host and by counting alone, so nothing waits for the device; datapoints that enter are written
over those that leave. Its randomness is a function of the run's seed and of how many datapoints were
seen, so a run that was resumed chooses as one that was not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Int

from metaleader.buffer import store as buffers
from metaleader.buffer.store import Ledger, TaskBuffer
from metaleader.problem.batch import Batch, bucket_size

Kept: TypeAlias = Int[np.ndarray, " kept"]


class _Rows(NamedTuple):
    """The tasks of which something is held, and the one that data arrives for, which is last."""

    rounds: np.ndarray
    counts: np.ndarray
    seen: np.ndarray


@dataclass(frozen=True)
class Memory:
    """What a buffer keeps of all datapoints seen, those of the current round included.

    The current round's datapoints enter as they arrive, count towards the budget and may leave like any other.

    - `all`: everything.
    - `reservoir`: a uniform sample of all datapoints seen: after n, each is kept with probability
      `min(1, budget / n)` (Algorithm R; Vitter, 1985).
    - `share`: the same number of each task, `budget // tasks`, a uniform sample within the task; what is left over
      stays unused. Where there are more tasks than the budget, one datapoint of each of the newest tasks.
    - `last`: the newest datapoints, or with `unit` tasks all datapoints of the newest tasks.

    Raises:
        ValueError: a limit without a budget or a budget without a limit, a budget below 1, or a budget of tasks for
            another policy than `last`.
    """

    policy: Literal["all", "reservoir", "share", "last"] = "all"
    """Which datapoints are kept."""
    budget: int | None = None
    """How much is kept at most, in units; for every policy but `all`."""
    unit: Literal["datapoints", "bytes", "tasks"] = "datapoints"
    """What the budget counts: datapoints, bytes of their inputs and targets, or (for `last`) tasks."""

    def __post_init__(self) -> None:
        if self.policy == "all" and self.budget is not None:
            raise ValueError(
                f"policy must be reservoir, share or last for a budget of {self.budget}, got all (which has none)"
            )
        if self.policy != "all" and (self.budget is None or self.budget < 1):
            raise ValueError(f"budget must be at least 1 for the policy {self.policy}, got {self.budget}")
        if self.unit == "tasks" and self.policy != "last":
            raise ValueError(f"unit must be datapoints or bytes for the policy {self.policy}, got tasks")

    def empty(self, like: Batch, key: Array, capacity: int) -> TaskBuffer:
        """An empty buffer for examples like `like`; `key` settles what chance will choose.

        Raises:
            ValueError: the budget in bytes is smaller than one datapoint.
        """
        if self.policy == "all":
            return buffers.empty(like, capacity)
        most = capacity if self.unit == "tasks" else min(capacity, self.datapoints(buffers.empty(like, 1)))
        seed = np.asarray(jax.random.key_data(key)).astype(np.uint32)
        rows, none = np.zeros(64, np.int32), np.zeros((), np.int64)
        return buffers.empty(like, most)._replace(ledger=Ledger(np.zeros(most, np.int32), rows, rows, none, seed))

    def datapoints(self, buffer: TaskBuffer) -> int:
        """The budget in datapoints of the shapes and types in `buffer`.

        Raises:
            ValueError: the budget in bytes is smaller than one datapoint.
        """
        assert self.budget is not None
        if self.unit != "bytes":
            return self.budget
        size = sum(stored.nbytes // len(stored) for stored in (buffer.inputs, buffer.targets))
        if self.budget < size:
            raise ValueError(f"budget must be at least one datapoint, {size} bytes, got {self.budget}")
        return int(self.budget // size)

    def append(self, buffer: TaskBuffer, task: int, batch: Batch) -> TaskBuffer:
        """The buffer after `batch` arrived for task `task`, which is the newest one or the next after it.

        The device arrays of the buffer given are donated: only the one returned may be used afterwards.

        Raises:
            ValueError: see `buffer.append`.
        """
        if self.policy == "all":
            return buffers.append(buffer, task, batch)
        buffers.check(buffer, task, batch)
        rows = _rows(buffer, task)
        ledger: Ledger = buffer.ledger
        chance = np.random.default_rng([*map(int, ledger.seed), int(ledger.seen)])
        kept = self._choose(chance, rows, int(ledger.seen), len(batch), buffer)
        most = None if self.unit == "tasks" else self.datapoints(buffer)
        return _rewritten(buffer, rows, kept, most, task, batch)

    def _choose(self, chance: np.random.Generator, rows: _Rows, seen: int, arriving: int, buffer: TaskBuffer) -> Kept:
        """Which stay of the datapoints held and, numbered behind them, those that arrive; in order."""
        held = int(rows.counts.sum())
        everything = np.arange(held + arriving)
        if self.unit == "tasks":
            newest = rows.rounds > rows.rounds[-1] - self.datapoints(buffer)
            return everything[np.repeat(newest, [*rows.counts[:-1], rows.counts[-1] + arriving])]
        budget = self.datapoints(buffer)
        if self.policy == "last":
            return everything[-budget:]
        if self.policy == "reservoir":
            return reservoir(chance, held, arriving, seen, budget)
        share = max(budget // len(rows.counts), 1)
        starts, old = np.cumsum(rows.counts) - rows.counts, len(rows.counts) - 1
        kept = [
            starts[row] + np.sort(chance.permutation(int(rows.counts[row]))[:share])
            for row in range(max(old - (budget - 1), 0), old)
        ]
        own = reservoir(chance, int(rows.counts[-1]), arriving, int(rows.seen[-1]), share)
        return np.concatenate([*kept, starts[-1] + own])


def reservoir(chance: np.random.Generator, held: int, arriving: int, seen: int, budget: int) -> Kept:
    """Algorithm R: which of `held` datapoints and of those that arrive, numbered behind them, are kept.

    The n-th datapoint of all seen draws a place below n, and takes it if it is below the budget. `held` is
    `min(seen, budget)`.
    """
    numbers = held + np.arange(arriving)
    free = min(budget - held, arriving)
    kept, rest = np.concatenate([np.arange(held), numbers[:free]]), numbers[free:]
    places = chance.integers(0, seen + free + 1 + np.arange(len(rest)))
    for place, number in zip(places, rest, strict=True):
        if place < budget:
            kept[place] = number
    return np.sort(kept)


def _rows(buffer: TaskBuffer, task: int) -> _Rows:
    """The rows in use, with one for `task`, whose count is 0 where nothing of it is held yet."""
    ledger = buffer.ledger
    used = buffer.counts > 0
    rows = _Rows(ledger.rounds[used], buffer.counts[used], ledger.row_seen[used])
    if len(rows.rounds) and rows.rounds[-1] == task:
        return rows
    return _Rows(*(np.append(row, value) for row, value in zip(rows, (task, 0, 0), strict=True)))


def _rewritten(buffer: TaskBuffer, rows: _Rows, kept: Kept, most: int | None, task: int, batch: Batch) -> TaskBuffer:
    """The buffer that holds what is `kept` of what it held and of `batch`, with room for `most` at most."""
    ledger, held, size = buffer.ledger, int(rows.counts.sum()), len(kept)
    entering = kept[kept >= held] - held
    inputs, targets, order = buffer.inputs, buffer.targets, ledger.order
    while size > len(order):
        added = min(len(order), (most or 2 * len(order)) - len(order))
        inputs, targets = (buffers.extended(stored, added) for stored in (inputs, targets))
        order = np.pad(order, (0, added))
    staying = order[kept[kept < held]]
    places = np.setdiff1d(np.arange(len(order)), staying)[: len(entering)]
    # A few sizes keep compilation rare; the places of padding lie outside and are dropped.
    padding = bucket_size(max(len(entering), 1)) - len(entering)
    index = np.pad(entering, (0, padding))
    new = (np.asarray(leaf)[index] for leaf in (batch.inputs, batch.targets))
    inputs, targets = _scatter(inputs, targets, *new, np.pad(places, (0, padding), constant_values=len(order)))

    newest = len(rows.counts) - 1
    owner = np.repeat(np.append(np.arange(len(rows.counts)), newest), np.append(rows.counts, len(batch)))
    counts = np.bincount(owner[kept], minlength=newest + 1)
    row_seen = rows.seen.copy()
    row_seen[-1] += len(batch)
    keeps = counts > 0
    room = len(buffer.counts)
    while keeps.sum() > room:
        room *= 2

    def filled(values: np.ndarray) -> np.ndarray:
        values = values[keeps].astype(np.int32)
        return np.pad(values, (0, room - len(values)))

    return TaskBuffer(
        inputs,
        targets,
        filled(np.cumsum(counts) - counts),
        filled(counts),
        np.asarray(max(int(buffer.tasks), task + 1), np.int32),
        Ledger(
            np.pad(np.concatenate([staying, places]), (0, len(order) - size)).astype(np.int32),
            filled(rows.rounds),
            filled(row_seen),
            np.asarray(ledger.seen + len(batch), np.int64),
            ledger.seed,
        ),
    )


@partial(jax.jit, donate_argnums=(0, 1))
def _scatter(inputs: Array, targets: Array, new_inputs: Any, new_targets: Any, places: Any) -> tuple[Array, Array]:
    return (
        inputs.at[places].set(new_inputs.astype(inputs.dtype), mode="drop"),
        targets.at[places].set(new_targets.astype(targets.dtype), mode="drop"),
    )
