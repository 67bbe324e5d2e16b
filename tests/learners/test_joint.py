"""Minibatches of joint training, what normalises them, and how many gradients each learner takes."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaleader import (
    FTL,
    FTML,
    TOE,
    Batch,
    ConvNet,
    CrossEntropy,
    Experiment,
    GradientDescent,
    HeadFirst,
    MetaSGD,
    Momentum,
    MultiHeadFTL,
    MultiHeadTOE,
    OnlineMetaGradient,
    OnlineProtocol,
    Preset,
    Problem,
    Recency,
    Retention,
    Scratch,
    Sinusoid,
    accuracy,
)
from metaleader.buffer import store
from metaleader.buffer.sampling import sampling_weights
from metaleader.experiments import EXPERIMENTS
from metaleader.experiments.parsing import with_settings
from metaleader.learners.base import POPULATION
from metaleader.learners.joint import Drawing, _draw
from metaleader.update.optimizer import InnerMomentum, OptimizerSteps
from problems import CURVES, images, points


def stored(learner: Any, counts: tuple[int, ...] = (30, 10, 20), problem: Problem = CURVES, data: Any = points) -> Any:
    """A state with so many datapoints of each task, not learned from."""
    state = learner.init(problem, jax.random.key(0), data(1))
    buffer = state.buffer
    for task, count in enumerate(counts):
        buffer = learner.retention.append(buffer, task, data(count, task))
    return state._replace(buffer=buffer)


def drawn(learner: Any, which: Any = "all", current_first: bool = False, buffer: Any = None) -> tuple[np.ndarray, ...]:
    """Rows of the tasks of every step, places and weights of their examples."""
    buffer = stored(learner).buffer if buffer is None else buffer
    drawing = Drawing(learner.minibatches, learner.steps, which, current_first)
    _, rows, places, weights, _, _ = _draw(drawing, CURVES.random, jax.random.key(1), buffer, learner.steps)
    return np.asarray(rows), np.asarray(places), np.asarray(weights)


def test_a_minibatch_holds_distinct_examples_of_each_of_its_tasks() -> None:
    tasks, places, weights = drawn(TOE(2_000, batch_tasks=2, batch_size=12, calibration_size=3))
    assert places.shape == weights.shape == (2_000, 2, 15)
    starts, counts = np.array([0, 30, 40]), np.array([30, 10, 20])
    for task, at, weight in zip(tasks.reshape(-1), places.reshape(-1, 15), weights.reshape(-1, 15), strict=True):
        real = at[weight > 0]
        assert len(real) == len(set(real)) == min(15, counts[task])
        assert ((real >= starts[task]) & (real < starts[task] + counts[task])).all()
    # In proportion to their datapoints: 4,000 draws, with a standard error of at most 0.008.
    np.testing.assert_allclose(np.bincount(tasks.ravel()) / tasks.size, counts / 60, atol=0.035)


def test_where_tasks_are_mixed_all_examples_of_a_minibatch_are_distinct() -> None:
    for which, chosen in (("all", range(60)), ("past", range(40)), ("current", range(40, 60))):
        _, places, weights = drawn(TOE(300, batch_tasks=0, batch_size=30, calibration_size=15), which)
        assert places.shape == weights.shape == (300, 1, 45)
        for at, weight in zip(places[:, 0], weights[:, 0], strict=True):
            real = at[weight > 0]
            assert len(real) == len(set(real)) == min(45, len(chosen))
            assert set(real) <= set(chosen)
            assert weight[:15].sum() == len(real) // 3  # calibration has its share where there are too few


def test_past_only_leaves_out_the_newest_task_and_newest_first_begins_with_it() -> None:
    assert set(drawn(FTL(500), "past")[0].ravel()) == {0, 1}
    assert drawn(FTL(500, batch_tasks=0), "past")[1].max() == 39
    tasks, _, _ = drawn(TOE(500, batch_tasks=3), current_first=True)
    assert (tasks[:, 0] == 2).all()
    assert set(tasks[:, 1:].ravel()) == {0, 1, 2}
    # When the first task comes back, its 30 and the new datapoint, places 0 to 30, are the current ones.
    mixed = FTL(500, batch_tasks=0)
    buffer = mixed.retention.append(stored(mixed).buffer, 0, points(1, 9))
    assert set(drawn(mixed, "past", buffer=buffer)[1].ravel()) == set(range(31, 61))
    assert set(drawn(mixed, "current", buffer=buffer)[1].ravel()) == set(range(31))
    assert set(drawn(FTL(500), "past", buffer=buffer)[0].ravel()) == {1, 2}
    assert (drawn(TOE(500, batch_tasks=3), current_first=True, buffer=buffer)[0][:, 0] == 0).all()


def test_one_step_is_along_the_mean_over_tasks_of_what_calibrated_examples_lose() -> None:
    """Against the gradient of the loss written out for the examples that were drawn."""
    problem = Problem(ConvNet(depth=1, filters=4, image=(16, 16, 3), norm="task"), CrossEntropy(), accuracy)
    learner = TOE(1, batch_tasks=2, batch_size=6, calibration_size=4, optimizer=Momentum(0.1, momentum=0.0))
    state = stored(learner, (20, 12), problem, images)
    after, cost = learner.observe(problem, state, 1, images(2, 9))  # one step, after two more examples of the task
    buffer = learner.retention.append(stored(learner, (20, 12), problem, images).buffer, 1, images(2, 9))
    places = np.asarray(_draw(Drawing(learner.minibatches, 1), problem.random, state.key, buffer, 1)[2])
    held = store.held(buffer, np.arange(34))
    inputs, targets = np.asarray(held.inputs), np.asarray(held.targets)

    def loss(params: Any) -> Any:
        total: Any = 0.0
        for at in places[0]:
            first, rest = at[:4], at[4:]
            ready = problem.net.calibrate(params, Batch.of(inputs[first], targets[first]))
            outputs = problem.net.apply(ready, inputs[rest], np.ones(6, np.float32))
            total += jnp.mean(problem.loss(outputs, targets[rest])) / 2
        return total

    expected = jax.tree.map(lambda w, g: w - 0.1 * g, state.params, jax.grad(loss)(state.params))
    for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert cost == 2 * 10


def test_running_statistics_are_those_of_examples_of_all_tasks() -> None:
    net = ConvNet(depth=1, filters=4, image=(16, 16, 3), norm="running")
    problem = Problem(net, CrossEntropy(), accuracy)
    learner = TOE(1)
    state = stored(learner, (20, 12), problem, images)
    adapted, _ = learner.adapt(problem, state, 1, images(5, 3))
    held = store.held(state.buffer, np.arange(32))
    everything = Batch.of(np.asarray(held.inputs), np.asarray(held.targets))
    expected = replace(net, norm="task").calibrate(state.params, everything)
    np.testing.assert_allclose(adapted["conv"][0]["mean"], expected["conv"][0]["mean"], rtol=1e-5, atol=1e-6)
    of_task = replace(net, norm="task").calibrate(state.params, images(5, 3))
    assert np.abs(np.asarray(adapted["conv"][0]["mean"]) - np.asarray(of_task["conv"][0]["mean"])).max() > 1e-4
    assert POPULATION > 32


def test_sampling_gives_the_newest_task_the_share_it_was_promised() -> None:
    counts, ages = np.array([5, 5, 5, 0, 5, 0, 0]), np.array([4, 3, 2, 1, 0, 0, 0])
    weights = np.asarray(sampling_weights(Recency(2.0, newest=0.4), counts, ages))
    shares = weights / weights.sum()
    assert shares[4] == pytest.approx(0.4)
    assert shares[3] == shares[5] == 0
    assert shares[2] / shares[0] == pytest.approx(2)
    only = np.asarray(sampling_weights(Recency(newest=0.4), np.array([5, 0]), np.array([0, 0])))
    assert only[0] > 0
    with pytest.raises(ValueError, match=r"newest must be in \[0, 1\), got 1.0"):
        Recency(newest=1.0)


def test_a_fresh_head_forgets_the_old_one_and_moves_alone_at_first() -> None:
    params = CURVES.net.init(jax.random.key(0))
    other = {**params, "head": jax.tree.map(lambda leaf: leaf + 3, params["head"])}
    data = points(12)
    update = HeadFirst(head_steps=7, head_step_size=0.1, steps=0)
    one, two = (update(CURVES, w, data) for w in (params, other))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    jax.tree.map(np.testing.assert_array_equal, one["hidden"], params["hidden"])
    # A linear regression on fixed features, by hand.
    blank = CURVES.net.apply(
        {**params, "head": {"kernel": np.eye(8, dtype=np.float32), "bias": np.zeros(8)}}, data.inputs, data.weights
    )
    features, kernel, bias = np.asarray(blank, np.float64), np.zeros((8, 1)), np.zeros(1)
    for _ in range(7):
        error = features @ kernel + bias - data.targets
        kernel, bias = kernel - 0.2 * features.T @ error / 12, bias - 0.2 * error.mean(axis=0)
    np.testing.assert_allclose(one["head"]["kernel"], kernel, rtol=1e-4, atol=1e-5)
    then = HeadFirst(head_steps=7, head_step_size=0.1, steps=3, step_size=0.05, decay=0.0)
    expected = OptimizerSteps(3, InnerMomentum(0.05, 0.0))(CURVES, one, data)
    for a, b in zip(jax.tree.leaves(then(CURVES, params, data)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    nothing = replace(data, weights=np.zeros(12, np.float32))
    jax.tree.map(np.testing.assert_array_equal, then(CURVES, params, nothing), params)


SPENDING: dict[str, Any] = {
    "ftml": FTML(GradientDescent(3), meta_batch=2),
    "first order": FTML(GradientDescent(3, first_order=True), meta_batch=2),
    "streaming": OnlineMetaGradient(),
    "toe": TOE(),
    "mixed": TOE(batch_tasks=0, batch_size=50),
    "calibrated": FTL(batch_tasks=3, calibration_size=5),
    "mixed, calibrated": FTL(batch_tasks=0, batch_size=20, calibration_size=5),
    "scratch": Scratch(batch_size=20),
    "heads": MultiHeadTOE(batch_tasks=2, tasks=4),
    "heads, past": MultiHeadFTL(batch_tasks=2, tasks=4),
}


@pytest.mark.parametrize("name", SPENDING)
def test_every_learner_spends_what_it_is_given(name: str) -> None:
    """To half a step, once the buffer has enough of several tasks."""
    learner: Any = SPENDING[name].spending(2_000)
    net: Any = replace(ConvNet(depth=1, filters=2, image=(16, 16, 3)), norm="task")
    by_task = Problem(net, CrossEntropy(), accuracy), images
    problem, draw = by_task if "calibrated" in name else (CURVES, points)
    state = learner.init(problem, jax.random.key(0), draw(1))
    for task in range(3):
        state, cost = learner.observe(problem, state, task, draw(60, task))
    assert cost == pytest.approx(2_000, abs=200)
    assert learner == SPENDING[name].spending(2_000)
    least: Any = SPENDING[name].spending(1)
    assert getattr(least, "meta_steps", None) == 1 or least.steps == 1


def test_from_scratch_few_datapoints_make_cheaper_steps_and_more_of_them() -> None:
    learner = Scratch(batch_size=20, optimizer=Momentum(0.01, momentum=0.0)).spending(400)
    state, spent = learner.init(CURVES, jax.random.key(0), points(1)), []
    for _ in range(4):
        state, cost = learner.observe(CURVES, state, 0, points(8))
        spent.append(cost)
    assert spent == [50 * 8, 25 * 16, 20 * 20, 20 * 20]
    one = replace(learner, batch_size=8, steps=1)  # full batches: gradient descent
    start = one.init(CURVES, jax.random.key(0), points(1))
    after, _ = one.observe(CURVES, start, 0, points(8))
    fresh = jax.random.split(start.key)[1]
    expected = GradientDescent(1, 0.01)(CURVES, CURVES.net.init(fresh), points(8))
    for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_equal_gradients_are_a_setting_of_the_experiment() -> None:
    both: dict[str, Any] = {"toe": TOE(steps=3), "scratch": Scratch(batch_size=25)}
    preset = Preset(Sinusoid(rounds=2), CURVES.net, CURVES.loss, OnlineProtocol(chunk=5), both, 500)
    experiment = Experiment("curves", "", CURVES.score, MappingProxyType({"laptop": preset}))
    spending: Any = {"toe": TOE(steps=10), "scratch": Scratch(20, 25, equal_gradients=True)}
    assert dict(preset.learners) == spending

    def steps(**settings: str) -> list[int]:
        given = {name.replace("_", "."): value for name, value in settings.items()}
        learners: Any = with_settings(experiment, preset, given).learners
        return [learners["toe"].steps, learners["scratch"].steps]

    assert steps() == [10, 20]
    assert steps(gradients="1000") == [20, 40]
    assert steps(toe_steps="7") == [7, 20]  # a number of steps that is set holds
    assert steps(gradients="1000", toe_steps="7") == [7, 40]
    assert steps(gradients="0") == [10, 20]
    twice = with_settings(experiment, with_settings(experiment, preset, {"toe.steps": "7"}), {"gradients": "1000"})
    assert twice.learners["toe"] == TOE(steps=7)
    with pytest.raises(ValueError, match="gradients must be at least 0"):
        replace(preset, gradients=-1)


@pytest.mark.parametrize(
    "name", ["coloured-digits", "rainbow-digits", "rainbow-mnist", "cifar100", "pose", "sinusoid", "coloured-mnist"]
)
def test_laptop_presets_give_all_learners_equal_gradients(name: str) -> None:
    """To a tenth, in a minibatch that is full."""
    preset = EXPERIMENTS[name].preset("laptop")
    assert preset.gradients > 0
    for each in EXPERIMENTS[name].compared:
        learner: Any = preset.learners[each]
        if isinstance(learner, FTML):
            spent = learner.meta_steps * learner.meta_gradient_evaluations()
        else:
            tasks = max(getattr(learner, "batch_tasks", 1), 1)
            spent = learner.steps * tasks * (learner.batch_size + getattr(learner, "calibration_size", 0))
        assert spent == pytest.approx(preset.gradients, rel=0.1), each


def test_every_option_that_is_searched_exists() -> None:
    for experiment in EXPERIMENTS.values():
        preset = experiment.preset("laptop")
        ends = {option: values.replace(":", "|").split("|") for option, values in experiment.search.items()}
        for end in (0, -1):
            changed = with_settings(experiment, preset, {option: values[end] for option, values in ends.items()})
            assert changed.learners.keys() == preset.learners.keys()


def test_adapting_further_than_meta_training_takes_more_of_the_same_steps() -> None:
    learner = FTML(GradientDescent(2, 0.05), adapt_steps=6)
    state = learner.init(CURVES, jax.random.key(0), points(1))
    expected = GradientDescent(6, 0.05)(CURVES, state.params, points(10))
    adapted, cost = learner.adapt(CURVES, state, 0, points(10))
    for a, b in zip(jax.tree.leaves(adapted), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert cost == 60
    meta_sgd = FTML(MetaSGD(2), adapt_steps=4)
    assert meta_sgd.adapt(CURVES, meta_sgd.init(CURVES, jax.random.key(0), points(1)), 0, points(5))[1] == 20


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TOE(batch_tasks=-1), "batch_tasks must be at least 0"),
        (lambda: FTL(calibration_size=-1), "calibration_size must be at least 0"),
        (lambda: HeadFirst(head_steps=-1), "head_steps must be at least 0"),
        (lambda: HeadFirst(step_size=0.0), "step_size must be positive"),
        (lambda: FTML(adapt_steps=-2), "adapt_steps must be at least 0"),
        (lambda: Momentum(average=1.0), r"average must be in \[0, 1\)"),
    ],
)
def test_impossible_settings_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_a_model_without_statistics_of_a_task_takes_no_examples_for_them() -> None:
    learner, batch = TOE(2, batch_size=4, calibration_size=3), images(20)
    norms: Any = {"task": 7, "batch": 4, "running": 4}
    for norm, examples in norms.items():
        net: Any = replace(ConvNet(depth=1, filters=2, image=(16, 16, 3)), norm=norm)
        problem = Problem(net, CrossEntropy(), accuracy)
        _, cost = learner.observe(problem, learner.init(problem, jax.random.key(0), batch), "a", batch)
        assert cost == 2 * 2 * examples
    experiment = EXPERIMENTS["rainbow-mnist"]
    preset = experiment.preset("laptop")
    by_batch: Any = with_settings(experiment, preset, {"model.norm": "batch"}).learners["toe"]
    toe: Any = preset.learners["toe"]
    assert by_batch.steps * by_batch.batch_size * 4 == pytest.approx(800, rel=0.1)
    assert toe.steps * (toe.batch_size + 25) * 4 == pytest.approx(800, rel=0.1)


@pytest.mark.parametrize(
    "make",
    [lambda kept: FTL(retention=kept), lambda kept: FTML(retention=kept, past_only=True),
     lambda kept: OnlineMetaGradient(retention=kept, past_only=True)],
)  # fmt: skip
def test_what_learns_from_the_past_needs_a_memory_of_it(make: Any) -> None:
    with pytest.raises(ValueError, match="there would be nothing to learn from"):
        make(Retention("last", 1, "tasks"))
    make(Retention("last", 2, "tasks"))


def test_streaming_differs_from_ftml_in_its_memory_alone() -> None:
    """Nor does it wait for tasks before the current one, as the authors' FTML does: it would learn nothing."""
    for experiment in EXPERIMENTS.values():
        for preset in experiment.presets.values():
            ftml, streaming = preset.learners["ftml"], preset.learners["streaming"]
            assert (
                OnlineMetaGradient(**{**vars(ftml), "retention": Retention("last", 1, "tasks"), "past_only": False})
                == streaming
            )
