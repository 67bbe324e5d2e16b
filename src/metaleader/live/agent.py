"""A learner that lives: told datapoints of tasks that come and go, asked for predictions all the while."""

from __future__ import annotations

import atexit
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
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
from metaleader.live.course import Course, Progress
from metaleader.live.events import Acknowledged, Ended, Forgotten, Status
from metaleader.live.inputs import checked_ids, checked_key, classes
from metaleader.live.layout import Layout
from metaleader.live.prequential import Prequential, Standing
from metaleader.live.settings import Unit
from metaleader.live.worker import Pace, Worker
from metaleader.problem import CrossEntropy, Problem
from metaleader.problem.batch import Batch, Examples
from metaleader.problem.problem import check, check_blind_to_padding
from metaleader.processes import owned_for_results
from metaleader.streams.encoding import Target

if TYPE_CHECKING:
    from metaleader.live.store import Store

NOT_STORED = "\0not stored"  # the task of datapoints that are adapted to and not stored


@dataclass(frozen=True)
class Predictor:
    """Predicts for one task, from the datapoints it was adapted to; see `Live.adapt`."""

    answer: Callable[[Any], Any]

    def predict(self, x: Examples) -> Any:
        """As `Live.predict`."""
        return self.answer(x)


class Live:
    """A learner that keeps all it is told in a folder, learns in the background, and predicts meanwhile.

    A datapoint that `learn` acknowledged is on the disk. The learner meets all datapoints in one order, those of one
    call together; where it stands is a function of that order, so that a learner that was killed arrives, once it is
    opened again, at the same weights, bit for bit, on the same machine and versions of packages. A prediction
    for a task adapts the newest state to all datapoints of the task that were acknowledged; it waits for no learning.

    All methods may be called by several threads at once. One process at a time may have the folder open.

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
        self, folder: Path, problem: Problem, learner: Learner, store: Store, pace: Pace, stack: ExitStack
    ) -> None:
        """Not to be called: see `create` and `open`."""
        self.folder, self.problem, self.learner = folder, problem, learner
        self._store, self._stack = store, stack
        told = store.about("settings")
        self._seed, self._window = told["seed"], told["window"]
        unit = told["unit"]
        self.unit = None if unit is None else Unit(unit["name"], tuple(unit["classes"]), unit["mean"], unit["scale"])
        self._pace, self._cache, self._beginning = pace, Cache(pace.cache_bytes), threading.Lock()
        self._layout: Layout | None = None
        self._classes: int | None = None
        self._worker: Worker | None = None
        self._closed = False
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
        """A new learner in a folder.

        Args:
            folder: which; made if need be.
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
            WriteError: the file system refuses.
        """
        folder = Path(folder)
        if window < 1:
            raise UserError(f"window must be at least 1, got {window}")
        about: dict[str, Any] = {}
        if example is not None:
            about["layout"] = _first_layout(problem, Batch.of(example.inputs, example.targets)).as_json
        with ExitStack() as stack:
            stack.enter_context(owned_for_results(folder))
            if any(path.name.removesuffix("-wal").removesuffix("-shm") != keeping.LOG for path in contents(folder)):
                raise UserError(f"{folder} holds other files: choose a new folder for the learner")
            unit = None if target is None else Unit.of(target)
            about["settings"] = settings.settings(problem, learner, seed, window, unit)
            store = keeping.logs().create(folder / keeping.LOG, about)
            stack.callback(store.close)
            live = cls(folder, problem, learner, store, pace or Pace(), stack.pop_all())
        live._resume()
        return live

    @classmethod
    def open(
        cls,
        folder: str | Path,
        problem: Problem | None = None,
        learner: Learner | None = None,
        *,
        pace: Pace | None = None,
    ) -> Live:
        """The learner in a folder, as it was when it was last closed, or when its process was killed.

        It begins from the newest sound snapshot, and learns in the background what came after it.

        Args:
            folder: which.
            problem: what it was created with; None: that is made of classes and functions of this package alone.
            learner: likewise.
            pace: as in `create`.

        Raises:
            UserError: there is no learner, it was created with another problem or learner, these are not told by the
                folder, or another process has it.

        Warns:
            RuntimeWarning: a snapshot is damaged; the log tells the same.
        """
        folder = Path(folder)
        if not (folder / keeping.LOG).exists():
            raise UserError(f"{folder} holds no learner: make one by Live.create")
        with ExitStack() as stack:
            stack.enter_context(owned_for_results(folder))
            store = keeping.logs().open(folder / keeping.LOG)
            stack.callback(store.close)
            stored = store.about("settings")
            if problem is None or learner is None:
                built = settings.problem_and_learner(folder, stored)
                problem, learner = problem or built[0], learner or built[1]
            now = settings.settings(problem, learner, stored["seed"], stored["window"], None)
            settings.check_same(folder, stored, {**now, "unit": stored["unit"]})
            live = cls(folder, problem, learner, store, pace or Pace(), stack.pop_all())
        live._resume()
        return live

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

        Raises:
            UserError: learning ended by an error, or took longer than `timeout` seconds.
        """
        self._check_open()
        if self._worker is not None:
            self._worker.wait(self._store.last, timeout)

    @property
    def backlog(self) -> int:
        """About how many datapoints are acknowledged, but not yet learned."""
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
        inputs, known = layout.questions(x), self._store.known(task)
        published = worker.published
        version = known.last, published.version
        if (adapted := self._cache.get(task, version)) is None:
            data = self._cache.get((task, "datapoints"), known.last)
            if data is None:
                data = layout.unpacked(self._store.of_task(task, known.last))
                self._cache.put((task, "datapoints"), known.last, data)
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
        failed = worker is not None and worker.failed
        saved = keeping.saved_at(self.folder)
        return Status(len(tasks), sum(tasks.values()), stored, learned, served, saved, failed)

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
        self._cache.drop((task, "datapoints"))
        worker.tell()
        worker.wait(sequence, None)
        worker.ask(worker.finish_forgetting)
        return Forgotten(task, datapoints, not worker.progress.anew)

    def rebuild(self) -> None:
        """Learn the log anew, from its beginning, without all that was forgotten; predictions go on meanwhile.

        The weights are then, bit for bit, those of a learner that never saw it.

        Raises:
            UserError: learning ended by an error.
        """
        worker, _ = self._begun()
        worker.ask(worker.rebuild)

    def save(self) -> None:
        """Write a snapshot now. There is one now and then, and on `close`.

        Raises:
            UserError: the learner's state is not a tree of arrays, numbers and strings, or changes its form: it is
                learned anew from the log whenever it is opened.
            WriteError: the file system refuses.
        """
        worker, _ = self._begun()
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
        copy = partial(keeping.copy, self._store, self.folder, folder)
        if self._worker is None:
            copy()
        else:  # by the thread that writes snapshots, so that none goes while it is copied
            self._worker.ask(copy)

    def close(self) -> None:
        """Stop learning, write a snapshot, and leave the folder to others. What is not learned yet stays in the log."""
        if not self._closed:
            self._closed = True
            atexit.unregister(self.close)
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
            raise Ended(f"the learner in {self.folder} is closed: open it by Live.open")

    def _begun(self) -> tuple[Worker, Layout]:
        """The worker and the layout.

        Raises:
            UserError: there is no datapoint or example yet, or the learner is closed.
        """
        self._check_open()
        if self._worker is None or self._layout is None:
            raise UserError("nothing was learned yet: learn a first datapoint, or give Live.create an example")
        return self._worker, self._layout

    def _begin(self, first: Batch) -> None:
        """Let a first batch show the layout of all.

        Raises:
            ValueError: it does not fit the problem.
        """
        self._check_open()
        course = self._course(_first_layout(self.problem, first))
        progress = course.begin()  # before anything is stored: a learner may refuse
        self._store.set_about("layout", course.layout.as_json)
        self._work(course, progress)

    def _resume(self) -> None:
        """Go on from the newest sound snapshot, if it is known what datapoints are like."""
        try:
            if (told := self._store.about("layout")) is not None:
                course = self._course(Layout(**told))
                self._work(course, keeping.newest(course, self.folder))
        except BaseException:
            self.close()
            raise

    def _course(self, layout: Layout) -> Course:
        return Course(self.problem, self.learner, layout, self._store, self._seed, self._window)

    def _work(self, course: Course, progress: Progress) -> None:
        self._classes = classes(self.problem, course.layout)
        self._worker = Worker(course, self.folder, progress, self._pace)
        self._layout = course.layout
        self._worker.start()

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
