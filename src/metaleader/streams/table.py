"""Data frames as streams: the rows of each user, device or site are a task."""

from __future__ import annotations

import math
import warnings as warning
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float32

from metaleader.errors import UserError, at_most, check_between, listed, unknown
from metaleader.models import MLP
from metaleader.problem import CrossEntropy, ModelLike, Problem, Score, accuracy, squared_error
from metaleader.problem.batch import AnyArray
from metaleader.problem.losses import Loss
from metaleader.streams import columns as kinds
from metaleader.streams import leaks
from metaleader.streams.columns import Column
from metaleader.streams.encoding import Encoding, Target, TargetKind, fitted, target_of
from metaleader.streams.groups import Group, split_of, tasks_of
from metaleader.streams.task import Stream, Task

TaskOrder: TypeAlias = Literal["time", "seed"]


@dataclass(frozen=True)
class RootMeanSquare:
    """The root of the mean squared error of all examples, times `scale`: in the unit that the target had."""

    scale: float

    def __call__(self, outputs: AnyArray, targets: AnyArray) -> float:
        """The error of outputs `(n, 1)` against targets `(n, 1)`, both scaled."""
        errors = np.asarray(outputs, np.float64) - np.asarray(targets)
        return self.scale * float(np.sqrt(np.mean(np.square(errors))))


