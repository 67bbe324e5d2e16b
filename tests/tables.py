"""Tables whose answer is known, made from random numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

Function = Callable[[np.ndarray], np.ndarray]
INPUTS = 5


def table(kind: str, seed: int, tasks: int = 60, rows: int = 30, noise: float = 0.3, shared: int | None = None) -> Any:
    """A data frame of columns `task`, `x0`, ..., `y`.

    Args:
        kind: a name in `KINDS`.
        seed: of everything but what the tasks share.
        tasks: how many.
        rows: of each.
        noise: standard deviation around the task's function, whose own is about 1.
        shared: seed of what the tasks share; None: `seed`. Tables of one value hold tasks of one population.
    """
    random = np.random.default_rng(seed)
    functions = KINDS[kind](_of_shared(seed if shared is None else shared), random, tasks)
    return _frame(functions, random, rows, noise)


def coming(kind: str, seed: int, at: int, tasks: int, rows: int = 30, noise: float = 0.3, shared: int = 0) -> Any:
    """Tasks that might have come at a place of `table(kind, seed, ..., shared=shared)`, given those before it.

    Args:
        kind: see `table`.
        seed: see `table`.
        at: the place, from 0.
        tasks: how many.
        rows: see `table`.
        noise: see `table`.
        shared: see `table`.
    """
    random = np.random.default_rng([at, seed])
    if kind != "drifting":
        return _frame(KINDS[kind](_of_shared(shared), random, tasks), random, rows, noise)
    before = _walk(_of_shared(shared), np.random.default_rng(seed), at)[-1]
    return _frame([_linear(_step(before, random)) for _ in range(tasks)], random, rows, noise)


def _of_shared(seed: int) -> np.random.Generator:
    return np.random.default_rng([7, seed])


def _frame(functions: Sequence[Function], random: np.random.Generator, rows: int, noise: float) -> Any:
    x = random.normal(size=(len(functions), rows, INPUTS))
    y = np.stack([function(of_task) for function, of_task in zip(functions, x, strict=True)])
    y += noise * random.normal(size=y.shape)
    names = np.repeat([f"t{i}" for i in range(len(functions))], rows)
    inputs = {f"x{j}": x[..., j].ravel() for j in range(INPUTS)}
    return pd.DataFrame({"task": names, **inputs, "y": y.ravel()})


def _linear(weights: np.ndarray) -> Function:
    return lambda x: x @ weights


def _direction(random: np.random.Generator) -> np.ndarray:
    return random.normal(size=INPUTS) / INPUTS**0.5


def nothing(shared: np.random.Generator, random: np.random.Generator, tasks: int) -> list[Function]:
    """Tasks share nothing: each has weights of its own, of mean 0."""
    return [_linear(_direction(random)) for _ in range(tasks)]


def common(shared: np.random.Generator, random: np.random.Generator, tasks: int) -> list[Function]:
    """All tasks are the same linear function."""
    return [_linear(_direction(shared))] * tasks


def features(shared: np.random.Generator, random: np.random.Generator, tasks: int) -> list[Function]:
    """Two features of the inputs, which are not linear, are shared; each task has its own weights of them."""
    first, second = _direction(shared), _direction(shared)

    def of_task(a: float, b: float) -> Function:
        return lambda x: a * np.sin(3 * x @ first) + b * np.tanh(2 * x @ second) ** 2

    return [of_task(*random.normal(size=2)) for _ in range(tasks)]


def heads(shared: np.random.Generator, random: np.random.Generator, tasks: int) -> list[Function]:
    """Two of the inputs are shared features; each task has its own weights of them."""
    used = shared.permutation(INPUTS)[:2]
    return [_linear(random.normal(size=2) @ np.eye(INPUTS)[used]) for _ in range(tasks)]


def drifting(shared: np.random.Generator, random: np.random.Generator, tasks: int) -> list[Function]:
    """A linear function that changes a little from task to task, of weights that stay about as large."""
    return [_linear(weights) for weights in _walk(shared, random, tasks)]


def _walk(shared: np.random.Generator, random: np.random.Generator, tasks: int) -> list[np.ndarray]:
    """The weights of drifting tasks."""
    weights, found = _direction(shared), []
    for _ in range(tasks):
        weights = _step(weights, random)
        found.append(weights)
    return found


def _step(weights: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return 0.97 * weights + (1 - 0.97**2) ** 0.5 * _direction(random)


def cluster(shared: np.random.Generator, random: np.random.Generator, tasks: int) -> list[Function]:
    """One function, but for a fifth of the tasks, drawn by chance, whose function is its negative."""
    weights = _direction(shared)
    return [_linear(-weights if deviates else weights) for deviates in random.uniform(size=tasks) < 0.2]


KINDS: Mapping[str, Callable[[np.random.Generator, np.random.Generator, int], list[Function]]] = {
    "nothing": nothing,
    "common": common,
    "features": features,
    "heads": heads,
    "drifting": drifting,
    "cluster": cluster,
}
