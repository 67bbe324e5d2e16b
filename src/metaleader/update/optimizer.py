"""An optimiser inside: momentum, Adam, or any other of optax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaleader.errors import check_positive
from metaleader.problem.batch import Batch
from metaleader.problem.model import Params
from metaleader.problem.problem import Problem
from metaleader.update.procedure import MetaParams
from metaleader.update.steps import Steps

Optimizer: TypeAlias = optax.GradientTransformation | Callable[[], Any]


def transformation(optimizer: Optimizer) -> optax.GradientTransformation:
    """The optax transformation that an optimiser is, or that it gives when it is called, at 32 bits or more.

    Its state and its updates are at least 32-bit floats also where parameters have 16: there the epsilon of Adam and
    the square of a small gradient would be 0, and 0 / 0 would be the step.

    Raises:
        ValueError: it is neither.
    """
    found: Any = optimizer if _transforms(optimizer) else optimizer() if callable(optimizer) else None
    if not _transforms(found):
        raise ValueError(
            f"an optimiser must be an optax transformation such as optax.adam(1e-3), or a function that gives one; got "
            f"{optimizer!r}"
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return found.update(_widened(updates), state, _widened(params))

    return optax.GradientTransformation(lambda params: found.init(_widened(params)), update)


def _widened(tree: Any) -> Any:
    """Floats of at least 32 bits."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), tree)


def _transforms(value: Any) -> bool:
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))


@dataclass(frozen=True)
class InnerMomentum:
    """Heavy ball (Polyak, 1964): `m <- decay m + g`, `v <- v - step_size m`, from `m = 0`.

    Raises:
        ValueError: `step_size` is not positive and finite, or `decay` is not in [0, 1).

    Examples:
        >>> import jax.numpy as jnp, metaleader as ml
        >>> model = ml.Model(lambda key: jnp.zeros(()), lambda w, x, weights: w * x)
        >>> problem = ml.Problem(model, ml.squared_error, ml.mean_squared_error)
        >>> data = ml.Batch.of(jnp.ones((1, 1)), 2 * jnp.ones((1, 1)))  # the loss is (w - 2)^2
        >>> updates = [ml.OptimizerSteps(2, ml.InnerMomentum(0.25, decay)) for decay in (0.0, 0.5)]
        >>> [float(update(problem, jnp.zeros(()), data)) for update in updates]
        [1.5, 2.0]
    """

    RATES: ClassVar[tuple[str, ...]] = ("step_size",)
    step_size: float = 0.05
    """The step size alpha."""
    decay: float = 0.9
    """How much of the last move is kept."""

    def __post_init__(self) -> None:
        check_positive(self, "step_size")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {self.decay}")

    def __call__(self) -> optax.GradientTransformation:
        """The optax transformation."""
        return optax.sgd(self.step_size, self.decay)


@dataclass(frozen=True)
class InnerAdam:
    """Adam (Kingma & Ba, 2015) for use inside: `v <- v - step_size m' / sqrt(s' + epsilon^2)`.

    `m'` and `s'` are the bias-corrected running means of g and g^2. The epsilon stands under the root, since the
    derivative of the root itself is infinite at the zero gradient of an inactive unit.

    Raises:
        ValueError: `step_size` or `epsilon` is not positive and finite.

    Examples:
        >>> import jax.numpy as jnp, metaleader as ml
        >>> model = ml.Model(lambda key: jnp.zeros(()), lambda w, x, weights: w * x)
        >>> problem = ml.Problem(model, ml.squared_error, ml.mean_squared_error)
        >>> data = ml.Batch.of(jnp.ones((1, 1)), 2 * jnp.ones((1, 1)))  # the loss is (w - 2)^2
        >>> adapted = ml.OptimizerSteps(3, ml.InnerAdam(0.1))(problem, jnp.zeros(()), data)
        >>> round(float(adapted), 2)  # three steps of about 0.1, however large the gradient
        0.3
    """

    RATES: ClassVar[tuple[str, ...]] = ("step_size",)
    step_size: float = 0.01
    """The step size alpha."""
    epsilon: float = 1e-3
    """The size of a gradient below which steps shrink with it. Above it the first step is nearly the sign of the
    gradient, whose derivative is nearly zero."""

    def __post_init__(self) -> None:
        check_positive(self, "step_size", "epsilon")

    def __call__(self) -> optax.GradientTransformation:
        """The optax transformation."""
        return optax.adam(self.step_size, eps=0.0, eps_root=self.epsilon**2)


