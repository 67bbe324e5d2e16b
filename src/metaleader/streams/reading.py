"""How a table is read: from a data frame or a file to a stream of tasks."""

from __future__ import annotations

import math
import warnings as warning
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from metaleader.errors import UserError, check_between, check_word
from metaleader.streams import columns as kinds
from metaleader.streams import files, frames, leaks
from metaleader.streams.columns import Column
from metaleader.streams.encoding import Encoding, fitted
from metaleader.streams.groups import (
    Group,
    Split,
    by_time,
    large_enough,
    marked,
    split_of,
    tally,
    tasks_of,
)
from metaleader.streams.objects import MISSING
from metaleader.streams.row_encoder import RowEncoder
from metaleader.streams.rows import Grouped, InMemory, Keys, Rows, reading
from metaleader.streams.table import Arrival, Table, TaskOrder
from metaleader.streams.target import Target, TargetKind, target_of

LOOKED_AT = 200_000  # rows at most that encoders are fitted on, and that leaks are looked for in; bounds the memory


def from_table(
    data: Any,
    *,
    group: str,
    target: str | Sequence[str],
    order: str | None = None,
    columns: Mapping[str, str] | None = None,
    kind: TargetKind | None = None,
    held_out: str | None = None,
    tasks: TaskOrder | None = None,
    smallest: int = 5,
    fitted_on: int | None = None,
    arrive: Arrival = "by task",
    on_disk: bool | None = None,
    scratch: str | Path | None = None,
) -> Table:
    """A table as a stream: the rows of each group are a task.

    Nothing is learned from what is not yet there: numbers are scaled, missing ones imputed and categories encoded by
    transformers of scikit-learn that are fitted on the first tasks alone, on the rows to learn from. Kinds of
    columns and the names of classes are found in the whole table.

    A column of a CSV file is of numbers if every value is written as one, without leading zeros; values are missing
    where the field is empty, `NA`, `N/A`, `NaN`, `null` or `None`. A large file stays on disk: it is read in chunks,
    its rows are grouped by task in a temporary copy, and each task is read when its round comes. Tasks, inputs and
    targets are the same as in memory.

    >>> import pandas as pd
    >>> rows = [(shop, day, day % 7 + shop / 2) for shop in range(4) for day in range(20)]
    >>> table = from_table(pd.DataFrame(rows, columns=["shop", "day", "sales"]), group="shop", target="sales",
    ...     columns={"day": "numeric"})
    >>> table.kind, table.features, len(table.stream(0))
    ('regression', ('day',), 4)

    Args:
        data: a data frame of pandas, polars or another library that narwhals reads; or the path of a file, which
            polars reads: CSV (also .csv.gz, .tsv), Parquet, Arrow (Feather) or JSON lines.
        group: the column that tells the task of a row.
        target: the column to predict: numbers, classes, or lists of labels; or several columns of 0 and 1, one a label.
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
        fitted_on: how many tasks are the first ones; None: a fifth of them, at least 2. Of rows that arrive by time:
            how many rows to learn from, a fifth of them. Beyond 200,000 rows, the first 200,000 decide.
        arrive: `by task`: a round is a task, with all of its rows. `by time`: rows arrive in order of time, so that
            tasks interleave and come back: a round is of consecutive rows of one task, and has its name as key. A
            task's held-out rows are the same in all of its rounds. Rows of one time arrive task by task.
        on_disk: whether a file stays on disk; None: if it is larger than 1 GB.
        scratch: the folder for the temporary copy, about as large as the table in memory; None: the system's. It is
            removed with the last reference to the table, at the latest when Python ends.

    Raises:
        UserError: the file is missing, empty, damaged or of unknown kind; a column is missing, comes twice, mixes
            types, or holds infinite values or none; the target is the group, or constant; fewer than two tasks have
            enough rows; a setting is unknown; the disk has no room for the copy.
    """
    told = dict(columns or {})
    targets = (target,) if isinstance(target, str) else tuple(target)
    held = held_out or ("random 30%" if order is None else "last 30%")
    rows = _rows(data, on_disk, scratch, group, order, told)
    separate = held if held in rows.names else None
    names = [group, *targets, *filter(None, [order])]
    frames.check_names(rows.names, *names, *told)
    _check(group, targets, order, told, separate, kind, tasks, arrive)
    check_between("smallest", smallest, 2, 1_000_000_000)
    split = None if separate else split_of(held, rows.names)

    keys = _keys(rows, group, targets, order, told)
    found = tally(rows.chunks(keys.names), keys)
    if not found.sizes:
        raise UserError(
            f"no row has a value of {' and '.join(map(repr, names))} at once: fill in those that are missing"
        )
    used = [n for n in rows.names if n not in (group, *targets, separate) and (n != order or n in told)]
    of_inputs = {name: told.get(name) for name in used}
    inputs = kinds.survey(rows.chunks(used), of_inputs, distinct_numbers=False) if used else {}
    sizes, small = large_enough(found, group, smallest)

    kept = [name for name, column in inputs.items() if column.kind not in ("left out", "text")]
    times = [order] if arrive == "by time" and order is not None else []
    grouped, places = rows.grouped(
        keys,
        {name: i for i, name in enumerate(sizes)},
        list(sizes.values()),
        list(dict.fromkeys([*kept, *targets, *times, *filter(None, [separate])])),
    )
    split = split or _by_marks(grouped, places, held, found.rows)
    groups = [Group(f"{group}={name}", at, split) for name, at in zip(sizes, places, strict=True)]
    chosen, left_out = tasks_of(groups, found, small)
    shuffled = (tasks or ("seed" if order is None else "time")) == "seed"
    if shuffled:
        chosen = [chosen[i] for i in np.random.default_rng(0).permutation(len(chosen))]
    arrivals = None
    if times and keys.time is not None:
        arrivals = by_time(chosen, _by_place(grouped, places, keys.time, found.rows))
        learned = arrivals.rows
        first = math.ceil(len(learned) / 5) if fitted_on is None else fitted_on
        check_between("fitted_on", first, 1, len(learned))
        fit = learned[: min(first, LOOKED_AT)]
        first = int(np.searchsorted(arrivals.ends, first)) + 1
    else:
        first = max(2, math.ceil(len(chosen) / 5)) if fitted_on is None else fitted_on
        check_between("fitted_on", first, 1, len(chosen))
        fit = _some([task.train for task in chosen[:first]])

    fitting = _values(grouped, fit, [*(inputs[name] for name in kept), *keys.targets])
    goals = kinds.survey(grouped.chunks(targets), {goal.name: goal.kind for goal in keys.targets})
    of_target = target_of(list(goals.values()), kind, sum(sizes.values()), fitting)
    reasons = {name: _unused(column, fitting) for name, column in inputs.items()}
    taken = [column for name, column in inputs.items() if not reasons[name]]
    if not taken:
        raise UserError(
            f"the table has no column to predict {of_target.name!r} from: add one, or tell kinds by "
            "columns={NAME: 'numeric'}"
        )
    warnings = _leaks(grouped, chosen, taken, keys.targets, of_target)
    for text in warnings:
        warning.warn(text, UserWarning, stacklevel=2)
    without = found.rows - sum(found.sizes.values())
    out = [f"column {name!r}: {reason}" for name, reason in reasons.items() if reason]
    out += [f"{without} rows without a value of {' or '.join(map(repr, names))}"] if without else []
    encoding = fitted(taken, fitting)
    _check_range(encoding, taken)
    return Table(
        RowEncoder(encoding, of_target),
        tuple(chosen),
        arrivals,
        first,
        len(fit),
        shuffled,
        (*out, *left_out),
        tuple(warnings),
        found.rows,
        _examples(grouped, found.rows, [*taken, *keys.targets], encoding, of_target),
        tuple(taken),
        group,
        order,
        held if separate is None else f"rows marked by {separate!r}",
        not isinstance(grouped, InMemory),
    )


