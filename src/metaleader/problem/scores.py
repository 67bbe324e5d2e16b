"""Scores: what a learner is judged by, per example or of the whole held-out set."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metaleader.errors import check_word
from metaleader.problem.batch import AnyArray
from metaleader.problem.losses import check_same_shape, squared_error


@dataclass(frozen=True)
class Score:
    """How good predictions are.

    Attributes:
        name: what a table calls it.
        function: `(outputs, targets) -> (n,)`, a number an example, of which the weighted mean is reported; or, with
            `whole`, one number for all examples together, of NumPy arrays without padding.
        higher_is_better: whether a proficient learner is above the threshold or below it.
        whole: whether the score is one of the whole set, such as AUC or R2, and no mean over examples.
        threshold: of a score after a problem's first: reports give the datapoints until it is reached, too. It decides
            nothing; the first score is compared with the protocol's threshold.
        note: a sentence for reports, such as what the score is for a predictor that knows nothing.

    Examples:
        >>> import jax.numpy as jnp, metaleader as ml
        >>> within = ml.Score("within 1", lambda outputs, y: jnp.abs(outputs - y)[:, 0] < 1, higher_is_better=True)
        >>> problem = ml.Problem(ml.MLP(), ml.squared_error, (within, ml.mean_squared_error))
        >>> problem.judge(jnp.array([[0.0], [0.0]]), ml.Batch.of(jnp.zeros((2, 1)), jnp.array([[0.5], [2.5]])))[1]
        {'within 1': 0.5, 'squared error': 3.25}
    """

    name: str
    function: Callable[[Any, Any], Any]
    higher_is_better: bool
    whole: bool = False
    threshold: float | None = None
    note: str = ""

    def reaches(self, score: float, threshold: float) -> bool:
        """Whether `score` is at least as good as `threshold`; see `reaches`."""
        return reaches(score, threshold, self.higher_is_better)


def reaches(score: float, threshold: float, higher_is_better: bool) -> bool:
    """Whether a score is at least as good as a threshold, up to the rounding of a mean in 32 bits.

    There, 9 of 10 is 0.89999998.
    """
    beyond = score > threshold if higher_is_better else score < threshold
    return beyond or math.isclose(score, threshold, rel_tol=1e-6)


def from_sklearn(
    metric: Callable[..., Any],
    name: str = "",
    *,
    higher_is_better: bool = True,
    predictions: Literal["values", "labels", "probabilities", "scores"] = "values",
    **options: Any,
) -> Score:
    """A metric of scikit-learn as a score of the whole set: `metric(targets, predictions, **options)`.

    >>> from sklearn.metrics import balanced_accuracy_score
    >>> score = from_sklearn(balanced_accuracy_score, predictions="labels")
    >>> score.name, score.function(np.array([[2.0, 1.0], [0.0, 1.0], [0.0, 1.0]]), np.array([0, 1, 0]))
    ('balanced accuracy', 0.75)

    Args:
        metric: a function of `sklearn.metrics`, or any other `(y_true, y_pred) -> number`.
        name: what a table calls it; the metric's own name unless given.
        higher_is_better: False for errors and losses.
        predictions: what the metric takes: the model's outputs as they are; of logits, the `labels` of the largest, or
            `probabilities` (of the second class where there are two; a number an example stands for the logit of class
            1), or for a ranking, as of AUC, `scores`: the logits (of two classes, their difference).
        options: of the metric.

    Raises:
        UserError: no such predictions are known.
    """
    check_word("predictions", predictions, _PREDICTIONS)
    taken = _PREDICTIONS[predictions]

    def function(outputs: Any, targets: Any) -> float:
        return float(metric(np.asarray(targets), taken(np.asarray(outputs)), **options))

    return Score(name or _readable(metric), function, higher_is_better, whole=True)


def _labels(outputs: np.ndarray) -> np.ndarray:
    column = _one_column(outputs)
    return outputs.argmax(axis=-1) if column is None else (column > 0).astype(int)


def _probabilities(outputs: np.ndarray) -> np.ndarray:
    column = _one_column(outputs)
    if column is None:
        shifted = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
        each = shifted / shifted.sum(axis=-1, keepdims=True)
        return each[:, 1] if outputs.shape[-1] == 2 else each
    return 0.5 * (1 + np.tanh(0.5 * column))


def _scores(outputs: np.ndarray) -> np.ndarray:
    column = _one_column(outputs)
    if column is not None:
        return column
    return outputs[:, 1] - outputs[:, 0] if outputs.shape[-1] == 2 else outputs


def _one_column(outputs: np.ndarray) -> np.ndarray | None:
    """The numbers, where there is one an example."""
    return outputs.reshape(-1) if outputs.ndim == 1 or outputs.shape[-1] == 1 else None


_PREDICTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "values": lambda outputs: outputs,
    "labels": _labels,
    "probabilities": _probabilities,
    "scores": _scores,
}


def _readable(metric: Callable[..., Any]) -> str:
    name = getattr(metric, "__name__", None) or type(metric).__name__
    return str(name).removesuffix("_score").replace("_", " ")


def _correct(logits: Float[Array, "n classes"], labels: AnyArray) -> Float[Array, " n"]:
    return (jnp.argmax(logits, axis=-1) == labels).astype(logits.dtype)


def _labels_correct(logits: Float[AnyArray, "n ..."], targets: AnyArray) -> Float[Array, " n"]:
    """The share of the labels of which it is right that an example has them (logit above 0), or does not."""
    check_same_shape(logits, targets)
    right = (jnp.asarray(logits) > 0) == (jnp.asarray(targets) > 0)
    return jnp.mean(right.astype(logits.dtype), axis=tuple(range(1, logits.ndim)))


accuracy = Score("accuracy", _correct, higher_is_better=True)
"""The share of examples whose largest logit is that of their label.

