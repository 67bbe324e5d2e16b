"""Padding: a padded batch gives what the unpadded one gives, in losses, statistics, gradients, adaptation."""

from functools import partial
from typing import Any

import hypothesis.strategies as st
import jax
import ml_dtypes
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from metaleader import Batch, ConvNet, CrossEntropy, GradientDescent, Problem, Score, accuracy, adapt
from metaleader.problem.batch import bucket_size, pad
from metaleader.problem.losses import weighted_mean
from problems import DIGITS, images


@given(st.integers(1, 5000))
def test_bucket_sizes_are_few_and_close(n: int) -> None:
    size = bucket_size(n)
    assert n <= size
    assert size < 2 * n if n <= 128 else size <= n + n // 8
    assert bucket_size(size) == size


def test_a_growing_set_meets_few_sizes() -> None:
    assert len({bucket_size(n) for n in range(1, 1025)}) <= 32


@partial(jax.jit, static_argnums=0)
def everything(problem: Problem, params: Any, batch: Batch) -> dict[str, Any]:
    return {
        "loss": problem.objective(params, batch),
        "gradient": jax.grad(problem.objective)(params, batch),
        "statistics": problem.net.calibrate(params, batch),
        "adapted": adapt(problem, GradientDescent(steps=2), params, batch),
    }


@pytest.mark.parametrize("norm", ["batch", "task"])
@settings(max_examples=12)
@given(n=st.sampled_from([2, 7]), extra=st.sampled_from([1, 4]), seed=st.integers(0, 99))
def test_padded_equals_unpadded(norm: Any, n: int, extra: int, seed: int) -> None:
    problem = Problem(ConvNet(depth=2, filters=4, image=(16, 16, 3), norm=norm), CrossEntropy(), accuracy)
    batch, params = images(n, seed), problem.net.init(jax.random.key(seed))
    padded = pad(batch, n + extra)
    # What stands in the padding must not matter, not only zeros.
    noise = images(n + extra, seed + 1)
    keep = padded.weights > 0
    padded = Batch(
        np.where(keep[:, None, None, None], padded.inputs, noise.inputs),
        np.where(keep, padded.targets, noise.targets),
        padded.weights,
    )
    for got, expected in zip(
        jax.tree.leaves(everything(problem, params, padded)),
        jax.tree.leaves(everything(problem, params, batch)),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-5)


@settings(max_examples=12)
@given(n=st.sampled_from([1, 2, 7]), extra=st.sampled_from([1, 4]), seed=st.integers(0, 99))
def test_a_padded_batch_is_judged_as_the_unpadded_one(n: int, extra: int, seed: int) -> None:
    """By scores an example and by scores of the whole set, whatever is predicted for the padding."""
    whole = Score(
        "worst", lambda outputs, labels: float(np.max(np.abs(outputs[np.arange(len(labels)), labels]))), False, True
    )
    problem = Problem(None, CrossEntropy(), (accuracy, whole))
    random = np.random.default_rng(seed)
    logits, batch = random.normal(size=(n + extra, 10)).astype(np.float32), images(n, seed)
    logits[n:] *= 100
    padded = pad(batch, n + extra)
    loss, scores = problem.judge(logits, padded)
    expected_loss, expected = problem.judge(logits[:n], batch)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert scores == pytest.approx(expected, rel=1e-5)
    assert expected["accuracy"] == pytest.approx(np.mean(logits[:n].argmax(axis=1) == batch.targets))


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(0, 5)), min_size=1, max_size=9))
def test_weighted_mean(pairs: list[tuple[float, float]]) -> None:
    values, weights = (np.array(column, np.float32) for column in zip(*pairs, strict=True))
    expected = np.average(values, weights=weights) if weights.sum() > 1e-6 else None
    if expected is not None:
        np.testing.assert_allclose(weighted_mean(values, weights), expected, rtol=1e-3, atol=1e-4)


def test_a_batch_without_weight_has_loss_zero_and_gradient_zero() -> None:
    batch = images(3)
    empty = Batch(batch.inputs, batch.targets, np.zeros(3, np.float32))
    params = DIGITS.net.init(jax.random.key(0))
    loss, gradient = jax.value_and_grad(DIGITS.objective)(params, empty)
    assert loss == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


