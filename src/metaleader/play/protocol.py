"""Online meta-learning, round by round (paper, section 3 and Algorithm 1)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from metaleader import devices
from metaleader.learners.base import Learner, State
from metaleader.play.record import Record
from metaleader.problem.batch import Batch, bucket_size, pad
from metaleader.problem.objective import Params, Problem, check
from metaleader.streams.task import Task


@dataclass(frozen=True)
class Protocol:
    """How a round goes.

    Raises:
        ValueError: `chunk` is not positive, or a size in `evaluate_at` is not a multiple of it.
    """

    chunk: int = 10
    """n: how many datapoints arrive at a time."""
    evaluate_at: tuple[int, ...] = ()
    """Sizes of D_t at which the adapted parameters are judged on held-out data; none: whenever datapoints
    arrive. The end of a round is always one of them."""
    threshold: float = 0.9
    """Proficiency gamma, in the unit of the score."""
    move_on: bool = False
    """End a round at proficiency. Otherwise every round takes all datapoints of its task."""

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {self.chunk}")
        if odd := [size for size in self.evaluate_at if size < 1 or size % self.chunk]:
            raise ValueError(
                f"evaluate_at must hold multiples of chunk = {self.chunk}, the sizes that D_t takes; got {odd}"
            )


class Position(NamedTuple):
    """Where a run stands: all that changes, so that a run can go on from it.

    Attributes:
        state: the learner's.
        round: the rounds completed.
        datapoints: |D_t| in the round under way.
        records: how many records were made.
        finite: whether any record of this round had a finite loss.
        adapt_evaluations: per-example gradients taken by `adapt`.
        train_seconds: wall time in `observe`.
        evaluation_seconds: wall time in `adapt` and judging.
        diverged: whether the run ended since the learner no longer gives finite losses.
    """

    state: State
    round: Any = np.int64(0)
    datapoints: Any = np.int64(0)
    records: Any = np.int64(0)
    finite: Any = np.bool_(False)
    adapt_evaluations: Any = np.int64(0)
    train_seconds: Any = np.float64(0)
    evaluation_seconds: Any = np.float64(0)
    diverged: Any = np.bool_(False)


def start(problem: Problem, stream: Sequence[Task], learner: Learner, seed: int = 0) -> Position:
    """Before the first round: w_1 drawn by `seed`.

    Raises:
        ValueError: the stream is empty, or its first task does not fit the problem (see `objective.check`).
    """
    if len(stream) == 0:
        raise ValueError("the stream holds no task: give at least one")
    first = stream[0].train
    check(problem, first, "round 1, training data")
    capacity = bucket_size(min(len(stream) * len(first) * 2, 1 << 16))
    return Position(learner.init(problem, jax.random.key(seed), first, capacity))


def play(
    problem: Problem,
    stream: Sequence[Task],
    learner: Learner,
    protocol: Protocol | None = None,
    seed: int = 0,
) -> Iterator[Record]:
    """Algorithm 1: meet the tasks of a stream one after another, and yield a record at every evaluation.

    Args:
        problem: what is learned: model, loss and score.
        stream: the tasks, in order of arrival; a list will do.
        learner: which learner; it sees `task.train` as it arrives and never `task.test`.
        protocol: chunks, sizes at which to evaluate, proficiency.
        seed: of the learner's randomness. The same seed gives the same records, wall time aside.

    Raises:
        ValueError: a task does not fit the problem or the tasks before it.
    """
    position = start(problem, stream, learner, seed)
    for _, record in advance(problem, stream, learner, protocol or Protocol(), position):
        if record is not None:
            yield record


def advance(
    problem: Problem, stream: Sequence[Task], learner: Learner, protocol: Protocol, position: Position
) -> Iterator[tuple[Position, Record | None]]:
    """Go on from `position`, chunk by chunk, with a record where the chunk was evaluated.

    A learner whose losses were not finite for a whole round is stopped: its last record says `diverged`.
    """
    while position.round < len(stream) and not position.diverged:
        task = stream[int(position.round)]
        where = f"round {position.round + 1}{f' ({task.name})' if task.name else ''}"
        check(problem, task.train, f"{where}, training data")
        check(problem, task.test, f"{where}, held-out data")
        test = pad(task.test, bucket_size(len(task.test)))
        over = False
        while not over:
            position = _observe(problem, learner, task.train, protocol.chunk, position)
            record, at_end = None, position.datapoints == len(task.train)
            if at_end or not protocol.evaluate_at or position.datapoints in protocol.evaluate_at:
                position, record = _evaluate(problem, learner, task, test, position)
                reached = record.score is not None and problem.score.reaches(record.score, protocol.threshold)
                over = reached and protocol.move_on
            if over := over or bool(at_end):
                position = position._replace(
                    round=position.round + 1,
                    datapoints=np.int64(0),
                    finite=np.bool_(False),
                    diverged=np.bool_(not position.finite),
                )
            yield position, record


def _observe(problem: Problem, learner: Learner, train: Batch, chunk: int, position: Position) -> Position:
    """Let the next datapoints of the round arrive."""
    began = time.perf_counter()
    seen = int(position.datapoints)
    arrived = train[seen : seen + chunk]
    state = learner.observe(problem, position.state, int(position.round), arrived)
    jax.block_until_ready(state.params)
    return position._replace(
        state=state,
        datapoints=np.int64(seen + len(arrived)),
        train_seconds=position.train_seconds + time.perf_counter() - began,
    )


def _evaluate(
    problem: Problem, learner: Learner, task: Task, test: Batch, position: Position
) -> tuple[Position, Record]:
    """Adapt to D_t and judge on D_t_test."""
    began = time.perf_counter()
    datapoints = int(position.datapoints)

    def judge() -> tuple[float, ...]:
        params = learner.adapt(problem, position.state, task.train[:datapoints])
        return tuple(float(value) for value in _judge(problem, params, test))

    loss, score, *others = devices.on_first(judge)
    finite = math.isfinite(loss) and math.isfinite(score)
    position = position._replace(
        records=position.records + 1,
        finite=np.bool_(position.finite or finite),
        adapt_evaluations=position.adapt_evaluations + learner.adaptation.gradient_evaluations(datapoints),
        evaluation_seconds=position.evaluation_seconds + time.perf_counter() - began,
    )
    return position, Record(
        round=int(position.round) + 1,
        task=task.name,
        datapoints=datapoints,
        loss=loss if finite else None,
        score=score if finite else None,
        diverged=not finite,
        gradient_evaluations=int(position.state.gradient_evaluations + position.adapt_evaluations),
        train_seconds=round(float(position.train_seconds), 4),
        evaluation_seconds=round(float(position.evaluation_seconds), 4),
        learning_evaluations=int(position.state.gradient_evaluations),
        also={
            score.name: value if math.isfinite(value) else None
            for score, value in zip(problem.also, others, strict=True)
        },
    )


@partial(jax.jit, static_argnums=0)
def _judge(problem: Problem, params: Params, test: Batch) -> Any:
    return (*problem.evaluate(params, test), *problem.evaluate_also(params, test))
