"""From a model and a per-example loss to the objective f(w) = L(D, w), and scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from metaleader.problem.batch import AnyArray, Batch

Params: TypeAlias = Any  # any pytree of floating-point arrays
Objective: TypeAlias = Callable[[Params, Batch], Float[Array, ""]]
Loss: TypeAlias = Callable[[Array, AnyArray], Float[Array, " n"]]


@runtime_checkable
class ModelLike(Protocol):
    """A pair of pure functions, and a third for models that keep statistics of a task.

    Attributes:
        init: `init(key) -> params`.
        apply: `apply(params, inputs, weights) -> outputs`; `weights` are those of the batch, for models that
            normalise by its statistics.
        calibrate: `calibrate(params, batch) -> params`, called once at the end of adapting to `batch`; the
            identity for most models.
    """

    @property
    def init(self) -> Callable[[Any], Params]: ...  # noqa: D102
    @property
    def apply(self) -> Callable[[Params, Any, Any], Any]: ...  # noqa: D102
    @property
    def calibrate(self) -> Callable[[Params, Batch], Params]: ...  # noqa: D102


def keep(params: Params, batch: Batch) -> Params:  # noqa: ARG001
    """The parameters as they are: a model without statistics of its own."""
    return params


class Model(NamedTuple):
    """A model made of the user's own functions; see `ModelLike`."""

    init: Callable[[Any], Params]
    apply: Callable[[Params, Any, Any], Any]
    calibrate: Callable[[Params, Batch], Params] = keep


@dataclass(frozen=True)
class Score:
    """How good predictions are, per example.

    Attributes:
        name: what a table calls it.
        function: `(outputs, targets) -> (n,)`.
        higher_is_better: whether a proficient learner is above the threshold or below it.
    """

    name: str
    function: Loss
    higher_is_better: bool

    def reaches(self, score: float, threshold: float) -> bool:
        """Whether `score` is at least as good as `threshold`."""
        return score >= threshold if self.higher_is_better else score <= threshold


@dataclass(frozen=True)
class Problem:
    """What is learned: a model, the loss it is trained on, the score it is judged by, and scores reported as well."""

    model: ModelLike
    loss: Loss
    score: Score
    also: tuple[Score, ...] = ()

    def objective(self, params: Params, batch: Batch) -> Float[Array, ""]:
        """L(D, w): the weighted mean of the per-example losses, 0 for a batch without weight."""
        outputs = self.model.apply(params, batch.inputs, batch.weights)
        return weighted_mean(self.loss(outputs, batch.targets), batch.weights)

    def evaluate(self, params: Params, batch: Batch) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The weighted mean of the loss and of the score."""
        outputs = self.model.apply(params, batch.inputs, batch.weights)
        return (
            weighted_mean(self.loss(outputs, batch.targets), batch.weights),
            weighted_mean(self.score.function(outputs, batch.targets), batch.weights),
        )

    def evaluate_also(self, params: Params, batch: Batch) -> tuple[Float[Array, ""], ...]:
        """The weighted means of the scores in `also`."""
        if not self.also:
            return ()
        outputs = self.model.apply(params, batch.inputs, batch.weights)
        return tuple(weighted_mean(score.function(outputs, batch.targets), batch.weights) for score in self.also)


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
    """

    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")

    def check(self, classes: int, labels: np.ndarray) -> None:
        """Make sure that `labels` are whole numbers from 0 to `classes - 1`.

        Raises:
            ValueError: naming the first label that is not.
        """
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels must be integers of shape (n,), got {labels.dtype} of shape {labels.shape}")
        if (outside := np.flatnonzero((labels < 0) | (labels >= classes))).size:
            raise ValueError(
                f"labels must be from 0 to {classes - 1}, as the model has {classes} outputs: "
                f"example {outside[0]} has {labels[outside[0]]}"
            )

    def __call__(self, logits: Float[Array, "n classes"], labels: AnyArray) -> Float[Array, " n"]:
        """The loss of each example, in nats."""
        targets = optax.smooth_labels(
            jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), self.label_smoothing
        )
        losses: Array = optax.losses.softmax_cross_entropy(logits, targets)
        return losses


def squared_error(outputs: Float[AnyArray, "n ..."], targets: Float[AnyArray, "n ..."]) -> Float[Array, " n"]:
    """The mean over output dimensions of `(output - target)^2`.

    Raises:
        ValueError: the shapes differ, which would otherwise broadcast.
    """
    if outputs.shape != targets.shape:
        raise ValueError(f"outputs have shape {outputs.shape}, targets {targets.shape}: make them equal")
    return jnp.mean(jnp.square(outputs - targets), axis=tuple(range(1, outputs.ndim)))


def _correct(logits: Float[Array, "n classes"], labels: AnyArray) -> Float[Array, " n"]:
    return (jnp.argmax(logits, axis=-1) == labels).astype(logits.dtype)


accuracy = Score("accuracy", _correct, higher_is_better=True)
mean_squared_error = Score("squared error", squared_error, higher_is_better=False)


def check(problem: Problem, batch: Batch, what: str) -> None:
    """Make sure that `batch` is data for `problem`, and say what is wrong if it is not.

    Raises:
        ValueError: lengths or shapes that do not match, values that are not finite, or labels out of range;
            the message begins with `what`.
    """
    try:
        Batch.of(batch.inputs, batch.targets)
        params = jax.eval_shape(problem.model.init, jax.random.key(0))
        outputs = jax.eval_shape(problem.model.apply, params, batch.inputs, batch.weights)
        if isinstance(problem.loss, CrossEntropy):
            problem.loss.check(outputs.shape[-1], np.asarray(batch.targets))
        losses = jax.eval_shape(problem.loss, outputs, batch.targets)
        if losses.shape != (len(batch),):
            raise ValueError(
                f"the loss has shape {losses.shape} for {len(batch)} examples: it must give one number an example, "
                f"of shape ({len(batch)},)"
            )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{what}: {' '.join(str(error).split())}") from error
