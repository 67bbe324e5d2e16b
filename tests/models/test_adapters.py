"""Modules of Flax and Equinox as models: statistics of batches and tasks by hand, dropout, and whole runs."""

import functools
import pickle
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from metaleader import (
    FTL,
    FTML,
    Batch,
    GradientDescent,
    OnlineProtocol,
    Problem,
    Task,
    UserError,
    from_equinox,
    from_flax_linen,
    from_flax_nnx,
    mean_squared_error,
    meta_objective,
    play,
    run,
    squared_error,
)
from metaleader.models import adapters
from metaleader.problem.batch import pad

ROOT = Path(__file__).parents[2]
EPSILON = 1e-5  # of all three kinds of batch normalisation


class Linen(nn.Module):
    """Linear, batch normalisation, tanh, dropout, linear."""

    width: int = 3
    rate: float = 0.0

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = nn.BatchNorm(use_running_average=not train, name="norm")(nn.Dense(self.width, name="body")(x))
        return nn.Dense(1, name="head")(nn.Dropout(self.rate, deterministic=not train)(nn.tanh(x)))


class NNX(nnx.Module):
    """The same."""

    def __init__(self, width: int = 3, rate: float = 0.0, *, rngs: nnx.Rngs) -> None:
        self.body = nnx.Linear(2, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.head = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.head(self.dropout(jnp.tanh(self.norm(self.body(x)))))


class Equinox(eqx.Module):
    """The same, for one example."""

    body: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, width: int = 3, rate: float = 0.0, mode: Any = "batch", *, key: Any) -> None:
        first, second = jax.random.split(key)
        self.body = eqx.nn.Linear(2, width, key=first)
        self.norm = eqx.nn.BatchNorm(width, "examples", mode=mode)
        self.dropout = eqx.nn.Dropout(rate)
        self.head = eqx.nn.Linear(width, 1, key=second)

    def __call__(self, x: Any, state: eqx.nn.State, key: Any = None) -> tuple[Any, eqx.nn.State]:
        x, state = self.norm(self.body(x), state)
        return self.head(self.dropout(jnp.tanh(x), key=key)), state


EXAMPLE = np.zeros((1, 2), np.float32)
MAKE: dict[str, Callable[..., adapters.AdaptedModel]] = {
    "linen": lambda **settings: from_flax_linen(Linen(**settings), EXAMPLE),
    "nnx": lambda **settings: from_flax_nnx(functools.partial(NNX, **settings)),
    "equinox": lambda **settings: from_equinox(functools.partial(Equinox, **settings)),
    "equinox, ema": lambda **settings: from_equinox(functools.partial(Equinox, mode="ema", **settings)),
}
LIBRARIES = ["linen", "nnx", "equinox"]
made = functools.cache(lambda name: MAKE[name]())


def batch(n: int, seed: int = 0, dtype: Any = np.float32) -> Batch:
    random = np.random.default_rng(seed)
    x = random.normal(1.0, 2.0, (n, 2)).astype(dtype)
    return Batch.of(x, np.sin(x[:, :1]))


def stream(rounds: int = 3) -> list[Task]:
    return [Task(batch(12, i), batch(9, 100 + i), f"task {i}") for i in range(rounds)]


def problem_of(model: Any) -> Problem:
    return Problem(model, squared_error, mean_squared_error)


