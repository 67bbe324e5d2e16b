"""How good a learner that lives has been: each datapoint is judged before it is learned (Dawid, 1984)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from metaleader.buffer import TaskKey
from metaleader.problem import Problem, Score
from metaleader.problem.batch import Batch

LOSS = "loss"


class Mean(NamedTuple):
    """Means over datapoints.

    Attributes:
        datapoints: how many.
        values: the mean of the loss, as `loss`, and of every score that is a mean, by its name. Among the recent ones,
            scores of a whole set as well.

    Examples:
        >>> from metaleader.live import Mean
        >>> mean = Mean(20, {"loss": 0.5, "squared error": 0.5})
        >>> mean.datapoints * mean.values["loss"]  # the sum over datapoints
        10.0
    """

    datapoints: int
    values: Mapping[str, float]


class Standing(NamedTuple):
    """What `Live.score` gives.

    Attributes:
        overall: of all datapoints that were judged.
        by_age: by how many datapoints the task had before: 0, 1, 2, from 3, from 5, from 9, and so on in doublings.
        recent: of the newest ones.
        not_finite: how many datapoints were left out, as the loss or a score of their group was not finite.

    Examples:
        >>> import tempfile, numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 2, dtype=np.float32)[:, None]
        >>> with tempfile.TemporaryDirectory() as folder, ml.Live.create(folder, problem, ml.TOE(1)) as live:
        ...     for _ in range(3):
        ...         told = live.learn("north", x, x)
        ...     live.wait()
        ...     standing = live.score()
        >>> standing.overall.datapoints, {age: mean.datapoints for age, mean in standing.by_age.items()}
        (6, {0: 2, 2: 2, 3: 2})
    """

    overall: Mean
    by_age: Mapping[int, Mean]
    recent: Mean
    not_finite: int


class Judged(NamedTuple):
    """Datapoints that were learned together, and what was predicted of them before.

    Attributes:
        task: which they are of.
        datapoints: how many.
        values: means over them, by name.
        outputs: predictions, where a score is of the whole set.
        targets: what they should have been, there.
    """

    task: TaskKey
    datapoints: int
    values: Mapping[str, float]
    outputs: np.ndarray | None
    targets: np.ndarray | None


class Sums(NamedTuple):
    """Of datapoints, and of what they were judged by, times datapoints."""

    datapoints: int
    values: Mapping[str, float]

    def plus(self, judged: Judged) -> Sums:
        """With further ones."""
        n = judged.datapoints
        sums = {name: self.values.get(name, 0.0) + n * value for name, value in judged.values.items()}
        return Sums(self.datapoints + n, sums)

    @property
    def mean(self) -> Mean:
        """Their means."""
        return Mean(self.datapoints, {name: value / self.datapoints for name, value in self.values.items()})


NONE = Sums(0, {})


@dataclass(frozen=True)
class Prequential:
    """The account of all that was judged, in a memory that does not grow.

    Attributes:
        window: how many datapoints are recent.
        overall: of all.
        by_age: by the number of datapoints before, in doublings.
        recent: groups that were judged, oldest first: the fewest that hold `window` datapoints.
        not_finite: datapoints that could not be judged.
    """

    window: int
    overall: Sums = NONE
    by_age: Mapping[int, Sums] = field(default_factory=dict)
    recent: tuple[Judged, ...] = ()
    not_finite: int = 0

    def after(self, problem: Problem, task: TaskKey, before: int, outputs: Any, batch: Batch) -> Prequential:
        """With the datapoints of a batch.

        Args:
            problem: its loss and scores judge.
            task: which they are of.
            before: how many datapoints the task had before.
            outputs: what the learner predicted of them.
            batch: the datapoints.
        """
        loss, scores = _of_means(problem).judge(outputs, batch)
        values = {LOSS: loss, **{score.name: scores[score.name] for score in problem.scored if not score.whole}}
        finite = [np.isfinite(leaf).all() for leaf in jax.tree.leaves(outputs)]
        if not all(finite) or not all(map(math.isfinite, values.values())):
            return replace(self, not_finite=self.not_finite + len(batch))
        keep = _whole(problem) and all(hasattr(tree, "shape") for tree in (outputs, batch.targets))
        shown = (np.asarray(outputs), np.asarray(batch.targets)) if keep else (None, None)
        judged, age = Judged(task, len(batch), values, *shown), age_group(before)
        recent, held = (*self.recent, judged), sum(one.datapoints for one in self.recent) + len(batch)
        while held - recent[0].datapoints >= self.window:
            held, recent = held - recent[0].datapoints, recent[1:]
        by_age = {**self.by_age, age: self.by_age.get(age, NONE).plus(judged)}
        return replace(self, overall=self.overall.plus(judged), by_age=by_age, recent=recent)

    def without(self, task: TaskKey) -> Prequential:
        """Without the datapoints of a task among the recent ones; sums over all stay as they are."""
        return replace(self, recent=tuple(judged for judged in self.recent if judged.task != task))

    def standing(self, problem: Problem) -> Standing:
        """The account in means."""
        recent = NONE
        for judged in self.recent:
            recent = recent.plus(judged)
        values = dict(recent.mean.values) if self.recent else {}
        if self.recent and self.recent[0].outputs is not None:
            outputs, targets = (
                np.concatenate([getattr(judged, name) for judged in self.recent]) for name in ("outputs", "targets")
            )
            for score in _whole(problem):
                values[score.name] = _of_all(score, outputs, targets)
        overall = self.overall.mean if self.overall.datapoints else Mean(0, {})
        by_age = {age: sums.mean for age, sums in sorted(self.by_age.items())}
        return Standing(overall, by_age, Mean(recent.datapoints, values), self.not_finite)

    def saved(self) -> tuple[Any, dict[str, np.ndarray]]:
        """As plain JSON, and as arrays."""
        plain = {
            "overall": self.overall,
            "by_age": {str(age): sums for age, sums in self.by_age.items()},
            "recent": [(judged.task, judged.datapoints, judged.values) for judged in self.recent],
            "not_finite": self.not_finite,
        }
        if not self.recent or self.recent[0].outputs is None:
            return plain, {}
        names = ("outputs", "targets")
        return plain, {name: np.concatenate([getattr(judged, name) for judged in self.recent]) for name in names}

    @classmethod
    def restored(cls, window: int, plain: Any, arrays: Mapping[str, np.ndarray]) -> Prequential:
        """What `saved` gave."""
        recent, at = list[Judged](), 0
        for task, n, values in plain["recent"]:
            shown = [arrays[name][at : at + n] if name in arrays else None for name in ("outputs", "targets")]
            recent.append(Judged(task, n, values, *shown))
            at += n
        by_age = {int(age): Sums(*sums) for age, sums in plain["by_age"].items()}
        return cls(window, Sums(*plain["overall"]), by_age, tuple(recent), plain["not_finite"])


def age_group(before: int) -> int:
    """The first number of datapoints of the doubling that `before` is in: 0, 1, 2, 3 (to 4), 5 (to 8), 9 (to 16), ...

    >>> [age_group(n) for n in (0, 1, 2, 3, 4, 5, 8, 9, 16, 17)]
    [0, 1, 2, 3, 3, 5, 5, 9, 9, 17]
    """
    return before if before < 2 else (1 << (before - 1).bit_length() - 1) + 1


def _of_means(problem: Problem) -> Problem:
    """The problem with those scores alone that are means over examples."""
    scores = tuple(score for score in problem.scored if not score.whole)
    return replace(problem, scores=scores or Score(LOSS, problem.loss, higher_is_better=False))


def _whole(problem: Problem) -> list[Score]:
    return [score for score in problem.scored if score.whole]


def _of_all(score: Score, outputs: np.ndarray, targets: np.ndarray) -> float:
    """A score of a whole set; NaN where it is not defined, as AUC of one class."""
    try:
        return float(score.function(outputs, targets))
    except ValueError:
        return math.nan
