"""From a model, a per-example loss and scores to the objective f(w) = L(D, w), and to judging predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metaleader.problem.batch import Batch, Examples, bucket_size, joined, pad
from metaleader.problem.content import Static, content
from metaleader.problem.losses import CrossEntropy, Loss, weighted_mean
from metaleader.problem.model import ModelLike, Params, applied, asks_for
from metaleader.problem.scores import Score, check_scores, several


@dataclass(frozen=True, eq=False)
class Problem:
    """What is learned: a model, the loss it is trained on, and the scores it is judged by.

    Problems are equal whose parts are (see `content`): what was compiled for one serves the others.

    Attributes:
        model: see `ModelLike`; None for learners that have models of their own.
        loss: per example, `(outputs, targets) -> (n,)`.
        scores: one or several; proficiency is judged by the first.

    Raises:
        ValueError: there is no score, or two have one name.

    Examples:
        >>> import jax, jax.numpy as jnp, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(inputs=2, depth=0), ml.squared_error, ml.mean_squared_error)
        >>> params = problem.init(jax.random.key(0))
        >>> data = ml.Batch.of(jnp.zeros((3, 2)), jnp.ones((3, 1)))  # the net's outputs are 0 here
        >>> float(problem.objective(params, data)), problem.judge(problem.predict(params, data.inputs), data)
        (1.0, (1.0, {'squared error': 1.0}))
    """

    model: ModelLike | None
    loss: Loss
    scores: tuple[Score, ...] | Score

    def __post_init__(self) -> None:
        check_scores(self.scored)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problem) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)

    @cached_property
    def content(self) -> Hashable:
        """What determines how it behaves; see `content.content`."""
        return content((self.model, self.loss, self.scored))

    @property
    def scored(self) -> tuple[Score, ...]:
        """The scores, also where there is one."""
        return several(self.scores)

    @property
    def score(self) -> Score:
        """The score that proficiency is judged by."""
        return self.scored[0]

    @property
    def net(self) -> ModelLike:
        """The model.

        Raises:
            ValueError: there is none.
        """
        if self.model is None:
            raise ValueError("this learner trains the problem's model, and the problem has none: give Problem a model")
        return self.model

    @property
    def random(self) -> bool:
        """Whether the model asks for a random key in training."""
        return self.model is not None and asks_for(self.model, "key")

    def init(self, key: Any) -> Params:
        """Fresh parameters, as arrays."""
        return jax.tree.map(jnp.asarray, self.net.init(key))

    def objective(self, params: Params, batch: Batch) -> Float[Array, ""]:
        """L(D, w): the weighted mean of the per-example losses, 0 for a batch without weight."""
        outputs = applied(self.net, params, batch.inputs, batch.weights, batch.key, training=True)
        return weighted_mean(self.loss(outputs, batch.targets), batch.weights)

    def predict(self, params: Params, inputs: Examples) -> Any:
        """The outputs of the model for all `inputs` together, compiled for a few sizes."""
        first, *_ = leaves = jax.tree.leaves(inputs)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            # Within a larger program, which has its own size, or is for any (`Live.export`).
            return _predict(Static(self), params, inputs, jnp.ones(first.shape[:1], np.float32))
        n = len(first)
        padded = pad(Batch(inputs, (), np.ones(n, np.float32)), bucket_size(n))
        outputs = _predict(Static(self), params, padded.inputs, padded.weights)
        # By NumPy: JAX would compile each n.
        return outputs if len(padded) == n else jax.tree.map(lambda leaf: np.asarray(leaf)[:n], outputs)

    def judge(self, outputs: Any, batch: Batch) -> tuple[float, Mapping[str, float]]:
        """The weighted mean of the loss, and every score by its name, of the examples of `batch`; padding is no part.

        Raises:
            ValueError: a score does not give a number an example, or one number if it is of the whole set.
        """
        n = len(batch)
        outputs = jax.tree.map(np.asarray, outputs)
        shown = pad(Batch(outputs, batch.targets, batch.weights), bucket_size(n))
        loss, per_example = _judge(Static(self), shown.inputs, shown.targets, shown.weights)
        values = dict(zip((score.name for score in self._of_examples()), map(float, per_example), strict=True))
        real = np.flatnonzero(np.asarray(batch.weights) > 0)
        for score in self.scored:
            if score.whole:
                arrays = jax.tree.map(lambda leaf: np.asarray(leaf)[real], (outputs, batch.targets))
                values[score.name] = _whole(score, *arrays)
        return float(loss), {score.name: values[score.name] for score in self.scored}

    def _of_examples(self) -> list[Score]:
        return [score for score in self.scored if not score.whole]


@partial(jax.jit, static_argnums=0)
def _predict(problem: Static[Problem], params: Params, inputs: Any, weights: Any) -> Any:
    return applied(problem.value.net, params, inputs, weights, None, training=False)


@partial(jax.jit, static_argnums=0)
def _judge(problem: Static[Problem], outputs: Any, targets: Any, weights: Any) -> Any:
    loss, scores = _of_each(problem.value, outputs, targets, len(weights))
    means = [weighted_mean(jnp.asarray(each, jnp.result_type(each, weights)), weights) for each in (loss, *scores)]
    return means[0], means[1:]


def _of_each(problem: Problem, outputs: Any, targets: Any, n: int) -> tuple[Array, list[Array]]:
    """The loss and the scores of every example, those of the whole set left out.

    Raises:
        ValueError: one does not give a number an example.
    """

    def of(function: Loss, what: str) -> Array:
        values = function(outputs, targets)
        if jnp.shape(values) != (n,):
            shapes = [
                " and ".join(str(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree)) for tree in (outputs, targets)
            ]
            raise ValueError(
                f"{what} has shape {jnp.shape(values)} for {n} examples: it must give one number an example, of shape "
                f"({n},). Outputs have shape {shapes[0]}, targets {shapes[1]}: make them alike, or take the mean over "
                "all axes but the first"
            )
        return jnp.asarray(values)

    loss = of(problem.loss, "the loss")
    return loss, [of(score.function, f"score {score.name!r}") for score in problem._of_examples()]


def _whole(score: Score, outputs: Any, targets: Any) -> float:
    """A score of the whole set; NaN where the outputs are not finite, which metrics refuse or hide."""
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outputs)):
        return math.nan
    try:
        value = np.asarray(score.function(outputs, targets))
    except ValueError as error:
        raise ValueError(f"score {score.name!r}: {error}") from error
    if value.shape != ():
        raise ValueError(f"score {score.name!r} must give one number for the whole set, got shape {value.shape}")
    return float(value)


def check_blind_to_padding(problem: Problem, batch: Batch, shown: int = 3) -> None:
    """Make sure that what model, loss and scores say of an example does not depend on what its batch is padded with.

    Raises:
        ValueError: it does.
    """
    if problem.model is None or len(batch) < 2:
        return
    params, real = problem.init(jax.random.key(0)), batch[np.arange(min(shown, len(batch) - 1))]
    weights = np.append(np.ones(len(real), np.float32), np.zeros(shown, np.float32))

    def said(padding: Batch) -> Any:
        padded = joined(replace(real, key=None), replace(padding, key=None))
        found = _said(Static(problem), params, padded.inputs, padded.targets, weights)
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64)[: len(real)], found)

    one, other = said(batch[np.zeros(shown, int)]), said(batch[np.full(shown, len(batch) - 1)])
    scores = [f"score {score.name!r}" for score in problem._of_examples()]
    for name, *both in zip(("outputs", "the loss", *scores), _flat(one), _flat(other), strict=True):
        changes = [float(np.abs(a - b).max()) for a, b in zip(*both, strict=True) if not _close(a, b)]
        if changes and name == "outputs":
            raise ValueError(
                "the model's outputs for an example change with what its batch is padded with, by "
                f"{max(changes):.3g}: statistics over a batch must leave out padding. Take them with the "
                "weights that apply is given, 0 for padding, as mean = weights @ x / weights.sum(); layers of Flax "
                "take mask=weights > 0"
            )
        if changes:
            raise ValueError(
                f"{name} of an example changes with the other examples of its batch, by {max(changes):.3g}: it must "
                "depend on the output and the target of that example alone. Outputs of shape (n,) and targets of shape "
                "(n, 1) give (n, n) numbers: make their shapes alike"
            )


def _flat(said: tuple[Any, Any, list[Any]]) -> list[list[Any]]:
    """The arrays of the outputs, of the loss and of each score."""
    outputs, loss, scores = said
    return [jax.tree.leaves(outputs), [loss], *([score] for score in scores)]


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return np.allclose(a, b, rtol=1e-3, atol=1e-5 * max(float(np.abs(a).max()), 1.0), equal_nan=True)


@partial(jax.jit, static_argnums=0)
def _said(problem: Static[Problem], params: Params, inputs: Any, targets: Any, weights: Any) -> Any:
    outputs = applied(problem.value.net, params, inputs, weights, jax.random.key(0), training=True)
    return outputs, *_of_each(problem.value, outputs, targets, len(weights))


def check(problem: Problem, batch: Batch, what: str) -> None:
    """Make sure that `batch` is data for `problem`, and say what is wrong if it is not.

    Raises:
        ValueError: lengths or shapes that do not match, values that are not finite, labels out of range, or a loss or
            score that does not give a number an example; the message begins with `what`.
    """
    try:
        Batch.of(batch.inputs, batch.targets, batch.weights)
        for leaf in jax.tree.leaves((batch.inputs, batch.targets, batch.weights)):
            if not isinstance(leaf, (np.ndarray, jax.Array)):
                raise ValueError(f"a batch holds arrays, got {type(leaf).__name__}: make it by Batch.of")
        if problem.model is None:
            return
        leaves, tree = jax.tree.flatten((batch.inputs, batch.targets, batch.weights))

        def of(traced: Callable[..., Any]) -> Any:
            """For a size that many tasks share; if that fails, of as many examples as there are, as it will be told."""
            try:
                return traced(Static(problem), tree, _like(leaves, bucket_size(len(batch))))
            except (ValueError, TypeError):
                return traced(Static(problem), tree, _like(leaves, len(batch)))

        outputs = of(_outputs_like)
        if isinstance(problem.loss, CrossEntropy):
            problem.loss.check(outputs.shape[-1], np.asarray(batch.targets))
        of(_check_of_each)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{what}: {' '.join(str(error).split())}") from error


def _like(leaves: Sequence[Any], n: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    return tuple(jax.ShapeDtypeStruct((n, *leaf.shape[1:]), leaf.dtype) for leaf in leaves)


# To trace a model takes far longer than to judge by it, and the tasks of a stream are of few shapes.


@lru_cache(256)
def _outputs_like(problem: Static[Problem], tree: Any, leaves: tuple[jax.ShapeDtypeStruct, ...]) -> Any:
    """Shapes of the model's outputs for inputs, targets and weights of such shapes."""
    inputs, _, weights = jax.tree.unflatten(tree, leaves)
    params = jax.eval_shape(problem.value.init, jax.random.key(0))
    model = partial(applied, problem.value.net, training=True)
    return jax.eval_shape(model, params, inputs, weights, jax.random.key(0))


@lru_cache(256)
def _check_of_each(problem: Static[Problem], tree: Any, leaves: tuple[jax.ShapeDtypeStruct, ...]) -> None:
    """Make sure that loss and scores give a number for each of such examples.

    Raises:
        ValueError: one does not.
    """
    _, targets, weights = jax.tree.unflatten(tree, leaves)
    jax.eval_shape(partial(_of_each, problem.value, n=len(weights)), _outputs_like(problem, tree, leaves), targets)
