"""Gradient descent, with step sizes that are given, learned, or depend on how much data there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from metaleader.errors import check_positive
from metaleader.problem.batch import Batch
from metaleader.problem.model import Params
from metaleader.problem.problem import Problem
from metaleader.update.procedure import MetaParams
from metaleader.update.steps import Gradient, Steps


@dataclass(frozen=True)
class GradientDescent(Steps):
    """Full-batch gradient descent from w (paper, section 3 and Algorithm 2).

    `v_0 = w`, `v_{i+1} = v_i - alpha grad L(D, v_i)`, `U(w) = v_steps`.

    With `adapt_only` naming some of the parameters, `w = (a, b)`, the named part `a` moves and `b` stays; `b` is
    meta-learned all the same. With `first_order`, dU/dw = I.

    With a `prior_strength` h, steps are smaller on few datapoints, which say little about the task: on n of them,
    `alpha n / (n + h)`. This is the shrinkage factor of a Gaussian posterior mean whose prior is worth h
    observations.

    With `clip`, no inner gradient is longer than that (Pascanu et al., 2013). Where some targets lie far from all
    others, a step size that suits most tasks makes the steps on a few of them diverge.

    Raises:
        ValueError: `steps` or `prior_strength` is negative, or `step_size` or `clip` is not positive and finite.

    Examples:
        >>> import jax.numpy as jnp, metaleader as ml
        >>> model = ml.Model(lambda key: jnp.zeros(()), lambda w, x, weights: w * x)
        >>> problem = ml.Problem(model, ml.squared_error, ml.mean_squared_error)
        >>> data = ml.Batch.of(jnp.ones((1, 1)), 2 * jnp.ones((1, 1)))  # the loss is (w - 2)^2
        >>> updates = [ml.GradientDescent(steps, step_size=0.25) for steps in (0, 1, 2, 3)]
        >>> [float(update(problem, jnp.zeros(()), data)) for update in updates]  # each step goes half the way
        [0.0, 1.0, 1.5, 1.75]
    """

    RATES: ClassVar[tuple[str, ...]] = ("step_size",)
    step_size: float = 0.1
    """The step size alpha."""
    prior_strength: float = 0.0
    """Number of datapoints at which the step is halved; 0 disables this."""
    clip: float | None = None
    """Largest global norm of an inner gradient, to which longer ones are scaled; None: they are taken as they are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "step_size")
        if self.clip is not None:
            check_positive(self, "clip")
        _check_prior_strength(self.prior_strength)

    def init(self, params: Params) -> MetaParams:
        """The parameters themselves."""
        return params

    def __call__(self, problem: Problem, meta_params: MetaParams, batch: Batch) -> Params:
        """U(w), with the derivative that `first_order` and `derivative` ask for.

        Raises:
            ValueError: no parameter bears a name in `adapt_only`.
        """
        alpha = self.step_size if self.prior_strength == 0 else self.step_size * _share(batch, self.prior_strength)
        gradient = self.inner_gradient(problem.objective, meta_params)
        if self.clip is not None:
            gradient = _clipped(gradient, self.clip)
        return _descend(self, gradient, meta_params, jax.tree.map(lambda _: alpha, meta_params), batch)


class MetaSGDParams(NamedTuple):
    """What Meta-SGD learns.

    Attributes:
        params: w.
        step_sizes: alpha, of the same structure and shapes.
        log_prior_strength: the logarithm of h, a scalar; None where steps do not depend on the number of datapoints.
    """

    params: Params
    step_sizes: Params
    log_prior_strength: Any = None


