"""The task buffer keeps what its retention says, of tasks that interleave and return; sampling is what it says."""

from collections import Counter
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from metaleader import Batch, Recency, Retention
from metaleader.buffer import sampling, store
from metaleader.buffer.store import TaskBuffer
from problems import points


def numbered(first: int, n: int) -> Batch:
    """Datapoints that say which they are."""
    values = (first + np.arange(n, dtype=np.float32))[:, None]
    return Batch.of(values, -values)


distinct = jax.jit(sampling.sample_distinct, static_argnums=2)
split = jax.jit(sampling.sample_split, static_argnums=(3, 4))


def held(buffer: TaskBuffer) -> list[list[float]]:
    """The inputs of every row, read as the learners read them."""
    found = []
    for start, count in zip(buffer.starts, buffer.counts, strict=True):
        if count:
            batch = store.held(buffer, np.arange(start, start + count))
            np.testing.assert_array_equal(np.asarray(batch.targets), -np.asarray(batch.inputs))
            found.append(np.asarray(batch.inputs)[:, 0].tolist())
    return found


class Plain:
    """A memory as plain lists: every datapoint with its task and its number of arrival."""

    def __init__(self, retention: Retention) -> None:
        self.retention, self.kept, self.recent, self.total = retention, list[tuple[int | str, int]](), list[Any](), 0

    def append(self, task: int | str, n: int) -> None:
        self.recent = [other for other in self.recent if other != task] + [task]
        self.kept += [(task, self.total + i) for i in range(n)]
        self.total += n
        budget = self.retention.budget or 0
        if self.retention.unit == "tasks":
            newest = self.recent[-budget:]
            self.kept = [datapoint for datapoint in self.kept if datapoint[0] in newest]
        elif self.retention.policy == "last":
            self.kept = sorted(self.kept, key=lambda datapoint: datapoint[1])[-budget:]

    def rows(self) -> list[list[float]]:
        by_task: dict[Any, list[int]] = {}
        for task, number in self.kept:
            by_task.setdefault(task, []).append(number)
        return [sorted(numbers) for numbers in by_task.values()]

    def ages(self) -> dict[Any, int]:
        return {task: age for age, task in enumerate(reversed(self.recent))}


ARRIVALS = st.lists(st.tuples(st.sampled_from([0, 1, 2, "1", "b"]), st.integers(1, 7)), min_size=1, max_size=14)


@pytest.mark.parametrize(
    "retention", [Retention(), Retention("last", 11), Retention("last", 2, "tasks"), Retention("last", 1)], ids=str
)
@settings(max_examples=15)
@given(arrivals=ARRIVALS)
def test_interleaved_and_returning_tasks_are_kept_as_plain_lists_keep_them(
    retention: Retention, arrivals: list[tuple[int | str, int]]
) -> None:
    buffer, plain = retention.empty(numbered(0, 1), jax.random.key(0)), Plain(retention)
    for task, n in arrivals:
        buffer = retention.append(buffer, task, numbered(plain.total, n))
        plain.append(task, n)
        assert sorted(held(buffer)) == sorted(plain.rows())
        assert (buffer.size, int(buffer.total)) == (len(plain.kept), plain.total)
        ages = plain.ages()
        for other, age in ages.items():
            row = buffer.row_of(other)
            assert (row is None) == all(datapoint[0] != other for datapoint in plain.kept)
            if row is not None:
                assert buffer.ages[row] == age
                own = [number for kept, number in plain.kept if kept == other]
                assert held(buffer)[row] == own
        assert buffer.is_current(task)
        assert buffer.past == sum(datapoint[0] != task for datapoint in plain.kept)
    if retention.policy == "all":
        first = list(dict.fromkeys(task for task, _ in arrivals))
        assert [buffer.row_of(task) for task in first] == list(range(len(first)))  # by first arrival


