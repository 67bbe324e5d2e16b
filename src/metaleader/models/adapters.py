"""Models written in Flax or Equinox, as models of this package.

Each library is imported when one of its modules is given. What the three kinds of models share:

Parameters are the trainable floating-point arrays alone, as nested dicts by the names that the library gives them, so
that `adapt_only=("head",)` finds a layer called `head`. All else that a module holds stays with the model.

In training, batch normalisation takes the statistics of the batch at hand, over its examples of weight above 0.
`calibrate` stores those of a task's data beside the parameters, exactly and not as a running average. Parameters with
stored statistics are normalised by these wherever they are used: in predicting, and in the loss after adaptation that
meta-training takes. Without any, a module predicts by the statistics that it begins with.

Dropout is at work in training, if there is a random key. 8-bit integers are images, and scaled to [0, 1].
"""

from __future__ import annotations

import functools
import inspect
import operator
import types
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from metaleader.errors import UserError, imported
from metaleader.models.layers import as_float
from metaleader.problem.batch import Batch
from metaleader.problem.content import content
from metaleader.problem.model import Params

TRAINS = ("train", "training", "is_training")  # parameters of a module's call that are true while it trains
PREDICTS = ("deterministic", "inference", "use_running_average")  # and while it does not

Rest: TypeAlias = Any  # a pytree of the arrays of a module that are no parameters: statistics, counters, random keys
Path: TypeAlias = tuple[str, ...]


def from_flax_linen(module: Any, example_inputs: Any) -> AdaptedModel:
    """A model of a Linen module, called as `module(inputs)`.

    A parameter of `__call__` named `train`, `training`, `is_training`, `deterministic`, `inference` or
    `use_running_average` is told whether dropout is at work. Batch normalisation takes the right statistics whether or
    not the module passes it `use_running_average` and `mask`; the first axis of its inputs must be that of the
    examples.

    Args:
        module: the module, not bound to variables.
        example_inputs: inputs as they will come, at least one example: an array, or a pytree of arrays. The module
            makes its parameters for the shapes and types of the first one.

    Raises:
        UserError: Flax is not installed.

    Examples:
        >>> import jax, flax.linen as nn, numpy as np, metaleader as ml
        >>> x = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
        >>> model = ml.from_flax_linen(nn.Dense(1), x)
        >>> problem = ml.Problem(model, ml.squared_error, ml.mean_squared_error)
        >>> params, update = problem.init(jax.random.key(0)), ml.GradientDescent(steps=20, step_size=0.3)
        >>> adapted = ml.adapt(problem, update, params, ml.Batch.of(x, 3 * x))
        >>> bool(np.abs(problem.predict(adapted, x) - 3 * x).max() < 0.1)
        True
    """
    _library("flax.linen", "flax")
    return LinenModel(module, jax.tree.map(lambda leaf: np.asarray(leaf)[:1], example_inputs))


def from_flax_nnx(module: Any) -> AdaptedModel:
    """A model of an NNX module, called as `module(inputs)`.

    Layers are told whether dropout is at work as by `module.train()` and `module.eval()`, and so is a parameter of
    `__call__` (see `from_flax_linen`). Batch normalisation takes the right statistics by itself; the first axis of its
    inputs must be that of the examples.

    Args:
        module: a function that makes the module when called with `rngs`, such as its class or a `functools.partial` of
            it. Or a module, of which a copy is kept: its parameters are those that every learner begins with, whatever
            the seed. Two models made of one module are not equal, and are compiled twice.

    Raises:
        UserError: Flax is not installed.

    Examples:
        >>> from functools import partial
        >>> import jax, numpy as np, metaleader as ml
        >>> from flax import nnx
        >>> x = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
        >>> problem = ml.Problem(ml.from_flax_nnx(partial(nnx.Linear, 1, 1)), ml.squared_error, ml.mean_squared_error)
        >>> params, update = problem.init(jax.random.key(0)), ml.GradientDescent(steps=20, step_size=0.3)
        >>> adapted = ml.adapt(problem, update, params, ml.Batch.of(x, 3 * x))
        >>> bool(np.abs(problem.predict(adapted, x) - 3 * x).max() < 0.1)
        True
    """
    nnx = _library("flax.nnx", "flax")
    return NNXModel(nnx.clone(module) if isinstance(module, nnx.Module) else module)


