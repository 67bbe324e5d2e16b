"""Outer optimisers: optax's, with the average of their iterates where it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from metaleader.errors import check_positive
from metaleader.problem.model import Params


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba, 2015), with optax's defaults but for the learning rate.

    With `average` = a, a task's adaptation begins from the exponential moving average (EMA) of the iterates w_1, ...,
    w_s instead of the last one, whose noise a constant learning rate never lets settle:
    `sum_i a^(s-i) w_i / sum_i a^(s-i)`, over about `1 / (1 - a)` steps, after Polyak averaging. Learning itself goes
    on from the last iterate.

    With `clip`, no gradient is longer than that. A meta-gradient through several inner steps that nearly diverge is
    longer by orders of magnitude than the others: the step that Adam makes of it can end learning.

    Raises:
        ValueError: the learning rate or `clip` is not positive, or `average` is not in [0, 1).

    Examples:
        >>> import jax.numpy as jnp, metaleader as ml
        >>> optimizer = ml.Adam(learning_rate=0.1)()
        >>> state = optimizer.init(jnp.zeros(2))
        >>> updates, _ = optimizer.update(jnp.array([1.0, -100.0]), state, jnp.zeros(2))
        >>> [round(float(update), 3) for update in updates]  # the first step has the size of the learning rate
        [-0.1, 0.1]
    """

    RATES: ClassVar[tuple[str, ...]] = ("learning_rate",)
    learning_rate: float = 1e-3
    """Step size."""
    average: float = 0.0
    """Decay of the moving average of the iterates; 0: the last one is used."""
    clip: float | None = None
    """Largest global norm of a gradient, to which longer ones are scaled (Pascanu et al., 2013), while one that is not
    finite counts as zero; None: gradients are taken as they are."""

    def __post_init__(self) -> None:
        check_positive(self, "learning_rate")
        _check(self)

    def __call__(self) -> optax.GradientTransformation:
        """The optax transformation."""
        return _around(optax.adam(self.learning_rate), self)


@dataclass(frozen=True)
class Momentum:
    """Stochastic gradient descent with momentum and a step-wise learning rate.

    `m <- beta m + g`, `w <- w - r m`, where the rate `r` is `learning_rate` at first and is multiplied by `factor`
    at every step in `drops`. Steps are counted by the optimiser's state: over the whole stream for a learner that
    keeps it, and from the start of the round for one that begins anew. The paper used beta = 0.9 for the CIFAR-100
    learners without meta-learning, which were unstable with Adam (section 6).

    Raises:
        ValueError: the learning rate, the factor or `clip` is not positive, `momentum` or `average` is not in [0, 1),
            or `drops` do not ascend from at least 1.

    Examples:
        >>> import jax.numpy as jnp, metaleader as ml
        >>> optimizer, w = ml.Momentum(1.0, momentum=0.0, drops=(2,))(), jnp.zeros(())
        >>> state, moves = optimizer.init(w), []
        >>> for _ in range(4):
        ...     move, state = optimizer.update(jnp.ones(()), state, w)
        ...     moves.append(round(float(move), 3))
        >>> moves
        [-1.0, -1.0, -0.1, -0.1]
    """

    RATES: ClassVar[tuple[str, ...]] = ("learning_rate",)
    learning_rate: float = 0.05
    """Step size r before the first drop."""
    momentum: float = 0.9
    """beta."""
    drops: tuple[int, ...] = ()
    """Optimiser steps after which the learning rate drops; none: it stays."""
    factor: float = 0.1
    """What the learning rate is multiplied by at a drop."""
    average: float = 0.0
    """Decay of the moving average of the iterates, as in `Adam`; 0: the last one is used."""
    clip: float | None = None
    """Largest global norm of a gradient, as in `Adam`; None: gradients are taken as they are."""

    def __post_init__(self) -> None:
        check_positive(self, "learning_rate", "factor")
        _check(self)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")
        if any(step < 1 for step in self.drops) or sorted(set(self.drops)) != list(self.drops):
            raise ValueError(f"drops must ascend from at least 1, got {self.drops}")

    def __call__(self) -> optax.GradientTransformation:
        """The optax transformation."""
        schedule = optax.piecewise_constant_schedule(self.learning_rate, dict.fromkeys(self.drops, self.factor))
        return _around(optax.sgd(schedule, momentum=self.momentum), self)


