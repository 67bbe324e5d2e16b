"""What processes share in a database besides the log: which of them learns, and the snapshots that others follow.

Who learns is told by a row that expires unless its owner renews it, by the clock of the database. A lock of the
owner's connection would go at once with its process, but never while the process is stopped or its network is cut, and
it is lost in a failover and behind poolers of connections. The row is replicated with all else. A clock that steps can
only shift when another process takes over, not what comes of it: all that an owner writes it writes in transactions
that hold the row, with its own token in it (Gray & Cheriton, 1989, and fencing as in Burrows, 2006).
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from metaleader.errors import UserError, WriteError
from metaleader.live.events import Ended
from metaleader.live.store import Store
from metaleader.live.tables import CHUNKS, OWNER, SNAPSHOTS
from metaleader.processes import this_process

CHUNK = 4 << 20  # bytes of a snapshot in one row
OFTEN = 4  # renewals in the time after which a lease expires
PATIENCE = 0.25  # seconds between two looks whether a lease is free

_NOW = sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)
_log = logging.getLogger(__name__)


class Lost(Ended):
    """Another process learns now, and this one no longer may."""


class Lease:
    """The right to learn, which one process at a time has.

    Attributes:
        seconds: after which it expires, unless it is renewed.
    """

    def __init__(self, store: Store, seconds: float) -> None:
        self.store, self.seconds = store, seconds
        self.token = secrets.token_hex(16)
        self.lost: Lost | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metaleader-lease", daemon=True)

    def take(self, wait: float) -> None:
        """Take it, once it is free, and keep it until it is left.

        Raises:
            UserError: another process has it for longer than `wait` seconds; says which.
        """
        until, told = time.monotonic() + wait, None
        while True:
            over = time.monotonic() >= until
            try:
                owner = self._taken()
            except WriteError:  # who stands by waits for the database, too
                if over:
                    raise
            else:
                if owner is None:
                    break
                if over:
                    raise UserError(
                        f"{self.store.home.name} is learned by {owner}: follow it by Live.follow, or give a number of "
                        "seconds to wait until that ends"
                    )
                if owner != told:
                    _log.info("standing by while %s is learned by %s", self.store.home.name, owner)
                    told = owner
            time.sleep(min(PATIENCE, max(until - time.monotonic(), 0)))
        self._thread.start()

    def leave(self) -> None:
        """Leave it to others, who need not wait until it expires."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        left = OWNER.update().where(OWNER.c.token == self.token).values(token=None, owner=None, expires=None)
        try:
            with self.store.refusals(), self.store.home.writing.begin() as connection:
                connection.execute(left)
        except WriteError as error:
            _log.warning("%s", error)

    def check(self) -> None:
        """Make sure that it is not known to be lost.

        Raises:
            Lost: it is.
        """
        if self.lost is not None:
            raise self.lost

    @contextmanager
    def held(self) -> Iterator[sa.Connection]:
        """A transaction in which nobody else takes it, and which is not done if somebody has.

        Raises:
            Lost: somebody has.
            WriteError: the database refuses.
        """
        with self.store.refusals(), self.store.home.writing.begin() as connection:
            self.fence(connection)
            yield connection
            self.fence(connection)  # it may have taken long, and kept the row from being renewed

    def fence(self, connection: sa.Connection) -> None:
        """Renew it, and let nobody else take it until the transaction ends.

        Raises:
            Lost: another process has it.
        """
        kept = OWNER.update().where(OWNER.c.token == self.token).values(expires=_NOW + self.seconds)
        if connection.execute(kept).rowcount != 1:
            owner = connection.execute(sa.select(OWNER.c.owner)).scalar()
            self.lost = Lost(
                f"{self.store.home.name} was taken over by {owner or 'another process'}, as this one did not answer "
                f"for {self.seconds:g} seconds: it learns and writes no more; open it again, or follow it"
            )
            raise self.lost

    def _taken(self) -> str | None:
        """Take it, if it is free; who has it, if it is not."""
        free = OWNER.c.token.is_(None) | (OWNER.c.expires <= _NOW)
        own = {"number": OWNER.c.number + 1, "token": self.token, "owner": this_process()}
        with self.store.refusals(), self.store.home.writing.begin() as connection:
            taken = connection.execute(OWNER.update().where(free).values(**own, expires=_NOW + self.seconds)).rowcount
            owner = connection.execute(sa.select(OWNER.c.owner)).scalar()
        return None if taken else owner or "another process"

    def _run(self) -> None:
        while not self._over.wait(self.seconds / OFTEN):
            try:
                with self.held():
                    pass
            except Lost as lost:
                _log.warning("%s", lost)
                return
            except UserError as error:  # the database does not answer; perhaps it will before others can take it
                _log.warning("the lease was not renewed: %s", error)


