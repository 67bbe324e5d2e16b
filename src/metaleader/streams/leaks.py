"""Columns that give the target away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metaleader.streams.columns import Column
from metaleader.streams.encoding import Target

LEAST = 20  # rows; in fewer, a column may go with the target by chance


def warnings(inputs: Sequence[Column], target: Target, groups: Column, rows: np.ndarray) -> list[str]:
    """A sentence for every column that may give the target away, or that only tells rows or tasks apart."""
    texts = []
    for column in inputs:
        part = Column(column.name, column.kind, column.values[rows], 0, len(set(column.values[rows].tolist())))
        remedy = f"leave it out by columns={{{column.name!r}: 'left out'}}"
        if _determines(part, target.values[rows].reshape(-1), bool(target.classes)):
            texts.append(
                f"column {column.name!r} determines the target {target.name!r}: if it is not known beforehand, {remedy}"
            )
        elif of := _identifies(part, groups.values[rows]):
            texts.append(f"column {column.name!r} looks like an identifier of {of}: unless it tells more, {remedy}")
    return texts


def _determines(column: Column, target: np.ndarray, classes: bool) -> bool:
    """Whether a column leaves nothing to predict.

    There is one target for every value, and values come again; or the target rises or falls with it; or each class has
    an interval of its own.
    """
    present = column.present
    values, y = column.values[present], target[present]
    rarest = np.unique(y, return_counts=True)[1].min() if y.size else 0
    if len(y) < LEAST or column.distinct < 2 or rarest == len(y) or (classes and rarest < LEAST / 4):
        return False
    by_value = np.lexsort((y, values.astype(str) if values.dtype.kind == "O" else values))
    values, y = values[by_value], y[by_value]
    new = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    one_target = bool((np.minimum.reduceat(y, new) == np.maximum.reduceat(y, new)).all())
    if one_target and len(y) >= 2 * len(new):
        return True
    if values.dtype.kind == "O":
        return False
    steps = np.diff(y)
    if classes:
        return one_target and int((steps != 0).sum()) == len(np.unique(y)) - 1
    scale = y.std() * values.std()
    straight = scale > 0 and abs(np.mean((y - y.mean()) * (values - values.mean()))) > 0.99999 * scale
    return bool(straight or (one_target and ((steps >= 0).all() or (steps <= 0).all())))


def _identifies(column: Column, groups: np.ndarray) -> str:
    """What a column is an identifier of: `rows`, or `tasks`; empty where it is not.

    Numbers identify rows if they are whole, all different and close to one another: they count.
    """
    values = column.values[column.present]
    if len(values) < LEAST or column.kind not in ("numeric", "categorical"):
        return ""
    if column.distinct == len(values):
        counts = column.kind == "categorical" or (
            bool((values == np.rint(values)).all()) and values.max() - values.min() < 2 * len(values)
        )
        return "rows" if counts else ""
    if column.kind == "numeric":
        return ""
    pairs = set(zip(column.values.tolist(), groups.tolist(), strict=True))
    return "tasks" if len(pairs) == len(set(groups.tolist())) == len(set(column.values.tolist())) else ""
