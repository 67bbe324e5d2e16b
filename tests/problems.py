"""Small problems with known answers, and the tables of what must conform."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metaleader import (
    FTL,
    FTML,
    MLP,
    TOE,
    Batch,
    ConvNet,
    CrossEntropy,
    GradientDescent,
    Identity,
    Learner,
    Model,
    MultiHeadTOE,
    Problem,
    RainbowDigits,
    Recency,
    Scratch,
    Sinusoid,
    Task,
    UpdateProcedure,
    accuracy,
    mean_squared_error,
    squared_error,
)

UPDATES: dict[str, UpdateProcedure] = {
    "identity": Identity(),
    "one step": GradientDescent(steps=1),
    "five steps": GradientDescent(steps=5),
    "five steps, plain": GradientDescent(steps=5, derivative="plain"),
    "first order": GradientDescent(steps=5, first_order=True),
    "last layer": GradientDescent(steps=5, only=("head",)),
    "last layer, plain": GradientDescent(steps=5, only=("head",), derivative="plain"),
}
LEARNERS: dict[str, Learner] = {
    "ftml": FTML(meta_steps=2, meta_batch=2, train_size=3, validation_size=4),
    "ftml-past-only": FTML(meta_steps=2, meta_batch=2, train_size=3, validation_size=4, past_only=True),
    "ftml-recent": FTML(meta_steps=2, meta_batch=3, train_size=3, validation_size=4, sampling=Recency(2)),
    "ftml-last-layer": FTML(GradientDescent(only=("head",)), meta_steps=2, meta_batch=2, train_size=3),
    "toe": TOE(steps=3, batch_size=8),
    "ftl": FTL(steps=3, batch_size=8),
    "scratch": Scratch(steps=20, batch_size=8),
    "toe-multi-head": MultiHeadTOE(steps=60, batch_tasks=2, batch_size=16, tasks=40),
}
STREAMS: dict[str, Any] = {
    "rainbow-digits": RainbowDigits(rounds=4, examples_per_task=20, test_examples=30),
    "rainbow-digits-by-colour": RainbowDigits(rounds=9, examples_per_task=20, test_examples=30, order="colour"),
    "sinusoid": Sinusoid(rounds=4, examples_per_task=20),
}

DIGITS = Problem(ConvNet(depth=2, filters=4, image=(16, 16, 3)), CrossEntropy(), accuracy)
CURVES = Problem(MLP(width=8), squared_error, mean_squared_error)


def images(n: int, seed: int = 0, classes: int = 10) -> Batch:
    """Random 16 x 16 images with labels."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (n, 16, 16, 3)).astype(np.uint8)
    return Batch.of(pixels, random.integers(0, classes, n).astype(np.int32))


def points(n: int, seed: int = 0, slope: float = 1.0, dtype: Any = np.float32) -> Batch:
    """Noisy points on a bent line."""
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 1, (n, 1))
    return Batch.of(x.astype(dtype), (slope * np.abs(x) + 0.1 * random.normal(size=(n, 1))).astype(dtype))


def lines(rounds: int, n: int = 20) -> list[Task]:
    """A stream of bent lines of different slopes."""
    return [Task(points(n, i, i % 3 - 1), points(15, 100 + i, i % 3 - 1), f"slope {i % 3 - 1}") for i in range(rounds)]


def quadratic(dimension: int = 3) -> Problem:
    """`f(w) = mean over examples of (x'w - y)^2 / 2`: a quadratic in w, with A = X'X / n and b = -X'y / n."""

    def init(key: Any) -> Any:
        return {"w": jax.random.normal(key, (dimension,))}

    def half_square(outputs: Any, targets: Any) -> Any:
        return jnp.square(outputs - targets) / 2

    return Problem(Model(init, lambda params, inputs, weights: inputs @ params["w"]), half_square, mean_squared_error)
