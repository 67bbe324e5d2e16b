"""The contest on a table: every candidate is searched on the first tasks, then plays the whole stream."""

from __future__ import annotations

import gc
import itertools
import math
import pickle
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float64

from metaleader import devices
from metaleader.assess.candidates import Candidate, candidates
from metaleader.assess.stored import Stored
from metaleader.errors import UserError, failure, unknown
from metaleader.experiments.settings import replaced_in
from metaleader.online import OnlineProtocol, Record, begin, resume
from metaleader.online.protocol import peeked
from metaleader.processes import own_memory, release_memory
from metaleader.runs.workers import LocalWorkers, stop_if_asked
from metaleader.streams.task import Task

NICE = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # sizes to report
SIZES = 5  # of them, at most, besides none and all
REACHED = 0.8  # share of tasks that a size is reached by
SEARCHED = 24  # first tasks that a search plays, at most
FORGET = 32  # tasks, more than a search plays, after which memory is looked at; then after twice as many
ROOM = 220_000_000  # bytes of its own that a process may hold on to; it keeps what it compiled while it holds less
LARGE = 20_000  # rows, from which on one order must do
END = -1  # stands for all datapoints of a task in a table of sizes
Show = Callable[[str, float, float], None]


@dataclass(frozen=True)
class Setup:
    """What is played.

    Attributes:
        tasks: of the table.
        sizes: of D_t at which learners are judged, rising; `END` last, where there are held-out rows.
        trials: settings of each candidate to try, at most; the first are its defaults.
        seeds: orders of the tasks and draws of the learners' weights.
        learners: names of those that compete.
    """

    tasks: Stored
    sizes: tuple[int, ...]
    trials: int
    seeds: int
    learners: tuple[str, ...]

    @property
    def protocol(self) -> OnlineProtocol:
        """Datapoints arrive up to the sizes."""
        sizes = tuple(size for size in self.sizes if size != END)
        return OnlineProtocol(evaluate_at=sizes, arrive_at=tuple(size for size in sizes if size))

    @cached_property
    def candidates(self) -> dict[str, Candidate]:
        """Who competes."""
        known = candidates(self.tasks, len(self.sizes) * len(self.tasks.names))
        return {name: known[name] for name in self.learners}

    @property
    def judged(self) -> list[str]:
        """Names of the tasks that the answer is about: those after the first ones, with rows for every size."""
        found = list(zip(self.tasks.names, self.tasks.judged_up_to, strict=True))[self.tasks.first :]
        return [name for name, rows in found if rows >= max(self.sizes)]


