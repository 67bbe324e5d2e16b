"""A model of one's own, written in Equinox for one example. Run: `python examples/own_model_equinox.py`."""

from typing import Any

import equinox as eqx
import jax

import metaleader as ml


class Net(eqx.Module):
    """Two layers; the second is called `head`."""

    body: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key: Any) -> None:
        first, second = jax.random.split(key)
        self.body, self.head = eqx.nn.Linear(1, 40, key=first), eqx.nn.Linear(40, 1, key=second)

    def __call__(self, x: Any) -> Any:
        return self.head(jax.nn.tanh(self.body(x)))


stream = ml.Sinusoid(rounds=5).stream(seed=0)
problem = ml.Problem(ml.from_equinox(Net), ml.squared_error, ml.mean_squared_error)
learner = ml.FTML(ml.GradientDescent(steps=5, step_size=0.02, adapt_only=("head",)), optimizer=ml.Adam(3e-3))
if __name__ == "__main__":
    print(ml.run(problem, stream, learner, protocol=ml.OnlineProtocol(chunk=10, threshold=0.1)).table())
