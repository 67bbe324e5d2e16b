"""A learner that lives, and has learned datapoints that were there already: of a table, or of a run."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from metaleader.buffer import TaskKey
from metaleader.errors import UserError, writing
from metaleader.files import check_replaceable, contents, real, sync_folder
from metaleader.learners import Learner
from metaleader.live.agent import Live
from metaleader.live.snapshot import Unsaveable
from metaleader.live.worker import Pace
from metaleader.problem import Problem
from metaleader.problem.batch import Batch
from metaleader.streams import Table

AHEAD = 500  # portions that are stored before they are learned, at most


class Portion(NamedTuple):
    """Datapoints that are learned together.

    Attributes:
        task: which they are of.
        examples: as the learner sees them.
        ids: a name for each.
    """

    task: TaskKey
    examples: Batch
    ids: list[str]


def check_new(folder: Path, option: str) -> None:
    """Make sure that a learner can be begun in a folder.

    Args:
        folder: which.
        option: by which the user named it, for messages.

    Raises:
        UserError: it is a file, holds something, or cannot be replaced by the one that is made beside it.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose a new folder with {option}")
    if contents(folder):
        raise UserError(f"{folder} exists already, and is not empty: choose a new folder with {option}")
    check_replaceable(real(folder), f"choose a new folder with {option}")


def begun_with(
    folder: Path,
    problem: Problem,
    learner: Learner,
    portions: Iterable[Portion],
    *,
    seed: int = 0,
    table: Table | None = None,
    learned: Callable[[int], None] | None = None,
) -> bool:
    """Leave a learner in a folder that has learned all portions, one after another; it appears when that is done.

    Args:
        folder: new, or empty: see `check_new`.
        problem: see `Live.create`.
        learner: see `Live.create`.
        portions: in order.
        seed: see `Live.create`.
        table: see `Live.create`.
        learned: is told how many datapoints have been stored; about as many are learned.

    Returns:
        Whether its state is stored; otherwise it is learned anew whenever the folder is opened.

    Raises:
        UserError: learning ended by an error.
        WriteError: the file system refuses; nothing is left there.
    """
    folder = real(folder)
    partial, stored = folder.with_name(f".{secrets.token_hex(8)}.tmp"), 0
    try:
        with Live.create(partial, problem, learner, seed=seed, table=table, pace=Pace(refresh=3600.0)) as live:
            for number, portion in enumerate(portions, 1):
                live.learn_encoded(*portion)
                stored += len(portion.ids)
                if number % AHEAD == 0:
                    live.wait()
                if learned is not None:
                    learned(stored)
            live.wait()
            saved = _saved(live)
        with writing(folder):
            os.replace(partial, folder)
            sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return saved


def _saved(live: Live) -> bool:
    try:
        live.save()
    except Unsaveable:
        return False
    return True
