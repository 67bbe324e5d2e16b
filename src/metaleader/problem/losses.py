"""Losses, per example: `(outputs, targets) -> (n,)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Shaped

from metaleader.problem.batch import AnyArray

Loss: TypeAlias = Callable[[Any, Any], Float[Array, " n"]]


def weighted_mean(values: Float[AnyArray, " n"], weights: Float[AnyArray, " n"]) -> Float[Array, ""]:
    """`sum_i w_i v_i / sum_i w_i`, and 0 where all weights are 0."""
    total = jnp.sum(weights)
    # A padded example must not poison the sum: 0 * inf is nan.
    kept = jnp.where(weights > 0, values, 0)
    return jnp.sum(weights * kept) / jnp.where(total > 0, total, 1)


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of logits `(n, classes)` against labels `(n,)`, smoothed (paper, section 6: 0.1).

    The target distribution is `(1 - s) onehot(y) + s / classes` with `s = label_smoothing`.

    Examples:
        >>> import jax.numpy as jnp, metaleader as ml
        >>> logits, labels = jnp.array([[0.0, 0.0], [9.0, 0.0]]), jnp.array([1, 0])
        >>> [round(float(loss), 2) for loss in ml.CrossEntropy(label_smoothing=0.0)(logits, labels)]
        [0.69, 0.0]
        >>> [round(float(loss), 2) for loss in ml.CrossEntropy(label_smoothing=0.1)(logits, labels)]  # to be sure costs
        [0.69, 0.45]
    """

    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")

    def check(self, classes: int, labels: np.ndarray) -> None:
        """Make sure that `labels` are integers from 0 to `classes - 1`, or booleans for two classes and more.

        Raises:
            ValueError: naming the first label that is not.
        """
        whole = any(jnp.issubdtype(labels.dtype, kind) for kind in (jnp.integer, jnp.bool_))
        if labels.ndim != 1 or not whole:
            remedies = [] if whole else [".astype(int) for whole numbers"]
            if labels.ndim == 2:
                flat = labels.shape[1] == 1
                remedies.append(".reshape(-1)" if flat else ".argmax(axis=1) where each row marks the class with a 1")
            raise ValueError(
                f"labels must be integers of shape (n,), got {labels.dtype} of shape {labels.shape}"
                + (f": try {', '.join(remedies)}" if remedies else "")
            )
        if (outside := np.flatnonzero((labels < 0) | (labels >= classes))).size:
            raise ValueError(
                f"labels must be from 0 to {classes - 1}, as the model has {classes} outputs: "
                f"example {outside[0]} has {labels[outside[0]]}"
            )

    def __call__(self, logits: Float[Array, "n classes"], labels: AnyArray) -> Float[Array, " n"]:
        """The loss of each example, in nats."""
        classes = jnp.asarray(labels).astype(jnp.int32)  # of booleans, there would be two
        targets = optax.smooth_labels(
            jax.nn.one_hot(classes, logits.shape[-1], dtype=logits.dtype), self.label_smoothing
        )
        losses: Array = optax.losses.softmax_cross_entropy(logits, targets)
        return losses


def check_same_shape(outputs: AnyArray, targets: AnyArray) -> None:
    """Make sure that outputs and targets have one shape: others would broadcast.

    Raises:
        ValueError: naming both.
    """
    if outputs.shape != targets.shape:
        raise ValueError(f"outputs have shape {outputs.shape}, targets {targets.shape}: make them equal")


def squared_error(outputs: Float[AnyArray, "n ..."], targets: Shaped[AnyArray, "n ..."]) -> Float[Array, " n"]:
    """The mean over output dimensions of `(output - target)^2`.

    Raises:
        ValueError: the shapes differ, which would otherwise broadcast.

    Examples:
        >>> import jax.numpy as jnp, metaleader as ml
        >>> ml.squared_error(jnp.array([[1.0, 3.0], [0.0, 0.0]]), jnp.array([[0.0, 0.0], [0.0, 2.0]])).tolist()
        [5.0, 2.0]
    """
    check_same_shape(outputs, targets)
    return jnp.mean(jnp.square(outputs - targets), axis=tuple(range(1, outputs.ndim)))


def sigmoid_cross_entropy(logits: Float[AnyArray, "n ..."], targets: Shaped[AnyArray, "n ..."]) -> Float[Array, " n"]:
    """The loss of several labels at once, in nats: the mean over labels of `-y log p - (1 - y) log(1 - p)`.

    Here `p = 1 / (1 + exp(-logit))`, and `y` is 1 where an example has the label, otherwise 0.

    Raises:
        ValueError: the shapes differ, which would otherwise broadcast.

    Examples:
        >>> import jax.numpy as jnp, metaleader as ml
        >>> logits, targets = jnp.array([[0.0, 0.0], [9.0, -9.0]]), jnp.array([[1, 0], [1, 0]])
        >>> [round(float(loss), 2) for loss in ml.sigmoid_cross_entropy(logits, targets)]  # log 2 without a clue
        [0.69, 0.0]
    """
    check_same_shape(logits, targets)
    y = jnp.asarray(targets).astype(logits.dtype)
    losses: Array = optax.losses.sigmoid_binary_cross_entropy(jnp.asarray(logits), y)
    return jnp.mean(losses, axis=tuple(range(1, logits.ndim)))
