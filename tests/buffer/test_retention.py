"""A limited memory keeps what its policy says, within its budget, by the run's seed."""

from typing import Any

import jax
import numpy as np
import pytest

from metaleader import FTML, Batch, Retention
from metaleader.buffer import sampling, store
from metaleader.buffer.retention import reservoir
from metaleader.buffer.store import TaskBuffer
from problems import CURVES, points

POLICIES = [
    Retention("reservoir", 12),
    Retention("balanced", 12),
    Retention("mixed", 12),
    Retention("last", 12),
    Retention("balanced", 12 * 8, "bytes"),
]


def numbered(task: int, first: int, n: int) -> Batch:
    """Datapoints that say which they are: 1000 task + number."""
    values = (1000 * task + first + np.arange(n, dtype=np.float32))[:, None]
    return Batch.of(values, -values)


def filled(memory: Retention, tasks: int, each: int = 20, chunk: int = 7, seed: int = 0) -> TaskBuffer:
    buffer = memory.empty(numbered(0, 0, 1), jax.random.key(seed))
    for task in range(tasks):
        for first in range(0, each, chunk):
            buffer = memory.append(buffer, task, numbered(task, first, min(chunk, each - first)))
    return buffer


def held(buffer: TaskBuffer) -> dict[int, list[int]]:
    """The numbers held of every task, read as the learners read them."""
    found = {}
    for task in range(200):
        if (row := buffer.row_of(task)) is not None:
            batch = store.held(buffer, buffer.starts[row] + np.arange(buffer.counts[row]))
            np.testing.assert_array_equal(batch.targets, -batch.inputs)
            values = np.asarray(batch.inputs)[:, 0].astype(int)
            assert set(values // 1000) == {task}  # a task's examples are that task's
            found[task] = (values % 1000).tolist()
    assert sum(map(len, found.values())) == buffer.size
    return found


def off_by_one(chance: np.random.Generator, held: int, arriving: int, seen: int, budget: int) -> Any:
    """Algorithm R but for one: each new datapoint is a little too likely to enter."""
    return reservoir(chance, held, arriving, max(seen - 1, held), budget)


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [(1,) * 10, (2, 2, 6)])
def test_a_reservoir_holds_every_datapoint_with_probability_budget_over_n(chunks: tuple[int, ...]) -> None:
    """Of 4000 reservoirs, as many hold a datapoint as the binomial law allows; a wrong algorithm is found out."""
    runs, budget, n = 4000, 3, 10

    def deviations(algorithm: Any) -> Any:
        """How far each datapoint's count lies from its expectation, in standard deviations."""
        counts = np.zeros(n)
        for seed in range(runs):
            inside, seen = np.arange(0), 0
            for arriving in chunks:
                chance = np.random.default_rng([0, seed, seen])  # as the memory has it
                kept = algorithm(chance, len(inside), arriving, seen, budget)
                inside = np.concatenate([inside, seen + np.arange(arriving)])[kept]
                seen += arriving
            assert len(set(inside.tolist())) == budget
            counts[inside] += 1
        p = budget / n
        return (counts - runs * p) / np.sqrt(runs * p * (1 - p))

    assert np.abs(deviations(reservoir)).max() < 3.5  # 0.5 % of right ones would exceed it; the seeds are fixed
    assert np.abs(deviations(off_by_one)).max() > 5


@pytest.mark.slow
def test_the_share_of_a_task_is_a_uniform_sample_of_it() -> None:
    """Also of the task before, which has had to make room: 2 of 4 datapoints, so each with probability 1/2."""
    runs, counts = 300, np.zeros((2, 4))
    for seed in range(runs):
        found = held(filled(Retention("balanced", 4), tasks=2, each=4, chunk=3, seed=seed))
        for task in range(2):
            assert len(found[task]) == 2
            counts[task, found[task]] += 1
    assert np.abs(counts - runs / 2).max() < 3.5 * np.sqrt(runs / 4)


def test_every_policy_keeps_what_it_says() -> None:
    whole = held(filled(Retention(), tasks=4))
    assert whole == {task: list(range(20)) for task in range(4)}
    assert held(filled(Retention("last", 25), tasks=4)) == {2: list(range(15, 20)), 3: list(range(20))}
    assert held(filled(Retention("last", 2, "tasks"), tasks=4)) == {2: list(range(20)), 3: list(range(20))}
    assert {task: len(of) for task, of in held(filled(Retention("balanced", 30), tasks=4)).items()} == dict.fromkeys(
        range(4), 7
    )
    assert sum(map(len, held(filled(Retention("reservoir", 30), tasks=4)).values())) == 30
    assert list(held(filled(Retention("balanced", 3), tasks=6, each=2))) == [3, 4, 5]  # more tasks than the budget
    assert held(filled(Retention("last", 1), tasks=2)) == {1: [19]}


