"""Over many draws of tables of each kind: the answer finds what there is to gain, and its intervals hold the truth.

A draw plays learners in closed form by a short loop, which gives the errors of a contest to the last bit in a hundredth
of its time. What the intervals are about are tasks like those judged, for learners that learned from what came before:
the truth of a draw is found on ten times as many tasks that might have come at the same places, given those before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from scipy.stats import binom

import metaleader as ml
import tables
from metaleader import assess
from metaleader.assess.contest import END, Contest
from metaleader.assess.inference import LEVEL

CLOSED = ("linear, pooled", "linear, shrunken", "linear, per task", "task mean")
DRAWS, ROWS, OTHERS = 200, 20, 10
CHANCE = 1e-3  # of a test to fail though what it tests holds


@dataclass(frozen=True)
class Case:
    """A kind of table, and what is to be found in it.

    Attributes:
        tasks: of the table, four fifths of which are judged: as many as a gain of this size takes to be shown.
        sizes: at which learners are judged, beside the last.
        found: at which places among the sizes a gain is to be shown.
        power: in which share of draws, at least.
        learners: who competes.
        ordered: whether time orders the tasks.
    """

    tasks: int
    sizes: tuple[int, ...]
    found: tuple[int, ...]
    power: float
    learners: tuple[str, ...] = CLOSED
    ordered: bool = False


CASES = {
    "common": Case(40, (5, 10), (0, 1), 0.95),
    "heads": Case(40, (3, 5), (0, 1), 0.95, (*CLOSED, "mixed model")),
    "drifting": Case(120, (0, 5), (0,), 0.5, ordered=True),  # neighbours are alike, so that 96 tasks say little
    "cluster": Case(160, (0, 5), (0,), 0.95),
}


def drawn(kind: str, seed: int, folder: Path, tasks: int | None = None) -> tuple[ml.streams.Table, assess.Setup]:
    """A table, and the contest on it."""
    case = CASES[kind]
    frame = tables.table(kind, seed, tasks=tasks or case.tasks, rows=ROWS, shared=0)
    order = "day" if case.ordered else None
    if order:
        frame = frame.assign(day=range(len(frame)))
    table = ml.streams.from_table(frame, group="task", target="y", order=order)
    given = assess.setup(assess.store(table, folder), case.sizes, trials=1, seeds=1, learners=case.learners)
    return table, given


def scores(given: assess.Setup, name: str, state: Any, task: ml.Task) -> tuple[Any, list[float]]:
    """What a learner makes of a task: its state afterwards, and its error at each size."""
    learner, problem = given.candidates[name].learner, given.candidates[name].problem
    seen, found = 0, []
    for size in (len(task.train) if size == END else size for size in given.sizes):
        if size > seen:
            state, _ = learner.observe(problem, state, task.name, task.train[np.arange(seen, size)])
            seen = size
        adapted, _ = learner.adapt(problem, state, task.name, task.train[np.arange(size)])
        outputs = learner.predict(problem, adapted, task.held_out.inputs)
        found.append(float(given.tasks.score.function(outputs, np.asarray(task.held_out.targets))))
    return state, found


def errors_of(given: assess.Setup, others: Mapping[int, Sequence[ml.Task]]) -> tuple[np.ndarray, np.ndarray]:
    """The errors of a contest of learners that draw nothing, `(learners, tasks, sizes)`, and means over other tasks.

    Args:
        given: the contest.
        others: by place, tasks to be played instead of the one that came there.
    """
    found, means = [], []
    stream = list(given.tasks.stream(0))
    for name, candidate in given.candidates.items():
        state = candidate.learner.init(candidate.problem, jax.random.key(0), stream[0].train)
        errors, of_others = {}, []
        for place, task in enumerate(stream):
            of_others += [scores(given, name, state, other)[1] for other in others.get(place, ())]
            state, errors[task.name] = scores(given, name, state, task)
        found.append([errors[task] for task in given.judged])
        means.append(np.mean(of_others, axis=0) if of_others else np.zeros(len(given.sizes)))
    return np.array(found), np.array(means)


def might_come(kind: str, seed: int, table: ml.streams.Table) -> dict[int, list[ml.Task]]:
    """Tasks of the population for every place that is judged, ten times as many as are judged."""
    found = {}
    for place in range(table.first, len(table.tasks)):
        frame = tables.coming(kind, seed, place, OTHERS, rows=ROWS)
        x = table.encode(frame).reshape(OTHERS, ROWS, -1)
        y = ((frame.y.to_numpy() - table.target.mean) / table.target.scale).astype(np.float32).reshape(OTHERS, ROWS, 1)
        n = len(table.tasks[0].train)
        found[place] = [ml.Task.from_arrays(a[:n], b[:n], a[n:], b[n:], "another") for a, b in zip(x, y, strict=True)]
    return found


def answered(given: assess.Setup, errors: np.ndarray) -> assess.Answer:
    """What these errors say."""
    names = list(given.candidates)
    nothing = dict.fromkeys(names, 0)
    return assess.answer(Contest(given, {}, nothing, dict.fromkeys(names, 0.0), errors, dict.fromkeys(names, ())))


def held(compared: Sequence[assess.Comparison], given: assess.Setup, truth: np.ndarray) -> bool:
    """Whether all intervals hold the true gain of the learners that they are about."""
    names = list(given.candidates)
    gains = [
        1 - truth[names.index(each.better), at] / truth[names.index(each.other), at] for at, each in enumerate(compared)
    ]
    return all(each.ratio.low <= gain <= each.ratio.high for each, gain in zip(compared, gains, strict=True))


def played(kind: str, draws: int, others: bool = True) -> tuple[assess.Setup, np.ndarray, np.ndarray]:
    """The contest, the errors of every draw and the true mean errors, `(draws, learners, sizes)`."""
    found = []
    for seed in range(draws):
        with tempfile.TemporaryDirectory() as folder:
            table, given = drawn(kind, seed, Path(folder))
            found.append(errors_of(given, might_come(kind, seed, table) if others else {}))
    errors, truth = (np.array(each) for each in zip(*found, strict=True))
    return given, errors, truth


def least(draws: int, probability: float) -> int:
    """How often something of this probability happens at least, but for `CHANCE`."""
    return int(binom.ppf(CHANCE, draws, probability))


SOME = [kind if kind in ("heads", "common") else pytest.param(kind, marks=pytest.mark.slow) for kind in CASES]


@pytest.mark.parametrize("kind", SOME)
def test_the_short_loop_plays_as_a_contest_does(kind: str, tmp_path: Path) -> None:
    _, given = drawn(kind, 0, tmp_path, tasks=12)
    np.testing.assert_array_equal(errors_of(given, {})[0], assess.contest(given).errors)


@pytest.mark.parametrize("kind", SOME)
def test_a_gain_that_is_there_is_found_in_a_few_draws(kind: str) -> None:
    given, errors, _ = played(kind, 3, others=False)
    shown = [any(answered(given, each).pays[at].ratio.shown for at in CASES[kind].found) for each in errors]
    assert sum(shown) >= least(3, CASES[kind].power)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_gains_are_found_and_their_true_sizes_lie_within_the_intervals(kind: str) -> None:
    given, errors, truth = played(kind, DRAWS)
    answers = [answered(given, each) for each in errors]
    for at in CASES[kind].found:
        assert sum(answer.pays[at].ratio.shown for answer in answers) >= least(DRAWS, CASES[kind].power)
    for compared in ([answer.pays for answer in answers], [answer.wins for answer in answers]):
        assert sum(held(each, given, true) for each, true in zip(compared, truth, strict=True)) >= least(DRAWS, LEVEL)
