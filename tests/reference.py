"""The online protocol and four learners in plain NumPy, one example at a time: slow, and nothing of the package's own.

Of the package only values are read: settings, tasks and the random parameters of a model. Which datapoints are drawn is
worked out here from the same random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from metaleader import FTL, FTML, TOE, Adam, Batch, GradientDescent, Momentum, OnlineProtocol, Retention, Scratch, Task

Weights: TypeAlias = np.ndarray  # (inputs + 1, outputs): the last row is the bias
Key: TypeAlias = int | str


@dataclass(frozen=True, eq=False)
class Example:
    """One datapoint, with what its task is and when it arrived, counting from 0."""

    x: np.ndarray  # with a 1 behind it, for the bias
    y: Any
    weight: float
    task: Key = ""
    number: int = 0


@dataclass(frozen=True)
class Linear:
    """`W'x + b` with the squared error or the cross-entropy, its gradient, and its Hessian times a direction."""

    kind: Literal["regression", "classes"]
    smoothing: float = 0.0

    def fresh(self, problem: Any, key: Any) -> Weights:
        """The random parameters of the package's model."""
        head = problem.model.init(key)["head"]
        return np.vstack([head["kernel"], head["bias"]]).astype(np.float64)

    def target(self, outputs: np.ndarray, y: Any) -> np.ndarray:
        if self.kind == "regression":
            return np.asarray(y, np.float64)
        onehot = np.arange(len(outputs)) == int(y)
        return (1 - self.smoothing) * onehot + self.smoothing / len(outputs)

    def loss(self, w: Weights, of: Example) -> float:
        z = of.x @ w
        target = self.target(z, of.y)
        if self.kind == "regression":
            return float(np.mean((z - target) ** 2))
        return float(-target @ (z - z.max() - np.log(np.sum(np.exp(z - z.max())))))

    def gradient(self, w: Weights, of: Example) -> Weights:
        z = of.x @ w
        target = self.target(z, of.y)
        slope = 2 * (z - target) / len(z) if self.kind == "regression" else softmax(z) - target
        return np.outer(of.x, slope)

    def hessian_times(self, w: Weights, of: Example, direction: Weights) -> Weights:
        change, p = of.x @ direction, softmax(of.x @ w)
        bent = 2 * change / len(change) if self.kind == "regression" else p * (change - p @ change)
        return np.outer(of.x, bent)

    def scores(self, w: Weights, on: Sequence[Example]) -> tuple[float, float]:
        """Of classes the accuracy and the mean confidence, otherwise the squared error and the largest error."""
        if self.kind == "classes":
            return average(self._correct, w, on), average(lambda w, of: softmax(of.x @ w).max(), w, on)
        errors = [np.abs(of.x @ w - np.asarray(of.y, np.float64)).max() for of in on if of.weight > 0]
        return average(self.loss, w, on), float(max(errors))

    def _correct(self, w: Weights, of: Example) -> float:
        return float(np.argmax(of.x @ w) == int(of.y))

    def is_close_call(self, w: Weights, of: Example) -> float:
        """Whether rounding may decide which class it is: 1 or 0."""
        *_, second, first = sorted(of.x @ w)
        return float(first - second < 1e-3)


def softmax(z: np.ndarray) -> np.ndarray:
    each = np.exp(z - z.max())
    return each / each.sum()


def mean(values: Sequence[Any], weights: Sequence[float]) -> Any:
    """The weighted mean, 0 of nothing."""
    total = sum(weights)
    return sum((weight * value for value, weight in zip(values, weights, strict=True)), 0.0) / (total or 1)


def average(of: Any, w: Weights, examples: Sequence[Example], *more: Any) -> Any:
    """The weighted mean of `of(w, example, ...)` over the examples."""
    return mean([of(w, example, *more) for example in examples], [example.weight for example in examples])


def examples_of(batch: Batch, task: Key = "") -> list[Example]:
    """The datapoints of a batch, those of weight 0 too. 8-bit integers are images."""
    inputs = np.asarray(batch.inputs)
    scale = 255 if inputs.dtype == np.uint8 else 1
    return [
        Example(np.append(np.asarray(x, np.float64) / scale, 1.0), np.asarray(y), float(weight), task)
        for x, y, weight in zip(inputs, np.asarray(batch.targets), np.asarray(batch.weights), strict=True)
    ]


# Chance: the numbers that the package's keys give, and what is made of them


@partial(jax.jit, static_argnums=1)
def _uniforms(keys: Any, n: int) -> Any:
    return jnp.vectorize(lambda key: jax.random.uniform(key, (n,)), signature="()->(n)")(keys)


