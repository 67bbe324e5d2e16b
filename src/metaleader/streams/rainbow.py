"""Rainbow MNIST (paper, section 6.1), and the same with the digits that scikit-learn carries."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import UInt8

from metaleader.errors import check_between, check_word
from metaleader.problem.batch import Batch
from metaleader.streams.digits import (
    DIGITS_HELD_OUT,
    MNIST_VALIDATION,
    Digits,
    Grey,
    HeldOut,
    Source,
    embedded,
    mnist,
)
from metaleader.streams.task import Stream, Task

Order: TypeAlias = Literal["random", "colour", "scale", "rotation"]

COLOURS = {
    "red": (255, 0, 0),
    "orange": (255, 127, 0),
    "yellow": (255, 255, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "indigo": (75, 0, 130),
    "violet": (148, 0, 211),
}


@dataclass(frozen=True)
class Transformation:
    """What a task does to an image: a colour behind it, a scale and a rotation.

    Attributes:
        colour: of the background, a name in `COLOURS`.
        scale: `full`, or `half` for half the size amid background.
        rotation: counter-clockwise, in degrees: 0, 90, 180 or 270.
    """

    colour: str
    scale: str
    rotation: int

    def __str__(self) -> str:
        return f"{self.colour}/{self.scale}/{self.rotation}"

    def __call__(self, images: Grey) -> UInt8[np.ndarray, "n side side 3"]:
        """White strokes of grey value `a / 255` over the background: `colour (1 - a / 255) + a` in each channel."""
        if self.scale == "half":
            images = _shrunk(images)
        grey = np.arange(256)[:, None] / 255
        palette = np.rint(np.array(COLOURS[self.colour]) * (1 - grey) + 255 * grey).astype(np.uint8)
        return palette[np.rot90(images, self.rotation // 90, axes=(1, 2))]


TRANSFORMATIONS = tuple(
    itertools.starmap(Transformation, itertools.product(COLOURS, ("full", "half"), (0, 90, 180, 270)))
)


@dataclass(frozen=True)
class RainbowMnist:
    """Rainbow MNIST: 7 background colours x 2 scales x 4 rotations = 56 tasks.

    With `source` fashion-mnist, the images are clothes (Xiao et al., 2017) instead of digits, as many and as large.

    The 60,000 training images of MNIST are split at random into 56 batches, one a task, so that each image
    is used once. Held-out images come from MNIST's test set, under the task's transformation. Images are
    `(28, 28, 3)`, 8 bits a channel.

    Raises:
        UserError: more rounds or examples are asked for than there are, or the order or the source is unknown.

    Examples:
        >>> import metaleader as ml
        >>> settings = ml.RainbowMnist(rounds=10, source="fashion-mnist")
        >>> settings.rounds, settings.examples_per_task  # settings.stream(seed=0) reads the images
        (10, 900)
        >>> ml.RainbowMnist(rounds=57)
        Traceback (most recent call last):
            ...
        metaleader.errors.UserError: rounds must be from 1 to 56, got 57
    """

    rounds: int = 56
    """Tasks in the stream, 56 at most."""
    examples_per_task: int = 900
    """Training images of each task, 1071 at most; 900 with `held_out` validation."""
    test_examples: int = 500
    """Held-out images of each task, 10,000 at most; 9,600 with `held_out` validation."""
    order: Order = "random"
    """`random`, or grouped: all tasks of one colour (scale, rotation) before those of the next."""
    held_out: HeldOut = "test"
    """Where held-out images come from: MNIST's test set, or, to choose settings by, its last 9,600 training images,
    which are then not learned from."""
    source: Source = "mnist"
    """The images: `mnist`, handwritten digits, or `fashion-mnist`, clothes."""

    def __post_init__(self) -> None:
        check_word("order", self.order, get_args(Order))
        check_word("held_out", self.held_out, get_args(HeldOut))
        check_word("source", self.source, get_args(Source))
        check_between("rounds", self.rounds, 1, len(TRANSFORMATIONS))
        held_out = MNIST_VALIDATION if self.held_out == "validation" else 0
        check_between("examples_per_task", self.examples_per_task, 1, (60_000 - held_out) // len(TRANSFORMATIONS))
        check_between("test_examples", self.test_examples, 1, held_out or 10_000)

    def stream(self, seed: int, data_dir: Path | None = None) -> Stream:
        """The stream with order, split and held-out images drawn by `seed`.

        Raises:
            UserError: see `data.locate`.
        """
        digits = mnist(self.held_out, data_dir, self.source)
        order, split, held_out = _generators(seed)
        tasks = ordered(self.order, order)
        places = split.permutation(len(digits.images))[: len(TRANSFORMATIONS) * self.examples_per_task]
        of_tasks = places.reshape(len(TRANSFORMATIONS), self.examples_per_task)
        tests = [held_out.choice(len(digits.held_out_images), self.test_examples, replace=False) for _ in tasks]
        return _stream(digits, tasks, of_tasks, tests, self.rounds)


@dataclass(frozen=True)
class RainbowDigits:
    """Rainbow MNIST's 56 tasks on the 1,797 handwritten digits of 8 x 8 pixels that scikit-learn carries.

    The images are split once, for all seeds, into a pool for training and one for testing (`streams.digits.embedded`).
    Every task draws its examples from the first without replacement; tasks share images, under different
    transformations, since there are too few. Images are `(16, 16, 3)`, 8 bits a channel: each pixel doubled at full
    scale.

    Raises:
        UserError: more rounds or examples are asked for than there are, or the order is unknown.

    Examples:
        >>> import metaleader as ml
        >>> stream = ml.RainbowDigits(rounds=2, examples_per_task=20, order="colour").stream(seed=0)
        >>> len(stream), stream[0].train.inputs.shape
        (2, (20, 16, 16, 3))
        >>> [task.name for task in stream]
        ['green/full/180', 'green/full/90']
    """

    rounds: int = 56
    """Tasks in the stream, 56 at most."""
    examples_per_task: int = 100
    """Training images of each task, 1,397 at most; 997 with `held_out` validation."""
    test_examples: int = 400
    """Held-out images of each task, 400 at most."""
    order: Order = "random"
    """`random`, or grouped: all tasks of one colour (scale, rotation) before those of the next."""
    held_out: HeldOut = "test"
    """Which images are held out: those for testing, or, to choose settings by, a part of those to learn from."""

    def __post_init__(self) -> None:
        check_word("order", self.order, get_args(Order))
        check_word("held_out", self.held_out, get_args(HeldOut))
        check_between("rounds", self.rounds, 1, len(TRANSFORMATIONS))
        check_between("test_examples", self.test_examples, 1, DIGITS_HELD_OUT)
        pools = 2 if self.held_out == "validation" else 1
        check_between("examples_per_task", self.examples_per_task, 1, 1797 - pools * DIGITS_HELD_OUT)

    def stream(self, seed: int, data_dir: Path | None = None) -> Stream:  # noqa: ARG002 - the data is at hand
        """The stream with order and examples drawn by `seed`."""
        digits = embedded(self.held_out)
        order, held_out, drawn = _generators(seed)
        tasks = ordered(self.order, order)
        of_tasks = [drawn.choice(len(digits.images), self.examples_per_task, replace=False) for _ in tasks]
        tests = [held_out.permutation(len(digits.held_out_images))[: self.test_examples]] * len(tasks)
        return _stream(digits, tasks, of_tasks, tests, self.rounds)


def ordered(order: Order, random: np.random.Generator) -> Sequence[Transformation]:
    """All transformations in random order; grouped by `order`, groups come one after another, in random order."""
    shuffled = [TRANSFORMATIONS[i] for i in random.permutation(len(TRANSFORMATIONS))]
    if order == "random":
        return shuffled
    groups = list(dict.fromkeys(getattr(task, order) for task in shuffled))
    return sorted(shuffled, key=lambda task: groups.index(getattr(task, order)))


def _generators(seed: int) -> list[np.random.Generator]:
    """Independent generators for order, split and choice, so that a change to one leaves the others."""
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3)]


def _stream(
    digits: Digits,
    tasks: Sequence[Transformation],
    of_tasks: Sequence[np.ndarray] | np.ndarray,
    tests: Sequence[np.ndarray],
    rounds: int,
) -> Stream:
    """Task by task, a transformation of the images at places of their own."""

    def make(i: int) -> Task:
        return Task(
            _batch(tasks[i], digits.images, digits.labels, of_tasks[i]),
            _batch(tasks[i], digits.held_out_images, digits.held_out_labels, tests[i]),
            str(tasks[i]),
        )

    return Stream(make, rounds, digits.sources)


def _batch(task: Transformation, images: Grey, labels: np.ndarray, places: np.ndarray) -> Batch:
    return Batch.of(task(images[places]), labels[places].astype(np.int32))


def _shrunk(images: Grey) -> Grey:
    """Half the size, by the mean of 2 x 2 pixels, amid zeros."""
    n, height, width = images.shape
    means = images.reshape(n, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
    top, left = (height - height // 2) // 2, (width - width // 2) // 2
    margins = ((0, 0), (top, height - height // 2 - top), (left, width - width // 2 - left))
    return np.pad(np.rint(means).astype(np.uint8), margins)