def from_equinox(module: Any) -> AdaptedModel:
    """A model of an Equinox module, which is written for a single example.

    It is called as `module(x)`, with `key` if its `__call__` has such a parameter, and with `state` if it has state;
    then it returns its output and the state. All examples are taken together by `jax.vmap`, with the axis name that
    its batch normalisation has. Layers are told whether dropout is at work as by `eqx.nn.inference_mode`, and so is a
    parameter of `__call__` (see `from_flax_linen`). Batch normalisation takes the right statistics by itself; its
    mode makes no difference.

    Args:
        module: a function that makes the module from a random key, such as its class or a `functools.partial` of it; it
            may return a pair of module and state, as `eqx.nn.make_with_state` has it. Or a module, or such a pair: its
            parameters are those that every learner begins with, whatever the seed.

    Raises:
        UserError: Equinox is not installed, or layers of batch normalisation have different axis names.

    Examples:
        >>> from functools import partial
        >>> import equinox as eqx, jax, numpy as np, metaleader as ml
        >>> x = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
        >>> model = ml.from_equinox(lambda key: eqx.nn.Linear(1, 1, key=key))
        >>> problem = ml.Problem(model, ml.squared_error, ml.mean_squared_error)
        >>> params, update = problem.init(jax.random.key(0)), ml.GradientDescent(steps=20, step_size=0.3)
        >>> adapted = ml.adapt(problem, update, params, ml.Batch.of(x, 3 * x))
        >>> bool(np.abs(problem.predict(adapted, x) - 3 * x).max() < 0.1)
        True
    """
    _library("equinox", "equinox")
    return EquinoxModel(module)


class Calibrated(NamedTuple):
    """Parameters with the statistics of a task.

    Attributes:
        params: the parameters.
        statistics: the floating-point arrays of the module that are no parameters.
    """

    params: Params
    statistics: list[Any]


class _Call(NamedTuple):
    """How a module is called: which examples count in statistics, the key of dropout, and the statistics to take.

    Without a key there is no dropout. `own`: those of the batch, not the stored ones.
    """

    examples: Any
    key: Any
    own: bool


class AdaptedModel:
    """A module of another library as a model; see `from_flax_linen`, `from_flax_nnx` and `from_equinox`.

    Models are equal that were made of equal modules (see `problem.content`): what was compiled for one serves the
    others.
    """

    _program: Callable[[Any], tuple[Params, Rest]]  # `_make`, compiled
    _rest: Rest  # as the module begins with it
    _static: Any  # what of the module is not an array

    def __post_init__(self) -> None:
        # A function of its own for each model: while it is traced, `_make` sets `_static`.
        object.__setattr__(self, "_program", jax.jit(lambda key: self._make(key)))
        object.__setattr__(self, "_rest", self._program(jax.random.key(0))[1])

    @functools.cached_property
    def content(self) -> Hashable:
        """What determines how it behaves; see `problem.content`."""
        return type(self), content(self._given)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AdaptedModel) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._given

    @property
    def _given(self) -> tuple[Any, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type] # a dataclass

    def init(self, key: Any) -> Params:
        """The trainable arrays, as the module draws them."""
        return self._program(key)[0]

    def apply(self, params: Params, inputs: Any, weights: Any, key: Any = None, training: bool = False) -> Any:
        """The outputs, by stored statistics; in training, without any, by those of the examples that have weight."""
        own = training and not isinstance(params, Calibrated)
        return self._called(params, inputs, weights, key if training else None, own)[0]

    def calibrate(self, params: Params, batch: Batch) -> Params:
        """`params` with the statistics of `batch`, taken without dropout; as they are, if the module keeps none."""
        statistics = _floats(self._called(params, batch.inputs, batch.weights, None, own=True)[1])
        return Calibrated(_trained(params), statistics) if statistics else params

    def _called(self, params: Params, inputs: Any, weights: Any, key: Any, own: bool) -> tuple[Any, Rest]:
        examples = jnp.asarray(weights) > 0
        examples |= ~jnp.any(examples)  # an empty batch has statistics, too: else its gradient would be NaN, not 0
        rest = _with_floats(self._rest, params.statistics) if isinstance(params, Calibrated) else self._rest
        return self._call(_trained(params), rest, jax.tree.map(as_float, inputs), _Call(examples, key, own))

    @abstractmethod
    def _make(self, key: Any) -> tuple[Params, Rest]:
        """A new module's parameters and its other arrays."""

    @abstractmethod
    def _call(self, params: Params, rest: Rest, inputs: Any, call: _Call) -> tuple[Any, Rest]:
        """The module's outputs, and its other arrays afterwards."""


