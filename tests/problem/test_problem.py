"""Models as users write them: random ones, ones whose inputs are dicts, ones that begin with plain numbers, padding."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from metaleader import (
    FTL,
    FTML,
    TOE,
    Adam,
    Batch,
    CrossEntropy,
    GradientDescent,
    Identity,
    InnerMomentum,
    Learner,
    MetaSGD,
    Model,
    MultiHeadTOE,
    OnlineMetaGradient,
    OnlineProtocol,
    OptimizerSteps,
    Problem,
    Proximal,
    Reptile,
    Score,
    Scratch,
    Task,
    UpdateProcedure,
    accuracy,
    mean_squared_error,
    meta_gradient,
    play,
    squared_error,
)
from metaleader.problem.batch import pad
from metaleader.problem.problem import check, check_blind_to_padding
from one_of_several import recorder
from problems import UPDATES, points

SIZE = 64  # parameters of the random model; two masks of so many coins agree by chance with probability 2^-64


def coins(key: Any) -> Any:
    """A mask of zeros and ones."""
    return jax.random.bernoulli(key, 0.5, (SIZE,)).astype(jnp.float32)


def tossed(params: Any, inputs: Any, weights: Any, key: Any) -> Any:
    """Outputs `m'w` for a random mask m, and `sum(w) / 2` in predicting: the gradient of their mean is the mask."""
    mask = jnp.full(SIZE, 0.5) if key is None else coins(key)
    return jnp.broadcast_to(mask @ params["w"], (len(inputs), 1))


def itself(outputs: Any, targets: Any) -> Any:
    return outputs[:, 0]


MASKED = Problem(Model(lambda key: {"w": jnp.zeros(SIZE)}, tossed), itself, mean_squared_error)


def with_key(seed: int, n: int = 4) -> Batch:
    return replace(points(n), key=jax.random.key(seed))


DESCENTS: dict[str, UpdateProcedure] = {
    "descent": GradientDescent(3, 0.5),
    "plain": GradientDescent(3, 0.5, derivative="plain"),
    "first order": GradientDescent(3, 0.5, first_order=True),
    "meta-sgd": MetaSGD(3, step_size=0.5),
    "optimiser": OptimizerSteps(3, InnerMomentum(0.5, 0.0)),
    "reptile": Reptile(3, 0.5),
}


@pytest.mark.parametrize("name", DESCENTS)
def test_every_step_of_an_adaptation_has_a_mask_of_its_own(name: str) -> None:
    """From 0, three steps of 0.5 lead to -0.5 times the sum of the three masks."""
    update, batch = DESCENTS[name], with_key(0)
    found = update(MASKED, update.init({"w": jnp.zeros(SIZE)}), batch)["w"]
    masks = [np.asarray(coins(jax.random.fold_in(batch.key, i))) for i in range(3)]
    np.testing.assert_allclose(found, -0.5 * np.sum(masks, axis=0), atol=1e-6)
    assert {tuple(mask) for mask in map(np.ndarray.tolist, masks)} == {tuple(mask.tolist()) for mask in masks}
    assert set(np.unique(np.round(-2 * np.asarray(found)))) == {0, 1, 2, 3}  # one mask thrice would give 0 and 3 alone


@pytest.mark.parametrize("meta_batch", [1, 4])
def test_every_task_of_every_meta_step_has_a_mask_of_its_own(meta_batch: int) -> None:
    """Without adaptation the meta-gradient is the mean of the masks of its tasks, whichever devices they lie on."""
    learner = FTML(Identity(), 2, meta_batch, 2, 2, optimizer=partial(optax.sgd, 1.0))
    state = learner.init(MASKED, jax.random.key(0), points(1))
    state, _ = learner.observe(MASKED, state, 0, points(9))
    summed = -meta_batch * np.asarray(state.params["w"])
    np.testing.assert_allclose(summed, np.round(summed), atol=1e-5)
    # So many different sums of coins come of independent masks alone: 64 sums of 2 or 8 of them.
    assert len(set(np.round(summed).tolist())) >= (3 if meta_batch == 1 else 5)
    assert np.round(summed).max() <= 2 * meta_batch
    before = np.asarray(state.params["w"])
    state, _ = learner.observe(MASKED, state, 0, points(9))  # and so does every time that datapoints arrive
    assert np.abs(np.asarray(state.params["w"]) - 2 * before).max() > 0.5


def test_validation_has_another_mask_than_training() -> None:
    """With one step of 1 from w, the first-order meta-gradient is the mask of D_val, and the adapted w shows D_tr's."""
    learner = FTML(GradientDescent(1, 1.0, first_order=True), 1, 1, 2, 2, optimizer=recorder)
    problem = replace(MASKED, loss=lambda outputs, targets: outputs[:, 0] ** 2 / 2)
    problem = replace(problem, model=Model(lambda key: {"w": jnp.ones(SIZE)}, tossed))
    state = learner.init(problem, jax.random.key(0), points(1))
    state, _ = learner.observe(problem, state, 0, points(9))
    gradient = np.asarray(state.opt_state["w"])
    # grad = (m'v) m with v = 1 - (n'1) n: were m = n with k ones, it would be (k - k^2) m.
    ones = np.flatnonzero(gradient)
    assert 10 < len(ones) < SIZE - 10
    assert abs(gradient[ones[0]] - (len(ones) - len(ones) ** 2)) > 1


