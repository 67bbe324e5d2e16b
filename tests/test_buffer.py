"""The task buffer keeps everything; sampling is what it says."""

from collections import Counter

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from metaleader import Batch, Recency
from metaleader.buffer import store as buffers
from problems import points

distinct = jax.jit(buffers.sample_distinct, static_argnums=2)
split = jax.jit(buffers.sample_split, static_argnums=(3, 4))


@settings(max_examples=15)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=6))
def test_the_buffer_holds_what_was_appended_and_grows(tasks: list[list[int]]) -> None:
    buffer = buffers.empty(points(1), capacity=4, task_capacity=2)
    kept = []
    for task, chunks in enumerate(tasks):
        for i, n in enumerate(chunks):
            batch = points(n, seed=100 * task + i)
            kept.append((task, batch))
            buffer = buffers.append(buffer, task, batch)
    assert buffer.size == sum(len(batch) for _, batch in kept)
    assert int(buffer.tasks) == len(tasks)
    np.testing.assert_array_equal(buffer.inputs[: buffer.size], np.concatenate([b.inputs for _, b in kept]))
    np.testing.assert_array_equal(buffer.targets[: buffer.size], np.concatenate([b.targets for _, b in kept]))
    for task, chunks in enumerate(tasks):
        assert buffer.counts[task] == sum(chunks)
        assert buffer.starts[task] == sum(map(sum, tasks[:task]))


def test_only_the_newest_task_or_the_next_takes_data() -> None:
    buffer = buffers.append(buffers.empty(points(1)), 0, points(3))
    with pytest.raises(ValueError, match=r"task 2 cannot take data: expected 0 \(the newest\) or 1 \(the next\)"):
        buffers.append(buffer, 2, points(3))


def test_data_of_another_shape_is_refused() -> None:
    buffer = buffers.empty(points(1))
    with pytest.raises(ValueError, match=r"inputs are float32 of shape \(2,\)"):
        buffers.append(buffer, 0, Batch.of(np.ones((3, 2), np.float32), np.ones((3, 1), np.float32)))


@settings(max_examples=30)
@given(count=st.integers(0, 40), n=st.sampled_from([1, 7, 25]), seed=st.integers(0, 999))
def test_distinct_numbers_are_distinct_and_below_the_count(count: int, n: int, seed: int) -> None:
    numbers, weights = distinct(jax.random.key(seed), jnp.int32(count), n)
    drawn = np.asarray(numbers)[np.asarray(weights) > 0]
    assert len(drawn) == min(n, count)
    assert len(set(drawn.tolist())) == len(drawn)
    assert all(0 <= number < count for number in drawn)


def test_every_arrangement_is_equally_likely() -> None:
    keys = jax.random.split(jax.random.key(0), 12_000)
    drawn = jax.vmap(lambda key: buffers.sample_distinct(key, jnp.int32(4), 2)[0])(keys)
    counts = Counter(map(tuple, np.asarray(drawn).tolist()))
    assert len(counts) == 12
    expected = 1000
    chi_squared = sum((seen - expected) ** 2 / expected for seen in counts.values())
    assert chi_squared < 31.3  # 0.999 quantile with 11 degrees of freedom; the key is fixed


@settings(max_examples=30)
@given(count=st.integers(0, 30), sizes=st.sampled_from([(1, 1), (3, 3), (2, 7)]), seed=st.integers(0, 99))
def test_train_and_validation_are_disjoint(count: int, sizes: tuple[int, int], seed: int) -> None:
    counts, (train, validation) = jnp.array([5, count], jnp.int32), sizes
    (a, a_weights), (b, b_weights) = split(jax.random.key(seed), counts, jnp.int32(1), train, validation)
    assert (len(a), len(b)) == (train, validation)
    left, right = (set(np.asarray(x)[np.asarray(w) > 0].tolist()) for x, w in ((a, a_weights), (b, b_weights)))
    assert not left & right
    assert len(left) + len(right) == min(count, train + validation)
    if count >= 2 and train == validation:
        assert abs(len(left) - len(right)) <= 1  # a scarce task fills both in proportion


def test_sampling_is_uniform_over_tasks_with_data() -> None:
    counts = jnp.array([3, 0, 1, 7, 0, 0], jnp.int32)
    weights = buffers.sampling_weights(Recency(), counts, jnp.int32(4))
    np.testing.assert_allclose(weights, [1, 0, 1, 1, 0, 0])
    drawn = Counter(np.asarray(buffers.sample_index(jax.random.key(0), weights, (9000,))).tolist())
    assert set(drawn) == {0, 2, 3}
    assert all(abs(n - 3000) < 200 for n in drawn.values())


def test_recency_halves_with_every_half_life() -> None:
    weights = buffers.sampling_weights(Recency(2.0), jnp.ones(5, jnp.int32), jnp.int32(5))
    np.testing.assert_allclose(weights, 2.0 ** (-np.array([4, 3, 2, 1, 0]) / 2), rtol=1e-6)


def test_any_function_of_the_ages_serves() -> None:
    weights = buffers.sampling_weights(
        lambda ages: (ages == 1).astype(jnp.float32), jnp.ones(4, jnp.int32), jnp.int32(3)
    )
    assert set(np.asarray(buffers.sample_index(jax.random.key(1), weights, (50,))).tolist()) == {1}


@settings(max_examples=20)
@given(st.lists(st.sampled_from([0.0, 0.1, 3.0]), min_size=1, max_size=8).filter(any), st.integers(0, 99))
def test_an_index_of_weight_zero_is_never_drawn(weights: list[float], seed: int) -> None:
    drawn = buffers.sample_index(jax.random.key(seed), jnp.array(weights), (200,))
    assert all(weights[i] > 0 for i in np.asarray(drawn))
