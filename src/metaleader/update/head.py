"""A fresh head first, then everything: fine-tuning for tasks whose labels mean different things."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from metaleader.errors import check_not_negative, check_positive
from metaleader.problem.batch import Batch
from metaleader.problem.model import Params
from metaleader.problem.problem import Problem
from metaleader.update.optimizer import InnerMomentum, OptimizerSteps
from metaleader.update.procedure import MetaParams
from metaleader.update.steps import mask


@dataclass(frozen=True)
class HeadFirst:
    """Forget the head, train a new one on fixed features, then fine-tune all parameters.

    With `w = (h, b)`, the head h and the body b: `h_0 = 0`; `head_steps` full-batch steps on h alone; then `steps` on
    all. Each step is one of the heavy ball, `m <- decay m + grad L(D, v)`, `v <- v - alpha m`, with `m = 0` at the
    start of both parts. A linear head at 0 predicts alike for all examples, and nothing of what its labels meant before
    is left; this is linear probing, then fine-tuning (Kumar et al., ICLR 2022). On no data, `U(w) = w`.

    Raises:
        ValueError: a number of steps is negative, a step size is not positive, or `decay` is not in [0, 1).

    Examples:
        >>> import jax, numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
        >>> data, params = ml.Batch.of(x, 3 * x), problem.init(jax.random.key(0))
        >>> forgot = ml.HeadFirst(head_steps=0, steps=0)(problem, params, data)
        >>> fitted = ml.HeadFirst(head_steps=20, steps=0)(problem, params, data)
        >>> [round(float(found["head"]["kernel"][0, 0]), 2) for found in (forgot, fitted)]
        [0.0, 3.0]
    """

    head_steps: int = 20
    """Steps on the head alone."""
    head_step_size: float = 0.5
    """The step size alpha of these."""
    steps: int = 10
    """Steps on everything."""
    step_size: float = 0.1
    """The step size alpha of these."""
    decay: float = 0.0
    """Momentum in both parts."""
    head: tuple[str, ...] = ("head",)
    """Names of the parameters that are the head."""

    def __post_init__(self) -> None:
        check_not_negative(self, "head_steps", "steps")
        check_positive(self, "head_step_size", "step_size")
        self._parts()  # checks the decay

    def init(self, params: Params) -> MetaParams:
        """The parameters themselves."""
        return params

    def __call__(self, problem: Problem, meta_params: MetaParams, batch: Batch) -> Params:
        """U(w), differentiable in b.

        Raises:
            ValueError: no parameter bears a name in `head`.
        """
        is_head = mask(meta_params, self.head)
        keeps = jnp.sum(batch.weights) == 0
        params = jax.tree.map(lambda its, leaf: jnp.where(keeps, leaf, 0) if its else leaf, is_head, meta_params)
        for part in self._parts():
            params = part(problem, params, batch)
        return params

    def gradient_evaluations(self, examples: int) -> int:
        """One gradient a step and example."""
        return sum(part.gradient_evaluations(examples) for part in self._parts())

    def meta_gradient_evaluations(self, examples: int) -> int:
        """One Hessian-vector product a step and example."""
        return sum(part.meta_gradient_evaluations(examples) for part in self._parts())

    def _parts(self) -> tuple[OptimizerSteps, OptimizerSteps]:
        return (
            OptimizerSteps(self.head_steps, InnerMomentum(self.head_step_size, self.decay), adapt_only=self.head),
            OptimizerSteps(self.steps, InnerMomentum(self.step_size, self.decay)),
        )
