"""Online gradient steps on the meta-objective, without data of past tasks."""

from __future__ import annotations

from dataclasses import dataclass

from metaleader.buffer import Retention
from metaleader.learners.ftml import FTML


@dataclass(frozen=True)
class OnlineMetaGradient(FTML):
    """Online gradient descent on the meta-objective of the current task: `w <- w - eta grad_w L(D_t_val, U_t(w))`.

    FTML (Eq. 4) sums over all tasks so far and keeps their data. Here a task's data goes when another one comes, and
    what the tasks before taught is in w and in the optimiser: the state has the size of a task, however many there
    were. It is FTML with the memory of one task. It is the deep form of the streaming learners of the theory
    (`metaleader.theory.streaming`).

    Examples:
        >>> import numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
        >>> lines = [ml.Task.from_arrays(x, 5 * x + t % 2, x, 5 * x + t % 2) for t in range(8)]
        >>> learner = ml.OnlineMetaGradient(ml.GradientDescent(step_size=0.2), optimizer=ml.Adam(0.2))
        >>> start = ml.begin(problem, learner, lines[0])
        >>> *_, (state, record) = ml.resume(problem, lines, learner, ml.OnlineProtocol(), start)
        >>> record.loss < 0.1, state.learner.buffer.size  # it holds the last task alone
        (True, 10)
    """

    retention: Retention = Retention("last", 1, "tasks")
    """Which datapoints the buffer keeps."""