def _rows(
    data: Any,
    on_disk: bool | None,
    scratch: str | Path | None,
    group: str,
    order: str | None,
    told: Mapping[str, str],
) -> Rows:
    """The rows of a data frame, or of a file, which is read whole unless it stays on disk."""
    if not isinstance(data, (str, Path)):
        if on_disk:
            raise UserError("on_disk=True needs a file, got data in memory: write it to one, or leave on_disk out")
        return InMemory(frames.frame(data))
    numbers = [name for name, kind in told.items() if kind == "numeric"]
    as_written = [group, *(name for name in told if name not in (order, *numbers))]
    file = files.opened(data, scratch, as_written, numbers)
    if on_disk or (on_disk is None and file.path.stat().st_size > files.LIMIT):
        return file
    with reading(file.path):
        return InMemory(frames.frame(file.scan.collect()))


def _keys(rows: Rows, group: str, targets: Sequence[str], order: str | None, told: Mapping[str, str]) -> Keys:
    """What tells where a row belongs; the kinds of target and time are found."""
    import narwhals as nw

    first = next(rows.chunks(targets), None)
    if first is None:
        raise UserError("the table has no rows: give at least two tasks of a few rows each")
    kinds_of = {name: "labels" if frames.is_of_lists(first[name]) else None for name in targets}
    if len(targets) == 1 and first[targets[0]].dtype == nw.Boolean:
        kinds_of = {targets[0]: "categorical"}
    if len(targets) > 1 and (lists := [name for name, of in kinds_of.items() if of]):
        raise UserError(f"target {lists[0]!r} holds lists: give it alone, or several columns of 0 and 1")
    found = kinds.survey(rows.chunks([group, *targets]), {group: "categorical", **kinds_of})
    time = None
    if order is not None:
        kind = told[order] if told.get(order) in ("date", "numeric") else None
        time = _time(kinds.survey(rows.chunks([order]), {order: kind})[order])
    return Keys(group, tuple(found[name] for name in targets), time)


