"""Streams, settings and kills by chance: records are those of a slow, plain reference."""

import itertools
import math
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

import reference
from accounts import without_times
from metaleader import (
    FTL,
    FTML,
    MLP,
    TOE,
    Adam,
    Batch,
    CrossEntropy,
    GradientDescent,
    Learner,
    Momentum,
    OnlineProtocol,
    Problem,
    Recency,
    Record,
    Retention,
    RunState,
    Score,
    Scratch,
    Task,
    accuracy,
    begin,
    mean_squared_error,
    resume,
    squared_error,
)
from metaleader.learners.base import Spends
from metaleader.online.description import RunDescription
from metaleader.results import metrics
from metaleader.runs import run as runs
from metaleader.runs.run import Plan, RunInterrupted

Kind = tuple[str, Any, Any, int]  # regression or classes, types of inputs and targets, outputs
Draw = Callable[[st.SearchStrategy[Any]], Any]

KINDS: tuple[Kind, ...] = (
    ("regression", np.float32, np.float32, 1),
    ("classes", np.uint8, np.int32, 3),
    ("classes", np.float32, np.bool_, 2),
    ("regression", np.float16, np.float16, 2),
    ("regression", np.int32, np.int16, 1),
    ("regression", np.uint8, np.float64, 1),
    ("classes", np.bool_, np.uint8, 3),
    ("classes", np.float64, np.int64, 2),
)
INPUTS = 3
CONFIDENCE = Score("confidence", lambda outputs, targets: jax.nn.softmax(outputs).max(axis=-1), higher_is_better=True)
LARGEST = Score("largest error", lambda outputs, targets: np.abs(outputs - targets).max(), False, whole=True)
LEARNERS: dict[str, tuple[Learner, ...]] = {
    "ftml": (
        FTML(GradientDescent(2, 0.1), 2, 2, 3, 2, optimizer=Adam(0.03)),
        FTML(GradientDescent(1, 0.2), 2, 3, 2, 3, optimizer=Momentum(0.05), sampling=Recency(1.0), past_only=True),
        FTML(
            GradientDescent(2, 0.1, first_order=True, prior_strength=2.0), 1, 2, 4, 1,
            optimizer=Momentum(0.1, 0.5, drops=(3,)), vary_train_size=True, adapt_steps=4,
        ),
        FTML(GradientDescent(3, 0.1, derivative="plain"), 1, 1, 8, 8, optimizer=Adam(0.02, average=0.7)),
    ),
    "joint": (
        TOE(2, batch_tasks=2, batch_size=3, optimizer=Adam(0.03)),
        FTL(2, batch_tasks=0, batch_size=4, optimizer=Momentum(0.05), update=GradientDescent(2, 0.1)),
        FTL(1, batch_tasks=2, batch_size=3, calibration_size=2, optimizer=Adam(0.05), update=GradientDescent(1, 0.2)),
        TOE(2, batch_tasks=0, batch_size=5, optimizer=Momentum(0.1, drops=(4, 6), average=0.5)),
        FTL(1, batch_tasks=0, batch_size=4, calibration_size=2, optimizer=Adam(0.05), update=GradientDescent(1, 0.2)),
    ),
    "scratch": (
        Scratch(3, 4, Adam(0.05)),
        Scratch(2, 3, Momentum(0.05), equal_gradients=True),
    ),
}  # fmt: skip
RETENTIONS = (
    Retention(),
    Retention("last", 7),
    Retention("last", 2, "tasks"),
    Retention("reservoir", 9),
    Retention("balanced", 11),
    Retention("reservoir", 3),
    Retention("last", 80, "bytes"),
    Retention("balanced", 2),
    Retention("mixed", 9),
)


class Killed(BaseException):
    """A process that ends at once: nothing in the package catches it."""


def problem_of(kind: Kind) -> tuple[Problem, reference.Linear]:
    what, _, _, outputs = kind
    net = MLP(INPUTS, outputs, depth=0)
    if what == "regression":
        return Problem(net, squared_error, (mean_squared_error, LARGEST)), reference.Linear("regression")
    return Problem(net, CrossEntropy(0.1), (accuracy, CONFIDENCE)), reference.Linear("classes", 0.1)


