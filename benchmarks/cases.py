"""What is measured: nets with weights and data, as the package has them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import sklearn.datasets
from jax.sharding import NamedSharding, PartitionSpec

from metaleader import (
    MLP,
    Batch,
    ConvNet,
    CrossEntropy,
    GradientDescent,
    PoseNet,
    Problem,
    accuracy,
    devices,
    mean_squared_error,
    meta_gradient,
    squared_error,
)
from metaleader.streams import sources as data
from metaleader.streams.rainbow import TRANSFORMATIONS

Function = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """A net and the size of its inner step.

    Attributes:
        name: in tables.
        model: the net.
        step_size: of the inner gradient steps.
        regression: squared error against moments of the image, instead of smoothed cross-entropy against its label.
        rounds: how often it is measured, relative to the others: a heavy net less often.
        loss_apart: how far apart, relative, two programs' losses may be in single precision, where the rounding of one
            inner step moves the next through batch normalisation, ever further.
    """

    name: str
    model: Any
    step_size: float = 0.1
    regression: bool = False
    rounds: float = 1.0
    loss_apart: float = 1e-2

    @property
    def problem(self) -> Problem:
        """The net with its loss."""
        if self.regression:
            return Problem(self.model, squared_error, mean_squared_error)
        return Problem(self.model, CrossEntropy(0.1), accuracy)


CASES = {
    "rainbow-mnist": Case("Rainbow MNIST net", ConvNet(depth=4, stride=2)),
    "mlp": Case("MLP 2352-200-200-10", MLP(inputs=28 * 28 * 3, outputs=10, width=200), step_size=0.01),
    "pose": Case("pose net", PoseNet(), step_size=0.01, regression=True, rounds=0.4, loss_apart=5e-2),
}


@dataclass(frozen=True)
class Data:
    """D_tr and D_val of every task, `(tasks, n, ...)`, on the host."""

    train: Batch
    validation: Batch


def meta_batch(case: Case, tasks: int, train: int, validation: int) -> Data:
    """Digits under a colour, scale and rotation a task; the same for the same numbers."""
    images, labels, _ = digits()
    random = np.random.default_rng(0)
    batches: list[list[Batch]] = [[], []]
    for task in range(tasks):
        drawn = random.choice(len(images), train + validation, replace=False)
        grey = images[drawn]
        pixels = TRANSFORMATIONS[task % len(TRANSFORMATIONS)](grey)
        side = getattr(case.model, "image", pixels.shape[1:])[0]
        targets = _moments(grey) if case.regression else labels[drawn].astype(np.int32)
        whole = Batch.of(_enlarged(pixels, side), targets)
        batches[0].append(whole[:train])
        batches[1].append(whole[train:])
    return Data(*(jax.tree.map(lambda *leaves: np.stack(leaves), *each) for each in batches))


def in_double(of: Data, params: Any, tasks: int) -> tuple[Data, Any]:
    """The first tasks, and the weights, in double precision; images scaled as nets scale 8-bit ones."""

    def convert(batch: Batch) -> Batch:
        targets = batch.targets.astype(np.float64) if batch.targets.dtype == np.float32 else batch.targets
        return Batch(batch.inputs[:tasks] / 255, targets[:tasks], batch.weights[:tasks].astype(np.float64))

    return Data(convert(of.train), convert(of.validation)), jax.tree.map(lambda p: p.astype(np.float64), params)


@cache
def digits() -> tuple[np.ndarray, np.ndarray, str]:
    """Grey images `(n, 28, 28)`, labels and their origin: MNIST's if `METALEADER_DATA` names a folder with it.

    Images of random pixels would not do: to batch normalisation all of them look alike, so that it divides by
    little and enlarges rounding.
    """
    folder = os.environ.get(data.ENVIRONMENT)
    if folder and (Path(folder) / "mnist").is_dir():
        images, labels = (data.read_idx(p) for p in list(data.locate(data.find("mnist"), Path(folder)).values())[:2])
        return images, labels, "MNIST"
    small = sklearn.datasets.load_digits()
    enlarged = np.kron(np.rint(small.images * (255 / 16)), np.ones((1, 3, 3))).astype(np.uint8)
    return np.pad(enlarged, ((0, 0), (2, 2), (2, 2))), small.target, "scikit-learn's digits, enlarged"


def _enlarged(pixels: np.ndarray, side: int) -> np.ndarray:
    """Every pixel as many times as fit, amid the colour of the corner."""
    times = side // pixels.shape[1]
    larger = pixels.repeat(times, axis=1).repeat(times, axis=2)
    before = (side - larger.shape[1]) // 2
    after = side - larger.shape[1] - before
    return np.pad(larger, ((0, 0), (before, after), (before, after), (0, 0)), mode="edge")


def _moments(grey: np.ndarray) -> np.ndarray:
    """Centre of mass and spread of the strokes across and down, `(n, 4)`, in half sides."""
    place = np.linspace(-1, 1, grey.shape[1])
    share = grey / grey.sum(axis=(1, 2), keepdims=True)
    across, down = share.sum(axis=1), share.sum(axis=2)
    centres = [across @ place, down @ place]
    spreads = [np.sqrt(part @ place**2 - centre**2) for part, centre in zip((across, down), centres, strict=True)]
    return np.stack([*centres, *spreads], axis=1).astype(np.float32)


def package(
    case: Case,
    of: Data,
    params: Any,
    steps: int,
    derivative: Literal["forward-over-reverse", "plain"] = "forward-over-reverse",
) -> tuple[Function, Any]:
    """The package's meta-gradient, tasks shared by all cores, and the compiled program.

    A meta-batch that the cores do not divide is filled up with tasks of weight 0, which contribute zeros.
    """
    tasks, cores = len(of.train.weights), jax.local_device_count()
    filled = -(-tasks // cores) * cores
    mesh = devices.mesh(filled)
    update = GradientDescent(steps, case.step_size, derivative=derivative)
    by_task = NamedSharding(mesh, PartitionSpec(devices.TASKS))
    batches = jax.device_put(jax.tree.map(lambda leaf: _filled(leaf, filled), (of.train, of.validation)), by_task)
    everywhere = jax.device_put(params, devices.replicated(mesh))

    def share(w: Any, batches: tuple[Batch, Batch]) -> Any:
        found = meta_gradient(case.problem, update, w, *batches, devices.tasks_at_once())
        return jax.tree.map(lambda leaf: jax.lax.pmean(leaf, devices.TASKS) * (filled / tasks), found)

    spread = jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(devices.TASKS)),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    compiled = jax.jit(spread).lower(everywhere, batches).compile()
    return partial(_done, compiled, everywhere, batches), compiled


def _done(function: Callable[..., Any], *arguments: Any) -> Any:
    return jax.block_until_ready(function(*arguments))


def _filled(leaf: np.ndarray, tasks: int) -> np.ndarray:
    missing = tasks - len(leaf)
    return np.concatenate([leaf, np.zeros_like(leaf[:1]).repeat(missing, axis=0)]) if missing else leaf
