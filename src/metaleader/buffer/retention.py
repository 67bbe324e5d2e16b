"""Limited memories: which datapoints a task buffer keeps within a budget.

The choice is made on the host and by counting alone, so nothing waits for the device; datapoints that enter are written
over those that leave. Its randomness is a function of the run's seed and of how many datapoints were
seen, so a run that was resumed chooses as one that was not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Array, Int

from metaleader.buffer import store
from metaleader.buffer.store import Arrival, TaskBuffer, TaskKey
from metaleader.errors import check_word
from metaleader.problem.batch import Batch

Kept: TypeAlias = Int[np.ndarray, " kept"]
Policy: TypeAlias = Literal["all", "reservoir", "balanced", "mixed", "last"]
Unit: TypeAlias = Literal["datapoints", "bytes", "tasks"]


@dataclass(frozen=True)
class Retention:
    """What a buffer keeps of all datapoints seen, those of the current task included.

    The current task's datapoints enter as they arrive, count towards the budget and may leave like any other. A task of
    which nothing is left and that comes back is a new one to the buffer.

    - `all`: everything.
    - `reservoir`: a uniform sample of all datapoints seen: after n, each is kept with probability
      `min(1, budget / n)` (Algorithm R; Vitter, 1985).
    - `balanced`: the same number of each task, `budget // tasks`, a uniform sample within the task; what is left over
      stays unused. Where there are more tasks than the budget, one datapoint of each of those observed last.
    - `mixed`: half of the budget, rounded down, for the newest datapoints, the rest for a reservoir of all before them.
    - `last`: the newest datapoints, whichever tasks they are of; or with `unit` tasks, what was held of the tasks
      observed last.

    Raises:
        ValueError: a limit without a budget or a budget without a limit, a budget below 1, or a budget of tasks for
            another policy than `last`.

    Examples:
        >>> import jax, numpy as np, metaleader as ml
        >>> retention = ml.Retention("balanced", budget=6)
        >>> batch = ml.Batch.of(np.ones((5, 1), np.float32), np.ones((5, 1), np.float32))
        >>> buffer = retention.empty(batch, jax.random.key(0))
        >>> for task in ("north", "south", "west"):
        ...     buffer = retention.append(buffer, task, batch)
        ...     print(task, buffer.counts[: buffer.rows])
        north [5]
        south [3 3]
        west [2 2 2]
    """

    policy: Policy = "all"
    """Which datapoints are kept."""
    budget: int | None = None
    """How much is kept at most, in units; for every policy but `all`."""
    unit: Unit = "datapoints"
    """What the budget counts: datapoints, bytes of their inputs and targets, or (for `last`) tasks."""

    def __post_init__(self) -> None:
        check_word("policy", self.policy, get_args(Policy))
        check_word("unit", self.unit, get_args(Unit))
        if self.budget is not None and not isinstance(self.budget, (int, np.integer)):
            raise ValueError(f"budget must be a whole number, got {self.budget!r}")
        if self.policy == "all" and self.budget is not None:
            raise ValueError(
                f"policy must be reservoir, balanced, mixed or last for a budget of {self.budget}, got all (which has "
                "none)"
            )
        if self.policy != "all" and (self.budget is None or self.budget < 1):
            raise ValueError(f"budget must be at least 1 for the policy {self.policy}, got {self.budget}")
        if self.unit == "tasks" and self.policy != "last":
            raise ValueError(f"unit must be datapoints or bytes for the policy {self.policy}, got tasks")

    def empty(self, example: Batch, key: Array) -> TaskBuffer:
        """An empty buffer for examples like `example`; `key` settles what chance will choose.

        Raises:
            ValueError: the budget in bytes is smaller than one datapoint.
        """
        most = self._most(example)
        capacity = store.first_capacity(example)
        return store.empty(example, key, capacity if most is None else min(capacity, most))

    def append(self, buffer: TaskBuffer, task: TaskKey, batch: Batch) -> TaskBuffer:
        """The buffer after `batch` arrived for `task`, which is then the current one.

        Examples of weight 0 are left out. The device arrays of the buffer given are donated: only the one returned may
        be used afterwards.

        Raises:
            ValueError: examples have another structure, shape or type than those held, or the key is none.
        """
        batch = batch.weighted
        came = store.arrival(buffer, task, batch)
        most = self._most(buffer.data)
        return store.stored(came, batch, self._chosen(came, most), most)

    def _most(self, example: Batch) -> int | None:
        """The budget in datapoints of the shapes and types in `example`; None where there is none.

        Raises:
            ValueError: the budget in bytes is smaller than one datapoint.
        """
        if self.budget is None or self.unit == "tasks":
            return None
        if self.unit == "datapoints":
            return self.budget
        kinds = store.kinds(example)
        size = store.size(kinds.inputs, kinds.targets)
        if self.budget < size:
            raise ValueError(f"budget must be at least one datapoint, {size} bytes, got {self.budget}")
        return int(self.budget // size)

    def _chosen(self, came: Arrival, most: int | None) -> Kept | None:
        """Which stay of the places held and, numbered behind them, of the datapoints that arrive; None: all."""
        if self.policy == "all":
            return None
        held = int(came.counts.sum())
        if most is None:  # the budget counts tasks
            owners = np.append(np.repeat(np.arange(len(came.counts)), came.counts), np.full(came.arriving, came.row))
            return np.flatnonzero((came.ages < self.budget)[owners])
        total = int(came.buffer.total)
        chance = np.random.default_rng([*map(int, came.buffer.seed), total])
        if self.policy == "reservoir":
            return reservoir(chance, held, came.arriving, total, most)
        if self.policy in ("last", "mixed"):
            window = most if self.policy == "last" else most // 2
            arrivals = np.append(came.buffer.arrivals[:held], total + np.arange(came.arriving))
            in_order = np.argsort(arrivals, kind="stable")
            if self.policy == "last":
                return np.sort(in_order[max(len(arrivals) - window, 0) :])
            # What is no longer among the newest arrives at the reservoir, which has seen all that did so before. By
            # numbers of arrival, as datapoints of either part may have been forgotten.
            first = [total - window, total + came.arriving - window]
            inside, before = map(int, np.searchsorted(arrivals[in_order], first))
            older, newest = in_order[:before], in_order[before:]
            among = reservoir(chance, inside, len(older) - inside, max(total - window, 0), most - window)
            return np.sort(np.append(older[among], newest))
        share, starts = max(most // len(came.counts), 1), np.cumsum(came.counts) - came.counts

        def sample(row: int) -> Kept:
            return starts[row] + np.sort(chance.permutation(int(came.counts[row]))[:share])

        kept = [sample(int(row)) for row in np.flatnonzero(came.ages < most) if row != came.row]
        own = (
            starts[came.row] + np.arange(came.counts[came.row]) if came.counts[came.row] <= share else sample(came.row)
        )
        among = reservoir(chance, len(own), came.arriving, int(came.seen[came.row]), share)
        return np.sort(np.concatenate([*kept, np.append(own, held + np.arange(came.arriving))[among]]))


def reservoir(chance: np.random.Generator, held: int, arriving: int, seen: int, budget: int) -> Kept:
    """Algorithm R: which of `held` datapoints and of those that arrive, numbered behind them, are kept.

    The n-th datapoint of all seen draws a place below n, and takes it if it is below the budget.
    """
    numbers = held + np.arange(arriving)
    free = max(min(budget - held, arriving), 0)
    kept, rest = np.concatenate([np.arange(held), numbers[:free]]), numbers[free:]
    places = chance.integers(0, seen + free + 1 + np.arange(len(rest)))
    for place, number in zip(places, rest, strict=True):
        if place < budget:
            kept[place] = number
    return np.sort(kept)
