"""Every learner conforms by being listed: same seed same run, inputs untouched, honest counts, resumable state."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from metaleader import FTL, FTML, TOE, Adam, GradientDescent, Learner, Protocol, Recency, Scratch, Task, play
from metaleader.protocol import Position
from metaleader.record import RunFolder
from problems import CURVES, LEARNERS, points


def observe(learner: Learner, rounds: int = 3, seed: int = 0, chunks: int = 2) -> Any:
    state = learner.init(CURVES, jax.random.key(seed), points(1))
    for task in range(rounds):
        for chunk in range(chunks):
            state = learner.observe(CURVES, state, task, points(8, 10 * task + chunk))
    return state


def numbers(tree: Any) -> np.ndarray:
    leaves = [jax.random.key_data(x) if "key" in str(getattr(x, "dtype", "")) else x for x in jax.tree.leaves(tree)]
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in leaves])


@pytest.mark.parametrize("name", LEARNERS)
def test_the_same_key_gives_the_same_state_and_another_another(name: str) -> None:
    learner = LEARNERS[name]
    np.testing.assert_array_equal(numbers(observe(learner)), numbers(observe(learner)))
    assert np.abs(numbers(observe(learner).params) - numbers(observe(learner, seed=1).params)).max() > 1e-6


@pytest.mark.parametrize("name", LEARNERS)
def test_data_given_is_left_as_it_is_and_adapting_changes_nothing(name: str) -> None:
    learner, batch = LEARNERS[name], points(8, 1)
    before = jax.tree.map(np.copy, batch)
    state = learner.observe(CURVES, learner.init(CURVES, jax.random.key(0), batch), 0, batch)
    kept = numbers(state)
    first, second = (learner.adapt(CURVES, state, batch) for _ in range(2))
    np.testing.assert_array_equal(numbers(first), numbers(second))
    np.testing.assert_array_equal(numbers(state), kept)
    jax.tree.map(np.testing.assert_array_equal, batch, before)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_state_that_went_through_a_checkpoint_goes_on_to_the_same_state(name: str, tmp_path: Path) -> None:
    learner = LEARNERS[name]
    folder = RunFolder(tmp_path)
    state = observe(learner)
    folder.save(Position(state))
    position = folder.restore(Position(learner.init(CURVES, jax.random.key(5), points(1))))
    assert position is not None
    restored = position.state
    more = points(8, 77)
    np.testing.assert_array_equal(
        numbers(learner.observe(CURVES, state, 3, more)), numbers(learner.observe(CURVES, restored, 3, more))
    )


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_is_a_value_and_gets_better_with_its_task(name: str) -> None:
    learner = LEARNERS[name]
    assert hash(learner) == hash(replace(learner))  # type: ignore[type-var]
    eager = replace(learner, optimizer=Adam(0.02))  # type: ignore[type-var]
    tasks = [Task(points(40, i), points(15, 100 + i)) for i in range(30)]
    records = list(play(CURVES, tasks, eager, Protocol(chunk=20)))
    scores = [r.score for r in records if r.score is not None]
    assert len(scores) == len(records) == 30 * 2
    assert np.mean(scores[-10:]) < 0.5 * np.var(tasks[0].test.targets)


def test_gradient_evaluations_are_counted() -> None:
    """Two rounds of two chunks of 8 points; formulas written out anew."""

    def spent(learner: Learner) -> int:
        return int(observe(learner, rounds=2).gradient_evaluations)

    # 4 chunks, each 2 steps on 3 tasks: 5 inner gradients and 5 Hessian-vector products (2 each) on 6 points, 7 judged.
    assert spent(FTML(meta_steps=2, meta_batch=3, train_size=6, validation_size=7)) == 4 * 2 * 3 * (5 * 6 * 3 + 7)
    first_order = FTML(GradientDescent(first_order=True), meta_steps=2, meta_batch=3, train_size=6, validation_size=7)
    assert spent(first_order) == 4 * 2 * 3 * (5 * 6 + 7)
    assert spent(replace(first_order, past_only=True)) == 2 * 2 * 3 * (5 * 6 + 7)  # nothing to learn from in round 1
    assert spent(TOE(steps=3, batch_size=10)) == 3 * (8 + 10 + 10 + 10)  # 8, 16, 24, 32 points are there
    assert spent(FTL(steps=3, batch_size=10)) == 3 * (0 + 0 + 10 + 10)
    assert spent(Scratch(steps=3, batch_size=10)) == 3 * (8 + 10 + 8 + 10)


def test_ftl_learns_from_the_rounds_before_only() -> None:
    learner = LEARNERS["ftl"]
    state = observe(learner, rounds=1)
    start = learner.init(CURVES, jax.random.key(0), points(1))
    np.testing.assert_array_equal(numbers(state.params), numbers(start.params))

    def after(last: int) -> Any:
        state = observe(learner, rounds=1)
        return learner.observe(CURVES, state, 1, points(8, last)).params

    np.testing.assert_array_equal(numbers(after(1)), numbers(after(2)))  # whatever the current round's data


def test_ftml_on_past_tasks_only_does_not_meta_train_on_the_current_one() -> None:
    learner = LEARNERS["ftml-past-only"]

    def after(last: int) -> Any:
        return learner.observe(CURVES, observe(learner, rounds=1), 1, points(8, last)).params

    np.testing.assert_array_equal(numbers(after(1)), numbers(after(2)))
    with_current = LEARNERS["ftml"]
    outcomes = [
        numbers(with_current.observe(CURVES, observe(with_current, rounds=1), 1, points(8, last)).params)
        for last in (1, 2)
    ]
    assert np.abs(outcomes[0] - outcomes[1]).max() > 1e-7


def test_scratch_forgets_the_rounds_before() -> None:
    learner = LEARNERS["scratch"]
    state = observe(learner, rounds=2)
    assert state.buffer.size == 16
    np.testing.assert_array_equal(state.buffer.inputs[:8], points(8, 10).inputs)


def test_recency_is_not_uniform() -> None:
    uniform, recent = (replace(FTML(meta_steps=2), sampling=Recency(h)) for h in (float("inf"), 0.1))
    assert np.abs(numbers(observe(uniform).params) - numbers(observe(recent).params)).max() > 1e-7


@pytest.mark.parametrize(
    "build",
    [lambda: FTML(meta_steps=0), lambda: TOE(batch_size=0), lambda: FTL(steps=-1), lambda: Adam(float("nan"))],
)
def test_impossible_settings_are_refused(build: Any) -> None:
    with pytest.raises(ValueError, match="must be positive and finite, got"):
        build()


def test_streaming_keeps_the_current_round_only_however_many_there_were() -> None:
    learner = LEARNERS["streaming"]

    def size(tree: Any) -> int:
        return numbers(tree).size

    state = observe(learner, rounds=2)
    assert state.buffer.size == 16
    np.testing.assert_array_equal(state.buffer.data.inputs[:8], points(8, 10).inputs)
    assert size(observe(learner, rounds=70)) == size(state)
    assert size(observe(LEARNERS["ftml"], rounds=70).buffer.counts) > size(
        observe(LEARNERS["ftml"], rounds=2).buffer.counts
    )
    same = replace(FTML(meta_steps=2, meta_batch=2, train_size=3, validation_size=4))
    np.testing.assert_array_equal(numbers(observe(learner, rounds=1).params), numbers(observe(same, rounds=1).params))
