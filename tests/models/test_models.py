"""Layers against independent implementations, and the two modes of batch normalisation."""

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from metaleader import MLP, Batch, ConvNet, CrossEntropy, GradientDescent, Problem, accuracy, adapt
from metaleader.models import Shifted, layers
from metaleader.models.shifted import shifted
from problems import images


@settings(max_examples=15)
@given(st.integers(3, 9), st.integers(3, 9), st.sampled_from([3, 5]), st.integers(1, 4), st.integers(0, 99))
def test_patches_times_a_matrix_is_a_convolution(height: int, width: int, size: int, stride: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, kernel = random.normal(size=(2, height, width, 2)), random.normal(size=(size, size, 2, 4))
    expected = jax.lax.conv_general_dilated(
        jnp.asarray(x), jnp.asarray(kernel), (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    inputs, matrix = jnp.asarray(x), jnp.asarray(kernel.reshape(-1, 4))
    for got in (
        layers.patches(inputs, size, stride) @ matrix,
        layers.convolved(inputs, matrix, size, stride),
        layers.convolved_by_rows(inputs, matrix, size, stride),
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("channels", "filters", "many"), [(2, 4, False), (1, 20, False), (4, 4, False), (2, 4, True)])
def test_normalised_convolutions_are_those_of_numpy(
    channels: int, filters: int, many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moments of the product, or of its narrow factor; with few filters by rows, of many images part by part. Padding
    takes no part in them."""
    if many:
        monkeypatch.setattr(layers, "PATCHES", 0)
        monkeypatch.setattr(layers, "CHANNELS", 1)
    random = np.random.default_rng(0)
    x = random.normal(3, 2, size=(6, 5, 5, channels)).astype(np.float32)
    kernel = random.normal(size=(9 * channels, filters)).astype(np.float32)
    y = np.asarray(layers.patches(jnp.asarray(x[:4]))) @ kernel
    scale, offset = np.arange(1.0, filters + 1), np.linspace(-1, 1, filters)
    expected = np.maximum(scale * (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + 1e-3) + offset, 0)
    layer = {"kernel": kernel, "scale": scale, "offset": offset}
    weights = np.array([1, 1, 1, 1, 0, 0], np.float32)
    maps, used = layers.normalised_convolutions([layer], x, weights, 3, 1)
    np.testing.assert_allclose(maps[:4], expected, rtol=1e-3, atol=1e-3)
    again, _ = layers.normalised_convolutions(used, x[:1], weights[:1], 3, 1)
    np.testing.assert_allclose(again[0], expected[0], rtol=1e-3, atol=1e-3)


def predict(norm: Any, companions: Batch) -> Any:
    """Logits of one image, predicted in the company of others."""
    problem = Problem(ConvNet(depth=2, filters=4, image=(16, 16, 3), norm=norm), CrossEntropy(), accuracy)
    params = adapt(problem, GradientDescent(), problem.net.init(jax.random.key(0)), images(10, 1))
    inputs = np.concatenate([images(1, 2).inputs, companions.inputs])
    return problem.net.apply(params, inputs, np.ones(len(inputs), np.float32))[0]


def test_with_task_statistics_an_example_is_predicted_independently_of_its_companions() -> None:
    np.testing.assert_allclose(predict("task", images(1, 3)), predict("task", images(9, 4)), rtol=1e-4, atol=1e-5)


def test_with_batch_statistics_companions_matter() -> None:
    assert np.abs(predict("batch", images(1, 3)) - predict("batch", images(9, 4))).max() > 1e-2


def test_task_statistics_are_those_of_the_data_adapted_to() -> None:
    net = ConvNet(depth=2, filters=4, image=(16, 16, 3), norm="task")
    params, batch = net.init(jax.random.key(0)), images(10, 1)
    np.testing.assert_allclose(
        net.apply(net.calibrate(params, batch), batch.inputs, batch.weights),
        net.apply(params, batch.inputs, batch.weights),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize(("depth", "features"), [(4, 2 * 2 * 32), (5, 32)])
def test_the_paper_s_net_on_28_pixels(depth: int, features: int) -> None:
    params = ConvNet(depth=depth).init(jax.random.key(0))
    assert [layer["kernel"].shape for layer in params["conv"]] == [(27, 32)] + [(288, 32)] * (depth - 1)
    assert params["head"]["kernel"].shape == (features, 10)


def test_8_bit_images_are_scaled_and_numbers_are_not() -> None:
    np.testing.assert_allclose(layers.as_float(np.array([0, 255], np.uint8)), [0, 1])
    for kind in (np.float32, np.int16):
        np.testing.assert_allclose(layers.as_float(np.array([0, 255], kind)), [0, 255])
    np.testing.assert_allclose(layers.as_float(np.array([False, True])), [0, 1])


def test_an_mlp_is_what_numpy_computes() -> None:
    net = MLP(inputs=2, outputs=3, width=4, depth=1)
    params = jax.tree.map(lambda leaf: leaf + 0.1, net.init(jax.random.key(0)))
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    (hidden,) = params["hidden"]
    expected = np.maximum(x @ hidden["kernel"] + hidden["bias"], 0) @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(net.apply(params, x, np.ones(5, np.float32)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [lambda: ConvNet(depth=0), lambda: ConvNet(filters=0), lambda: MLP(width=0)])
def test_impossible_sizes_are_refused(build: Any) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        build()


def test_images_of_another_size_are_refused() -> None:
    net = ConvNet()
    with pytest.raises(ValueError, match=r"inputs have shape \(16, 16, 3\) an example, the net expects \(28, 28, 3\)"):
        net.apply(net.init(jax.random.key(0)), images(2).inputs, np.ones(2, np.float32))


def test_shifted_images_are_moved_by_chance_and_their_border_repeated() -> None:
    batch = images(40, 0)
    moved = np.asarray(shifted(jax.random.key(1), batch.inputs, 2))
    found = set()
    for image, got in zip(np.asarray(batch.inputs), moved, strict=True):
        wide = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
        size, _, _ = image.shape
        found |= {(i, j) for i in range(5) for j in range(5) if (wide[i : i + size, j : j + size] == got).all()}
    assert len(found) > 12
    assert {i for i, _ in found} == {j for _, j in found} == set(range(5))


def test_a_shifted_net_is_the_net_wherever_it_does_not_train() -> None:
    net, batch = ConvNet(depth=2, filters=4, image=(16, 16, 3), norm="task"), images(10, 1)
    plain, moving = (Problem(model, CrossEntropy(), accuracy) for model in (net, Shifted(net, 1)))
    params = moving.net.calibrate(moving.init(jax.random.key(0)), batch)
    np.testing.assert_array_equal(moving.predict(params, batch.inputs), plain.predict(params, batch.inputs))
    fresh = plain.init(jax.random.key(0))
    losses = {float(moving.objective(fresh, replace(batch, key=jax.random.key(seed)))) for seed in range(3)}
    assert len(losses) == 3
    assert float(moving.objective(fresh, batch)) == float(plain.objective(fresh, batch)) not in losses


def test_shifted_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="pixels must be at least 1, got 0"):
        Shifted(ConvNet(), 0)
    with pytest.raises(ValueError, match="Shifted takes a random key itself"):
        Shifted(Shifted(ConvNet()), 1)


def test_an_empty_batch_calibrates_by_what_it_was_filled_up_with() -> None:
    """Statistics of zero would make numbers 30 times as large in every layer."""
    net = ConvNet(depth=3, filters=4, image=(16, 16, 3), norm="task")
    params, batch = net.init(jax.random.key(0)), images(6)
    empty = Batch(batch.inputs, batch.targets, np.zeros(6, np.float32))
    for by_empty, by_all in zip(*(jax.tree.leaves(net.calibrate(params, b)) for b in (empty, batch)), strict=True):
        np.testing.assert_array_equal(by_empty, by_all)