def varied(params: Any, seed: int = 0) -> Any:
    """Parameters none of which is 0 or 1."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + 0.3 * random.normal(size=leaf.shape).astype(leaf.dtype), params)


def arrays(params: Any) -> tuple[np.ndarray, ...]:
    """W, b, gamma, beta, V and c, the matrices as inputs x outputs."""

    def linear(layer: Any) -> tuple[np.ndarray, np.ndarray]:
        kernel = layer["kernel"] if "kernel" in layer else layer["weight"].T
        return np.asarray(kernel, np.float64), np.asarray(layer["bias"], np.float64)

    norm = params["norm"]
    gamma, beta = (np.asarray(leaf, np.float64) for leaf in (norm.get("scale", norm.get("weight")), norm["bias"]))
    return (*linear(params["body"]), gamma, beta, *linear(params["head"]))


def hidden(params: Any, x: np.ndarray) -> np.ndarray:
    w, b, *_ = arrays(params)
    return x @ w + b


def by_hand(params: Any, x: np.ndarray, mean: Any, variance: Any) -> np.ndarray:
    """The outputs without dropout, in NumPy."""
    _, _, gamma, beta, v, c = arrays(params)
    z = (hidden(params, x) - mean) / np.sqrt(variance + EPSILON)
    return np.tanh(z * gamma + beta) @ v + c


@pytest.mark.parametrize("name", MAKE)
@settings(max_examples=8)
@given(n=st.integers(2, 9), padding=st.integers(0, 5), seed=st.integers(0, 5))
def test_training_normalises_by_the_examples_of_weight(name: str, n: int, padding: int, seed: int) -> None:
    model, data = made(name), batch(n, seed)
    params = varied(model.init(jax.random.key(seed)), seed)
    rows = hidden(params, data.inputs)
    padded = pad(data, n + padding)
    padded.inputs[n:] *= 100  # whatever it is padded with
    outputs = model.apply(params, padded.inputs, padded.weights, jax.random.key(seed), training=True)
    np.testing.assert_allclose(outputs[:n], by_hand(params, data.inputs, rows.mean(0), rows.var(0)), atol=2e-4)
    alone = model.apply(params, data.inputs, 3 * data.weights, training=True)  # a weight counts as one example
    np.testing.assert_allclose(outputs[:n], alone, atol=1e-4)


@pytest.mark.parametrize("name", MAKE)
def test_a_task_is_predicted_by_the_statistics_of_its_own_data(name: str) -> None:
    model, data, others = made(name), batch(7), batch(5, 1)
    params = varied(model.init(jax.random.key(0)))
    before = model.apply(params, others.inputs, others.weights)
    np.testing.assert_allclose(before, by_hand(params, others.inputs, 0, 1), atol=1e-5)  # a module begins with those
    rows = hidden(params, data.inputs)
    calibrated = model.calibrate(params, pad(data, 12))
    mean, variance = calibrated.statistics
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(variance, rows.var(0), rtol=1e-4)
    expected = by_hand(params, others.inputs, rows.mean(0), rows.var(0))
    for training in (False, True):  # as in the loss after adaptation
        outputs = model.apply(calibrated, others.inputs, others.weights, training=training)
        np.testing.assert_allclose(outputs, expected, atol=1e-4)
    # Each example is predicted on its own.
    one = model.apply(calibrated, others.inputs[:1], others.weights[:1])
    np.testing.assert_allclose(one, expected[:1], atol=1e-4)
    again = model.calibrate(calibrated, others)
    np.testing.assert_allclose(again.statistics[0], hidden(params, others.inputs).mean(0), rtol=1e-5)


@pytest.mark.parametrize("name", MAKE)
def test_derivatives_pass_through_inner_steps_and_calibration(name: str) -> None:
    with jax.enable_x64(True):
        model = MAKE[name]()
        problem, update = problem_of(model), GradientDescent(2, 0.1)
        train, validation = pad(batch(5, 0, np.float64), 8), batch(4, 1, np.float64)
        params = varied(jax.tree.map(lambda leaf: leaf.astype(np.float64), model.init(jax.random.key(0))))

        @jax.jit
        def loss(params: Any) -> Any:
            return meta_objective(problem, update, params, train, validation)

        gradient = jax.jit(jax.grad(loss))(params)
        random = np.random.default_rng(0)
        for _ in range(3):
            direction = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), params)
            ahead, behind = (
                loss(jax.tree.map(lambda p, d, s=step: p + s * d, params, direction)) for step in (1e-5, -1e-5)
            )
            slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: np.sum(g * d), gradient, direction)))
            np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=1e-5)
        # By stored statistics: what is normalised by a batch of one is its bias alone, whatever the example.
        one, other = validation[:1], validation[1:2]
        calibrated = model.calibrate(params, train)
        outputs = [model.apply(calibrated, each.inputs, each.weights, training=True) for each in (one, other)]
        assert abs(outputs[0] - outputs[1]).max() > 1e-3


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_batch_without_weight_has_a_gradient_of_zero(name: str) -> None:
    problem = problem_of(made(name))
    empty = pad(batch(1)[:0], 4)
    gradient = jax.grad(problem.objective)(problem.init(jax.random.key(0)), empty)
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_array_equal(leaf, 0)


class LinenDropout(nn.Module):
    @nn.compact
    def __call__(self, x: Any, deterministic: bool) -> Any:
        return nn.Dropout(0.25)(x, deterministic=deterministic)


class EquinoxDropout(eqx.Module):
    dropout: eqx.nn.Dropout

    def __init__(self, key: Any) -> None:
        self.dropout = eqx.nn.Dropout(0.25)

    def __call__(self, x: Any, *, key: Any) -> Any:
        return self.dropout(x, key=key)


DROPOUT = {
    "linen": lambda: from_flax_linen(LinenDropout(), EXAMPLE),
    "nnx": lambda: from_flax_nnx(lambda rngs: nnx.Dropout(0.25, rngs=rngs)),
    "equinox": lambda: from_equinox(EquinoxDropout),
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_dropout_is_of_training_and_of_its_key(name: str) -> None:
    model = DROPOUT[name]()
    assert jax.tree.leaves(model.init(jax.random.key(0))) == []
    x, weights = np.full((1000, 2), 3.0, np.float32), np.ones(1000, np.float32)
    first, again, second = (model.apply({}, x, weights, jax.random.key(i), training=True) for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != second).any()
    kept = np.asarray(first) != 0
    np.testing.assert_allclose(np.asarray(first)[kept], 4.0)
    assert 0.7 < kept.mean() < 0.8
    assert kept.any(axis=1).mean() > kept[:, 0].mean()  # units are dropped one by one
    assert (kept[0] != kept).any()  # and not alike for all examples
    for key in (None, jax.random.key(0)):
        np.testing.assert_array_equal(model.apply({}, x, weights, key), x)
    np.testing.assert_array_equal(model.apply({}, x, weights, training=True), x)  # nothing to draw from
    assert model.calibrate({}, Batch.of(x, x)) == {}  # no statistics: the parameters as they are


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        pytest.param(name, rate, marks=[] if (name, rate) == ("nnx", 0.3) else pytest.mark.slow)
        for name in LIBRARIES
        for rate in (0.0, 0.3)
    ],
)
def test_runs_of_ftml_and_ftl_are_finite_and_repeat(name: str, rate: float) -> None:
    problem = problem_of(MAKE[name](rate=rate))
    ftml = FTML(GradientDescent(2, 0.05), meta_steps=2, meta_batch=2, train_size=4, validation_size=4)
    ftl = FTL(2, batch_size=6, update=GradientDescent(2, 0.05))
    for learner in (ftml, ftl):
        protocol = OnlineProtocol(chunk=6, evaluate_at=(0, 6, 12))
        records = list(play(problem, stream(), learner, protocol))
        assert [record.datapoints for record in records] == [0, 6, 12] * 3
        assert all(record.loss is not None and np.isfinite(record.loss) for record in records)
        again = problem_of(MAKE[name](rate=rate))
        assert again == problem
        assert [record.loss for record in play(again, stream(), learner, protocol)] == [
            record.loss for record in records
        ]


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_run_that_was_stopped_goes_on(name: str, tmp_path: Path) -> None:
    problem = problem_of(MAKE[name](rate=0.3))
    learner = FTML(GradientDescent(1, 0.05), meta_steps=1, meta_batch=2, train_size=4, validation_size=4)
    settings: Any = {"protocol": OnlineProtocol(chunk=12), "progress": False}
    whole = run(problem, stream(), learner, **settings)
    run(problem, stream(), learner, rounds=2, out=tmp_path / "run", **settings)
    rest = run(problem, stream(), learner, out=tmp_path / "run", resume=True, **settings)
    losses = [[record.loss or 0.0 for record in each.records] for results in (whole, rest) for each in results.runs]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)


@pytest.mark.parametrize("name", LIBRARIES)
def test_parameters_are_floating_arrays_found_by_the_names_of_layers(name: str) -> None:
    model = made(name)
    params = model.init(jax.random.key(0))
    assert {key: sorted(leaf.shape for leaf in layer.values()) for key, layer in params.items()} == {
        "body": [(3,), (3, 2)] if name == "equinox" else [(2, 3), (3,)],
        "head": [(1,), (1, 3)] if name == "equinox" else [(1,), (3, 1)],
        "norm": [(3,), (3,)],
    }
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    other = model.init(jax.random.key(1))
    assert (arrays(params)[0] != arrays(other)[0]).any()
    adapted = GradientDescent(1, adapt_only=("head",))(problem_of(model), params, batch(6))
    for layer, moves in (("body", False), ("norm", False), ("head", True)):
        same = [bool((a == b).all()) for a, b in zip(adapted[layer].values(), params[layer].values(), strict=True)]
        assert all(same) is not moves, layer


@pytest.mark.parametrize("name", LIBRARIES)
def test_models_of_equal_modules_are_equal(name: str) -> None:
    model = made(name)
    assert model == MAKE[name]()
    assert hash(model) == hash(MAKE[name]())
    assert model != MAKE[name](width=4)
    assert model != "model"
    travelled = pickle.loads(pickle.dumps(model))
    assert travelled == model
    data, params = batch(4), model.init(jax.random.key(0))
    np.testing.assert_array_equal(
        travelled.apply(params, data.inputs, data.weights), model.apply(params, data.inputs, data.weights)
    )


class LinenPair(nn.Module):
    @nn.compact
    def __call__(self, inputs: Any) -> Any:
        return nn.Dense(1)(jnp.concatenate([inputs["a"], inputs["b"]], axis=-1))


class NNXPair(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.Linear(5, 1, rngs=rngs)])

    def __call__(self, inputs: Any) -> Any:
        return self.layers[0](jnp.concatenate([inputs["a"], inputs["b"]], axis=-1))


class EquinoxPair(eqx.Module):
    layers: list[eqx.nn.Linear]

    def __init__(self, *, key: Any) -> None:
        self.layers = [eqx.nn.Linear(5, 1, key=key)]

    def __call__(self, inputs: Any) -> Any:
        return self.layers[0](jnp.concatenate([inputs["a"], inputs["b"]]))


@pytest.mark.parametrize("name", LIBRARIES)
def test_inputs_may_be_a_dict_and_bytes_are_images(name: str) -> None:
    random = np.random.default_rng(0)
    inputs: dict[str, Any] = {
        "a": random.normal(size=(6, 2)).astype(np.float32),
        "b": random.integers(0, 256, (6, 3)).astype(np.uint8),
    }
    makers: dict[str, Callable[[], Any]] = {
        "linen": lambda: from_flax_linen(LinenPair(), inputs),
        "nnx": lambda: from_flax_nnx(NNXPair),
        "equinox": lambda: from_equinox(EquinoxPair),
    }
    model = makers[name]()
    params = model.init(jax.random.key(0))
    (layer,) = params.get("layers", params).values()
    kernel = layer["kernel"] if "kernel" in layer else layer["weight"].T
    joined = np.concatenate([inputs["a"], inputs["b"] / 255], axis=1)
    outputs = model.apply(params, inputs, np.ones(6, np.float32), jax.random.key(0), training=True)
    np.testing.assert_allclose(outputs, joined @ kernel + layer["bias"], atol=1e-5)
    task = Task(Batch.of(inputs, joined[:, :1].astype(np.float32)), None)
    learner = FTML(GradientDescent(1, 0.01), meta_steps=1, meta_batch=2, train_size=2, validation_size=2)
    records = list(play(problem_of(model), [task], learner, OnlineProtocol(chunk=3)))
    assert [record.loss is not None for record in records] == [True, True]


class LinenImages(nn.Module):
    """Batch normalisation of images, told nothing, and of all places of an image as so many rows."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.BatchNorm(name="images")(x, False)
        rows = nn.BatchNorm(name="rows")(x.reshape(-1, x.shape[-1]) ** 3, use_running_average=True)
        return rows.reshape(len(x), -1)


