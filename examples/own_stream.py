"""A stream of one's own, without end and without held-out data. Run: `python examples/own_stream.py`."""

import itertools
from collections.abc import Iterator

import numpy as np

import metaleader as ml


def sensors(seed: int = 0) -> Iterator[ml.Task]:
    """Sensors of other gains and offsets, one after another for ever; each sends ten to forty readings."""
    random = np.random.default_rng(seed)
    for i in itertools.count():
        n, gain, offset = random.integers(10, 41), random.uniform(0.5, 2), random.normal()
        x = random.normal(size=(n, 2)).astype(np.float32)
        y = (gain * x.sum(axis=1, keepdims=True) + offset).astype(np.float32)
        yield ml.Task.from_arrays(x, y, name=f"sensor {i}")  # judged on readings to come


problem = ml.Problem(ml.MLP(inputs=2), ml.squared_error, ml.mean_squared_error)
learner = ml.FTML(ml.GradientDescent(steps=3, step_size=0.05), optimizer=ml.Adam(3e-3))
if __name__ == "__main__":
    for record in itertools.islice(ml.play(problem, sensors(), learner, ml.OnlineProtocol(chunk=10)), 60):
        print(f"{record.task}: squared error {record.score:.3f} after {record.datapoints} readings")