@dataclass(frozen=True, eq=False)
class LinenModel(AdaptedModel):
    """See `from_flax_linen`."""

    module: Any
    example: Any

    def _make(self, key: Any) -> tuple[Params, Rest]:
        inputs = jax.tree.map(as_float, self.example)
        with self._normalising(_Call(jnp.ones(1, bool), None, own=False)):
            variables = dict(self.module.init(key, inputs, **_flags(self.module, training=False)))
        return variables.pop("params", {}), variables

    def _call(self, params: Params, rest: Rest, inputs: Any, call: _Call) -> tuple[Any, Rest]:
        settings = _flags(self.module, training=call.key is not None)
        if call.key is not None:
            settings["rngs"] = call.key
        with self._normalising(call):
            outputs, after = self.module.apply({"params": params, **rest}, inputs, mutable=list(rest), **settings)
        return outputs, {**rest, **after}

    def _normalising(self, call: _Call) -> Any:
        """A context in which layers of batch normalisation do as `call` says, whatever the module tells them."""
        linen = _library("flax.linen", "flax")

        def intercept(following: Any, args: tuple[Any, ...], kwargs: dict[str, Any], context: Any) -> Any:
            if not isinstance(context.module, linen.BatchNorm) or context.method_name != "__call__":
                return following(*args, **kwargs)
            x = args[0] if args else kwargs["x"]
            with _momentarily(context.module, use_running_average=not call.own, momentum=0.0):  # 0: of this batch alone
                return following(x, mask=_mask(call.examples, x, kwargs.get("mask")))

        return linen.intercept_methods(intercept)


class _Place(NamedTuple):
    """A leaf of a module: its name, whether it is trained, and the kind of variable it is, or its value if no array."""

    name: Path
    trained: bool
    kind: Any = None


@dataclass(frozen=True, eq=False)
class NNXModel(AdaptedModel):
    """See `from_flax_nnx`."""

    module: Any

    def _make(self, key: Any) -> tuple[Params, Rest]:
        nnx = _library("flax.nnx", "flax")
        module = self.module if isinstance(self.module, nnx.Module) else _made(self.module, "rngs", nnx.Rngs(key))
        graph, structure, leaves = self._apart(module)
        object.__setattr__(self, "_static", (graph, structure, list(leaves)))
        params = {place.name: leaf for place, leaf in leaves.items() if place.trained}
        return _nested(params), [leaf for place, leaf in leaves.items() if not place.trained]

    def _call(self, params: Params, rest: Rest, inputs: Any, call: _Call) -> tuple[Any, Rest]:
        nnx = _library("flax.nnx", "flax")
        graph, structure, places = self._static
        others = iter(rest)
        leaves = [_at(params, place.name) if place.trained else next(others) for place in places]
        if call.key is not None:
            leaves = [
                jax.random.split(jax.random.fold_in(call.key, i), leaf.shape) if place.kind is nnx.RngKey else leaf
                for i, (place, leaf) in enumerate(zip(places, leaves, strict=True))
            ]
        module = nnx.merge(graph, jax.tree.unflatten(structure, leaves))
        module.set_attributes(deterministic=call.key is None, raise_if_not_found=False)
        for _, layer in nnx.iter_modules(module):
            if isinstance(layer, nnx.BatchNorm):
                kind: Any = type(layer)
                layer.__class__ = _masked_nnx(kind)
                layer.of = nnx.data(call.examples if call.own else None)
        outputs = module(inputs, **_flags(module, training=call.key is not None))
        after = {place.name: leaf for place, leaf in self._apart(module)[2].items()}
        return outputs, [after[place.name] for place in places if not place.trained]

    def _apart(self, module: Any) -> tuple[Any, Any, dict[_Place, Any]]:
        """The graph of a module, the structure of its state, and the leaves of that, in its order."""
        nnx = _library("flax.nnx", "flax")
        graph, state = nnx.split(module)
        leaves = {}
        variables, _ = jax.tree_util.tree_flatten_with_path(state, lambda node: isinstance(node, nnx.Variable))
        for path, variable in variables:
            trains = isinstance(variable, nnx.Param)
            for (_, *within), leaf in jax.tree_util.tree_flatten_with_path([variable])[0]:
                inner = within[1:] if isinstance(variable, nnx.Variable) else within  # its value
                leaves[_Place(_names([*path, *inner]), trains and bool(_floats(leaf)), type(variable))] = leaf
        return graph, jax.tree.structure(state), leaves