Examples:
    >>> import jax.numpy as jnp, metaleader as ml
    >>> logits, labels = jnp.array([[2.0, 1.0], [0.0, 1.0], [0.0, 1.0]]), jnp.array([0, 1, 0])
    >>> ml.accuracy.function(logits, labels).tolist(), ml.accuracy.higher_is_better
    ([1.0, 1.0, 0.0], True)
"""

label_accuracy = Score(
    "label accuracy",
    _labels_correct,
    higher_is_better=True,
    note="the share of right labels; where labels are rare, it is high for a learner that predicts none",
)
"""The share of right labels, where an example may have several: `sigmoid_cross_entropy` trains for it.

Examples:
    >>> import jax.numpy as jnp, metaleader as ml
    >>> logits, targets = jnp.array([[2.0, -1.0], [2.0, 1.0]]), jnp.array([[1, 0], [1, 0]])
    >>> ml.label_accuracy.function(logits, targets).tolist()
    [1.0, 0.5]
"""

mean_squared_error = Score("squared error", squared_error, higher_is_better=False)
"""The mean of `squared_error`.

Examples:
    >>> import jax.numpy as jnp, metaleader as ml
    >>> outputs, targets = jnp.array([[1.0], [3.0]]), jnp.array([[0.0], [1.0]])
    >>> ml.mean_squared_error.function(outputs, targets).tolist(), ml.mean_squared_error.higher_is_better
    ([1.0, 4.0], False)
"""


def several(scores: tuple[Score, ...] | Score) -> tuple[Score, ...]:
    """The scores, also where there is one."""
    return (scores,) if isinstance(scores, Score) else scores


def check_scores(scores: tuple[Score, ...]) -> None:
    """Make sure that there is a score, and that no two have the same name.

    Raises:
        ValueError: naming what is wrong.
    """
    names = [score.name for score in scores]
    if not names:
        raise ValueError("a problem needs at least one score: by the first, proficiency is judged")
    if len(set(names)) < len(names):
        raise ValueError(f"scores must have names of their own, got {', '.join(names)}")
    for score in scores:
        if not callable(score.function):
            raise ValueError(f"the function of score {score.name!r} cannot be called: got {score.function!r}")
