"""What all learners share: their verbs, their state, their optimisers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from metaleader.buffer import store as buffers
from metaleader.errors import check_positive
from metaleader.problem.batch import Batch, pad
from metaleader.problem.objective import Params, Problem
from metaleader.update import MetaParams, UpdateProcedure, meta

FEW = 128  # adapting to so many examples takes less time than compiling it for another size
POPULATION = 512  # examples of all tasks whose statistics stand for those of all data
Optimizer: TypeAlias = Callable[[], Any]  # gives an optax.GradientTransformation


class State(NamedTuple):
    """All of a learner that changes.

    Attributes:
        params: w_t, what was learned so far: the last iterate.
        opt_state: of the outer optimiser; with `Adam.average`, it holds the average of the iterates.
        buffer: the datapoints kept, a `TaskBuffer` for the learners here.
        key: the random key of what comes next.
        gradient_evaluations: host scalar: per-example gradients taken so far by `observe`, a Hessian-vector
            product counting as two.
    """

    params: MetaParams
    opt_state: Any
    buffer: Any
    key: Array
    gradient_evaluations: Any


@runtime_checkable
class Learner(Protocol):
    """A frozen dataclass of hyperparameters with three verbs; all that changes is in a `State`."""

    @property
    def adaptation(self) -> UpdateProcedure:
        """U, as `adapt` applies it."""
        ...

    def init(self, problem: Problem, key: Array, like: Batch, capacity: int = 1024) -> State:
        """The state before the first round.

        Args:
            problem: what is learned.
            key: a random key; the same key gives the same run.
            like: a batch with the shapes and types of the data to come.
            capacity: room for so many datapoints at first; it doubles when full.
        """
        ...

    def observe(self, problem: Problem, state: State, task: int, batch: Batch) -> State:
        """The state after new datapoints of round `task` (from 0): stored, then learned from.

        The buffer of the state given is used up: only the state returned may be used afterwards.
        """
        ...

    def adapt(self, problem: Problem, state: State, batch: Batch) -> Params:
        """This task's parameters, from all of its data so far."""
        ...


