"""Every learner conforms by being listed: same seed same run, inputs untouched, honest counts, resumable state."""

import pickle
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaleader import (
    EXPERIMENTS,
    FTL,
    FTML,
    TOE,
    Adam,
    Batch,
    GradientDescent,
    Identity,
    Learner,
    Momentum,
    MultiHeadFTL,
    MultiHeadTOE,
    OnlineMetaGradient,
    OnlineProtocol,
    Problem,
    Proximal,
    Recency,
    Retention,
    Scratch,
    Task,
    play,
)
from metaleader.buffer import store
from metaleader.experiments.settings import replaced_in
from metaleader.learners import AdaGrad, base, ftml, joint
from metaleader.online import RunState
from metaleader.runs.folder import RunFolder
from metaleader.update import InnerAdam, InnerMomentum, MetaSGD, OptimizerSteps, Ridge
from problems import CURVES, LEARNERS, RIVALS, points, quadratic

EVERY = LEARNERS | RIVALS


def observe(learner: Learner, rounds: int = 3, seed: int = 0, chunks: int = 2) -> Any:
    state = learner.init(CURVES, jax.random.key(seed), points(1))
    for task in range(rounds):
        for chunk in range(chunks):
            state, _ = learner.observe(CURVES, state, task, points(8, 10 * task + chunk))
    return state


def after(learner: Learner, state: Any, task: int | str, batch: Any) -> Any:
    """The state after datapoints, without what that cost."""
    return learner.observe(CURVES, state, task, batch)[0]


