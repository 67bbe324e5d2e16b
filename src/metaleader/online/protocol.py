"""Online meta-learning, round by round (paper, section 3 and Algorithm 1)."""

from __future__ import annotations

import itertools
import math
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from metaleader import devices
from metaleader.buffer import TaskKey
from metaleader.buffer.store import task_id
from metaleader.learners import Learner
from metaleader.online.record import Record
from metaleader.problem.batch import Batch, check_alike, joined
from metaleader.problem.problem import Problem, check, check_blind_to_padding
from metaleader.streams.task import Task


@dataclass(frozen=True)
class OnlineProtocol:
    """Chunks, evaluation and stopping within a round.

    The learner sees a task's datapoints as they arrive. After they did, it is judged on the task's held-out data. A
    task without held-out data is judged on the datapoints to come, before the learner sees them (prequentially; Dawid,
    1984): there, `|D_t|` of a record does not count the datapoints that it was judged on.

    Raises:
        ValueError: `chunk` is not positive, sizes in `arrive_at` do not rise, a size in `evaluate_at` is none that D_t
            takes, `threshold` is not a finite number, or `evaluate_from` is not positive or given with `move_on`.

    Examples:
        >>> import metaleader as ml
        >>> chunks = ml.OnlineProtocol(chunk=20, evaluate_at=(0, 40))
        >>> sizes = ml.OnlineProtocol(arrive_at=(5, 20))
        >>> [chunks.arriving(arrived) for arrived in (0, 20, 40)], [sizes.arriving(arrived) for arrived in (0, 5, 20)]
        ([20, 20, 20], [5, 15, None])
        >>> [size for size in (0, 20, 40, 60) if chunks.judges_at(size)]
        [0, 40]
    """

    chunk: int = 10
    """n: how many datapoints arrive at a time."""
    evaluate_at: tuple[int, ...] = ()
    """Sizes of D_t at which the adapted parameters are judged, 0 among them for before the first datapoint; none:
    whenever datapoints arrive. The end of a round is always one of them, where there is held-out data."""
    threshold: float = 0.9
    """Proficiency gamma, in the unit of the score."""
    move_on: bool = False
    """End a round at proficiency. Otherwise every round takes all datapoints of its task."""
    arrive_at: tuple[int, ...] = ()
    """Datapoints arrive together up to each of these sizes of D_t, then all that are left; none: by chunks. Few rising
    sizes cost a learner of long tasks less than many chunks."""
    evaluate_from: int | None = None
    """The first round in which the learner is judged, counted from 1, where those before do not count; None: all are
    judged. What the learner learns is the same."""

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {self.chunk}")
        if not isinstance(self.threshold, (int, float)) or not math.isfinite(self.threshold):
            raise ValueError(f"threshold must be a finite number, a score of proficiency, got {self.threshold}")
        if tuple(self.arrive_at) != tuple(sorted({size for size in self.arrive_at if size > 0})):
            raise ValueError(f"arrive_at must hold rising sizes of D_t, from 1; got {self.arrive_at}")
        taken = f"sizes in arrive_at = {self.arrive_at}" if self.arrive_at else f"multiples of chunk = {self.chunk}"
        if self.evaluate_from is not None and self.evaluate_from < 1:
            raise ValueError(f"evaluate_from must be a round, from 1, or None; got {self.evaluate_from}")
        if self.evaluate_from is not None and self.move_on:
            raise ValueError("move_on needs every round judged, to end it at proficiency: leave evaluate_from out")
        if odd := [size for size in self.evaluate_at if not self._takes(size)]:
            raise ValueError(f"evaluate_at must hold {taken}, the sizes that D_t takes, or 0; got {odd}")

    def _takes(self, size: int) -> bool:
        if self.arrive_at:
            return size == 0 or size in self.arrive_at
        return size >= 0 and size % self.chunk == 0

    def arriving(self, arrived: int) -> int | None:
        """How many datapoints arrive next in a round in which so many did; None: all that are left."""
        if not self.arrive_at:
            return self.chunk
        return next((size - arrived for size in self.arrive_at if size > arrived), None)

    def judges_at(self, datapoints: int) -> bool:
        """Whether the learner is judged when D_t has that size."""
        return not self.evaluate_at or datapoints in self.evaluate_at

    def judges_in(self, number: int) -> bool:
        """Whether the learner is judged in the round of that number, from 1."""
        return self.evaluate_from is None or number >= self.evaluate_from


