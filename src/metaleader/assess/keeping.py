"""The learner that an assessment ends with, left in a folder in which it lives on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from metaleader.assess.answer import Answer
from metaleader.assess.contest import Contest, Setup, Show, with_settings
from metaleader.errors import UserError, unknown, writing
from metaleader.files import real
from metaleader.live.beginning import Portion, begun_with, check_new
from metaleader.live.inputs import checked_key
from metaleader.live.keeping import place
from metaleader.problem import Batch
from metaleader.processes import owned
from metaleader.streams import Table
from metaleader.streams.columns import Column
from metaleader.streams.groups import Group
from metaleader.streams.table import order_of


@dataclass(frozen=True)
class Kept:
    """What was left in a folder.

    Attributes:
        name: of the learner.
        folder: where it is.
        tasks: how many it has learned.
        datapoints: of how many rows.
        seconds: how long that took.
        snapshot: whether its state is stored; otherwise it is learned anew from the rows whenever it is opened.
        code: lines of Python that use it.
    """

    name: str
    folder: Path
    tasks: int
    datapoints: int
    seconds: float
    snapshot: bool
    code: str


def check(table: Table, given: Setup, folder: Path, out: Path, learner: str | None) -> None:
    """Make sure, before a contest, that its winner can be kept.

    Args:
        table: of the contest.
        given: the contest.
        folder: where the learner will be.
        out: the folder of the page.
        learner: which is to be kept; None: the winner.

    Raises:
        UserError: the folder holds something, cannot be replaced, or is or holds that of the page; the learner does not
            compete; a task's name is too long to be a key; SQLAlchemy is not installed.
        WriteError: the folder cannot be made.
    """
    place(folder)
    if learner is not None and learner not in given.learners:
        raise UserError(unknown("learner that competes", learner, given.learners))
    page = real(out)
    if real(folder) in (page, *page.parents):
        raise UserError(f"{folder} is the folder of the page as well, or holds it: choose another one with --keep")
    check_new(folder, "--keep")
    for group in table.tasks:
        checked_key(_key(table, group))
    with writing(folder, "choose another folder with --keep"), owned(folder):
        pass


def keep(table: Table, found: Contest, name: str, folder: Path, show: Show | None = None) -> Kept:
    """Leave a learner in a folder, in which it has learned all rows of the table, the held-out ones as well.

    It has the settings that its search chose. Tasks come in their order, of seed 0, and rows in the portions in which
    they arrived in the contest; those held out come with the last. A row's id is `row` and its place: in the table, or,
    of a table on disk, in its copy that is grouped by task. The folder appears when all is learned.

    Args:
        table: of the contest.
        found: the contest.
        name: of the learner.
        folder: new, or empty.
        show: is told what is being done, and how many rows of how many are.

    Raises:
        UserError: the learner cannot learn the rows; the folder holds something.
        WriteError: the file system refuses; nothing is left there.
    """
    check_new(folder, "--keep")  # again: a contest takes long
    candidate, began = found.setup.candidates[name], time.monotonic()
    learner = with_settings(candidate.learner, found.chosen[name])
    total = sum(len(group.rows) for group in table.tasks)
    portions = (
        Portion(_key(table, group), Batch.of(*table.examples(rows)), [f"row {row}" for row in rows])
        for group, rows in _portions(table, found.setup.protocol.arrive_at)
    )

    def learned(rows: int) -> None:
        if show is not None:
            show(f"keeping {name}", rows, total)

    snapshot = begun_with(folder, candidate.problem, learner, portions, table=table, learned=learned)
    return Kept(name, folder, len(table.tasks), total, time.monotonic() - began, snapshot, code(table, folder))


def code(table: Table, folder: Path) -> str:
    """Lines of Python that use a learner in a folder, on rows such as the table has."""
    last, row = table.tasks[-1], {column.name: _example(column) for column in table.columns}
    target = table.target
    value: Any = float(f"{target.mean:.6g}") if target.kind == "regression" else target.distinct[0]
    is_of_lists = target.kind == "multi-label" and len(target.columns) == 1
    told = {**row, **dict.fromkeys(target.columns, [value] if is_of_lists else value)}
    key = json.dumps(_key(table, last), ensure_ascii=False)
    return "\n".join(
        [
            "import metaleader as ml",
            "",
            f"live = ml.Live.open({str(folder)!r})",
            f"rows = [{row!r}]  # or a data frame",
            f"live.predict({key}, rows)  # {_predicted(table)}; a task that it has not met: zero-shot",
            f"live.adapt([{told!r}]).predict(rows)  # to a few rows, which are not stored",
            "# live.learn(NAME, ROWS) stores rows such as these: on the disk once it returns, learned soon after",
            "live.close()",
        ]
    )


def in_words(kept: Kept, found: Contest, answer: Answer) -> list[str]:
    """What was kept, and what it costs, in sentences."""
    title, played = found.setup.candidates[kept.name].title, found.played[kept.name]
    judged = sum(p.judged for p in played)
    each = f"{1000 * sum(p.predicting for p in played) / judged:.2g} ms" if judged else "an unknown time"
    own = "" if kept.name == answer.winner else f" (the winner is {found.setup.candidates[answer.winner].title})"
    words = [
        f"{title}{own}, with the settings that the search chose, has learned all {kept.datapoints} rows of "
        f"{kept.tasks} tasks in {kept.seconds:.0f} s and lives in {kept.folder}.",
        f"In the contest, its state took {_size(max(p.state_bytes for p in played))}, and to adapt to a task's rows "
        f"and predict others took {each} on the mean, compiling included.",
    ]
    if not kept.snapshot:
        words.append(
            "Its state cannot be stored as plain data: it learns its rows anew, in about the same time, whenever it is "
            "opened; predictions are poorer until it has."
        )
    return words


def _portions(table: Table, sizes: tuple[int, ...]) -> Iterator[tuple[Group, np.ndarray]]:
    """The rows that are learned together, each with its task."""
    for i in order_of(len(table.tasks), table.first, table.shuffled, 0).tolist():
        group = table.tasks[i]
        train, test = group.parts
        ends = [size for size in sizes if size < len(train)]
        *before, last = np.split(train, ends)
        for rows in before:
            yield group, rows
        yield group, last if test is None else np.concatenate([last, test])


def _key(table: Table, group: Group) -> str:
    """How a learner that lives knows a task: by the word in the column of tasks."""
    return group.name.removeprefix(f"{table.group}=")


def _example(column: Column) -> Any:
    """A value that a column may hold."""
    if column.kind == "categorical":
        return min(column.distinct)
    if column.kind == "date":
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=column.low)).isoformat()[:19]
    return int(column.low) if column.low.is_integer() else float(f"{column.low:.6g}")


def _predicted(table: Table) -> str:
    if table.classes:
        return "probabilities of " + ", ".join(table.classes[:3]) + (", ..." if len(table.classes) > 3 else "")
    return f"{table.target.name}, in its unit"


def _size(bytes_: int) -> str:
    return f"{bytes_ / 1e6:.1f} MB" if bytes_ >= 1e5 else f"{bytes_ / 1e3:.1f} kB"