def numbers(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(_numbers(leaf), np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def _numbers(leaf: Any) -> Any:
    if "key" in str(getattr(leaf, "dtype", "")):
        return jax.random.key_data(leaf)
    if isinstance(leaf, (np.ndarray, np.generic, jax.Array, int, float)):
        return leaf
    # A fitted model of another library: its bytes, without what tells equal parts from the same part.
    return np.frombuffer(pickle.dumps(pickle.loads(pickle.dumps(leaf))), np.uint8)


@pytest.mark.parametrize("name", EVERY)
def test_the_same_key_gives_the_same_state(name: str) -> None:
    learner = EVERY[name]
    assert hash(learner) == hash(replace(learner))  # type: ignore[type-var]
    np.testing.assert_array_equal(numbers(observe(learner)), numbers(observe(learner)))


@pytest.mark.parametrize("name", LEARNERS)
def test_another_key_gives_another_state(name: str) -> None:
    learner = LEARNERS[name]
    assert np.abs(numbers(observe(learner).params) - numbers(observe(learner, seed=1).params)).max() > 1e-6


@pytest.mark.parametrize("name", EVERY)
def test_data_given_is_left_as_it_is_and_adapting_changes_nothing(name: str) -> None:
    learner, batch = EVERY[name], points(8, 1)
    before = jax.tree.map(np.copy, batch)
    state = after(learner, learner.init(CURVES, jax.random.key(0), batch), 0, batch)
    kept = numbers(state)
    first, second = (learner.adapt(CURVES, state, 0, batch)[0] for _ in range(2))
    np.testing.assert_array_equal(numbers(first), numbers(second))
    np.testing.assert_array_equal(numbers(state), kept)
    jax.tree.map(np.testing.assert_array_equal, batch, before)


@pytest.mark.parametrize("name", EVERY)
def test_a_state_that_went_through_a_checkpoint_goes_on_to_the_same_state(name: str, tmp_path: Path) -> None:
    learner = EVERY[name]
    folder = RunFolder(tmp_path)
    state = observe(learner)
    folder.save(RunState(state))
    restored = folder.restore(learner.init(CURVES, jax.random.key(5), points(1)))
    assert restored is not None
    more = points(8, 77)
    np.testing.assert_array_equal(
        numbers(after(learner, state, 3, more)), numbers(after(learner, restored.learner, 3, more))
    )


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_gets_better_with_its_task(name: str) -> None:
    learner = LEARNERS[name]
    average = getattr(learner.optimizer, "average", 0.0)  # type: ignore[attr-defined]
    eager = replace(learner, optimizer=Adam(0.02, average))  # type: ignore[type-var]
    tasks = [Task(points(40, i), points(15, 100 + i)) for i in range(30)]
    records = list(play(CURVES, tasks, eager, OnlineProtocol(chunk=20)))
    scores = [r.score for r in records if r.score is not None]
    assert len(scores) == len(records) == 30 * 2
    # A head of its own for every task starts from nothing each time: it must beat the mean of the targets, no more.
    share = 1.0 if isinstance(learner, MultiHeadTOE | MultiHeadFTL) else 0.5
    assert np.mean(scores[-10:]) < share * np.var(tasks[0].held_out.targets)


def test_gradient_evaluations_are_counted() -> None:
    """Two rounds of two chunks of 8 points; formulas written out anew."""

    def spent(learner: Learner) -> int:
        state, total = learner.init(CURVES, jax.random.key(0), points(1)), 0
        for i in range(4):
            state, cost = learner.observe(CURVES, state, i // 2, points(8, i))
            total += cost
        return total

    # 4 chunks, each 2 steps on 3 tasks: 5 inner gradients and 5 Hessian-vector products (2 each) on 6 points, 7 judged.
    assert spent(FTML(meta_steps=2, meta_batch=3, train_size=6, validation_size=7)) == 4 * 2 * 3 * (5 * 6 * 3 + 7)
    first_order = FTML(GradientDescent(first_order=True), meta_steps=2, meta_batch=3, train_size=6, validation_size=7)
    assert spent(first_order) == 4 * 2 * 3 * (5 * 6 + 7)
    assert spent(replace(first_order, past_only=True)) == 2 * 2 * 3 * (5 * 6 + 7)  # nothing to learn from in round 1
    mixed = TOE(steps=3, batch_tasks=0, batch_size=10)
    assert spent(mixed) == 3 * (8 + 10 + 10 + 10)  # 8, 16, 24, 32 points are there
    assert spent(FTL(steps=3, batch_tasks=0, batch_size=10)) == 3 * (0 + 0 + 10 + 10)
    # The model has no use for `calibration_size`, so that it costs nothing; see test_joint.py for one that has.
    assert spent(FTL(steps=3, batch_tasks=2, batch_size=10, calibration_size=4)) == 3 * 2 * (10 + 10)
    assert spent(TOE(steps=3, batch_tasks=2, batch_size=5, calibration_size=3)) == 3 * 2 * (5 + 5 + 5 + 5)
    assert spent(Scratch(steps=3, batch_size=10)) == 3 * (8 + 10 + 8 + 10)
    assert spent(MultiHeadTOE(steps=3, batch_tasks=2, batch_size=5, tasks=4)) == 4 * 3 * 2 * 5


def test_ftl_learns_from_the_rounds_before_only() -> None:
    learner = LEARNERS["ftl"]
    state = observe(learner, rounds=1)
    start = learner.init(CURVES, jax.random.key(0), points(1))
    np.testing.assert_array_equal(numbers(state.params), numbers(start.params))

    def ended(last: int) -> Any:
        return after(learner, observe(learner, rounds=1), 1, points(8, last)).params

    np.testing.assert_array_equal(numbers(ended(1)), numbers(ended(2)))  # whatever the current round's data


def test_ftml_on_past_tasks_only_does_not_meta_train_on_the_current_one() -> None:
    learner = LEARNERS["ftml-past-only"]

    def ended(last: int) -> Any:
        return after(learner, observe(learner, rounds=1), 1, points(8, last)).params

    np.testing.assert_array_equal(numbers(ended(1)), numbers(ended(2)))
    with_current = LEARNERS["ftml"]
    outcomes = [
        numbers(after(with_current, observe(with_current, rounds=1), 1, points(8, last)).params) for last in (1, 2)
    ]
    assert np.abs(outcomes[0] - outcomes[1]).max() > 1e-7


def adapted(learner: Learner, state: Any, task: int = 0) -> Any:
    """What a learner makes of eight points of a task."""
    return learner.adapt(CURVES, state, task, points(8))[0]


def test_adaptation_begins_from_the_moving_mean_of_the_iterates() -> None:
    """Learning does not; each iterate weighs half as much as the next, and the initial parameters nothing."""
    averaged, last = (TOE(steps=1, batch_size=8, optimizer=Adam(average=average)) for average in (0.5, 0.0))
    states = [learner.init(CURVES, jax.random.key(0), points(1)) for learner in (averaged, last)]
    np.testing.assert_array_equal(numbers(adapted(averaged, states[0])), numbers(states[1].params))
    iterates = []
    for i in range(3):
        states = [
            after(learner, state, 0, points(8, i)) for learner, state in zip((averaged, last), states, strict=True)
        ]
        np.testing.assert_array_equal(numbers(states[0].params), numbers(states[1].params))
        iterates.append(numbers(adapted(last, states[1])))
    expected = np.average(iterates, axis=0, weights=[1, 2, 4])
    np.testing.assert_allclose(numbers(adapted(averaged, states[0])), expected, rtol=1e-5, atol=1e-7)


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
    mean = state.leader
    assert np.abs(numbers(mean) - numbers(state.params)).max() > 1e-5
    shared = mean[0] if isinstance(learner, MultiHeadTOE) else mean
    found = adapted(learner, state, 2)
    np.testing.assert_array_equal(found["hidden"][0]["kernel"], shared["hidden"][0]["kernel"])


@pytest.mark.parametrize("optimizer", [Adam(0.1, clip=2.0), Momentum(0.1, clip=2.0), AdaGrad(0.1, clip=2.0)])
def test_longer_gradients_are_scaled_to_the_clip(optimizer: Any) -> None:
    """A gradient of norm 10 does what a fifth of it does, as the second of two; a short one is left as it is."""
    params, gradient = {"a": jnp.zeros(2), "b": jnp.zeros(())}, {"a": jnp.array([6.0, 0.0]), "b": jnp.array(8.0)}
    small = jax.tree.map(lambda leaf: 0.01 * leaf, gradient)

    def second(transformation: Any, gradient: Any) -> Any:
        _, state = transformation.update(small, transformation.init(params), params)
        return transformation.update(gradient, state, params)[0]

    clipped, expected = (
        second(optimizer(), gradient),
        second(replace(optimizer, clip=None)(), jax.tree.map(lambda leaf: leaf / 5, gradient)),
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), clipped, expected)
    for number in (jnp.inf, jnp.nan):  # such a gradient counts as zero
        skipped = second(optimizer(), jax.tree.map(lambda leaf, number=number: leaf + number, gradient))
        expected = second(optimizer(), jax.tree.map(jnp.zeros_like, gradient))
        jax.tree.map(np.testing.assert_array_equal, skipped, expected)
    with pytest.raises(ValueError, match=r"clip must be positive and finite, got 0\.0"):
        replace(optimizer, clip=0.0)


def test_the_average_keeps_the_type_of_the_parameters() -> None:
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    transformation = Adam(average=0.9)()
    state = transformation.init(params)
    _, then = transformation.update({"w": jnp.ones(3, jnp.bfloat16)}, state, params)
    assert [leaf.dtype for leaf in jax.tree.leaves(then)] == [leaf.dtype for leaf in jax.tree.leaves(state)]


def test_scratch_learns_from_a_task_alone_and_from_all_of_it_when_it_comes_back() -> None:
    learner = LEARNERS["scratch"]

    def ended(other: int) -> Any:
        """Tasks 0, 1 and 0 again, with other data of task 1."""
        state = after(learner, learner.init(CURVES, jax.random.key(0), points(1)), 0, points(8, 1))
        state = after(learner, state, 1, points(8, other))
        return after(learner, state, 0, points(8, 3))

    np.testing.assert_array_equal(numbers(ended(5).params), numbers(ended(6).params))
    assert ended(5).buffer.counts[:2].tolist() == [16, 8]
    # One step on all that the task sent, when it came back, from new weights.
    one = Scratch(steps=1, batch_size=16, optimizer=Momentum(0.1, momentum=0.0))
    state = after(one, one.init(CURVES, jax.random.key(0), points(1)), 0, points(8, 1))
    state = after(one, state, 1, points(8, 2))
    fresh = CURVES.init(jax.random.split(state.key)[1])
    both = Batch.of(*(np.concatenate([getattr(points(8, i), kind) for i in (1, 3)]) for kind in ("inputs", "targets")))
    expected = GradientDescent(1, 0.1)(CURVES, fresh, both)
    for a, b in zip(jax.tree.leaves(after(one, state, 0, points(8, 3)).params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_scratch_knows_nothing_of_a_task_before_its_first_datapoint() -> None:
    """What it learned of the task before is no part of what it predicts."""
    learner = Scratch(steps=20, batch_size=8, retention=Retention("last", 80, "bytes"))
    others = [
        after(learner, learner.init(CURVES, jax.random.key(0), points(1)), 0, points(8, slope=slope))
        for slope in (1.0, -5.0)
    ]
    first, second = (numbers(learner.adapt(CURVES, other, 1, points(8)[:0])[0]) for other in others)
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - numbers(others[0].params)).max() > 0.1


@pytest.mark.parametrize("name", EVERY)
def test_tasks_may_interleave_come_back_and_be_asked_for_out_of_turn(name: str) -> None:
    learner = EVERY[name]
    state = learner.init(CURVES, jax.random.key(0), points(1))
    assert np.isfinite(numbers(learner.adapt(CURVES, state, 0, points(8)[:0])[0])).all()
    tasks: list[int | str] = [0, 1, 0, "a", 1, 0]
    for i, task in enumerate(tasks):
        state, cost = learner.observe(CURVES, state, task, points(6, i))
        assert isinstance(cost, int)
        others: list[tuple[int | str, Batch]] = [(1, points(5, 9)), ("new", points(4, 8)), ("new", points(4)[:0])]
        for asked, batch in [(task, points(6, i)), *others]:
            kept = numbers(state)
            found, cost = learner.adapt(CURVES, state, asked, batch)
            assert isinstance(cost, int)
            assert np.isfinite(np.asarray(learner.predict(CURVES, found, points(7).inputs))).all()
            np.testing.assert_array_equal(numbers(state), kept)


def scattered(batch: Batch, seed: int) -> Batch:
    """The same examples among others of weight 0, whose values are far off."""
    n = len(batch)
    places = np.sort(np.random.default_rng(seed).permutation(2 * n)[:n])

    def among(leaf: np.ndarray) -> np.ndarray:
        wide = np.full((2 * n, *leaf.shape[1:]), 1000, leaf.dtype)
        wide[places] = leaf
        return wide

    return Batch.of(among(batch.inputs), among(batch.targets), np.isin(np.arange(2 * n), places))


@pytest.mark.parametrize("name", EVERY)
def test_examples_of_weight_0_have_no_influence(name: str) -> None:
    """To the last bit, on what is learned, kept and adapted to, and whatever it costs."""
    learner, found = EVERY[name], []
    for given in (lambda batch, seed: batch, scattered):
        state, spent = learner.init(CURVES, jax.random.key(0), points(1)), list[int]()
        for i, task in enumerate((0, 1, 0)):
            state, cost = learner.observe(CURVES, state, task, given(points(6, i), i))
            spent.append(cost)
        adapted, cost = learner.adapt(CURVES, state, 0, given(points(6), 3))
        found.append(np.concatenate([numbers(state), numbers(adapted), [*spent, cost]]))
    np.testing.assert_array_equal(found[0], found[1])


def test_datapoints_of_weight_0_alone_are_nothing_to_learn_from() -> None:
    nothing = replace(points(3), weights=np.zeros(3, np.float32))
    for name in ("ftml", "toe", "ftl", "scratch"):
        learner = LEARNERS[name]
        start = learner.init(CURVES, jax.random.key(0), points(1))
        before = numbers(start.params)
        state = after(learner, start, 0, nothing)
        assert state.buffer.size == 0
        if name != "scratch":  # which begins every task with new weights
            np.testing.assert_array_equal(numbers(state.params), before)
        assert np.isfinite(numbers(learner.adapt(CURVES, state, 0, nothing)[0])).all()


def test_weight_2_counts_as_two_copies_where_all_examples_are_taken() -> None:
    batch = points(5)
    heavy = replace(batch, weights=np.array([1, 2, 1, 1, 2], np.float32))
    copies = batch[np.array([0, 1, 1, 2, 3, 4, 4])]
    learner = FTML(GradientDescent(3, prior_strength=4.0))
    state = learner.init(CURVES, jax.random.key(0), points(1))
    one, other = (numbers(learner.adapt(CURVES, state, 0, each)[0]) for each in (heavy, copies))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


class ByHand:
    """FTML in NumPy, for a linear model with the loss (x'w - y)^2 / 2: what each user sent lies in a plain list.

    Which datapoints are drawn is asked of the learner, by numbers of tasks and of their datapoints that are kept here.
    """

    def __init__(self, problem: Problem, learner: FTML, start: Any) -> None:
        self.problem, self.learner, self.w = problem, learner, np.asarray(start, np.float64)
        self.sent, self.recent = list[tuple[Any, np.ndarray, float, float]](), list[Any]()
        self.users, self.drawn = list[Any](), set[Any]()

    def observe(self, key: Any, user: int | str, batch: Batch) -> None:
        self.sent += [
            (user, x, float(y), float(weight)) for x, y, weight in zip(*example_by_example(batch), strict=True)
        ]
        if self.learner.retention.policy == "last":
            self.sent = self.sent[-int(self.learner.retention.budget or 0) :]
        self.recent = [other for other in self.recent if other != user] + [user]
        left = [of for of, *_ in self.sent]
        self.users = users = [of for of in dict.fromkeys([*self.users, user]) if of in left]  # by first arrival
        placed = [datapoint for user in users for datapoint in self.sent if datapoint[0] == user]
        if self.learner.past_only and len(users) == 1:
            return
        counts, ages = np.zeros(64, np.int32), np.zeros(64, np.int32)
        counts[: len(users)] = [sum(of == user for of, *_ in self.sent) for user in users]
        ages[: len(users)] = [self.recent[::-1].index(user) for user in users]
        _, train, validation = ftml._draw(self.learner, self.problem.random, key, counts, ages)
        for step in range(self.learner.meta_steps):
            gradients = []
            for task in range(self.learner.meta_batch):
                both = [(np.asarray(places)[step, task], mask[step, task]) for places, mask, _ in (train, validation)]
                self.check(placed, np.concatenate([places[np.asarray(mask) > 0] for places, mask in both]))
                (xt, yt, wt), (xv, yv, wv) = (self.examples(placed, places, mask) for places, mask in both)
                gradients.append(self.meta_gradient(xt, yt, wt, xv, yv, wv))
            self.w = self.w - 0.1 * np.mean(gradients, axis=0)

    def meta_gradient(self, xt: Any, yt: Any, wt: Any, xv: Any, yv: Any, wv: Any) -> np.ndarray:
        """(dU/dw)' grad L_val(U(w)), where dU/dw = (I - alpha X'X / n)^steps."""
        update = self.learner.update
        assert isinstance(update, GradientDescent)
        v, slope = self.w, np.eye(len(self.w))
        for _ in range(update.steps):
            v = v - update.step_size * xt.T @ (wt * (xt @ v - yt))
            slope = slope - update.step_size * (xt.T * wt) @ xt @ slope
        return slope.T @ (xv.T @ (wv * (xv @ v - yv)))

    def check(self, placed: list[Any], places: np.ndarray) -> None:
        """D_tr and D_val are different datapoints of one user, not of the current one where the past alone counts."""
        assert len(set(places.tolist())) == len(places) > 0
        (user,) = {placed[place][0] for place in places}
        assert not (self.learner.past_only and user == self.recent[-1])
        self.drawn.add(user)

    def examples(self, placed: list[Any], places: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, ...]:
        """Inputs, targets, and weights that sum to 1; of one datapoint D_tr may get none, which then says nothing."""
        chosen = [placed[place] for place, real in zip(places, mask, strict=True) if real]
        x, y, weights = (np.array([datapoint[i] for datapoint in chosen]) for i in (1, 2, 3))
        return x.reshape(-1, len(self.w)), y, weights / weights.sum() if chosen else weights


def example_by_example(batch: Batch) -> tuple[Any, Any, Any]:
    return batch.inputs, batch.targets, batch.weights


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"update": GradientDescent(1, 0.3)},
        {"sampling": Recency(1.0)},
        {"past_only": True},
        {"meta_batch": 4, "train_size": 9, "validation_size": 9},  # more than a user may have: both are filled in part
        {"vary_train_size": True},
        {"retention": Retention("last", 17)},
    ],
    ids=str,
)
def test_ftml_is_what_numpy_makes_of_the_same_draws_of_users_who_come_back(changes: dict[str, Any]) -> None:
    """In double precision, after every arrival; examples weigh differently."""
    base = FTML(GradientDescent(2, 0.2), 3, 3, 2, 3, optimizer=optax.sgd(0.1))
    learner = replace(base, **changes)
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        problem = quadratic(3)

        def of(user: int, n: int) -> Batch:
            x = random.normal(size=(n, 3))
            return Batch.of(
                x, x @ np.array([user, 1.0, -user]) + 0.1 * random.normal(size=n), random.uniform(0.5, 2, n)
            )

        state = learner.init(problem, jax.random.key(1), of(0, 1))
        by_hand = ByHand(problem, learner, state.params["w"])
        for user, n in ((0, 6), (1, 8), (0, 5), (2, 4), (1, 2), (0, 7), (1, 9), (2, 3)):
            batch, before = of(user, n), state.params["w"]
            by_hand.observe(state.key, user, batch)
            state, _ = learner.observe(problem, state, user, batch)
            assert state.params["w"].dtype == np.float64
            np.testing.assert_allclose(state.params["w"], by_hand.w, rtol=1e-6, atol=1e-7)  # weights are 32-bit numbers
            moved = np.abs(np.asarray(state.params["w"] - before)).max()
            assert moved > 1e-3 or (learner.past_only and len(by_hand.recent) == 1)
        assert by_hand.drawn == {0, 1, 2}


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.slow
def test_every_learner_learns_in_double_precision(name: str) -> None:
    """Without a warning, and with parameters that stay as precise."""
    learner = LEARNERS[name]
    with jax.enable_x64(True):
        state = learner.init(CURVES, jax.random.key(0), points(1, dtype=np.float64))
        for task in (0, 1, 0):
            state, _ = learner.observe(CURVES, state, task, points(6, task, dtype=np.float64))
        found, _ = learner.adapt(CURVES, state, 0, points(6, dtype=np.float64))
        assert {leaf.dtype for leaf in jax.tree.leaves((state.params, found))} == {np.dtype(np.float64)}
        assert np.isfinite(numbers(found)).all()


