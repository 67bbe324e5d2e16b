"""What there is of a learner that lives: its log, and snapshots beside it; and checks of both."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from metaleader.errors import UserError
from metaleader.live import snapshot
from metaleader.live.course import Course, Progress
from metaleader.live.events import digest
from metaleader.live.layout import Layout
from metaleader.live.prequential import Prequential
from metaleader.live.shelf import KEPT, Shelf
from metaleader.live.snapshot import Damaged, Snapshot

if TYPE_CHECKING:
    from metaleader.live.place import Place
    from metaleader.live.store import Store


class Checked(NamedTuple):
    """What `check` found.

    Attributes:
        datapoints: how many there are.
        tasks: of how many tasks.
        snapshots: how many are sound.
        faults: what is wrong, in words; none: all that was acknowledged is there as it was.

    Examples:
        >>> from metaleader.live import Checked
        >>> found = Checked(datapoints=20, tasks=2, snapshots=1, faults=())
        >>> "sound" if not found.faults else "; ".join(found.faults)
        'sound'
    """

    datapoints: int
    tasks: int
    snapshots: int
    faults: tuple[str, ...]


def place(where: str | Path) -> Place:
    """The place of a learner: a folder, or a database by its URL.

    Raises:
        UserError: SQLAlchemy is not installed, or it is a URL of something else.
    """
    try:
        from metaleader.live.place import place_of
    except ImportError:
        raise UserError("SQLAlchemy is not installed: pip install 'metaleader[serve]'") from None
    return place_of(where)


def save(course: Course, shelf: Shelf, progress: Progress, keep: int) -> None:
    """Write a snapshot; of all there are, the newest `keep` stay.

    Raises:
        Unsaveable: there can be none of this state.
        WriteError: it is refused; those before are still there.
    """
    score, arrays = progress.score.saved()
    leaves = snapshot.flattened(progress.state, course.structure)
    about = {"score": score, "anew": progress.anew}
    shelf.write(progress.sequence, snapshot.packed(Snapshot(progress.sequence, leaves, arrays, about)), keep)


def newest(course: Course, shelf: Shelf) -> Progress:
    """Where the newest sound snapshot stands, or the beginning; damaged ones are removed.

    Warns:
        RuntimeWarning: a snapshot is damaged.
    """
    begun, damaged = course.begin(), False
    shelf.tidy(KEPT)
    for name in shelf.names():
        try:
            if (progress := restored(course, shelf, name, begun)) is not None:
                return progress
        except Damaged as damage:
            damaged = True
            shelf.remove(name)
            warnings.warn(
                f"{damage}; going on from what was saved before, and from the log", RuntimeWarning, stacklevel=6
            )
    if damaged and course.store.incomplete:
        warnings.warn(
            f"{course.store.home.name}: no sound snapshot is left, and the log lacks what was forgotten: the weights "
            "will be those of a learner that never saw it",
            RuntimeWarning,
            stacklevel=6,
        )
    return begun


def restored(course: Course, shelf: Shelf, name: str, begun: Progress) -> Progress | None:
    """Where a snapshot stands; None: it is gone.

    Args:
        course: of the learner.
        shelf: where it is.
        name: which.
        begun: the beginning, which shows what a state is like.

    Raises:
        Damaged: it is not what was written, or of another log.
    """
    if (content := shelf.read(name)) is None:
        return None
    found = snapshot.unpacked(content, name)
    if found.sequence > course.store.last:
        raise Damaged(f"{name} has learned event {found.sequence}, the log ends with {course.store.last}")
    state = snapshot.restored(found.leaves, begun.state)
    score = Prequential.restored(course.window, found.about["score"], found.arrays)
    return Progress(state, found.sequence, score, found.about["anew"])


def check(folder: str | Path) -> Checked:
    """Verify a learner that lives, also while processes have it open: nothing is changed.

    Each datapoint is compared with the checksum that it was stored with, its place in the order and its id with those
    of the others; SQLite checks its file; of snapshots, the checksums are compared.

    Args:
        folder: where it lives: a folder, or the URL of a database.

    Raises:
        UserError: there is no learner, or its log cannot be opened.

    Examples:
        >>> import tempfile, numpy as np, metaleader as ml
        >>> from metaleader.live import check
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 2, dtype=np.float32)[:, None]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with ml.Live.create(folder, problem, ml.TOE(1)) as live:
        ...         told = live.learn("north", x, x)
        ...     found = check(folder)
        >>> found.datapoints, found.faults
        (2, ())
    """
    with place(folder).followed() as (store, shelf, _):
        told = store.about("layout")
        size = None if told is None else Layout(**told).size
        faults = [f"log: {line}" for line in store.damage()]
        faults += [f"log: {line}" for line in _misplaced(store, size)]
        sound = 0
        for name in shelf.names():
            try:
                if (content := shelf.read(name)) is None:  # the process that learns removed it
                    continue
                sequence = snapshot.unpacked(content, name).sequence
            except Damaged as damage:
                faults.append(str(damage))
                continue
            sound += 1
            store.refresh()
            if sequence > store.last:
                faults.append(f"{name} has learned event {sequence}, the log ends with {store.last}")
        tasks = store.tasks()
        return Checked(sum(tasks.values()), len(tasks), sound, tuple(faults))


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
