"""Columns as numbers of similar size, by transformers of scikit-learn that are fitted on some rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float32, Shaped

from metaleader.errors import UserError
from metaleader.streams.columns import MANY, MISSING, Column, labels

TargetKind: TypeAlias = Literal["regression", "binary", "multi-class", "multi-label"]
CLASSES = 10  # so many different whole numbers are classes at most, unless told
CATEGORIES = 20  # of a column, at most; the rarest are taken together


@dataclass(frozen=True)
class Encoding:
    """Fitted transformers.

    Attributes:
        numbers: names of columns of numbers, dates among them; each is scaled to mean 0 and standard deviation 1, and
            missing ones are then 0. Where the fit met missing ones, a further input tells that a number is missing.
        categories: names of columns of categories, encoded one-hot; missing is a category. A category that the fit did
            not meet is taken for a rare one, or, where there are none, all inputs are 0.
        features: what the inputs are called.
        scaler: pipeline of scikit-learn for the numbers; None where there are none.
        one_hot: likewise for the categories.
    """

    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    features: tuple[str, ...]
    scaler: Any
    one_hot: Any

    def __call__(self, values: Mapping[str, np.ndarray]) -> Float32[np.ndarray, "n inputs"]:
        """The inputs of rows, from the values of their columns.

        Raises:
            UserError: a number is too large for 32 bits, measured by those of the fit.
        """
        parts = []
        if self.numbers:
            parts.append(self.scaler.transform(_together(values, self.numbers)))
        if self.categories:
            parts.append(self.one_hot.transform(_together(values, self.categories)))
        inputs = np.hstack(parts)
        if (huge := np.argwhere(np.abs(inputs) > np.finfo(np.float32).max)).size:
            row, feature = huge[0]
            name = self.features[feature]
            raise UserError(
                f"column {name!r} holds the number {values[name][row]:g}, too large beside those of the first tasks: "
                "repair it, or take its logarithm"
            )
        return inputs.astype(np.float32)


def fitted(columns: Sequence[Column], values: Mapping[str, np.ndarray]) -> Encoding:
    """Transformers fitted on these values of the columns; each has one at least."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = tuple(column.name for column in columns if column.kind in ("numeric", "date"))
    categories = tuple(column.name for column in columns if column.kind == "categorical")
    scaler = one_hot = None
    features: list[str] = []
    if numbers:
        scaler = make_pipeline(StandardScaler(), SimpleImputer(strategy="mean", add_indicator=True))
        scaler.fit(_together(values, numbers))
        features += [*numbers, *(f"{numbers[i]} missing" for i in scaler[-1].indicator_.features_)]
    if categories:
        one_hot = OneHotEncoder(
            handle_unknown="infrequent_if_exist",
            max_categories=CATEGORIES,
            sparse_output=False,
            feature_name_combiner=lambda name, category: f"{name}={category}",
        )
        one_hot.fit(_together(values, categories))
        names = map(str, one_hot.get_feature_names_out(categories))
        features += [name.replace("=infrequent_sklearn", "=(rare)") for name in names]
    return Encoding(numbers, categories, tuple(features), scaler, one_hot)


@dataclass(frozen=True)
class Target:
    """What is predicted.

    Attributes:
        name: of the column, or of the columns.
        kind: `regression`, or classes, `binary` or `multi-class`, or `multi-label`: any number of classes at once.
        classes: their names, by label; none for a regression.
        columns: the names of the columns, several where each tells a label.
        distinct: the values that stand for the classes.
        mean: of a regression's target in the fit, in its unit.
        scale: its standard deviation there, in its unit.
    """

    name: str
    kind: TargetKind
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    distinct: np.ndarray
    mean: float = 0.0
    scale: float = 1.0

    def __call__(self, values: Mapping[str, np.ndarray]) -> Shaped[np.ndarray, "n ..."]:
        """Targets from the values of their columns.

        They are int32 labels `(n,)`; float32 values to regress `(n, 1)`, scaled; or float32 `(n, classes)`, 1 where an
        example has the label. Of rows that lack a value, they mean nothing.
        """
        if len(self.columns) > 1:
            return np.nan_to_num(_together(values, self.columns)).astype(np.float32)
        column = values[self.columns[0]]
        if self.kind == "regression":
            return ((column[:, None] - self.mean) / self.scale).astype(np.float32)
        if self.kind == "multi-label":
            sets = [set(row or ()) for row in column.tolist()]
            return np.array([[name in row for name in self.classes] for row in sets], np.float32)
        absent = column == MISSING if column.dtype.kind == "O" else np.isnan(column)
        return np.searchsorted(self.distinct, np.where(absent, self.distinct[0], column)).astype(np.int32)


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
        return Target(goal.name, kind, (), (goal.name,), distinct[:0], mean, scale)
    if kind == "binary" and len(distinct) != 2:
        raise UserError(f"target {goal.name!r} has {goal.different} different values, a binary one has 2: check kind")
    if len(distinct) > MANY:
        raise UserError(f"target {goal.name!r} has {goal.different} classes, too many to learn: check the column")
    return Target(goal.name, kind, tuple(labels(distinct)), (goal.name,), distinct)


def _of_labels(goals: Sequence[Column], kind: TargetKind | None) -> Target:
    name = ", ".join(goal.name for goal in goals)
    if kind not in (None, "multi-label"):
        raise UserError(f"target {name!r} holds several labels a row, kind is {kind!r}: say 'multi-label', or nothing")
    if len(goals) == 1:
        (goal,) = goals
        classes = tuple(sorted(goal.distinct))
        if not classes:
            raise UserError(f"target {name!r} holds empty lists only: there is nothing to predict")
        return Target(name, "multi-label", classes, (goal.name,), np.array(classes, object))
    for goal in goals:
        if goal.kind != "numeric" or not goal.distinct <= {0, 1}:
            example = labels(np.array(sorted(goal.distinct - {0, 1})[:1], object))
            raise UserError(
                f"target {goal.name!r} must hold 0 or 1 in every row, as one of several labels; got "
                f"{example[0] if len(example) else goal.kind}"
            )
    if all(len(goal.distinct) == 1 for goal in goals):
        raise UserError(f"every target of {name!r} is constant: there is nothing to predict")
    return Target(name, "multi-label", tuple(g.name for g in goals), tuple(g.name for g in goals), np.array([0.0, 1.0]))


def _together(values: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    return np.column_stack([values[name] for name in names])