RANDOM_LEARNERS: dict[str, Learner] = {
    "ftml": FTML(GradientDescent(2), 1, 2, 2, 2),
    "ftml, none": FTML(Identity(), 1, 2, 2, 2),
    "online meta-gradient": OnlineMetaGradient(GradientDescent(2), 1, 2, 2, 2),
    "imaml": FTML(Proximal(3, 0.02, 5.0, cg_steps=2), 1, 2, 2, 2),
    "toe": TOE(2, batch_size=4),
    "toe, mixed": TOE(2, batch_tasks=0, batch_size=4),
    "ftl": FTL(2, batch_size=4),
    "scratch": Scratch(2, 4),
    "multi-head": MultiHeadTOE(2, batch_size=4, tasks=4),
}


def dropping(rate: float = 0.5) -> Problem:
    """A network with dropout in training, which it asks for by `training` and `key`."""

    def init(key: Any) -> Any:
        return {"body": jax.random.normal(key, (1, 16)), "head": {"kernel": jnp.ones((16, 1)) / 16}}

    def apply(params: Any, inputs: Any, weights: Any, key: Any, training: bool) -> Any:
        assert (key is not None) == training
        hidden = jnp.maximum(inputs @ params["body"], 0)
        if training:
            hidden = jnp.where(jax.random.bernoulli(key, 1 - rate, hidden.shape), hidden / (1 - rate), 0)
        return hidden @ params["head"]["kernel"]

    return Problem(Model(init, apply), squared_error, mean_squared_error)


@pytest.mark.parametrize("name", RANDOM_LEARNERS)
def test_learners_train_random_models_and_predict_without_chance(name: str) -> None:
    """The loss depends on masks, predictions do not: the same run gives the same, another seed another."""
    learner, problem = RANDOM_LEARNERS[name], dropping()

    def run(problem: Problem, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        state = learner.init(problem, jax.random.key(seed), points(1))
        for task in (0, 1, 0):
            state, _ = learner.observe(problem, state, task, points(6, task))
        found, _ = learner.adapt(problem, state, 0, points(12))
        again, _ = learner.adapt(problem, state, 0, points(12))
        first, second = (np.asarray(learner.predict(problem, each, points(7).inputs)) for each in (found, again))
        np.testing.assert_array_equal(first, second)
        # An example's prediction is its own: no mask, and none of its companions'.
        alone = np.asarray(learner.predict(problem, found, points(7).inputs[:1]))
        np.testing.assert_allclose(alone, first[:1], rtol=1e-5, atol=1e-6)
        return first, np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.params)])

    predicted, params = run(problem)
    assert np.isfinite(predicted).all()
    np.testing.assert_array_equal(run(dropping())[1], params)
    # With nothing dropped, the same initial parameters and the same data are learned from otherwise.
    assert np.abs(run(dropping(0.0))[1] - params).max() > 1e-6


def test_a_model_may_ask_for_whether_it_trains_alone() -> None:
    def apply(params: Any, inputs: Any, weights: Any, training: bool) -> Any:
        return inputs * params["w"] + (100.0 if training else 0.0)

    problem = Problem(Model(lambda key: {"w": jnp.ones(())}, apply), squared_error, mean_squared_error)
    batch = Batch.of(np.ones((3, 1), np.float32), np.ones((3, 1), np.float32))
    assert not problem.random
    assert float(problem.objective({"w": jnp.ones(())}, batch)) == pytest.approx(100.0**2)
    np.testing.assert_array_equal(problem.predict({"w": jnp.ones(())}, batch.inputs), batch.inputs)