def test_the_past_of_ftl_is_every_task_but_the_current_one_also_when_that_comes_back() -> None:
    learner = FTL(steps=2, batch_size=8, batch_tasks=1)

    def ended(first: int, second: int) -> Any:
        """Tasks 0, 1 and 0 again; the joint training of the last arrival alone is compared."""
        state = observe(learner, rounds=0)
        state = state._replace(buffer=learner.retention.append(state.buffer, 0, points(8, first)))
        state = state._replace(buffer=learner.retention.append(state.buffer, 1, points(8, second)))
        return numbers(after(learner, state, 0, points(8, 7)).params)

    np.testing.assert_array_equal(ended(1, 2), ended(3, 2))  # task 0 is the current one
    assert np.abs(ended(1, 2) - ended(1, 4)).max() > 1e-7


def test_every_task_has_a_head_of_its_own() -> None:
    learner = MultiHeadTOE(steps=3, batch_tasks=4, batch_size=8, tasks=4, optimizer=Momentum(0.01))
    before, then = (observe(learner, rounds=rounds) for rounds in (1, 3))
    kernels = [np.asarray(state.params[1]["head"]["kernel"]) for state in (before, then)]
    assert kernels[1].shape == (4, 8, 1)
    moved = np.abs(kernels[1] - kernels[0]).max(axis=(1, 2)) > 0
    assert moved.tolist() == [True, True, True, False]  # a head moves from the round of its task on
    assert then.params[0]["head"]["kernel"] is None
    for task, row in ((2, 2), (0, 0), (1, 1), (9, 3)):  # by first arrival; a task to come has the next one
        found = adapted(learner, then, task)
        np.testing.assert_array_equal(found["head"]["kernel"], kernels[1][row])
        np.testing.assert_array_equal(found["hidden"][0]["kernel"], then.params[0]["hidden"][0]["kernel"])


