"""Sampling distributions nu over tasks, and minibatches of a task's datapoints (paper, section 5 and Algorithm 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metaleader.problem.batch import AnyArray

Draw: TypeAlias = tuple[Int[Array, " _"], Float[Array, " _"]]  # indices and mask (0 marks padding)
Draws: TypeAlias = tuple[Int[Array, "steps tasks _"], Float[Array, "steps tasks _"]]  # of the tasks of every step
Sampling: TypeAlias = Callable[[Float[Array, " tasks"]], Float[Array, " tasks"]]


@dataclass(frozen=True)
class Recency:
    """Sampling weight `2 ** (-age / half_life)` for a task since which `age` others were observed.

    The default, an infinite half-life, is the uniform distribution over the tasks seen (the paper's nu_t). A task that
    comes back is the current one again, of age 0; where no task does, the age is in rounds. Any function of the ages,
    an array `(tasks,)`, to weights of the same shape serves as well; the age of a task without datapoints is infinite,
    and its weight does not count.

    Raises:
        ValueError: `half_life` is not positive, or `newest` is not in [0, 1).

    Examples:
        >>> import jax.numpy as jnp, metaleader as ml
        >>> ml.Recency(half_life=2)(jnp.array([0.0, 2.0, 4.0])).tolist()
        [1.0, 0.5, 0.25]
        >>> ml.Recency(newest=0.5)(jnp.array([0.0, 2.0, 4.0])).tolist()
        [2.0, 1.0, 1.0]
    """

    half_life: float = float("inf")
    """Tasks observed since after which a task is drawn half as often; inf: all tasks alike."""
    newest: float = 0.0
    """Probability of drawing the current task; 0: what its age gives it."""

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
    sampling: Sampling, counts: Int[AnyArray, " rows"], ages: Int[AnyArray, " rows"]
) -> Float[Array, " rows"]:
    """nu_t up to a constant factor: `sampling` of the tasks' ages, and 0 for a task without datapoints."""
    has_data = jnp.asarray(counts) > 0
    weights = sampling(jnp.where(has_data, jnp.asarray(ages, jnp.float32), jnp.inf))
    return jnp.where(has_data, jnp.asarray(weights, jnp.float32), 0)


def sample_rows(key: Array, weights: Float[AnyArray, " rows"], shape: tuple[int, ...]) -> Int[Array, ...]:
    """Rows drawn with replacement in proportion to `weights`; one of weight 0 never, unless all are 0."""
    return jax.random.choice(key, len(weights), shape, p=weights).astype(jnp.int32)


def sample_distinct(key: Array, count: Int[AnyArray, ""] | int, n: int) -> Draw:
    """`n` distinct numbers below `count` in random order, every arrangement equally likely.

    The first `n` steps of a Fisher-Yates shuffle of `0, ..., count - 1`, of which only the places that were
    swapped are kept.

    Returns:
        The numbers, and weights: 1 for each, and 0 for those that are missing where `count < n`.
    """
    count, steps = jnp.asarray(count, jnp.int32), jnp.arange(n, dtype=jnp.int32)  # also where integers have 64 bits
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
    key: Array, count: Int[AnyArray, ""], train: int, validation: int, vary_train: bool = False
) -> tuple[Draw, Draw]:
    """Disjoint minibatches D_tr and D_val of a task, drawn without replacement, as numbers of its `count` datapoints.

    A task with fewer than `train + validation` datapoints fills both in proportion; the rest has weight 0. With
    `vary_train`, D_tr keeps its first m examples only, m uniform from 0 to `train`.
    """
    total = train + validation
    numbers, weights = sample_distinct(key, count, total)
    # Spread over the draw, so that a draw cut short leaves both parts their share.
    to_train = np.diff(np.arange(total + 1) * train // total) > 0
    kept = weights[to_train]
    if vary_train:
        kept = kept * (jnp.arange(train) < jax.random.randint(jax.random.fold_in(key, 1), (), 0, train + 1))
    return (numbers[to_train], kept), (numbers[~to_train], weights[~to_train])


def sample_splits(
    key: Array, counts: Int[AnyArray, "steps tasks"], train: int, validation: int, vary_train: bool = False
) -> tuple[Draws, Draws]:
    """`sample_split` of every task of every step; the numbers and weights have shape `(steps, tasks, n)`."""
    split = partial(sample_split, train=train, validation=validation, vary_train=vary_train)
    drawn: tuple[Draws, Draws] = jax.vmap(jax.vmap(split))(jax.random.split(key, counts.shape), counts)
    return drawn