def test_a_batch_without_a_key_gives_every_step_itself() -> None:
    batch = points(3)
    assert batch.in_step(2) is batch
    assert batch[:2].key is None
    random = with_key(0)
    assert (jax.random.key_data(random[:2].key) == jax.random.key_data(random.key)).all()
    assert (jax.random.key_data(pad(random, 9).key) == jax.random.key_data(random.key)).all()


def both(n: int, seed: int = 0) -> Batch:
    """Examples of which an input has two parts, and a target two as well."""
    random = np.random.default_rng(seed)
    x, z = (random.normal(size=(n, size)).astype(np.float32) for size in (2, 3))
    return Batch.of({"x": x, "more": [z]}, {"sum": x.sum(1) + z.sum(1), "first": x[:, :1]})


def _of_both(params: Any, inputs: Any, weights: Any) -> Any:
    x, (z,) = inputs["x"], inputs["more"]
    return {"sum": x @ params["w"] + z @ params["v"], "first": x[:, :1] * params["w"][0]}


def _loss_of_both(outputs: Any, targets: Any) -> Any:
    return (outputs["sum"] - targets["sum"]) ** 2 + (outputs["first"] - targets["first"])[:, 0] ** 2


OF_BOTH = Problem(
    Model(lambda key: {"w": jax.random.normal(key, (2,)), "v": jnp.zeros(3)}, _of_both),
    _loss_of_both,
    replace(mean_squared_error, function=_loss_of_both),
)


@pytest.mark.parametrize(
    "learner",
    [FTML(GradientDescent(2, 0.02), 3, 2, 4, 4), TOE(5), FTL(5, update=GradientDescent(2, 0.02)), Scratch(20)],
    ids=lambda learner: type(learner).__name__,
)
def test_inputs_targets_and_outputs_may_be_dicts(learner: Learner) -> None:
    tasks = [Task(both(20, i), both(9, 50 + i), key=i % 2) for i in range(4)]
    records = list(play(OF_BOTH, tasks, learner, OnlineProtocol(chunk=10)))
    assert [record.datapoints for record in records] == [10, 20, 10, 20, 30, 40, 30, 40]
    assert all(record.loss is not None and record.score == pytest.approx(record.loss) for record in records)


def test_predictions_of_dicts_are_those_of_numpy() -> None:
    batch, params = both(5), {"w": np.array([2.0, -1.0], np.float32), "v": np.array([1.0, 0, 3], np.float32)}
    found = OF_BOTH.predict(params, batch.inputs)
    x, z = batch.inputs["x"], batch.inputs["more"][0]
    expected = x @ params["w"] + z @ params["v"]
    np.testing.assert_allclose(found["sum"], expected, rtol=1e-5, atol=1e-5)
    assert found["first"].shape == (5, 1)
    loss, scores = OF_BOTH.judge(found, batch)
    by_hand = (expected - batch.targets["sum"]) ** 2 + (2 * x[:, 0] - x[:, 0]) ** 2
    assert loss == pytest.approx(by_hand.mean(), rel=1e-4)
    assert scores == {"squared error": pytest.approx(loss)}


def plain_numbers() -> Any:
    """Parameters as one writes them down: arrays of NumPy, of twice the precision, and Python's numbers."""
    head = {"kernel": np.array([[0.5]]), "bias": np.array([-0.25])}
    return {"scale": 1.5, "offset": np.float32(0.25), "head": head}


def _features(params: Any, inputs: Any, weights: Any) -> Any:
    return params["scale"] * inputs + params["offset"]


def _plain(params: Any, inputs: Any, weights: Any) -> Any:
    return _features(params, inputs, weights) @ params["head"]["kernel"] + params["head"]["bias"]


PLAIN = Problem(Model(lambda key: plain_numbers(), _plain, features=_features), squared_error, mean_squared_error)


def test_initial_parameters_become_arrays() -> None:
    params = PLAIN.init(jax.random.key(0))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    assert params.keys() == plain_numbers().keys()
    jax.tree.map(np.testing.assert_allclose, params, plain_numbers())