@pytest.mark.parametrize("kind", [MultiHeadTOE, MultiHeadFTL])
def test_heads_follow_the_first_arrival_of_tasks_that_interleave_and_return(kind: Any) -> None:
    learner = kind(steps=3, batch_tasks=2, batch_size=8, tasks=5, optimizer=Momentum(0.01))
    state, heads = learner.init(CURVES, jax.random.key(0), points(1)), []
    tasks: list[int | str] = ["b", 7, "b", "7", 7, "b"]
    first = ["b", 7, "7"]
    for i, task in enumerate(tasks):
        state = after(learner, state, task, points(8, i))
        heads.append(np.asarray(state.params[1]["head"]["kernel"]))
        arrived = len(set(tasks[: i + 1]))
        if i:  # those who never arrived keep the head that was drawn for them
            np.testing.assert_array_equal(heads[i][arrived:], heads[0][arrived:])
        for row, other in enumerate(first[:arrived]):
            assert state.buffer.row_of(other) == row
    assert (np.abs(heads[-1][:3] - heads[0][:3]).max(axis=(1, 2)) > 0).all()
    asked: list[tuple[int | str, int]] = [("b", 0), (7, 1), ("7", 2), ("new", 3)]
    for task, row in asked:
        found = learner.adapt(CURVES, state, task, points(8)[:0])[0]  # of no data: the head as it is
        np.testing.assert_array_equal(found["head"]["kernel"], heads[-1][row])


