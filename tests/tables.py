"""Tables whose answer is known, made from random numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

Make = Callable[[np.random.Generator, int], tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]]
INPUTS = 5


def table(kind: str, seed: int, tasks: int = 60, rows: int = 30, noise: float = 0.3) -> Any:
    """A data frame of columns `task`, `x0`, ..., `y`.

    Args:
        kind: a name in `KINDS`.
        seed: of everything.
        tasks: how many.
        rows: of each.
        noise: standard deviation around the task's function, whose own is about 1.
    """
    random = np.random.default_rng(seed)
    functions = KINDS[kind](random, tasks)
    frames = []
    for i, function in enumerate(functions):
        x = random.normal(size=(rows, INPUTS))
        y = function(x) + noise * random.normal(size=rows)
        frames.append(pd.DataFrame({"task": f"t{i}", **{f"x{j}": x[:, j] for j in range(INPUTS)}, "y": y}))
    return pd.concat(frames, ignore_index=True)


Function = Callable[[np.ndarray], np.ndarray]


def _linear(weights: np.ndarray) -> Function:
    return lambda x: x @ weights


def nothing(random: np.random.Generator, tasks: int) -> list[Function]:
    """Tasks share nothing: each has weights of its own, of mean 0."""
    return [_linear(random.normal(size=INPUTS) / INPUTS**0.5) for _ in range(tasks)]


def common(random: np.random.Generator, tasks: int) -> list[Function]:
    """All tasks are the same linear function."""
    return [_linear(random.normal(size=INPUTS) / INPUTS**0.5)] * tasks


def features(random: np.random.Generator, tasks: int) -> list[Function]:
    """Two features of the inputs, which are not linear, are shared; each task has its own weights of them."""
    first, second = random.normal(size=(2, INPUTS)) / INPUTS**0.5

    def of_task(a: float, b: float) -> Function:
        return lambda x: a * np.sin(3 * x @ first) + b * np.tanh(2 * x @ second) ** 2

    return [of_task(*random.normal(size=2)) for _ in range(tasks)]


def drifting(random: np.random.Generator, tasks: int) -> list[Function]:
    """A linear function that changes a little from task to task."""
    steps = random.normal(size=(tasks, INPUTS)) * 0.15
    return [_linear(random.normal(size=INPUTS) * 0 + w) for w in np.cumsum(steps, axis=0) + random.normal(size=INPUTS)]


def cluster(random: np.random.Generator, tasks: int) -> list[Function]:
    """One function, but for a fifth of the tasks, whose function is its negative."""
    weights = random.normal(size=INPUTS) / INPUTS**0.5
    return [_linear(-weights if i % 5 == 0 else weights) for i in range(tasks)]


KINDS: Mapping[str, Callable[[np.random.Generator, int], list[Function]]] = {
    "nothing": nothing,
    "common": common,
    "features": features,
    "drifting": drifting,
    "cluster": cluster,
}