ONES = np.ones((2, 1), np.float32)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.ones((3, 2)), r"got shapes \(3, 2\) and \(2, 1\)"),
        (np.ones((0, 2)), "at least one"),
        ({}, "as many inputs as targets"),
        (np.ones((2, 0)), r"an example needs a number in every array, got shapes \(2, 0\)"),
        ([[1.0], [2.0]], r"inputs\[0\]\[0\] is a single float: .* a list .* make it one by np\.array"),
        ([[1.0], [2.0, 3.0]], r"a list .* make it one by np\.array"),
        (np.array([[1.0], [np.nan]]), "inputs must be finite: example 1 holds nan"),
        (np.array([[1.0], [np.inf]], ml_dtypes.bfloat16), "inputs must be finite: example 1 holds inf"),
        ({"x": np.array([[1.0], [np.nan]], np.float16)}, r"inputs\['x'\] must be finite: example 1"),
        (np.array([[1.0], [1e39]]), r"inputs are float32 in JAX, .*: example 1 holds 1e\+39; scale them"),
        (np.array([[1], [2**31]]), "inputs are int32 in JAX, .*: example 1 holds 2147483648"),
        (np.array([[1], [2**63]], np.uint64), "inputs are uint32 in JAX"),
        (np.array([[1.0], [np.nan]], object), r"got object: .* np\.asarray\(values, np\.float32\)"),
        (np.array(["a", "b"]), "got <U1: encode text as numbers"),
        (np.array([b"a", b"b"]), "encode text as numbers"),
        (np.array(["2020-01-01", "2020-01-02"], "datetime64[D]"), "give a time as a number"),
        (np.array([1, 2], "timedelta64[s]"), "give a duration as a number"),
        (np.ones((2, 1), complex), "give real and imaginary parts"),
        (np.zeros(2, [("a", "f4"), ("b", "i4")]), "give every field as an array of its own"),
        (np.ma.array(ONES, mask=[[False], [True]]), r"are masked in places, .* \.filled\(value\)"),
        (scipy.sparse.eye_array(2).tocsr(), r"are sparse, of type csr_array: make them dense by \.toarray\(\)"),
        (jax.random.split(jax.random.key(0)), "no array of numbers"),
    ],
)
def test_what_is_no_finite_number_is_refused(inputs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Batch.of(inputs, ONES)
    if message.startswith("inputs"):
        with pytest.raises(ValueError, match=message.replace("inputs", "targets", 1)):
            Batch.of(ONES, inputs)


@pytest.mark.parametrize("weights", [[1, -1], [0, 0], [1, np.nan], ["1", "1"], [1j, 1], [1, 1e39], [[1], [1]], [1]])
def test_impossible_weights_are_refused(weights: Any) -> None:
    with pytest.raises(ValueError, match="weights"):
        Batch.of(ONES, ONES, weights)


def test_large_numbers_are_taken_where_jax_has_64_bits() -> None:
    with jax.enable_x64(True):
        assert Batch.of(np.array([[1.0], [1e300]]), np.array([[1], [2**40]])).targets[1] == 2**40


@given(
    arrays(
        st.sampled_from([np.bool_, np.uint8, np.int8, np.int32, np.int64, np.float16, np.float32, np.float64]),
        st.tuples(st.integers(1, 9), st.integers(1, 3)),
        elements={"min_value": 0, "max_value": 100},
    )
)
def test_numbers_are_taken_as_they_are(values: np.ndarray) -> None:
    batch = Batch.of(values, {"same": values.astype(ml_dtypes.bfloat16)})
    np.testing.assert_array_equal(batch.inputs, values)
    assert (batch.inputs.dtype, batch.targets["same"].dtype) == (values.dtype, ml_dtypes.bfloat16)
    np.testing.assert_array_equal(batch.weights, np.ones(len(values), np.float32))


def test_frames_and_masked_arrays_without_a_mask_are_arrays() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": [3, 4]})
    np.testing.assert_array_equal(Batch.of(frame, frame["b"]).inputs, [[1, 3], [2, 4]])
    with pytest.raises(ValueError, match="got object"):
        Batch.of(pandas.DataFrame({"a": ["x", "y"]}), frame["b"])
    assert type(Batch.of(np.ma.array(ONES), ONES).inputs) is np.ndarray


@settings(max_examples=30)
@given(
    arrays(
        st.sampled_from([np.bool_, np.uint8, np.int32, np.float16, np.float32, np.float64]),
        st.tuples(st.integers(1, 30), st.integers(1, 3)),
        elements={"min_value": 0, "max_value": 100},
    ),
    st.integers(0, 9),
)
def test_padding_leaves_examples_as_they_are_and_repeats_the_last(values: np.ndarray, extra: int) -> None:
    weights = np.arange(1, len(values) + 1)
    padded = pad(Batch.of({"x": values}, values[:, 0], weights), len(values) + extra)
    np.testing.assert_array_equal(padded.inputs["x"], np.concatenate([values, np.repeat(values[-1:], extra, 0)]))
    np.testing.assert_array_equal(padded.targets, padded.inputs["x"][:, 0])
    np.testing.assert_array_equal(padded.weights, [*weights, *[0] * extra])
    assert (padded.inputs["x"].dtype, len(padded)) == (values.dtype, len(values) + extra)


def test_padding_to_less_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot pad 3 examples to 2"):
        pad(images(3), 2)
