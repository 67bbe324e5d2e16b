"""The rows of a table, in memory or on disk: all of them in chunks, and those of tasks once they are grouped."""

from __future__ import annotations

import errno
import io
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np

from metaleader.errors import UserError
from metaleader.streams import columns as kinds
from metaleader.streams.columns import Column

if TYPE_CHECKING:
    import narwhals as nw
    import polars as pl

CHUNK = 100_000  # rows that are in memory at a time
PART = 128e6  # bytes of a part of the grouped copy, which is sorted in memory
PARTS = 400  # open files at most
PLACE, TIME, OF = "metaleader: place", "metaleader: time", "metaleader: part"


@dataclass(frozen=True)
class Keys:
    """What tells where a row belongs: its group, its time and whether it has a target.

    Attributes:
        group: the name of the column.
        targets: a row needs a value in each.
        time: None: rows arrive as they stand in the table.
    """

    group: str
    targets: tuple[Column, ...]
    time: Column | None

    @property
    def names(self) -> list[str]:
        """Of the columns that are read for it."""
        return [self.group, *(target.name for target in self.targets), *([self.time.name] if self.time else [])]

    def __call__(self, chunk: nw.DataFrame[Any], offset: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the rows that have all values: their places in the chunk, their groups, and their times."""
        groups = kinds.values(chunk[self.group], "categorical")
        there = kinds.present(groups)
        for target in self.targets:
            there &= kinds.present(kinds.values(chunk[target.name], target.kind))
        times = np.arange(offset, offset + len(groups), dtype=np.float64)
        if self.time is not None:
            times = kinds.values(chunk[self.time.name], self.time.kind)
            there &= kinds.present(times)
        rows = np.flatnonzero(there)
        return rows, groups[rows], times[rows]


@dataclass(frozen=True)
class InMemory:
    """The rows of a data frame; grouped, only those at `places`."""

    frame: nw.DataFrame[Any]
    places: np.ndarray | None = None

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return self.frame.columns

    def chunks(self, names: Sequence[str]) -> Iterator[nw.DataFrame[Any]]:
        """All rows as one chunk."""
        frame = self.frame.select(*names)
        yield frame if self.places is None else frame[self.places]

    def read(self, rows: np.ndarray, names: Sequence[str]) -> nw.DataFrame[Any]:
        """Some rows of the data frame."""
        return self.frame.select(*names)[rows]

    def grouped(
        self, keys: Keys, places: Mapping[str, int], sizes: Sequence[int], names: Sequence[str]
    ) -> tuple[InMemory, list[np.ndarray | range]]:
        """The rows of some tasks, by task and time; rows of one time as they stand in the table.

        Args:
            keys: what tells where a row belongs.
            places: of the tasks, by the name of the group.
            sizes: how many rows each task has, by place.
            names: of the columns that will be read.

        Returns:
            The rows, and the places of each task's rows in the data frame.
        """
        rows, groups, times = keys(self.frame, 0)
        place = np.array([places.get(group, -1) for group in groups.tolist()], np.int64)
        order = np.lexsort((times, place))[int((place < 0).sum()) :]
        rows = rows[order]
        return InMemory(self.frame.select(*names), rows), list(np.split(rows, np.cumsum(sizes)[:-1]))


@dataclass(frozen=True)
class OnDisk:
    """The rows of a file, read in chunks by polars' streaming engine.

    Attributes:
        scan: the file as a query.
        path: of the file.
        scratch: the folder for the grouped copy; None: the system's for temporary files.
    """

    scan: pl.LazyFrame
    path: Path
    scratch: Path | None

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return self.scan.collect_schema().names()

    def chunks(self, names: Sequence[str]) -> Iterator[nw.DataFrame[Any]]:
        """All rows, `CHUNK` of them at most at a time."""
        import narwhals as nw

        with reading(self.path):
            for batch in self.scan.select(*names).collect_batches(chunk_size=CHUNK, engine="streaming"):
                for chunk in batch.iter_slices(CHUNK):
                    yield nw.from_native(chunk, eager_only=True)

    def grouped(
        self, keys: Keys, places: Mapping[str, int], sizes: Sequence[int], names: Sequence[str]
    ) -> tuple[GroupedOnDisk, list[np.ndarray | range]]:
        """The same in a copy on disk, in which a task's rows follow one another.

        Rows are first dealt out to parts of whole tasks, as they are read; then each part is sorted in memory. polars
        sorts what is larger than memory in memory, so that sorting the file at once is no way.

        Raises:
            UserError: the disk has no room for it; nothing is left there.
        """
        ends = np.cumsum(sizes)
        with _making(self.scratch) as folder:
            starts = _dealt_out(self, folder.path, keys, places, ends, names)
            for i in range(len(starts)):
                _sort(folder.path / f"{i}.parts", folder.path / f"{i}.arrow", names)
        tasks = [range(int(end - size), int(end)) for size, end in zip(sizes, ends, strict=True)]
        return GroupedOnDisk(folder, starts), list(tasks)


class Folder:
    """A temporary folder, which is removed with the last table that uses it, or when Python ends."""

    def __init__(self, inside: Path | None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="metaleader-", dir=inside))
        self.remove = weakref.finalize(self, _remove, self.path, os.getpid())


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a process that was forked, whose parent still needs it
        shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True, eq=False)
class GroupedOnDisk:
    """A grouped copy: parts of whole tasks, each an Arrow file.

    Attributes:
        folder: of the files `0.arrow`, `1.arrow`, ...
        starts: the number of the first row of each.
    """

    folder: Folder
    starts: np.ndarray

    def chunks(self, names: Sequence[str]) -> Iterator[nw.DataFrame[Any]]:
        """All rows, `CHUNK` of them at most at a time."""
        import narwhals as nw

        for i in range(len(self.starts)):
            for chunk in self._part(i).select(*names).collect().iter_slices(CHUNK):
                yield nw.from_native(chunk, eager_only=True)

    def read(self, rows: np.ndarray, names: Sequence[str]) -> nw.DataFrame[Any]:
        """Some rows, by their numbers in the copy."""
        import narwhals as nw
        import polars as pl

        parts = np.searchsorted(self.starts, rows, side="right") - 1
        found, order = [], []
        for i in np.unique(parts).tolist():
            at = np.flatnonzero(parts == i)
            inside = rows[at] - self.starts[i]
            low, high = int(inside.min()), int(inside.max()) + 1
            found.append(self._part(i).select(*names).slice(low, high - low).collect()[inside - low])
            order.append(at)
        together = found[0] if len(found) == 1 else pl.concat(found)[np.argsort(np.concatenate(order))]
        return nw.from_native(together, eager_only=True)

    def _part(self, i: int) -> pl.LazyFrame:
        import polars as pl

        return pl.scan_ipc(self.folder.path / f"{i}.arrow")


Rows: TypeAlias = InMemory | OnDisk
Grouped: TypeAlias = InMemory | GroupedOnDisk


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what polars cannot read into one line.

    Raises:
        UserError: naming the file.
    """
    import polars as pl

    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).strip().splitlines()[0].strip() if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path} cannot be read as {''.join(path.suffixes[-2:])}: {reason}; it may be damaged or cut off, or of "
            "another kind than its name says: write it again"
        ) from error


