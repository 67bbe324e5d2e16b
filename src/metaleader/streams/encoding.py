"""Columns as numbers of similar size, by transformers of scikit-learn that are fitted on some rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float32, Shaped

from metaleader.errors import UserError
from metaleader.streams.columns import Column, labels

TargetKind: TypeAlias = Literal["regression", "binary", "multi-class"]
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

    def __call__(self, columns: Sequence[Column]) -> Float32[np.ndarray, "n inputs"]:
        """The inputs of all rows.

        Raises:
            UserError: a number is too large for 32 bits, measured by those of the fit.
        """
        parts = []
        if self.numbers:
            parts.append(self.scaler.transform(_together(columns, self.numbers)))
        if self.categories:
            parts.append(self.one_hot.transform(_together(columns, self.categories)))
        inputs = np.hstack(parts)
        if (huge := np.argwhere(np.abs(inputs) > np.finfo(np.float32).max)).size:
            row, feature = huge[0]
            raise UserError(
                f"column {self.features[feature]!r} holds a number in row {row} that is too large beside those of the "
                "first tasks: repair it, or take its logarithm"
            )
        return inputs.astype(np.float32)


def fitted(columns: Sequence[Column], rows: np.ndarray) -> Encoding:
    """Transformers fitted on the rows at some places, and no others; every column has a value there."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = tuple(column.name for column in columns if column.kind in ("numeric", "date"))
    categories = tuple(column.name for column in columns if column.kind == "categorical")
    scaler = one_hot = None
    features: list[str] = []
    if numbers:
        scaler = make_pipeline(StandardScaler(), SimpleImputer(strategy="mean", add_indicator=True))
        scaler.fit(_together(columns, numbers)[rows])
        features += [*numbers, *(f"{numbers[i]} missing" for i in scaler[-1].indicator_.features_)]
    if categories:
        one_hot = OneHotEncoder(
            handle_unknown="infrequent_if_exist",
            max_categories=CATEGORIES,
            sparse_output=False,
            feature_name_combiner=lambda name, category: f"{name}={category}",
        )
        one_hot.fit(_together(columns, categories)[rows])
        names = map(str, one_hot.get_feature_names_out(categories))
        features += [name.replace("=infrequent_sklearn", "=(rare)") for name in names]
    return Encoding(numbers, categories, tuple(features), scaler, one_hot)


@dataclass(frozen=True)
class Target:
    """What is predicted.

    Attributes:
        name: of the column.
        kind: `regression`, or classes, `binary` or `multi-class`.
        classes: their names, by label; none for a regression.
        values: of all rows of the table: labels `(rows,)`, or values to regress `(rows, 1)`, scaled.
        mean: of a regression's target in the fit, in its unit.
        scale: its standard deviation there, in its unit.
    """

    name: str
    kind: TargetKind
    classes: tuple[str, ...]
    values: Shaped[np.ndarray, "rows ..."]
    mean: float = 0.0
    scale: float = 1.0


def target_of(goal: Column, kind: TargetKind | None, rows: np.ndarray, fit: np.ndarray) -> Target:
    """The target of all rows: its classes are those of the rows in use, its scale is that of the rows of the fit.

    Raises:
        UserError: the target is constant, or cannot be of the kind.
    """
    values = goal.values[rows]
    if goal.kind == "date":
        raise UserError(f"target {goal.name!r} holds dates: give a number, such as the days until then")
    distinct = np.array(sorted(set(values.tolist())), values.dtype)
    if len(distinct) == 1:
        raise UserError(f"target {goal.name!r} is constant, always {labels(distinct)[0]}: there is nothing to predict")
    number = goal.kind == "numeric"
    whole = number and bool((distinct == np.rint(distinct)).all())
    if kind is None:
        if goal.kind == "text":
            raise UserError(
                f"target {goal.name!r} holds {len(distinct)} different words in {len(rows)} rows, which is text; say "
                "kind='multi-class' if they are classes"
            )
        of_classes = not number or (whole and len(distinct) <= CLASSES)
        kind = "regression" if not of_classes else "binary" if len(distinct) == 2 else "multi-class"
    if kind == "regression":
        if not number:
            raise UserError(f"target {goal.name!r} holds words such as {distinct[0]!r}: a regression needs numbers")
        mean, scale = float(goal.values[fit].mean()), float(goal.values[fit].std())
        if scale == 0:
            raise UserError(
                f"target {goal.name!r} is constant in the first tasks, always {mean:g}, so that it cannot be scaled: "
                "choose more of them by fitted_on"
            )
        scaled = ((goal.values[:, None] - mean) / scale).astype(np.float32)
        return Target(goal.name, kind, (), scaled, mean, scale)
    if kind == "binary" and len(distinct) != 2:
        raise UserError(f"target {goal.name!r} has {len(distinct)} different values, a binary one has 2: check kind")
    places = np.searchsorted(distinct, np.where(goal.present, goal.values, distinct[0]))
    return Target(goal.name, kind, tuple(labels(distinct)), places.astype(np.int32))


def _together(columns: Sequence[Column], names: Sequence[str]) -> np.ndarray:
    return np.column_stack([column.values for column in columns if column.name in names])
