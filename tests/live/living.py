"""A small learner that lives, and plain accounts of what it must do: of its log, of its weights, of its score."""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import metaleader as ml
from metaleader.live import Live, Pace

PROBLEM = ml.Problem(ml.MLP(width=4, depth=1), ml.squared_error, ml.mean_squared_error)
LEARNER = ml.FTML(ml.GradientDescent(2), meta_steps=1, meta_batch=2, train_size=3, validation_size=3)
EAGER = Pace(refresh=0.0, snapshot=3600.0)


def points(seed: int, n: int = 1) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(seed).uniform(-1, 1, (n, 1)).astype(np.float32)
    return x, (np.abs(x) * (seed % 3 - 1)).astype(np.float32)


def example() -> ml.Batch:
    return ml.Batch.of(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32))


def told(live: Live, numbers: Iterable[int], n: int = 2, tasks: int = 3) -> None:
    """Learn groups of `n` datapoints, named by their numbers, of tasks `t0`, `t1`, ... in turn."""
    for i in numbers:
        live.learn(f"t{i % tasks}", *points(i, n), ids=[f"{i}-{j}" for j in range(n)])


def leaves(live: Live) -> list[bytes]:
    """The state of the learner, as bytes; it must be idle."""
    assert live._worker is not None
    return as_bytes(live._worker.progress.state)


def as_bytes(state: Any) -> list[bytes]:
    def of(leaf: Any) -> bytes:
        is_key = isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes()

    return [of(leaf) for leaf in jax.tree.leaves(state)]


Row = tuple[int, int, str, str, bytes]  # number, number of the first of its group, task as JSON, id, bytes


def log(folder: Path) -> list[Row]:
    """The datapoints in the file of the log, in order."""
    connection = sqlite3.connect(folder / "log.sqlite")
    rows = connection.execute("SELECT sequence, first, task, id, data FROM datapoints ORDER BY sequence").fetchall()
    connection.close()
    return rows


def groups(rows: Sequence[Row]) -> list[tuple[str, ml.Batch]]:
    """What is observed together, of inputs and targets of one float32 each."""
    found: dict[int, tuple[str, list[np.ndarray]]] = {}
    for _, first, task, _, data in rows:
        found.setdefault(first, (task.strip('"'), []))[1].append(np.frombuffer(data, np.float32))
    arrays = [(task, np.stack(values)) for task, values in found.values()]
    return [(task, ml.Batch.of(values[:, :1], values[:, 1:])) for task, values in arrays]


def written(live: Live) -> list[tuple[str, ml.Batch]]:
    """What is in the log of a learner, as it is observed."""
    rows = live._store.datapoints()
    return groups([(row.sequence, row.first, f'"{row.task}"', row.id, row.data) for row in rows])


def plainly(steps: Sequence[tuple[str, ml.Batch]], learner: Any = LEARNER, seed: int = 0) -> tuple[Any, list[float]]:
    """The state after these steps, and the squared error of each datapoint before it was learned, by a plain loop."""
    state = learner.init(PROBLEM, jax.random.key(seed), example())
    seen: dict[str, list[ml.Batch]] = {}
    errors: list[float] = []
    for task, batch in steps:
        before = seen.setdefault(task, [])
        none = np.zeros((0, 1), np.float32)
        x, y = (np.concatenate([none, *(getattr(b, name) for b in before)]) for name in ("inputs", "targets"))
        data = ml.Batch(inputs=x, targets=y, weights=np.ones(len(x), np.float32))
        adapted, _ = learner.adapt(PROBLEM, state, task, data)
        outputs = np.asarray(learner.predict(PROBLEM, adapted, batch.inputs))
        errors += np.square(outputs - batch.targets)[:, 0].tolist()
        state, _ = learner.observe(PROBLEM, state, task, batch)
        before.append(batch)
    return state, errors


class Counts:
    """A learner whose state is no tree of one form: a list of the sizes of what it saw. Predicts their sum."""

    def init(self, problem: ml.Problem, key: Any, example: ml.Batch) -> Any:
        return []

    def observe(self, problem: ml.Problem, state: Any, task: int | str, batch: ml.Batch) -> tuple[Any, int]:
        state.append(len(batch))  # in place: the state given is used up
        return state, 0

    def adapt(self, problem: ml.Problem, state: Any, task: int | str, batch: ml.Batch) -> tuple[Any, int]:
        return sum(state), 0

    def predict(self, problem: ml.Problem, adapted: Any, inputs: Any) -> Any:
        return np.full((len(inputs), 1), adapted, np.float32)
