"""A learner that lives: told datapoints of tasks that come and go, asked for predictions all the while."""

from __future__ import annotations

import atexit
import logging
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from metaleader.buffer import TaskKey
from metaleader.errors import UserError
from metaleader.learners import Learner
from metaleader.learners.base import FEW, Adapted
from metaleader.live import copying, keeping, settings
from metaleader.live.cache import Cache
from metaleader.live.course import Course
from metaleader.live.events import Acknowledged, Ended, Forgotten, Status
from metaleader.live.follower import Follower, Learning
from metaleader.live.inputs import checked_ids, classes
from metaleader.live.layout import Layout
from metaleader.live.prequential import Prequential, Standing
from metaleader.live.words import Words
from metaleader.live.worker import LOOK, Pace, Worker
from metaleader.problem import Problem
from metaleader.problem.batch import Batch, Examples
from metaleader.problem.problem import check, check_blind_to_padding
from metaleader.streams import RowEncoder, Table

if TYPE_CHECKING:
    from metaleader.live.place import Kept, Place

_log = logging.getLogger(__name__)

NOT_STORED = "\0not stored"  # the task of datapoints that are adapted to and not stored


def _elsewhere(_: Path) -> None:
    raise UserError("this predictor is at a service: export it where its learner is, by Live.export")


@dataclass(frozen=True)
class Predictor:
    """Predicts for one task, from the datapoints it was adapted to; see `Live.adapt`.

    Examples:
        >>> import tempfile, numpy as np, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> x = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with ml.Live.create(folder, problem, ml.FTML(ml.GradientDescent(5, 0.5))) as live:
        ...         told = live.learn("north", x, 2 * x + 1)
        ...         predictor = live.adapt(x, 1 - 2 * x)  # of another task, which is not stored
        ...         print(bool(np.abs(predictor.predict(x) - (1 - 2 * x)).mean() < 0.5), live.tasks())
        True {'north': 10}
    """

    answer: Callable[[Any], Any]
    write: Callable[[Path], None] = _elsewhere

    def predict(self, x: Examples) -> Any:
        """As `Live.predict`."""
        return self.answer(x)

    def export(self, folder: str | Path) -> None:
        """As `Live.export`."""
        self.write(Path(folder))