@partial(jax.jit, static_argnums=1)
def _sizes(keys: Any, most: int) -> Any:
    size = jnp.vectorize(lambda key: jax.random.randint(jax.random.fold_in(key, 1), (), 0, most + 1))
    return size(keys)


def drawn_tasks(key: Any, weights: Sequence[float], shape: tuple[int, int]) -> np.ndarray:
    """Numbers of tasks, in proportion to weights; as many zeros are added as make compiling rare."""
    padded = np.pad(np.asarray(weights, np.float32), (0, 64 - len(weights)))
    return np.asarray(jax.random.choice(key, 64, shape, p=padded))


def shuffled(uniforms: np.ndarray, count: int) -> list[int]:
    """A shuffle of the numbers below `count`, as far as there are random numbers (Fisher and Yates)."""
    cards = list(range(count))
    for i, uniform in enumerate(uniforms[:count]):
        left = count - i
        other = i + min(int(np.float32(uniform) * np.float32(left)), left - 1)
        cards[i], cards[other] = cards[other], cards[i]
    return cards[: len(uniforms)]


def dealt(numbers: list[int], train: int, validation: int) -> tuple[list[int], list[int]]:
    """Two disjoint sets, of a draw that may be cut short: in proportion."""
    total = train + validation
    to_train = [(i + 1) * train // total > i * train // total for i in range(total)]
    pairs = list(zip(numbers, to_train, strict=False))
    return [n for n, first in pairs if first], [n for n, first in pairs if not first]


# The task buffer


class Memory:
    """What is kept: lists of datapoints by task, tasks in order of first arrival."""

    def __init__(self, retention: Retention, key: Any, example: Batch) -> None:
        self.retention, self.seed = retention, [int(word) for word in np.asarray(jax.random.key_data(key))]
        leaves = np.asarray(example.inputs), np.asarray(example.targets)
        # JAX has 32 bits.
        self.bytes = sum(leaf[0].size * min(leaf.itemsize, 4) for leaf in leaves)
        self.tasks: dict[Key, list[Example]] = {}
        self.observed: list[Key | None] = []  # newest first; None: a task of which nothing is left
        self.seen: dict[Key, int] = {}
        self.total = 0

    @property
    def everything(self) -> list[Example]:
        return [example for kept in self.tasks.values() for example in kept]

    @property
    def current(self) -> Key | None:
        return self.observed[0] if self.observed else None

    def past(self) -> dict[Key, list[Example]]:
        return {task: kept for task, kept in self.tasks.items() if task != self.current}

    def age(self, task: Key) -> int:
        return self.observed.index(task)

    def append(self, task: Key, arriving: list[Example]) -> None:
        coming = [
            replace(example, task=task, number=self.total + i)
            for i, example in enumerate(example for example in arriving if example.weight > 0)
        ]
        self.observed = [task, *(other for other in self.observed if other != task)]
        self.tasks.setdefault(task, [])
        kept = self.kept(task, coming)
        self.seen[task] = self.seen.get(task, 0) + len(coming)
        self.total += len(coming)
        sorted_by_task = {of: [example for example in kept if example.task == of] for of in self.tasks}
        self.tasks = {of: examples for of, examples in sorted_by_task.items() if examples}
        self.observed = [of if of in self.tasks else None for of in self.observed]
        self.seen = {of: n for of, n in self.seen.items() if of in self.tasks}

    def kept(self, task: Key, coming: list[Example]) -> list[Example]:
        policy, budget = self.retention.policy, self.retention.budget or 0
        if policy == "all":
            return [*self.everything, *coming]
        if self.retention.unit == "tasks":
            return [of for of in [*self.everything, *coming] if of.task in self.observed[:budget]]
        most = budget // self.bytes if self.retention.unit == "bytes" else budget
        if policy == "last":
            return sorted([*self.everything, *coming], key=lambda example: example.number)[-most:]
        chance = np.random.default_rng([*self.seed, self.total])
        if policy == "reservoir":
            return reservoir(chance, self.everything, coming, self.total, most)
        if policy == "mixed":
            newest = range(self.total + len(coming) - most // 2, self.total + len(coming))
            older = [example for example in [*self.everything, *coming] if example.number not in newest]
            before = max(self.total - most // 2, 0)
            inside = sorted((old for old in older if old.number < before), key=lambda example: example.number)
            leaving = sorted((old for old in older if old.number >= before), key=lambda example: example.number)
            new = [example for example in [*self.everything, *coming] if example.number in newest]
            return [*reservoir(chance, inside, leaving, before, most - most // 2), *new]
        share = max(most // len(self.tasks), 1)

        def some(kept: list[Example]) -> list[Example]:
            return [kept[i] for i in sorted(chance.permutation(len(kept))[:share])]

        others = [some(kept) for of, kept in self.tasks.items() if of != task and self.age(of) < most]
        own = self.tasks[task]
        own = own if len(own) <= share else some(own)
        own = reservoir(chance, own, coming, self.seen.get(task, 0), share)
        return [*(example for kept in others for example in kept), *own]


def reservoir(
    chance: np.random.Generator, held: list[Example], coming: list[Example], seen: int, budget: int
) -> list[Example]:
    """Algorithm R (Vitter, 1985): the n-th of all takes a random place below n, if there is such a place."""
    free = max(min(budget - len(held), len(coming)), 0)
    kept, rest = [*held, *coming[:free]], coming[free:]
    places = chance.integers(0, np.array([seen + free + i + 1 for i in range(len(rest))], np.int64))
    for place, example in zip(places, rest, strict=True):
        if place < budget:
            kept[place] = example
    return sorted(kept, key=lambda example: example.number)


# Learners


class Outer:
    """Adam, or descent with momentum; and the average of the iterates."""

    def __init__(self, settings: Any) -> None:
        self.settings, self.steps = settings, 0
        self.first: Any = 0.0
        self.second: Any = 0.0
        self.iterates: list[Weights] = []

    def step(self, w: Weights, gradient: Weights) -> Weights:
        self.steps += 1
        if isinstance(self.settings, Adam):
            self.first = 0.9 * self.first + 0.1 * gradient
            self.second = 0.999 * self.second + 0.001 * gradient**2
            first, second = self.first / (1 - 0.9**self.steps), self.second / (1 - 0.999**self.steps)
            w = w - self.settings.learning_rate * first / (np.sqrt(second) + 1e-8)
        else:
            assert isinstance(self.settings, Momentum)
            drops = sum(self.steps > drop for drop in self.settings.drops)
            self.first = self.settings.momentum * self.first + gradient
            w = w - self.settings.learning_rate * self.settings.factor**drops * self.first
        self.iterates.append(w)
        return w

    def leader(self, w: Weights) -> Weights:
        decay = self.settings.average
        if not decay or not self.iterates:
            return w
        return mean(self.iterates, [decay**i for i in range(len(self.iterates))][::-1])


class Plain:
    """What the four learners share."""

    def __init__(self, problem: Any, model: Linear, learner: Any, key: Any, example: Batch) -> None:
        self.problem, self.model, self.learner, self.example = problem, model, learner, example
        self.key, init_key = jax.random.split(key)
        self.memory = Memory(learner.retention, self.key, example)
        self.restart(init_key)

    def restart(self, key: Any) -> None:
        self.w, self.outer = self.model.fresh(self.problem, key), Outer(self.learner.optimizer)

    def adapted(self, update: GradientDescent, w: Weights, examples: Sequence[Example]) -> list[Weights]:
        """All iterates of the update procedure, w first and U(w) last."""
        n = sum(example.weight for example in examples)
        path = [w]
        for _ in range(update.steps):
            share = n / (n + update.prior_strength) if update.prior_strength else 1.0
            gradient = average(self.model.gradient, path[-1], examples)
            path.append(path[-1] - update.step_size * share * gradient)
        return path

    def observe(self, task: Key, coming: list[Example]) -> int:
        raise NotImplementedError

    def adapt(self, task: Key, examples: list[Example]) -> tuple[Weights, int]:
        raise NotImplementedError

    def fine_tuned(self, update: GradientDescent, examples: list[Example]) -> tuple[Weights, int]:
        real = [example for example in examples if example.weight > 0]
        return self.adapted(update, self.outer.leader(self.w), real)[-1], update.steps * len(real)


class PlainFTML(Plain):
    """Meta-Update and Update-Procedure (paper, Algorithm 2), the meta-gradient backwards through the steps."""

    learner: FTML

    def observe(self, task: Key, coming: list[Example]) -> int:
        learner, memory = self.learner, self.memory
        update = learner.update
        assert isinstance(update, GradientDescent)
        memory.append(task, coming)
        if learner.past_only and not memory.past():
            return 0
        self.key, tasks_key, data_key = jax.random.split(self.key, 3)
        shape = learner.meta_steps, learner.meta_batch
        half_life, tasks = getattr(learner.sampling, "half_life"), list(memory.tasks)  # noqa: B009 - `Recency`
        nu = [
            0.0 if learner.past_only and memory.age(of) == 0 else 2.0 ** (-memory.age(of) / half_life) for of in tasks
        ]
        chosen = drawn_tasks(tasks_key, nu, shape)
        keys = jax.random.split(data_key, shape)
        uniforms = np.asarray(_uniforms(keys, learner.train_size + learner.validation_size))
        sizes = np.asarray(_sizes(keys, learner.train_size))
        for step in range(learner.meta_steps):
            gradients = []
            for place in range(learner.meta_batch):
                kept = memory.tasks[tasks[chosen[step, place]]] if tasks else []
                numbers = shuffled(uniforms[step, place], len(kept))
                train, validation = dealt(numbers, learner.train_size, learner.validation_size)
                if learner.vary_train_size:
                    train = train[: sizes[step, place]]
                sets = [kept[number] for number in train], [kept[number] for number in validation]
                gradients.append(self.meta_gradient(update, *sets))
            self.w = self.outer.step(self.w, np.mean(gradients, axis=0))
        inner = update.steps * learner.train_size
        second = 0 if update.first_order else 2 * inner
        return math.prod(shape) * (inner + second + learner.validation_size)

    def meta_gradient(self, update: GradientDescent, train: list[Example], validation: list[Example]) -> Weights:
        path = self.adapted(update, self.w, train)
        gradient = average(self.model.gradient, path[-1], validation) + np.zeros_like(self.w)
        if update.first_order:
            return gradient
        n = sum(example.weight for example in train)
        share = n / (n + update.prior_strength) if update.prior_strength else 1.0
        for v in reversed(path[:-1]):
            gradient = gradient - update.step_size * share * average(self.model.hessian_times, v, train, gradient)
        return gradient

    def adapt(self, task: Key, examples: list[Example]) -> tuple[Weights, int]:
        update = self.learner.update
        assert isinstance(update, GradientDescent)
        steps = self.learner.adapt_steps
        return self.fine_tuned(update if steps is None else replace(update, steps=steps), examples)


class Trains(Plain):
    """Training on minibatches of some tasks."""

    def train(self, some: dict[Key, list[Example]], steps: int, taken: int, tasks: int, size: int) -> int:
        """Take the first of so many steps; what they cost."""
        cost, calibration = 0, getattr(self.learner, "calibration_size", 0)  # from scratch has none
        self.key, data_key = jax.random.split(self.key)
        if tasks:
            tasks_key, data_key = jax.random.split(data_key)
            counts = [len(some.get(task, [])) for task in self.memory.tasks]
            chosen = drawn_tasks(tasks_key, counts, (steps, tasks))
        places = (steps, max(tasks, 1))
        uniforms = np.asarray(_uniforms(jax.random.split(data_key, places), calibration + size))
        mixed = [example for kept in some.values() for example in kept]
        for step in range(taken):
            gradients = []
            for place in range(max(tasks, 1)):
                kept = some[list(self.memory.tasks)[chosen[step, place]]] if tasks else mixed
                first, second = dealt(shuffled(uniforms[step, place], len(kept)), calibration, size)
                cost += len(first) + len(second)  # this model has no statistics that the first could give
                gradients.append(average(self.model.gradient, self.w, [kept[i] for i in second]))
            self.w = self.outer.step(self.w, np.zeros_like(self.w) + sum(gradients) / len(gradients))
        return cost


class PlainJoint(Trains):
    """Train on everything, or on the tasks before, with fine-tuning (paper, section 6)."""

    learner: TOE | FTL

    def observe(self, task: Key, coming: list[Example]) -> int:
        learner = self.learner
        self.memory.append(task, coming)
        some = self.memory.past() if isinstance(learner, FTL) else self.memory.tasks
        if not some:
            return 0
        return self.train(some, learner.steps, learner.steps, learner.batch_tasks, learner.batch_size)

    def adapt(self, task: Key, examples: list[Example]) -> tuple[Weights, int]:
        update = self.learner.update if isinstance(self.learner, FTL) else GradientDescent(0)
        assert isinstance(update, GradientDescent)
        return self.fine_tuned(update, examples)


class PlainScratch(Trains):
    """New weights for every task (paper, section 6)."""

    learner: Scratch

    def observe(self, task: Key, coming: list[Example]) -> int:
        learner, memory = self.learner, self.memory
        if memory.current != task:
            self.key, init_key = jax.random.split(self.key)
            self.restart(init_key)
        memory.append(task, coming)
        if not memory.everything:
            return 0
        most = 8 * learner.steps if learner.equal_gradients else learner.steps
        own = memory.tasks.get(task, [])
        size = min(len(own) or 1, learner.batch_size)
        taken = min(round(learner.steps * learner.batch_size / size), most)
        return self.train({task: own}, most, taken, 0, learner.batch_size)

    def adapt(self, task: Key, examples: list[Example]) -> tuple[Weights, int]:
        if self.memory.current == task:
            return self.outer.leader(self.w), 0
        key = jax.random.fold_in(self.key, len(examples))
        fresh = PlainScratch(self.problem, self.model, self.learner, key, self.example)
        cost = fresh.observe(task, examples) if examples else 0
        return fresh.outer.leader(fresh.w), cost


PLAIN: dict[type, type[Plain]] = {FTML: PlainFTML, TOE: PlainJoint, FTL: PlainJoint, Scratch: PlainScratch}


# The protocol


@dataclass(frozen=True)
class Expected:
    """What a record should hold; and the share of the examples of which rounding may decide the class."""

    round: int
    task: str
    datapoints: int
    loss: float
    scores: tuple[float, float]
    gradient_evaluations: int
    learning_evaluations: int
    close_calls: float


class Run:
    """What a run should give: Algorithm 1, and its prequential form for tasks without held-out data.

    Attributes:
        records: in order.
        needed: for every round, the first |D_t| at which the learner was proficient, infinity if it never was, or None
            if it was never judged.
        close: whether rounding may decide on proficiency.
    """

    def __init__(
        self, problem: Any, model: Linear, stream: Sequence[Task], learner: Any, protocol: OnlineProtocol, seed: int
    ) -> None:
        self.model, self.protocol = model, protocol
        self.plain = PLAIN[type(learner)](problem, model, learner, jax.random.key(seed), stream[0].train)
        self.records, self.needed, self.close = list[Expected](), list[float | None](), False
        self.learning = self.adapting = 0
        self.earlier: dict[Key, list[Example]] = {}
        for number, task in enumerate(stream, 1):
            self.needed.append(None)
            self.play(number, task)

    def play(self, number: int, task: Task) -> None:
        protocol = self.protocol
        key: Key = f"round {number}" if task.key is None else task.key
        data = [] if task.key is None else self.earlier.get(key, [])
        coming, held_out = examples_of(task.train), None if task.test is None else examples_of(task.test)
        first, over, arrived = True, False, 0
        skipped = number < (protocol.evaluate_from or 1)
        while not over:
            size = min([to - arrived for to in protocol.arrive_at if to > arrived], default=len(coming))
            size = size if protocol.arrive_at else protocol.chunk
            chunk, coming, arrived = coming[:size], coming[size:], arrived + size
            asked = not skipped and (not protocol.evaluate_at or len(data) in protocol.evaluate_at)
            if held_out is None and asked and any(example.weight > 0 for example in chunk):
                over = self.judge(task.name, key, data, chunk)
            elif held_out is not None and asked and first and 0 in protocol.evaluate_at:
                over = self.judge(task.name, key, data, held_out)
            self.learning += self.plain.observe(key, chunk)
            data, first, over = data + chunk, False, over or not coming
            asked = not protocol.evaluate_at or len(data) in protocol.evaluate_at
            if held_out is not None and not skipped and (asked or over):
                over = self.judge(task.name, key, data, held_out) or over
        self.earlier[key] = data

    def judge(self, name: str, key: Key, data: list[Example], on: list[Example]) -> bool:
        """Add a record; whether the round ends by it."""
        w, cost = self.plain.adapt(key, data)
        self.adapting += cost
        model, threshold = self.model, self.protocol.threshold
        loss, scores = average(model.loss, w, on), model.scores(w, on)
        close_calls = 0.0
        if model.kind == "classes":
            close_calls, proficient = average(model.is_close_call, w, on), scores[0] >= threshold
            self.close |= close_calls > 0
        else:
            proficient = scores[0] <= threshold
            self.close |= math.isclose(scores[0], threshold, rel_tol=0.01)
        if self.needed[-1] in (None, math.inf):
            self.needed[-1] = len(data) if proficient else math.inf
        gradients = self.learning + self.adapting
        of_round = len(self.needed), name, len(data)
        self.records.append(Expected(*of_round, loss, scores, gradients, self.learning, close_calls))
        return proficient and self.protocol.move_on