@dataclass(frozen=True)
class OptimizerSteps(Steps):
    """Steps of an optimiser from w on all data of the task, its state fresh for every task.

    `v_0 = w`, `(v_{i+1}, s_{i+1}) = optimiser(v_i, s_i, grad L(D, v_i))`, `U(w) = v_steps`. The derivative passes
    through the optimiser's state; in forward over reverse mode, what is stored are the parameters, gradients
    and optimiser states of the steps and, within `KEPT`, the gradients' intermediate results.

    Raises:
        ValueError: `steps` is negative.

    Examples:
        >>> import jax.numpy as jnp, optax, metaleader as ml
        >>> model = ml.Model(lambda key: jnp.zeros(()), lambda w, x, weights: w * x)
        >>> problem = ml.Problem(model, ml.squared_error, ml.mean_squared_error)
        >>> data = ml.Batch.of(jnp.ones((1, 1)), 2 * jnp.ones((1, 1)))  # the loss is (w - 2)^2
        >>> updates = ml.OptimizerSteps(2, optax.sgd(0.25)), ml.GradientDescent(2, 0.25)
        >>> [float(update(problem, jnp.zeros(()), data)) for update in updates]
        [1.5, 1.5]
    """

    RATES: ClassVar[tuple[str, ...]] = ()
    optimizer: InnerMomentum | InnerAdam | Optimizer = InnerMomentum()
    """An optax transformation, or a function that gives one."""

    def init(self, params: Params) -> MetaParams:
        """The parameters themselves.

        Raises:
            ValueError: meta-gradients would be NaN, since the optimiser has no derivative at a gradient of 0.
        """
        if not self.first_order and not _differentiable_at_zero(transformation(self.optimizer), params):
            raise ValueError(
                "the optimiser of OptimizerSteps has no finite derivative where an inner gradient is 0, as that of an "
                "inactive unit: meta-gradients would be NaN. Use InnerAdam(), set eps_root as in optax.adam(0.01, "
                "eps_root=1e-6), or set first_order=True"
            )
        return params

    def __call__(self, problem: Problem, meta_params: MetaParams, batch: Batch) -> Params:
        """U(w).

        Raises:
            ValueError: no parameter bears a name in `adapt_only`.
        """
        inner = transformation(self.optimizer)
        gradient = self.inner_gradient(problem.objective, meta_params)

        def step(carry: tuple[Params, Any], i: Any) -> tuple[tuple[Params, Any], None]:
            params, state = carry
            changes, state = inner.update(gradient(params, batch.in_step(i)), state, params)
            return (self.moving(optax.apply_updates(params, changes), params), state), None

        start = (meta_params, inner.init(meta_params))
        adapted: Params = jax.lax.scan(step, start, jnp.arange(self.steps))[0][0]
        return adapted


def _differentiable_at_zero(optimizer: optax.GradientTransformation, params: Params) -> bool:
    """Whether two steps on gradients of 0 have a finite derivative in these gradients; square roots there have none."""

    def moved(gradients: Params) -> Any:
        state, total = optimizer.init(zeros), jnp.zeros(())
        for _ in range(2):
            changes, state = optimizer.update(gradients, state, zeros)
            total += sum(jnp.sum(leaf) for leaf in jax.tree.leaves(changes))
        return total

    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
    with jax.ensure_compile_time_eval():  # also where parameters are drawn within a compiled function
        derivative = jax.jit(jax.grad(moved))(zeros)
    return all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(derivative))