class NNXImages(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.images, self.rows = nnx.BatchNorm(3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.images(x)
        return self.rows(x.reshape(-1, x.shape[-1]) ** 3).reshape(len(x), -1)


class EquinoxImages(eqx.Module):
    images: eqx.nn.BatchNorm
    rows: eqx.nn.BatchNorm

    def __init__(self, key: Any) -> None:
        self.images, self.rows = (eqx.nn.BatchNorm(3, "examples", mode="batch") for _ in range(2))

    def __call__(self, x: Any, state: Any) -> Any:
        x, state = self.images(jnp.moveaxis(x, -1, 0), state)
        x, state = self.rows(x**3, state)
        return jnp.moveaxis(x, 0, -1).reshape(-1), state


@pytest.mark.parametrize("name", LIBRARIES)
def test_layers_one_after_another_and_places_of_images(name: str) -> None:
    random = np.random.default_rng(0)
    x = random.exponential(size=(5, 2, 4, 3)).astype(np.float32)
    makers: dict[str, Callable[[], Any]] = {
        "linen": lambda: from_flax_linen(LinenImages(), x),
        "nnx": lambda: from_flax_nnx(NNXImages),
        "equinox": lambda: from_equinox(EquinoxImages),
    }
    model = makers[name]()
    params = model.init(jax.random.key(0))

    def normalised(values: np.ndarray) -> np.ndarray:
        real = values[:3]
        return (values - real.mean((0, 1, 2))) / np.sqrt(real.var((0, 1, 2)) + EPSILON)

    expected = normalised(normalised(x.astype(np.float64)) ** 3).reshape(5, -1)
    weights = np.array([1, 2, 1, 0, 0], np.float32)
    np.testing.assert_allclose(model.apply(params, x, weights, training=True)[:3], expected[:3], atol=1e-3)
    calibrated = model.calibrate(params, Batch(x, x, weights))
    np.testing.assert_allclose(model.apply(calibrated, x, np.ones(5, np.float32)), expected, atol=1e-3)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.BatchNorm(use_bias=False, use_scale=False)(x, use_running_average=False)


@pytest.mark.parametrize("lifted", [nn.remat, nn.jit])
def test_linen_layers_within_transformations(lifted: Any) -> None:
    class Lifted(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return lifted(Block)()(x)

    model, data = from_flax_linen(Lifted(), EXAMPLE), batch(6)
    weights = np.array([1, 1, 1, 1, 0, 0], np.float32)
    mean, variance = data.inputs[:4].mean(0), data.inputs[:4].var(0)
    expected = (data.inputs - mean) / np.sqrt(variance + EPSILON)
    np.testing.assert_allclose(model.apply({}, data.inputs, weights, training=True), expected, atol=1e-5)
    calibrated = model.calibrate({}, Batch(data.inputs, data.targets, weights))
    np.testing.assert_allclose(model.apply(calibrated, data.inputs, data.weights), expected, atol=1e-5)
    np.testing.assert_allclose(model.apply({}, data.inputs, data.weights), data.inputs, atol=1e-4)


def test_linen_is_refused_where_rows_are_not_of_examples() -> None:
    class Sum(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.BatchNorm()(x.T, use_running_average=True).T

    model = from_flax_linen(Sum(), EXAMPLE)
    with pytest.raises(ValueError, match=r"batch normalisation of 5 examples got an array of shape \(2, 5\)"):
        model.apply(model.init(jax.random.key(0)), batch(5).inputs, np.ones(5, np.float32), training=True)


def test_linen_statistics_taken_by_hand_are_refused_with_the_remedy() -> None:
    class Centred(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.Dense(1)(x - x.mean(0))

    with pytest.raises(ValueError, match="statistics over a batch must leave out padding"):
        next(play(problem_of(from_flax_linen(Centred(), EXAMPLE)), stream(), FTML()))


def test_linen_heeds_a_mask_of_the_module_too() -> None:
    class Masked(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.BatchNorm(use_bias=False, use_scale=False)(x, mask=x < 1)

    model, data = from_flax_linen(Masked(), EXAMPLE), batch(9)
    weights = np.array([1] * 6 + [0] * 3, np.float32)
    statistics = model.calibrate(model.init(jax.random.key(0)), Batch(data.inputs, data.targets, weights)).statistics
    below = [column[:6][column[:6] < 1] for column in data.inputs.T]
    np.testing.assert_allclose(statistics[0], [column.mean() for column in below], rtol=1e-5)
    np.testing.assert_allclose(statistics[1], [column.var() for column in below], rtol=1e-5)


def test_linen_variables_of_the_module_are_left_as_they_are() -> None:
    module = Linen()
    model = from_flax_linen(module, EXAMPLE)
    params, data = model.init(jax.random.key(0)), batch(5)
    model.apply(params, data.inputs, data.weights, training=True)
    variables = module.init(jax.random.key(0), EXAMPLE)
    by_flax, after = module.apply(variables, data.inputs, True, mutable=["batch_stats"])
    np.testing.assert_allclose(by_flax, model.apply(variables["params"], data.inputs, data.weights, training=True))
    rows = hidden(variables["params"], data.inputs)
    np.testing.assert_allclose(after["batch_stats"]["norm"]["mean"], 0.01 * rows.mean(0), rtol=1e-4)  # its momentum


def test_a_module_given_as_it_is_begins_every_run() -> None:
    nets: dict[str, Any] = {
        "nnx": NNX(rngs=nnx.Rngs(7)),
        "equinox": Equinox(key=jax.random.key(7)),
        "a pair": eqx.nn.make_with_state(Equinox)(key=jax.random.key(7)),
    }
    for name, net in nets.items():
        model = (from_flax_nnx if name == "nnx" else from_equinox)(net)
        first, second = model.init(jax.random.key(0)), model.init(jax.random.key(1))
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
            np.testing.assert_array_equal(a, b)
        drawn = net[0] if isinstance(net, tuple) else net
        kernel = drawn.body.kernel[...] if isinstance(drawn, NNX) else drawn.body.weight.T
        np.testing.assert_array_equal(arrays(first)[0], kernel)
        assert model == model
        records = play(problem_of(model), stream(1), FTML(GradientDescent(1), 1, 2, 4, 4), OnlineProtocol(chunk=12))
        assert [record.loss is not None for record in records] == [True]


def test_a_copy_is_kept_of_an_nnx_module() -> None:
    net = NNX(rngs=nnx.Rngs(0))
    model = from_flax_nnx(net)
    before = model.init(jax.random.key(0))["body"]["kernel"]
    net.body.kernel[...] = jnp.zeros((2, 3))
    np.testing.assert_array_equal(model.init(jax.random.key(3))["body"]["kernel"], before)
    assert np.abs(before).max() > 0


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_equinox_predicts_by_the_running_statistics_that_a_trained_module_has(mode: Any) -> None:
    net, state = eqx.nn.make_with_state(functools.partial(Equinox, mode=mode))(key=jax.random.key(0))
    data = batch(8)
    for _ in range(3):
        call = jax.vmap(net, axis_name="examples", in_axes=(0, None), out_axes=(0, None))
        _, state = call(data.inputs, state)
    expected, _ = jax.vmap(eqx.nn.inference_mode(net), axis_name="examples", in_axes=(0, None), out_axes=(0, None))(
        data.inputs, state
    )
    model = from_equinox((net, state))
    params = model.init(jax.random.key(0))
    np.testing.assert_allclose(model.apply(params, data.inputs, data.weights), expected, atol=1e-6)
    rows = hidden(params, data.inputs)
    calibrated = model.calibrate(params, data)
    outputs = model.apply(calibrated, data.inputs, data.weights)
    np.testing.assert_allclose(outputs, by_hand(params, data.inputs, rows.mean(0), rows.var(0)), atol=1e-4)
    jax.tree.leaves(state)  # the state that was given can still be used


def test_equinox_sequential_and_nets_without_state() -> None:
    def layers(key: Any) -> eqx.nn.Sequential:
        parts: list[Any] = [
            eqx.nn.Linear(2, 4, key=key),
            eqx.nn.BatchNorm(4, ("examples",), mode="batch"),
            eqx.nn.Dropout(0.5),
        ]
        return eqx.nn.Sequential([*parts, eqx.nn.Linear(4, 1, key=key)])

    def mlp(key: Any) -> eqx.nn.MLP:
        return eqx.nn.MLP(2, 1, 4, 1, key=key)

    for make in (layers, mlp):
        model, data = from_equinox(make), batch(5)
        params = model.init(jax.random.key(0))
        outputs = model.apply(params, data.inputs, data.weights, jax.random.key(1), training=True)
        padded = pad(data, 7)
        again = model.apply(params, padded.inputs, padded.weights, jax.random.key(1), training=True)
        assert outputs.shape == (5, 1)
        np.testing.assert_allclose(again[:5], outputs, atol=1e-5)
    np.testing.assert_allclose(outputs, jax.vmap(mlp(jax.random.key(0)))(data.inputs), atol=1e-6)


def test_equinox_layers_of_two_axis_names_are_refused() -> None:
    def layers(key: Any) -> eqx.nn.Sequential:
        return eqx.nn.Sequential([eqx.nn.BatchNorm(2, name, mode="batch") for name in ("a", "b")])

    with pytest.raises(UserError, match="must have one axis name in all layers, got"):
        from_equinox(layers)


@pytest.mark.parametrize("library", ["flax", "equinox"])
def test_a_library_that_is_missing_is_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flax.linen", "flax.nnx", "equinox"):
        monkeypatch.setitem(sys.modules, name, None)
    for function, arguments in ((from_flax_linen, (None, EXAMPLE)), (from_flax_nnx, (None,)), (from_equinox, (None,))):
        if library in function.__name__:
            with pytest.raises(UserError, match=rf"needs {library}.*pip install 'metaleader\[{library}\]'"):
                function(*arguments)


def test_importing_the_package_needs_neither_library() -> None:
    watched = "import sys; import metaleader; metaleader.from_equinox; metaleader.FTML; metaleader.play\n"
    code = f"{watched}assert not {{'flax', 'equinox'}} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / "examples" / "own_model.py"
    assert len(path.read_text().splitlines()) < 40
    runpy.run_path(str(path), run_name="__main__")
    shown = capsys.readouterr().out
    assert "accuracy" in shown
    assert "nan" not in shown.lower()