def test_one_task_with_one_head_is_gradient_descent_on_all_of_its_data() -> None:
    learner = MultiHeadTOE(steps=2, batch_tasks=2, batch_size=8, tasks=1, optimizer=Momentum(0.1, momentum=0.0))
    start = learner.init(CURVES, jax.random.key(0), points(1))
    batch = points(8, 3)
    shared, heads = start.params
    first = {"hidden": shared["hidden"], "head": jax.tree.map(lambda leaf: leaf[0], heads["head"])}
    expected = GradientDescent(steps=2, step_size=0.1)(CURVES, first, batch)
    got, _ = learner.adapt(CURVES, after(learner, start, 0, batch), 0, batch)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_stream_with_more_tasks_than_heads_is_refused() -> None:
    with pytest.raises(
        ValueError, match="task 1 has no head: it is task number 2 and tasks is 1; set tasks to the most"
    ):
        observe(MultiHeadTOE(steps=1, tasks=1), rounds=2)


def test_minibatches_of_the_current_task_alone_are_not_training_on_everything() -> None:
    with pytest.raises(
        ValueError, match="batch_tasks must be at least 2, got 1: the current task is in every minibatch"
    ):
        MultiHeadTOE(batch_tasks=1)


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
        lambda: FTML(Proximal(), adapt_steps=0),
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