@functools.cache
def _masked_nnx(kind: type) -> Any:
    """Batch normalisation of that kind, by stored statistics: those of the examples in its attribute `of`, if any.

    Flax stores statistics too, but their derivative is 0.
    """

    def call(self: Any, x: Any, use_running_average: Any = None, *, mask: Any = None) -> Any:  # noqa: ARG001
        if self.of is not None:
            counted = jnp.broadcast_to(_mask(self.of, x, mask), x.shape)
            features = [axis % x.ndim for axis in np.atleast_1d(self.axis)]
            axes = tuple(axis for axis in range(x.ndim) if axis not in features)
            values = x.astype(jnp.promote_types(x.dtype, jnp.float32))
            mean = values.mean(axes, where=counted, keepdims=True)
            self.mean.set_value(jnp.squeeze(mean, axes))
            self.var.set_value(jnp.square(values - mean).mean(axes, where=counted))
        return kind.__call__(self, x, True)

    return types.new_class(kind.__name__, (kind,), exec_body=lambda body: body.update(__call__=call))


@dataclass(frozen=True, eq=False)
class EquinoxModel(AdaptedModel):
    """See `from_equinox`."""

    module: Any

    def _make(self, key: Any) -> tuple[Params, Rest]:
        eqx = _library("equinox", "equinox")
        given = isinstance(self.module, (tuple, eqx.Module))
        made = self.module if given else _made(self.module, "key", key)
        net, state = made if isinstance(made, tuple) else eqx.nn.make_with_state(lambda: made)()
        norms = [layer for layer in jax.tree.leaves(net, is_leaf=_is_norm) if _is_norm(layer)]
        axes = {name for layer in norms for name in _axes(layer)}
        if len(axes) > 1:
            raise UserError(
                f"batch normalisation must have one axis name in all layers, got {', '.join(map(str, axes))}"
            )
        paths, structure = jax.tree_util.tree_flatten_with_path(net)
        places = [
            _Place(_names(path), eqx.is_inexact_array(leaf), None if eqx.is_array(leaf) else leaf)
            for path, leaf in paths
        ]
        object.__setattr__(self, "_static", (structure, places, *(axes or {"batch"})))
        params = {place.name: leaf for place, (_, leaf) in zip(places, paths, strict=True) if place.trained}
        others = [leaf for _, leaf in paths if eqx.is_array(leaf) and not eqx.is_inexact_array(leaf)]
        return _nested(params), (others, _plain(norms, jax.tree.map(lambda leaf: leaf, state)))

    def _call(self, params: Params, rest: Rest, inputs: Any, call: _Call) -> tuple[Any, Rest]:
        eqx = _library("equinox", "equinox")
        structure, places, axis = self._static
        others = iter(rest[0])
        # Equinox compares where old and new arrays lie; within `shard_map`, a result lies elsewhere than a constant.
        state = jax.tree.map(lambda leaf: jnp.where(True, leaf, leaf), rest[1])
        leaves = [
            _at(params, place.name) if place.trained else next(others) if place.kind is None else place.kind
            for place in places
        ]
        net = eqx.nn.inference_mode(jax.tree.unflatten(structure, leaves), call.key is None)
        asked = _parameters(net.__call__)
        passes = "state" in asked and (jax.tree.leaves(state) or asked["state"].default is inspect.Parameter.empty)

        def one(x: Any, key: Any, counts: Any, state: Any) -> tuple[Any, Any]:
            masked = jax.tree.map(
                lambda node: _masked_equinox()(node, counts, axis, call.own) if _is_norm(node) else node,
                net,
                is_leaf=_is_norm,
            )
            settings = _flags(net, training=call.key is not None)
            if "key" in asked:
                settings["key"] = key
            return masked(x, state=state, **settings) if passes else (masked(x, **settings), state)

        keys = None
        if call.key is not None:
            keys = jax.vmap(functools.partial(jax.random.fold_in, call.key))(jnp.arange(len(call.examples)))
        mapped = jax.vmap(one, in_axes=(0, 0, 0, None), out_axes=(0, None), axis_name=axis)
        outputs, after = mapped(inputs, keys, call.examples, state)
        return outputs, (rest[0], after)


def _is_norm(node: Any) -> bool:
    return isinstance(node, _library("equinox", "equinox").nn.BatchNorm)


def _axes(layer: Any) -> Sequence[Hashable]:
    return layer.axis_name if isinstance(layer.axis_name, (list, tuple)) else [layer.axis_name]


def _statistics(layer: Any) -> Any:
    return layer.ema_state_index if layer.mode == "ema" else layer.batch_state_index


