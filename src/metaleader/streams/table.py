"""Tables as streams: the rows of each user, device or site are a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np

from metaleader.errors import at_most, listed
from metaleader.models import MLP
from metaleader.problem import (
    CrossEntropy,
    ModelLike,
    Problem,
    Score,
    accuracy,
    label_accuracy,
    sigmoid_cross_entropy,
    squared_error,
)
from metaleader.problem.batch import AnyArray
from metaleader.problem.losses import Loss
from metaleader.streams.columns import Column
from metaleader.streams.groups import Arrivals, Group
from metaleader.streams.row_encoder import RowEncoder
from metaleader.streams.target import Target, TargetKind
from metaleader.streams.task import Stream, Task

Arrival: TypeAlias = Literal["by task", "by time"]
TaskOrder: TypeAlias = Literal["time", "seed"]


@dataclass(frozen=True)
class RootMeanSquare:
    """The root of the mean squared error of all examples, times `scale`: in the unit that the target had."""

    scale: float

    def __call__(self, outputs: AnyArray, targets: AnyArray) -> float:
        """The error of outputs `(n, 1)` against targets `(n, 1)`, both scaled."""
        errors = np.asarray(outputs, np.float64) - np.asarray(targets)
        return self.scale * float(np.sqrt(np.mean(np.square(errors))))


def order_of(tasks: int, first: int, shuffled: bool, seed: int) -> np.ndarray:
    """Places of tasks in order of arrival: as they stand, or, shuffled, the first among themselves, then the others."""
    order = np.arange(tasks)
    if not shuffled:
        return order
    random = np.random.default_rng(seed)
    return np.concatenate([random.permutation(part) for part in (order[:first], order[first:])])


@dataclass(frozen=True, eq=False)
class Table:
    """A table as a stream of tasks, made by `from_table`: what was understood of it, and its numbers.

    Attributes:
        encoder: how a row becomes an example, and what is predicted becomes words or numbers again: plain data, for
            rows that are not in the table.
        tasks: the tasks by first appearance, or, where seeds decide on their order, as drawn once.
        arrivals: the rounds, where tasks interleave and come back; None: each task is a round.
        first: how many rounds come first with every seed: on their rows to learn from, and no others, encoders are
            fitted.
        fit: on how many of those rows.
        shuffled: whether seeds decide on the order: of the first tasks, and of those after them.
        left_out: the columns, rows and tasks that take no part, each with the reason.
        warnings: columns that may give the target away.
        rows: how many rows the table has.
        examples: `examples(rows)` gives inputs and targets of some rows, encoded; `rows` are an array of places in
            the table, or, of a table on disk, in its grouped copy, as tasks have them.
        columns: of the table, from which the inputs are made.
        group: the name of the column of tasks.
        order: that of the column of times, if there is one.
        held_out: which rows are held out, in words.
        on_disk: whether each task is read from a grouped copy on disk when its round comes.

    Examples:
        >>> import pandas as pd, metaleader as ml
        >>> rows = [(shop, day, day % 7 + shop / 2) for shop in range(4) for day in range(20)]
        >>> frame = pd.DataFrame(rows, columns=["shop", "day", "sales"])
        >>> table = ml.streams.from_table(frame, group="shop", target="sales", columns={"day": "numeric"})
        >>> (task,) = table.stream(seed=0)[:1]
        >>> table.held_out, task.name, len(task.train), len(task.held_out), table.problem().score.name
        ('random 30%', 'shop=2', 14, 6, 'RMSE of sales')
    """

    encoder: RowEncoder
    tasks: tuple[Group, ...]
    arrivals: Arrivals | None
    first: int
    fit: int
    shuffled: bool
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]
    rows: int
    examples: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    columns: tuple[Column, ...]
    group: str
    order: str | None
    held_out: str
    on_disk: bool

    @property
    def target(self) -> Target:
        """What is predicted: its name, kind, classes and scale."""
        return self.encoder.target

    @property
    def kind(self) -> TargetKind:
        """What is predicted: `regression`; classes, `binary` or `multi-class`; or `multi-label`."""
        return self.target.kind

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label; none for a regression."""
        return self.target.classes

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the inputs, after encoding."""
        return self.encoder.features

    @property
    def outputs(self) -> int:
        """How many numbers a model must give for an example: 1, or one a class."""
        return len(self.classes) or 1

    @property
    def loss(self) -> Loss:
        """The squared error of the scaled target, or the cross-entropy in nats (of labels, the mean over them)."""
        if self.kind == "multi-label":
            return sigmoid_cross_entropy
        return CrossEntropy(label_smoothing=0.0) if self.classes else squared_error

    @property
    def score(self) -> Score:
        """The root of the mean squared error in the target's unit, or the accuracy (of labels, the mean over them)."""
        if self.kind == "multi-label":
            return label_accuracy
        if self.classes:
            return accuracy
        name, scale = self.target.name, self.target.scale
        note = f"in the unit of {name!r}, whose standard deviation in the first tasks is {scale:.3g}"
        return Score(f"RMSE of {name}", RootMeanSquare(scale), False, whole=True, note=note)

    def problem(self, model: ModelLike | None = None) -> Problem:
        """What is learned, for `ml.run`.

        Args:
            model: gives `outputs` numbers for inputs `(n, len(features))`; None: an `MLP`.
        """
        return Problem(model or MLP(len(self.features), self.outputs), self.loss, self.score)

    def stream(self, seed: int) -> Stream:
        """The tasks in order of arrival.

        Inputs are float32 `(n, len(features))`; targets are int32 labels `(n,)`, float32 values `(n, 1)`, scaled, or
        float32 `(n, len(classes))`, 1 where an example has the label. Tasks that come back have a key, the name.
        """
        arrivals = self.arrivals
        if arrivals is not None:
            return Stream(lambda i: self._task(self.tasks[arrivals.tasks[i]], arrivals.of(i)), len(arrivals.ends))
        order = order_of(len(self.tasks), self.first, self.shuffled, seed)
        return Stream(lambda i: self._task(self.tasks[order[i]]), len(self.tasks))

    def _task(self, group: Group, arriving: np.ndarray | None = None) -> Task:
        """A round of a task: all of its rows, or those that arrive in it."""
        train, test = group.parts
        rows = train if arriving is None else arriving
        inputs, targets = self.examples(rows if test is None else np.concatenate([rows, test]))
        n, key = len(rows), None if arriving is None else group.name
        if test is None:
            return Task.from_arrays(inputs, targets, name=group.name, key=key)
        return Task.from_arrays(inputs[:n], targets[:n], inputs[n:], targets[n:], group.name, key)

    def encode(self, rows: Any) -> np.ndarray:
        """The inputs of rows that are not in the table, float32 `(n, len(features))`.

        Args:
            rows: see `RowEncoder.encode`; group, target and whatever else is no input may be missing.

        Raises:
            UserError: as `RowEncoder.encode` does.
        """
        return self.encoder.encode(rows)

    def decode(self, outputs: AnyArray) -> np.ndarray:
        """Outputs of a model, `(n, outputs)`, as predictions in the words and the unit of the table.

        They are numbers `(n,)`; names of classes `(n,)`; or, of several labels, tuples of names `(n,)`.
        """
        return self.target.decode(outputs)

    def unscaled(self, outputs: AnyArray) -> np.ndarray:
        """Outputs of a model, `(n, 1)`, as predictions `(n, 1)` in the unit of the target.

        Raises:
            UserError: classes are predicted, which have no unit.
        """
        return self.target.unscaled(outputs)

    @cached_property
    def _sizes(self) -> list[tuple[int, int]]:
        """The number of rows of each task, and how many of them are held out."""
        return [(len(task.rows), task.held_out) for task in self.tasks]

    def describe(self) -> str:
        """What was understood of the table, in lines of text, before anything runs."""
        sizes, held_out = [n for n, _ in self._sizes], sum(out for _, out in self._sizes)
        unit = f"scaled by mean {self.target.mean:.4g} and standard deviation {self.target.scale:.4g}"
        several = "labels, any number a row" if self.kind == "multi-label" else "classes"
        lines = [
            f"{len(sizes)} tasks, one for each {self.group!r}, of {min(sizes)} to {max(sizes)} rows (median "
            f"{np.median(sizes):g}); {sum(sizes)} of {self.rows} rows"
            + (", on disk, grouped by task" if self.on_disk else ""),
            f"target: {self.target.name!r}, {self.kind}, "
            + (f"{len(self.classes)} {several}: {listed(self.classes)}" if self.classes else unit),
            f"inputs: {len(self.features)} numbers of {len(self.columns)} columns",
            *map(_of_column, self.columns),
            f"held out: {self.held_out}, {held_out} rows"
            if held_out
            else "held out: none; each chunk of rows is judged before it is learned from",
            self._in_order(),
            f"fitted on {self._fitted_on()}: scales, what is imputed, and categories (later ones count as rare, or as "
            "none)",
            *(["left out:", *(f"  {text}" for text in at_most(self.left_out))] if self.left_out else []),
            *(f"warning: {text}" for text in self.warnings),
        ]
        return "\n".join(lines)

    def _in_order(self) -> str:
        if self.arrivals is not None:
            return f"order: rows by {self.order!r}, in {len(self.arrivals.ends)} rounds; tasks interleave and come back"
        tasks = "seed, the first ones among themselves" if self.shuffled else "their first row"
        return f"order: tasks by {tasks}, rows " + ("as in the table" if self.order is None else f"by {self.order!r}")

    def _fitted_on(self) -> str:
        if self.arrivals is not None:
            return f"the first {self.fit} rows to learn from"
        there = sum(n - out for n, out in self._sizes[: self.first])
        of = f"the {there} rows" if there == self.fit else f"{self.fit} of {there} rows"
        return f"{of} to learn from of the first {self.first} tasks"


def _of_column(column: Column) -> str:
    values = {"categorical": f", {column.different} different values", "date": ", a number of days"}
    missing = f", {column.missing} missing" if column.missing else ""
    return f"  {column.name!r}: {column.kind}{values.get(column.kind, '')}{missing}"