def setup(
    tasks: Stored,
    sizes: Sequence[int] = (),
    trials: int = 8,
    seeds: int | None = None,
    learners: Sequence[str] = (),
) -> Setup:
    """Check, and choose what was left open.

    Args:
        tasks: of the table.
        sizes: of a task at which to judge; none: 0 and up to `SIZES` that most tasks reach.
        trials: see `Setup`.
        seeds: see `Setup`; None: 1 where time orders the tasks or they are large, otherwise 3.
        learners: see `Setup`; none: all that there are.

    Raises:
        UserError: a size that too few tasks reach; fewer than one trial or seed; an unknown learner, or too few to
            compare: one across tasks and one of a task alone are needed.
    """
    for name, value in (("trials", trials), ("seeds", seeds)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    lengths = np.array(tasks.judged_up_to[tasks.first :])
    if len(lengths) < 2:
        raise UserError(
            f"{len(lengths)} tasks come after the first {tasks.first}, on which settings are searched; at least 2 "
            "must: choose fewer first tasks, or group by a column of more values"
        )
    reached = math.floor(np.quantile(lengths, 1 - REACHED))
    if not sizes:
        fitting = [size for size in NICE if size <= reached]
        chosen = [0, *fitting[-SIZES:]]
    else:
        chosen = sorted(set(sizes))
        if chosen[0] < 0 or (lengths >= chosen[-1]).sum() < 2:
            raise UserError(
                f"sizes must be numbers of rows from 0 that at least two tasks after the first {tasks.first} have; got "
                f"{', '.join(map(str, chosen))}, and most of those tasks have {reached} rows to learn from"
            )
    end = [END] if tasks.held_out is not None else []
    if seeds is None:
        seeds = 3 if tasks.shuffled and lengths.sum() <= LARGE else 1
    everyone = candidates(tasks, 1)
    for name in learners:
        if name not in everyone:
            raise UserError(unknown("learner", name, everyone))
    named = tuple(dict.fromkeys(learners)) or tuple(everyone)
    for across, what in ((True, "across tasks"), (False, "of one task alone")):
        if not any(everyone[name].across == across for name in named):
            there_are = ", ".join(name for name, each in everyone.items() if each.across == across)
            raise UserError(f"no learner {what} was chosen: add one of {there_are}")
    return Setup(tasks, (*chosen, *end), trials, seeds, named)


class Job(NamedTuple):
    """A candidate with settings on a stream.

    Attributes:
        setup: what is played.
        name: of the candidate.
        settings: that differ from its own.
        seed: of the order and of the learner.
        searching: play the first tasks only.
    """

    setup: Setup
    name: str
    settings: Mapping[str, Any]
    seed: int
    searching: bool


class Played(NamedTuple):
    """What a job found.

    Attributes:
        errors: by task and size; infinite where the learner's prediction was not finite, NaN where the task has not so
            many rows.
        gradients: per-example gradients in learning and adapting.
        learning: seconds in learning.
        predicting: seconds in adapting and predicting.
        failed: why it ended early; empty if it did not.
        judged: how often it adapted and predicted.
        state_bytes: of what it has learned, its buffer included; 0 where it failed.
    """

    errors: Mapping[str, tuple[float, ...]]
    gradients: int
    learning: float
    predicting: float
    failed: str = ""
    judged: int = 0
    state_bytes: int = 0


def perform(job: Job, cores: int) -> Played:
    """Play a job, in a worker process."""
    devices.start(cores)
    try:
        return _play(job.setup, job, _forget)
    finally:
        _forget()
        gc.freeze()  # what is left stays, mostly modules: to look through it all again takes a seventh of a second


def _forget() -> None:
    """Give memory back, and where that leaves too much taken, forget what was compiled.

    To trace and compile is most of the work of a short search, and trials share much of it. But programs for other
    settings or fewer datapoints serve no more, and fill the memory.
    """
    release_memory()
    taken = own_memory()
    if taken is None or taken > ROOM:
        jax.clear_caches()
        release_memory()


def _play(given: Setup, job: Job, forget: Callable[[], None] = lambda: None) -> Played:
    candidate = given.candidates[job.name]
    tasks: Iterable[Task] = given.tasks.stream(job.seed)
    if job.searching:
        tasks = itertools.islice(iter(tasks), min(given.tasks.first, SEARCHED))
    errors: dict[str, dict[int, float]] = {}
    last: Record | None = None
    failed, due, judged, state_bytes = "", FORGET, 0, 0
    lower_is_better = not given.tasks.score.higher_is_better
    try:
        learner = with_settings(candidate.learner, job.settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that it diverged is in the records
            first, tasks = peeked(tasks)
            state = begin(candidate.problem, learner, first, job.seed)
            for reached, record in resume(candidate.problem, tasks, learner, given.protocol, state):
                state = reached
                if record is None:
                    continue
                stop_if_asked()
                if record.round >= due:
                    due *= 2
                    forget()
                last = record
                none = math.nan if last.undefined else math.inf
                score = none if last.score is None else last.score if lower_is_better else 1 - last.score
                errors.setdefault(last.task, {})[last.datapoints] = score
            judged, state_bytes = state.records, size_of(state.learner)
    except Exception as error:  # one learner's failure is its own result
        failed = failure(error)
    if last is None:
        return Played({}, 0, 0.0, 0.0, failed or "nothing was judged")
    if not failed and last.diverged:
        failed = "diverged"
    return Played(
        {task: _at(found, given.sizes) for task, found in errors.items()},
        last.gradient_evaluations,
        last.train_seconds,
        last.evaluation_seconds,
        failed,
        judged,
        state_bytes,
    )


def size_of(state: Any) -> int:
    """Bytes of a learner's state: of its arrays, and of other objects about as many as they take when written."""
    leaves = jax.tree.leaves(state)
    return sum(leaf.nbytes if isinstance(leaf, (np.ndarray, jax.Array)) else len(pickle.dumps(leaf)) for leaf in leaves)


def _at(found: Mapping[int, float], sizes: Sequence[int]) -> tuple[float, ...]:
    """The values at the sizes; at `END`, that of the largest."""
    return tuple(found[max(found)] if size == END else found.get(size, math.nan) for size in sizes)


def with_settings(learner: Any, settings: Mapping[str, Any]) -> Any:
    """The learner with other values of settings, by dotted names."""
    for name, value in settings.items():
        learner = replaced_in(learner, name.split("."), value)
    return learner


@dataclass(frozen=True)
class Contest:
    """What was found.

    Attributes:
        setup: what was played.
        chosen: settings of each candidate that the search chose, where they differ from its own.
        trials: how many settings of each were tried.
        searching: seconds that took, for each, in its process.
        errors: `(candidates, tasks, sizes)`: means over the seeds, infinite where a learner failed or diverged.
        played: what each candidate's runs on the whole stream found, by seed.
    """

    setup: Setup
    chosen: Mapping[str, Mapping[str, Any]]
    trials: Mapping[str, int]
    searching: Mapping[str, float]
    errors: Float64[np.ndarray, "candidates tasks sizes"]
    played: Mapping[str, tuple[Played, ...]]


def settings_to_try(candidate: Candidate, trials: int) -> list[dict[str, Any]]:
    """The candidate's own settings, then others that are drawn without repetition; the same at every call."""
    names = list(candidate.searched)
    grid = [dict(zip(names, values, strict=True)) for values in itertools.product(*candidate.searched.values())]
    grid = [values for values in grid if with_settings(candidate.learner, values) != candidate.learner]
    drawn = np.random.default_rng(0).permutation(len(grid))[: trials - 1]
    return [{}, *(grid[i] for i in drawn)]


def contest(given: Setup, pool: LocalWorkers[Job, Played] | None = None, show: Show | None = None) -> Contest:
    """Search, then play.

    Args:
        given: what is played.
        pool: processes that play, by `perform`, and are ended; None: this process plays one job after another.
        show: is told what is being done, and how many jobs of how many are.

    Raises:
        KeyboardInterrupt: on Ctrl-C.
    """
    plan = Plan(given)
    try:
        _perform_all(plan, pool, show)
    finally:
        if pool is not None:
            pool.close()
    candidates = given.candidates
    finals = {name: tuple(plan.found[Place(name, False, seed)] for seed in range(given.seeds)) for name in candidates}
    return Contest(
        given,
        {name: plan.chosen(name) for name in candidates},
        {name: len(settings) for name, settings in plan.tried.items()},
        {name: plan.seconds(name) for name in candidates},
        np.stack([_mean([played.errors for played in finals[name]], given) for name in candidates]),
        finals,
    )


class Place(NamedTuple):
    """A job's place in the plan.

    Attributes:
        name: of the candidate.
        searching: whether it is a trial.
        number: of the trial; otherwise the seed.
    """

    name: str
    searching: bool
    number: int


class Plan:
    """Which job comes next, and what those so far found."""

    def __init__(self, given: Setup) -> None:
        self.given, self.found = given, dict[Place, Played]()
        self.tried = {name: settings_to_try(each, given.trials) for name, each in given.candidates.items()}
        self.waiting = [Place(name, True, i) for name, settings in self.tried.items() for i in range(len(settings))]
        self.waiting += [Place(name, False, seed) for name in self.tried for seed in range(given.seeds)]
        self.size = len(self.waiting)

    def next(self, after: str, playing: Collection[str]) -> Place | None:
        """Take what is most urgent of all that can be played now; None: what is left waits for searches to end.

        Args:
            after: the candidate that the process played last.
            playing: candidates that other processes play.
        """

        def urgency(place: Place) -> tuple[Any, ...]:
            """The least comes first: nets, one candidate after another, whose trials share what a process compiled.

            Of rivals the slowest ones come first, once all are searched, so that none is left to end alone.
            """
            name, searching, _ = place
            if self.given.candidates[name].rival:
                return True, not searching, 0.0 if searching else -self.seconds(name)
            return False, name != after, name in playing, not searching

        ready = [place for place in self.waiting if place.searching or self._searched(place.name)]
        if not ready:
            return None
        self.waiting.remove(place := min(ready, key=urgency))
        return place

    def _searched(self, name: str) -> bool:
        return all(Place(name, True, i) in self.found for i in range(len(self.tried[name])))

    def _trials(self, name: str) -> list[Played]:
        return [self.found[Place(name, True, i)] for i in range(len(self.tried[name]))]

    def seconds(self, name: str) -> float:
        """What a candidate's search took."""
        return sum(trial.learning + trial.predicting for trial in self._trials(name))

    def chosen(self, name: str) -> Mapping[str, Any]:
        """The settings that its search chose."""
        return self.tried[name][int(np.argmin([_searched_error(trial) for trial in self._trials(name)]))]

    def job(self, place: Place) -> Job:
        """The job at a place."""
        name, searching, number = place
        settings = self.tried[name][number] if searching else self.chosen(name)
        return Job(self.given, name, settings, 0 if searching else number, searching)


def _perform_all(plan: Plan, pool: LocalWorkers[Job, Played] | None, show: Show | None) -> None:
    """Play all jobs of a plan; one whose process died has failed."""

    def played(place: Place, one: Played) -> None:
        plan.found[place] = one
        if show:
            show(f"{'searching' if place.searching else 'judging'} {place.name}", len(plan.found), plan.size)

    running, last = dict[Future[Played], Place](), ""
    while plan.waiting or running:
        playing = {place.name for place in running.values()}
        while len(running) < (pool.slots if pool else 1) and (place := plan.next(last, playing)):
            if pool is None:
                played(place, _play(plan.given, plan.job(place)))
                last = place.name
            else:
                kind = "rivals" if plan.given.candidates[place.name].rival else "nets"
                running[pool.submit(plan.job(place), kind)] = place
                playing.add(place.name)
                last = ""
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            died = isinstance(future.exception(), BrokenExecutor)
            one = Played({}, 0, 0.0, 0.0, "its process ended, perhaps for want of memory") if died else future.result()
            played(place := running.pop(future), one)
            last = place.name


def _searched_error(trial: Played) -> float:
    """The error of a trial on the first tasks, less the third that came first; infinite if it failed.

    Means over tasks at each size are averaged geometrically, so that every size counts alike.
    """
    errors = np.array(list(trial.errors.values()))[len(trial.errors) // 3 :]
    return _geometric(errors) if len(errors) and not trial.failed else math.inf


def _geometric(errors: Float64[np.ndarray, "tasks sizes"]) -> float:
    means = np.nanmean(errors[:, ~np.isnan(errors).all(axis=0)], axis=0)
    return float(np.exp(np.log(np.maximum(means, 1e-12)).mean())) if np.isfinite(means).all() else math.inf


def _mean(of_seeds: Sequence[Mapping[str, tuple[float, ...]]], given: Setup) -> Float64[np.ndarray, "tasks sizes"]:
    nothing = (math.inf,) * len(given.sizes)
    return np.mean([[found.get(task, nothing) for task in given.judged] for found in of_seeds], axis=0)