@contextmanager
def _making(scratch: Path | None) -> Iterator[Folder]:
    """A folder that is there whole, or not at all.

    Raises:
        UserError: it cannot be written.
    """
    import polars as pl

    try:
        folder = Folder(scratch)
    except OSError as error:
        raise UserError(f"scratch: cannot make a folder in {scratch}: {error.strerror}; choose another") from error
    try:
        yield folder
    except BaseException as error:
        folder.remove()
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or (isinstance(error, pl.exceptions.PolarsError) and "No space left" in str(error)):
            raise UserError(_no_room(folder.path.parent)) from error
        raise


def _no_room(folder: Path, needed: float | None = None) -> str:
    free = shutil.disk_usage(folder).free
    what = "more room" if needed is None else f"about {needed / 1e9:.3g} GB"
    return (
        f"a copy of the table, grouped by task, needs {what} in {folder}, where {free / 1e9:.3g} GB are free: choose "
        "another folder by scratch=, or on_disk=False if the table fits into memory"
    )


def _dealt_out(
    table: OnDisk, folder: Path, keys: Keys, places: Mapping[str, int], ends: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """Write the rows of tasks to parts as they are read; returns the number of the first row of each part."""
    import polars as pl

    files: list[BinaryIO] = []
    starts, part_of = np.zeros(1, np.int64), np.zeros(len(ends), np.int64)
    offset, needed = 0, list(dict.fromkeys([*names, *keys.names]))
    try:
        for chunk in table.chunks(needed):
            rows, groups, times = keys(chunk, offset)
            offset += len(chunk)
            place = np.array([places.get(group, -1) for group in groups.tolist()], np.int64)
            kept, place, times = rows[place >= 0], place[place >= 0], times[place >= 0]
            data = chunk.select(*names).to_native()[kept]
            if not len(data):
                continue
            if not files:
                starts, part_of = _parts(ends, data.estimated_size() / len(data), folder)
                files = [(folder / f"{i}.parts").open("xb") for i in range(len(starts))]
            data = data.with_columns(pl.Series(PLACE, place), pl.Series(TIME, times), pl.Series(OF, part_of[place]))
            for (i,), part in data.partition_by([OF], as_dict=True, include_key=False).items():
                block = io.BytesIO()
                part.write_ipc_stream(block)
                files[i].write(len(block.getbuffer()).to_bytes(8))
                files[i].write(block.getbuffer())
    finally:
        for file in files:
            file.close()
    return starts


def _parts(ends: np.ndarray, bytes_a_row: float, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The first row of every part, and the part of every task.

    Raises:
        UserError: the disk has no room for them.
    """
    total = int(ends[-1])
    # The keys of every row lie there too, until it is sorted.
    if (needed := total * (bytes_a_row + 16)) > shutil.disk_usage(folder).free:
        raise UserError(_no_room(folder.parent, needed))
    rows = max(int(PART / bytes_a_row), -(-total // PARTS), 1)
    first = np.concatenate([[0], ends[:-1]])
    _, begin, part_of = np.unique(first // rows, return_index=True, return_inverse=True)
    return first[begin], part_of


def _sort(blocks: Path, path: Path, names: Sequence[str]) -> None:
    import polars as pl

    found = []
    with blocks.open("rb") as file:
        while size := file.read(8):
            found.append(pl.read_ipc_stream(io.BytesIO(file.read(int.from_bytes(size)))))
    ordered = pl.concat(found).sort(PLACE, TIME, maintain_order=True).select(*names)
    ordered.write_ipc(path, compression="uncompressed")
    blocks.unlink()
