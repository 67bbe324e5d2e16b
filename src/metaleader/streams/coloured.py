"""Coloured digits: a background that tells tasks apart, and misleads (paper, figure 1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import UInt8

from metaleader.errors import UserError, check_between, check_word
from metaleader.problem.batch import Batch
from metaleader.streams.digits import Digits, Grey, HeldOut, embedded, mnist
from metaleader.streams.rainbow import COLOURS, Transformation
from metaleader.streams.task import Stream, Task

WAYS = 5
Images = UInt8[np.ndarray, "n side side 3"]


@dataclass(frozen=True)
class ColouredMnist:
    """Tasks that each tell five digits apart, on a background of one colour; what a label means differs by task.

    A task draws five of the ten digits and gives them the labels 0 to 4 in random order. All of its images have the
    same background, one of seven colours that come in turn. Within a task the colour says nothing. Across the tasks
    seen so far it is the only thing in an image that says which labels apply, so that is what joint training
    learns; and it misleads, since the next task of that colour has other labels. Images are `(28, 28, 3)`, 8 bits a
    channel, white on colour; those to learn from come from MNIST's training set, held-out ones from its test set.

    Raises:
        UserError: a number is not positive, or more images are asked for than there are.

    Examples:
        >>> import metaleader as ml
        >>> settings = ml.ColouredMnist(rounds=14, held_out="validation")
        >>> settings.rounds, settings.examples_per_task  # settings.stream(seed=0) reads MNIST
        (14, 100)
    """

    rounds: int = 35
    """Tasks in the stream: each colour comes every seventh round."""
    examples_per_task: int = 100
    """Training images of each task, a fifth of each digit."""
    test_examples: int = 200
    """Held-out images of each task."""
    held_out: HeldOut = "test"
    """Where held-out images come from: MNIST's test set, or, to choose settings by, its last 9,600 training images,
    which are then not learned from."""

    def __post_init__(self) -> None:
        _check(self, 20_000, 4_000)

    def stream(self, seed: int, data_dir: Path | None = None) -> Stream:
        """The stream whose colours, digits, labels and images are drawn by `seed`.

        Raises:
            UserError: see `data.locate`.
        """
        return _stream(self, mnist(self.held_out, data_dir), seed)


@dataclass(frozen=True)
class ColouredDigits:
    """`ColouredMnist` with the 1,797 digits that scikit-learn carries, `(16, 16, 3)`; nothing is downloaded.

    One split serves all seeds: 400 images are held out. Tasks share images, under other colours and labels.

    Raises:
        UserError: a number is not positive, or more images are asked for than there are.

    Examples:
        >>> import metaleader as ml
        >>> stream = ml.ColouredDigits(rounds=14, examples_per_task=20).stream(seed=0)
        >>> first = stream[0].train
        >>> first.inputs.shape, sorted(set(first.targets.tolist()))
        ((20, 16, 16, 3), [0, 1, 2, 3, 4])
        >>> len({tuple(image[0, 0]) for image in first.inputs})  # one background
        1
    """

    rounds: int = 35
    """Tasks in the stream: each colour comes every seventh round."""
    examples_per_task: int = 100
    """Training images of each task, a fifth of each digit."""
    test_examples: int = 150
    """Held-out images of each task."""
    held_out: HeldOut = "test"
    """Which images are held out: those for testing, or, to choose settings by, a part of those to learn from."""

    def __post_init__(self) -> None:
        _check(self, 400, 150)

    def stream(self, seed: int, data_dir: Path | None = None) -> Stream:  # noqa: ARG002 - the data is at hand
        """The stream whose colours, digits, labels and images are drawn by `seed`."""
        return _stream(self, embedded(self.held_out), seed)


def _check(settings: ColouredMnist | ColouredDigits, most_examples: int, most_held_out: int) -> None:
    check_word("held_out", settings.held_out, get_args(HeldOut))
    limits = (("rounds", 10_000), ("examples_per_task", most_examples), ("test_examples", most_held_out))
    for name, most in limits:
        value = getattr(settings, name)
        check_between(name, value, 1, most)
        if name != "rounds" and value % WAYS:
            raise UserError(f"{name} must be a multiple of {WAYS}, the digits of a task, got {value}")


def _stream(settings: ColouredMnist | ColouredDigits, its: Digits, seed: int) -> Stream:
    colours = np.random.default_rng(seed).permutation(list(COLOURS))

    def make(i: int) -> Task:
        choice, train, test = (np.random.default_rng([seed, i, kind]) for kind in range(3))
        colour, digits = str(colours[i % len(colours)]), choice.permutation(10)[:WAYS]
        held_out = its.held_out_images, its.held_out_labels
        return Task(
            _drawn(train, its.images, its.labels, digits, colour, settings.examples_per_task // WAYS),
            _drawn(test, *held_out, digits, colour, settings.test_examples // WAYS),
            f"{colour}/{''.join(map(str, digits))}",
        )

    return Stream(make, settings.rounds, its.sources)


def recoloured(images: Images, old: str, new: str) -> Images:
    """Images on a background of colour `old`, on one of colour `new`."""
    grey = images[..., COLOURS[old].index(0)]  # where a colour has nothing, the pixel is the stroke
    return Transformation(new, "full", 0)(np.ascontiguousarray(grey))


def _drawn(
    random: np.random.Generator, images: Grey, labels: np.ndarray, digits: np.ndarray, colour: str, per_digit: int
) -> Batch:
    """`per_digit` distinct images of each digit in random order, labelled by the place of the digit in `digits`."""
    places = [random.choice(np.flatnonzero(labels == digit), per_digit, replace=False) for digit in digits]
    meaning = np.repeat(np.arange(WAYS, dtype=np.int32), per_digit)
    order = random.permutation(len(meaning))
    return Batch.of(Transformation(colour, "full", 0)(images[np.concatenate(places)[order]]), meaning[order])
