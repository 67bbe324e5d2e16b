"""Where snapshots are kept: each is there whole or not at all."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from metaleader.errors import writing
from metaleader.files import make_folder, sync_folder, write_whole

ENDING = ".snapshot"
KEPT = 2  # so that there is one if the newest is damaged
ROOM = "make room on the disk, then save again: nothing that was acknowledged is lost"


class Shelf(Protocol):
    """Snapshots by name."""

    def write(self, sequence: int, content: bytes, keep: int) -> None:
        """Keep a snapshot that has learned event `sequence`; of all there are, the newest `keep` stay.

        Raises:
            WriteError: it is refused; those before are still there.
        """

    def names(self) -> list[str]:
        """Of those there are, the newest first."""

    def read(self, name: str) -> bytes | None:
        """What one holds; None: it is gone by now."""

    def tidy(self, keep: int) -> None:
        """Remove all but the newest, and what a process that was killed left of one.

        Raises:
            WriteError: it is refused.
        """

    def remove(self, name: str) -> None:
        """Remove one that is damaged."""

    def saved_at(self) -> float | None:
        """When the newest was written, in seconds since 1970; None: there is none."""

    def mark(self) -> Hashable:
        """Something else once there is a newer one; None: there is none."""


@dataclass(frozen=True)
class Files:
    """Snapshots as files of a folder, named by the event they have learned.

    Attributes:
        folder: which.
    """

    folder: Path

    def write(self, sequence: int, content: bytes, keep: int) -> None:
        """As `Shelf.write`."""
        with writing(self.folder, ROOM):
            make_folder(self.folder)
            write_whole(self.folder / f"{sequence:020d}{ENDING}", lambda file: file.write(content))
        self.tidy(keep)

    def names(self) -> list[str]:
        """As `Shelf.names`: paths."""
        return list(map(str, reversed(self._paths())))

    def read(self, name: str) -> bytes | None:
        """As `Shelf.read`."""
        try:
            return Path(name).read_bytes()
        except FileNotFoundError:
            return None

    def tidy(self, keep: int) -> None:
        """As `Shelf.tidy`."""
        with writing(self.folder, ROOM):
            if self.folder.exists() and (gone := [*self.folder.glob(".*.tmp"), *reversed(self._paths()[::-1][keep:])]):
                for path in gone:
                    path.unlink()
                sync_folder(self.folder)

    def remove(self, name: str) -> None:
        """As `Shelf.remove`."""
        Path(name).unlink(missing_ok=True)

    def saved_at(self) -> float | None:
        """As `Shelf.saved_at`."""
        for path in reversed(self._paths()):
            with suppress(FileNotFoundError):  # a newer one has taken its place
                return path.stat().st_mtime
        return None

    def mark(self) -> Hashable:
        """As `Shelf.mark`. Learning the log anew writes another file of the same name."""
        try:
            found = self._paths()[-1]
            told = found.stat()
        except (IndexError, FileNotFoundError):
            return None
        return found.name, told.st_ino, told.st_mtime_ns

    def _paths(self) -> list[Path]:
        """Oldest first."""
        there = self.folder.iterdir() if self.folder.exists() else ()
        return sorted(path for path in there if path.suffix == ENDING)
