"""Where a learner lives: in a folder, or in a PostgreSQL database that several machines reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa

from metaleader.errors import UserError
from metaleader.files import contents
from metaleader.live import copying
from metaleader.live.postgres import Schema, is_url, shown
from metaleader.live.shared import Lease, Rows, learned_by, put
from metaleader.live.shelf import Files, Shelf
from metaleader.live.sqlite import File
from metaleader.live.store import Store
from metaleader.live.tables import rows
from metaleader.processes import owned_for_results, owner

LOG = "log.sqlite"
SNAPSHOTS = "snapshots"


class Kept(NamedTuple):
    """What there is of a learner, while a process has it open.

    Attributes:
        store: the log.
        shelf: the snapshots.
        lease: the right to learn, where it can be lost.
    """

    store: Store
    shelf: Shelf
    lease: Lease | None = None


class Place(Protocol):
    """Where a learner lives."""

    @property
    def name(self) -> str:
        """In messages."""

    def created(self, about: Mapping[str, Any], lease: float, /) -> AbstractContextManager[Kept]:
        """A context in which there is a new learner (`Kept`), which this process has.

        Args:
            about: settings.
            lease: seconds after which another process may have it, if this one does not answer.

        Raises:
            UserError: there is something already, or another process has it.
            WriteError: it cannot be written.
        """

    def opened(self, lease: float, wait: float, /) -> AbstractContextManager[Kept]:
        """A context in which this process has the learner that is there, to learn.

        Args:
            lease: as in `created`.
            wait: seconds for which another process may still have it.

        Raises:
            UserError: there is none, or another process has it.
        """

    def followed(self) -> AbstractContextManager[Kept]:
        """A context in which there is the learner, to look at and to predict.

        Raises:
            UserError: there is none.
        """

    def filled(self, kept: Kept, /) -> None:
        """Let a copy of a learner be here, of which other processes may have it open.

        Raises:
            UserError: there is something already.
            WriteError: it cannot be written.
        """

    def learned_by(self, store: Store, /) -> str | None:
        """Which process learns, as far as is known; None: there is none."""


@dataclass(frozen=True)
class Folder:
    """A folder of this machine: of its processes, the one that has locked a file learns.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def name(self) -> str:
        """As `Place.name`."""
        return str(self.path)

    @contextmanager
    def created(self, about: Mapping[str, Any], _: float) -> Iterator[Kept]:
        """As `Place.created`; the lock is never lost."""
        with owned_for_results(self.path):
            if any(path.name.removesuffix("-wal").removesuffix("-shm") != LOG for path in contents(self.path)):
                raise UserError(f"{self.path} holds other files: choose a new folder for the learner")
            with _open(Store.create(File(self.path / LOG), about)) as store:
                yield Kept(store, Files(self.path / SNAPSHOTS))

    @contextmanager
    def opened(self, _: float, wait: float) -> Iterator[Kept]:
        """As `Place.opened`."""
        self._check()
        with owned_for_results(self.path, wait), self.followed() as kept:
            yield kept

    @contextmanager
    def followed(self) -> Iterator[Kept]:
        """As `Place.followed`."""
        self._check()
        with _open(Store.open(File(self.path / LOG))) as store:
            yield Kept(store, Files(self.path / SNAPSHOTS))

    def filled(self, kept: Kept) -> None:
        """As `Place.filled`."""
        copying.check_new(self.path)
        copying.into_folder(kept, self.path)

    def learned_by(self, _: Store) -> str | None:
        """As `Place.learned_by`."""
        return owner(self.path)

    def _check(self) -> None:
        if not (self.path / LOG).exists():
            raise UserError(f"{self.path} holds no learner: make one by Live.create")


@dataclass(frozen=True)
class Database:
    """A schema of a PostgreSQL database: of all processes, the one that has the lease learns.

    Attributes:
        url: of the database, with the name of the learner.
    """

    url: str

    @property
    def name(self) -> str:
        """As `Place.name`, without a password."""
        return shown(self.url)

    @contextmanager
    def created(self, about: Mapping[str, Any], lease: float) -> Iterator[Kept]:
        """As `Place.created`."""
        with _open(Store.create(Schema(self.url), about)) as store, _leased(store, lease, 0.0) as own:
            yield Kept(store, Rows(store, own), own)

    @contextmanager
    def opened(self, lease: float, wait: float) -> Iterator[Kept]:
        """As `Place.opened`."""
        with _open(Store.open(Schema(self.url))) as store, _leased(store, lease, wait) as own:
            store.refresh()  # with what came while it waited
            yield Kept(store, Rows(store, own), own)

    @contextmanager
    def followed(self) -> Iterator[Kept]:
        """As `Place.followed`."""
        with _open(Store.open(Schema(self.url))) as store:
            yield Kept(store, Rows(store, None))

    def filled(self, kept: Kept) -> None:
        """As `Place.filled`."""
        home = Schema(self.url)

        def read() -> Iterator[tuple[sa.Table, list[dict[str, Any]]]]:
            with kept.store.refusals(writes=False), kept.store.home.reading.connect() as reading:
                yield from rows(reading, home.ascii)

        def fill(connection: sa.Connection, check: Callable[[], None]) -> None:
            for sequence, content in copying.snapshots(kept):
                put(connection, sequence, content)
            for table, some in read():
                connection.execute(table.insert(), some)
            check()

        copying.undisturbed(kept, lambda check: Store.filled(home, partial(fill, check=check)).close())

    def learned_by(self, store: Store) -> str | None:
        """As `Place.learned_by`."""
        return learned_by(store)


def place_of(where: str | Path) -> Place:
    """The place of a path, or of the URL of a database.

    Raises:
        UserError: it is a URL of something else.
    """
    if isinstance(where, str) and is_url(where):
        shown(where)
        return Database(where)
    return Folder(Path(where))


@contextmanager
def _open(store: Store) -> Iterator[Store]:
    try:
        yield store
    finally:
        store.close()


@contextmanager
def _leased(store: Store, seconds: float, wait: float) -> Iterator[Lease]:
    lease = Lease(store, seconds)
    lease.take(wait)
    try:
        yield lease
    finally:
        lease.leave()