@dataclass(frozen=True)
class AdaGrad:
    """AdaGrad (Duchi et al., 2011): the step of a coordinate falls with the sum of its squared gradients.

    Raises:
        ValueError: the learning rate or `clip` is not positive, or `average` is not in [0, 1).

    Examples:
        >>> import jax.numpy as jnp, metaleader as ml
        >>> optimizer, w = ml.AdaGrad(1.0)(), jnp.zeros(())
        >>> state, moves = optimizer.init(w), []
        >>> for _ in range(3):
        ...     move, state = optimizer.update(jnp.ones(()), state, w)
        ...     moves.append(round(float(move), 2))
        >>> moves
        [-0.95, -0.69, -0.57]
    """

    RATES: ClassVar[tuple[str, ...]] = ("learning_rate",)
    learning_rate: float = 1e-2
    """Step size at first."""
    average: float = 0.0
    """Decay of the moving average of the iterates, as in `Adam`; 0: the last one is used."""
    clip: float | None = None
    """Largest global norm of a gradient, as in `Adam`; None: gradients are taken as they are."""

    def __post_init__(self) -> None:
        check_positive(self, "learning_rate")
        _check(self)

    def __call__(self) -> optax.GradientTransformation:
        """The optax transformation."""
        return _around(optax.adagrad(self.learning_rate), self)


def _check(optimizer: Adam | Momentum | AdaGrad) -> None:
    if not 0 <= optimizer.average < 1:
        raise ValueError(f"average must be in [0, 1), got {optimizer.average}")
    if optimizer.clip is not None:
        check_positive(optimizer, "clip")


def _around(
    transformation: optax.GradientTransformation, of: Adam | Momentum | AdaGrad
) -> optax.GradientTransformation:
    """The transformation of gradients that are clipped, and its iterates averaged, where that is asked for."""
    if of.clip is not None:
        transformation = optax.chain(_clipping(of.clip), transformation)
    return averaging(transformation, of.average)


def _clipping(norm: float) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm`, but for gradients that are not finite, of which that makes NaN: here they are 0."""

    def update(updates: Params, state: optax.EmptyState, params: Params | None = None) -> tuple[Params, Any]:  # noqa: ARG001
        length = optax.tree.norm(updates)
        factor = jnp.minimum(1.0, norm / length)
        return jax.tree.map(lambda g: jnp.where(jnp.isfinite(length), g * factor.astype(g.dtype), 0), updates), state

    return optax.GradientTransformation(optax.init_empty_state, update)


class IterateAverage(NamedTuple):
    """An exponential moving average of the iterates.

    Attributes:
        average_iterate: of the iterates so far, each weighing `decay` times as much as the next.
        weight: the sum of their weights, that of the last one being 1.
    """

    average_iterate: Params
    weight: Array


def averaging(transformation: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """`transformation`, keeping the `IterateAverage` of the parameters that its updates lead to, unless `decay` is 0.

    The updates stay as they are. Any optimiser can be made to average so: `averaging(optax.lamb(1e-3), 0.99)`.

    Examples:
        >>> import jax.numpy as jnp, optax
        >>> from metaleader.learners import averaging
        >>> optimizer, w = averaging(optax.sgd(1.0), 0.5), jnp.zeros(())
        >>> state = optimizer.init(w)
        >>> for _ in range(2):  # w is -1, then -2
        ...     move, state = optimizer.update(jnp.ones(()), state, w)
        ...     w = w + move
        >>> round(float(optax.tree.get(state, "average_iterate")), 3)  # (0.5 (-1) + 1 (-2)) / 1.5
        -1.667
    """
    if not decay:
        return transformation

    def init(params: Params) -> IterateAverage:
        return IterateAverage(params, jnp.zeros((), jnp.float32))

    def update(updates: Params, state: IterateAverage, params: Params | None = None) -> tuple[Params, IterateAverage]:
        # Normalised by the weight so far, so that the parameters before the first step have none (bias correction).
        weight = decay * state.weight + 1
        iterate = optax.apply_updates(params, updates)
        mean = jax.tree.map(lambda m, p: m + ((p - m) / weight).astype(m.dtype), state.average_iterate, iterate)
        return updates, IterateAverage(mean, weight)

    return optax.chain(transformation, optax.GradientTransformation(init, update))


def averaged(params: Params, opt_state: Any) -> Params:
    """The average of the iterates, where the optimiser keeps one, or the last iterate; of the parameters' types."""
    leaves, structure = jax.tree.flatten(opt_state)
    places = _average_places(structure)
    if places is None:
        return params
    likes, parameters = jax.tree.flatten(params)
    pairs = zip((leaves[place] for place in places), likes, strict=True)
    cast = [leaf if leaf.dtype == like.dtype else leaf.astype(like.dtype) for leaf, like in pairs]
    return jax.tree.unflatten(parameters, cast)


@cache
def _average_places(structure: Any) -> tuple[int, ...] | None:
    """Where the leaves of the average lie among those of a state of this structure; None: it keeps none.

    Remembered, as looking takes a quarter of an adaptation.
    """
    state = jax.tree.unflatten(structure, range(structure.num_leaves))
    mean = optax.tree.get(state, "average_iterate")
    return None if mean is None else tuple(jax.tree.leaves(mean))
