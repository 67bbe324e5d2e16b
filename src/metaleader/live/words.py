"""How a learner that lives is spoken to, and speaks: in arrays, or in the rows and words of its table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from metaleader.buffer import TaskKey
from metaleader.errors import UserError
from metaleader.learners import Learner
from metaleader.learners.base import Adapted
from metaleader.live import export
from metaleader.live.inputs import checked_key
from metaleader.live.layout import Layout
from metaleader.problem import CrossEntropy, Problem
from metaleader.problem.batch import Batch
from metaleader.streams import RowEncoder


@dataclass(frozen=True)
class Words:
    """What is told to a learner, as it sees it, and what it says, as it is told.

    Attributes:
        problem: what is learned.
        learner: by which learner.
        encoder: of the rows of a table; None: it is told arrays.
    """

    problem: Problem
    learner: Learner
    encoder: RowEncoder | None

    def key(self, task: TaskKey) -> TaskKey:
        """A task's key as it is stored.

        Raises:
            ValueError: it is none.
        """
        key = checked_key(task)
        return key if self.encoder is None else str(key)

    def inputs(self, x: Any) -> Any:
        """Inputs as arrays."""
        return x if self.encoder is None else self.encoder.encode(x)

    def datapoints(self, x: Any, y: Any) -> Batch:
        """Inputs, or rows, and their targets as the learner sees them; without `y`, rows hold these.

        Raises:
            ValueError: there are none, or no targets.
        """
        if self.encoder is not None:
            inputs = self.encoder.encode(x)
            return Batch.of(inputs, self.encoder.targets(x) if y is None else self.encoder.told(y))
        if y is None:
            raise UserError("targets are missing: give y; rows have their own only where Live.create was given a table")
        return Batch.of(x, y)

    def check(self, batch: Batch, layout: Layout, classes: int | None) -> None:
        """Make sure that datapoints have a layout, and labels one of so many classes, if that is known.

        Raises:
            ValueError: they have not.
        """
        layout.check(batch)
        if isinstance(self.problem.loss, CrossEntropy) and classes is not None:
            self.problem.loss.check(classes, batch.targets)

    def outputs(self, adapted: Adapted, inputs: Any) -> Any:
        """What the learner predicts, as it sees targets, or as probabilities."""
        outputs = self.learner.predict(self.problem, adapted, inputs)
        return outputs if self._activation is None else self._activation(outputs)

    def decoded(self, outputs: Any) -> Any:
        """The same in the unit of the table's target, on the host."""
        outputs = jax.tree.map(np.asarray, outputs)
        if self.encoder is None or self.encoder.classes:
            return outputs
        return self.encoder.target.unscaled(outputs)

    def export(self, folder: Path, adapted: Adapted, layout: Layout, about: Mapping[str, Any]) -> None:
        """Write what predicts a task; see `Live.export`."""
        predicts = "values" if self._activation is None else "probabilities"
        told = {**about, "learner": type(self.learner).__name__, "predicts": predicts}
        if self.encoder is not None:
            told["rows"] = self.encoder.as_json()
        target = None if self.encoder is None else self.encoder.target
        export.write(folder, self.outputs, adapted, layout, target, told)

    @property
    def _activation(self) -> Callable[[Any], Any] | None:
        """What makes probabilities of the learner's outputs; None: they are values."""
        if isinstance(self.problem.loss, CrossEntropy):
            return partial(jax.nn.softmax, axis=-1)
        return jax.nn.sigmoid if self.encoder is not None and self.encoder.target.kind == "multi-label" else None
