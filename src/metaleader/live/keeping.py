"""The folder of a learner that lives: its log, and snapshots beside it; back-ups, and checks of both."""

from __future__ import annotations

import os
import secrets
import shutil
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from metaleader.errors import UserError, writing
from metaleader.files import make_folder, sync, sync_folder
from metaleader.live import snapshot
from metaleader.live.course import Course, Progress
from metaleader.live.events import digest
from metaleader.live.layout import Layout
from metaleader.live.prequential import Prequential
from metaleader.live.snapshot import KEPT, Damaged, Snapshot

if TYPE_CHECKING:
    from metaleader.live.store import Store

LOG = "log.sqlite"
ROOM = "make room on the disk, then save again: nothing that was acknowledged is lost"
SNAPSHOTS = "snapshots"


class Checked(NamedTuple):
    """What `check` found.

    Attributes:
        datapoints: how many there are.
        tasks: of how many tasks.
        snapshots: how many are sound.
        faults: what is wrong, in words; none: all that was acknowledged is there as it was.
    """

    datapoints: int
    tasks: int
    snapshots: int
    faults: tuple[str, ...]


def logs() -> type[Store]:
    """The class of logs, imported when one is opened.

    Raises:
        UserError: SQLAlchemy is not installed.
    """
    try:
        from metaleader.live.store import Store
    except ImportError:
        raise UserError("SQLAlchemy is not installed: pip install 'metaleader[serve]'") from None
    return Store


def save(course: Course, folder: Path, progress: Progress, keep: int) -> None:
    """Write a snapshot; of all there are, the newest `keep` stay.

    Raises:
        Unsaveable: there can be none of this state.
        WriteError: the file system refuses; those before are still there.
    """
    score, arrays = progress.score.saved()
    leaves = snapshot.flattened(progress.state, course.structure)
    with writing(folder, ROOM):
        about = {"score": score, "anew": progress.anew}
        snapshot.write(folder / SNAPSHOTS, Snapshot(progress.sequence, leaves, arrays, about))
        snapshot.tidy(folder / SNAPSHOTS, keep)


def saved_at(folder: Path) -> float | None:
    """When the newest snapshot was written, in seconds since 1970; None: there is none."""
    for path in reversed(snapshot.paths(folder / SNAPSHOTS)):
        with suppress(FileNotFoundError):  # a newer one has taken its place
            return path.stat().st_mtime
    return None


def remove_all(folder: Path) -> None:
    """Remove all snapshots.

    Raises:
        WriteError: the file system refuses.
    """
    with writing(folder, ROOM):
        snapshot.tidy(folder / SNAPSHOTS, 0)


def newest(course: Course, folder: Path) -> Progress:
    """Where the newest sound snapshot stands, or the beginning; damaged ones are removed.

    Warns:
        RuntimeWarning: a snapshot is damaged.
    """
    begun, damaged = course.begin(), False
    snapshot.tidy(folder / SNAPSHOTS, KEPT)
    for path in reversed(snapshot.paths(folder / SNAPSHOTS)):
        try:
            found = snapshot.read(path)
            if found.sequence > course.store.last:
                raise Damaged(f"{path} has learned event {found.sequence}, the log ends with {course.store.last}")
            state = snapshot.restored(found.leaves, begun.state)
            score = Prequential.restored(course.window, found.about["score"], found.arrays)
            return Progress(state, found.sequence, score, found.about["anew"])
        except Damaged as damage:
            damaged = True
            path.unlink()
            warnings.warn(
                f"{damage}; going on from what was saved before, and from the log", RuntimeWarning, stacklevel=4
            )
    if damaged and course.store.incomplete:
        warnings.warn(
            f"{folder}: no sound snapshot is left, and the log lacks what was forgotten: the weights will be those of "
            "a learner that never saw it",
            RuntimeWarning,
            stacklevel=4,
        )
    return begun


def copy(store: Store, folder: Path, to: Path) -> None:
    """Copy log and snapshots to a new folder, which appears when it is complete.

    Raises:
        WriteError: the file system refuses.
    """
    partial = to.with_name(f".{secrets.token_hex(8)}.tmp")
    with writing(to, ROOM):
        try:
            make_folder(partial / SNAPSHOTS)
            for path in snapshot.paths(folder / SNAPSHOTS):  # first: the log has to have what they have learned
                shutil.copyfile(path, partial / SNAPSHOTS / path.name)
                with (partial / SNAPSHOTS / path.name).open("rb") as file:
                    sync(file)
            store.copy(partial / LOG)
            sync_folder(partial / SNAPSHOTS)
            sync_folder(partial)
            os.replace(partial, to)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(to.parent)


def check(folder: str | Path) -> Checked:
    """Verify the folder of a learner that lives, also while another process has it open: nothing is changed.

    Each datapoint is compared with the checksum that it was stored with, its place in the order and its id with those
    of the others; SQLite checks its file; of snapshots, the checksums are compared.

    Raises:
        UserError: there is no learner, or its log cannot be opened.
    """
    folder = Path(folder)
    store = logs().open(folder / LOG)
    try:
        told = store.about("layout")
        size = None if told is None else Layout(**told).size
        faults = [f"{LOG}: {line}" for line in store.damage()]
        faults += [f"{LOG}: {line}" for line in _misplaced(store, size)]
        sound = 0
        for path in snapshot.paths(folder / SNAPSHOTS):
            try:
                sequence = snapshot.read(path).sequence
            except Damaged as damage:
                faults.append(str(damage))
                continue
            except FileNotFoundError:  # the process that has the folder open removed it
                continue
            sound += 1
            if sequence > store.last:
                faults.append(f"{path} has learned event {sequence}, the log ends with {store.last}")
        tasks = store.tasks()
        return Checked(sum(tasks.values()), len(tasks), sound, tuple(faults))
    finally:
        store.close()


def _misplaced(store: Store, size: int | None) -> Iterator[str]:
    """What is wrong with datapoints."""
    seen, first, left = set[tuple[object, str]](), 0, 0
    for row in store.datapoints():
        if row.digest != digest(row.task, row.id, row.data) or len(row.data) != size:
            yield f"datapoint {row.sequence} is not what was stored"
        if row.counts and (row.task, row.id) in seen:
            yield f"datapoint {row.sequence}: its id was there before"
        if row.counts:
            seen.add((row.task, row.id))
        if left == 0:
            first, left = row.sequence, row.size
        if (row.first, row.sequence) != (first, first + row.size - left):
            yield f"datapoint {row.sequence} is not where it belongs in its group"
        left -= 1
    if left:
        yield f"the last group lacks {left} datapoints"