@dataclass(frozen=True, eq=False)
class Table:
    """A data frame as a stream of tasks, made by `from_table`: what was understood of it, and its numbers.

    Attributes:
        target: its name, kind, classes, values and scale.
        tasks: the tasks by first appearance, or, where seeds decide on their order, as drawn once.
        first: how many of them come first with every seed: on their rows to learn from, and no others, encoders are
            fitted.
        shuffled: whether seeds decide on the order: of the first tasks, and of those after them.
        left_out: the columns, rows and tasks that take no part, each with the reason.
        warnings: columns that may give the target away.
        inputs: of all rows of the table, encoded.
        encoding: the fitted transformers.
        columns: of the table, from which the inputs are made.
        group: the name of the column of tasks.
        order: that of the column of times, if there is one.
        held_out: which rows are held out, in words.
    """

    target: Target
    tasks: tuple[Group, ...]
    first: int
    shuffled: bool
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]
    inputs: Float32[np.ndarray, "rows inputs"]
    encoding: Encoding
    columns: tuple[Column, ...]
    group: str
    order: str | None
    held_out: str

    @property
    def kind(self) -> TargetKind:
        """What is predicted: `regression`, or classes, `binary` or `multi-class`."""
        return self.target.kind

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label; none for a regression."""
        return self.target.classes

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the inputs, after encoding."""
        return self.encoding.features

    @property
    def outputs(self) -> int:
        """How many numbers a model must give for an example: 1, or one a class."""
        return len(self.classes) or 1

    @property
    def loss(self) -> Loss:
        """The squared error of the scaled target, or the cross-entropy in nats."""
        return CrossEntropy(label_smoothing=0.0) if self.classes else squared_error

    @property
    def score(self) -> Score:
        """The root of the mean squared error in the target's unit, or the accuracy."""
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

        Inputs are float32 `(n, len(features))`; targets are int32 labels `(n,)`, or float32 `(n, 1)`, scaled.
        """
        order = np.arange(len(self.tasks))
        if self.shuffled:
            random = np.random.default_rng(seed)
            order = np.concatenate([random.permutation(part) for part in (order[: self.first], order[self.first :])])

        def make(i: int) -> Task:
            task = self.tasks[order[i]]
            targets = self.target.values
            if task.test is None:
                return Task.from_arrays(self.inputs[task.train], targets[task.train], name=task.name)
            test = self.inputs[task.test], targets[task.test]
            return Task.from_arrays(self.inputs[task.train], targets[task.train], *test, task.name)

        return Stream(make, len(self.tasks))

    def unscaled(self, outputs: AnyArray) -> np.ndarray:
        """Outputs of a model, `(n, 1)`, as predictions `(n, 1)` in the unit of the target.

        Raises:
            UserError: classes are predicted, which have no unit.
        """
        if self.classes:
            raise UserError(f"{self.target.name!r} is of classes, which are not scaled: take outputs.argmax(axis=1)")
        return np.asarray(outputs, np.float64) * self.target.scale + self.target.mean

    def describe(self) -> str:
        """What was understood of the table, in lines of text, before anything runs."""
        sizes = [len(task.train) + task.held_out for task in self.tasks]
        held_out = sum(task.held_out for task in self.tasks)
        fit = sum(len(task.train) for task in self.tasks[: self.first])
        unit = f"scaled by mean {self.target.mean:.4g} and standard deviation {self.target.scale:.4g}"
        lines = [
            f"{len(sizes)} tasks, one for each {self.group!r}, of {min(sizes)} to {max(sizes)} rows (median "
            f"{np.median(sizes):g}); {sum(sizes)} of {len(self.inputs)} rows",
            f"target: {self.target.name!r}, {self.kind}, "
            + (f"{len(self.classes)} classes: {listed(self.classes)}" if self.classes else unit),
            f"inputs: {len(self.features)} numbers of {len(self.columns)} columns",
            *map(_of_column, self.columns),
            f"held out: {self.held_out}, {held_out} rows"
            if held_out
            else "held out: none; each chunk of rows is judged before it is learned from",
            f"order: tasks by {'seed, the first ones among themselves' if self.shuffled else 'their first row'}, rows "
            + ("as in the table" if self.order is None else f"by {self.order!r}"),
            f"fitted on the {fit} rows to learn from of the first {self.first} tasks: scales, what is imputed, and "
            "categories (later ones count as rare, or as none)",
            *(["left out:", *(f"  {text}" for text in at_most(self.left_out))] if self.left_out else []),
            *(f"warning: {text}" for text in self.warnings),
        ]
        return "\n".join(lines)


def from_table(
    data: Any,
    *,
    group: str,
    target: str,
    order: str | None = None,
    columns: Mapping[str, str] | None = None,
    kind: TargetKind | None = None,
    held_out: str | None = None,
    tasks: TaskOrder | None = None,
    smallest: int = 5,
    fitted_on: int | None = None,
) -> Table:
    """A data frame as a stream: the rows of each group are a task.

    Nothing is learned from what is not yet there: numbers are scaled, missing ones imputed and categories encoded by
    transformers of scikit-learn that are fitted on the first tasks alone, on the rows to learn from. Kinds of
    columns and the names of classes are found in the whole table.

    >>> import pandas as pd
    >>> rows = [(shop, day, day % 7 + shop / 2) for shop in range(4) for day in range(20)]
    >>> table = from_table(pd.DataFrame(rows, columns=["shop", "day", "sales"]), group="shop", target="sales",
    ...     columns={"day": "numeric"})
    >>> table.kind, table.features, len(table.stream(0))
    ('regression', ('day',), 4)

    Args:
        data: of pandas, polars or another library that narwhals reads; in memory.
        group: the column that tells the task of a row.
        target: the column to predict: numbers, or classes.
        order: a column of times or numbers by which rows arrive; it is an input only if `columns` tells its kind. None:
            rows arrive as they stand in the table.
        columns: kinds of columns, by name, where those found are not meant: `numeric`, `categorical`, `date` (a number
            of days), `text` or `left out`, neither of which is an input.
        kind: what is predicted; None: classes where the target holds words or up to 10 different whole numbers,
            otherwise a regression.
        held_out: which rows of a task are held out: `last 30%`, `random 30%` (drawn once, the same for all seeds), any
            per cent; the name of a column that is true, or `test`, for those rows; or `none`: a chunk of rows is judged
            before it is learned from. None: `last 30%` with `order`, otherwise `random 30%`.
        tasks: the order of tasks: by `time` of their first row, or by `seed`. None: by `time` with `order`, otherwise
            by `seed`.
        smallest: how many rows a task needs; smaller ones are left out.
        fitted_on: how many tasks are the first ones; None: a fifth of them, at least 2.

    Raises:
        UserError: a column is missing, comes twice, mixes types, or holds infinite values or none; the target is the
            group, or constant; fewer than two tasks have enough rows; a setting is unknown.
    """
    import narwhals

    frame = kinds.frame(data)
    told = dict(columns or {})
    separate = held_out if held_out in frame.columns else None
    names = [group, target, *filter(None, [order])]
    kinds.check_names(frame.columns, *names, *told)
    _check(group, target, order, told, separate, kind, tasks)
    check_between("smallest", smallest, 2, 1_000_000_000)

    groups = kinds.read(frame[group], "categorical")
    goal = kinds.read(frame[target], "categorical" if frame[target].dtype == narwhals.Boolean else None)
    time = None if order is None else _time(kinds.read(frame[order], "date" if told.get(order) == "date" else None))
    present = groups.present & goal.present & (True if time is None else time.present)
    rows = np.flatnonzero(present)
    if not rows.size:
        raise UserError(
            f"no row has a value of {' and '.join(map(repr, names))} at once: fill in those that are missing"
        )
    if time is not None:
        rows = rows[np.argsort(time.values[rows], kind="stable")]
    used = [n for n in frame.columns if n not in (group, target, separate) and (n != order or n in told)]
    found = [kinds.read(frame[name], told.get(name)) for name in used]

    held = held_out or ("random 30%" if order is None else "last 30%")
    marks = None if separate is None else kinds.read(frame[separate], "categorical")
    chosen, left_out = tasks_of(groups, rows, split_of(held, marks, frame.columns), smallest)
    shuffled = (tasks or ("seed" if order is None else "time")) == "seed"
    if shuffled:
        chosen = [chosen[i] for i in np.random.default_rng(0).permutation(len(chosen))]
    first = max(2, math.ceil(len(chosen) / 5)) if fitted_on is None else fitted_on
    check_between("fitted_on", first, 1, len(chosen))
    fit = np.concatenate([task.train for task in chosen[:first]])
    in_use = np.sort(np.concatenate([part for t in chosen for part in (t.train, t.test) if part is not None]))

    of_target = target_of(goal, kind, in_use, fit)
    reasons = {column.name: _unused(column, fit) for column in found}
    inputs = [column for column in found if not reasons[column.name]]
    if not inputs:
        raise UserError(
            f"the table has no column to predict {target!r} from: add one, or tell kinds by columns={{NAME: 'numeric'}}"
        )
    warnings = leaks.warnings(inputs, of_target, groups, in_use)
    for text in warnings:
        warning.warn(text, UserWarning, stacklevel=2)
    without = len(present) - len(rows)
    out = [f"column {name!r}: {reason}" for name, reason in reasons.items() if reason]
    out += [f"{without} rows without a value of {' or '.join(map(repr, names))}"] if without else []
    encoding = fitted(inputs, fit)
    return Table(
        of_target,
        tuple(chosen),
        first,
        shuffled,
        (*out, *left_out),
        tuple(warnings),
        encoding(inputs),
        encoding,
        tuple(inputs),
        group,
        order,
        held if separate is None else f"rows marked by {separate!r}",
    )


def _check(
    group: str,
    target: str,
    order: str | None,
    told: Mapping[str, str],
    separate: str | None,
    kind: str | None,
    tasks: str | None,
) -> None:
    roles = {"group": group, "target": target, "order": order, "held_out": separate}
    given = [(role, name) for role, name in roles.items() if name is not None]
    for i, (role, name) in enumerate(given):
        for other, same in given[:i]:
            if name == same:
                raise UserError(f"{other} and {role} are the same column, {name!r}: choose another for one of them")
    for taken in (group, target, separate):
        if taken in told:
            raise UserError(
                f"columns tells the kind of {taken!r}, which is no input: remove it (kind= is the target's)"
            )
    if kind is not None and kind not in get_args(TargetKind):
        raise UserError(unknown("kind of target", kind, get_args(TargetKind)))
    if tasks is not None and tasks not in get_args(TaskOrder):
        raise UserError(unknown("order of tasks", tasks, get_args(TaskOrder)))


def _time(column: Column) -> Column:
    if column.kind in ("numeric", "date"):
        return column
    raise UserError(
        f"order {column.name!r} must hold times or numbers, got words such as {column.values[0]!r}: convert it, for "
        "instance by pandas.to_datetime"
    )


def _unused(column: Column, fit: np.ndarray) -> str:
    """Why a column is no input; empty where it is one."""
    if column.kind == "left out":
        return "as told"
    if column.kind == "text":
        return f"text, {column.distinct} different values"
    return "" if column.present[fit].any() else "no value in the first tasks"


def _of_column(column: Column) -> str:
    values = {"categorical": f", {column.distinct} different values", "date": ", a number of days"}
    missing = f", {column.missing} missing" if column.missing else ""
    return f"  {column.name!r}: {column.kind}{values.get(column.kind, '')}{missing}"
