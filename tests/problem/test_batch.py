"""Padding: a padded batch gives what the unpadded one gives, in losses, statistics, gradients, adaptation."""

from functools import partial
from typing import Any

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given, settings

from metaleader import Batch, ConvNet, CrossEntropy, GradientDescent, Problem, Score, accuracy, adapt
from metaleader.problem.batch import bucket_size, pad
from metaleader.problem.losses import weighted_mean
from problems import DIGITS, images


@given(st.integers(1, 5000))
def test_bucket_sizes_are_few_and_close(n: int) -> None:
    size = bucket_size(n)
    assert n <= size <= n + max(n // 8, 0)
    assert bucket_size(size) == size


def test_a_growing_set_meets_few_sizes() -> None:
    assert len({bucket_size(n) for n in range(1, 1025)}) <= 64


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


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (np.ones((3, 2)), np.ones(2), r"got shapes \(3, 2\) and \(2,\)"),
        (np.ones((0, 2)), np.ones(0), "at least one"),
        (np.array([[1.0], [np.nan]]), np.ones(2), "inputs must be finite: example 1 holds nan"),
        (np.ones((2, 1)), np.array([1.0, np.inf]), "targets must be finite: example 1 holds inf"),
    ],
)
def test_bad_examples_are_refused(inputs: Any, targets: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Batch.of(inputs, targets)


def test_padding_to_less_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot pad 3 examples to 2"):
        pad(images(3), 2)
