"""The task buffer keeps what its retention says, of tasks that interleave and return; sampling is what it says."""

from collections import Counter
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
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
split = jax.jit(sampling.sample_split, static_argnums=(2, 3))


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


class Chosen:
    """A memory that chooses by chance, as plain lists: of every task the numbers of its datapoints, by first arrival.

    It takes the random numbers that the buffer takes, and nothing else of it.
    """

    def __init__(self, retention: Retention, budget: int, key: Any) -> None:
        self.retention, self.budget, self.total = retention, budget, 0
        self.seed = np.asarray(jax.random.key_data(key)).tolist()
        self.kept, self.seen = dict[Any, list[int]](), dict[Any, int]()
        self.life, self.recent = dict[Any, int](), list[Any]()  # which life of a task it is, of those observed

    def append(self, task: int | str, n: int) -> None:
        if task not in self.kept:  # a task of which nothing is left is a new one
            self.kept[task], self.seen[task], self.life[task] = [], 0, self.life.get(task, 0) + 1
        own = (task, self.life[task])
        self.recent = [other for other in self.recent if other != own] + [own]
        chance, new = np.random.default_rng([*self.seed, self.total]), list(range(self.total, self.total + n))
        if self.retention.policy == "reservoir":
            everything = [(of, number) for of, numbers in self.kept.items() for number in numbers]
            chosen = self.algorithm_r(chance, everything, [(task, number) for number in new], self.total, self.budget)
            self.kept = {of: [number for other, number in chosen if other == of] for of in self.kept}
        else:
            share = max(self.budget // len(self.kept), 1)
            for of, numbers in self.kept.items():
                if of != task:
                    fits = self.age(of) < self.budget
                    self.kept[of] = self.some_of(chance, numbers, share) if fits else []
            numbers = self.kept[task]
            if len(numbers) > share:
                numbers = self.some_of(chance, numbers, share)
            self.kept[task] = self.algorithm_r(chance, numbers, new, self.seen[task], share)
        self.kept = {of: sorted(numbers) for of, numbers in self.kept.items() if numbers}
        self.seen[task] += n
        self.total += n

    def age(self, task: int | str) -> int:
        """How many were observed since it was."""
        return len(self.recent) - 1 - self.recent.index((task, self.life[task]))

    @staticmethod
    def some_of(chance: np.random.Generator, numbers: list[int], share: int) -> list[int]:
        return [numbers[i] for i in sorted(chance.permutation(len(numbers))[:share])]

    @staticmethod
    def algorithm_r(chance: Any, inside: list[Any], arriving: list[Any], seen: int, budget: int) -> list[Any]:
        """Vitter (1985): the first ones fill the reservoir; the n-th takes a place below n, if that is one."""
        inside, waiting = list(inside), list(arriving)
        while waiting and len(inside) < budget:
            inside.append(waiting.pop(0))
        first = seen + len(arriving) - len(waiting) + 1  # the number of the first one that must draw
        for place, datapoint in zip(chance.integers(0, first + np.arange(len(waiting))), waiting, strict=True):
            if place < budget:
                inside[place] = datapoint
        return inside


@pytest.mark.parametrize(
    ("retention", "budget"),
    [
        (Retention("reservoir", 12), 12),
        (Retention("reservoir", 1), 1),
        (Retention("reservoir", 12 * 8 + 7, "bytes"), 12),
        (Retention("balanced", 12), 12),
        (Retention("balanced", 3), 3),  # fewer than there are tasks
        (Retention("balanced", 12 * 8, "bytes"), 12),
    ],
    ids=str,
)
@settings(max_examples=15)
@given(arrivals=ARRIVALS, seed=st.integers(0, 9))
def test_what_chance_keeps_of_interleaved_tasks_is_what_plain_lists_keep_by_the_same_numbers(
    retention: Retention, budget: int, arrivals: list[tuple[int | str, int]], seed: int
) -> None:
    key = jax.random.key(seed)
    buffer, plain = retention.empty(numbered(0, 1), key), Chosen(retention, budget, key)
    sent = dict[Any, set[float]]()
    for task, n in arrivals:
        buffer = retention.append(buffer, task, numbered(plain.total, n))
        sent.setdefault(task, set()).update(range(plain.total, plain.total + n))
        plain.append(task, n)
        rows = held(buffer)
        assert rows == list(plain.kept.values())  # in order of first arrival
        assert int(buffer.total) == plain.total
        for row, (other, numbers) in enumerate(plain.kept.items()):
            assert buffer.row_of(other) == row
            assert (int(buffer.ages[row]), int(buffer.seen[row])) == (plain.age(other), plain.seen[other])
            assert set(numbers) <= sent[other]
        assert all(buffer.row_of(other) is None for other in sent.keys() - plain.kept.keys())
        assert buffer.past == sum(len(numbers) for other, numbers in plain.kept.items() if other != task)
        # What is documented of the policies, whatever was drawn.
        assert buffer.size <= budget
        if retention.policy == "reservoir":
            assert buffer.size == min(budget, plain.total)
        else:
            share = max(budget // buffer.rows, 1)
            assert all(len(numbers) <= share for numbers in rows)
            # Nothing less was kept of a task than there was, unless its share was smaller.
            whole = {other: len(numbers) for other, numbers in sent.items() if len(numbers) <= budget // len(sent)}
            assert all(len(plain.kept[other]) == count for other, count in whole.items())


@pytest.mark.parametrize(
    "retention",
    [
        Retention(),
        Retention("last", 1500),
        Retention("reservoir", 1500),
        Retention("balanced", 1500),
        Retention("mixed", 1500),
    ],
    ids=str,
)
def test_every_place_holds_its_datapoint_after_the_buffer_grew(
    retention: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the 1024 places and the 64 rows that it begins with, at most to the budget."""
    monkeypatch.setattr(store, "SMALL", 0)
    key = jax.random.key(4)
    buffer, sent = retention.empty(numbered(0, 1), key), [list[int]() for _ in range(70)]
    for i in range(140):
        task = (i * 37) % 70  # each comes back once
        sent[task] += range(15 * i, 15 * i + 15)
        buffer = retention.append(buffer, f"task {task}", numbered(15 * i, 15))
    rows = held(buffer)
    assert buffer.size == {"all": 2100, "balanced": 70 * 21}.get(retention.policy, 1500)
    assert len(buffer.order) == len(buffer.data.inputs) == (4096 if retention.policy == "all" else 1500)
    assert len(buffer.counts) == 512
    assert len(set(buffer.order[: buffer.size].tolist())) == buffer.size  # no slot is two datapoints'
    np.testing.assert_array_equal(buffer.arrivals[: buffer.size], [number for row in rows for number in row])
    for task, numbers in enumerate(sent):
        found = rows[row] if (row := buffer.row_of(f"task {task}")) is not None else []
        assert found == sorted(found)
        if retention.policy == "all":
            assert found == numbers
        elif retention.policy == "last":
            assert found == [number for number in numbers if number >= 600]
        else:
            assert set(found) <= set(numbers)


def test_a_buffer_grows_and_an_integer_is_no_string() -> None:
    buffer = Retention().empty(numbered(0, 1), jax.random.key(0))
    for i in range(30):
        buffer = Retention().append(buffer, i % 2, numbered(100 * i, 100))
    assert (buffer.size, buffer.rows) == (3000, 2)
    for row in range(2):
        assert held(buffer)[row] == [100 * i + k for i in range(row, 30, 2) for k in range(100)]
    assert buffer.row_of("1") is None


def of_many_types(first: int, n: int) -> Batch:
    """Datapoints whose every part says which they are, as far as its type can."""
    numbers = first + np.arange(n)
    parts = {
        "bool": numbers[:, None] % 2 == 1,
        "uint8": np.stack([numbers, 255 - numbers], axis=1).astype(np.uint8),
        "int64": -numbers,
        "float16": (numbers / 8).astype(np.float16)[:, None, None],
        "float64": numbers + 0.5,
    }
    return Batch.of(parts, numbers.astype(ml_dtypes.bfloat16), weights=1 + numbers)


@pytest.mark.parametrize(
    "retention",
    [
        Retention(),
        *(Retention(policy, 9) for policy in ("last", "reservoir", "balanced", "mixed")),
        Retention("last", 2, "tasks"),
    ],
    ids=str,
)
@settings(max_examples=8)
@given(arrivals=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 7)), min_size=1, max_size=9))
def test_what_is_kept_comes_back_as_it_was_and_in_order(retention: Retention, arrivals: list[tuple[int, int]]) -> None:
    """Of every type, with its weight; the integers are small enough for bfloat16."""
    buffer = retention.empty(of_many_types(0, 1), jax.random.key(0))
    for task, n in arrivals:
        buffer = retention.append(buffer, task, of_many_types(int(buffer.total), n))
    held = jax.tree.map(np.asarray, store.held(buffer, np.arange(buffer.size)))
    numbers = buffer.arrivals[: buffer.size]
    for start, count in zip(buffer.starts, buffer.counts, strict=True):
        assert (np.diff(numbers[start : start + count]) > 0).all()
    for number, kept in enumerate(numbers):
        expected = of_many_types(int(kept), 1)
        for leaf, like in zip(jax.tree.leaves(held), jax.tree.leaves(expected), strict=True):
            assert leaf.dtype == jax.dtypes.canonicalize_dtype(like.dtype)
            np.testing.assert_array_equal(leaf[number : number + 1], like)


def test_weights_of_datapoints_are_kept() -> None:
    batch = Batch.of(np.ones((3, 1), np.float32), np.ones((3, 1), np.float32), np.array([1.0, 0.0, 2.0]))
    buffer = Retention().append(Retention().empty(batch, jax.random.key(0)), 0, batch)
    assert (buffer.size, int(buffer.total)) == (2, 2)  # what has no weight takes no room
    np.testing.assert_array_equal(store.held(buffer, np.arange(2)).weights, [1, 2])


def test_data_of_another_shape_is_refused() -> None:
    buffer = Retention().empty(points(1), jax.random.key(0))
    with pytest.raises(ValueError, match=r"inputs are float32 of shape \(2,\)"):
        Retention().append(buffer, 0, Batch.of(np.ones((3, 2), np.float32), np.ones((3, 1), np.float32)))


def test_a_buffer_begins_with_as_many_slots_as_take_little() -> None:
    def slots(width: int) -> int:
        batch = Batch.of(np.zeros((2, width)), np.zeros((2, 1)))  # float32 on the device, and a weight each
        return len(Retention().empty(batch, jax.random.key(0)).order)

    assert slots(2) == (1 << 20) // 16
    assert slots(1000) == slots(1 << 20) == 1024


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
    train, validation = sizes
    (a, a_weights), (b, b_weights) = split(jax.random.key(seed), jnp.int32(count), train, validation)
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


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), min_size=1, max_size=12), st.integers(0, 4))
def test_without_a_task_the_rest_is_as_it_was_and_takes_what_comes(arrivals: list[tuple[int, int]], gone: int) -> None:
    """Against a list of the datapoints of each task."""
    example = Batch.of(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32))
    buffer, kept, number = store.empty(example, jax.random.key(0), 4), dict[int, list[float]](), 1

    def arrived(task: int, n: int) -> None:
        nonlocal buffer, number
        values = np.arange(number, number + n, dtype=np.float32)
        buffer = Retention().append(buffer, task, Batch.of(values[:, None], -values[:, None]))
        kept.setdefault(task, []).extend(values)
        number += n

    def check_all() -> None:
        assert buffer.size == sum(map(len, kept.values()))
        for task, values in kept.items():
            row = buffer.row_of(task)
            assert row is not None
            start = buffer.starts[row]
            found = store.held(buffer, np.arange(start, start + buffer.counts[row]))
            assert np.asarray(found.inputs)[:, 0].tolist() == values
            assert np.asarray(found.targets)[:, 0].tolist() == [-value for value in values]

    for task, n in arrivals:
        arrived(task, n)
    taken = kept.pop(gone, [])
    buffer = store.without(buffer, gone)
    assert buffer.row_of(gone) is None
    check_all()
    assert not np.isin(np.asarray(buffer.data.inputs), taken).any()  # nothing is left of them
    assert buffer.total == number - 1
    for task, n in reversed(arrivals):
        arrived(task, n)
    check_all()
    assert store.without(buffer, 99) is buffer


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=8),
    st.integers(0, 3),
    st.sampled_from(["reservoir", "balanced", "mixed", "last"]),
    st.integers(1, 12),
)
def test_a_limited_memory_goes_on_without_a_task(
    arrivals: list[tuple[int, int]], gone: int, policy: Any, budget: int
) -> None:
    example = Batch.of(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32))
    retention, number = Retention(policy, budget), 1
    buffer = retention.empty(example, jax.random.key(0))
    for half in (arrivals, arrivals[::-1]):
        for task, n in half:
            values = np.arange(number, number + n, dtype=np.float32)[:, None]
            buffer, number = retention.append(buffer, task, Batch.of(values, -values)), number + n
            kept = np.asarray(store.held(buffer, np.arange(buffer.size)).inputs)[:, 0]
            assert 0 < len(kept) == len(set(kept)) <= budget
            if policy in ("last", "mixed"):
                newest = budget if policy == "last" else budget // 2
                assert set(np.arange(number)[-min(newest, n) :] if newest else ()) <= set(kept)
        buffer = store.without(buffer, gone)
