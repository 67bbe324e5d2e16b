"""A learner of one's own: it remembers each user's mean, and predicts it. Run: `python examples/own_learner.py`."""

from typing import Any

import numpy as np

import metaleader as ml


class MeanOfUser:
    """A learner is four verbs; its state is whatever it likes, here a dict of sums and counts."""

    def init(self, problem: ml.Problem, key: Any, example: ml.Batch) -> dict[Any, tuple[float, int]]:
        return {}

    def observe(self, problem: ml.Problem, state: Any, task: int | str, batch: ml.Batch) -> tuple[Any, int]:
        total, count = state.get(task, (0.0, 0))
        return {**state, task: (total + float(batch.targets.sum()), count + len(batch))}, 0  # at no gradient

    def adapt(self, problem: ml.Problem, state: Any, task: int | str, batch: ml.Batch) -> tuple[float, int]:
        total, count = state.get(task, (0.0, 0))
        return total / max(count, 1), 0

    def predict(self, problem: ml.Problem, adapted: float, inputs: Any) -> Any:
        return np.full((len(inputs), 1), adapted, np.float32)


def user(i: int) -> ml.Task:
    random = np.random.default_rng(i)
    x = random.normal(size=(30, 1)).astype(np.float32)
    y = random.normal() + 0.1 * x
    return ml.Task.from_arrays(x[:20], y[:20], x[20:], y[20:], name=f"user {i % 3}", key=i % 3)  # users come back


problem = ml.Problem(ml.MLP(), ml.squared_error, ml.mean_squared_error)
stream = [user(i) for i in range(6)]
learners: dict[str, ml.Learner] = {"mean of user": MeanOfUser(), "ftml": ml.FTML(ml.GradientDescent(step_size=0.01))}
if __name__ == "__main__":
    print(ml.run(problem, stream, learners, protocol=ml.OnlineProtocol(chunk=10, threshold=0.05)).table())
