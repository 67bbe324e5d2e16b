"""A model of one's own, written in Flax Linen, on digits. Run: `python examples/own_model.py`."""

from typing import Any

import flax.linen as nn

import metaleader as ml


class Net(nn.Module):
    """Written as for any other use of Flax, with batch normalisation and dropout."""

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = x.reshape(len(x), -1)
        for _ in range(2):
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Dense(64)(x)))
        return nn.Dense(10, name="head")(nn.Dropout(0.1, deterministic=not train)(x))


stream = ml.RainbowDigits(rounds=6, examples_per_task=60, test_examples=100).stream(seed=0)
problem = ml.Problem(ml.from_flax_linen(Net(), stream[0].train.inputs), ml.CrossEntropy(), ml.accuracy)
learner = ml.FTML(ml.GradientDescent(steps=3, step_size=0.1), optimizer=ml.Adam(3e-3))
if __name__ == "__main__":
    for record in ml.play(problem, stream, learner, ml.OnlineProtocol(chunk=20)):
        print(f"{record.task}: accuracy {record.score:.2f} after {record.datapoints} images")
