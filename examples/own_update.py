"""An update procedure of one's own: gradient steps by the sign. Run: `python examples/own_update.py`."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import metaleader as ml


@dataclass(frozen=True)
class SignDescent:
    """`v <- v - alpha tanh(grad L(D, v) / width)`: a sign that can be differentiated through."""

    steps: int = 5
    step_size: float = 0.01
    width: float = 0.1

    def init(self, params: Any) -> Any:
        return params  # what is meta-learned: w alone

    def __call__(self, problem: ml.Problem, meta_params: Any, batch: ml.Batch) -> Any:
        def step(v: Any, _: Any) -> tuple[Any, None]:
            gradient = jax.grad(problem.objective)(v, batch)
            return jax.tree.map(lambda p, g: p - self.step_size * jnp.tanh(g / self.width), v, gradient), None

        return jax.lax.scan(step, meta_params, length=self.steps)[0]

    def gradient_evaluations(self, examples: int) -> int:
        return self.steps * examples

    def meta_gradient_evaluations(self, examples: int) -> int:
        return 2 * self.steps * examples  # a Hessian-vector product a step


problem, stream = ml.Problem(ml.MLP(), ml.squared_error, ml.mean_squared_error), ml.Sinusoid(5).stream(seed=0)
learners: dict[str, ml.Learner] = {"signs": ml.FTML(SignDescent()), "gradients": ml.FTML(ml.GradientDescent(5, 0.003))}
if __name__ == "__main__":
    print(ml.run(problem, stream, learners, protocol=ml.OnlineProtocol(chunk=10, threshold=0.1)).table())
