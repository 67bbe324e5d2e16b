"""Datapoints saved: how many rows fewer of a new task a learner needs for the error that another has after many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from metaleader.assess.inference import LEVEL, Resampled


@dataclass(frozen=True)
class Saved:
    """How many rows of a new task a learner saves against another.

    Attributes:
        winner: the name of the learner.
        rival: that of the other.
        first: the fewest rows at which errors are known.
        size: how many rows the other has.
        needed: with how many rows, on the line between two sizes, the learner's mean error falls to that of the other
            with `size` rows; infinite where it does not, up to `size`; `first` where it is no larger from there on, so
            that more may be saved.
        low: lower end of the interval of `size - needed`; 0 where the learner may need as many rows, or more.
        high: upper end.
    """

    winner: str
    rival: str
    first: int
    size: int
    needed: float
    low: float
    high: float

    @property
    def rows(self) -> float:
        """How many rows are saved: `size - needed`; 0 where the learner does not get there."""
        return max(self.size - self.needed, 0.0)


def saved(means: Resampled, names: Sequence[str], sizes: Sequence[int], winner: int, rival: int) -> Saved | None:
    """What a learner saves against the rival at the last of the sizes, by mean errors over the tasks.

    The interval is of tasks that are drawn again (percentiles of the draws that `Resampled` has).

    Args:
        means: errors of all learners, whose first sizes are `sizes`.
        names: of the learners.
        sizes: rising numbers of rows.
        winner: the place of the learner.
        rival: that of the other.

    Returns:
        None where there is one size, or where the rival's errors are not finite.
    """
    own, other = means.means[winner, : len(sizes)], means.means[rival, len(sizes) - 1]
    if len(sizes) < 2 or not math.isfinite(other):
        return None
    spared = sizes[-1] - np.array(
        [
            needed(curve, error, sizes)
            for share in means.shares()
            for curve, error in zip(
                (share @ means.blocks[winner, :, : len(sizes)]) * own,
                (share @ means.blocks[rival, :, len(sizes) - 1]) * other,
                strict=True,
            )
        ]
    )
    low, high = np.quantile(np.maximum(spared, 0.0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    at = needed(own, float(other), sizes)
    return Saved(names[winner], names[rival], sizes[0], sizes[-1], at, float(low), float(high))


def needed(curve: Float64[np.ndarray, " sizes"], error: float, sizes: Sequence[int]) -> float:
    """With how many rows, at least, errors fall to `error`: the first place on the lines between sizes, or infinity."""
    reached = np.flatnonzero(curve <= error)
    if not reached.size:
        return math.inf
    i = int(reached[0])
    if i == 0:
        return float(sizes[0])
    before, after = float(curve[i - 1]), float(curve[i])
    along = (before - error) / (before - after) if math.isfinite(before) else 1.0
    return sizes[i - 1] + along * (sizes[i] - sizes[i - 1])
