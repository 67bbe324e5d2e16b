"""Learners compared seed by seed: a score of every run, its mean with an interval, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Float

from metaleader.results import figures
from metaleader.results.metrics import Run, last_third_from
from metaleader.results.statistics import Interval, holm, t_interval, t_test

LEVEL = 0.05  # of the corrected p-values
Answer: TypeAlias = Literal["ahead", "behind", "undecided"]
K = TypeVar("K")


@dataclass(frozen=True)
class Measure:
    """The mean score over rounds of a run.

    Attributes:
        size: datapoints of the task after which it is judged; None: the end of every round.
        whole: over all rounds, as in Eq. 3; otherwise over the last third of them.
    """

    size: int | None
    whole: bool

    def __str__(self) -> str:
        when = "at the end of rounds" if self.size is None else f"after {self.size} datapoints"
        return f"{when}, {'whole stream' if self.whole else 'last third'}"

    def of(self, run: Run) -> float:
        """The mean; NaN for a run that diverged, and where a score that counts is not finite or there is none."""
        first = 1 if self.whole else last_third_from(run.completed)
        counted = [record for record in run.records if first <= record.round <= run.completed]
        by_round = {record.round: record.score for record in counted if self.size in (None, record.datapoints)}
        values = [np.nan if score is None else score for score in by_round.values()]
        return float(np.mean(values)) if values and not run.diverged else np.nan

    def interval(self, runs: Sequence[Run]) -> Interval:
        """The mean over runs (seeds) with its 95 % t interval; all None where a run has no value."""
        return t_interval(np.array([self.of(run) for run in runs]))


def measures(runs: Sequence[Run]) -> tuple[Measure, ...]:
    """After few datapoints and at the end of rounds, over the last third and the whole stream."""
    few = figures.shown_sizes({"": runs})[0]
    return tuple(Measure(size, whole) for size in (few, None) for whole in (False, True))


def differences(measure: Measure, ours: Sequence[Run], theirs: Sequence[Run]) -> Float[np.ndarray, " seeds"]:
    """By how much our score is the better one, for every seed of which there are both runs; positive is better."""
    other = {run.about.seed: run for run in theirs}
    pairs = [(run, other[run.about.seed]) for run in ours if run.about.seed in other]
    return np.array([(1 if a.higher_is_better else -1) * (measure.of(a) - measure.of(b)) for a, b in pairs])


@dataclass(frozen=True)
class Decision:
    """What paired differences say.

    Attributes:
        interval: their mean with a 95 % t interval, not corrected.
        p: of the t test that the mean is 0, corrected by Holm's method; None where there are fewer than two pairs.
        answer: `ahead` or `behind` where `p` is under 0.05.
    """

    interval: Interval
    p: float | None
    answer: Answer


def decide(found: Mapping[K, Float[np.ndarray, " seeds"]]) -> dict[K, Decision]:
    """A decision for each of several comparisons, the p-values corrected over all of them by Holm's method."""
    raw = {key: t_test(values) for key, values in found.items()}
    known = [(key, p) for key, p in raw.items() if p is not None]
    adjusted = dict(zip((key for key, _ in known), holm([p for _, p in known]), strict=True))
    return {key: _decision(t_interval(values), adjusted.get(key)) for key, values in found.items()}


def _decision(interval: Interval, p: float | None) -> Decision:
    mean = interval[0]
    if p is None or mean is None or p >= LEVEL:
        return Decision(interval, p, "undecided")
    return Decision(interval, p, "ahead" if mean > 0 else "behind")
