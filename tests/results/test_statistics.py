"""Intervals and tests against closed forms, SciPy, brute force, and their own promise: few false decisions."""

import itertools
import math
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy import stats

from metaleader.results.statistics import holm, nearest, sign_flip, t_interval, t_test

VALUES = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=2, max_size=8)


def test_the_interval_by_hand() -> None:
    # Mean 2, s = 1, three values: t with 2 degrees of freedom is 4.303 at 97.5 %.
    assert t_interval(np.array([1.0, 2.0, 3.0])) == pytest.approx(
        [2, 2 - 4.303 / math.sqrt(3), 2 + 4.303 / 3**0.5], 1e-3
    )
    assert t_interval(np.array([7.0])) == [7, None, None]
    assert t_interval(np.array([7.0, 7.0])) == [7, None, None]
    assert t_interval(np.array([])) == t_interval(np.array([1.0, np.nan])) == [None, None, None]


@given(VALUES, st.floats(-1, 1))
def test_interval_and_test_are_scipys_and_agree_with_each_other(listed: list[float], against: float) -> None:
    values = np.array(listed)
    p, (_, low, high) = t_test(values, against), t_interval(values)
    assert p is not None
    if low is None or high is None:
        assert np.ptp(values) < 1e-6
        return
    expected = stats.ttest_1samp(values, against)
    assert p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    ends = expected.confidence_interval(0.95)
    assert (low, high) == pytest.approx((ends.low, ends.high))
    assert (p < 0.05) == (not low <= against <= high) or abs(p - 0.05) < 1e-6


@given(VALUES, st.sampled_from([0.0, 1.0]))
def test_flips_are_those_of_brute_force(listed: list[float], against: float) -> None:
    centred = np.array(listed) - against
    seen = abs(centred.sum()) - 1e-9 * abs(centred).sum()
    far = [abs(np.dot(signs, centred)) >= seen for signs in itertools.product([1, -1], repeat=len(listed))]
    assert sign_flip(np.array(listed), against) == np.mean(far)


def test_the_least_p_value_of_flips_is_what_the_number_of_seeds_allows() -> None:
    assert [sign_flip(np.arange(1.0, n + 1)) for n in (3, 6, 10, 21)] == [0.25, 0.03125, 2 / 1024, 2 / 2**21]
    assert sign_flip(np.array([])) is None
    assert sign_flip(np.ones(41)) is None
    assert t_test(np.ones(41)) == 2 / 2**40


def test_seeds_that_agree_to_the_last_digit_have_the_p_value_of_their_signs() -> None:
    for n, p in ((2, 0.5), (3, 0.25), (6, 0.03125)):
        assert t_test(np.full(n, 20.0)) == p
        assert t_test(0.1 + np.arange(n) - (np.arange(n) - 0.1)) == p  # 0.2 but for rounding
    assert t_test(np.zeros(6)) == 1
    assert t_test(np.array([1.0])) is None
    assert t_test(np.array([1.0, np.inf])) is None


def test_holm_by_hand_and_never_in_another_order() -> None:
    assert holm([]) == []
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1, 1]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_stepping_down_rejects(p_values: list[float]) -> None:
    rejected, order = set(), sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, i in enumerate(order):
        if p_values[i] * (len(p_values) - rank) >= 0.05:
            break
        rejected.add(i)
    assert {i for i, p in enumerate(holm(p_values)) if p < 0.05} == rejected


@given(VALUES)
def test_equivalence_is_two_one_sided_tests(listed: list[float]) -> None:
    values, margin = np.array(listed), 50.0
    if np.ptp(values) < 1e-3 or not abs(values.mean()) < margin:
        return
    p = t_test(values, nearest(float(values.mean()), (-margin, margin)))
    below = stats.ttest_1samp(values, margin, alternative="less").pvalue
    above = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    assert p == pytest.approx(2 * max(below, above))


# With no effect: two learners whose scores come from the same distribution, so that differences have mean 0.

SIZES: list[float] = [20, 40, 60, 80, 120, 320, 900]
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
NULLS: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "skewed": lambda rng, shape: rng.lognormal(size=shape) - rng.lognormal(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(2, size=shape),
    "sizes over rounds": lambda rng, shape: np.diff(rng.choice(SIZES, (*shape, 5, 2)))[..., 0].mean(axis=-1),
    "coarse": lambda rng, shape: rng.choice([-1.0, 0.0, 0.0, 1.0], shape),
}


@pytest.mark.parametrize("seeds", [3, 6, 10])
@pytest.mark.parametrize("null", NULLS)
def test_without_an_effect_at_most_one_decision_in_twenty_is_false(null: str, seeds: int) -> None:
    many = 3000
    draws = NULLS[null](np.random.default_rng(seeds), (many, seeds))
    false = np.mean([(p := t_test(values)) is not None and p < 0.05 for values in draws])
    assert false <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / many)  # 99.5 % of simulations of exactly 5 %
