"""A model of one's own, written in Flax NNX, on digits. Run: `python examples/own_model_nnx.py`."""

import functools
from typing import Any

from flax import nnx

import metaleader as ml


class Net(nnx.Module):
    """Batch normalisation and dropout, as for any other use of NNX."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.body = nnx.Linear(16 * 16 * 3, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.norm(self.body(x.reshape(len(x), -1))))
        return self.head(self.dropout(x))


stream = ml.RainbowDigits(rounds=3, examples_per_task=40, test_examples=100).stream(seed=0)
problem = ml.Problem(ml.from_flax_nnx(functools.partial(Net, width=64)), ml.CrossEntropy(), ml.accuracy)
learner = ml.FTML(ml.GradientDescent(steps=3, step_size=0.1), optimizer=ml.Adam(3e-3))
if __name__ == "__main__":
    print(ml.run(problem, stream, learner, protocol=ml.OnlineProtocol(chunk=20)).table())
