"""By how much one learner is better than another on the same seeds, round by round, and what each spent in learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from metaleader.results import metrics
from metaleader.results.claims import EFFICIENCY, FEW, Measure
from metaleader.results.metrics import Run

Span: TypeAlias = Literal["last third", "whole stream"]
LAST_THIRD: Span = "last third"
WHOLE: Span = "whole stream"

WINDOW = 7
"""Rounds in the running mean by which one learner overtakes another: the round and the six before it."""
EQUAL = 1.1
"""Learners whose gradients differ by no more than this factor, in every round, learn at equal compute."""

Pair: TypeAlias = tuple[Run, Run]  # two learners, the same seed


def pairs(runs: Sequence[Run], better: str, worse: str) -> list[Pair]:
    """The runs of two learners that have ended, seed by seed."""
    of = {(run.learner, run.about.seed): run for run in runs if run.ended and run.records}
    seeds = sorted(seed for learner, seed in of if learner == better and (worse, seed) in of)
    return [(of[better, seed], of[worse, seed]) for seed in seeds]


def few(pair: Pair) -> int | None:
    """The size that counts as few datapoints: the first that the experiment shows, otherwise the smallest.

    None where no size was judged for both learners.
    """
    both = sorted(set(metrics.sizes([pair[0]])) & set(metrics.sizes([pair[1]])))
    return next((size for size in pair[0].about.report_sizes if size in both), both[0] if both else None)


def by_round(measure: Measure, pair: Pair) -> tuple[Float[np.ndarray, "rounds 2"], Bool[np.ndarray, " rounds"]]:
    """The least and the most by which the first learner is better in every round, and which rounds compare the two.

    Score gained, or error avoided: both ends are the same; NaN where a score was not finite, and everywhere if a
    learner diverged. Rounds whose task has too few datapoints to be judged after few do not compare.

    Datapoints saved, min(needed, N) of the one less that of the other, with N the datapoints of the round: a task that
    did not become proficient counts with N, which is the least that it needs. That flatters learners with many such
    tasks. What a task needs lies between two sizes (see `metrics.proficiency`), and so does what is saved: least, if
    the first learner needed all of its interval and the other as little as it may.
    """
    if measure == EFFICIENCY:
        own, other = _restricted(pair)
        saved = other - own[:, ::-1]
        return saved, ~np.isnan(saved).any(axis=1)
    if measure == FEW:
        size = few(pair)
        at = [] if size is None else [size]
        values = metrics.scores(pair, at).sum(axis=2)
        comparable = metrics.judged_by_all(pair, at)[0].any(axis=1) if at else np.zeros(len(values[0]), bool)
    else:
        values = metrics.final_scores(pair)
        comparable = (metrics.judged(pair) | np.array([[run.diverged] for run in pair])).all(axis=0)
    gained = values[0] - values[1] if pair[0].higher_is_better else values[1] - values[0]
    if any(run.diverged for run in pair):
        gained = np.full_like(gained, np.nan)
    return np.stack([gained, gained], axis=1), comparable


def _restricted(runs: Sequence[Run]) -> Float[np.ndarray, "runs rounds 2"]:
    """Both ends of the datapoints that a task needs, counting no more than those of its round."""
    needed = metrics.proficiency(runs)
    needed[:, :, 1] = np.where(np.isinf(needed[:, :, 1]), needed[:, :, 0], needed[:, :, 1])
    return needed


def over_rounds(measure: Measure, pair: Pair, span: Span) -> Float[np.ndarray, " 2"]:
    """The least and the most by which the first learner is better, mean over rounds; NaN where no round compares."""
    gained, comparable = by_round(measure, pair)
    counted = comparable & (metrics.last_third(pair)[0] if span == LAST_THIRD else True)
    return gained[counted].mean(axis=0) if counted.any() else np.full(2, np.nan)


def compared(measure: Measure, paired: Sequence[Pair], span: Span) -> tuple[int, int]:
    """How many tasks an advantage is over, and how many there are, over all seeds."""
    comparable = [by_round(measure, pair)[1] for pair in paired]
    counted = [
        metrics.last_third(pair)[0] if span == LAST_THIRD else np.ones(len(each), bool)
        for pair, each in zip(paired, comparable, strict=True)
    ]
    both = [each & of for each, of in zip(comparable, counted, strict=True)]
    return sum(int(each.sum()) for each in both), sum(int(each.sum()) for each in counted)


def with_itself(run: Run) -> Float[np.ndarray, " 2"]:
    """The least and the most of the datapoints that a learner saves in the last third of the rounds over the first.

    These are other tasks. All count up to the size of the smallest task that never became proficient: else larger tasks
    at the beginning would look as if the learner had needed more.
    """
    needed, never = _restricted([run])[0], np.isinf(metrics.datapoints_to_proficiency([run])[0])
    needed = np.minimum(needed, needed[never, 0].min(initial=np.inf))
    needed = needed[~np.isnan(needed[:, 1])]
    if not len(needed):
        return np.full(2, np.nan)
    third = -(-len(needed) // 3)
    first, last = needed[:third].mean(axis=0), needed[-third:].mean(axis=0)
    return first - last[::-1]


def never_proficient(pair: Sequence[Run], span: Span) -> tuple[int, ...]:
    """How many tasks had not become proficient by their last datapoint, of each learner."""
    counted = metrics.last_third(pair) if span == LAST_THIRD else True
    return tuple(int(row.sum()) for row in np.isinf(metrics.datapoints_to_proficiency(pair)) & counted)


def running(measure: Measure, paired: Sequence[Pair]) -> Float[np.ndarray, "seeds rounds"]:
    """The advantage in the middle of its ends, mean over the `WINDOW` rounds up to and with each; NaN if none compares.

    The first rounds have fewer before them.
    """
    rows = []
    for pair in paired:
        gained, comparable = by_round(measure, pair)
        middle = np.where(comparable, gained.mean(axis=1), 0.0)
        sums, counts = (np.convolve(row, np.ones(WINDOW))[: len(row)] for row in (middle, comparable.astype(float)))
        rows.append(np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0))
    return _padded(rows, np.nan)


def overtakes(advantage: Float[np.ndarray, "seeds rounds"]) -> int | None:
    """The first round, from 1, from which the mean over seeds stays above 0; None: it does not at the end.

    Rounds that do not compare, NaN, neither begin nor end a lead. A description without a test: see the verdicts.
    """
    mean = advantage.mean(axis=0)
    known = np.flatnonzero(~np.isnan(mean))
    if len(known) == 0 or mean[known[-1]] <= 0:
        return None
    behind = known[mean[known] <= 0]
    return int(known[known > behind[-1]][0]) + 1 if len(behind) else int(known[0]) + 1


@dataclass(frozen=True)
class Compute:
    """The gradients that two learners took to learn, the first as a multiple of the other's.

    Attributes:
        least: in the round where it is least, gradients being means over seeds.
        most: in the round where it is most.
        total: over the whole stream.
        idle: rounds in which one of them took none, as joint training on past tasks has none in round 1; they count
            in the total alone.
        adapting: the records do not tell learning from adapting in order to be judged; both are counted.
        with_adapting: over the whole stream, both counted.
    """

    least: float
    most: float
    total: float
    idle: int
    adapting: bool
    with_adapting: float

    @property
    def equal(self) -> bool:
        """Whether the learners are known to learn at equal compute: within 10 % in every round and in all."""
        return not self.adapting and all(1 / EQUAL <= ratio <= EQUAL for ratio in (self.least, self.most, self.total))


def compute(paired: Sequence[Pair]) -> Compute | None:
    """What the learners of the pairs spent on learning, round by round; None where one of them spent nothing at all."""
    adapting = not all(run.records[-1].learning_evaluations for pair in paired for run in pair)
    spent = [_padded([_spent(pair[i], adapting) for pair in paired], 0.0).mean(axis=0) for i in range(2)]
    both = (spent[0] > 0) & (spent[1] > 0)
    if not both.any():
        return None
    ratios, total = spent[0][both] / spent[1][both], float(spent[0].sum() / spent[1].sum())
    first, second = (sum(_spent(pair[i], True).sum() for pair in paired) for i in range(2))
    idle = int(((spent[0] > 0) != (spent[1] > 0)).sum())
    return Compute(float(ratios.min()), float(ratios.max()), total, idle, adapting, float(first / second))


def _padded(rows: Sequence[Float[np.ndarray, " _"]], value: float) -> Float[np.ndarray, "seeds rounds"]:
    """One array of all rows; shorter ones, of seeds with fewer rounds, end with that value."""
    longest = max(map(len, rows), default=0)
    return np.array([np.pad(row, (0, longest - len(row)), constant_values=value) for row in rows])


def _spent(run: Run, adapting: bool) -> Float[np.ndarray, " rounds"]:
    """Gradients of every round."""
    so_far = np.zeros(run.planned)
    for record in run.records:
        count = record.gradient_evaluations if adapting else record.learning_evaluations
        so_far[record.round - 1 :] = count
    return np.diff(so_far, prepend=0.0)
