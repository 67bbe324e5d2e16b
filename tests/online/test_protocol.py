"""The online loop: order, evaluation, leakage, divergence, messages."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import r2_score

from accounts import without_times
from metaleader import (
    FTML,
    TOE,
    Adam,
    Batch,
    CrossEntropy,
    Model,
    OnlineProtocol,
    Problem,
    Record,
    Stream,
    Task,
    accuracy,
    begin,
    from_sklearn,
    mean_squared_error,
    play,
    resume,
    squared_error,
)
from problems import CURVES, DIGITS, LEARNERS, STREAMS, images, lines, points


@pytest.mark.parametrize("name", LEARNERS)
def test_held_out_data_never_reaches_a_learner(name: str) -> None:
    """Whatever is held out, what the learner has learned is the same."""

    def learned(tasks: Sequence[Task]) -> Any:
        start = begin(CURVES, LEARNERS[name], tasks[0])
        *_, (end, _) = resume(CURVES, tasks, LEARNERS[name], OnlineProtocol(chunk=8), start)
        return end.learner.params

    tasks = lines(3)
    others = [replace(task, test=points(9, 1000 + i, slope=50.0)) for i, task in enumerate(tasks)]
    jax.tree.map(np.testing.assert_array_equal, learned(tasks), learned(others))


@dataclass(frozen=True)
class Witness:
    """A learner that notes what it is shown, and learns as TOE does."""

    seen: Any
    toe: TOE = TOE(steps=1)  # noqa: RUF009

    def init(self, problem: Problem, key: Any, example: Batch) -> Any:
        return self.toe.init(problem, key, example)

    def observe(self, problem: Problem, state: Any, task: int | str, batch: Batch) -> tuple[Any, int]:
        self.seen.append(("observe", task, len(batch)))
        return self.toe.observe(problem, state, task, batch)

    def adapt(self, problem: Problem, state: Any, task: int | str, batch: Batch) -> tuple[Any, int]:
        self.seen.append(("adapt", task, len(batch)))
        return self.toe.adapt(problem, state, task, batch)

    def predict(self, problem: Problem, adapted: Any, inputs: Any) -> Any:
        return self.toe.predict(problem, adapted, inputs)


class Log(list[Any]):
    """A list that a frozen dataclass may hold."""

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


def test_the_order_of_algorithm_1() -> None:
    log = Log()
    records = list(play(CURVES, lines(2, 20), Witness(log), OnlineProtocol(chunk=8, evaluate_at=(8,))))
    verbs = [("observe", 8), ("adapt", 8), ("observe", 8), ("observe", 4), ("adapt", 20)]
    assert log == [(verb, task, n) for task in ("round 1", "round 2") for verb, n in verbs]
    assert [(r.round, r.datapoints, r.task) for r in records] == [
        (1, 8, "slope -1"), (1, 20, "slope -1"), (2, 8, "slope 0"), (2, 20, "slope 0"),
    ]  # fmt: skip


def test_moving_on_at_proficiency() -> None:
    easy = OnlineProtocol(chunk=5, threshold=1e9, move_on=True)
    assert [(r.round, r.datapoints) for r in play(CURVES, lines(3), TOE(), easy)] == [(1, 5), (2, 5), (3, 5)]
    never = replace(easy, threshold=-1.0)
    assert [r.datapoints for r in play(CURVES, lines(2, 10), TOE(), never)] == [5, 10, 5, 10]


class NineOfTen:
    """A learner that takes everything for class 0."""

    def init(self, problem: Problem, key: Any, example: Batch) -> Any:
        return None

    def observe(self, problem: Problem, state: Any, task: int | str, batch: Batch) -> tuple[Any, int]:
        return None, 0

    def adapt(self, problem: Problem, state: Any, task: int | str, batch: Batch) -> tuple[Any, int]:
        return None, 0

    def predict(self, problem: Problem, adapted: Any, inputs: Any) -> Any:
        return np.tile(np.array([1, 0], np.float32), (len(inputs), 1))


def test_nine_of_ten_are_as_good_as_0_9() -> None:
    """Though in 32 bits they are 0.89999998."""
    ten = Batch.of(np.zeros((10, 1), np.float32), np.array([1] + [0] * 9))
    problem, protocol = Problem(None, CrossEntropy(), accuracy), OnlineProtocol(chunk=5, threshold=0.9, move_on=True)
    assert [record.datapoints for record in play(problem, [Task(ten, ten)], NineOfTen(), protocol)] == [5]
    stricter = replace(protocol, threshold=0.901)
    assert [record.datapoints for record in play(problem, [Task(ten, ten)], NineOfTen(), stricter)] == [5, 10]


def test_a_round_in_which_the_learner_is_not_judged_is_no_sign_of_divergence() -> None:
    """Without held-out data, one with too few datapoints for any size in `evaluate_at`."""
    tasks = [Task(points(n, n)) for n in (10, 4, 12)]
    records = list(play(CURVES, tasks, TOE(steps=1), OnlineProtocol(chunk=5, evaluate_at=(5,))))
    assert [(record.round, record.datapoints) for record in records] == [(1, 5), (3, 5)]


@pytest.mark.parametrize("held_out", [True, False])
def test_rounds_that_do_not_count_are_not_judged_and_the_others_are_the_same(held_out: bool) -> None:
    tasks = [replace(task, test=task.test if held_out else None) for task in lines(4, 20)]
    protocol, learner = OnlineProtocol(chunk=10, evaluate_at=(0, 10)), FTML(meta_steps=1)
    whole = [record for record in play(CURVES, tasks, learner, protocol) if record.round >= 3]
    late = list(play(CURVES, tasks, learner, replace(protocol, evaluate_from=3)))
    same = ("round", "datapoints", "loss", "score", "learning_evaluations")
    assert [[getattr(record, name) for name in same] for record in late] == [
        [getattr(record, name) for name in same] for record in whole
    ]
    assert late
    assert late[-1].gradient_evaluations < whole[-1].gradient_evaluations  # adapting in the rounds before is saved


def test_the_end_of_a_round_is_judged_where_the_learner_was_proficient_before_it() -> None:
    easy = OnlineProtocol(chunk=5, evaluate_at=(0, 15), threshold=1e9, move_on=True)
    assert [record.datapoints for record in play(CURVES, lines(2), TOE(steps=1), easy)] == [0, 5, 0, 5]


@pytest.mark.parametrize("held_out", [True, False])
def test_a_stop_between_proficiency_and_the_next_datapoints_changes_nothing(held_out: bool) -> None:
    tasks = lines(3) if held_out else [replace(task, test=None) for task in lines(3)]
    protocol, learner = OnlineProtocol(chunk=5, evaluate_at=(0, 15), threshold=1e9, move_on=True), TOE(steps=1)
    whole = without_times(list(play(CURVES, tasks, learner, protocol)))
    state, records = begin(CURVES, learner, tasks[0]), list[Record]()
    while state.round < len(tasks):  # stopped after every step
        state, record = next(iter(resume(CURVES, tasks[state.round :], learner, protocol, state)))
        records += [] if record is None else [record]
    assert without_times(records) == whole


@pytest.mark.parametrize("name", STREAMS)
def test_every_stream_plays_and_repeats(name: str) -> None:
    stream = STREAMS[name].stream(seed=3)
    problem = CURVES if name == "sinusoid" else DIGITS
    protocol = OnlineProtocol(chunk=20)
    first, second = (without_times(list(play(problem, stream, TOE(steps=1), protocol, seed=1))) for _ in range(2))
    assert first == second
    assert [record.round for record in first] == list(range(1, len(stream) + 1))
    assert [record.task for record in first] == [task.name for task in stream]


def test_scores_and_losses_are_those_of_the_adapted_model_on_held_out_data() -> None:
    tasks, learner = lines(2), LEARNERS["ftml"]
    state = begin(CURVES, learner, tasks[0])
    for state, record in resume(CURVES, tasks, learner, OnlineProtocol(chunk=20), state):  # noqa: B020
        assert record is not None
        task = tasks[record.round - 1]
        params, _ = learner.adapt(CURVES, state.learner, f"round {record.round}", task.train)
        outputs = CURVES.net.apply(params, task.held_out.inputs, task.held_out.weights)
        assert record.score is not None
        np.testing.assert_allclose(record.score, np.mean(np.square(outputs - task.held_out.targets)), rtol=1e-4)


def test_a_learner_that_diverges_is_recorded_and_stopped() -> None:
    wild = TOE(optimizer=Adam(1e30))
    records = list[Record]()
    with pytest.warns(
        RuntimeWarning, match=r"in round (\d) no loss and score was finite.* smaller learning rates"
    ) as said:
        records += play(CURVES, lines(6), wild, OnlineProtocol(chunk=10))
    assert f"in round {records[-1].round} " in str(said[0].message)
    assert said[0].filename == __file__
    assert records[-1].diverged
    assert records[-1].loss is None
    assert records[-1].score is None
    assert records[-1].round < 6


def test_an_undefined_score_is_no_divergence() -> None:
    """R2 of a single example."""
    r2 = from_sklearn(r2_score, "R2")
    problem = replace(CURVES, scores=(r2, mean_squared_error))
    stream = [replace(task, test=points(n)) for task, n in zip(lines(3), (8, 1, 8), strict=True)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "R.* score is not well-defined")
        records = list(play(problem, stream, TOE(steps=1), OnlineProtocol(chunk=20)))
    assert [record.undefined for record in records] == [False, True, False]
    assert not any(record.diverged for record in records)
    assert records[1].loss == pytest.approx(records[1].other_scores["squared error"])


def test_predictions_that_are_not_finite_are_divergence_whatever_the_loss() -> None:
    def bounded(outputs: Any, targets: Any) -> Any:
        return jnp.where(jnp.isfinite(outputs[:, 0]), jnp.tanh(squared_error(outputs, targets)), 1.0)

    model = Model(lambda key: jnp.zeros(()), lambda w, x, _: w + 1 / x)
    problem = Problem(model, bounded, from_sklearn(r2_score, "R2"))
    (task,) = lines(1)
    task = replace(task, test=Batch.of(np.zeros((3, 1), np.float32), np.ones((3, 1), np.float32)))
    with pytest.warns(RuntimeWarning, match="the learner diverged"):
        (record,) = play(problem, [task], TOE(steps=1), OnlineProtocol(chunk=20))
    assert (record.loss, record.score, record.diverged, record.undefined) == (None, None, True, False)


@pytest.mark.parametrize("kind", ["stream", "iterable", "iterator"])
def test_every_task_is_asked_for_once(kind: str) -> None:
    asked: list[int] = []

    def make(i: int) -> Task:
        asked.append(i)
        return lines(3)[i]

    class Again:
        def __iter__(self) -> Iterator[Task]:
            return map(make, range(3))

    streams: dict[str, Iterable[Task]] = {
        "stream": iter(Stream(make, 3)),
        "iterable": Again(),
        "iterator": map(make, range(3)),
    }
    assert len(list(play(CURVES, streams[kind], TOE(steps=1), OnlineProtocol(chunk=20)))) == 3
    assert asked == [0, 1, 2]


def unfit(task: Task, **arrays: Any) -> Task:
    return replace(task, train=replace(task.train, **arrays))


@pytest.mark.parametrize(
    ("problem", "task", "message"),
    [
        (DIGITS, Task(images(4, classes=10), images(4)), None),
        (
            DIGITS,
            Task(Batch.of(images(3).inputs, np.array([1, 12, 2], np.int32)), images(4)),
            r"round 1.*training data: labels must be from 0 to 9, as the model has 10 outputs: example 1 has 12",
        ),
        (DIGITS, Task(Batch.of(images(3).inputs, np.ones(3, np.float32)), images(4)), "labels must be integers"),
        (
            DIGITS,
            Task(images(4), Batch.of(images(3).inputs, np.array([0, -1, 2]))),
            "held-out data: .*example 1 has -1",
        ),
        (
            DIGITS,
            Task(Batch.of(np.ones((2, 8, 8, 3), np.float32), np.zeros(2, int)), images(4)),
            r"set image=\(8, 8, 3\)",
        ),
        (CURVES, unfit(lines(1)[0], targets=np.ones(20, np.float32)), r"outputs have shape \(20, 1\), targets \(20,\)"),
        (CURVES, unfit(lines(1)[0], inputs=np.full((20, 1), np.nan, np.float32)), "inputs must be finite: example 0"),
        (
            Problem(Model(lambda key: {}, lambda p, x, w: x), lambda o, t: squared_error(o, t)[:2], accuracy),
            lines(1)[0],
            r"the loss has shape \(2,\) for 20 examples",
        ),
    ],
)
def test_data_that_does_not_fit_is_refused_in_words(problem: Problem, task: Task, message: str | None) -> None:
    run = play(problem, [task], TOE(steps=1), OnlineProtocol(chunk=50))
    if message is None:
        next(run)
    else:
        with pytest.raises(ValueError, match=message) as refused:
            next(run)
        assert "\n" not in str(refused.value)


def test_a_later_task_of_another_shape_is_refused() -> None:
    other = Task(points(20, dtype=np.float16), points(9))
    with pytest.raises(
        ValueError, match=r"^round 2, training data: inputs are float16 .* holds float32.*\.astype\('float32'"
    ):
        list(play(CURVES, [lines(1)[0], other], TOE(steps=1)))


@pytest.mark.parametrize("convert", [np.float32, np.int16])
def test_held_out_data_of_another_type_is_refused(convert: Any) -> None:
    """Models scale 8-bit images, and would be judged on images 255 times as bright."""
    test = replace(images(4), inputs=images(4).inputs.astype(convert))
    with pytest.raises(ValueError, match=r"^round 1, held-out data: inputs are (float32|int16) .* holds uint8"):
        next(play(DIGITS, [Task(images(4), test)], TOE(steps=1)))
    with pytest.raises(ValueError, match=r"^task 'a', held-out data: inputs are (float32|int16) .* holds uint8"):
        Task.from_arrays(images(4).inputs, images(4).targets, test.inputs, test.targets, "a")


def test_datapoints_without_weight_are_nothing_to_be_judged_on() -> None:
    """Their mean loss would be 0, which is proficient."""
    points_of_task = replace(points(9), weights=np.repeat(np.array([1, 0, 1], np.float32), 3))
    records = list(play(CURVES, [Task(points_of_task)], TOE(steps=1), OnlineProtocol(chunk=3)))
    assert [record.datapoints for record in records] == [0, 6]
    with pytest.raises(ValueError, match=r"held-out data: weights .* not all of them 0"):
        next(play(CURVES, [Task(points(9), replace(points(9), weights=np.zeros(9, np.float32)))], TOE(steps=1)))


def test_what_is_no_array_is_refused() -> None:
    task = Task(replace(points(3), weights=[1.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match=r"a batch holds arrays, got float: make it by Batch\.of"):
        next(play(CURVES, [task], TOE(steps=1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"chunk": 10, "evaluate_at": (10, 25)}, r"multiples of chunk = 10.*25"),
        ({"arrive_at": (5, 20), "evaluate_at": (0, 10)}, r"sizes in arrive_at = \(5, 20\).*\[10\]"),
        ({"arrive_at": (20, 5)}, r"rising sizes.*\(20, 5\)"),
        ({"arrive_at": (0, 5)}, r"rising sizes.*\(0, 5\)"),
        ({"evaluate_from": 0}, "a round, from 1, or None; got 0"),
        ({"evaluate_from": 2, "move_on": True}, "leave evaluate_from out"),
    ],
)
def test_impossible_protocols_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OnlineProtocol(**settings)


def test_an_empty_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="the stream holds no task"):
        list(play(CURVES, [], FTML()))


def test_a_key_that_rounds_without_one_are_known_by_is_refused() -> None:
    tasks = [replace(task, key=key) for task, key in zip(lines(2), (None, "round 1"), strict=True)]
    with pytest.raises(ValueError, match="a task's key must not be 'round 1'"):
        list(play(CURVES, tasks, FTML()))


def test_sizes_may_be_a_list() -> None:
    sizes: Any = [5, 20]
    assert OnlineProtocol(arrive_at=sizes).arrive_at == sizes