@dataclass(frozen=True)
class Rows:
    """Snapshots as rows of a database.

    Attributes:
        store: the log beside them.
        lease: of the process, if it may write.
    """

    store: Store
    lease: Lease | None

    def write(self, sequence: int, content: bytes, keep: int) -> None:
        """As `Shelf.write`.

        Raises:
            Lost: another process learns by now.
        """
        assert self.lease is not None
        with self.lease.held() as connection:
            put(connection, sequence, content)
            _remove(connection, keep)

    def names(self) -> list[str]:
        """As `Shelf.names`: numbers."""
        asked = sa.select(SNAPSHOTS.c.number).order_by(SNAPSHOTS.c.number.desc())
        with self.store.refusals(writes=False), self.store.home.once.connect() as connection:
            return [f"snapshot {number}" for number in connection.execute(asked).scalars()]

    def read(self, name: str) -> bytes | None:
        """As `Shelf.read`."""
        asked = sa.select(CHUNKS.c.data).where(CHUNKS.c.snapshot == _number(name)).order_by(CHUNKS.c.place)
        with self.store.refusals(writes=False), self.store.home.once.connect() as connection:
            return b"".join(connection.execute(asked).scalars()) or None

    def tidy(self, keep: int) -> None:
        """As `Shelf.tidy`."""
        assert self.lease is not None
        with self.lease.held() as connection:
            _remove(connection, keep)

    def remove(self, name: str) -> None:
        """As `Shelf.remove`."""
        assert self.lease is not None
        with self.lease.held() as connection:
            for column in (CHUNKS.c.snapshot, SNAPSHOTS.c.number):
                connection.execute(sa.delete(column.table).where(column == _number(name)))

    def saved_at(self) -> float | None:
        """As `Shelf.saved_at`, by the clock of the database."""
        with self.store.refusals(writes=False), self.store.home.once.connect() as connection:
            return connection.execute(sa.select(sa.func.max(SNAPSHOTS.c.written))).scalar()

    def mark(self) -> Hashable:
        """As `Shelf.mark`."""
        with self.store.refusals(writes=False), self.store.home.once.connect() as connection:
            return connection.execute(sa.select(sa.func.max(SNAPSHOTS.c.number))).scalar()


def put(connection: sa.Connection, sequence: int, content: bytes) -> None:
    """Write a snapshot, as the newest."""
    number = (connection.execute(sa.select(sa.func.max(SNAPSHOTS.c.number))).scalar() or 0) + 1
    connection.execute(SNAPSHOTS.insert().values(number=number, sequence=sequence, written=_NOW))
    for place, start in enumerate(range(0, len(content), CHUNK)):
        row = {"snapshot": number, "place": place, "data": content[start : start + CHUNK]}
        connection.execute(CHUNKS.insert().values(**row))


def learned_by(store: Store) -> str | None:
    """Which process learns; None: there is none."""
    asked = sa.select(OWNER.c.owner).where(OWNER.c.token.is_not(None), OWNER.c.expires > _NOW)
    with store.refusals(writes=False), store.home.once.connect() as connection:
        return connection.execute(asked).scalar()


def _remove(connection: sa.Connection, keep: int) -> None:
    """Remove all but the newest."""
    numbers = sorted(connection.execute(sa.select(SNAPSHOTS.c.number)).scalars(), reverse=True)
    for column in (CHUNKS.c.snapshot, SNAPSHOTS.c.number):
        connection.execute(sa.delete(column.table).where(column.in_(numbers[keep:])))


def _number(name: str) -> int:
    return int(name.removeprefix("snapshot "))