@pytest.mark.parametrize("name", UPDATES)
def test_every_update_takes_parameters_that_were_plain_numbers(name: str) -> None:
    update, given = UPDATES[name], PLAIN.init(jax.random.key(0))
    arrays = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), plain_numbers())
    stacked = jax.tree.map(lambda leaf: leaf[None], points(6))
    gradients = []
    for params in (given, arrays):
        meta_params = update.init(params)
        _, gradient = jax.jit(meta_gradient, static_argnums=(0, 1))(PLAIN, update, meta_params, stacked, stacked)
        gradients.append(gradient)
    for one, other in zip(*map(jax.tree.leaves, gradients), strict=True):
        assert one.dtype == other.dtype
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", RANDOM_LEARNERS)
def test_every_learner_takes_parameters_that_were_plain_numbers(name: str) -> None:
    """As it takes arrays; and what is compiled for the first datapoints serves those that follow."""
    learner = RANDOM_LEARNERS[name]

    def arrays(key: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), plain_numbers())

    found = []
    for init in (PLAIN.net.init, arrays):
        problem = replace(PLAIN, model=Model(init, _plain, features=_features))
        state = learner.init(problem, jax.random.key(0), points(1))
        for task in (0, 1, 0):
            state, _ = learner.observe(problem, state, task, points(6, task))
        adapted, _ = learner.adapt(problem, state, 0, points(6))
        found.append(learner.predict(problem, adapted, points(5).inputs))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, np.float16) for name in ("ftml", "imaml", "toe", "ftl", "scratch", "multi-head")),
        ("ftml", ml_dtypes.bfloat16),
        ("toe", ml_dtypes.bfloat16),
    ],
)
def test_every_learner_learns_in_16_bits(name: str, kind: Any) -> None:
    """Parameters keep their type; among them one whose gradient is 0, for which 16 bits have no Adam."""
    learner = replace(RANDOM_LEARNERS[name], optimizer=Adam(0.02, average=0.5))  # type: ignore[type-var]

    def init(key: Any) -> Any:
        return {"head": jnp.ones((1, 1), kind), "unused": jnp.ones(2, kind)}

    problem = Problem(
        Model(init, lambda params, inputs, weights: inputs @ params["head"]), squared_error, mean_squared_error
    )
    state = learner.init(problem, jax.random.key(0), points(1, dtype=kind))
    before = jax.tree.map(np.array, state.params)
    for task in (0, 1, 0):
        state, _ = learner.observe(problem, state, task, points(6, task, dtype=kind))
    found, _ = learner.adapt(problem, state, 0, points(6, dtype=kind))
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, found))} == {np.dtype(kind)}
    assert all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in jax.tree.leaves((state.params, found)))
    moved = [
        np.abs(a - np.asarray(b)).max() for a, b in zip(*map(jax.tree.leaves, (before, state.params)), strict=True)
    ]
    assert max(moved) > 1e-3


def _standardised(values: Any, weights: Any) -> Any:
    mean = weights @ values / weights.sum()
    return (values - mean) / jnp.sqrt(weights @ (values - mean) ** 2 / weights.sum() + 1e-3)


def standardising(minds_weights: bool) -> Problem:
    """A model that standardises its inputs over the batch, with or without its padding."""

    def apply(params: Any, inputs: Any, weights: Any) -> Any:
        return _standardised(inputs, weights if minds_weights else jnp.ones_like(weights)) * params["w"]

    return Problem(Model(lambda key: {"w": jnp.ones(())}, apply), squared_error, mean_squared_error)


def test_a_model_whose_statistics_take_in_padding_is_refused() -> None:
    with pytest.raises(ValueError, match=r"change with what its batch is padded with, by .* weights @ x"):
        check_blind_to_padding(standardising(False), points(9))
    check_blind_to_padding(standardising(True), points(9))
    with pytest.raises(ValueError, match="change with what its batch is padded with"):
        list(play(standardising(False), [Task(points(9), points(5))], TOE(1)))
    assert list(play(standardising(True), [Task(points(9), points(5))], TOE(1)))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_small_batches_are_enough_to_find_it_and_one_example_says_nothing(n: int) -> None:
    if n > 1:
        with pytest.raises(ValueError, match="padded with"):
            check_blind_to_padding(standardising(False), points(n))
    check_blind_to_padding(standardising(True), points(n))