def test_scratch_learns_the_same_in_the_memory_of_one_task_which_is_what_experiments_give_it() -> None:
    bounded = replace(Scratch(steps=3, batch_size=5), retention=Retention("last", 1, "tasks"))
    one, all_of_them = observe(bounded, rounds=4), observe(Scratch(steps=3, batch_size=5), rounds=4)
    np.testing.assert_array_equal(numbers(one.params), numbers(all_of_them.params))
    assert (one.buffer.size, all_of_them.buffer.size) == (16, 64)
    for experiment in EXPERIMENTS.values():
        for preset in experiment.presets.values():
            scratch = preset.learners.get("scratch")
            assert scratch is None or getattr(scratch, "retention") == bounded.retention  # noqa: B009


def test_streaming_keeps_the_current_round_only_however_many_there_were() -> None:
    learner = LEARNERS["streaming"]

    def size(tree: Any) -> int:
        return numbers(tree).size

    state = observe(learner, rounds=2)
    assert state.buffer.size == 16
    np.testing.assert_array_equal(store.held(state.buffer, np.arange(8)).inputs, points(8, 10).inputs)
    assert size(observe(learner, rounds=70)) == size(state)
    assert size(observe(LEARNERS["ftml"], rounds=70).buffer.counts) > size(
        observe(LEARNERS["ftml"], rounds=2).buffer.counts
    )
    same = FTML(meta_steps=2, meta_batch=2, train_size=3, validation_size=4)
    np.testing.assert_array_equal(numbers(observe(learner, rounds=1).params), numbers(observe(same, rounds=1).params))