class Live:
    """A learner that keeps all it is told in a folder or database, learns in the background, and predicts meanwhile.

    A datapoint that `learn` acknowledged is on the disk. The learner meets all datapoints in one order, those of one
    call together; where it stands is a function of that order, so that a learner that was killed arrives, once it is
    opened again, at the same weights, bit for bit, on the same machine and versions of packages. A prediction
    for a task adapts the newest state to all datapoints of the task that were acknowledged; it waits for no learning.

    All methods may be called by several threads at once. One process at a time may have it open to learn; others may
    follow it (`follow`).

    >>> import tempfile, numpy as np, metaleader as ml
    >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
    >>> x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Live.create(Path(folder) / "shops", problem, ml.FTML(ml.GradientDescent(5, 0.5))) as live:
    ...         acknowledged = live.learn("north", x, 2 * x + 1)
    ...         predicted = live.predict("north", x)
    ...         live.tasks(), acknowledged.new, bool(np.abs(predicted - (2 * x + 1)).mean() < 0.3)
    ({'north': 20}, 20, True)
    """

    def __init__(
        self,
        place: Place,
        problem: Problem,
        learner: Learner,
        kept: Kept,
        pace: Pace,
        stack: ExitStack,
        learns: bool,
        learning: Learning | None = None,
    ) -> None:
        """Not to be called: see `create`, `open` and `follow`."""
        self.place, self.problem, self.learner, self.learns = place, problem, learner, learns
        self._kept, self._store, self._stack = kept, kept.store, stack
        told = self._store.about("settings")
        self.learning = learning
        self._seed, self._window = told["seed"], told["window"]
        encoder = self._store.about("encoder")
        self.encoder = None if encoder is None else RowEncoder.from_json(encoder)
        self._words = Words(problem, learner, self.encoder)
        self._pace, self._cache, self._beginning = pace, Cache(pace.cache_bytes), threading.RLock()
        self._layout: Layout | None = None
        self._classes: int | None = None
        self._worker: Worker | Follower | None = None
        self._closed, self._over = False, threading.Event()
        self._looking = threading.Thread(target=self._look_often, name="metaleader-begin", daemon=True)
        atexit.register(self.close)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        problem: Problem,
        learner: Learner,
        *,
        seed: int = 0,
        table: Table | RowEncoder | None = None,
        example: Batch | None = None,
        window: int = 1000,
        pace: Pace | None = None,
    ) -> Live:
        """A new learner in a folder or a database.

        Args:
            folder: which, made if need be; or a PostgreSQL database, as
                `postgresql+psycopg://user@host/database?learner=shops`, in which the learner is a schema of its name.
            problem: what is learned.
            learner: by which learner. What is learned together, and how long, is its own affair: `observe` is called
                once for the datapoints of each call of `learn`.
            seed: of the learner's randomness.
            table: whose rows are learned from. What it does to a row is stored with the learner (`encoder`), so that
                it takes rows as they are, and predicts in the target's unit. None: it takes arrays.
            example: a batch with the shapes and types of the data to come; None: the table shows them, or the first
                datapoints do.
            window: over how many of the newest datapoints `score` takes its recent means.
            pace: how much learning and keeping may take; None: the defaults of `Pace`.

        Raises:
            UserError: the folder holds something already, or another process has it.
            WriteError: the file system or the database refuses.
        """
        place, pace = keeping.place(folder), pace or Pace()
        if window < 1:
            raise UserError(f"window must be at least 1, got {window}")
        about: dict[str, Any] = {"settings": settings.settings(problem, learner, seed, window)}
        if table is not None:
            encoder = table.encoder if isinstance(table, Table) else table
            about["encoder"], example = encoder.as_json(), encoder.example()
        if example is not None:
            about["layout"] = _first_layout(problem, Batch.of(example.inputs, example.targets)).as_json
        with ExitStack() as stack:
            kept = stack.enter_context(place.created(about, pace.lease))
            live = cls(place, problem, learner, kept, pace, stack.pop_all(), learns=True)
        return live._resumed()

    @classmethod
    def open(
        cls,
        folder: str | Path,
        problem: Problem | None = None,
        learner: Learner | None = None,
        *,
        wait: float = 0.0,
        pace: Pace | None = None,
    ) -> Live:
        """The learner in a folder or a database, as it was when it was last closed, or when its process was killed.

        It begins from the newest sound snapshot, and learns in the background what came after it.

        Args:
            folder: which; or a database, as in `create`.
            problem: what it was created with; None: that is made of classes and functions of this package alone.
            learner: likewise.
            wait: seconds for which another process may still have it. A process that stands by, to go on where that
                one ends or stops answering, waits for `math.inf`.
            pace: as in `create`.

        Raises:
            UserError: there is no learner, it was created with another problem or learner, these are not told by the
                folder, or another process has it.

        Warns:
            RuntimeWarning: a snapshot is damaged; the log tells the same.
        """
        place, pace = keeping.place(folder), pace or Pace()
        return cls._entered(place, place.opened(pace.lease, wait), problem, learner, pace, learns=True)

    @classmethod
    def follow(
        cls,
        folder: str | Path,
        problem: Problem | None = None,
        learner: Learner | None = None,
        *,
        pace: Pace | None = None,
        learning: Learning | None = None,
    ) -> Live:
        """The learner in a folder or a database, to predict beside the process that learns; any number may follow.

        Predictions are made from the newest snapshot of the process that learns, which writes one every
        `Pace.snapshot` seconds of its own, adapted to all acknowledged datapoints of the task. `learn` stores
        datapoints, which the process that learns meets in the one order of all. What any process forgets is in no
        prediction from then on. `save`, `rebuild` and `backup` are for the process that learns.

        Args:
            folder: as in `open`.
            problem: as in `open`.
            learner: as in `open`.
            pace: of which `refresh` is the seconds between two looks for a newer snapshot; `share`, `snapshot` and
                `lease` are for the process that learns.
            learning: the process that learns, where this one may ask it to `save` and `rebuild`; None: these are
                refused.

        Raises:
            UserError: as `open`, but for another process that has it.
        """
        place = keeping.place(folder)
        return cls._entered(place, place.followed(), problem, learner, pace or Pace(), False, learning)

    @classmethod
    def _entered(
        cls,
        place: Place,
        context: AbstractContextManager[Kept],
        problem: Problem | None,
        learner: Learner | None,
        pace: Pace,
        learns: bool,
        learning: Learning | None = None,
    ) -> Live:
        """The learner that is there, once its settings are found to be the same."""
        with ExitStack() as stack:
            kept = stack.enter_context(context)
            stored = settings.current(place.name, kept.store.about("settings"))
            if problem is None or learner is None:
                built = settings.problem_and_learner(place.name, stored)
                problem, learner = problem or built[0], learner or built[1]
            now = settings.settings(problem, learner, stored["seed"], stored["window"])
            settings.check_same(place.name, stored, now)
            live = cls(place, problem, learner, kept, pace, stack.pop_all(), learns, learning)
        return live._resumed()

    @property
    def folder(self) -> Path:
        """Where it lives.

        Raises:
            UserError: that is a database.
        """
        path = getattr(self.place, "path", None)
        if path is None:
            raise UserError(f"{self.place.name} is no folder")
        return Path(path)

    @property
    def remote(self) -> bool:
        """Whether it lives in a database, which may take its time to answer, and not in a folder."""
        return not hasattr(self.place, "path")

    # Learning

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that a table's target has, by label; none for a regression, or without a table."""
        return () if self.encoder is None else self.encoder.classes

    def learn(
        self, task: TaskKey, x: Examples, y: Examples | None = None, ids: Sequence[str] | None = None
    ) -> Acknowledged:
        """Take datapoints of a task, which are learned together; returns once they are on the disk, not yet learned.

        Args:
            task: which: an integer or a string. With a table, tasks are known by what its column of tasks holds,
                written as words: 7 is `"7"`.
            x: inputs, an array `(n, ...)` or a pytree of such arrays. With a table, its rows: a data frame, a mapping
                of columns, or a list of mappings (`RowEncoder.encode`).
            y: targets, arrays likewise. With a table, what the column of the target would hold; None: the rows have
                that column.
            ids: a name for each, unique within the task: a datapoint whose name is known, with the same content, is
                acknowledged again and counts once. Until a task is forgotten, as its ids are as well. None: random.

        Raises:
            ValueError: they are of another structure, shape or type than those before, not finite, or labels of no
                class; an id is known with other content; a row cannot be encoded. Nothing is stored.
            WriteError: the file system refuses; nothing is stored.
            UserError: learning ended by an error, or the learner is closed.
        """
        self._check_open()
        return self.learn_encoded(task, self._words.datapoints(x, y), ids)

    def learn_encoded(self, task: TaskKey, batch: Batch, ids: Sequence[str] | None = None) -> Acknowledged:
        """As `learn`, from examples as the learner sees them: with a table, its rows encoded (`Table.examples`).

        Raises:
            ValueError: as `learn` does.
        """
        self._check_open()
        task = self._words.key(task)
        names = [secrets.token_hex(16) for _ in range(len(batch))] if ids is None else checked_ids(ids, len(batch))
        if self._layout is None:
            with self._beginning:
                if self._layout is None:
                    self._begin(batch)
        worker, layout = self._begun()
        self._words.check(batch, layout, self._classes)
        worker.check()
        acknowledged = self._store.append(task, names, layout.packed(batch))
        worker.tell()
        return acknowledged

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all that was acknowledged is learned, and predictions are made from it.

        One that follows waits for a snapshot of that.

        Raises:
            UserError: learning ended by an error, or took longer than `timeout` seconds; no process learns.
        """
        self._check_open()
        self._store.refresh()
        if self._worker is None:
            self._look()
        if self._worker is not None:
            self._worker.wait(self._store.last, timeout)

    @property
    def backlog(self) -> int:
        """About how many datapoints are acknowledged, but not yet learned, or not in the snapshot that is followed."""
        return 0 if self._worker is None else self._store.last - self._worker.progress.sequence

    @property
    def failed(self) -> bool:
        """Whether learning, or following, ended by an error: nothing more is learned until it is opened again."""
        return self._worker is not None and self._worker.failed

    # Predicting

    def predict(self, task: TaskKey, x: Examples) -> Any:
        """Predictions for inputs of a task: `(n, classes)` probabilities with `CrossEntropy`, otherwise outputs.

        For a task without datapoints they are those of the learner before any (zero-shot). With a table, numbers
        `(n, 1)` are in the target's unit, and probabilities are those of `classes`, also of several labels a row.

        Args:
            task: which.
            x: inputs, or rows, as in `learn`; rows need no target.

        Raises:
            ValueError: the inputs are of another structure, shape or type than those learned from, or not finite.
            UserError: nothing was learned from yet, and no example was given.
        """
        task = self._words.key(task)
        worker, layout = self._begun()
        inputs = layout.questions(self._words.inputs(x))
        adapted, _ = self._adapted(task, worker, layout)
        return self._words.decoded(self._words.outputs(adapted, inputs))

    def adapt(self, x: Examples, y: Examples | None = None) -> Predictor:
        """What predicts a task that has these datapoints, given as in `learn`; nothing is stored, and nothing learned.

        Raises:
            ValueError: as `learn` does.
        """
        worker, layout = self._begun()
        batch = self._words.datapoints(x, y)
        self._words.check(batch, layout, self._classes)
        data = layout.unpacked(layout.packed(batch))  # as if it had been stored
        adapted, _ = self.learner.adapt(self.problem, worker.published.state, NOT_STORED, data)
        return Predictor(
            lambda x: self._words.decoded(self._words.outputs(adapted, layout.questions(self._words.inputs(x)))),
            lambda folder: self._words.export(folder, adapted, layout, {"task": None, "datapoints": len(data)}),
        )

    def export(self, task: TaskKey | None, folder: str | Path) -> None:
        """Write what predicts a task now to a new folder, to be loaded by JAX without this package.

        It holds a program (StableHLO, by `jax.export`) for any number of rows, for CPUs and, as far as its operations
        are there, CUDA, ROCm and TPUs; the parameters (safetensors); and `predictor.json`, which says what goes in and
        comes out, and in which lines of Python it is loaded. Predictions are those of `predict`, to rounding.

        Args:
            task: which; one without datapoints, or None for any such, is predicted as before any (zero-shot).
            folder: which must not exist.

        Raises:
            UserError: the folder exists, safetensors or flatbuffers is not installed, nothing was learned yet, or
                the learner's predictions are not made by functions that JAX can trace.
            WriteError: the file system refuses; the folder does not exist.
        """
        task = None if task is None else self._words.key(task)
        worker, layout = self._begun()
        adapted, datapoints = self._adapted(NOT_STORED if task is None else task, worker, layout)
        self._words.export(Path(folder), adapted, layout, {"task": task, "datapoints": datapoints})

    def warm_up(self) -> None:
        """Compile what the first predictions need, before anybody waits for them.

        Raises:
            UserError: nothing was learned yet, and no example was given.
        """
        worker, layout = self._begun()
        one = layout.example()
        for data in (one[:0], one, one[np.zeros(FEW + 1, int)]):  # sizes that most tasks have
            adapted, _ = self.learner.adapt(self.problem, worker.published.state, NOT_STORED, data)
            self._words.outputs(adapted, one.inputs)

    # Looking and keeping

    def tasks(self) -> Mapping[TaskKey, int]:
        """The tasks that have datapoints, and how many each."""
        self._check_open()
        self._store.refresh()
        return self._store.tasks()

    @property
    def layout(self) -> Layout | None:
        """What every datapoint holds; None: nothing was learned yet, and no example was given."""
        return self._layout

    def status(self) -> Status:
        """How much is stored, learned and used by predictions, and whether learning goes on."""
        self._check_open()
        tasks, stored, worker = self._store.tasks(), self._store.last, self._worker
        learned, served = (0, 0) if worker is None else (worker.progress.sequence, worker.published.sequence)
        saved = self._kept.shelf.saved_at()
        return Status(len(tasks), sum(tasks.values()), stored, learned, served, saved, self.failed)

    def score(self) -> Standing:
        """How good predictions were, each datapoint judged before it was learned, of all that is learned by now."""
        self._check_open()
        score = Prequential(self._window) if self._worker is None else self._worker.progress.score
        return score.standing(self.problem)

    def forget(self, task: TaskKey) -> Forgotten:
        """Remove the datapoints of a task: from predictions at once, and on return from log and snapshots.

        It waits until what came before is learned. What the datapoints taught may still be in the learner's weights,
        and sums over all in `score`: the result says so. Learners that are not of this package, and those with a head
        for each task, learn the rest of the log anew, which leaves nothing.

        Raises:
            UserError: the task is not known, or learning ended by an error.
            WriteError: the file system refuses; what is left to do is done when it is asked again to save, or opened.
        """
        task = self._words.key(task)
        worker, _ = self._begun()
        worker.check()
        sequence, datapoints = self._store.forget(task)
        self._cache.drop(task)
        self._cache.drop((task, "datapoints"))
        worker.tell()
        worker.forgotten(sequence)
        return Forgotten(task, datapoints, not worker.progress.anew)

    def rebuild(self) -> None:
        """Learn the log anew, from its beginning, without all that was forgotten; predictions go on meanwhile.

        The weights are then, bit for bit, those of a learner that never saw it.

        Raises:
            UserError: learning ended by an error.
        """
        worker, _ = self._begun()
        if isinstance(worker, Follower):
            worker.ask("rebuild")
        else:
            worker.ask(worker.rebuild)

    def save(self) -> None:
        """Write a snapshot now. There is one now and then, and on `close`.

        Raises:
            UserError: the learner's state is not a tree of arrays, numbers and strings, or changes its form: it is
                learned anew from the log whenever it is opened.
            WriteError: the file system refuses.
        """
        worker, _ = self._begun()
        if isinstance(worker, Follower):
            worker.ask("save")
        else:
            worker.ask(partial(worker.save, required=True))

    def backup(self, folder: str | Path) -> None:
        """Write a copy, which can be opened, to a new folder, while all goes on.

        Raises:
            UserError: the folder exists and is not empty.
            WriteError: the file system refuses.
        """
        self._check_open()
        folder = Path(folder)
        copying.check_new(folder)
        copy = partial(copying.into_folder, self._kept, folder)
        if self._worker is None:
            copy()
        else:  # by the thread that writes snapshots, so that none goes while it is copied
            worker, _ = self._begun()
            if isinstance(worker, Follower):
                worker.refuse()
            worker.ask(copy)

    def close(self) -> None:
        """Stop learning, write a snapshot, and leave the folder to others. What is not learned yet stays in the log."""
        with self._beginning:
            closed, self._closed = self._closed, True
        if not closed:
            atexit.unregister(self.close)
            self._over.set()
            try:
                if self._worker is not None:
                    self._worker.close()
            finally:
                self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Within

    def _check_open(self) -> None:
        if self._closed:
            raise Ended(f"the learner in {self.place.name} is closed: open it by Live.open")

    def _begun(self) -> tuple[Worker | Follower, Layout]:
        """The worker and the layout.

        Raises:
            UserError: there is no datapoint or example yet, or the learner is closed.
        """
        self._check_open()
        if self._worker is None:
            self._look()
        if self._worker is None or self._layout is None:
            raise UserError("nothing was learned yet: learn a first datapoint, or give Live.create an example")
        return self._worker, self._layout

    def _begin(self, first: Batch) -> None:
        """Let a first batch show the layout of all.

        Raises:
            ValueError: it does not fit the problem.
        """
        self._check_open()
        layout = _first_layout(self.problem, first)
        self._course(layout).begin()  # before anything is stored: a learner may refuse
        self._store.set_about("layout", layout.as_json)  # unless another process was first
        self._resume()

    def _resumed(self) -> Self:
        """Itself, going on; closed, if it cannot, as nobody else has it yet."""
        try:
            self._resume()
        except BaseException:
            self.close()
            raise
        return self

    def _resume(self) -> None:
        """Go on from the newest sound snapshot, once it is known what datapoints are like."""
        if (told := self._store.about("layout")) is not None:
            self._work(self._course(Layout(**told)))
        elif self._looking.ident is None:
            self._looking.start()

    def _look(self) -> None:
        """Begin, if another process stored a first datapoint meanwhile."""
        with self._beginning:
            if self._worker is None and not self._closed:
                self._resume()

    def _look_often(self) -> None:
        while self._worker is None and not self._over.wait(LOOK):
            try:
                self._look()
            except UserError as error:  # the database did not answer, or it is closed
                _log.warning("%s", error)

    def _course(self, layout: Layout) -> Course:
        return Course(self.problem, self.learner, layout, self._store, self._seed, self._window)

    def _work(self, course: Course) -> None:
        self._classes = classes(self.problem, course.layout)
        _, shelf, lease = self._kept
        if self.learns:
            worker: Worker | Follower = Worker(course, shelf, lease, keeping.newest(course, shelf), self._pace)
        else:
            worker = Follower(course, shelf, partial(self.place.learned_by, self._store), self._pace, self.learning)
        worker.start()
        self._layout, self._worker = course.layout, worker  # who finds the one finds the other

    def _adapted(self, task: TaskKey, worker: Worker | Follower, layout: Layout) -> tuple[Adapted, int]:
        """What predicts a task, by the newest state and all of its datapoints; and how many these are."""
        self._store.refresh()
        known, published = self._store.known(task), worker.published
        version = known.last, published.version
        if (adapted := self._cache.get(task, version)) is None:
            if (data := self._cache.get((task, "datapoints"), known.last)) is None:
                data = layout.unpacked(self._store.of_task(task, known.last))
                self._cache.put((task, "datapoints"), known.last, data)
            adapted, _ = self.learner.adapt(self.problem, published.state, task, data)
            self._cache.put(task, version, adapted)
        return adapted, known.datapoints


def _first_layout(problem: Problem, first: Batch) -> Layout:
    """The layout of all datapoints, as a first batch shows it.

    Raises:
        ValueError: it does not fit the problem.
    """
    layout = Layout.of(first)
    check(problem, first, "the first datapoints")
    check_blind_to_padding(problem, first)
    return layout
