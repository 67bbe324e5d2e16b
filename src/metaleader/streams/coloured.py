"""Coloured MNIST: a background that tells tasks apart, and misleads (paper, figure 1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from metaleader import data
from metaleader.batch import Batch
from metaleader.errors import UserError
from metaleader.streams.rainbow import COLOURS, Grey, Transformation
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
    """

    rounds: int = 35
    """Tasks in the stream: each colour comes every seventh round."""
    examples_per_task: int = 100
    """Training images of each task, a fifth of each digit."""
    test_examples: int = 200
    """Held-out images of each task."""

    def __post_init__(self) -> None:
        limits = (("rounds", 10_000), ("examples_per_task", 25_000), ("test_examples", 4_000))
        for name, most in limits:
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise UserError(f"{name} must be from 1 to {most}, got {value}")
            if name != "rounds" and value % WAYS:
                raise UserError(f"{name} must be a multiple of {WAYS}, the digits of a task, got {value}")

    def stream(self, seed: int, data_dir: Path | None = None) -> Stream:
        """The stream whose colours, digits, labels and images are drawn by `seed`.

        Raises:
            UserError: see `data.locate`.
        """
        paths = data.locate(data.find("mnist"), data_dir)
        images, labels, test_images, test_labels = (data.read_idx(path) for path in paths.values())
        colours = np.random.default_rng(seed).permutation(list(COLOURS))

        def make(i: int) -> Task:
            choice, train, test = (np.random.default_rng([seed, i, kind]) for kind in range(3))
            colour, digits = str(colours[i % len(colours)]), choice.permutation(10)[:WAYS]
            return Task(
                _drawn(train, images, labels, digits, colour, self.examples_per_task // WAYS),
                _drawn(test, test_images, test_labels, digits, colour, self.test_examples // WAYS),
                f"{colour}/{''.join(map(str, digits))}",
            )

        return Stream(make, self.rounds, tuple((f"mnist/{name}", data.sha256(path)) for name, path in paths.items()))


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
