"""What the errors on some tasks say of tasks like them: intervals that hold for several comparisons at once.

The unit is the task. Errors of several learners on the same tasks are compared as ratios of means over tasks. Tasks are
drawn again with replacement, in blocks of tasks that followed one another where time orders them, since neighbours may
be alike (moving-blocks bootstrap; Künsch, 1989). Each deviation of a draw is measured by the standard error within that
draw (bootstrap-t; Efron, 1981), which few tasks of unlike difficulty ask for. Several comparisons share one critical
value, a quantile of the largest deviation among them (max-t; Romano & Wolf, 2005), so that all of their intervals hold
together.

What the intervals are to hold is the ratio of the errors to be expected of tasks that come at the places of those
judged, given the tasks before: of learners that have learned what they did. Other first tasks would have taught them
something else; how much that matters is not in the intervals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64

DRAWS = 4000
AT_ONCE = 2**21  # counts of blocks that are held at a time, which bounds the memory
LEVEL = 0.95
EXACT = 1e-9  # a relative error that is taken for rounding
EMPTY = 0.01  # of the draws, at most, in which a learner may err on no task
FEWEST = 8  # tasks, below which nothing is said of others
FEWEST_IN_TIME = 24  # likewise, where time orders them: about as many blocks


@dataclass(frozen=True)
class Ratio:
    """How the mean error of one learner compares to another's at a size, `1 - mean_i / mean_j`, with its interval.

    Attributes:
        gain: the share of the other's error that is spared; negative where it errs more, NaN where one of them failed.
        low: lower end of the interval.
        high: upper end.
        shown: whether the interval is above 0.
    """

    gain: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the first learner is shown to be better."""
        return self.low > 0


@dataclass(frozen=True)
class Resampled:
    """Errors on the tasks at hand, and how many blocks of tasks are drawn.

    Attributes:
        means: `(learners, sizes)`, infinite where a learner failed.
        blocks: means over the block of tasks that begins at each task, relative to `means`: `(learners, tasks, sizes)`.
        number: of blocks in a draw.
    """

    means: Float64[np.ndarray, "learners sizes"]
    blocks: Float64[np.ndarray, "learners tasks sizes"]
    number: int

    @property
    def logs(self) -> Float64[np.ndarray, "learners sizes"]:
        """Logarithms of the means."""
        return np.log(self.means)

    def shares(self) -> Iterator[Float64[np.ndarray, "draws tasks"]]:
        """The share that the block which begins at each task has in a draw; some of all `DRAWS` at a time."""
        tasks = self.blocks.shape[1]
        yield from _few(tasks, self.number) if tasks * DRAWS <= AT_ONCE else _drawn(tasks, self.number)

    def compare(self, pairs: Sequence[tuple[int, int, int]]) -> list[Ratio]:
        """Intervals for `(i, j, size)`, learner i against j, that all hold at once with probability `LEVEL`.

        With the means m of a draw, the difference of logarithms `log m_j - log m_i` has, over its K blocks with
        means b, the standard error `sqrt(mean((b_j / m_j - b_i / m_i)^2) / K)`. A learner that failed is compared with
        none: its gain is NaN. Where a learner errs on so few tasks that more than `EMPTY` of the draws hold none of
        them, and so have no ratio, the interval has no lower end; such draws, where there are fewer, do not count.
        """
        if not pairs:
            return []
        first, second, at = (np.array(column) for column in zip(*pairs, strict=True))
        with np.errstate(invalid="ignore"):
            gap = self.logs[second, at] - self.logs[first, at]
        i, j = self.blocks[first, :, at], self.blocks[second, :, at]  # (pairs, tasks)
        error = np.sqrt(np.mean(np.square(j - i), axis=1) / self.number)
        empty = (1 - (self.blocks > 0).mean(axis=1)) ** self.number  # share of draws without errors: (learners, sizes)
        open_ended = np.isfinite(gap) & (np.maximum(empty[first, at], empty[second, at]) > EMPTY)
        uncertain = np.isfinite(gap) & (error > EXACT) & ~open_ended
        i, j = i[uncertain], j[uncertain]
        largest = np.concatenate([self._largest(share, i, j) for share in self.shares()])
        critical = float(np.quantile(largest, LEVEL))
        half = np.zeros_like(error)
        half[uncertain], half[open_ended] = critical * error[uncertain], np.inf
        return [
            Ratio(_gain(g), _gain(g - h), _gain(g + h)) if math.isfinite(g) else _UNKNOWN
            for g, h in zip(gap.tolist(), half.tolist(), strict=True)
        ]

    def _largest(
        self,
        share: Float64[np.ndarray, "draws tasks"],
        i: Float64[np.ndarray, "pairs tasks"],
        j: Float64[np.ndarray, "pairs tasks"],
    ) -> Float64[np.ndarray, " draws"]:
        """Of each draw, the largest deviation of a pair, by the standard error within the draw."""
        mean_i, mean_j = share @ i.T, share @ j.T  # (draws, pairs)
        with np.errstate(divide="ignore", invalid="ignore"):
            moments = share @ (i * i).T / mean_i**2 + share @ (j * j).T / mean_j**2
            moments -= 2 * share @ (i * j).T / (mean_i * mean_j)
            within = np.sqrt(np.maximum(moments, 0) / self.number)
            deviations = np.abs(np.log(mean_j / mean_i)) / np.maximum(within, EXACT)
        return np.max(deviations, axis=1, initial=0.0, where=(mean_i > 0) & (mean_j > 0))


_UNKNOWN = Ratio(math.nan, -math.inf, math.inf)


def _gain(gap: float) -> float:
    if gap == -math.inf:
        return gap
    return -math.expm1(min(-gap, 700.0))  # which is an error of 1e304 times as much


def resampled(errors: Float64[np.ndarray, "learners tasks sizes"], ordered: bool) -> Resampled:
    """The means, and blocks of tasks to draw; the same for the same errors.

    Args:
        errors: at least 0, infinite where a learner failed.
        ordered: whether the tasks followed one another in time.

    A mean of 0 counts as a thousandth of the least mean that is not.
    """
    tasks = errors.shape[1]
    block = math.ceil(tasks ** (1 / 3)) if ordered else 1
    finite = np.isfinite(errors).all(axis=1)
    sound = np.where(finite[:, None], errors, 1.0)
    means = sound.mean(axis=1)
    least = means[finite & (means > 0)].min(initial=np.inf) / 1000
    zero = means == 0
    means = np.where(zero, least if math.isfinite(least) else 1.0, means)
    relative = np.where(zero[:, None], 1.0, sound / means[:, None])
    blocks = np.zeros_like(relative)
    for after in range(block):
        blocks += np.roll(relative, -after, axis=1)  # the last task is followed by the first
    return Resampled(np.where(finite, means, np.inf), blocks / block, math.ceil(tasks / block))


@lru_cache(maxsize=2)
def _few(tasks: int, blocks: int) -> list[Float64[np.ndarray, "draws tasks"]]:
    """As `_drawn`, remembered: the same tasks are compared several times."""
    return list(_drawn(tasks, blocks))


def _drawn(tasks: int, blocks: int) -> Iterator[Float64[np.ndarray, "draws tasks"]]:
    """Draws of blocks as shares, a batch at a time; the same draws whatever the size of a batch."""
    random, some = np.random.default_rng(0), max(1, AT_ONCE // tasks)
    for begin in range(0, DRAWS, some):
        yield random.multinomial(blocks, np.full(tasks, 1 / tasks), min(some, DRAWS - begin)) / blocks