@dataclass(frozen=True)
class MetaSGD(Steps):
    """Gradient descent with a learned step size for every parameter (Li et al., 2017).

    `v_0 = w`, `v_{i+1} = v_i - alpha o grad L(D, v_i)`, `U(w, alpha) = v_steps`; w and alpha are meta-learned
    together. As in the source, alpha is not kept positive.

    With `prior_strength`, the steps depend on the number of datapoints n as well, alpha n / (n + h), and h is learned
    too, as `log h` and from that value. It takes meta-training on D_tr of different sizes to learn it
    (`FTML.vary_train_size`).

    Raises:
        ValueError: `steps` or `prior_strength` is negative, or `step_size` is not positive and finite.

    Examples:
        >>> import jax.numpy as jnp, metaleader as ml
        >>> model = ml.Model(lambda key: jnp.zeros(()), lambda w, x, weights: w * x)
        >>> problem = ml.Problem(model, ml.squared_error, ml.mean_squared_error)
        >>> data = ml.Batch.of(jnp.ones((1, 1)), 2 * jnp.ones((1, 1)))  # the loss is (w - 2)^2
        >>> update = ml.MetaSGD(steps=1, step_size=0.25)
        >>> given = update.init(jnp.zeros(()))
        >>> learned = given._replace(step_sizes=jnp.array(0.5))  # the step that leads to the minimum
        >>> [float(update(problem, meta_params, data)) for meta_params in (given, learned)]
        [1.0, 2.0]
    """

    RATES: ClassVar[tuple[str, ...]] = ("step_size",)
    step_size: float = 0.1
    """The step size that all parameters begin with."""
    prior_strength: float = 0.0
    """The value that h, in datapoints, begins with; 0: the same steps for any number of datapoints."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "step_size")
        _check_prior_strength(self.prior_strength)

    def init(self, params: Params) -> MetaSGDParams:
        """The parameters with the initial step sizes."""
        step_sizes = jax.tree.map(lambda leaf: jnp.full_like(leaf, self.step_size), params)
        log_prior_strength = None if self.prior_strength == 0 else jnp.log(jnp.array(self.prior_strength, float))
        return MetaSGDParams(params, step_sizes, log_prior_strength)

    def __call__(self, problem: Problem, meta_params: MetaParams, batch: Batch) -> Params:
        """U(w, alpha), differentiable in both.

        Raises:
            ValueError: no parameter bears a name in `adapt_only`.
        """
        params, step_sizes, log_prior_strength = meta_params
        if log_prior_strength is not None:
            share = _share(batch, jnp.exp(log_prior_strength))
            step_sizes = jax.tree.map(lambda alpha: alpha * share, step_sizes)
        return _descend(self, self.inner_gradient(problem.objective, params), params, step_sizes, batch)


@dataclass(frozen=True)
class Reptile:
    """Gradient descent, meta-learned by moving w towards what it finds (Reptile; Nichol et al., 2018).

    `U(w)` is `GradientDescent`. Reptile's direction is `(w - U'(w)) / alpha` with `U'` the same steps and one more,
    here on the other minibatch: `steps` on D_tr, then one on D_val. That is the sum of all inner gradients,
    `sum_i grad L(D_tr, v_i) + grad L(D_val, U(w))`; the first-order method takes the last one alone. It is the
    gradient of

        `L(D_val, U(w)) + |w - U(w)|^2 / (2 alpha)`,

    where the first term is differentiated to first order and U(w) is a constant in the second, and costs as much as
    the first-order method.

    Raises:
        ValueError: `steps` is negative, or `step_size` is not positive and finite.

    Examples:
        >>> import jax, jax.numpy as jnp, metaleader as ml
        >>> model = ml.Model(lambda key: jnp.zeros(()), lambda w, x, weights: w * x)
        >>> problem = ml.Problem(model, ml.squared_error, ml.mean_squared_error)
        >>> data = ml.Batch.of(jnp.ones((1, 1)), 2 * jnp.ones((1, 1)))  # the loss is (w - 2)^2
        >>> update = ml.Reptile(steps=1, step_size=0.25)  # gradients -4 at w = 0, then -2 at U(w) = 1
        >>> float(jax.grad(lambda w: ml.meta_objective(problem, update, w, data, data))(0.0))
        -6.0
    """

    steps: int = 5
    """Number of gradient steps."""
    step_size: float = 0.1
    """The step size alpha."""

    def __post_init__(self) -> None:
        check_positive(self, "step_size")
        self.descent  # noqa: B018 - checks the steps

    @property
    def descent(self) -> GradientDescent:
        """The steps, differentiated to first order."""
        return GradientDescent(self.steps, self.step_size, first_order=True)

    def init(self, params: Params) -> MetaParams:
        """The parameters themselves."""
        return params

    def __call__(self, problem: Problem, meta_params: MetaParams, batch: Batch) -> Params:
        """U(w), with dU/dw = I."""
        return self.descent(problem, meta_params, batch)

    def pull(self, meta_params: MetaParams, adapted: Params) -> Float[Array, ""]:
        """`|w - U(w)|^2 / (2 alpha)`, U(w) a constant."""
        moved = jax.tree.map(lambda w, v: jnp.sum(jnp.square(w - jax.lax.stop_gradient(v))), meta_params, adapted)
        return sum(jax.tree.leaves(moved), jnp.zeros(())) / (2 * self.step_size)

    def gradient_evaluations(self, examples: int) -> int:
        """One gradient a step and example."""
        return self.descent.gradient_evaluations(examples)

    def meta_gradient_evaluations(self, examples: int) -> int:
        """Zero extra: Reptile reuses the inner gradients."""
        return self.descent.meta_gradient_evaluations(examples)


def _check_prior_strength(prior_strength: float) -> None:
    if not 0 <= prior_strength < float("inf"):
        raise ValueError(f"prior_strength must be at least 0 and finite, got {prior_strength}")


def _share(batch: Batch, prior_strength: Any) -> Any:
    """`n / (n + prior_strength)` for the n datapoints of the batch, padding left out; 0 for none."""
    n = jnp.sum(batch.weights)
    return n / (n + prior_strength)


def _clipped(gradient: Gradient, norm: float) -> Gradient:
    """The gradient, scaled to the norm where it is longer."""

    def clipped(v: Params, batch: Batch) -> Params:
        found = gradient(v, batch)
        square = optax.tree.norm(found, squared=True)
        # The root is never taken of 0, where its derivative is infinite.
        scale = jnp.where(square > norm**2, norm * jax.lax.rsqrt(jnp.maximum(square, norm**2)), 1)
        return jax.tree.map(lambda g: (g * scale).astype(g.dtype), found)

    return clipped


def _descend(update: Steps, gradient: Gradient, params: Params, step_sizes: Params, batch: Batch) -> Params:
    """`v - alpha o grad L(D, v)`, as often as the update takes steps."""

    def moved(p: Array, alpha: Any, g: Array) -> Array:
        return (p - alpha * g).astype(p.dtype)  # a share of the data may be of higher precision than parameters

    def step(v: Params, i: Any) -> tuple[Params, None]:
        return update.moving(jax.tree.map(moved, v, step_sizes, gradient(v, batch.in_step(i))), v), None

    adapted: Params = jax.lax.scan(step, params, jnp.arange(update.steps))[0]
    return adapted
