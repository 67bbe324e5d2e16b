"""Columns as numbers of similar size: fitted by transformers of scikit-learn on some rows alone, kept as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64

from metaleader.errors import UserError
from metaleader.streams.columns import Column
from metaleader.streams.objects import spelled

CATEGORIES = 20  # of a column, at most; the rarest are taken together


@dataclass(frozen=True)
class Number:
    """How a column of numbers `v` becomes an input: `(v - mean) / scale`.

    Attributes:
        name: of the column.
        kind: `numeric`, or `date`, in days since 1970.
        mean: in the fit.
        scale: the standard deviation there; 1 where all numbers were the same.
        imputed: the input where the number is missing: the mean of the scaled numbers, 0 but for rounding.
        indicated: whether a further input is 1 where the number is missing, otherwise 0: the fit met missing ones.
    """

    name: str
    kind: Literal["numeric", "date"]
    mean: float
    scale: float
    imputed: float
    indicated: bool


@dataclass(frozen=True)
class Category:
    """How a column of categories becomes inputs: one for each of `values`, 1 where a row has that value, otherwise 0.

    Attributes:
        name: of the column.
        values: the categories, `MISSING` perhaps among them.
        rare: whether a last input stands for all other categories, those that were rare in the fit and those that it
            did not meet; without it, all inputs are 0 for them.
    """

    name: str
    values: tuple[str, ...]
    rare: bool


@dataclass(frozen=True)
class Encoding:
    """How the columns of a row become the inputs of an example: plain data, applied by NumPy alone.

    It gives, bit for bit, what the transformers of scikit-learn give that `fitted` takes the numbers from, but that a
    truth value or a whole number is known as a category in other spellings, too (see `spelled`). The inputs are those
    of all numbers, then of which of them are missing, then of the categories.

    Attributes:
        numbers: columns of numbers, dates among them.
        categories: columns of words.
    """

    numbers: tuple[Number, ...]
    categories: tuple[Category, ...]

    @property
    def columns(self) -> dict[str, str]:
        """The kinds of the columns, by name."""
        return {each.name: each.kind for each in self.numbers} | {each.name: "categorical" for each in self.categories}

    @cached_property
    def features(self) -> tuple[str, ...]:
        """What the inputs are called."""
        return (
            *(each.name for each in self.numbers),
            *(f"{each.name} missing" for each in self.numbers if each.indicated),
            *(f"{each.name}={word}" for each in self.categories for word in (*each.values, *["(rare)"][: each.rare])),
        )

    def __call__(self, values: Mapping[str, np.ndarray]) -> Float32[np.ndarray, "n inputs"]:
        """The inputs of rows, from the values of their columns (see `columns.values`).

        Raises:
            UserError: a number is too large for 32 bits, measured by those of the fit.
        """
        parts: list[np.ndarray] = []
        if self.numbers:
            given = np.column_stack([values[each.name] for each in self.numbers])
            absent = np.isnan(given)
            means, scales, imputed, indicated = self._numbers
            scaled = (given - means) / scales
            parts = [np.where(absent, imputed, scaled), absent[:, indicated].astype(np.float64)]
        parts += [_one_hot(each, places, values[each.name]) for each, places in self._categories]
        inputs = np.hstack(parts)
        if (huge := np.argwhere(np.abs(inputs) > np.finfo(np.float32).max)).size:
            row, feature = huge[0]
            name = self.features[feature]
            raise UserError(
                f"column {name!r} holds the number {values[name][row]:g}, too large beside those of the first tasks: "
                "repair it, or take its logarithm"
            )
        return inputs.astype(np.float32)

    @cached_property
    def _numbers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of each number: mean, scale, and what is imputed; and the places of those whose absence is indicated."""
        means, scales, imputed = np.array([(each.mean, each.scale, each.imputed) for each in self.numbers]).T
        return means, scales, imputed, np.flatnonzero([each.indicated for each in self.numbers])

    @cached_property
    def _categories(self) -> list[tuple[Category, dict[str, int]]]:
        """Of each category, the places of its values."""
        return [(each, {word: i for i, word in enumerate(each.values)}) for each in self.categories]


def fitted(columns: Sequence[Column], values: Mapping[str, np.ndarray]) -> Encoding:
    """An encoding fitted on these values of the columns, by transformers of scikit-learn.

    Numbers are scaled by `StandardScaler`, and imputed by `SimpleImputer` with an indicator; categories are those of
    `OneHotEncoder`, which takes the rarest together where there are more than `CATEGORIES`.

    Args:
        columns: numeric, dates or categorical; one at least, and each has a value in the fit.
        values: theirs.
    """
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    def together(of: Sequence[Column]) -> np.ndarray:
        return np.column_stack([values[column.name] for column in of])

    numbers, categories = list[Number](), list[Category]()
    if measured := [column for column in columns if column.kind in ("numeric", "date")]:
        scaler, imputer = StandardScaler(), SimpleImputer(strategy="mean", add_indicator=True)
        imputer.fit(scaler.fit_transform(together(measured)))
        indicated = set(imputer.indicator_.features_.tolist())
        for i, column in enumerate(measured):
            numbers.append(
                Number(
                    column.name,
                    "date" if column.kind == "date" else "numeric",
                    float(scaler.mean_[i]),
                    float(scaler.scale_[i]),
                    float(imputer.statistics_[i]),
                    i in indicated,
                )
            )
    if named := [column for column in columns if column.kind == "categorical"]:
        one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=CATEGORIES, sparse_output=False)
        one_hot.fit(together(named))
        for column, known, rare in zip(named, one_hot.categories_, one_hot.infrequent_categories_, strict=True):
            infrequent = set() if rare is None else set(rare.tolist())
            words = tuple(word for word in known.tolist() if word not in infrequent)
            categories.append(Category(column.name, words, bool(infrequent)))
    return Encoding(tuple(numbers), tuple(categories))


def _one_hot(category: Category, places: Mapping[str, int], words: np.ndarray) -> Float64[np.ndarray, "n inputs"]:
    several = len(places)
    found = np.array([places.get(word, several) for word in spelled(words, category.values).tolist()], np.int64)
    return np.eye(several + 1)[found][:, : several + category.rare]