def numbers(chance: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    if dtype == np.bool_:
        return chance.integers(0, 2, shape).astype(dtype)
    if np.issubdtype(dtype, np.integer):
        low, high = (0, 256) if dtype == np.uint8 else (-2, 3)
        return chance.integers(low, high, shape).astype(dtype)
    return chance.normal(size=shape).astype(dtype)


def laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    """The same numbers, otherwise in memory."""
    if layout == "columns":
        return np.asfortranarray(array)
    if layout == "backwards":
        return np.ascontiguousarray(array[::-1])[::-1]
    array = array.copy()
    array.flags.writeable = False
    return array


def batch(chance: np.random.Generator, kind: Kind, n: int, weighted: bool, layout: str) -> Batch:
    what, inputs, targets, outputs = kind
    y = numbers(chance, targets, (n, outputs)) if what == "regression" else chance.integers(0, outputs, n)
    weights = chance.choice([0, 1, 1, 2], n) if weighted else np.ones(n)
    weights[chance.integers(n)] = 1
    x = numbers(chance, inputs, (n, INPUTS))
    return Batch.of(*(laid_out(array, layout) for array in (x, y.astype(targets), weights)))


def stream_of(draw: Draw, kind: Kind) -> list[Task]:
    """Up to five rounds, of tasks that may come back, some of them without held-out data."""
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layout = draw(st.sampled_from(["rows", "columns", "backwards"]))
    weighted = draw(st.booleans())
    keys = draw(st.sampled_from([(None,), (1, "1"), (1, 2, 3), (None, "a")]))
    some_held_out = draw(st.sampled_from([(True,), (True, False), (False,)]))
    tasks = []
    for i in range(draw(st.integers(1, 5))):
        train = batch(chance, kind, draw(st.integers(1, 12)), weighted, layout)
        test = None
        if draw(st.sampled_from(some_held_out)):
            test = batch(chance, kind, draw(st.sampled_from([1, 5, 10])), weighted, layout)
        tasks.append(Task(train, test, f"task {i}", draw(st.sampled_from(keys))))
    return tasks


def protocol_of(draw: Draw, kind: Kind, rounds: int) -> OnlineProtocol:
    chunk = draw(st.sampled_from([1, 3, 4, 20]))
    sizes = draw(st.lists(st.integers(0, 5), max_size=3, unique=True))
    threshold = draw(st.sampled_from([0.9, 0.6, 0.3] if kind[0] == "classes" else [0.5, 1.5]))
    move_on = draw(st.booleans())
    late = None if move_on else draw(st.sampled_from([None, None, 1, min(3, rounds)]))
    if arrive_at := tuple(sorted(draw(st.lists(st.sampled_from([1, 2, 5, 7, 30]), max_size=3, unique=True)))):
        judged = [size for size in (0, *arrive_at) if draw(st.booleans())]
        return OnlineProtocol(chunk, tuple(judged), threshold, move_on, arrive_at, late)
    return OnlineProtocol(chunk, tuple(chunk * size for size in sorted(sizes)), threshold, move_on, evaluate_from=late)


def learner_of(draw: Draw, learners: Sequence[Learner]) -> Learner:
    """A learner with some memory, perhaps told how many gradients to take."""
    learner = replace(draw(st.sampled_from(learners)), retention=draw(st.sampled_from(RETENTIONS)))
    gradients = draw(st.sampled_from([None, None, 90]))
    if gradients is None:
        return learner
    assert isinstance(learner, Spends)
    return learner.spending(gradients)


def agree(records: Sequence[Record], expected: reference.Run) -> None:
    """The records are those of the reference, up to rounding."""
    got = [(r.round, r.task, r.datapoints, r.gradient_evaluations, r.learning_evaluations) for r in records]
    assert got == [
        (e.round, e.task, e.datapoints, e.gradient_evaluations, e.learning_evaluations) for e in expected.records
    ]
    for record, plain in zip(records, expected.records, strict=True):
        assert not record.diverged
        (other,) = record.other_scores.values()
        assert record.loss == pytest.approx(plain.loss, rel=1e-3, abs=1e-4)
        assert record.score == pytest.approx(plain.scores[0], rel=1e-3, abs=1e-4 + plain.close_calls)
        assert other == pytest.approx(plain.scores[1], rel=1e-3, abs=1e-4)


def needed(run: metrics.Run) -> list[float | None]:
    """Datapoints to proficiency, None for rounds without a record."""
    found = metrics.datapoints_to_proficiency([run])[0]  # up to the last record
    known = [None if math.isnan(n) else float(n) for n in found]
    return known + [None] * (run.planned - len(known))


def go_on(
    problem: Problem, tasks: Sequence[Task], learner: Learner, protocol: OnlineProtocol, state: RunState, most: int
) -> tuple[RunState, list[Record]]:
    """Play from a state, for as many steps at most."""
    steps = list(itertools.islice(resume(problem, tasks[state.round :], learner, protocol, state), most))
    return steps[-1][0] if steps else state, [record for _, record in steps if record is not None]


def killed_again_and_again(plan: Plan, stops: Sequence[tuple[str, int]], every_step: bool) -> metrics.Run:
    """The run of a plan in a folder that is stopped after so many steps, each time in some way, and then goes on."""
    path = plan.folder(*plan.runs[0]).path
    with pytest.MonkeyPatch.context() as patch:
        if every_step:
            patch.setattr(runs, "SAVING", math.inf)
        for stop in [*stops, ("never", 0)]:
            try:
                outcome = runs.run(plan, path.exists(), partial(after, itertools.count(1), stop))
            except (Killed, RunInterrupted):
                continue
            assert set(outcome.values()) <= {"finished", "failed: no connection"}
    return metrics.load([path])[0]


def after(steps: Iterator[int], stop: tuple[str, int], *_: Any) -> None:
    """Stop a run in some way when it took so many steps."""
    how, many = stop
    if next(steps) != many:
        return
    if how == "killed":
        raise Killed
    if how == "failed":
        raise RuntimeError("no connection")
    os.kill(os.getpid(), signal.SIGINT)


def check(data: st.DataObject, kinds: Sequence[Kind], learners: Sequence[Learner], most_stops: int) -> None:
    """Of a stream, a learner, a protocol and stops by chance."""
    draw = data.draw
    kind = draw(st.sampled_from(kinds))
    problem, model = problem_of(kind)
    learner, stream = learner_of(draw, learners), stream_of(draw, kind)
    protocol = protocol_of(draw, kind, len(stream))
    seed = draw(st.integers(0, 99))
    expected = reference.Run(problem, model, stream, learner, protocol, seed)
    assume(not (expected.close and protocol.move_on))

    state, first = go_on(problem, stream, learner, protocol, begin(problem, learner, stream[0], seed), draw(STEPS))
    state, rest = go_on(problem, stream, learner, protocol, state, 1000)
    records = first + rest
    agree(records, expected)
    assert state.round == len(stream)
    assert not state.diverged

    stops = draw(st.lists(st.tuples(st.sampled_from(["killed", "interrupted", "failed"]), STEPS), max_size=most_stops))
    with tempfile.TemporaryDirectory() as folder:
        about = RunDescription.of("by chance", "own", problem, protocol)
        plan = Plan(problem, {seed: stream}, {"it": learner}, protocol, Path(folder), about, checkpoint_seconds=0)
        run = killed_again_and_again(plan, stops, draw(st.booleans()))
    assert run.outcome == "finished"
    assert without_times(run.records) == without_times(records)
    if not expected.close:
        assert needed(run) == expected.needed


STEPS = st.integers(1, 12)


@pytest.mark.parametrize("name", LEARNERS)
@settings(max_examples=4, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_records_are_those_of_a_plain_reference(name: str, data: st.DataObject) -> None:
    """Few kinds of data and learners, and always the same examples, so that little is compiled, and once."""
    check(data, KINDS[:2], LEARNERS[name][:1], 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
@settings(max_examples=100, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))  # shrinking takes long
@given(data=st.data())
def test_records_of_any_stream_are_those_of_a_plain_reference(name: str, data: st.DataObject) -> None:
    check(data, KINDS, LEARNERS[name], 4)
