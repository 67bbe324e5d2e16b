"""5-way CIFAR-100, a new class with every task (paper, section 6.2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import UInt8

from metaleader.errors import check_between, check_word
from metaleader.problem.batch import Batch
from metaleader.streams import sources as data
from metaleader.streams.digits import HeldOut
from metaleader.streams.task import Stream, Task

WAYS = 5
MOST_ROUNDS = 100 - WAYS + 1
VALIDATION = 100  # images of each class


@dataclass(frozen=True)
class FiveWayCifar100:
    """A stream of 5-way tasks, each with a class of CIFAR-100 that no task before it had.

    Classes are introduced in random order `c_1, ..., c_100`. Task t tells `c_{t+4}`, the newest, from four others
    drawn from `c_1, ..., c_{t+3}`, as in the authors' code; the first task's five are all new. The five labels are
    permuted at random for every task, so that label spaces exclude one another: what a label means must be learned
    from the task's data. Training images of a task are drawn without replacement from the 500 that each class has
    for training, and held-out images from its 100 for testing. Images are `(32, 32, 3)`, 8 bits a channel.

    Raises:
        UserError: more rounds or images are asked for than there are.

    Examples:
        >>> import metaleader as ml
        >>> settings = ml.FiveWayCifar100(rounds=10)
        >>> 5 * settings.examples_per_class, 5 * settings.test_per_class  # of a task, which `stream` reads
        (2000, 500)
        >>> ml.FiveWayCifar100(rounds=97)
        Traceback (most recent call last):
            ...
        metaleader.errors.UserError: rounds must be from 1 to 96, got 97
    """

    rounds: int = MOST_ROUNDS
    """Tasks in the stream, 96 at most."""
    examples_per_class: int = 400
    """Training images of each of a task's five classes, 500 at most; 400 with `held_out` validation."""
    test_per_class: int = 100
    """Held-out images of each of a task's five classes, 100 at most."""
    held_out: HeldOut = "test"
    """Where held-out images come from: the test set, or, to choose settings by, the last 100 training images of each
    class, which are then not learned from."""

    def __post_init__(self) -> None:
        check_word("held_out", self.held_out, get_args(HeldOut))
        most = 500 - VALIDATION if self.held_out == "validation" else 500
        for name, limit in (("rounds", MOST_ROUNDS), ("examples_per_class", most), ("test_per_class", 100)):
            check_between(name, getattr(self, name), 1, limit)

    def stream(self, seed: int, data_dir: Path | None = None) -> Stream:
        """The stream whose order of classes, tasks and images are drawn by `seed`.

        Raises:
            UserError: see `data.locate` and `data.read_cifar100`.
        """
        paths = data.locate(data.find("cifar100"), data_dir)
        cifar = data.read_cifar100(next(iter(paths.values())))
        images, held_out = cifar.train, cifar.test
        if self.held_out == "validation":
            images, held_out = images[:, :-VALIDATION], images[:, -VALIDATION:]
        introduced = np.random.default_rng(seed).permutation(100)

        def make(i: int) -> Task:
            # A generator for each task and kind of data: settings of one leave the other as it is.
            choice, train, test = (np.random.default_rng([seed, i, kind]) for kind in range(3))
            before, newest = introduced[: i + WAYS - 1], introduced[i + WAYS - 1]
            classes = choice.permutation([newest, *choice.choice(before, WAYS - 1, replace=False)])
            others = " ".join(sorted(cifar.names[c] for c in classes if c != newest))
            return Task(
                _drawn(train, images, classes, self.examples_per_class),
                _drawn(test, held_out, classes, self.test_per_class),
                f"{cifar.names[newest]} among {others}",
            )

        return Stream(make, self.rounds, tuple((f"cifar100/{file}", data.sha256(p)) for file, p in paths.items()))


def _drawn(
    random: np.random.Generator, images: UInt8[np.ndarray, "100 n 32 32 3"], classes: np.ndarray, per_class: int
) -> Batch:
    """`per_class` images of each class in random order, labelled by the place of their class in `classes`."""
    places = np.stack([random.choice(images.shape[1], per_class, replace=False) for _ in classes])
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), per_class)
    order = random.permutation(len(labels))
    return Batch.of(images[classes[labels], places.ravel()][order], labels[order])
