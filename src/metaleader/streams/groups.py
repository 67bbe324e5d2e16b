"""The rows of a table by task, when they arrive, and which of them are held out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from metaleader.errors import UserError, listed, unknown
from metaleader.streams.rows import Keys

if TYPE_CHECKING:
    import narwhals as nw

Split: TypeAlias = Callable[[str, np.ndarray], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True, eq=False)
class Group:
    """The rows of a task, in order of arrival.

    Attributes:
        name: the column and its value.
        rows: their places in the table, or, of a table on disk, in its grouped copy.
        split: which of them are held out.
    """

    name: str
    rows: np.ndarray | range
    split: Split

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The rows to learn from, and those held out; None where nothing is."""
        return self.split(self.name, np.asarray(self.rows))

    @property
    def train(self) -> np.ndarray:
        """The rows to learn from."""
        return self.parts[0]

    @property
    def test(self) -> np.ndarray | None:
        """The rows held out; None where nothing is."""
        return self.parts[1]

    @property
    def held_out(self) -> int:
        """How many rows are held out."""
        test = self.test
        return 0 if test is None else len(test)


@dataclass(frozen=True, eq=False)
class Arrivals:
    """Rounds of tasks that interleave and come back: of consecutive rows of one task, by time.

    Attributes:
        tasks: of each round, its place among the tasks.
        ends: how many rows have arrived after each round.
        rows: to learn from, in order of arrival.
    """

    tasks: np.ndarray
    ends: np.ndarray
    rows: np.ndarray

    def of(self, i: int) -> np.ndarray:
        """The rows of round `i + 1`."""
        return self.rows[self.ends[i - 1] if i else 0 : self.ends[i]]


def by_time(tasks: Sequence[Group], times: np.ndarray) -> Arrivals:
    """The rows to learn from in order of time; those of one time arrive task by task.

    Args:
        tasks: by first appearance.
        times: by place of a row.
    """
    trains = [task.train for task in tasks]
    rows, of = np.concatenate(trains), np.repeat(np.arange(len(tasks)), list(map(len, trains)))
    order = np.lexsort((of, times[rows]))  # stable: rows of one task and time stay as they stand
    rows, of = rows[order], of[order]
    ends = np.append(np.flatnonzero(of[1:] != of[:-1]) + 1, len(rows))
    return Arrivals(of[ends - 1], ends, rows)


def split_of(held_out: str, names: Sequence[str] | None) -> Split:
    """Which rows of a task are to learn from, and which held out.

    Args:
        held_out: `last 30%` or `random 30%`, of any per cent, or `none`.
        names: of columns, for the message, where there are any.

    Raises:
        UserError: the setting is not understood.
    """
    if held_out == "none":
        return lambda _, rows: (rows, None)
    if (match := re.fullmatch(r"(last|random) ([1-9]\d?)%", held_out)) is None:
        of_column = "" if names is None else ", or a column that is true where a row is held out"
        got = repr(held_out) if names is None else unknown("column", held_out, names)
        raise UserError(
            f"held_out must be 'last 30%' or 'random 30%' (of any per cent from 1 to 99), or 'none'{of_column}; got "
            f"{got}"
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


def marked(name: str, words: np.ndarray) -> np.ndarray:
    """Whether rows are held out: booleans, by the words of a column.

    Raises:
        UserError: it says neither.
    """
    meanings = {"true": True, "1": True, "test": True, "false": False, "0": False, "train": False}
    if odd := sorted({word for word in words.tolist() if word.lower() not in meanings}):
        raise UserError(
            f"held-out column {name!r} must hold true or false, 1 or 0, test or train in every row; got {listed(odd)}"
        )
    return np.array([meanings[word.lower()] for word in words.tolist()])


@dataclass(frozen=True)
class Tally:
    """The groups of a table: their names by first appearance in time, how many rows each has, and all rows."""

    sizes: Mapping[str, int]
    rows: int


def tally(chunks: Iterable[nw.DataFrame[Any]], keys: Keys) -> Tally:
    """The groups of the rows that have a group, a target and a time."""
    codes: dict[str, int] = {}
    counts, first = np.zeros(0, np.int64), np.zeros((0, 2))  # of each group, its first time and row
    offset = 0
    for chunk in chunks:
        rows, groups, times = keys(chunk, offset)
        of = np.array([codes.setdefault(group, len(codes)) for group in groups.tolist()], np.int64)
        new = len(codes) - len(counts)
        counts = np.concatenate([counts, np.zeros(new, np.int64)]) + np.bincount(of, minlength=len(codes))
        first = np.concatenate([first, np.full((new, 2), np.inf)])
        order = np.argsort(times, kind="stable")
        met, at = np.unique(of[order], return_index=True)
        found = np.column_stack([times[order][at], offset + rows[order][at]])
        earlier = found[:, 0] < first[met, 0]  # of one time, the row that was met before is the first
        first[met[earlier]] = found[earlier]
        offset += len(chunk)
    names = list(codes)
    return Tally({names[i]: int(counts[i]) for i in np.lexsort((first[:, 1], first[:, 0]))}, offset)


def large_enough(found: Tally, column: str, smallest: int) -> tuple[dict[str, int], list[str]]:
    """The sizes of the tasks that have enough rows, and those left out, each with the reason.

    Raises:
        UserError: there is one group, or none comes twice.
    """
    if len(found.sizes) == 1:
        raise UserError(
            f"{column!r} has one value, {next(iter(found.sizes))!r}, hence there is one task: group by a column of "
            "several values"
        )
    if max(found.sizes.values()) <= 1:
        raise UserError(
            f"every value of {column!r} has one row only, and a task needs several: group by a column whose "
            "values come again, such as a user or a site"
        )
    large = {name: n for name, n in found.sizes.items() if n >= smallest}
    left_out = [
        f"task {column}={name}: {n} rows, fewer than {smallest}" for name, n in found.sizes.items() if n < smallest
    ]
    check_several(len(large), found, left_out)
    return large, left_out


def tasks_of(groups: Sequence[Group], found: Tally, left_out: Sequence[str]) -> tuple[list[Group], list[str]]:
    """The tasks that have rows to learn from, and those left out, each with the reason.

    Raises:
        UserError: fewer than two are left.
    """
    tasks, out = [], list(left_out)
    for group in groups:
        train, test = group.parts
        if not len(train) or (test is not None and not len(test)):
            missing = "held out" if len(train) else "to learn from"
            out.append(f"task {group.name}: none of its {len(group.rows)} rows is {missing}")
        else:
            tasks.append(group)
    check_several(len(tasks), found, out)
    return tasks, out


def check_several(tasks: int, found: Tally, left_out: Sequence[str]) -> None:
    """Refuse fewer than two tasks.

    Raises:
        UserError: saying what was left out.
    """
    if tasks < 2:
        raise UserError(
            f"{tasks} of {len(found.sizes)} tasks can be learned, at least 2 must be; the largest has "
            f"{max(found.sizes.values())} rows. Left out: {listed(left_out, 3)}. Choose a smaller `smallest`, another "
            "group or other held-out rows"
        )
