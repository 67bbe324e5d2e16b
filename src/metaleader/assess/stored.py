"""The tasks of a table on disk, encoded once, as several processes read them without a copy each."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from metaleader.errors import writing
from metaleader.problem import ModelLike, Problem, Score
from metaleader.problem.losses import Loss
from metaleader.streams.table import Table, order_of
from metaleader.streams.target import TargetKind
from metaleader.streams.task import Stream, Task

INPUTS, TARGETS = "inputs.npy", "targets.npy"


@dataclass(frozen=True)
class Stored:
    """What processes need to know of a table; tasks as `Table` has them.

    Attributes:
        about: the target and the column of tasks, in words.
        folder: where the arrays are.
        names: of the tasks, as drawn once.
        learned: how many rows of each are to learn from.
        held_out: how many rows of each are held out; none where learners are judged on the rows to come.
        first: how many tasks come first.
        shuffled: whether seeds decide on their order.
        kind: what is predicted.
        inputs: how many numbers an example has.
        outputs: how many a model gives.
        loss: of the table.
        score: of the table.
    """

    about: str
    folder: str
    names: tuple[str, ...]
    learned: tuple[int, ...]
    held_out: tuple[int, ...] | None
    first: int
    shuffled: bool
    kind: TargetKind
    inputs: int
    outputs: int
    loss: Loss
    score: Score

    def __getstate__(self) -> dict[str, Any]:
        """Without the arrays, which each process opens for itself."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def problem(self, model: ModelLike) -> Problem:
        """What is learned."""
        return Problem(model, self.loss, self.score)

    def stream(self, seed: int) -> Stream:
        """The tasks, as `Table.stream` gives them."""
        order = order_of(len(self.names), self.first, self.shuffled, seed)
        return Stream(lambda i: self._task(int(order[i])), len(self.names))

    @property
    def judged_up_to(self) -> tuple[int, ...]:
        """The most rows of each task that a learner may have seen when it is judged."""
        return self.learned if self.held_out is not None else tuple(n - 1 for n in self.learned)

    @cached_property
    def _ends(self) -> list[int]:
        return _ends(self.learned, self.held_out)

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        inputs, targets = (np.load(Path(self.folder) / name, mmap_mode="r") for name in (INPUTS, TARGETS))
        return inputs, targets

    def _task(self, i: int) -> Task:
        begin, n = self._ends[i], self.learned[i]
        inputs, targets = (np.array(array[begin : self._ends[i + 1]]) for array in self._arrays)
        if self.held_out is None:
            return Task.from_arrays(inputs[:n], targets[:n], name=self.names[i])
        return Task.from_arrays(inputs[:n], targets[:n], inputs[n:], targets[n:], self.names[i])


def store(table: Table, folder: Path) -> Stored:
    """Write the encoded rows of all tasks, task by task, the held-out ones of each last.

    Raises:
        UserError: the file system refuses to take them.
    """
    parts = [task.parts for task in table.tasks]
    held_out = None if parts[0][1] is None else tuple(len(test) for _, test in parts if test is not None)
    learned = tuple(len(train) for train, _ in parts)
    ends = _ends(learned, held_out)
    with writing(folder):
        arrays: list[np.memmap] = []
        for i, (train, test) in enumerate(parts):
            of_task = table.examples(train if test is None else np.concatenate([train, test]))
            for k, (name, values) in enumerate(zip((INPUTS, TARGETS), of_task, strict=True)):
                if i == 0:
                    arrays.append(open_memmap(folder / name, "w+", values.dtype, (ends[-1], *values.shape[1:])))
                arrays[k][ends[i] : ends[i + 1]] = values
        for array in arrays:
            array.flush()
    return Stored(
        f"{table.target.name} by {table.group}",
        str(folder),
        tuple(task.name for task in table.tasks),
        learned,
        held_out,
        table.first,
        table.shuffled,
        table.kind,
        len(table.features),
        table.outputs,
        table.loss,
        table.score,
    )


def _ends(learned: tuple[int, ...], held_out: tuple[int, ...] | None) -> list[int]:
    rows = learned if held_out is None else tuple(map(sum, zip(learned, held_out, strict=True)))
    return [0, *itertools.accumulate(rows)]