@pytest.mark.parametrize(("budget", "chunk"), [(1, 7), (2, 20), (9, 7), (50, 7)])
def test_half_is_the_newest_and_half_a_sample_of_what_came_before(budget: int, chunk: int) -> None:
    """Over many seeds, each earlier datapoint is kept as often as any other; the fixed seeds allow for chance."""
    newest, runs, counts = budget // 2, 40, np.zeros(60)
    for seed in range(runs):
        found = held(filled(Retention("mixed", budget), tasks=3, each=20, chunk=chunk, seed=seed))
        numbers = [20 * task + number for task, of in found.items() for number in of]
        assert len(numbers) == budget
        assert set(range(60 - newest, 60)) <= set(numbers)
        counts[numbers] += 1
    p = (budget - newest) / (60 - newest)
    expected, spread = runs * p, max(np.sqrt(runs * p * (1 - p)), 1)
    assert np.abs(counts[: 60 - newest] - expected).max() < 4.5 * spread
    assert abs(counts[:20].sum() - 20 * expected) < 4 * np.sqrt(20) * spread  # the first are not favoured, nor left out


@pytest.mark.parametrize("policy", ["reservoir", "balanced", "mixed", "last"])
def test_with_a_budget_for_everything_everything_is_kept(policy: Any) -> None:
    assert held(filled(Retention(policy, 4 * 20 * 4), tasks=4)) == held(filled(Retention(), tasks=4))


@pytest.mark.parametrize("memory", POLICIES, ids=str)
def test_the_state_is_as_large_after_a_hundred_tasks_as_after_ten(memory: Retention) -> None:
    """Whatever is stored, bookkeeping included, and whatever the capacity at first."""

    def shapes(buffer: TaskBuffer) -> Any:
        return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), buffer)

    ten, hundred = (filled(memory, tasks, each=3) for tasks in (10, 100))
    assert shapes(ten) == shapes(hundred)
    assert len(hundred.data.inputs) == 12
    assert hundred.size <= 12


@pytest.mark.parametrize("memory", POLICIES[:2], ids=str)
def test_the_same_seed_keeps_the_same_and_another_another(memory: Retention) -> None:
    assert held(filled(memory, 4)) == held(filled(memory, 4))
    assert held(filled(memory, 4)) != held(filled(memory, 4, seed=1))


def test_datapoints_that_enter_overwrite_those_that_leave() -> None:
    """The first buffer's arrays are used up, and the places of those that stay are untouched."""
    memory = Retention("last", 12)
    before = filled(memory, 1, each=12, chunk=12)
    order, inputs = before.order.copy(), np.asarray(before.data.inputs).copy()
    after = memory.append(before, 1, numbered(1, 0, 5))
    np.testing.assert_array_equal(np.asarray(after.data.inputs)[order[5:]], inputs[order[5:]])
    assert held(after) == {0: list(range(5, 12)), 1: list(range(5))}


def test_ages_are_counted_in_rounds_though_tasks_between_were_forgotten() -> None:
    buffer = filled(Retention("reservoir", 4), tasks=40, each=2)
    weights = np.asarray(sampling.sampling_weights(lambda ages: ages + 1, buffer.counts, buffer.ages))
    rows = {task: row for task in range(40) if (row := buffer.row_of(task)) is not None}
    assert len(rows) > 1
    assert {task: weights[row] for task, row in rows.items()} == {task: 40 - task for task in rows}
    assert buffer.past == sum(buffer.counts[row] for task, row in rows.items() if task < 39)


def test_ftml_with_room_for_everything_is_ftml() -> None:
    def learned(memory: Retention) -> Any:
        learner = FTML(meta_steps=2, meta_batch=2, train_size=3, validation_size=4, retention=memory)
        state = learner.init(CURVES, jax.random.key(0), points(1))
        for task in range(2):
            state, _ = learner.observe(CURVES, state, task, points(8, task))
        return state.params

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        learned(Retention()),
        learned(Retention("reservoir", 1000)),
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 5}, "policy must be reservoir, balanced, mixed or last for a budget of 5, got all"),
        ({"policy": "last"}, "budget must be at least 1 for the policy last, got None"),
        ({"policy": "balanced", "budget": 0}, "budget must be at least 1 for the policy balanced, got 0"),
        ({"policy": "balanced", "budget": 3, "unit": "tasks"}, "unit must be datapoints or bytes"),
    ],
)
def test_impossible_memories_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Retention(**settings)


def test_a_budget_of_bytes_below_one_datapoint_is_refused() -> None:
    with pytest.raises(ValueError, match="budget must be at least one datapoint, 8 bytes, got 7"):
        Retention("last", 7, "bytes").empty(numbered(0, 0, 1), jax.random.key(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "resevoir", "budget": 6}, "unknown policy 'resevoir': did you mean reservoir"),
        ({"policy": "last", "budget": 6, "unit": "datapoint"}, "unknown unit 'datapoint': did you mean datapoints"),
        ({"policy": "last", "budget": 1.5e3}, r"budget must be a whole number, got 1500\.0"),
    ],
)
def test_words_that_are_misspelt_and_parts_of_datapoints_are_refused(settings: dict[str, Any], message: str) -> None:
    retention = Retention("last", budget=6)
    for name, value in settings.items():  # past the type checks of the tests, which refuse it first in the constructor
        object.__setattr__(retention, name, value)
    with pytest.raises(ValueError, match=message):
        retention.__post_init__()
