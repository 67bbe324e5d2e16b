"""Intervals for ratios of mean errors: coverage, chance findings, tasks that depend on each other, and failures."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from metaleader.assess import inference
from metaleader.assess.answer import percent
from metaleader.assess.inference import Resampled, resampled
from metaleader.assess.saved import saved

LEARNERS, TASKS, SIZES = 5, 40, 3
EVERY = [(i, 0, at) for at in range(SIZES) for i in range(1, LEARNERS)]  # all against the first
TRUE = np.array([0.0, 0.0, 0.1, 0.2, -0.2])  # how much less the logarithm of the mean error is than the first's


def errors(random: np.random.Generator, of: np.ndarray = TRUE, dependence: float = 0.0) -> np.ndarray:
    """Errors `(learners, tasks, sizes)`: a difficulty of each task, which they share, and noise of their own."""
    steps = random.normal(size=(LEARNERS, TASKS, SIZES))
    noise = np.empty_like(steps)
    noise[:, 0] = steps[:, 0]
    for t in range(1, TASKS):
        noise[:, t] = dependence * noise[:, t - 1] + (1 - dependence**2) ** 0.5 * steps[:, t]
    hard = np.exp(0.5 * random.normal(size=(1, TASKS, 1)))
    return hard * np.exp(0.3 * noise - of[:, None, None])


def covered(means: Resampled, of: np.ndarray = TRUE) -> bool:
    """Whether all intervals hold the true gains."""
    found = means.compare(EVERY)
    true = [1 - np.exp(-(of[i] - of[j])) for i, j, _ in EVERY]
    return all(ratio.low <= gain <= ratio.high for ratio, gain in zip(found, true, strict=True))


def test_all_intervals_hold_at_once_with_the_stated_probability() -> None:
    held = [covered(resampled(errors(np.random.default_rng(seed)), ordered=False)) for seed in range(120)]
    assert 0.90 <= np.mean(held) <= 0.995


def test_a_gain_is_rarely_shown_where_there_is_none_and_mostly_where_there_is() -> None:
    none = np.zeros(LEARNERS)
    shown = [
        any(ratio.shown for ratio in resampled(errors(np.random.default_rng(s), none), False).compare(EVERY))
        for s in range(120)
    ]
    assert np.mean(shown) <= 0.06
    some = np.array([0.0, 0.0, 0.0, 0.6, 0.0])
    found = [resampled(errors(np.random.default_rng(s), some), False).compare(EVERY) for s in range(30)]
    assert np.mean([all(ratio.shown for ratio in each[2::4]) for each in found]) > 0.9


def test_blocks_of_tasks_allow_for_neighbours_that_are_alike() -> None:
    held = {
        ordered: np.mean(
            [covered(resampled(errors(np.random.default_rng(seed), dependence=0.7), ordered)) for seed in range(80)]
        )
        for ordered in (False, True)
    }
    assert held[False] < held[True] - 0.05
    assert held[True] > 0.8


def test_the_gain_is_the_ratio_of_the_means() -> None:
    table = np.array([[[2.0], [4.0]], [[1.0], [2.0]]])
    (ratio,) = resampled(table, False).compare([(1, 0, 0)])
    assert ratio.gain == pytest.approx(0.5)
    assert [ratio.low, ratio.high] == pytest.approx([0.5, 0.5])  # in every task half of the error


def test_a_learner_that_failed_is_compared_with_none() -> None:
    table = errors(np.random.default_rng(0))
    table[1, 3, 0] = np.inf
    table[2, 5, 0] = np.inf
    means = resampled(table, False)
    for ratio in means.compare([(0, 1, 0), (1, 0, 0), (1, 2, 0)]):
        assert np.isnan(ratio.gain)
        assert (ratio.low, ratio.high) == (-np.inf, np.inf)
        assert not ratio.shown
    alone, *_ = resampled(table, False).compare([(3, 0, 1)])
    assert np.isfinite([alone.gain, alone.low, alone.high]).all()


def test_no_error_at_all_is_a_small_one() -> None:
    table = np.ones((2, 10, 1))
    table[0] = 0.0
    (ratio,) = resampled(table, False).compare([(0, 1, 0)])
    assert ratio.gain == pytest.approx(0.999)
    nobody_errs = resampled(np.zeros((2, 10, 1)), False).compare([(0, 1, 0)])
    assert [ratio.gain for ratio in nobody_errs] == [0.0]


def test_errors_on_one_task_alone_have_no_interval_and_leave_the_others_theirs() -> None:
    """Of 20 tasks, a draw misses the one that counts in a third of cases."""
    random = np.random.default_rng(3)
    table = np.concatenate([np.zeros((1, 20, 1)), random.uniform(0.5, 1.5, (2, 20, 1))])
    others = resampled(table[1:], False).compare([(0, 1, 0)])
    table[0, 7] = 0.4
    rare, *rest = resampled(table, False).compare([(0, 1, 0), (1, 2, 0)])
    assert (rare.low, rare.high, rare.shown) == (-np.inf, 1.0, False)
    assert 0.9 < rare.gain < 1
    assert rest == others
    assert percent(rare).endswith("less error (on so few tasks that no interval can be told)")
    table[0, :8] = 0.4  # a draw without any of eight is one in 27,000
    (known,) = resampled(table, False).compare([(0, 1, 0)])
    assert 0 < known.low < known.gain < known.high < 1


def test_errors_on_few_tasks_at_many_sizes_leave_every_interval_finite() -> None:
    random = np.random.default_rng(4)
    table = np.concatenate([random.uniform(0.2, 0.8, (1, 30, 8)), random.uniform(0.5, 1.5, (1, 30, 8))])
    for size in range(1, 8):  # each learner errs on five tasks of its own
        for learner in range(2):
            table[learner, random.permutation(30)[5:], size] = 0
    ratios = resampled(table, False).compare([(0, 1, size) for size in range(8)])
    assert np.isfinite([[ratio.low, ratio.high] for ratio in ratios]).all()
    assert ratios[0].shown


def test_the_same_errors_give_the_same_intervals() -> None:
    table = errors(np.random.default_rng(1))
    assert resampled(table, True).compare(EVERY) == resampled(table.copy(), True).compare(EVERY)
    assert resampled(table, True).compare([]) == []


def test_draws_come_in_batches_and_are_the_same_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    means = resampled(errors(np.random.default_rng(2)), True)
    (whole,) = means.shares()
    assert whole.shape == (inference.DRAWS, TASKS)
    np.testing.assert_allclose(whole.sum(axis=1), 1.0)
    expected = means.compare(EVERY)
    monkeypatch.setattr(inference, "AT_ONCE", 1000 * TASKS + 1)
    batches = list(means.shares())
    assert len(batches) == 4
    np.testing.assert_array_equal(np.concatenate(batches), whole)
    for ours, theirs in zip(means.compare(EVERY), expected, strict=True):
        assert (ours.gain, ours.low, ours.high) == pytest.approx((theirs.gain, theirs.low, theirs.high))


def test_memory_does_not_grow_by_all_draws_of_every_task() -> None:
    tasks = 3000
    table = np.random.default_rng(0).uniform(size=(2, tasks, 1))
    tracemalloc.start()
    try:
        means = resampled(table, False)
        means.compare([(1, 0, 0)])
        saved(resampled(np.concatenate([table, table[::-1]], axis=2), False), ("a", "b"), (0, 2), 0, 1)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < inference.DRAWS * tasks * 8  # bytes, which all draws at once would take