@dataclass(frozen=True)
class RunState:
    """Where a run stands: all that changes, so that it can go on.

    Attributes:
        learner: the learner's state.
        round: the rounds completed.
        datapoints: how many arrived in the round under way.
        records: how many were made.
        finite: whether any record of this round had a finite loss; None: there is no record yet.
        proficient: whether the learner became so in this round, which ends with the datapoints that arrive next.
        learning_evaluations: per-example gradients taken by `observe`.
        adapting_evaluations: per-example gradients taken by `adapt`.
        train_seconds: wall time in `observe`.
        evaluation_seconds: wall time in `adapt` and judging.
        judged: whether the learner was judged since datapoints last arrived.
        diverged: whether the run ended since the learner no longer gives finite losses.
        arrived: how many datapoints arrived in each completed round of a task with a key.
        earlier: those datapoints, of each such task, which may come back: by `task_id`.
        first: checksum of the first task, of a run that may go on: by it, it can tell whether its stream is the same.

    Examples:
        >>> import metaleader as ml
        >>> problem, learner = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error), ml.TOE(1)
        >>> stream, protocol = ml.Sinusoid(2, 20, 10).stream(0), ml.OnlineProtocol(10)
        >>> start = ml.begin(problem, learner, stream[0])
        >>> reached = [state for state, _ in ml.resume(problem, stream, learner, protocol, start)]
        >>> [(state.round, state.datapoints, state.records) for state in reached]
        [(0, 10, 1), (1, 0, 2), (1, 10, 3), (2, 0, 4)]
    """

    learner: Any
    round: int = 0
    datapoints: int = 0
    records: int = 0
    finite: bool | None = None
    proficient: bool = False
    learning_evaluations: int = 0
    adapting_evaluations: int = 0
    train_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    judged: bool = False
    diverged: bool = False
    arrived: tuple[int, ...] = ()
    earlier: Mapping[int, Batch] = field(default_factory=dict)
    first: str = ""


def begin(problem: Problem, learner: Learner, first: Task, seed: int = 0) -> RunState:
    """Before the first round: w_1 drawn by `seed`, for data like the first task's.

    Raises:
        ValueError: the task does not fit the problem (see `problem.check`), or what the model says of an example
            depends on padding.

    Examples:
        >>> import metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> state = ml.begin(problem, ml.FTML(), ml.Sinusoid().stream(0)[0], seed=3)
        >>> state.round, state.datapoints, state.learner.buffer.size
        (0, 0, 0)
    """
    check(problem, first.train, "round 1, training data")
    check_blind_to_padding(problem, first.train)
    return RunState(learner.init(problem, jax.random.key(seed), first.train))


def play(
    problem: Problem,
    stream: Iterable[Task],
    learner: Learner,
    protocol: OnlineProtocol | None = None,
    seed: int = 0,
) -> Iterator[Record]:
    """Algorithm 1: meet the tasks of a stream one after another, and yield a record at every evaluation.

    Args:
        problem: what is learned: model, loss and scores.
        stream: the tasks, in order of arrival: a list, or anything that can be iterated over, without end if it likes;
            each task is asked for once, when its round comes.
        learner: which learner; it sees `task.train` as it arrives and never `task.test`.
        protocol: chunks, sizes at which to evaluate, proficiency.
        seed: of the learner's randomness. The same seed gives the same records, wall time aside.

    Raises:
        ValueError: the stream is empty, or a task does not fit the problem or the tasks before it.

    Warns:
        RuntimeWarning: the learner diverged, which ends the play.

    Examples:
        >>> import metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> stream = ml.Sinusoid(2, 20, 10).stream(0)
        >>> records = ml.play(problem, stream, ml.TOE(1), ml.OnlineProtocol(chunk=10))
        >>> [(record.round, record.datapoints) for record in records]
        [(1, 10), (1, 20), (2, 10), (2, 20)]
    """
    first, tasks = peeked(stream)
    state = begin(problem, learner, first, seed)
    for reached, record in resume(problem, tasks, learner, protocol or OnlineProtocol(), state):
        state = reached
        if record is not None:
            yield record
    if state.diverged:
        warnings.warn(
            f"the learner diverged: in round {state.round} no loss and score was finite, and the stream was left. Try "
            "smaller learning rates and step sizes, and inputs and targets scaled to about 1",
            RuntimeWarning,
            stacklevel=2,
        )


