"""The rows of a table by task, and which of them are held out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from metaleader.errors import UserError, listed, unknown
from metaleader.streams.columns import Column

Split: TypeAlias = Callable[[str, np.ndarray], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class Group:
    """The rows of a task, indices into the table in order of arrival; `test` is None where nothing is held out."""

    name: str
    train: np.ndarray
    test: np.ndarray | None

    @property
    def held_out(self) -> int:
        """How many rows are held out."""
        return 0 if self.test is None else len(self.test)


def split_of(held_out: str, marks: Column | None, names: Sequence[str]) -> Split:
    """Which rows of a task are to learn from, and which held out.

    Raises:
        UserError: the setting is not understood, or the column does not tell.
    """
    if marks is not None:
        where = _marked(marks)
        return lambda _, rows: (rows[~where[rows]], rows[where[rows]])
    if held_out == "none":
        return lambda _, rows: (rows, None)
    if (match := re.fullmatch(r"(last|random) ([1-9]\d?)%", held_out)) is None:
        raise UserError(
            "held_out must be 'last 30%' or 'random 30%' (of any per cent from 1 to 99), 'none', or a column that is "
            f"true where a row is held out; got {unknown('column', held_out, names)}"
        )

    def part(name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n = len(rows)
        out = min(max(round(n * int(match[2]) / 100), 1), n - 1)
        places = np.arange(n)
        if match[1] == "random":  # of each task by itself, whatever others there are
            own = hashlib.blake2b(name.encode(), digest_size=8).digest()
            places = np.random.default_rng(int.from_bytes(own)).permutation(n)
        return rows[np.sort(places[: n - out])], rows[np.sort(places[n - out :])]

    return part


def _marked(marks: Column) -> np.ndarray:
    meanings = {"true": True, "1": True, "test": True, "false": False, "0": False, "train": False}
    if odd := sorted({word for word in marks.values.tolist() if word.lower() not in meanings}):
        raise UserError(
            f"held-out column {marks.name!r} must hold true or false, 1 or 0, test or train in every row; got "
            f"{listed(odd)}"
        )
    return np.array([meanings[word.lower()] for word in marks.values.tolist()])


def tasks_of(groups: Column, rows: np.ndarray, split: Split, smallest: int) -> tuple[list[Group], list[str]]:
    """The tasks by first appearance, and those left out, each with the reason.

    Raises:
        UserError: fewer than two are left.
    """
    of_group: dict[str, list[int]] = {}
    for row in rows.tolist():
        of_group.setdefault(groups.values[row], []).append(row)
    if len(of_group) == 1:
        raise UserError(
            f"{groups.name!r} has one value, {next(iter(of_group))!r}, hence there is one task: group by a column of "
            "several values"
        )
    largest = max(map(len, of_group.values()), default=0)
    if largest <= 1:
        raise UserError(
            f"every value of {groups.name!r} has one row only, and a task needs several: group by a column whose "
            "values come again, such as a user or a site"
        )
    tasks, left_out = [], []
    for value, places in of_group.items():
        name = f"{groups.name}={value}"
        if len(places) < smallest:
            left_out.append(f"task {name}: {len(places)} rows, fewer than {smallest}")
            continue
        train, test = split(name, np.array(places))
        if not len(train) or (test is not None and not len(test)):
            left_out.append(
                f"task {name}: none of its {len(places)} rows is {'held out' if len(train) else 'to learn from'}"
            )
            continue
        tasks.append(Group(name, train, test))
    if len(tasks) < 2:
        raise UserError(
            f"{len(tasks)} of {len(of_group)} tasks can be learned, at least 2 must be; the largest has {largest} "
            f"rows. Left out: {listed(left_out, 3)}. Choose a smaller `smallest`, another group or other held-out rows"
        )
    return tasks, left_out
