"""The proximal update, differentiated implicitly (iMAML; Rajeswaran et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from metaleader.errors import check_positive, check_word
from metaleader.problem.batch import Batch
from metaleader.problem.model import Objective, Params
from metaleader.problem.problem import Problem
from metaleader.update.procedure import MetaParams
from metaleader.update.steps import hessian_vector_product

Solver = Literal["gradient", "newton"]


@dataclass(frozen=True)
class Proximal:
    """`U(w) = argmin_v L(D, v) + lambda/2 |v - w|^2`, by a fixed number of steps from w.

    At the minimum, `dU/dw = (I + H / lambda)^{-1}` with the Hessian H of L at U(w), whichever way led there (Lemma 1 of
    the source); its product with a cotangent is found by conjugate gradients. Nothing of the steps is stored.

    The derivative is exact where the steps reached the minimum and conjugate gradients their tolerance: both
    leave an error, in proportion to the distance that is left. I + H / lambda must be positive definite:
    where the loss is not convex, choose lambda above the largest negative curvature.

    Raises:
        ValueError: a setting is not positive and finite, `tolerance` is negative, or there is no such solver.

    Examples:
        >>> import jax.numpy as jnp, metaleader as ml
        >>> model = ml.Model(lambda key: jnp.zeros(()), lambda w, x, weights: w * x)
        >>> problem = ml.Problem(model, ml.squared_error, ml.mean_squared_error)
        >>> data = ml.Batch.of(jnp.ones((1, 1)), 2 * jnp.ones((1, 1)))  # the loss is (w - 2)^2
        >>> updates = [ml.Proximal(steps=1, strength=strength, solver="newton") for strength in (0.5, 2.0, 6.0)]
        >>> [round(float(update(problem, jnp.zeros(()), data)), 3) for update in updates]  # 4 / (2 + strength)
        [1.6, 1.0, 0.5]
    """

    steps: int = 10
    """Number of steps of the solver."""
    step_size: float = 0.1
    """The step size of gradient steps."""
    strength: float = 1.0
    """lambda: how strongly U(w) is held at w."""
    solver: Solver = "gradient"
    """`gradient`: v <- v - step_size (grad L(D, v) + lambda (v - w)). `newton`: the full Newton step, by conjugate
    gradients on H + lambda I."""
    cg_steps: int = 5
    """The most steps of conjugate gradients, in the derivative and in each Newton step."""
    tolerance: float = 1e-5
    """Conjugate gradients stop sooner where the residual is this small relative to the right-hand side."""

    def __post_init__(self) -> None:
        check_positive(self, "steps", "step_size", "strength", "cg_steps")
        check_word("solver", self.solver, get_args(Solver))
        if not 0 <= self.tolerance < float("inf"):
            raise ValueError(f"tolerance must be at least 0 and finite, got {self.tolerance}")

    def init(self, params: Params) -> MetaParams:
        """The parameters themselves."""
        return params

    def __call__(self, problem: Problem, meta_params: MetaParams, batch: Batch) -> Params:
        """U(w), with the implicit derivative."""

        @jax.custom_vjp
        def solve(w: Params, batch: Batch) -> Params:
            return self._minimise(problem.objective, w, batch)

        def forward(w: Params, batch: Batch) -> tuple[Params, tuple[Params, Batch]]:
            v = solve(w, batch)
            return v, (v, batch)

        def backward(saved: tuple[Params, Batch], cotangent: Params) -> tuple[Params, None]:
            scaled = self._solve(problem.objective, *saved, cotangent)
            return jax.tree.map(lambda x: self.strength * x, scaled), None

        solve.defvjp(forward, backward)
        return solve(meta_params, batch)

    def gradient_evaluations(self, examples: int) -> int:
        """One gradient a step and example; for Newton, the most products of conjugate gradients as well."""
        newton = self._products() if self.solver == "newton" else 0
        return self.steps * (1 + newton) * examples

    def meta_gradient_evaluations(self, examples: int) -> int:
        """The Hessian-vector products of conjugate gradients, the most that `cg_steps` allows."""
        return self._products() * examples

    def _products(self) -> int:
        # One for the residual that conjugate gradients begin with, and one a step.
        return 2 * (self.cg_steps + 1)

    def _minimise(self, objective: Objective, w: Params, batch: Batch) -> Params:
        def step(v: Params, i: Any) -> tuple[Params, None]:
            gradient = jax.grad(objective)(v, batch.in_step(i))
            slope = jax.tree.map(lambda g, v, w: g + self.strength * (v - w), gradient, v, w)
            if self.solver == "newton":
                move = self._solve(objective, v, batch, slope)
                return jax.tree.map(lambda v, m: v - m, v, move), None
            return jax.tree.map(lambda v, s: v - self.step_size * s, v, slope), None

        return jax.lax.scan(step, w, jnp.arange(self.steps))[0]

    def _solve(self, objective: Objective, v: Params, batch: Batch, right: Params) -> Any:
        """`x` with `(H + lambda I) x = right`, from `x = right / lambda`, its value without curvature."""

        def operator(x: Params) -> Params:
            curvature = hessian_vector_product(objective, v, batch, x)
            return jax.tree.map(lambda h, x: h + self.strength * x, curvature, x)

        start = jax.tree.map(lambda r: r / self.strength, right)
        return cg(operator, right, start, tol=self.tolerance, maxiter=self.cg_steps)[0]