@runtime_checkable
class Spends(Protocol):
    """A learner that can be told how many gradients to take."""

    def spending(self, gradients: int) -> Learner:
        """The same learner, taking about so many per-example gradients, at least one step, in each `observe`."""
        ...


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba, 2015), with optax's defaults but for the learning rate.

    With `average` = a, a task's adaptation begins from the exponential moving average (EMA) of the iterates w_1, ...,
    w_s instead of the last one, whose noise a constant learning rate never lets settle:
    `sum_i a^(s-i) w_i / sum_i a^(s-i)`, over about `1 / (1 - a)` steps, after Polyak averaging. Learning itself goes
    on from the last iterate.

    Raises:
        ValueError: the learning rate is not positive, or `average` is not in [0, 1).
    """

    learning_rate: float = 1e-3
    """Step size."""
    average: float = 0.0
    """Decay of the moving average of the iterates; 0: the last one is used."""

    def __post_init__(self) -> None:
        check_positive(self, "learning_rate")
        check_average(self.average)

    def __call__(self) -> optax.GradientTransformation:
        """The optax transformation."""
        return averaging(optax.adam(self.learning_rate), self.average)


def check_average(average: float) -> None:
    """Refuse a decay that is not in [0, 1).

    Raises:
        ValueError: naming it.
    """
    if not 0 <= average < 1:
        raise ValueError(f"average must be in [0, 1), got {average}")


def averaging(transformation: optax.GradientTransformation, average: float) -> optax.GradientTransformation:
    """`transformation`, with a moving average of the iterates where `average` is not 0."""
    return optax.chain(transformation, ema_of_iterates(average)) if average else transformation


class EMA(NamedTuple):
    """An exponential moving average of the iterates.

    Attributes:
        mean: of the iterates so far, each weighing `decay` times as much as the next.
        weight: the sum of their weights, that of the last one being 1.
    """

    mean: Params
    weight: Array


def ema_of_iterates(decay: float) -> optax.GradientTransformation:
    """Leaves the updates as they are, and keeps the `EMA` of the parameters that they lead to; last in a chain."""

    def init(params: Params) -> EMA:
        return EMA(params, jnp.zeros((), jnp.float32))

    def update(updates: Params, state: EMA, params: Params | None = None) -> tuple[Params, EMA]:
        # Normalised by the weight so far, so that the parameters before the first step have none (bias correction).
        weight = decay * state.weight + 1
        iterate = optax.apply_updates(params, updates)
        mean = jax.tree.map(lambda m, p: m + ((p - m) / weight).astype(m.dtype), state.mean, iterate)
        return updates, EMA(mean, weight)

    return optax.GradientTransformation(init, update)


def averaged_params(state: State) -> MetaParams:
    """The w_t that adaptation begins from: the average of the iterates, where the optimiser keeps one, or the last."""
    parts = jax.tree.leaves(state.opt_state, is_leaf=lambda part: isinstance(part, EMA))
    return next((part.mean for part in parts if isinstance(part, EMA)), state.params)


@dataclass(frozen=True)
class Momentum:
    """Stochastic gradient descent with momentum and a step-wise learning rate.

    `m <- beta m + g`, `w <- w - r m`, where the rate `r` is `learning_rate` at first and is multiplied by `factor`
    at every step in `drops`. Steps are counted by the optimiser's state: over the whole stream for a learner that
    keeps it, and from the start of the round for one that begins anew. The paper used beta = 0.9 for the CIFAR-100
    learners without meta-learning, which were unstable with Adam (section 6).

    Raises:
        ValueError: the learning rate or the factor is not positive, `momentum` is not in [0, 1), or `drops` do not
            ascend from at least 1.
    """

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

    def __post_init__(self) -> None:
        check_positive(self, "learning_rate", "factor")
        check_average(self.average)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")
        if any(step < 1 for step in self.drops) or sorted(set(self.drops)) != list(self.drops):
            raise ValueError(f"drops must ascend from at least 1, got {self.drops}")

    def __call__(self) -> optax.GradientTransformation:
        """The optax transformation."""
        schedule = optax.piecewise_constant_schedule(self.learning_rate, dict.fromkeys(self.drops, self.factor))
        return averaging(optax.sgd(schedule, momentum=self.momentum), self.average)


def adapt(problem: Problem, update: UpdateProcedure, state: State, batch: Batch) -> Params:
    """U(w_t) on `batch`, with w_t from `averaged_params`.

    The batch is padded to `FEW` examples or the next power of two, so that a growing D_t rarely compiles. A model that
    `calibrates_on_all_tasks` gets its statistics from `POPULATION` examples of the buffer, evenly spread over it.
    """
    params = jax.tree.map(lambda leaf: leaf.addressable_data(0), averaged_params(state))
    padded = pad(batch, max(FEW, 1 << (len(batch) - 1).bit_length()))
    size = state.buffer.size
    if not getattr(problem.model, "calibrates_on_all_tasks", False) or size == 0:
        return _adapt(problem, update, params, padded)
    spread = np.linspace(0, size - 1, min(size, POPULATION)).astype(np.int32)
    weights = (np.arange(POPULATION) < size).astype(np.float32)
    population = buffers.take(state.buffer, np.pad(spread, (0, POPULATION - len(spread))), weights)
    return _adapt(problem, update, params, padded, population)


@partial(jax.jit, static_argnums=(0, 1))
def _adapt(
    problem: Problem, update: UpdateProcedure, params: MetaParams, batch: Batch, population: Batch | None = None
) -> Params:
    if population is None:
        return meta.adapt(problem, update, params, batch)
    return problem.model.calibrate(update(problem.objective, params, batch), population)


def count(evaluations: Any) -> np.ndarray:
    """A counter as a leaf of the state."""
    return np.asarray(evaluations, np.int64)
