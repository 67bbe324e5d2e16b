"""The last layer in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metaleader.errors import check_positive
from metaleader.problem.batch import Batch
from metaleader.problem.model import Params, features
from metaleader.problem.problem import Problem
from metaleader.update.procedure import MetaParams


class RidgeParams(NamedTuple):
    """What `Ridge` learns.

    Attributes:
        params: w, the prior head W_0 among them.
        log_regulariser: the logarithms of lambda for the weights of the head and for its bias, `(2,)`.
        log_scale: the logarithm of s, a scalar.
    """

    params: Params
    log_regulariser: Any
    log_scale: Any


@dataclass(frozen=True)
class Ridge:
    """The head solved by ridge regression on the features of the task's data (Bertinetto et al., ICLR 2019).

    With the features `phi_i` of an example, a one appended for the bias, and weights `a_i` of the examples,

        `W = argmin_V sum_i a_i |y_i - phi_i V|^2 + tr((V - W_0)' Lambda (V - W_0))`,

    where `Lambda` has lambda for every feature and another one for the bias. The features, the prior head W_0 and both
    lambdas are meta-learned together, through the solution. W is also the posterior mean of a linear model with prior
    mean W_0 (ALPaCA; Harrison et al., 2018): the more datapoints, the less the prior counts, and without any W is W_0.

    Where targets are labels, y_i is one-hot less its mean `1 / classes`, and the head is `s W` with a scale s that is
    learned, too, as logits have other sizes than the numbers 0 and 1.

    The model must have a linear head `{"kernel", "bias"}`, and `features` (see `problem.model.ModelLike`).

    Raises:
        ValueError: a setting is not positive and finite.

    Examples:
        >>> import jax, numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
        >>> update = ml.Ridge(regulariser=0.01)
        >>> meta_params = update.init(problem.init(jax.random.key(0)))
        >>> adapted = update(problem, meta_params, ml.Batch.of(x, 3 * x + 1))
        >>> round(float(adapted["head"]["kernel"][0, 0]), 1), round(float(adapted["head"]["bias"][0]), 1)
        (3.0, 1.0)
    """

    RATES: ClassVar[tuple[str, ...]] = ("regulariser", "scale")
    regulariser: float = 1.0
    """What both lambdas begin with."""
    scale: float = 5.0
    """What s begins with."""
    head: str = "head"
    """The name of the parameters that are the head."""

    def __post_init__(self) -> None:
        check_positive(self, "regulariser", "scale")

    def init(self, params: Params) -> RidgeParams:
        """The parameters, with the initial lambdas and scale."""
        regulariser, scale = jnp.log(jnp.array([self.regulariser, self.scale], float))
        return RidgeParams(params, jnp.full(2, regulariser), scale)

    def __call__(self, problem: Problem, meta_params: MetaParams, batch: Batch) -> Params:
        """U(w), differentiable in all that is learned.

        Raises:
            ValueError: the model has no features or no such head, or targets do not fit it.
        """
        params, log_regulariser, log_scale = meta_params
        head = _head(params, self.head)
        kind = head["kernel"].dtype
        weights = jnp.asarray(batch.weights)
        phi = features(problem.net, params, batch.inputs, weights)
        if phi.shape[1:] != head["kernel"].shape[:1]:
            raise ValueError(f"the model has features of shape {phi.shape[1:]}, and a head for {head['kernel'].shape}")
        # Solving takes 32 bits at least, and there is none for 16.
        phi, prior, bias, log_regulariser, log_scale = (
            each.astype(jnp.promote_types(each.dtype, jnp.float32))
            for each in (phi, head["kernel"], head["bias"], log_regulariser, log_scale)
        )
        targets, labels = _targets(batch.targets, prior)
        of_weights, of_bias = jnp.exp(log_regulariser)
        # Padding without an example to repeat is zeros, of which features need not be finite.
        phi = jnp.where(weights[:, None] > 0, phi, 0)
        phi = jnp.concatenate([phi, jnp.ones_like(phi[:, :1])], axis=1)
        prior = jnp.concatenate([prior, bias[None]])
        regulariser = jnp.append(jnp.full(len(prior) - 1, of_weights), of_bias)
        solved = prior + _solved(phi, targets - phi @ prior, weights, regulariser)
        if labels:
            solved = solved * jnp.exp(log_scale)
        solved = solved.astype(kind)
        return {**params, self.head: {"kernel": solved[:-1], "bias": solved[-1]}}

    def gradient_evaluations(self, examples: int) -> int:
        """One an example: its features take a part of a gradient."""
        return examples

    def meta_gradient_evaluations(self, examples: int) -> int:  # noqa: ARG002
        """Zero extra: with the features going back through them makes one gradient."""
        return 0


def _head(params: Params, name: str) -> dict[str, Array]:
    head = params.get(name) if isinstance(params, dict) else None
    if not isinstance(head, dict) or set(head) != {"kernel", "bias"} or head["kernel"].ndim != 2:
        raise ValueError(
            f"Ridge needs a linear head, parameters {{{name!r}: {{'kernel': (features, outputs), 'bias': (outputs,)}}}}"
        )
    return head


def _targets(targets: Any, prior: Float[Array, "d o"]) -> tuple[Float[Array, "n o"], bool]:
    """What the head is fitted to, and whether these are labels.

    Raises:
        ValueError: they have another shape than the outputs.
    """
    outputs = prior.shape[1]
    targets = jnp.asarray(targets)
    if jnp.issubdtype(targets.dtype, jnp.floating):
        if targets.shape[1:] != (outputs,) and (targets.shape[1:], outputs) != ((), 1):
            raise ValueError(f"Ridge fits targets of shape ({outputs},) an example, got {targets.shape[1:]}")
        return targets.reshape(-1, outputs).astype(prior.dtype), False
    if targets.ndim != 1 or outputs == 1:
        raise ValueError(
            f"Ridge takes one label an example, for two outputs or more, got targets of shape {targets.shape[1:]} for "
            f"{outputs}: give numbers as floats"
        )
    return jax.nn.one_hot(targets.astype(jnp.int32), outputs, dtype=prior.dtype) - 1 / outputs, True


def _solved(
    phi: Float[Array, "n d"],
    residual: Float[Array, "n o"],
    weights: Float[Array, " n"],
    regulariser: Float[Array, " d"],
) -> Float[Array, "d o"]:
    """`(phi' A phi + Lambda)^-1 phi' A residual`, by a system of n or of d equations, whichever is smaller.

    With `P = A^(1/2) phi Lambda^(-1/2)` it is `Lambda^(-1/2) P' (P P' + I)^-1 A^(1/2) residual`.
    """
    half = jnp.sqrt(weights).astype(phi.dtype)[:, None]
    scaled, right = half * phi * jax.lax.rsqrt(regulariser), half * residual
    n, d = phi.shape
    if n < d:
        found = scaled.T @ jax.scipy.linalg.solve(scaled @ scaled.T + jnp.eye(n), right, assume_a="pos")
    else:
        found = jax.scipy.linalg.solve(scaled.T @ scaled + jnp.eye(d), scaled.T @ right, assume_a="pos")
    return jax.lax.rsqrt(regulariser)[:, None] * found