def _by_marks(grouped: Grouped, places: Sequence[np.ndarray | range], name: str, rows: int) -> Split:
    """A split by a column that is true for rows that are held out."""
    marks = Column(name, "categorical", 0)
    where = _by_place(grouped, places, marks, rows, lambda words: marked(name, words))
    return lambda _, rows: (rows[~where[rows]], rows[where[rows]])


def _by_place(
    grouped: Grouped,
    places: Sequence[np.ndarray | range],
    column: Column,
    rows: int,
    of: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> np.ndarray:
    """What `of` makes of the values of a column in the rows of tasks, each at its place."""
    chunks = grouped.chunks([column.name])
    found = np.concatenate([of(kinds.values(chunk[column.name], column.kind)) for chunk in chunks])
    if isinstance(places[0], range):  # one task after another
        return found
    by_place = np.zeros(rows, found.dtype)
    by_place[np.concatenate(places)] = found
    return by_place


def _some(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The first of the rows."""
    enough = int(np.searchsorted(np.cumsum([len(part) for part in parts]), LOOKED_AT)) + 1
    return np.concatenate(parts[:enough])[:LOOKED_AT]


def _values(grouped: Grouped, rows: np.ndarray, columns: Sequence[Column]) -> dict[str, np.ndarray]:
    frame = grouped.read(rows, [column.name for column in columns])
    return {column.name: kinds.values(frame[column.name], column.kind) for column in columns}


def _leaks(
    grouped: Grouped, tasks: Sequence[Group], inputs: Sequence[Column], goals: Sequence[Column], target: Target
) -> list[str]:
    groups = np.repeat(np.arange(len(tasks)), [len(task.rows) for task in tasks])[:LOOKED_AT]
    rows = np.concatenate([np.asarray(tasks[i].rows) for i in range(groups[-1] + 1)])[:LOOKED_AT]
    return leaks.warnings(inputs, _values(grouped, rows, [*inputs, *goals]), target, groups)


def _check_range(encoding: Encoding, columns: Sequence[Column]) -> None:
    """Make sure that the least and the greatest number of each column can be encoded, hence all can."""
    words = np.array([MISSING, MISSING], object)
    encoding({c.name: words if c.kind == "categorical" else np.array([c.low, c.high]) for c in columns})


def _examples(
    grouped: Grouped, rows: int, columns: Sequence[Column], encoding: Encoding, target: Target
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Inputs and targets of rows: in memory encoded once, on disk when they are read."""

    def read(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = _values(grouped, places, columns)
        return encoding(values), target(values)

    if not isinstance(grouped, InMemory):
        return read
    inputs, targets = read(np.arange(rows))
    return lambda places: (inputs[places], targets[places])


def _check(
    group: str,
    targets: Sequence[str],
    order: str | None,
    told: Mapping[str, str],
    separate: str | None,
    kind: str | None,
    tasks: str | None,
    arrive: str,
) -> None:
    if not targets:
        raise UserError("target names no column: give one, or several of 0 and 1")
    roles = [("group", group), *(("target", name) for name in targets), ("order", order), ("held_out", separate)]
    given = [(role, name) for role, name in roles if name is not None]
    for i, (role, name) in enumerate(given):
        for other, same in given[:i]:
            if name == same:
                raise UserError(f"{other} and {role} are the same column, {name!r}: choose another for one of them")
    for taken in (group, *targets, separate):
        if taken in told:
            raise UserError(
                f"columns tells the kind of {taken!r}, which is no input: remove it (kind= is the target's)"
            )
    if kind is not None:
        check_word("kind of target", kind, get_args(TargetKind))
    if tasks is not None:
        check_word("order of tasks", tasks, get_args(TaskOrder))
    check_word("arrival", arrive, get_args(Arrival))
    if arrive == "by time" and order is None:
        raise UserError("arrive='by time' needs order=, a column of times or numbers: give it, or leave arrive out")
    if arrive == "by time" and tasks == "seed":
        raise UserError("rows arrive by time, so that tasks cannot be ordered by seed: leave tasks or arrive out")


def _time(column: Column) -> Column:
    if column.kind in ("numeric", "date"):
        return column
    raise UserError(
        f"order {column.name!r} must hold times or numbers, got words such as {min(column.distinct)!r}: convert it, "
        "for instance by pandas.to_datetime"
    )


def _unused(column: Column, fit: Mapping[str, np.ndarray]) -> str:
    """Why a column is no input; empty where it is one."""
    if column.kind == "left out":
        return "as told"
    if column.kind == "text":
        return f"text, {column.different} different values"
    return "" if kinds.present(fit[column.name]).any() else "no value in the first tasks"