def test_what_is_random_or_large_or_without_a_model_is_no_dependence_on_padding() -> None:
    check_blind_to_padding(dropping(), points(9))
    check_blind_to_padding(Problem(None, squared_error, mean_squared_error), points(9))
    check_blind_to_padding(OF_BOTH, both(9))
    large = Problem(
        Model(lambda key: {"w": jnp.full((), 1e6)}, lambda params, inputs, weights: inputs * params["w"]),
        squared_error,
        mean_squared_error,
    )
    check_blind_to_padding(large, points(9))


def _of_each(params: Any, inputs: Any, weights: Any) -> Any:
    return ((inputs - inputs.mean(1, keepdims=True)) / inputs.std(1, keepdims=True)) @ params["w"]


def wide(n: int, seed: int = 0) -> Batch:
    random = np.random.default_rng(seed)
    return Batch.of(random.normal(size=(n, 5)).astype(np.float32), random.normal(size=(n, 1)).astype(np.float32))


OF_EACH = Problem(Model(lambda key: {"w": jnp.ones((5, 1))}, _of_each), squared_error, mean_squared_error)


@pytest.mark.parametrize("size", [20, 24, 128])
def test_a_model_without_a_value_for_zeros_has_the_derivative_of_the_unpadded_batch(size: int) -> None:
    """The standard deviation of zeros is 0: had padding been zeros, 0 / 0 would be in every derivative."""
    batch, params = wide(20), OF_EACH.init(jax.random.key(0))
    x, y = np.asarray(batch.inputs, np.float64), np.asarray(batch.targets, np.float64)
    rows = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    expected = 2 * rows.T @ (rows @ np.ones((5, 1)) - y) / 20
    gradient = jax.grad(OF_EACH.objective)
    np.testing.assert_allclose(gradient(params, pad(batch, size))["w"], expected, rtol=1e-4, atol=1e-5)
    zeros = np.zeros((4, 5), np.float32)
    by_zeros = Batch(
        jnp.concatenate([batch.inputs, zeros]),
        np.concatenate([batch.targets, zeros[:, :1]]),
        np.append(batch.weights, np.zeros(4, np.float32)),
    )
    assert np.isnan(gradient(params, by_zeros)["w"]).all()


def test_it_is_adapted_to_twenty_examples_and_meta_learned() -> None:
    """One step by hand, with the padding that learners choose; and everything stays finite."""
    learner = FTML(GradientDescent(1, 0.05), 2, 3, 15, 15)  # more than a task's examples: some are padding
    state = learner.init(OF_EACH, jax.random.key(0), wide(1))
    found, _ = learner.adapt(OF_EACH, state, 0, wide(20))
    gradient = jax.grad(OF_EACH.objective)(state.params, wide(20))["w"]
    np.testing.assert_allclose(found["w"], state.params["w"] - 0.05 * gradient, rtol=1e-4, atol=1e-5)
    state, _ = learner.observe(OF_EACH, state, 0, wide(20))
    assert np.isfinite(state.params["w"]).all()
    assert np.isfinite(np.asarray(OF_EACH.predict(state.params, wide(17).inputs))).all()


@pytest.mark.parametrize("learner", [FTML(GradientDescent(2, 0.05), 2, 2, 3, 4), TOE(2)], ids=["ftml", "toe"])
def test_a_model_without_a_value_for_zeros_is_finite_before_its_first_datapoint(learner: Learner) -> None:
    state = learner.init(OF_EACH, jax.random.key(0), wide(1))
    for _ in range(2):
        found, _ = learner.adapt(OF_EACH, state, 0, wide(1)[:0])
        assert np.isfinite(np.asarray(learner.predict(OF_EACH, found, wide(3).inputs))).all()
        state, _ = learner.observe(OF_EACH, state, 0, wide(6))


def failing(shape: Callable[[Any], Any]) -> Problem:
    return replace(OF_EACH, loss=lambda outputs, targets: shape(outputs))


