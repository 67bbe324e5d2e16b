"""What update procedures made of gradient steps share: the inner gradient, its derivative, and its cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from metaleader.errors import check_word
from metaleader.problem.batch import Batch
from metaleader.problem.model import Objective, Params

Derivative = Literal["forward-over-reverse", "plain"]
Gradient: TypeAlias = Callable[[Params, Batch], Params]
# The most bytes of intermediate results to keep for a task, all steps together. Beyond a core's share of the cache,
# computing them again is faster (measured on CPUs). Tasks that share a computation keep as much each.
KEPT = 16 << 20


@dataclass(frozen=True)
class Steps:
    """The settings of any procedure that takes `steps` inner gradients, each at the parameters reached.

    Raises:
        ValueError: `steps` is negative, or there is no such derivative.
    """

    steps: int = 5
    """Number of gradient steps."""
    _: KW_ONLY
    first_order: bool = False
    """Treat the inner gradients as constants (first-order MAML)."""
    derivative: Derivative = "forward-over-reverse"
    """How to differentiate through the steps. `plain` leaves it to reverse mode, which stores what every
    inner gradient computed; `forward-over-reverse` takes a Hessian-vector product (Kemaev et al., 2025) and stores
    arrays of the size of the parameters alone; where all parameters move and the gradients' intermediate results
    take at most `KEPT` bytes, it stores those, which spares computing them twice."""
    adapt_only: tuple[str, ...] = ()
    """Names of the parameters that move, such as `head`; none named: all."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps must be at least 0, got {self.steps}")
        check_word("derivative", self.derivative, get_args(Derivative))

    def inner_gradient(self, objective: Objective, params: Params) -> Gradient:
        """`grad L(D, v)` as a function of `v` and `D`, with the derivative asked for.

        It is zero for parameters that do not move. Its transposed Jacobian takes a cotangent `c` to `H c` with the
        Hessian `H` of L, which is symmetric; `c` has no part where the gradient was made zero.

        Raises:
            ValueError: no parameter bears a name in `adapt_only`.
        """
        moves = mask(params, self.adapt_only)
        if self.first_order:
            return lambda v, batch: jax.lax.stop_gradient(_gradient(objective, moves, v, batch))
        if self.derivative == "plain":
            return lambda v, batch: _gradient(objective, moves, v, batch)

        @jax.custom_vjp
        def gradient(v: Params, batch: Batch) -> Params:
            return _gradient(objective, moves, v, batch)

        def forward(v: Params, batch: Batch) -> tuple[Params, Callable[[Params], Params]]:
            if all(jax.tree.leaves(moves)):  # otherwise frozen parameters are differentiated too
                found, times_hessian = jax.linearize(lambda v: jax.grad(objective)(v, batch), v)
                if self.steps * _bytes(times_hessian) <= KEPT:
                    return found, times_hessian
            return gradient(v, batch), Partial(partial(hessian_vector_product, objective), v, batch)

        def backward(times_hessian: Callable[[Params], Params], cotangent: Params) -> tuple[Params, None]:
            return times_hessian(jax.tree.map(lambda m, c: c if m else jnp.zeros_like(c), moves, cotangent)), None

        gradient.defvjp(forward, backward)
        return gradient

    def gradient_evaluations(self, examples: int) -> int:
        """One gradient a step and example."""
        return self.steps * examples

    def meta_gradient_evaluations(self, examples: int) -> int:
        """One Hessian-vector product a step and example, none for the first-order method."""
        return 0 if self.first_order else 2 * self.steps * examples

    def moving(self, new: Params, old: Params) -> Params:
        """`new`, with the parameters that do not move as they are in `old`.

        To the compiler these are then the same in all steps, and what depends on them and the data alone, such as the
        features under a head that moves, is computed once.
        """
        return jax.tree.map(lambda moves, n, o: n if moves else o, mask(old, self.adapt_only), new, old)


def hessian_vector_product(objective: Objective, params: Params, batch: Batch, direction: Params) -> Params:
    """`H d`: the derivative of `grad L(D, v)` in the direction `d`, forward over reverse."""
    return jax.jvp(lambda v: jax.grad(objective)(v, batch), (params,), (direction,))[1]


def _bytes(arrays: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))


def mask(params: Params, only: Sequence[str]) -> Any:
    """A pytree of bools, true for the leaves below a key or attribute named in `adapt_only` (all, if none is named).

    Raises:
        ValueError: a name is borne by no parameter; or there is a word in place of a tuple of names.
    """
    if isinstance(only, str):
        raise ValueError(f"names of parameters are a tuple, as ({only!r},), got {only!r}")
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


def _gradient(objective: Objective, moves: Any, params: Params, batch: Batch) -> Params:
    """`grad L(D, v)` for the leaves that move, zeros for the others, through which nothing is propagated."""
    leaves, structure = jax.tree.flatten(params)
    moving = jax.tree.leaves(moves)

    def of_moving(moved: list[Any]) -> Any:
        following = iter(moved)
        merged = [next(following) if m else leaf for m, leaf in zip(moving, leaves, strict=True)]
        return objective(jax.tree.unflatten(structure, merged), batch)

    gradient = iter(jax.grad(of_moving)([leaf for m, leaf in zip(moving, leaves, strict=True) if m]))
    return jax.tree.unflatten(
        structure, [next(gradient) if m else jnp.zeros_like(leaf) for m, leaf in zip(moving, leaves, strict=True)]
    )