def peeked(stream: Iterable[Task]) -> tuple[Task, Iterator[Task]]:
    """The first task of a stream, and all of its tasks, that one included; none is asked for twice.

    Raises:
        ValueError: the stream is empty.
    """
    tasks = iter(stream)
    for first in tasks:
        return first, itertools.chain([first], tasks)
    raise ValueError("the stream holds no task: give at least one")


def resume(
    problem: Problem, tasks: Iterable[Task], learner: Learner, protocol: OnlineProtocol, state: RunState
) -> Iterator[tuple[RunState, Record | None]]:
    """Go on from `state`, chunk by chunk, with a record where the learner was judged.

    A learner whose losses were not finite for a whole round is stopped: its last record says `diverged`. A round in
    which it was not judged says nothing.

    Args:
        problem: see `play`.
        tasks: those to come: the one of the round under way first, if `state` is within a round.
        learner: see `play`.
        protocol: see `play`.
        state: where the run stands.

    Raises:
        ValueError: a task does not fit the problem or the tasks before it.

    Examples:
        >>> import metaleader as ml
        >>> problem, learner = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error), ml.TOE(1)
        >>> stream, protocol = ml.Sinusoid(3, 20, 10).stream(0), ml.OnlineProtocol(20)
        >>> start = ml.begin(problem, learner, stream[0])
        >>> *_, (state, first) = ml.resume(problem, stream[:1], learner, protocol, start)
        >>> rest = [record.loss for _, record in ml.resume(problem, stream[1:], learner, protocol, state)]
        >>> [first.loss, *rest] == [record.loss for record in ml.play(problem, stream, learner, protocol)]
        True
    """
    if state.diverged:
        return
    example: Batch | None = None
    for task in tasks:
        example = task.train if example is None else example
        _check(problem, task, example, state)
        for state, record in _round(problem, task, learner, protocol, state):  # noqa: B020 - goes on from the last one
            yield state, record
        if state.diverged:
            return


def _check(problem: Problem, task: Task, example: Batch, state: RunState) -> None:
    """Make sure that a task fits the problem, and that its data are like `example`, of the first task.

    Raises:
        ValueError: naming the round.
    """
    where = f"round {state.round + 1}{f' ({task.name})' if task.name else ''}"
    for data, what in ((task.train, "training data"), (task.test, "held-out data")):
        if data is not None:
            check(problem, data, f"{where}, {what}")
            try:
                check_alike(data, example, "the first training data holds")
            except ValueError as error:
                raise ValueError(f"{where}, {what}: {error}") from error


