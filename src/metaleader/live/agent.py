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

import jax
import numpy as np

from metaleader.buffer import TaskKey
from metaleader.errors import UserError
from metaleader.files import contents
from metaleader.learners import Learner
from metaleader.live import keeping, settings
from metaleader.live.cache import Cache
from metaleader.live.course import Course
from metaleader.live.events import Acknowledged, Forgotten
from metaleader.live.follower import Follower
from metaleader.live.inputs import checked_ids, checked_key, classes
from metaleader.live.layout import Layout
from metaleader.live.prequential import Prequential, Standing
from metaleader.live.settings import Unit
from metaleader.live.worker import LOOK, Pace, Worker
from metaleader.problem import CrossEntropy, Problem
from metaleader.problem.batch import Batch, Examples
from metaleader.problem.problem import check, check_blind_to_padding
from metaleader.streams.encoding import Target

if TYPE_CHECKING:
    from metaleader.live.place import Kept, Place

_log = logging.getLogger(__name__)

NOT_STORED = "\0not stored"  # the task of datapoints that are adapted to and not stored


@dataclass(frozen=True)
class Predictor:
    """Predicts for one task, from the datapoints it was adapted to; see `Live.adapt`."""

    answer: Callable[[Any], Any]

    def predict(self, x: Examples) -> Any:
        """As `Live.predict`."""
        return self.answer(x)


