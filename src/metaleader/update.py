"""Update procedures U: how parameters change on the data of one task (paper, sections 3 and 5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp

from metaleader.batch import Batch
from metaleader.objective import Objective, Params

MetaParams: TypeAlias = Any  # what is meta-learned: the parameters, for some procedures more
Step: TypeAlias = Callable[[Params, Batch], Params]


@runtime_checkable
class UpdateProcedure(Protocol):
    """U: from what was meta-learned and the data of a task to the task's parameters."""

    def init(self, params: Params) -> MetaParams:
        """What is meta-learned, from freshly drawn parameters."""
        ...

    def __call__(self, objective: Objective, meta_params: MetaParams, batch: Batch) -> Params:
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


@dataclass(frozen=True)
class Identity:
    """U(w) = w: no adaptation. With it FTML (Eq. 4) is follow the leader (section 3)."""

    def init(self, params: Params) -> MetaParams:
        """The parameters themselves."""
        return params

    def __call__(self, objective: Objective, meta_params: MetaParams, batch: Batch) -> Params:  # noqa: ARG002
        """`meta_params`, whatever the data."""
        return meta_params

    def gradient_evaluations(self, examples: int) -> int:  # noqa: ARG002
        """None."""
        return 0

    def meta_gradient_evaluations(self, examples: int) -> int:  # noqa: ARG002
        """None."""
        return 0


@dataclass(frozen=True)
class GradientDescent:
    """Full-batch gradient descent from w (paper, section 3 and Algorithm 2).

    `v_0 = w`, `v_{i+1} = v_i - alpha grad L(D, v_i)`, `U(w) = v_steps`.

    With `only` naming some of the parameters, `w = (a, b)`, the named part `a` moves and `b` stays; `b` is
    meta-learned all the same.

    Raises:
        ValueError: `steps` is negative, or `step_size` is not positive and finite.
    """

    steps: int = 5
    """Number of gradient steps."""
    step_size: float = 0.1
    """The step size alpha."""
    first_order: bool = False
    """Treat the inner gradient as a constant: dU/dw = I (first-order MAML)."""
    derivative: Literal["forward-over-reverse", "plain"] = "forward-over-reverse"
    """How to differentiate through the steps. `plain` leaves it to reverse mode, which stores what every
    inner gradient computed; `forward-over-reverse` stores the parameters of each step alone and takes a
    Hessian-vector product (Kemaev et al., 2025)."""
    only: tuple[str, ...] = ()
    """Names of the parameters that move, such as `head`; none named: all."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps must be at least 0, got {self.steps}")
        if not 0 < self.step_size < float("inf"):
            raise ValueError(f"step_size must be positive and finite, got {self.step_size}")

    def init(self, params: Params) -> MetaParams:
        """The parameters themselves."""
        return params

    def __call__(self, objective: Objective, meta_params: MetaParams, batch: Batch) -> Params:
        """U(w), with the derivative that `first_order` and `derivative` ask for.

        Raises:
            ValueError: no parameter bears a name in `only`.
        """
        moves = mask(meta_params, self.only)
        step: Step
        if self.first_order:
            step = partial(_descend, objective, jax.lax.stop_gradient, self.step_size, moves)
        elif self.derivative == "plain":
            step = partial(_descend, objective, lambda gradient: gradient, self.step_size, moves)
        else:
            step = _forward_over_reverse(objective, self.step_size, moves)

        def body(params: Params, _: None) -> tuple[Params, None]:
            return step(params, batch), None

        adapted: Params = jax.lax.scan(body, meta_params, length=self.steps)[0]
        return adapted

    def gradient_evaluations(self, examples: int) -> int:
        """One gradient a step and example."""
        return self.steps * examples

    def meta_gradient_evaluations(self, examples: int) -> int:
        """One Hessian-vector product a step and example, none for the first-order method."""
        return 0 if self.first_order else 2 * self.steps * examples


def mask(params: Params, only: tuple[str, ...]) -> Any:
    """A pytree of bools, true for the leaves below a key or attribute named in `only` (all, if none is named).

    Raises:
        ValueError: a name is borne by no parameter.
    """
    paths = [{_name(key) for key in path} for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    known = set[str]().union(*paths)
    if unknown := set(only) - known:
        raise ValueError(
            f"no parameter is named {', '.join(sorted(unknown))}: the names are {', '.join(sorted(known)) or 'none'}"
        )
    chosen = [not only or not names.isdisjoint(only) for names in paths]
    return jax.tree.unflatten(jax.tree.structure(params), chosen)


def _name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _descend(
    objective: Objective,
    through: Callable[[Params], Params],
    step_size: float,
    moves: Any,
    params: Params,
    batch: Batch,
) -> Params:
    """One step `v - alpha grad L(D, v)` on the leaves that move; `through` sees the gradient."""
    leaves, structure = jax.tree.flatten(params)
    moving = jax.tree.leaves(moves)

    def of_moving(moved: list[Any]) -> Any:
        following = iter(moved)
        merged = [next(following) if m else leaf for m, leaf in zip(moving, leaves, strict=True)]
        return objective(jax.tree.unflatten(structure, merged), batch)

    gradient = iter(through(jax.grad(of_moving)([leaf for m, leaf in zip(moving, leaves, strict=True) if m])))
    stepped = [leaf - step_size * next(gradient) if m else leaf for m, leaf in zip(moving, leaves, strict=True)]
    return jax.tree.unflatten(structure, stepped)


def _forward_over_reverse(objective: Objective, step_size: float, moves: Any) -> Step:
    """The step of `_descend` with a derivative of its own.

    For `w = (a, b)` of which `a` moves, `a' = a - alpha grad_a L(a, b)` and `b' = b`, the transposed
    Jacobian takes a cotangent `(p, q)` to `(p, q) - alpha H (p, 0)` with the Hessian `H` of L over (a, b), as
    `H` is symmetric. `H (p, 0)` is the derivative of the gradient in the direction `(p, 0)`.
    """

    @jax.custom_vjp
    def step(params: Params, batch: Batch) -> Params:
        return _descend(objective, lambda gradient: gradient, step_size, moves, params, batch)

    def forward(params: Params, batch: Batch) -> tuple[Params, tuple[Params, Batch]]:
        return step(params, batch), (params, batch)

    def backward(saved: tuple[Params, Batch], cotangent: Params) -> tuple[Params, None]:
        params, batch = saved
        direction = jax.tree.map(lambda m, c: c if m else jnp.zeros_like(c), moves, cotangent)
        curvature = jax.jvp(lambda v: jax.grad(objective)(v, batch), (params,), (direction,))[1]
        return jax.tree.map(lambda c, h: c - step_size * h, cotangent, curvature), None

    step.defvjp(forward, backward)
    return step
