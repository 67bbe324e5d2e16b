"""The target of a table: of what kind it is, and how its values become what a learner sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Shaped

from metaleader.errors import UserError, listed
from metaleader.problem.batch import AnyArray
from metaleader.streams.columns import MANY, Column, present
from metaleader.streams.objects import MISSING, labels, spelled

TargetKind: TypeAlias = Literal["regression", "binary", "multi-class", "multi-label"]
CLASSES = 10  # so many different whole numbers are classes at most, unless told


@dataclass(frozen=True)
class Target:
    """What is predicted.

    Attributes:
        name: of the column, or of the columns.
        kind: `regression`, or classes, `binary` or `multi-class`, or `multi-label`: any number of classes at once.
        classes: their names, by label; none for a regression.
        columns: the names of the columns, several where each tells a label.
        distinct: the values that stand for the classes, rising: numbers or words; of several columns, 0 and 1.
        mean: of a regression's target in the fit, in its unit.
        scale: its standard deviation there, in its unit.
    """

    name: str
    kind: TargetKind
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    distinct: tuple[float, ...] | tuple[str, ...]
    mean: float = 0.0
    scale: float = 1.0

    @property
    def read_as(self) -> dict[str, str]:
        """As what kinds the values of its columns are read, by name (see `columns.values`)."""
        if self.kind == "multi-label" and len(self.columns) == 1:
            return {self.columns[0]: "labels"}
        return dict.fromkeys(self.columns, "categorical" if self._of_words else "numeric")

    @property
    def _of_words(self) -> bool:
        return bool(self.distinct) and isinstance(self.distinct[0], str)

    @cached_property
    def _values(self) -> np.ndarray:
        return np.array(self.distinct, object if self._of_words else np.float64)

    def __call__(self, values: Mapping[str, np.ndarray]) -> Shaped[np.ndarray, "n ..."]:
        """Targets from the values of their columns.

        They are int32 labels `(n,)`; float32 values to regress `(n, 1)`, scaled; or float32 `(n, classes)`, 1 where an
        example has the label. Of rows that lack a value, they mean nothing.
        """
        if len(self.columns) > 1:
            return np.nan_to_num(np.column_stack([values[name] for name in self.columns])).astype(np.float32)
        column = self._known(values[self.columns[0]])
        if self.kind == "regression":
            return ((column[:, None] - self.mean) / self.scale).astype(np.float32)
        if self.kind == "multi-label":
            sets = [set(row or ()) for row in column.tolist()]
            return np.array([[name in row for name in self.classes] for row in sets], np.float32)
        absent = column == MISSING if column.dtype.kind == "O" else np.isnan(column)
        return np.searchsorted(self._values, np.where(absent, self._values[0], column)).astype(np.int32)

    def check(self, values: Mapping[str, np.ndarray]) -> None:
        """Make sure that rows have a target, of a class that is known.

        Raises:
            UserError: naming the first row that does not, or the classes that are unknown.
        """
        for name in self.columns:
            if (absent := np.flatnonzero(~present(values[name]))).size:
                raise UserError(f"target {name!r} lacks a value in row {absent[0]}: give one, or leave the row out")
        if self.kind == "regression":
            (column,) = (values[name] for name in self.columns)
            if (beyond := np.flatnonzero(np.abs((column - self.mean) / self.scale) > np.finfo(np.float32).max)).size:
                row = int(beyond[0])
                raise UserError(
                    f"target {self.name!r} holds the number {column[row]:g} in row {row}, too large beside those of "
                    "the first tasks: repair it"
                )
            return
        met = set().union(*(self._known(values[name]).tolist() for name in self.columns))
        known: set[object] = set(self.distinct)
        if self.kind == "multi-label" and len(self.columns) == 1:
            met = set().union(*met)
        if odd := labels(np.array([*sorted(met - known), None], object)[:-1]).tolist():
            there_are = "0 and 1" if len(self.columns) > 1 else listed(self.classes)
            raise UserError(f"{self.name!r} has no class {listed(odd)}: its classes are {there_are}")

    def _known(self, column: np.ndarray) -> np.ndarray:
        """Words as the classes are written."""
        return spelled(column, self.classes) if self._of_words and self.kind != "multi-label" else column

    def unscaled(self, outputs: AnyArray) -> np.ndarray:
        """Outputs of a model, `(n, 1)`, as predictions `(n, 1)` in the unit of the target, `mean + scale * output`.

        Raises:
            UserError: classes are predicted, which have no unit.
        """
        if self.classes:
            raise UserError(f"{self.name!r} is of classes, which are not scaled: take table.decode(outputs)")
        return np.asarray(outputs, np.float64) * self.scale + self.mean

    def decode(self, outputs: AnyArray) -> np.ndarray:
        """Outputs of a model, `(n, outputs)`, as predictions in the words and the unit of the table.

        They are numbers `(n,)`; names of classes `(n,)`; or, of several labels, tuples of names `(n,)`.
        """
        values = np.asarray(outputs)
        if self.kind == "regression":
            return self.unscaled(values).reshape(-1)
        names = np.array([*self.classes, None], object)
        if self.kind != "multi-label":
            return names[values.argmax(axis=1)]
        found = np.empty(len(values), object)
        found[:] = [tuple(names[np.flatnonzero(row > 0)]) for row in values]
        return found


def target_of(goals: Sequence[Column], kind: TargetKind | None, rows: int, fit: Mapping[str, np.ndarray]) -> Target:
    """The target: its classes are those of the rows in use, its scale is that of the rows of the fit.

    Args:
        goals: its columns, as they are in the rows in use.
        kind: as told.
        rows: how many rows are in use.
        fit: the values of its columns in the fit.

    Raises:
        UserError: the target is constant, or cannot be of the kind.
    """
    if len(goals) > 1 or goals[0].kind == "labels":
        return _of_labels(goals, kind)
    (goal,) = goals
    if goal.kind == "date":
        raise UserError(f"target {goal.name!r} holds dates: give a number, such as the days until then")
    number = goal.kind == "numeric"
    distinct = np.array(sorted(goal.distinct), np.float64 if number else object)
    if len(distinct) == 1:
        raise UserError(f"target {goal.name!r} is constant, always {labels(distinct)[0]}: there is nothing to predict")
    whole = number and bool((distinct == np.rint(distinct)).all())
    if kind is None:
        if goal.kind == "text":
            raise UserError(
                f"target {goal.name!r} holds {goal.different} different words in {rows} rows, which is text; say "
                "kind='multi-class' if they are classes"
            )
        of_classes = not number or (whole and len(distinct) <= CLASSES)
        kind = "regression" if not of_classes else "binary" if len(distinct) == 2 else "multi-class"
    if kind == "multi-label":
        raise UserError(
            f"target {goal.name!r} holds one value a row: for several labels, give several columns of 0 and 1, as "
            "target=['first', 'second'], or a column of lists"
        )
    if kind == "regression":
        if not number:
            raise UserError(f"target {goal.name!r} holds words such as {distinct[0]!r}: a regression needs numbers")
        mean, scale = float(fit[goal.name].mean()), float(fit[goal.name].std())
        if scale == 0:
            raise UserError(
                f"target {goal.name!r} is constant in the first tasks, always {mean:g}, so that it cannot be scaled: "
                "choose more of them by fitted_on"
            )
        return Target(goal.name, kind, (), (goal.name,), (), mean, scale)
    if kind == "binary" and len(distinct) != 2:
        raise UserError(f"target {goal.name!r} has {goal.different} different values, a binary one has 2: check kind")
    if len(distinct) > MANY:
        raise UserError(f"target {goal.name!r} has {goal.different} classes, too many to learn: check the column")
    return Target(goal.name, kind, tuple(labels(distinct)), (goal.name,), tuple(distinct.tolist()))


def _of_labels(goals: Sequence[Column], kind: TargetKind | None) -> Target:
    name = ", ".join(goal.name for goal in goals)
    if kind not in (None, "multi-label"):
        raise UserError(f"target {name!r} holds several labels a row, kind is {kind!r}: say 'multi-label', or nothing")
    if len(goals) == 1:
        (goal,) = goals
        classes = tuple(sorted(goal.distinct))
        if not classes:
            raise UserError(f"target {name!r} holds empty lists only: there is nothing to predict")
        return Target(name, "multi-label", classes, (goal.name,), classes)
    for goal in goals:
        if goal.kind != "numeric" or not goal.distinct <= {0, 1}:
            example = labels(np.array(sorted(goal.distinct - {0, 1})[:1], object))
            raise UserError(
                f"target {goal.name!r} must hold 0 or 1 in every row, as one of several labels; got "
                f"{example[0] if len(example) else goal.kind}"
            )
    if all(len(goal.distinct) == 1 for goal in goals):
        raise UserError(f"every target of {name!r} is constant: there is nothing to predict")
    return Target(name, "multi-label", tuple(g.name for g in goals), tuple(g.name for g in goals), (0.0, 1.0))
