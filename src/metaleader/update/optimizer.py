"""An optimiser inside: momentum, Adam, or any other of optax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from metaleader.errors import check_positive
from metaleader.problem.batch import Batch
from metaleader.problem.model import Objective, Params
from metaleader.update.procedure import MetaParams
from metaleader.update.steps import Steps

Optimizer: TypeAlias = optax.GradientTransformation | Callable[[], Any]


def transformation(optimizer: Optimizer) -> optax.GradientTransformation:
    """The optax transformation that an optimiser is, or that it gives when it is called.

    Raises:
        ValueError: it is neither.
    """
    found = optimizer if _transforms(optimizer) else optimizer() if callable(optimizer) else None
    if not _transforms(found):
        raise ValueError(
            f"an optimiser must be an optax transformation such as optax.adam(1e-3), or a function that gives one; got "
            f"{optimizer!r}"
        )
    return found


def _transforms(value: Any) -> bool:
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))


@dataclass(frozen=True)
class InnerMomentum:
    """Heavy ball (Polyak, 1964): `m <- decay m + g`, `v <- v - step_size m`, from `m = 0`.

    Raises:
        ValueError: `step_size` is not positive and finite, or `decay` is not in [0, 1).
    """

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
    """

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
    """

    optimizer: InnerMomentum | InnerAdam | Optimizer = InnerMomentum()
    """An optax transformation, or a function that gives one."""

    def init(self, params: Params) -> MetaParams:
        """The parameters themselves."""
        return params

    def __call__(self, objective: Objective, meta_params: MetaParams, batch: Batch) -> Params:
        """U(w).

        Raises:
            ValueError: no parameter bears a name in `adapt_only`.
        """
        inner = transformation(self.optimizer)
        gradient = self.inner_gradient(objective, meta_params)

        def step(carry: tuple[Params, Any], i: Any) -> tuple[tuple[Params, Any], None]:
            params, state = carry
            changes, state = inner.update(gradient(params, batch.in_step(i)), state, params)
            return (optax.apply_updates(params, changes), state), None

        start = (meta_params, inner.init(meta_params))
        adapted: Params = jax.lax.scan(step, start, jnp.arange(self.steps))[0][0]
        return adapted
