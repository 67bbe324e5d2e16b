"""What learners are compared with: closed forms, no leaks, and one message where something is missing."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge

import metaleader as ml
from metaleader.learners import external
from metaleader.learners.external import linear, mixed, rivals, trees
from metaleader.learners.external.examples import Rows, Totals
from problems import CURVES, DIGITS, RIVALS, THREE_CLASSES, images

P = 3
PLANE = ml.Problem(ml.MLP(P, depth=0), ml.squared_error, ml.mean_squared_error)
LABELLED: Mapping[str, ml.Learner] = {
    **external.compared("multi-class"),
    "river, tree": external.RiverModel("tree"),
    "river, forest": external.RiverModel("forest"),
}


def plane(task: int, n: int = 30, apart: float = 1.5) -> ml.Batch:
    """Points of a plane whose height is the task's own."""
    random = np.random.default_rng([n, task])
    height = apart * np.random.default_rng(task).normal()
    x = random.normal(size=(n, P))
    y = x @ [1.0, -0.5, 0.0] + height + 0.1 * random.normal(size=n)
    return ml.Batch.of(x.astype(np.float32), y[:, None].astype(np.float32))


def labelled(task: int, n: int = 30, classes: int = 3) -> ml.Batch:
    """Points of the plane in classes, one of which the task has more of."""
    random = np.random.default_rng([n, task])
    x = random.normal(size=(n, 2))
    logits = 2 * x @ np.eye(2, classes) + 2 * np.eye(classes)[task % classes]
    labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return ml.Batch.of(x.astype(np.float32), labels.astype(np.int32))


def learned(problem: ml.Problem, learner: ml.Learner, data: Mapping[Any, ml.Batch]) -> Any:
    """The state after the data of several tasks, by their keys."""
    state = learner.init(problem, jax.random.key(0), next(iter(data.values())))
    for task, batch in data.items():
        state, cost = learner.observe(problem, state, task, batch)
        assert cost == 0
    return state


def predictions(problem: ml.Problem, learner: ml.Learner, state: Any, task: Any, batch: ml.Batch, inputs: Any) -> Any:
    adapted, cost = learner.adapt(problem, state, task, batch)
    assert cost == 0
    return learner.predict(problem, adapted, inputs)


def test_the_mean_of_a_task_is_shrunk_to_that_of_all_data() -> None:
    one, other = (
        ml.Batch.of(np.zeros((n, P), np.float32), np.full((n, 1), y, np.float32)) for n, y in ((6, 1), (2, 5))
    )
    learner = external.TaskMean(prior_strength=3.0)
    state = learned(PLANE, learner, {"a": one, "b": other})
    shown = np.zeros((2, P), np.float32)
    found = [predictions(PLANE, learner, state, "b", batch, shown) for batch in (other, other[:0])]
    np.testing.assert_allclose(found[0], [[(2 * 5 + 3 * 2) / (2 + 3)]] * 2)  # the mean of all 8 is 2
    np.testing.assert_allclose(found[1], [[2.0]] * 2)
    start = learner.init(PLANE, jax.random.key(0), one)
    np.testing.assert_array_equal(predictions(PLANE, learner, start, "a", one[:0], shown), [[0.0]] * 2)
    labels = ml.Batch.of(np.zeros((4, 2), np.float32), np.array([0, 0, 0, 1], np.int32))
    state = learned(THREE_CLASSES, learner, {"a": labels})
    found = np.exp(predictions(THREE_CLASSES, learner, state, "a", labels, shown[:1, :2]))
    shares = np.array([3 + 1 / 3, 1 + 1 / 3, 1 / 3]) / 5
    np.testing.assert_allclose(found[0], (np.array([3, 1, 0]) + 3 * shares) / 7, rtol=1e-6)
    start = learner.init(THREE_CLASSES, jax.random.key(0), labels)
    np.testing.assert_allclose(
        predictions(THREE_CLASSES, learner, start, "a", labels[:0], shown[:1, :2]),
        np.log(np.full((1, 3), 1 / 3)),
        rtol=1e-6,
    )


