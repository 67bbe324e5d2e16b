"""Every learner conforms by being listed: same seed same run, inputs untouched, honest counts, resumable state."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaleader import (
    FTL,
    FTML,
    TOE,
    Adam,
    GradientDescent,
    Identity,
    Learner,
    Momentum,
    MultiHeadFTL,
    MultiHeadTOE,
    Protocol,
    Recency,
    Scratch,
    OnlineMetaGradient,
    Task,
    play,
)
from metaleader.learners.base import averaged_params
from metaleader.play.protocol import Position
from metaleader.play.record import RunFolder
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
    average = getattr(learner.optimizer, "average", 0.0)  # type: ignore[attr-defined]
    eager = replace(learner, optimizer=Adam(0.02, average))  # type: ignore[type-var]
    tasks = [Task(points(40, i), points(15, 100 + i)) for i in range(30)]
    records = list(play(CURVES, tasks, eager, OnlineProtocol(chunk=20)))
    scores = [r.score for r in records if r.score is not None]
    assert len(scores) == len(records) == 30 * 2
    # A head of its own for every task starts from nothing each time: it must beat the mean of the targets, no more.
    share = 1.0 if isinstance(learner, MultiHeadTOE | MultiHeadFTL) else 0.5
    assert np.mean(scores[-10:]) < share * np.var(tasks[0].test.targets)


def test_gradient_evaluations_are_counted() -> None:
    """Two rounds of two chunks of 8 points; formulas written out anew."""

    def spent(learner: Learner) -> int:
        return int(observe(learner, rounds=2).gradient_evaluations)

    # 4 chunks, each 2 steps on 3 tasks: 5 inner gradients and 5 Hessian-vector products (2 each) on 6 points, 7 judged.
    assert spent(FTML(meta_steps=2, meta_batch=3, train_size=6, validation_size=7)) == 4 * 2 * 3 * (5 * 6 * 3 + 7)
    first_order = FTML(GradientDescent(first_order=True), meta_steps=2, meta_batch=3, train_size=6, validation_size=7)
    assert spent(first_order) == 4 * 2 * 3 * (5 * 6 + 7)
    assert spent(replace(first_order, past_only=True)) == 2 * 2 * 3 * (5 * 6 + 7)  # nothing to learn from in round 1
    mixed = TOE(steps=3, batch_tasks=0, batch_size=10)
    assert spent(mixed) == 3 * (8 + 10 + 10 + 10)  # 8, 16, 24, 32 points are there
    assert spent(FTL(steps=3, batch_tasks=0, batch_size=10)) == 3 * (0 + 0 + 10 + 10)
    assert spent(FTL(steps=3, batch_tasks=2, batch_size=10, calibration_size=4)) == 3 * 2 * (14 + 14)
    assert spent(TOE(steps=3, batch_tasks=2, batch_size=5, calibration_size=3)) == 3 * 2 * (8 + 8 + 8 + 8)
    assert spent(Scratch(steps=3, batch_size=10)) == 3 * (8 + 10 + 8 + 10)
    assert spent(MultiHeadTOE(steps=3, batch_tasks=2, batch_size=5, tasks=4)) == 4 * 3 * 2 * 5


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


def test_adaptation_begins_from_the_moving_mean_of_the_iterates() -> None:
    """Learning does not; each iterate weighs half as much as the next, and the initial parameters nothing."""
    averaged, last = (TOE(steps=1, batch_size=8, optimizer=Adam(average=average)) for average in (0.5, 0.0))
    states = [learner.init(CURVES, jax.random.key(0), points(1)) for learner in (averaged, last)]
    np.testing.assert_array_equal(numbers(averaged.adapt(CURVES, states[0], points(8))), numbers(states[1].params))
    iterates = []
    for i in range(3):
        states = [
            learner.observe(CURVES, state, 0, points(8, i))
            for learner, state in zip((averaged, last), states, strict=True)
        ]
        np.testing.assert_array_equal(numbers(states[0].params), numbers(states[1].params))
        iterates.append(numbers(last.adapt(CURVES, states[1], points(8))))
    expected = np.average(iterates, axis=0, weights=[1, 2, 4])
    np.testing.assert_allclose(numbers(averaged.adapt(CURVES, states[0], points(8))), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "learner",
    [
        Scratch(steps=1, optimizer=Adam(average=0.9)),
        FTL(steps=1, update=Identity(), optimizer=Adam(average=0.9)),
        FTML(Identity(), 1, 2, 3, 4, optimizer=Adam(average=0.9)),
        OnlineMetaGradient(GradientDescent(0), 1, 2, 3, 4, optimizer=Adam(average=0.9)),
        MultiHeadTOE(steps=1, tasks=4, optimizer=Adam(average=0.9)),
    ],
    ids=lambda learner: type(learner).__name__,
)
def test_every_learner_adapts_from_the_average(learner: Learner) -> None:
    """With decay 0.9 it is far behind the last iterate; what is adapted does not move here."""
    state = observe(learner)
    mean = averaged_params(state)
    assert np.abs(numbers(mean) - numbers(state.params)).max() > 1e-5
    shared = mean[0] if isinstance(learner, MultiHeadTOE) else mean
    adapted = learner.adapt(CURVES, state, points(8))
    np.testing.assert_array_equal(adapted["hidden"][0]["kernel"], shared["hidden"][0]["kernel"])


def test_the_average_keeps_the_type_of_the_parameters() -> None:
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    transformation = Adam(average=0.9)()
    state = transformation.init(params)
    _, after = transformation.update({"w": jnp.ones(3, jnp.bfloat16)}, state, params)
    assert [leaf.dtype for leaf in jax.tree.leaves(after)] == [leaf.dtype for leaf in jax.tree.leaves(state)]


def test_scratch_forgets_the_rounds_before() -> None:
    learner = LEARNERS["scratch"]
    state = observe(learner, rounds=2)
    assert state.buffer.size == 16
    np.testing.assert_array_equal(state.buffer.inputs[:8], points(8, 10).inputs)


def test_every_task_has_a_head_of_its_own() -> None:
    learner = MultiHeadTOE(steps=3, batch_tasks=4, batch_size=8, tasks=4, optimizer=Momentum(0.01))
    before, after = (observe(learner, rounds=rounds) for rounds in (1, 3))
    kernels = [np.asarray(state.params[1]["head"]["kernel"]) for state in (before, after)]
    assert kernels[1].shape == (4, 8, 1)
    moved = np.abs(kernels[1] - kernels[0]).max(axis=(1, 2)) > 0
    assert moved.tolist() == [True, True, True, False]  # a head moves from the round of its task on
    assert after.params[0]["head"]["kernel"] is None
    adapted = learner.adapt(CURVES, after, points(8))
    np.testing.assert_array_equal(adapted["head"]["kernel"], kernels[1][2])  # the current task's
    np.testing.assert_array_equal(adapted["hidden"][0]["kernel"], after.params[0]["hidden"][0]["kernel"])


def test_one_task_with_one_head_is_gradient_descent_on_all_of_its_data() -> None:
    learner = MultiHeadTOE(steps=2, batch_tasks=1, batch_size=8, tasks=1, optimizer=Momentum(0.1, momentum=0.0))
    start = learner.init(CURVES, jax.random.key(0), points(1))
    batch = points(8, 3)
    shared, heads = start.params
    first = {"hidden": shared["hidden"], "head": jax.tree.map(lambda leaf: leaf[0], heads["head"])}
    expected = GradientDescent(steps=2, step_size=0.1)(CURVES.objective, first, batch)
    got = learner.adapt(CURVES, learner.observe(CURVES, start, 0, batch), batch)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_stream_with_more_tasks_than_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="round 2 has no head, there are 1: set tasks to the rounds to come"):
        observe(MultiHeadTOE(steps=1, batch_tasks=1, tasks=1), rounds=2)


def test_momentum_with_drops_is_what_its_formula_says() -> None:
    transformation = Momentum(0.5, momentum=0.9, drops=(2, 3), factor=0.1)()
    w, m, state = 1.0, 0.0, transformation.init(np.float32(1.0))
    for rate in (0.5, 0.5, 0.05, 0.005, 0.005):
        change, state = transformation.update(np.float32(w), state)  # the gradient of w^2 / 2
        m = 0.9 * m + w
        np.testing.assert_allclose(change, -rate * m, rtol=1e-5)
        w += float(change)


def test_recency_is_not_uniform() -> None:
    uniform, recent = (replace(FTML(meta_steps=2), sampling=Recency(h)) for h in (float("inf"), 0.1))
    assert np.abs(numbers(observe(uniform).params) - numbers(observe(recent).params)).max() > 1e-7


@pytest.mark.parametrize(
    "build",
    [
        lambda: FTML(meta_steps=0),
        lambda: TOE(batch_size=0),
        lambda: FTL(steps=-1),
        lambda: Adam(float("nan")),
        lambda: Adam(average=1.0),
        lambda: MultiHeadTOE(batch_tasks=0),
        lambda: Momentum(factor=0.0),
        lambda: Momentum(momentum=1.0),
        lambda: Momentum(drops=(5, 5)),
    ],
)
def test_impossible_settings_are_refused(build: Any) -> None:
    with pytest.raises(ValueError, match=r"must be positive and finite, got|must be in|must ascend"):
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
    # Bit for bit in a buffer with as much room, for which the same program is compiled.
    alike = same.init(CURVES, jax.random.key(0), points(1), 1)
    one_task = {name: getattr(alike.buffer, name)[:1] for name in ("starts", "counts")}
    alike = alike._replace(buffer=alike.buffer._replace(**one_task))
    for chunk in range(2):
        alike = same.observe(CURVES, alike, 0, points(8, chunk))
    np.testing.assert_array_equal(numbers(observe(learner, rounds=1).params), numbers(alike.params))
