"""Sequential pose prediction (paper, section 6.3)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from metaleader.errors import UserError, check_word
from metaleader.problem.batch import Batch
from metaleader.streams import rendering
from metaleader.streams import sources as data
from metaleader.streams.digits import HeldOut
from metaleader.streams.rendering import Rendering
from metaleader.streams.task import Stream, Task


@dataclass(frozen=True)
class Pose:
    """Where an object stands on a table and which way it faces, from an image; a task is an object and a camera.

    Inputs are images `(pixels, pixels, 3)`, 8 bits a channel. Targets are `(4,)`: x and y of the object's centre, in
    half table lengths, from -1 to 1 across the table, whose red dot is at (0.88, 0.88), and sine and cosine of its
    azimuth. Images that were not rendered before are rendered first, which takes minutes.

    Raises:
        UserError: more rounds or images are asked for than are rendered.

    Examples:
        >>> import metaleader as ml
        >>> settings = ml.Pose(rounds=3)  # settings.stream(seed=0) renders its images first, if need be
        >>> settings.rounds, settings.rendering.pixels, settings.rendering.tasks
        (3, 64, 90)
    """

    rounds: int = 90
    """Tasks in the stream, in an order drawn by the seed."""
    examples_per_task: int = 1000
    """Training images of each task."""
    test_examples: int = 200
    """Held-out images of each task."""
    rendering: Rendering = Rendering()
    """What is rendered."""
    held_out: HeldOut = "test"
    """Which images are held out: those rendered for testing, or, to choose settings by, the last `test_examples` of
    those to learn from, which are then not learned from; a task may have fewer of these than `examples_per_task`."""

    def __post_init__(self) -> None:
        of = self.rendering
        check_word("held_out", self.held_out, get_args(HeldOut))
        limits = (("rounds", of.tasks), ("examples_per_task", of.images), ("test_examples", of.held_out))
        for name, most in limits:
            if not 1 <= getattr(self, name) <= most:
                raise UserError(
                    f"{name} must be from 1 to {most}, which are rendered, got {getattr(self, name)}: see the options "
                    "--stream.rendering"
                )
        if self.held_out == "validation" and self.test_examples >= of.images:
            raise UserError(
                f"test_examples must be below {of.images}, the images to learn from, where they are held out of these; "
                f"got {self.test_examples}"
            )

    def stream(self, seed: int, data_dir: Path | None = None) -> Stream:
        """The stream whose order of tasks and of images are drawn by `seed`.

        Raises:
            UserError: see `rendering.render`; or the images of all rounds do not fit into memory.
        """
        # A learner keeps them all, in arrays that double: the old and the new one are there for a moment.
        kept = self.rounds * self.examples_per_task * self.rendering.pixels**2 * 3
        rendering.check_memory(3 * kept, f"keeping {self.rounds} x {self.examples_per_task} images")
        folder = rendering.render(self.rendering, data_dir)
        order = np.random.default_rng(seed).permutation(self.rendering.tasks)
        files = [folder / rendering.task_file(int(task)) for task in order]

        def make(i: int) -> Task:
            with np.load(files[i]) as task:
                inputs, targets, name = task["inputs"], task["targets"], str(task["name"])
            n = self.rendering.images - (self.test_examples if self.held_out == "validation" else 0)
            train = np.random.default_rng([seed, i]).permutation(n)[: self.examples_per_task]
            first = n if self.held_out == "validation" else self.rendering.images
            test = slice(first, first + self.test_examples)
            return Task(Batch.of(inputs[train], targets[train]), Batch.of(inputs[test], targets[test]), name)

        manifest = folder / rendering.MANIFEST
        return Stream(make, self.rounds, ((f"pose/{folder.name}/{manifest.name}", data.sha256(manifest)),))
