"""Paired advantages, censoring, gradients and overtaking, by hand and by an independent account."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from made_up import made
from metaleader.results import advantage
from metaleader.results.advantage import LAST_THIRD, WHOLE, over_rounds, overtakes
from metaleader.results.claims import EFFICIENCY, FEW, FINAL
from metaleader.results.figures import thinned
from metaleader.results.metrics import proficiency

NEVER, FIRST, SECOND, LAST = [0.1, 0.1, 0.1], [0.6, 0.6, 0.6], [0.1, 0.6, 0.6], [0.1, 0.1, 0.6]


def test_what_a_task_needs_lies_between_two_sizes() -> None:
    run = made([FIRST, SECOND, LAST, NEVER, [0.6, 0.1, 0.1]], rounds=6, outcome="diverged")
    expected = [[0, 10], [10, 20], [20, 40], [40, np.inf], [0, 10], [40, np.inf]]
    np.testing.assert_array_equal(proficiency([run])[0], expected)
    under_way = made([FIRST, SECOND], None)
    np.testing.assert_array_equal(proficiency([under_way])[0], [[0, 10], [np.nan, np.nan]])


def test_datapoints_saved_are_bounded_by_the_sizes_judged_and_by_those_of_the_round() -> None:
    pair = made([FIRST, SECOND, FIRST]), made([LAST, NEVER, NEVER])
    gained, comparable = advantage.by_round(EFFICIENCY, pair)
    # (20, 40] less (0, 10]; at least 40, counted as 40, less (10, 20]; 40 less (0, 10].
    np.testing.assert_array_equal(gained, [[10, 40], [20, 30], [30, 40]])
    assert comparable.all()
    np.testing.assert_array_equal(over_rounds(EFFICIENCY, pair, LAST_THIRD), [30, 40])
    np.testing.assert_array_equal(over_rounds(EFFICIENCY, pair, WHOLE), [20, 110 / 3])
    assert advantage.never_proficient(pair, LAST_THIRD) == (0, 1)
    assert advantage.never_proficient(pair, WHOLE) == (0, 2)
    np.testing.assert_array_equal(advantage.with_itself(made([NEVER, FIRST, SECOND])), [20, 30])


@given(st.lists(st.sampled_from([5, 15, 25, 35, 99]), min_size=6, max_size=6))
def test_the_truth_lies_within_the_bounds(needed: list[int]) -> None:
    """Tasks that need so many datapoints, judged at 10, 20 and 40."""
    own, other = ([[float(size >= n) for size in (10, 20, 40)] for n in half] for half in (needed[:3], needed[3:]))
    least, most = over_rounds(EFFICIENCY, (made(own), made(other)), WHOLE)
    truth = np.mean([min(n, 40) for n in needed[3:]]) - np.mean([min(n, 40) for n in needed[:3]])
    assert least <= truth <= most


@pytest.mark.parametrize("higher", [True, False])
def test_scores_gained_and_errors_avoided(higher: bool) -> None:
    pair = made([[0.2, 0.3, 0.4]] * 3, higher=higher), made([[0.1, 0.2, 0.6]] * 3, higher=higher)
    sign = 1 if higher else -1
    np.testing.assert_allclose(over_rounds(FEW, pair, WHOLE), np.full(2, sign * 0.1))
    np.testing.assert_allclose(over_rounds(FINAL, pair, LAST_THIRD), np.full(2, sign * -0.2))


def test_few_is_what_the_experiment_shows_first_and_short_tasks_do_not_count_there() -> None:
    scores: Any = [[0.1, 0.2, 0.3], [0.1], [0.3, 0.6, 0.9]]
    pair = made(scores), made([[0.0, 0.0, 0.0]] * 3)
    assert advantage.few(pair) == 10
    pair = made(scores, report_sizes=(15, 20, 40)), pair[1]
    assert advantage.few(pair) == 20
    np.testing.assert_allclose(over_rounds(FEW, pair, WHOLE), 0.4)  # rounds 1 and 3


def test_how_many_tasks_are_compared_is_counted() -> None:
    scores: Any = [[0.1, 0.2, 0.3], [0.1], [0.3]]
    paired = [(made(scores, report_sizes=(20,)), made([[0.0] * 3] * 3, learner="toe"))]
    assert advantage.compared(FEW, paired, WHOLE) == (1, 3)
    assert advantage.compared(FEW, paired, LAST_THIRD) == (0, 1)
    assert advantage.compared(FINAL, paired * 2, WHOLE) == (6, 6)


def test_smaller_tasks_at_the_end_are_no_improvement() -> None:
    """None of the tasks became proficient; the last ones had fewer datapoints."""
    scores: Any = [NEVER, NEVER, [0.1]]
    np.testing.assert_array_equal(advantage.with_itself(made(scores)), [0, 0])


def test_a_learner_that_diverged_has_no_score_but_tasks_that_it_never_learned() -> None:
    pair = made([FIRST] * 3), made([FIRST], "diverged", rounds=3)
    assert np.isnan(over_rounds(FINAL, pair, WHOLE)).all()
    np.testing.assert_array_equal(over_rounds(EFFICIENCY, pair, LAST_THIRD), [30, 40])
    one = made([FIRST, [0.6, 0.6, None], FIRST])
    assert np.isnan(over_rounds(FINAL, (one, pair[0]), WHOLE)).all()
    assert np.isfinite(over_rounds(FINAL, (one, pair[0]), LAST_THIRD)).all()


def test_only_seeds_that_both_learners_ended_are_paired() -> None:
    runs = [made([FIRST], learner=name, seed=seed) for name in "ab" for seed in range(3)]
    runs[0] = made([FIRST], None, learner="a", seed=0)
    assert [(a.about.seed, b.learner) for a, b in advantage.pairs(runs, "a", "b")] == [(1, "b"), (2, "b")]


def test_gradients_are_compared_round_by_round() -> None:
    flat = made([FIRST] * 3, learning=[10, 10, 10])
    same = advantage.compute([(flat, made([FIRST] * 3, learning=[10, 11, 10]))])
    assert same is not None
    assert same.equal
    assert (same.least, same.most) == pytest.approx((10 / 11, 1))
    shifted = advantage.compute([(flat, made([FIRST] * 3, learning=[5, 10, 15]))])
    assert shifted is not None
    assert shifted.total == 1
    assert not shifted.equal  # as many in all, but not when they are needed
    idle = advantage.compute([(flat, made([FIRST] * 3, learning=[0, 10, 10]))])
    assert idle is not None
    assert (idle.idle, idle.least, idle.most, idle.total) == (1, 1, 1, 1.5)


def test_records_that_do_not_tell_learning_from_adapting_are_not_called_equal() -> None:
    old = advantage.compute([(made([FIRST] * 2), made([FIRST] * 2))])
    assert old is not None
    assert (old.least, old.most, old.adapting, old.equal) == (1, 1, True, False)


def test_overtaking_is_for_good() -> None:
    assert overtakes(np.array([[1.0, 1, 1]])) == 1
    assert overtakes(np.array([[1.0, -1, 1, 1]])) == 3
    assert overtakes(np.array([[1.0, 1, 0]])) is None
    assert overtakes(np.array([[-3.0, 1, 1], [1, -3, 1]])) == 3  # the mean over seeds
    assert overtakes(np.array([[np.nan, -1, np.nan, 2, np.nan]])) == 4
    assert overtakes(np.full((2, 3), np.nan)) is None


def test_the_running_mean_is_over_the_rounds_up_to_each() -> None:
    scores: Any = [[t, 0.0, t] for t in map(float, range(10))]
    scores[2] = [2.0]  # judged at 10, and not at 40
    pair = made(scores), made([[0.0, 0.0, 0.0]] * 10)
    np.testing.assert_allclose(advantage.running(FEW, [pair])[0, [0, 1, 6, 9]], [0, 0.5, 3, 6])
    pair = made(scores, report_sizes=(40,)), pair[1]
    np.testing.assert_allclose(advantage.running(FEW, [pair])[0, [2, 3]], [0.5, 4 / 3])


def test_seeds_may_have_different_numbers_of_rounds() -> None:
    paired = [(made([SECOND] * 3), made([FIRST] * 3)), (made([SECOND] * 2), made([FIRST] * 2))]
    running = advantage.running(FINAL, paired)
    assert running.shape == (2, 3)
    assert np.isnan(running[1]).tolist() == [False, False, True]
    found = advantage.compute(paired)
    assert found is not None
    assert found.total == 1


def test_size_0_is_shown_beside_some_of_the_others() -> None:
    assert thinned([0, 2, 4, 8, 16, 32, 64], 5) == [0, 2, 8, 16, 64]
    assert thinned([0, 10], 5) == [0, 10]