@pytest.mark.parametrize("retention", [Retention("reservoir", 12), Retention("balanced", 12)], ids=str)
@settings(max_examples=15)
@given(arrivals=ARRIVALS)
def test_a_limited_sample_of_interleaved_tasks_is_within_its_budget(
    retention: Retention, arrivals: list[tuple[int | str, int]]
) -> None:
    buffer, sent = retention.empty(numbered(0, 1), jax.random.key(0)), dict[Any, set[float]]()
    for task, n in arrivals:
        total = sum(map(len, sent.values()))
        buffer = retention.append(buffer, task, numbered(total, n))
        sent.setdefault(task, set()).update(range(total, total + n))
        rows = held(buffer)
        assert buffer.size <= 12
        if retention.policy == "reservoir":
            assert buffer.size == min(12, sum(map(len, sent.values())))
        for other, numbers in sent.items():
            if (row := buffer.row_of(other)) is not None:
                assert set(rows[row]) <= numbers
                if retention.policy == "balanced":
                    assert len(rows[row]) <= 12 // buffer.rows


def test_a_buffer_grows_and_an_integer_is_no_string() -> None:
    buffer = Retention().empty(numbered(0, 1), jax.random.key(0))
    for i in range(30):
        buffer = Retention().append(buffer, i % 2, numbered(100 * i, 100))
    assert (buffer.size, buffer.rows) == (3000, 2)
    assert held(buffer)[1] == [100 * i + k for i in range(1, 30, 2) for k in range(100)]
    assert buffer.row_of("1") is None


def test_weights_of_datapoints_are_kept() -> None:
    batch = Batch.of(np.ones((3, 1), np.float32), np.ones((3, 1), np.float32), np.array([1.0, 0.0, 2.0]))
    buffer = Retention().append(Retention().empty(batch, jax.random.key(0)), 0, batch)
    np.testing.assert_array_equal(store.held(buffer, np.arange(3)).weights, [1, 0, 2])


def test_data_of_another_shape_is_refused() -> None:
    buffer = Retention().empty(points(1), jax.random.key(0))
    with pytest.raises(ValueError, match=r"inputs are float32 of shape \(2,\)"):
        Retention().append(buffer, 0, Batch.of(np.ones((3, 2), np.float32), np.ones((3, 1), np.float32)))


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
    drawn = jax.vmap(lambda key: sampling.sample_distinct(key, jnp.int32(4), 2)[0])(keys)
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
    weights = sampling.sampling_weights(Recency(), counts, jnp.arange(6))
    np.testing.assert_allclose(weights, [1, 0, 1, 1, 0, 0])
    drawn = Counter(np.asarray(sampling.sample_rows(jax.random.key(0), weights, (9000,))).tolist())
    assert set(drawn) == {0, 2, 3}
    assert all(abs(n - 3000) < 200 for n in drawn.values())


def test_recency_halves_with_every_half_life() -> None:
    weights = sampling.sampling_weights(Recency(2.0), jnp.ones(5, jnp.int32), jnp.array([4, 3, 2, 1, 0]))
    np.testing.assert_allclose(weights, 2.0 ** (-np.array([4, 3, 2, 1, 0]) / 2), rtol=1e-6)


def test_any_function_of_the_ages_serves() -> None:
    weights = sampling.sampling_weights(
        lambda ages: (ages == 1).astype(jnp.float32), jnp.ones(4, jnp.int32), jnp.array([2, 1, 0, 3])
    )
    assert set(np.asarray(sampling.sample_rows(jax.random.key(1), weights, (50,))).tolist()) == {1}


@settings(max_examples=20)
@given(st.lists(st.sampled_from([0.0, 0.1, 3.0]), min_size=1, max_size=8).filter(any), st.integers(0, 99))
def test_an_index_of_weight_zero_is_never_drawn(weights: list[float], seed: int) -> None:
    drawn = sampling.sample_rows(jax.random.key(seed), jnp.array(weights), (200,))
    assert all(weights[i] > 0 for i in np.asarray(drawn))