def test_ridge_is_that_of_scikit_learn_pooled_and_of_a_task() -> None:
    data = {task: plane(task, 7 + task) for task in range(4)}
    everything = [np.concatenate([getattr(b, name) for b in data.values()]) for name in ("inputs", "targets")]
    shown = plane(9).inputs
    for learner, (x, y) in (
        (external.PooledLinear(2.5), everything),
        (external.TaskLinear(2.5), (data[1].inputs, data[1].targets)),
    ):
        state = learned(PLANE, learner, data)
        expected = SklearnRidge(alpha=2.5).fit(x, y[:, 0]).predict(shown)
        found = predictions(PLANE, learner, state, 1, data[1], shown)
        np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4, atol=1e-5)
    mean = predictions(PLANE, external.TaskLinear(), learned(PLANE, external.TaskLinear(), data), 1, data[1][:0], shown)
    np.testing.assert_allclose(mean, np.full((30, 1), everything[1].mean()), rtol=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_is_that_of_scikit_learn(classes: int) -> None:
    """With two classes there is one vector w there and w / 2, -w / 2 here, whose squares are half as large."""
    batch = labelled(0, 200, classes)
    problem = ml.Problem(ml.MLP(2, classes), ml.CrossEntropy(0.0), ml.accuracy)
    learner = external.PooledLinear(penalty=3.0)
    found = predictions(problem, learner, learned(problem, learner, {0: batch}), 0, batch, batch.inputs)
    expected = LogisticRegression(C=(2.0 if classes == 2 else 1.0) / 3.0, tol=1e-8).fit(batch.inputs, batch.targets)
    np.testing.assert_allclose(np.exp(found), expected.predict_proba(batch.inputs), atol=2e-3)


def test_deviations_of_a_task_are_ridge_regression_of_its_residuals_with_the_intercept_shrunk_too() -> None:
    data = {task: plane(task, 12) for task in range(5)}
    learner = external.ShrunkenLinear(penalty=1.0, deviation=4.0, intercept=2.0)
    state = learned(PLANE, learner, data)
    shown = plane(9).inputs
    pooled = external.PooledLinear(1.0)
    shared = [predictions(PLANE, pooled, state, 2, data[2], x)[:, 0] for x in (data[2].inputs, shown)]
    # The same least squares with a row for each penalty.
    rows = np.vstack([linear.with_ones(data[2].inputs.astype(float)), np.diag(np.sqrt([2.0, 4.0, 4.0, 4.0]))])
    right = np.append(data[2].targets[:, 0] - shared[0], np.zeros(4))
    own = np.linalg.lstsq(rows, right, rcond=None)[0]
    expected = shared[1] + linear.with_ones(shown.astype(float)) @ own
    found = predictions(PLANE, learner, state, 2, data[2], shown)[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(predictions(PLANE, learner, state, 2, data[2][:0], shown)[:, 0], shared[1])


@given(st.integers(0, 1000))
def test_logistic_regression_with_an_offset_is_where_its_gradient_is_0(seed: int) -> None:
    random = np.random.default_rng(seed)
    x, offset = random.normal(size=(15, 2)), 2 * random.normal(size=(15, 3))
    targets = np.eye(3)[random.integers(0, 3, 15)]
    w = linear.logistic(x, targets, offset, (0.5, 2.0), np.zeros((3, 3)))
    rows = linear.with_ones(x)
    gradient = rows.T @ (linear.softmax(offset + rows @ w) - targets) + np.array([[0.5], [2.0], [2.0]]) * w
    assert np.abs(gradient).max() < 5e-3
    strong = linear.logistic(x, targets, offset, (1e6, 1e6), np.zeros((3, 3)))
    assert np.abs(strong).max() < 1e-4  # shrunk to the offset


def test_effects_of_tasks_are_those_of_statsmodels() -> None:
    from statsmodels.regression.mixed_linear_model import MixedLM

    random = np.random.default_rng(0)
    tasks = np.repeat(np.arange(30), 8)
    x = random.normal(size=(240, 2))
    own = random.normal(size=(30, 2))
    y = 0.5 + x @ [1.0, -1.0] + own[tasks, 0] + own[tasks, 1] * x[:, 1] + 0.3 * random.normal(size=240)
    effects = mixed.fitted(x, y, tasks, 1)
    assert effects is not None
    assert effects.random.tolist() == [0, 2]  # the intercept, and the slope that varies
    rows = linear.with_ones(x)
    expected = MixedLM(y, rows, tasks, rows[:, [0, 2]]).fit(reml=True)
    np.testing.assert_allclose(effects.fixed, expected.fe_params, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(effects.covariance, expected.cov_re, rtol=1e-2, atol=1e-3)
    for task, found in expected.random_effects.items():
        mine = mixed.predicted(effects, x[tasks == task], y[tasks == task])
        np.testing.assert_allclose(mine, np.asarray(found), rtol=1e-2, atol=2e-3)
    np.testing.assert_array_equal(mixed.predicted(effects, x[:0], y[:0]), np.zeros(2))


def test_the_effect_of_a_task_is_its_mean_residual_shrunk_by_its_size() -> None:
    """tau^2 / (tau^2 + sigma^2 / n) where only intercepts vary; 0 where the variance is 0."""
    for variance in (2.0, 0.0):
        effects = mixed.Effects(np.array([1.0, 0.5]), np.array([0]), np.array([[variance]]), 3.0)
        x, y = np.arange(6.0)[:, None], np.array([1.0, 3.0, 2.0, 5.0, 4.0, 9.0])
        expected = variance / (variance + 3.0 / 6) * (y - 1 - 0.5 * x[:, 0]).mean()
        np.testing.assert_allclose(mixed.predicted(effects, x, y), [expected])


@pytest.mark.parametrize("before", [[0, 1], [0, 2], [0]])
def test_where_a_mixed_model_begins_makes_no_difference(before: list[int]) -> None:
    random = np.random.default_rng(0)
    tasks = np.repeat(np.arange(60), 12)
    x, own = random.normal(size=(len(tasks), P)), random.normal(size=(60, 2))[tasks]
    y = x @ [1.0, -0.5, 0.0] + own[:, 0] + own[:, 1] * x[:, 0] + 0.3 * random.normal(size=len(tasks))
    # Far from the right one, for other effects, and with a variance at 0, where a fit would not move.
    start = mixed.Effects(np.zeros(1 + P), np.array(before), np.diag([0.0, 5.0][: len(before)]), 2.0)
    cold, warm = (mixed.fitted(x, y, tasks, 1, given) for given in (None, start))
    assert cold is not None
    assert warm is not None
    np.testing.assert_array_equal(warm.random, [0, 1])
    for name in ("fixed", "covariance", "noise"):
        np.testing.assert_allclose(getattr(warm, name), getattr(cold, name), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("classes", [2, 3])
def test_lightgbm_is_asked_for_probabilities_without_its_checks_and_gives_the_same(classes: int) -> None:
    x = np.random.default_rng(0).normal(size=(300, P))
    labels = np.digitize(x[:, 0], [0.0] if classes == 2 else [-0.5, 0.5])
    model = external.PooledTrees(library="LightGBM", trees=5)._fitted(x, np.eye(classes)[labels], classes)
    np.testing.assert_array_equal(trees._probabilities(model, x), model.predict_proba(x))


def test_inputs_that_determine_each_other_do_not_trouble_the_mixed_model() -> None:
    random = np.random.default_rng(1)
    kind, tasks = random.integers(0, 2, 80), np.repeat(np.arange(10), 8)
    x = np.column_stack([kind, 1 - kind, np.zeros(80)]).astype(float)
    y = 2.0 * kind + random.normal(size=10)[tasks] + 0.1 * random.normal(size=80)
    effects = mixed.fitted(x, y, tasks, 0)
    assert effects is not None
    at_1, at_0 = effects.fixed @ [1, 1, 0, 0], effects.fixed @ [1, 0, 1, 0]
    assert at_1 - at_0 == pytest.approx(2.0, abs=0.1)


@given(st.integers(0, 1000))
def test_sums_of_what_came_before_are_those_of_a_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    tasks, values = random.integers(0, 4, 25), random.integers(0, 9, (25, 2)).astype(float)
    expected = [values[:i][tasks[:i] == tasks[i]].sum(axis=0) for i in range(25)]
    np.testing.assert_array_equal(trees._before(values, tasks), expected)


@pytest.mark.parametrize("library", ["scikit-learn", "LightGBM"])
@pytest.mark.parametrize("classes", [0, 3])
def test_trees_are_told_nothing_of_a_rows_own_target_or_later_ones_and_the_same_in_training_and_in_use(
    classes: int, library: str
) -> None:
    problem, make = (THREE_CLASSES, labelled) if classes else (PLANE, plane)
    data = {task: make(task, 40) for task in range(4)}
    learner = external.PooledTrees(task_features=True, trees=5, library=library)
    state = learned(problem, learner, data)
    inputs, targets, tasks = state.rows.recent(1000)
    rows, others = learner.training(inputs, targets, tasks, state.totals)
    assert all(other is not None for other in others)
    changed = targets.copy()
    place = np.flatnonzero(tasks == 2)[10]
    changed[place] = np.roll(changed[place], 1) if classes else changed[place] + 3.0
    after, _ = learner.training(inputs, changed, tasks, state.totals)
    same = (after == rows).all(axis=1)
    later = (tasks == 2) & (np.arange(len(tasks)) > place)
    assert same[(tasks % 2 == 0) & ~later].all()  # of odd tasks, predictions without features change
    assert not same[later].any()
    # A task that is adapted to by its first 10 datapoints is told what its 11th row was told in training.
    grown = state._replace(forest=trees.Forest(learner._fitted(rows, targets, classes), others))
    adapted, _ = learner.adapt(problem, grown, 2, data[2][:10])
    width, told = inputs.shape[1] + targets.shape[1], rows[place]
    assert adapted.so_far is not None
    np.testing.assert_allclose(adapted.so_far[0], told[width:], rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(
        trees._predicted(adapted.others, inputs, state.totals)[place], told[inputs.shape[1] : width]
    )


@pytest.mark.parametrize("classes", [0, 3])
def test_lightgbm_grows_the_trees_that_it_would_by_itself(classes: int) -> None:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(200, 2))
    labels = (inputs @ np.eye(2, 3)).argmax(axis=1)
    targets = np.eye(3)[labels] if classes else (inputs[:, :1] > 0) + 0.1 * inputs[:, 1:]
    learner = external.PooledTrees(trees=7, learning_rate=0.2, leaves=4, l2=2.0, library="LightGBM")
    model = learner._fitted(inputs, targets, classes)
    settings = {"learning_rate": 0.2, "num_leaves": 4, "lambda_l2": 2.0, "num_threads": 1, "verbose": -1}
    goal = {"objective": "multiclass", "num_class": 3} if classes else {"objective": "regression"}
    data = lightgbm.Dataset(inputs, labels if classes else targets[:, 0])
    own = np.asarray(lightgbm.train({**settings, **goal}, data, num_boost_round=7).predict(inputs))
    totals = Totals(classes, 1.0, np.zeros(max(classes, 1)))
    np.testing.assert_allclose(trees._predicted(model, inputs, totals), own.reshape(200, -1), rtol=1e-6)


# LightGBM is loaded after others have computed in one thread.
LATE = """
import os, sys
import numpy as np
from metaleader.learners.external import examples, trees
from metaleader.learners.external.examples import Totals

with examples.one_thread():
    assert "lightgbm" not in sys.modules
x = np.random.default_rng(0).normal(size=(5000, 4))
learner = trees.PooledTrees(library="LightGBM")
model = learner._fitted(x, x[:, :1], 0)
before = len(os.listdir("/proc/self/task"))
trees._predicted(model, x, Totals(0, 1.0, np.zeros(1)))
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not list threads")
def test_lightgbm_computes_in_one_thread_also_when_it_is_loaded_late() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "3"}
    found = subprocess.run(
        [sys.executable, "-c", LATE], env=environment, capture_output=True, text=True, check=True, timeout=100
    )
    assert found.stdout.strip() == "0"


def test_kernel_regression_by_hand() -> None:
    batch = ml.Batch.of(np.array([[0.0], [1.0]], np.float32), np.array([[2.0], [4.0]], np.float32))
    learner = external.TaskNeighbours(bandwidth=0.5, prior_strength=0.2)
    state = learned(CURVES, learner, {0: batch})
    found = predictions(CURVES, learner, state, 0, batch, np.array([[0.25], [50.0]], np.float32))
    near, far = np.exp(-(0.25**2) / 0.5), np.exp(-(0.75**2) / 0.5)
    expected = [(2 * near + 4 * far + 0.2 * 3) / (near + far + 0.2), 3.0]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("name", [*RIVALS, *LABELLED])
def test_names_of_tasks_say_nothing(name: str) -> None:
    regression = name in RIVALS
    problem, make, learner = (PLANE, plane, RIVALS[name]) if regression else (THREE_CLASSES, labelled, LABELLED[name])
    named: list[list[Any]] = [[0, 1, 2, 3], ["d", 7, "c", "1"]]
    found = []
    for keys in named:
        state = learned(problem, learner, {key: make(i, 25) for i, key in enumerate(keys)})
        known, new = (
            predictions(problem, learner, state, key, make(i, 5), make(8).inputs)
            for i, key in ((1, keys[1]), (9, "new"))
        )
        found.append(np.concatenate([known, new]))
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("name", LABELLED)
def test_classes_get_probabilities_that_are_finite_and_learned(name: str) -> None:
    learner = LABELLED[name]
    first = labelled(0, 20)
    state = learner.init(THREE_CLASSES, jax.random.key(0), first)
    nothing = predictions(THREE_CLASSES, learner, state, 0, first[:0], first.inputs)
    np.testing.assert_allclose(nothing, np.full((20, 3), np.log(1 / 3)), rtol=1e-5)
    two = first[np.flatnonzero(first.targets < 2)]
    state, _ = learner.observe(THREE_CLASSES, state, 0, two)
    unseen = predictions(THREE_CLASSES, learner, state, 0, two, two.inputs)
    assert unseen.dtype == np.float32
    assert np.isfinite(unseen).all()
    np.testing.assert_allclose(np.exp(unseen).sum(axis=1), 1, atol=1e-4)
    assert (unseen[:, 2] < np.log(1 / 3)).all()
    stream = [ml.Task(labelled(task, 60), labelled(task, 59)) for task in range(8)]
    records = list(ml.play(THREE_CLASSES, stream, learner, ml.OnlineProtocol(chunk=60)))
    last = np.mean([record.score for record in records[-3:]])
    assert last > 0.45  # of 3 classes


@pytest.mark.parametrize("name", RIVALS)
def test_the_future_changes_nothing_before_and_each_learns(name: str) -> None:
    learner = RIVALS[name]
    protocol = ml.OnlineProtocol(chunk=10, evaluate_at=(0, 10))

    def scores(last: int) -> list[float | None]:
        stream = [ml.Task(plane(task), plane(task, 29)) for task in (*range(9), last)]
        return [record.score for record in ml.play(PLANE, stream, learner, protocol)]

    one, other = scores(9), scores(30)
    assert one[:-3] == other[:-3]
    assert one[-2:] != other[-2:]
    at_10 = float(np.mean([score for score in one[-8::3] if score is not None]))
    pooled = {"linear, pooled", "trees, pooled", "LightGBM, pooled", "river, pooled", "river, tree"}
    assert at_10 < (6.0 if name in pooled else 3.0)  # the variance of the targets is about 3.5


def test_features_of_the_task_and_shrunken_effects_beat_what_is_pooled_where_heights_differ() -> None:
    protocol = ml.OnlineProtocol(chunk=10, evaluate_at=(10,))
    stream = [ml.Task(plane(task), plane(task, 29)) for task in range(25)]

    def error(name: str) -> float:
        records = [r for r in ml.play(PLANE, stream, RIVALS[name], protocol) if r.datapoints == 10]
        return float(np.mean([record.loss for record in records[-10:] if record.loss is not None]))

    errors = {name: error(name) for name in ("linear, pooled", "linear, shrunken", "trees, pooled", "mixed model")}
    for library in ("trees", "LightGBM"):
        errors[f"{library}, task features"] = error(f"{library}, task features")
    assert errors["linear, shrunken"] < 0.1 * errors["linear, pooled"]
    assert errors["mixed model"] < 0.1 * errors["linear, pooled"]
    assert errors["trees, task features"] < 0.4 * errors["trees, pooled"]
    assert errors["LightGBM, task features"] < 0.4 * errors["trees, pooled"]


@pytest.mark.parametrize("kind", ["regression", "multi-class"])
def test_a_run_that_goes_on_is_the_one_that_was_not_interrupted(kind: str, tmp_path: Path) -> None:
    """Every learner, through checkpoints on the disk, with a task that comes back."""
    problem, make = (PLANE, plane) if kind == "regression" else (THREE_CLASSES, labelled)
    stream = [ml.Task(make(i % 3, 20 + i), make(i % 3, 9), key=i % 3) for i in range(5)]
    learners, protocol = external.compared(kind), ml.OnlineProtocol(chunk=11)

    def plain(results: ml.Results) -> Any:
        return [(run.learner, [(r.round, r.datapoints, r.loss, r.score) for r in run.records]) for run in results.runs]

    whole = ml.run(problem, stream, learners, protocol=protocol, progress=False)
    ml.run(problem, stream[:3], learners, protocol=protocol, out=tmp_path, progress=False)
    went_on = ml.run(problem, stream, learners, protocol=protocol, out=tmp_path, resume=True, progress=False)
    assert plain(went_on) == plain(whole)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 900)), min_size=1, max_size=8), st.integers(1, 1500))
def test_the_rows_kept_are_the_most_recent_ones(arrivals: list[tuple[int, int]], at_most: int) -> None:
    totals = Totals(0, 0.0, np.zeros(1))
    rows = Rows.none(totals, ml.Batch.of(np.zeros((1, 2), np.float32), np.zeros((1, 1), np.float32)))
    sent = list[tuple[float, int]]()
    for task, n in arrivals:
        values = np.arange(len(sent), len(sent) + n, dtype=float)
        rows = rows.plus(f"task {task}", np.column_stack([values, values]), values[:, None], at_most)
        sent += [(value, task) for value in values]
    inputs, targets, tasks = rows.recent(at_most)
    kept = sent[-at_most:]
    np.testing.assert_array_equal(targets[:, 0], [value for value, _ in kept])
    np.testing.assert_array_equal(inputs[:, 1], targets[:, 0])
    assert rows.seen == len(sent)
    assert len({(int(number), task) for number, (_, task) in zip(tasks, kept, strict=True)}) >= len(set(tasks.tolist()))
    if at_most >= len(sent):
        assert len(set(tasks.tolist())) == len({task for _, task in kept})
    assert len(rows.inputs) <= max(1024, 4 * max(at_most, max(n for _, n in arrivals)))


def test_what_is_searched_are_settings_of_every_learner() -> None:
    for kind in external.compared("regression"), external.compared("binary"), external.compared("multi-class"):
        for learner in kind.values():
            for field, values in external.SEARCHED[type(learner)].items():
                assert 3 <= len(values) <= 6
                for value in values:
                    assert getattr(replace(learner, **{field: value}), field) == value  # type: ignore[type-var]


def test_without_the_extra_its_learners_say_so_and_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    example = plane(0)
    of_extra: Mapping[str, ml.Learner] = {
        "lightgbm": external.PooledTrees(library="LightGBM"),
        "river": external.RiverModel(),
        "statsmodels": external.MixedModel(),
    }
    for package, learner in of_extra.items():
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ml.UserError, match=rf"needs {package}, .* pip install 'metaleader\[compare\]'"):
            learner.init(PLANE, jax.random.key(0), example)
    monkeypatch.setattr(rivals, "find_spec", lambda name: None)
    left = external.compared("regression")
    assert len(left) == 7
    assert not any(isinstance(learner, external.MixedModel | external.RiverModel) for learner in left.values())


@pytest.mark.parametrize("name", RIVALS)
def test_data_of_other_forms_are_refused_with_the_name_of_the_learner(name: str) -> None:
    learner, key = RIVALS[name], jax.random.key(0)
    kind, x = type(learner).__name__, np.zeros((4, P), np.float32)
    refused: list[tuple[ml.Problem, ml.Batch, str]] = [
        (DIGITS, images(4), r"takes vectors, inputs of shape \(n, p\), got \(4, 16, 16, 3\)"),
        (PLANE, ml.Batch.of({"a": x}, x[:, :1]), r"takes vectors, .* got \(4, 3\)"),
        (PLANE, ml.Batch.of(x, x[:, :2]), r"one number an example, targets of shape \(n, 1\), got \(4, 2\)"),
        (PLANE, ml.Batch.of(x, {"a": x}), "takes one array of targets, got dict"),
        (PLANE, ml.Batch.of(x, x[:, :2].astype(np.int32)), r"one label an example, targets of shape \(n,\)"),
        (ml.Problem(None, ml.CrossEntropy(), ml.accuracy), labelled(0), "give Problem a model"),
        (PLANE, ml.Batch.of(x, np.zeros(4, np.int32)), r"outputs have shape \(4, 1\): give Problem a model with an"),
    ]
    for problem, batch, message in refused:
        with pytest.raises(ml.UserError, match=f"^{kind} .*{message}"):
            learner.init(problem, key, batch)


def test_settings_and_names_that_there_are_not_are_refused() -> None:
    with pytest.raises(ml.UserError, match="MixedModel is for regression, and the targets are labels"):
        external.MixedModel().init(THREE_CLASSES, jax.random.key(0), labelled(0))
    with pytest.raises(ml.UserError, match="unknown model of river 'forrest': did you mean forest"):
        external.RiverModel("forrest")
    with pytest.raises(ml.UserError, match="unknown library of trees 'lightgbm': did you mean LightGBM"):
        external.PooledTrees(library="lightgbm")
    with pytest.raises(ml.UserError, match="unknown kind of target 'binery': did you mean binary"):
        external.compared("binery")
    builds: list[Callable[[], ml.Learner]] = [
        lambda: external.TaskMean(-1),
        lambda: external.PooledLinear(0),
        lambda: external.TaskLinear(float("inf")),
        lambda: external.ShrunkenLinear(deviation=0),
        lambda: external.MixedModel(slopes=-1),
        lambda: external.MixedModel(at_most=0),
        lambda: external.PooledTrees(leaves=1),
        lambda: external.PooledTrees(l2=-1),
        lambda: external.TaskNeighbours(bandwidth=0),
        lambda: external.RiverModel(step_size=0),
    ]
    for build in builds:
        with pytest.raises(ValueError, match=r"must be (positive and finite|at least \d)"):
            build()
