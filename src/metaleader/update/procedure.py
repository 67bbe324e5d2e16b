"""What an update procedure is, and the one that does nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Array, Float

from metaleader.problem.batch import Batch
from metaleader.problem.model import Params
from metaleader.problem.problem import Problem

MetaParams: TypeAlias = Any  # what is meta-learned: the parameters, for some procedures more


@runtime_checkable
class UpdateProcedure(Protocol):
    """U: from what was meta-learned and the data of a task to the task's parameters.

    Examples:
        >>> import metaleader as ml
        >>> update = ml.GradientDescent(steps=5)
        >>> isinstance(update, ml.UpdateProcedure)
        True
        >>> update.gradient_evaluations(10), update.meta_gradient_evaluations(10)  # of 10 examples
        (50, 100)
    """

    def init(self, params: Params) -> MetaParams:
        """What is meta-learned, from freshly drawn parameters."""
        ...

    def __call__(self, problem: Problem, meta_params: MetaParams, batch: Batch) -> Params:
        """U(w) on the data `batch`; differentiable in `meta_params`."""
        ...

    def gradient_evaluations(self, examples: int) -> int:
        """Per-example gradients that one call on so many examples takes."""
        ...

    def meta_gradient_evaluations(self, examples: int) -> int:
        """Per-example gradients that differentiating one call takes, beyond the call itself.

        A Hessian-vector product counts as two gradients.
        """
        ...


@runtime_checkable
class PullsBack(Protocol):
    """An update procedure with a term of its own in the meta-objective, such as Reptile's."""

    def pull(self, meta_params: MetaParams, adapted: Params) -> Float[Array, ""]:
        """What is added to L(D_val, U(w)), from w and U(w)."""
        ...


@dataclass(frozen=True)
class Identity:
    """U(w) = w: no adaptation. With it FTML (Eq. 4) is follow the leader (section 3).

    Examples:
        >>> import jax.numpy as jnp, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> data = ml.Batch.of(jnp.ones((1, 1)), 2 * jnp.ones((1, 1)))
        >>> ml.Identity()(problem, {"w": 3.0}, data)
        {'w': 3.0}
    """

    def init(self, params: Params) -> MetaParams:
        """The parameters themselves."""
        return params

    def __call__(self, problem: Problem, meta_params: MetaParams, batch: Batch) -> Params:  # noqa: ARG002
        """`meta_params`, whatever the data."""
        return meta_params

    def gradient_evaluations(self, examples: int) -> int:  # noqa: ARG002
        """Zero: nothing is adapted."""
        return 0

    def meta_gradient_evaluations(self, examples: int) -> int:  # noqa: ARG002
        """Zero: there is nothing to differentiate."""
        return 0
