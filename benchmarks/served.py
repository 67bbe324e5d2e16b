"""What is served for `benchmarks.serving`, each in a process of its own: a learner that lives, and what it is beside.

`floor` is the same net behind the same service, which predicts by the same parameters for ever and stores nothing.
`river` is a linear model of river for each task behind the same service, which learns at once and stores nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

import metaleader as ml
from metaleader.live import Acknowledged, Live, Mean, Pace, Predictor, Standing, Status
from metaleader.live.layout import Layout
from metaleader.processes import end_with_parent
from metaleader.service import server
from metaleader.service.beside import learning_beside
from metaleader.service.limits import Limits

FEATURES, WIDTH = 8, 32
PROBLEM = ml.Problem(ml.MLP(inputs=FEATURES, width=WIDTH, depth=2), ml.squared_error, ml.mean_squared_error)
LEARNER = ml.FTML(ml.GradientDescent(5, 0.05), meta_steps=1, retention=ml.Retention("reservoir", 5000))
EXAMPLE = ml.Batch.of(np.zeros((1, FEATURES), np.float32), np.zeros((1, 1), np.float32))
KINDS = ("live", "floor", "river")


class Forgetful:
    """What stands in for `Live`: it answers, and stores nothing."""

    def __init__(self) -> None:
        self.layout, self.problem, self.learner = Layout.of(EXAMPLE), PROBLEM, LEARNER
        self.backlog, self.encoder, self.classes, self.learning = 0, None, (), None
        self.learns = self.remote = False

    def learn(self, task: Any, x: Any, y: Any, ids: Any = None) -> Acknowledged:
        """Nothing."""
        return Acknowledged(len(x), 0)

    def predict(self, task: Any, x: Any) -> np.ndarray:
        """Zeros."""
        return np.zeros((len(x), 1), np.float32)

    def adapt(self, x: Any, y: Any) -> Predictor:
        """What predicts any task."""
        return Predictor(partial(self.predict, ""))

    def warm_up(self) -> None:
        """Nothing."""

    def score(self) -> Standing:
        """None."""
        return Standing(Mean(0, {}), {}, Mean(0, {}), 0)

    def status(self) -> Status:
        """There is nothing."""
        return Status(0, 0, 0, 0, 0, None, False)


class Floor(Forgetful):
    """The net with the parameters it has at first."""

    def __init__(self) -> None:
        super().__init__()
        self._params = PROBLEM.init(jax.random.key(0))

    def predict(self, task: Any, x: Any) -> np.ndarray:
        """The outputs of the net."""
        return np.asarray(PROBLEM.predict(self._params, self.layout.questions(x)))


class River(Forgetful):
    """A linear model of river for each task, its inputs scaled."""

    def __init__(self) -> None:
        super().__init__()
        self._models: dict[Any, Any] = {}

    def learn(self, task: Any, x: Any, y: Any, ids: Any = None) -> Acknowledged:
        """One datapoint after another."""
        model = self._models.setdefault(task, _linear())
        for row, target in zip(x.tolist(), y[:, 0].tolist(), strict=True):
            model.learn_one(dict(enumerate(row)), target)
        return Acknowledged(len(x), 0)

    def predict(self, task: Any, x: Any) -> np.ndarray:
        """One after another."""
        model = self._models.get(task) or _linear()
        return np.array([[model.predict_one(dict(enumerate(row)))] for row in x.tolist()], np.float32)


def _linear() -> Any:
    from river import linear_model, preprocessing

    return preprocessing.StandardScaler() | linear_model.LinearRegression()


@contextmanager
def served(kind: str, folder: Path, tasks: int, pace: Pace) -> Iterator[tuple[int, int]]:
    """A service in a process of its own, until the block ends: its port, and the number of the process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(kind, folder, tasks, pace, theirs))
    process.start()
    try:
        theirs.close()
        port = ours.recv()
        assert process.pid is not None
        yield port, process.pid
    finally:
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGTERM)
        process.join()


def _serve(kind: str, folder: Path, tasks: int, pace: Pace, told: Connection) -> None:
    end_with_parent()
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # as the command does
    kinds: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "live": lambda: _live(folder, tasks, pace),
        "floor": lambda: nullcontext(Floor()),
        "river": lambda: nullcontext(River()),
    }
    with server.bound("127.0.0.1", 0) as at, kinds[kind]() as live:
        told.send(at.getsockname()[1])
        server.serve(cast(Live, live), at, Limits())


def _live(folder: Path, tasks: int, pace: Pace) -> AbstractContextManager[Any]:
    """A learner that knows its tasks: five datapoints of each."""
    with Live.create(folder, PROBLEM, LEARNER, example=EXAMPLE, pace=pace) as live:
        for i in range(tasks):
            live.learn(i, *datapoints(i, 5))
        live.wait()
    return learning_beside(str(folder), pace, 0.0)


def datapoints(task: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Of a task: a line of its own, with noise."""
    slope = np.random.default_rng(task).normal(size=(FEATURES, 1))
    x = np.random.default_rng().normal(size=(n, FEATURES))
    return x.astype(np.float32), (np.tanh(x @ slope) + 0.1 * np.random.default_rng().normal(size=(n, 1))).astype(
        np.float32
    )
