"""Copies of a learner that lives: back-ups, and ways from a folder to a database and back."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from metaleader.errors import UserError, writing
from metaleader.files import check_replaceable, contents, make_folder, real, sync_folder
from metaleader.live import snapshot
from metaleader.live.keeping import place
from metaleader.live.shelf import KEPT, ROOM, Files
from metaleader.live.snapshot import Damaged

if TYPE_CHECKING:
    from metaleader.live.place import Kept

TRIES = 10  # while tasks are being forgotten


class _Removed(Exception):  # noqa: N818 - told to nobody
    """Datapoints went from the log while it was copied."""


def copy(source: str | Path, target: str | Path) -> None:
    """Copy a learner that lives, also while processes have it open, to a new folder or database.

    The copy is the learner as of one moment: settings, log, what was forgotten, and snapshots. It appears when it is
    complete, and opens with the same weights, bit for bit, on the same machine and versions of packages.

    Args:
        source: where it lives: a folder, or the URL of a database.
        target: the same, where there is no learner yet.

    Raises:
        UserError: there is no learner at `source`, or there is something at `target`.
        WriteError: the file system or a database refuses.

    Examples:
        >>> import tempfile, numpy as np, metaleader as ml
        >>> from pathlib import Path
        >>> from metaleader.live import check, copy
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 2, dtype=np.float32)[:, None]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with ml.Live.create(Path(folder) / "shops", problem, ml.TOE(1)) as live:
        ...         told = live.learn("north", x, x)
        ...         copy(Path(folder) / "shops", Path(folder) / "copy")
        ...     check(Path(folder) / "copy").datapoints
        2
    """
    to = place(target)
    with place(source).followed() as kept:
        to.filled(kept)


def check_new(folder: Path) -> None:
    """Make sure that a copy can be made in a folder: that there is nothing in it, and that it can be replaced.

    Raises:
        UserError: it cannot.
    """
    if contents(folder):
        raise UserError(f"{folder} exists already: choose a new folder for the copy")
    check_replaceable(real(folder), "choose a new folder for the copy")


def into_folder(kept: Kept, to: Path) -> None:
    """Copy log and snapshots to a new folder, which appears when it is complete.

    Raises:
        WriteError: the file system refuses.
    """
    from metaleader.live.place import LOG, SNAPSHOTS

    to = real(to)

    def write(check: Callable[[], None]) -> None:
        partial = to.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            make_folder(partial)
            for sequence, content in snapshots(kept):
                Files(partial / SNAPSHOTS).write(sequence, content, KEPT)
            kept.store.copy(partial / LOG)
            check()
            sync_folder(partial)
            os.replace(partial, to)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(to.parent)

    with writing(to, ROOM):
        undisturbed(kept, write)


def snapshots(kept: Kept) -> Iterator[tuple[int, bytes]]:
    """The snapshots and the events they have learned, oldest first; to be read before the log, which then has these.

    Raises:
        UserError: one is damaged.
    """
    for name in reversed(kept.shelf.names()):
        if (content := kept.shelf.read(name)) is not None:
            try:
                sequence = snapshot.unpacked(content, name).sequence
            except Damaged as damage:
                raise UserError(
                    f"{damage}: open the learner by Live.open, which goes on from what was saved before, then copy it"
                ) from damage
            yield sequence, content


def undisturbed(kept: Kept, write: Callable[[Callable[[], None]], None]) -> None:
    """Write a copy, and do it again if datapoints were removed meanwhile, which would still be in its snapshots.

    Args:
        kept: what is copied.
        write: does it. It is given a function to call once it has read all, and undoes what it did if that raises.

    Raises:
        UserError: it was disturbed each time.
    """
    for _ in range(TRIES):
        before = kept.store.removed

        def check(before: int = before) -> None:
            if kept.store.removed != before:
                raise _Removed

        with suppress(_Removed):
            return write(check)
    raise UserError(f"tasks were forgotten {TRIES} times while a copy was written: try again when fewer are")
