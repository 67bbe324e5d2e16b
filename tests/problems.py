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
    Adam,
    Batch,
    ConvNet,
    CrossEntropy,
    GradientDescent,
    HeadFirst,
    Identity,
    InnerAdam,
    InnerMomentum,
    Learner,
    MetaSGD,
    Model,
    MultiHeadFTL,
    MultiHeadTOE,
    OnlineMetaGradient,
    OptimizerSteps,
    Problem,
    Proximal,
    RainbowDigits,
    Recency,
    Reptile,
    Retention,
    Ridge,
    Scratch,
    Sinusoid,
    Task,
    UpdateProcedure,
    accuracy,
    mean_squared_error,
    squared_error,
)
from metaleader.learners import external

UPDATES: dict[str, UpdateProcedure] = {
    "identity": Identity(),
    "one step": GradientDescent(steps=1),
    "five steps": GradientDescent(steps=5),
    "five steps, plain": GradientDescent(steps=5, derivative="plain"),
    "first order": GradientDescent(steps=5, first_order=True),
    "last layer": GradientDescent(steps=5, adapt_only=("head",)),
    "last layer, plain": GradientDescent(steps=5, adapt_only=("head",), derivative="plain"),
    "clipped": GradientDescent(steps=5, clip=0.1),
    "step by datapoints": GradientDescent(steps=5, prior_strength=7.0),
    "meta-sgd, one step": MetaSGD(steps=1),
    "meta-sgd": MetaSGD(),
    "meta-sgd, plain": MetaSGD(derivative="plain"),
    "meta-sgd, by datapoints, last layer": MetaSGD(prior_strength=7.0, adapt_only=("head",)),
    "momentum, one step": OptimizerSteps(1, InnerMomentum()),
    "momentum": OptimizerSteps(5, InnerMomentum()),
    "head first": HeadFirst(3, 0.3, 2, 0.1, 0.5),
    "momentum, last layer": OptimizerSteps(5, InnerMomentum(), adapt_only=("head",)),
    "adam, one step": OptimizerSteps(1, InnerAdam(epsilon=0.1)),
    "adam": OptimizerSteps(5, InnerAdam(epsilon=0.1)),
    "adam, plain": OptimizerSteps(5, InnerAdam(epsilon=0.1), derivative="plain"),
    "imaml, newton": Proximal(steps=12, strength=4.0, solver="newton", cg_steps=30, tolerance=1e-12),
    "imaml, gradient": Proximal(steps=200, strength=2.0, cg_steps=30, tolerance=1e-12),
    "reptile": Reptile(),
    "ridge": Ridge(),
}
HEAD_FIRST = HeadFirst(20, 0.05, 5, 0.03)
LEARNERS: dict[str, Learner] = {
    "ftml": FTML(meta_steps=2, meta_batch=2, train_size=3, validation_size=4),
    "ftml-past-only": FTML(meta_steps=2, meta_batch=2, train_size=3, validation_size=4, past_only=True),
    "ftml-recent": FTML(meta_steps=2, meta_batch=3, train_size=3, validation_size=4, sampling=Recency(2)),
    "ftml-last-layer": FTML(GradientDescent(adapt_only=("head",)), meta_steps=2, meta_batch=2, train_size=3),
    "ftml-reservoir": FTML(
        MetaSGD(prior_strength=5.0), 2, 2, 3, 4, vary_train_size=True, retention=Retention("reservoir", 30)
    ),
    "toe-last": TOE(steps=3, batch_size=8, retention=Retention("last", 2, "tasks")),
    "ftl-share": FTL(steps=3, batch_size=8, retention=Retention("balanced", 64)),
    "toe": TOE(steps=3, batch_size=8),
    "toe-mixed": TOE(steps=3, batch_tasks=0, batch_size=8),
    "toe-calibrated": TOE(steps=3, batch_size=8, calibration_size=4),
    "ftl": FTL(steps=3, batch_size=8),
    "ftl-head-first": FTL(steps=3, batch_size=8, update=HEAD_FIRST),
    "scratch": Scratch(steps=20, batch_size=8),
    "toe-multi-head": MultiHeadTOE(steps=60, batch_tasks=2, batch_size=16, tasks=40),
    "ftl-multi-head": MultiHeadFTL(steps=60, batch_tasks=2, batch_size=16, tasks=40, update=HEAD_FIRST),
    "ftml-adapts-further": FTML(adapt_steps=9, meta_steps=2, meta_batch=2, train_size=3, validation_size=4),
    "streaming": OnlineMetaGradient(meta_steps=2, meta_batch=2, train_size=3, validation_size=4),
    "ftml-averaged": FTML(meta_steps=2, meta_batch=2, train_size=3, validation_size=4, optimizer=Adam(average=0.5)),
    "ftml-ridge": FTML(Ridge(), meta_steps=2, meta_batch=2, train_size=3, validation_size=4),
    "toe-averaged": TOE(steps=3, batch_size=8, optimizer=Adam(average=0.5)),
    "toe-clipped": TOE(steps=3, batch_size=8, optimizer=Adam(average=0.5, clip=1.0)),
}
RIVALS: dict[str, Learner] = {
    **external.compared("regression"),
    "river, tree": external.RiverModel("tree"),
    "river, forest of each task": external.RiverModel("forest", per_task=True),
}
STREAMS: dict[str, Any] = {
    "rainbow-digits": RainbowDigits(rounds=4, examples_per_task=20, test_examples=30),
    "rainbow-digits-by-colour": RainbowDigits(rounds=9, examples_per_task=20, test_examples=30, order="colour"),
    "sinusoid": Sinusoid(rounds=4, examples_per_task=20),
}

DIGITS = Problem(ConvNet(depth=2, filters=4, image=(16, 16, 3)), CrossEntropy(), accuracy)
CURVES = Problem(MLP(width=8), squared_error, mean_squared_error)
THREE_CLASSES = Problem(MLP(2, 3, width=8), CrossEntropy(0.0), accuracy)


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