class Live:
    """A learner that keeps all it is told in a folder or database, learns in the background, and predicts meanwhile.

    A datapoint that `learn` acknowledged is on the disk. The learner meets all datapoints in one order, those of one
    call together; where it stands is a function of that order, so that a learner that was killed arrives, once it is
    opened again, at the same weights, bit for bit, on the same machine and versions of packages. A prediction
    for a task adapts the newest state to all datapoints of the task that were acknowledged; it waits for no learning.

    All methods may be called by several threads at once. One process at a time may have it open to learn; others may
    follow it (`follow`).

    >>> import tempfile, metaleader as ml
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
        self, place: Place, problem: Problem, learner: Learner, kept: Kept, pace: Pace, stack: ExitStack, learns: bool
    ) -> None:
        """Not to be called: see `create`, `open` and `follow`."""
        self.place, self.problem, self.learner, self.learns = place, problem, learner, learns
        self._kept, self._store, self._stack = kept, kept.store, stack
        told = self._store.about("settings")
        self._seed, self._window = told["seed"], told["window"]
        unit = told["unit"]
        self.unit = None if unit is None else Unit(unit["name"], tuple(unit["classes"]), unit["mean"], unit["scale"])
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
        target: Target | None = None,
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
            target: of a table (`Table.target`), whose unit, or names of classes, are then those of targets and
                predictions.
            example: a batch with the shapes and types of the data to come; None: the first datapoints show them.
            window: over how many of the newest datapoints `score` takes its recent means.
            pace: how much learning and keeping may take; None: the defaults of `Pace`.

        Raises:
            UserError: the folder holds something already, or another process has it.
            WriteError: the file system or the database refuses.
        """
        place, pace = keeping.place(folder), pace or Pace()
        if window < 1:
            raise UserError(f"window must be at least 1, got {window}")
        about: dict[str, Any] = {}
        if example is not None:
            about["layout"] = _first_layout(problem, Batch.of(example.inputs, example.targets)).as_json
        with ExitStack() as stack:
            unit = None if target is None else Unit.of(target)
            about["settings"] = settings.settings(problem, learner, seed, window, unit)
            kept = stack.enter_context(place.created(about, pace.lease))
            live = cls(place, problem, learner, kept, pace, stack.pop_all(), learns=True)
        live._resume()
        return live

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

        Raises:
            UserError: as `open`, but for another process that has it.
        """
        place = keeping.place(folder)
        return cls._entered(place, place.followed(), problem, learner, pace or Pace(), learns=False)

    @classmethod
    def _entered(
        cls,
        place: Place,
        context: AbstractContextManager[Kept],
        problem: Problem | None,
        learner: Learner | None,
        pace: Pace,
        learns: bool,
    ) -> Live:
        """The learner that is there, once its settings are found to be the same."""
        with ExitStack() as stack:
            kept = stack.enter_context(context)
            stored = kept.store.about("settings")
            if problem is None or learner is None:
                built = settings.problem_and_learner(place.name, stored)
                problem, learner = problem or built[0], learner or built[1]
            now = settings.settings(problem, learner, stored["seed"], stored["window"], None)
            settings.check_same(place.name, stored, {**now, "unit": stored["unit"]})
            live = cls(place, problem, learner, kept, pace, stack.pop_all(), learns)
        live._resume()
        return live

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

    # Learning

    def learn(self, task: TaskKey, x: Examples, y: Examples, ids: Sequence[str] | None = None) -> Acknowledged:
        """Take datapoints of a task, which are learned together; returns once they are on the disk, not yet learned.

        Args:
            task: which: an integer or a string.
            x: inputs, an array `(n, ...)` or a pytree of such arrays.
            y: targets, likewise; in the target's unit, where a table's target was given.
            ids: a name for each, unique within the task: a datapoint whose name is known, with the same content, is
                acknowledged again and counts once. Until a task is forgotten, as its ids are as well. None: random.

        Raises:
            ValueError: they are of another structure, shape or type than those before, not finite, or labels of no
                class; an id is known with other content. Nothing is stored.
            WriteError: the file system refuses; nothing is stored.
            UserError: learning ended by an error, or the learner is closed.
        """
        self._check_open()
        task, batch = checked_key(task), self._encoded(x, y)
        names = [secrets.token_hex(16) for _ in range(len(batch))] if ids is None else checked_ids(ids, len(batch))
        if self._layout is None:
            with self._beginning:
                if self._layout is None:
                    self._begin(batch)
        worker, layout = self._begun()
        self._check(batch, layout)
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

    # Predicting

    def predict(self, task: TaskKey, x: Examples) -> Any:
        """Predictions for inputs of a task: `(n, classes)` probabilities with `CrossEntropy`, otherwise outputs.

        For a task without datapoints they are those of the learner before any (zero-shot). Outputs are in the target's
        unit, where a table's target was given.

        Args:
            task: which.
            x: inputs, as in `learn`.

        Raises:
            ValueError: the inputs are of another structure, shape or type than those learned from, or not finite.
            UserError: nothing was learned from yet, and no example was given.
        """
        task = checked_key(task)
        worker, layout = self._begun()
        inputs = layout.questions(x)
        self._store.refresh()
        known = self._store.known(task)
        published = worker.published
        version = known.last, published.version
        if (adapted := self._cache.get(task, version)) is None:
            data = layout.unpacked(self._store.of_task(task, known.last))
            adapted, _ = self.learner.adapt(self.problem, published.state, task, data)
            self._cache.put(task, version, adapted)
        return self._decoded(self.learner.predict(self.problem, adapted, inputs))

    def adapt(self, x: Examples, y: Examples) -> Predictor:
        """What predicts a task that has these datapoints; nothing is stored, and nothing learned.

        Raises:
            ValueError: as `learn` does.
        """
        worker, layout = self._begun()
        batch = self._encoded(x, y)
        self._check(batch, layout)
        data = layout.unpacked(layout.packed(batch))  # as if it had been stored
        adapted, _ = self.learner.adapt(self.problem, worker.published.state, NOT_STORED, data)
        return Predictor(lambda x: self._decoded(self.learner.predict(self.problem, adapted, layout.questions(x))))

    # Looking and keeping

    def tasks(self) -> Mapping[TaskKey, int]:
        """The tasks that have datapoints, and how many each."""
        self._check_open()
        self._store.refresh()
        return self._store.tasks()

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
        task = checked_key(task)
        worker, _ = self._begun()
        worker.check()
        sequence, datapoints = self._store.forget(task)
        self._cache.drop(task)
        worker.tell()
        worker.forgotten(sequence)
        return Forgotten(task, datapoints, not worker.progress.anew)

    def rebuild(self) -> None:
        """Learn the log anew, from its beginning, without all that was forgotten; predictions go on meanwhile.

        The weights are then, bit for bit, those of a learner that never saw it.

        Raises:
            UserError: learning ended by an error.
        """
        worker = self._learning()
        worker.ask(worker.rebuild)

    def save(self) -> None:
        """Write a snapshot now. There is one now and then, and on `close`.

        Raises:
            UserError: the learner's state is not a tree of arrays, numbers and strings, or changes its form: it is
                learned anew from the log whenever it is opened.
            WriteError: the file system refuses.
        """
        worker = self._learning()
        worker.ask(partial(worker.save, required=True))

    def backup(self, folder: str | Path) -> None:
        """Write a copy, which can be opened, to a new folder, while all goes on.

        Raises:
            UserError: the folder exists and is not empty.
            WriteError: the file system refuses.
        """
        self._check_open()
        folder = Path(folder)
        if contents(folder):
            raise UserError(f"{folder} exists already: choose a new folder for the back-up")
        copy = partial(keeping.copy, self._store, self._kept.shelf, folder)
        if self._worker is None:
            copy()
        else:  # by the thread that writes snapshots, so that none goes while it is copied
            self._learning().ask(copy)

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
            raise UserError(f"the learner in {self.place.name} is closed: open it by Live.open")

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

    def _learning(self) -> Worker:
        """The worker.

        Raises:
            UserError: another process has it; or there is none, as in `_begun`.
        """
        worker, _ = self._begun()
        if isinstance(worker, Follower):
            worker.refuse()
        return worker

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

    def _resume(self) -> None:
        """Go on from the newest sound snapshot, once it is known what datapoints are like."""
        try:
            if (told := self._store.about("layout")) is not None:
                self._work(self._course(Layout(**told)))
            elif self._looking.ident is None:
                self._looking.start()
        except BaseException:
            self.close()
            raise

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
            worker = Follower(course, shelf, partial(self.place.learned_by, self._store), self._pace)
        worker.start()
        self._layout, self._worker = course.layout, worker  # who finds the one finds the other

    def _encoded(self, x: Examples, y: Examples) -> Batch:
        """Datapoints as the learner sees them.

        Raises:
            ValueError: they are none.
        """
        return Batch.of(x, y if self.unit is None else self.unit.encoded(y))

    def _check(self, batch: Batch, layout: Layout) -> None:
        """Make sure that datapoints are like all others.

        Raises:
            ValueError: they are not.
        """
        layout.check(batch)
        if isinstance(self.problem.loss, CrossEntropy) and self._classes is not None:
            self.problem.loss.check(self._classes, batch.targets)

    def _decoded(self, outputs: Any) -> Any:
        """Outputs of the learner as predictions, on the host."""
        if isinstance(self.problem.loss, CrossEntropy):
            outputs = jax.nn.softmax(outputs, axis=-1)
        outputs = jax.tree.map(np.asarray, outputs)
        return outputs if self.unit is None else self.unit.decoded(outputs)


def _first_layout(problem: Problem, first: Batch) -> Layout:
    """The layout of all datapoints, as a first batch shows it.

    Raises:
        ValueError: it does not fit the problem.
    """
    layout = Layout.of(first)
    check(problem, first, "the first datapoints")
    check_blind_to_padding(problem, first)
    return layout
