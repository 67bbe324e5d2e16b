"""Models: pairs of pure functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

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


class Model(NamedTuple):
    """A model made of the user's own functions; see `ModelLike`."""

    init: Callable[[Any], Params]
    apply: Callable[..., Any]
    calibrate: Callable[[Params, Batch], Params] = keep


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