@pytest.mark.parametrize("name", LEARNERS)
def test_numbers_begin_with_the_types_that_they_keep(name: str) -> None:
    """Those of Python's numbers (weak types) would be others after the first step, and all be compiled twice."""
    learner = LEARNERS[name]
    state: Any = learner.init(CURVES, jax.random.key(0), points(1))
    kept = [getattr(state, part, None) for part in ("params", "opt_state")]
    assert not [leaf for leaf in jax.tree.leaves(kept) if getattr(leaf, "weak_type", False)]


RATED: dict[str, tuple[Any, str, Any]] = {
    "outer": (FTML(meta_steps=2, meta_batch=2), "optimizer.learning_rate", 0.1),
    "inner": (FTML(meta_steps=2, meta_batch=2), "update.step_size", 0.03),
    "of an inner optimiser": (
        FTML(OptimizerSteps(2, InnerAdam(0.01)), meta_steps=2, meta_batch=2),
        "update.optimizer.step_size",
        0.1,
    ),
    "with drops": (TOE(steps=2, optimizer=Momentum(0.1, drops=(1,))), "optimizer.learning_rate", 0.3),
    "in fine-tuning": (
        FTL(steps=2, update=OptimizerSteps(2, InnerMomentum(0.01))),
        "update.optimizer.step_size",
        0.1,
    ),
    "averaged and clipped": (Scratch(steps=2, optimizer=AdaGrad(0.01, 0.9, 1.0)), "optimizer.learning_rate", 0.1),
    "what step sizes begin with": (FTML(MetaSGD(2), meta_steps=2, meta_batch=2), "update.step_size", 0.03),
    "a regulariser": (FTML(Ridge(), meta_steps=2, meta_batch=2), "update.regulariser", 3.0),
}