def test_data_that_does_not_fit_is_said_with_where_it_stands() -> None:
    check(OF_EACH, wide(4), "here")
    with pytest.raises(ValueError, match=r"^round 3: the loss has shape \(\) for 4 examples"):
        check(failing(jnp.mean), wide(4), "round 3")
    with pytest.raises(ValueError, match=r"^round 3: .*got \(2,\) and \(5,\)"):
        check(OF_EACH, Batch.of(np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)), "round 3")
    with pytest.raises(ValueError, match="the problem has none: give Problem a model"):
        assert Problem(None, squared_error, mean_squared_error).net
    with pytest.raises(ValueError, match="at least one score"):
        replace(OF_EACH, scores=())
    with pytest.raises(ValueError, match="names of their own, got squared error, squared error"):
        replace(OF_EACH, scores=(mean_squared_error, mean_squared_error))


def column(n: int) -> Any:
    """A model that gives `n` numbers an example, or one without an axis of its own, where `n` is 0."""

    def apply(params: Any, inputs: Any, weights: Any) -> Any:
        outputs = inputs @ params["w"]
        return outputs if n else outputs[:, 0]

    return Model(lambda key: {"w": jnp.ones((5, max(n, 1)))}, apply)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda o, t: jnp.abs(o - t),
            r"score 'own' has shape \(4, 1\) for 4 examples: .*\(4,\).* take the mean over all",
        ),
        (lambda o, t: jnp.mean(jnp.abs(o - t)), r"score 'own' has shape \(\) for 4 examples"),
        (lambda o, t: 0.5, r"score 'own' has shape \(\)"),
        (
            lambda o, t: 1.0 * (o.argmax(-1) == t),
            r"score 'own' has shape \(4, 4\) .* Outputs have shape \(4, 1\), targets \(4, 1\)",
        ),
    ],
)
def test_a_score_that_gives_no_number_an_example_is_refused_before_learning(function: Any, message: str) -> None:
    problem = Problem(column(1), squared_error, Score("own", function, False))
    with pytest.raises(ValueError, match=message):
        next(play(problem, [Task(wide(4), wide(9))], TOE(1)))
    without = replace(problem, model=None)
    with pytest.raises(ValueError, match=message):  # nor of a learner with a model of its own
        without.judge(np.ones((4, 1), np.float32), wide(4))


def test_what_mixes_examples_is_refused() -> None:
    """Outputs (n,) and targets (n, 1) give (n, n) differences, whose mean has a number an example all the same."""
    batch = wide(9)

    def mean_square(outputs: Any, targets: Any) -> Any:
        return jnp.mean(jnp.square(outputs - targets), axis=-1)

    own = Score("own", mean_square, False)
    for problem, what in (
        (Problem(column(0), mean_square, own), "the loss"),
        (Problem(column(0), lambda o, t: jnp.square(o - t[:, 0]), own), "score 'own'"),
    ):
        check(problem, batch, "here")  # the shapes are right
        with pytest.raises(ValueError, match=f"^{what} of an example changes with the other examples .* alike"):
            check_blind_to_padding(problem, batch)
    check_blind_to_padding(Problem(column(1), mean_square, own), batch)


def test_labels_may_be_booleans() -> None:
    random, params = np.random.default_rng(0), column(2).init(jax.random.key(0))
    inputs, flags = random.normal(size=(9, 5)).astype(np.float32), random.random(9) < 0.5
    problem = Problem(column(2), CrossEntropy(), accuracy)
    found = []
    for labels in (flags, flags.astype(np.int32)):
        batch = Batch.of(inputs, labels)
        check(problem, batch, "here")
        found.append((problem.judge(inputs[:, :2], batch), float(problem.objective(params, batch))))
    assert found[0] == found[1]
    three = Problem(column(3), CrossEntropy(), accuracy)
    assert np.isfinite(three.objective(column(3).init(jax.random.key(0)), Batch.of(inputs, flags)))


@pytest.mark.parametrize(
    ("labels", "remedy"),
    [
        (np.ones(4), r"float64 of shape \(4,\): try \.astype\(int\)"),
        (np.ones((4, 1), int), r"int64 of shape \(4, 1\): try \.reshape\(-1\)"),
        (np.eye(4), r"float64 of shape \(4, 4\): try \.astype.* \.argmax\(axis=1\)"),
        (np.eye(4, dtype=bool), r"bool of shape \(4, 4\): try \.argmax"),
    ],
)
def test_labels_of_another_kind_are_refused_with_the_remedy(labels: Any, remedy: str) -> None:
    with pytest.raises(ValueError, match=f"labels must be integers of shape .*{remedy}"):
        check(Problem(column(4), CrossEntropy(), accuracy), Batch.of(wide(4).inputs, labels), "here")