def _plain(layers: Sequence[Any], state: Any) -> Any:
    """The state with the statistics by which layers predict, which a layer holds otherwise while it averages.

    A layer in mode `ema` that was never called holds none; it gets those that change nothing.
    """
    for layer in layers:
        mean, variance = state.get(_statistics(layer))
        if layer.mode == "ema":
            first = state.get(layer.ema_first_time_index)
            mean, variance = jnp.where(first, 0, mean), jnp.where(first, 1, variance)
        else:
            counter = state.get(layer.batch_counter)
            scale = jnp.where(counter == 0, 1, 1 - layer.momentum**counter)
            mean, variance = mean / scale, variance / scale
            state = state.set(layer.batch_counter, jnp.zeros_like(counter))
        state = state.set(_statistics(layer), (mean, variance))
    return state


@functools.cache
def _masked_equinox() -> Any:
    eqx = _library("equinox", "equinox")

    class Masked(eqx.nn.StatefulLayer):  # type: ignore[misc, name-defined] # imported when used
        """Batch normalisation over some of the examples, under `jax.vmap`: this one counts or does not."""

        norm: Any
        counts: Any
        axis: Any = eqx.field(static=True)
        own: bool = eqx.field(static=True)

        def __call__(self, x: Any, state: Any, *, key: Any = None, inference: Any = None) -> Any:  # noqa: ARG002
            if self.own:
                share = self.counts / jax.lax.psum(self.counts, self.axis)
                rows = x.reshape(len(x), -1)
                mean = jax.lax.psum(share * jnp.mean(rows, axis=1), self.axis)
                spread = jnp.mean(jnp.square(rows - mean[:, None]), axis=1)
                found = mean, jax.lax.psum(share * spread, self.axis)
                before = state.get(_statistics(self.norm))
                state = state.set(
                    _statistics(self.norm), jax.tree.map(lambda new, old: new.astype(old.dtype), found, before)
                )
            return self.norm(x, state, inference=True)

    return Masked


def _library(name: str, extra: str) -> Any:
    """A module of Flax or Equinox.

    Raises:
        UserError: it is not installed.
    """
    return imported(name, extra, "this model")


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some callables do not say
        return {}


def _made(make: Callable[..., Any], name: str, value: Any) -> Any:
    """What `make` gives for a value, which it is given by the name, if it takes one of that name."""
    asked = _parameters(make)
    keywords = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in asked.values())
    return make(**{name: value}) if name in asked or keywords else make(value)


def _flags(module: Any, training: bool) -> dict[str, Any]:
    """Those flags that the module's call has."""
    asked = _parameters(module.__call__)
    return {name: training == (name in TRAINS) for name in (*TRAINS, *PREDICTS) if name in asked}


@contextmanager
def _momentarily(module: Any, **attributes: Any) -> Iterator[None]:
    """Within this context, a frozen dataclass has these attributes."""
    before = {name: getattr(module, name) for name in attributes}
    try:
        for name, value in attributes.items():
            object.__setattr__(module, name, value)
        yield
    finally:
        for name, value in before.items():
            object.__setattr__(module, name, value)


def _mask(examples: Any, x: Any, mask: Any) -> Any:
    """Which entries of `x` count: those of `examples`, where there are several rows an example too, and of `mask`.

    Raises:
        ValueError: the first axis of `x` is not that of the examples.
    """
    n = examples.shape[0]
    if x.ndim < 2 or x.shape[0] % n:
        raise ValueError(
            f"batch normalisation of {n} examples got an array of shape {x.shape}: keep the examples on the first axis"
        )
    rows = jnp.repeat(examples, x.shape[0] // n).reshape(-1, *[1] * (x.ndim - 1))
    return rows if mask is None else rows & mask


def _trained(params: Params) -> Params:
    return params.params if isinstance(params, Calibrated) else params


def _is_float(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype if hasattr(leaf, "dtype") else type(leaf), jnp.floating))


def _floats(tree: Any) -> list[Any]:
    """The floating-point leaves of a pytree."""
    return [leaf for leaf in jax.tree.leaves(tree) if _is_float(leaf)]


def _with_floats(tree: Any, floats: Sequence[Any]) -> Any:
    """The pytree with other floating-point leaves."""
    following = iter(floats)
    return jax.tree.map(lambda leaf: next(following) if _is_float(leaf) else leaf, tree)


def _names(path: Sequence[Any]) -> Path:
    """A path of JAX in words."""
    return tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def _nested(leaves: dict[Path, Any]) -> Params:
    """Nested dicts of leaves, by their paths."""
    nested: dict[str, Any] = {}
    for (*path, last), leaf in leaves.items():
        inner = nested
        for name in path:
            inner = inner.setdefault(name, {})
        inner[last] = leaf
    return nested


def _at(params: Params, path: Path) -> Any:
    return functools.reduce(operator.getitem, path, params)
