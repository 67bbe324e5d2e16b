"""Models: pairs of pure functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float

from metaleader.problem.batch import Batch

Params: TypeAlias = Any  # any pytree of floating-point arrays
Objective: TypeAlias = Callable[[Params, Batch], Float[Array, ""]]


@runtime_checkable
class ModelLike(Protocol):
    """A pair of pure functions, and a third for models that keep statistics of a task.

    Attributes:
        init: `init(key) -> params`.
        apply: `apply(params, inputs, weights) -> outputs`; `weights` are those of the batch, for models that
            normalise by its statistics. One with a parameter `key` is given a random key in training and None in
            predicting (dropout); one with a parameter `training` is given whether it trains.
        calibrate: `calibrate(params, batch) -> params`, called once at the end of adapting to `batch`; the
            identity for most models.

    A model may have a fourth, `features(params, inputs, weights) -> (n, d)`: what its linear head takes. `update.Ridge`
    needs it. And it may say, by attributes, whether it `calibrates` at all, and whether `calibrates_on_all_tasks`.
    """

    @property
    def init(self) -> Callable[[Any], Params]: ...  # noqa: D102
    @property
    def apply(self) -> Callable[..., Any]: ...  # noqa: D102
    @property
    def calibrate(self) -> Callable[[Params, Batch], Params]: ...  # noqa: D102


def keep(params: Params, batch: Batch) -> Params:  # noqa: ARG001
    """The parameters as they are: a model without statistics of its own."""
    return params


def calibrates(model: ModelLike) -> bool:
    """Whether `model.calibrate` may change parameters: a model that knows it says so, by an attribute of this name."""
    return model.calibrate is not keep and bool(getattr(model, "calibrates", True))


def calibrates_on_all_tasks(model: ModelLike) -> bool:
    """Whether it predicts by statistics of data of all tasks, not of the task's: by an attribute of this name."""
    return bool(getattr(model, "calibrates_on_all_tasks", False))


def calibrates_by_task(model: ModelLike) -> bool:
    """Whether it predicts by statistics of a task's own data: only then are there any to learn by."""
    return calibrates(model) and not calibrates_on_all_tasks(model)


class Model(NamedTuple):
    """A model made of the user's own functions; see `ModelLike`.

    Examples:
        >>> import jax, jax.numpy as jnp, metaleader as ml
        >>> model = ml.Model(lambda key: {"w": jnp.full(1, 2.0)}, lambda params, x, weights: x * params["w"])
        >>> problem = ml.Problem(model, ml.squared_error, ml.mean_squared_error)
        >>> problem.predict(problem.init(jax.random.key(0)), jnp.array([[1.0], [3.0]])).tolist()
        [[2.0], [6.0]]
    """

    init: Callable[[Any], Params]
    apply: Callable[..., Any]
    calibrate: Callable[[Params, Batch], Params] = keep
    features: Callable[..., Any] | None = None


def asks_for(model: ModelLike, name: str) -> bool:
    """Whether `model.apply` has a parameter of that name."""
    try:
        return name in inspect.signature(model.apply).parameters
    except (TypeError, ValueError):  # some callables do not say
        return False


def applied(model: ModelLike, params: Params, inputs: Any, weights: Any, key: Any, training: bool) -> Any:
    """The outputs of the model, given what it asks for."""
    asked = {name: value for name, value in (("key", key), ("training", training)) if asks_for(model, name)}
    return model.apply(params, inputs, weights, **asked)


def features(model: ModelLike, params: Params, inputs: Any, weights: Any) -> Float[Array, "n d"]:
    """What the linear head of the model takes.

    Raises:
        ValueError: the model does not tell.
    """
    found = getattr(model, "features", None)
    if found is None:
        raise ValueError(
            f"{type(model).__name__} has no features: give it a function features(params, inputs, weights) -> (n, d) "
            "of what its linear head takes"
        )
    return jnp.asarray(found(params, inputs, weights))