@dataclass(frozen=True)
class Cautious(GradientDescent):
    """A procedure of one's own that decides by a number that it inherits."""

    def __call__(self, problem: Any, meta_params: Any, batch: Any) -> Any:
        """A tenth of a large step."""
        careful = self if self.step_size < 0.5 else replace(self, step_size=self.step_size / 10)
        return GradientDescent.__call__(careful, problem, meta_params, batch)


def test_rates_of_a_procedure_of_ones_own_stay_numbers() -> None:
    found = []
    for update in (Cautious(1, 0.6), GradientDescent(1, 0.06)):
        learner = FTML(update, meta_steps=1, meta_batch=2)
        state = after(learner, learner.init(CURVES, jax.random.key(0), points(1)), 0, points(8))
        found.append(numbers(learner.adapt(CURVES, state, 0, points(8))[0]))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)


SOME_RATED = ("inner", "with drops", "a regulariser")


@pytest.mark.parametrize(
    "name", [name if name in SOME_RATED else pytest.param(name, marks=pytest.mark.slow) for name in RATED]
)
def test_learners_that_differ_in_rates_share_programs(name: str) -> None:
    """And learn what a learner learns whose programs are its own."""
    learner, setting, value = RATED[name]
    compiled: tuple[Any, ...] = (ftml._meta_update, joint._train, base._adapted)

    def adapted_by(learner: Any) -> tuple[np.ndarray, list[int]]:
        state = after(learner, learner.init(CURVES, jax.random.key(0), points(1)), 0, points(8))
        state = after(learner, state, 1, points(8, 1))
        return numbers(learner.adapt(CURVES, state, 1, points(8, 1))[0]), [each._cache_size() for each in compiled]

    other = replaced_in(learner, setting.split("."), value)
    first, programs = adapted_by(learner)
    second, programs_then = adapted_by(other)
    assert programs_then == programs
    assert not np.array_equal(first, second)
    for each in compiled:
        each.clear_cache()
    np.testing.assert_array_equal(adapted_by(other)[0], second)
