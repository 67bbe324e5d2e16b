"""What the log of a learner holds: datapoints that were given together, and tasks that were forgotten."""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple, TypeAlias

from metaleader.buffer import TaskKey
from metaleader.errors import UserError


class Ended(UserError):  # noqa: N818 - as UserError is one
    """The learner takes nothing more: it is closed, or learning ended by an error.

    Examples:
        >>> import tempfile, numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 2, dtype=np.float32)[:, None]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with ml.Live.create(folder, problem, ml.TOE(1)) as live:
        ...         pass
        ...     try:
        ...         live.learn("north", x, x)
        ...     except ml.UserError as error:
        ...         print(type(error).__name__)
        Ended
    """


class NotInTime(UserError):  # noqa: N818 - the same
    """Not all was learned in the seconds that were given; learning goes on.

    Examples:
        >>> import tempfile, numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 2, dtype=np.float32)[:, None]
        >>> with tempfile.TemporaryDirectory() as folder, ml.Live.create(folder, problem, ml.TOE(1)) as live:
        ...     told = live.learn("north", x, x)
        ...     try:
        ...         live.wait(0)
        ...     except ml.UserError as error:
        ...         print(type(error).__name__)
        NotInTime
    """


class UnknownTask(UserError):  # noqa: N818 - the same
    """A task without datapoints, where one with some is needed.

    Examples:
        >>> import tempfile, numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 2, dtype=np.float32)[:, None]
        >>> with tempfile.TemporaryDirectory() as folder, ml.Live.create(folder, problem, ml.TOE(1)) as live:
        ...     told = live.learn("north", x, x)
        ...     try:
        ...         live.forget("south")
        ...     except ml.UserError as error:
        ...         print(type(error).__name__)
        UnknownTask
    """


class Follows(UserError):  # noqa: N818 - the same
    """This process follows another one, which alone learns and keeps.

    Examples:
        >>> import tempfile, numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 2, dtype=np.float32)[:, None]
        >>> with tempfile.TemporaryDirectory() as folder, ml.Live.create(folder, problem, ml.TOE(1)) as live:
        ...     told = live.learn("north", x, x)
        ...     with ml.Live.follow(folder, problem, ml.TOE(1)) as other:
        ...         try:
        ...             other.save()
        ...         except ml.UserError as error:
        ...             print(type(error).__name__)
        Follows
    """


class Group(NamedTuple):
    """Datapoints that were given together, and are learned together.

    Attributes:
        sequence: the number of the last one, in the order of all.
        task: which they are of.
        rows: the bytes of each.
    """

    sequence: int
    task: TaskKey
    rows: list[bytes]

    @property
    def first(self) -> int:
        """The number of the first one."""
        return self.sequence - len(self.rows) + 1


class Forgetting(NamedTuple):
    """A task is forgotten.

    Attributes:
        sequence: the number of the event, in the order of all.
        task: which; None: once its datapoints are deleted, its name is as well.
    """

    sequence: int
    task: TaskKey | None


Event: TypeAlias = Group | Forgetting


class Acknowledged(NamedTuple):
    """What is on the disk.

    Attributes:
        new: how many of the datapoints given are new; the others, of the same ids, were there already.
        sequence: the number, in the order of all, of the newest datapoint of the task.

    Examples:
        >>> import tempfile, numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 2, dtype=np.float32)[:, None]
        >>> with tempfile.TemporaryDirectory() as folder, ml.Live.create(folder, problem, ml.TOE(1)) as live:
        ...     for _ in range(2):  # the second time, both are known already
        ...         print(live.learn("north", x, x, ids=["monday", "tuesday"]))
        Acknowledged(new=2, sequence=2)
        Acknowledged(new=0, sequence=2)
    """

    new: int
    sequence: int


class Forgotten(NamedTuple):
    """What `Live.forget` gives.

    Attributes:
        task: the task.
        datapoints: how many it had. They are in no file of the folder any more.
        influence: whether what they taught is still in the learner's weights; `Live.rebuild` removes it.

    Examples:
        >>> import tempfile, numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 2, dtype=np.float32)[:, None]
        >>> with tempfile.TemporaryDirectory() as folder, ml.Live.create(folder, problem, ml.TOE(1)) as live:
        ...     told = live.learn("north", x, x)
        ...     live.wait()
        ...     live.forget("north"), live.tasks()
        (Forgotten(task='north', datapoints=2, influence=True), {})
    """

    task: TaskKey
    datapoints: int
    influence: bool


class Status(NamedTuple):
    """Where a learner that lives stands. Events, datapoints and what was forgotten, have numbers in one order.

    Attributes:
        tasks: how many have datapoints.
        datapoints: how many there are.
        stored: the number of the last event in the log.
        learned: that of the last one that is learned.
        served: that of the last one that the state knows from which predictions are made.
        snapshot: when the newest snapshot was written, in seconds since 1970; None: there is none.
        failed: whether learning ended by an error.

    Examples:
        >>> import tempfile, numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 2, dtype=np.float32)[:, None]
        >>> with tempfile.TemporaryDirectory() as folder, ml.Live.create(folder, problem, ml.TOE(1)) as live:
        ...     told = live.learn("north", x, x)
        ...     live.wait()
        ...     status = live.status()
        >>> status.tasks, status.datapoints, status.learned == status.stored, status.failed
        (1, 2, True, False)
    """

    tasks: int
    datapoints: int
    stored: int
    learned: int
    served: int
    snapshot: float | None
    failed: bool


class Known(NamedTuple):
    """What is known of a task.

    Attributes:
        datapoints: how many there are.
        last: the number of the newest one; 0: there is none.
    """

    datapoints: int
    last: int


class Stored(NamedTuple):
    """A datapoint as it is in the log.

    Attributes:
        sequence: its number, in the order of all.
        first: that of the first one of its group.
        size: how many are in its group.
        task: which it is of.
        id: its name within the task.
        data: its bytes.
        digest: their checksum, as of when it was stored.
        counts: whether its task was not forgotten since.
    """

    sequence: int
    first: int
    size: int
    task: TaskKey
    id: str
    data: bytes
    digest: bytes
    counts: bool


def digest(task: TaskKey, name: str, row: bytes) -> bytes:
    """The checksum of a datapoint: of its task, its id and its bytes."""
    return hashlib.blake2b(json.dumps([task, name]).encode() + b"\0" + row, digest_size=16).digest()