def _round(
    problem: Problem, task: Task, learner: Learner, protocol: OnlineProtocol, state: RunState
) -> Iterator[tuple[RunState, Record | None]]:
    """The rest of a round."""
    key = key_of(task, state.round + 1)
    earlier = None if task.key is None else state.earlier.get(task_id(key))

    def data(arrived: int) -> Batch:
        """D_t: what a task that came back had before, and what arrived of it in this round."""
        return task.train[:arrived] if earlier is None else joined(earlier, task.train[:arrived])

    before = 0 if earlier is None else len(earlier)
    arrived, end, over = state.datapoints, len(task.train), False
    counts = protocol.judges_in(state.round + 1)
    while not over:
        coming = protocol.arriving(arrived)
        upcoming = task.train[arrived : None if coming is None else arrived + coming]
        before_data = arrived == 0 and 0 in protocol.evaluate_at
        judged_on = upcoming if task.test is None else task.test if before_data else None
        if (
            counts
            and judged_on is not None
            and judged_on.weights.any()
            and protocol.judges_at(before + arrived)
            and not state.judged
        ):
            state, record = _judged(problem, learner, task, key, data(arrived), judged_on, state)
            state = replace(state, proficient=_proficient(problem, protocol, record))
            yield state, record
        state = _observed(problem, learner, key, upcoming, state)
        arrived += len(upcoming)
        over, made = state.proficient or arrived == end, None
        if counts and task.test is not None and (over or protocol.judges_at(before + arrived)):
            state, made = _judged(problem, learner, task, key, data(arrived), task.test, state)
            over = over or _proficient(problem, protocol, made)
        if over:
            state = replace(state, diverged=state.finite is False)
            state = replace(state, round=state.round + 1, datapoints=0, judged=False, finite=None, proficient=False)
            if task.key is not None:
                kept = {**state.earlier, task_id(key): data(arrived)}
                state = replace(state, arrived=(*state.arrived, arrived), earlier=kept)
        yield state, made


def _proficient(problem: Problem, protocol: OnlineProtocol, record: Record) -> bool:
    """Whether the round ends since the learner is proficient."""
    reached = record.score is not None and problem.score.reaches(record.score, protocol.threshold)
    return reached and protocol.move_on


def key_of(task: Task, number: int) -> TaskKey:
    """How learners know the task of a round: by its key, or as another one than those of all other rounds.

    Raises:
        ValueError: the key is what a round without one is known by.
    """
    if isinstance(task.key, str) and re.fullmatch(r"round \d+", task.key):
        raise ValueError(f"a task's key must not be {task.key!r}, as rounds without a key are known by: choose another")
    return f"round {number}" if task.key is None else task.key


def _observed(problem: Problem, learner: Learner, key: TaskKey, arrived: Batch, state: RunState) -> RunState:
    """Let datapoints arrive."""
    began = time.perf_counter()
    learned, cost = learner.observe(problem, state.learner, key, arrived)
    jax.block_until_ready(learned)
    return replace(
        state,
        learner=learned,
        datapoints=state.datapoints + len(arrived),
        judged=False,
        learning_evaluations=state.learning_evaluations + cost,
        train_seconds=state.train_seconds + time.perf_counter() - began,
    )


def _judged(
    problem: Problem, learner: Learner, task: Task, key: TaskKey, data: Batch, held_out: Batch, state: RunState
) -> tuple[RunState, Record]:
    """Adapt to D_t and judge on data that the learner has not seen."""
    began = time.perf_counter()

    def judge() -> tuple[float, Mapping[str, float], bool, int]:
        adapted, cost = learner.adapt(problem, state.learner, key, data)
        outputs = learner.predict(problem, adapted, held_out.inputs)
        sound = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outputs))
        return *problem.judge(outputs, held_out), sound, cost

    loss, scores, sound, cost = devices.on_first(judge)
    score, *_ = scores.values()
    # A score of sound predictions that is no number is undefined.
    finite = math.isfinite(loss) and (math.isfinite(score) or (math.isnan(score) and sound))
    state = replace(
        state,
        records=state.records + 1,
        finite=bool(state.finite) or finite,
        judged=True,
        adapting_evaluations=state.adapting_evaluations + cost,
        evaluation_seconds=state.evaluation_seconds + time.perf_counter() - began,
    )
    return state, Record(
        round=state.round + 1,
        task=task.name,
        datapoints=len(data),
        loss=loss if finite else None,
        score=score if finite and math.isfinite(score) else None,
        diverged=not finite,
        gradient_evaluations=state.learning_evaluations + state.adapting_evaluations,
        train_seconds=round(state.train_seconds, 4),
        evaluation_seconds=round(state.evaluation_seconds, 4),
        learning_evaluations=state.learning_evaluations,
        other_scores={name: value if math.isfinite(value) else None for name, value in list(scores.items())[1:]},
    )
