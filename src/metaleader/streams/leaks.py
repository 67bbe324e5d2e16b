"""Columns that give the target away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from metaleader.streams.columns import Column, present
from metaleader.streams.target import Target

LEAST = 20  # rows; in fewer, a column may go with the target by chance


def warnings(
    inputs: Sequence[Column], values: Mapping[str, np.ndarray], target: Target, groups: np.ndarray
) -> list[str]:
    """A sentence for every column that may give the target away, or that only tells rows or tasks apart.

    Args:
        inputs: the columns.
        values: theirs, and those of the target, in the rows to look at.
        target: what is predicted.
        groups: the tasks of the rows.
    """
    texts = []
    y = target(values)
    goals = [y[:, i] for i in range(y.shape[1])] if y.ndim == 2 else [y]
    for column in inputs:
        remedy = f"leave it out by columns={{{column.name!r}: 'left out'}}"
        own = values[column.name]
        if any(_determines(own, goal, bool(target.classes)) for goal in goals):
            texts.append(
                f"column {column.name!r} determines the target {target.name!r}: if it is not known beforehand, {remedy}"
            )
        elif of := _identifies(column, own, groups):
            texts.append(f"column {column.name!r} looks like an identifier of {of}: unless it tells more, {remedy}")
    return texts


def _determines(column: np.ndarray, target: np.ndarray, classes: bool) -> bool:
    """Whether a column leaves nothing to predict.

    There is one target for every value, and values come again; or the target rises or falls with it; or each class has
    an interval of its own.
    """
    there = present(column)
    values, y = column[there], target[there]
    rarest = np.unique(y, return_counts=True)[1].min() if y.size else 0
    if len(y) < LEAST or len(set(values.tolist())) < 2 or rarest == len(y) or (classes and rarest < LEAST / 4):
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


def _identifies(column: Column, own: np.ndarray, groups: np.ndarray) -> str:
    """What a column is an identifier of: `rows`, or `tasks`; empty where it is not.

    Numbers identify rows if they are whole, all different and close to one another: they count.
    """
    values = own[present(own)]
    if len(values) < LEAST or column.kind not in ("numeric", "categorical"):
        return ""
    if len(set(values.tolist())) == len(values):
        counts = column.kind == "categorical" or (
            bool((values == np.rint(values)).all()) and values.max() - values.min() < 2 * len(values)
        )
        return "rows" if counts else ""
    if column.kind == "numeric":
        return ""
    pairs = set(zip(own.tolist(), groups.tolist(), strict=True))
    return "tasks" if len(pairs) == len(set(groups.tolist())) == len(set(own.tolist())) else ""
