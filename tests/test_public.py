"""The public names alone: what a user builds on them."""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import metrics

import metaleader as ml

LINE = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)


def task(i: int, n: int = 12, **settings: Any) -> ml.Task:
    random = np.random.default_rng(i)
    x = random.normal(size=(n + 9, 1)).astype(np.float32)
    return ml.Task.from_arrays(x[:n], 2 * x[:n], x[n:], 2 * x[n:], f"task {i}", **settings)


class Counts:
    """A learner of one's own, whose state is a dict of lists."""

    def init(self, problem: ml.Problem, key: Any, example: ml.Batch) -> Any:
        return {"rounds": [], "names": []}

    def observe(self, problem: ml.Problem, state: Any, task: int | str, batch: ml.Batch) -> tuple[Any, int]:
        return {"rounds": [*state["rounds"], len(batch)], "names": [*state["names"], str(task)]}, 3 * len(batch)

    def adapt(self, problem: ml.Problem, state: Any, task: int | str, batch: ml.Batch) -> tuple[Any, int]:
        return sum(state["rounds"]), len(batch)

    def predict(self, problem: ml.Problem, adapted: Any, inputs: Any) -> Any:
        return np.full((len(inputs), 1), adapted, np.float32)


def plain(records: Sequence[ml.Record]) -> list[ml.Record]:
    return [replace(record, train_seconds=0.0, evaluation_seconds=0.0) for record in records]


def of(results: ml.Results, learner: str, seed: int = 0) -> list[ml.Record]:
    (run,) = [run for run in results.runs if (run.learner, run.about.seed) == (learner, seed)]
    return plain(run.records)


def test_a_learner_with_a_state_of_its_own_plays_runs_resumes_and_is_reported(tmp_path: Path) -> None:
    stream, protocol = [task(i) for i in range(3)], ml.OnlineProtocol(chunk=5)
    played = plain(list(ml.play(LINE, stream, Counts(), protocol)))
    assert [(r.datapoints, r.gradient_evaluations) for r in played[:3]] == [(5, 20), (10, 45), (12, 63)]
    squares = np.square(2 * stream[0].held_out.inputs - 5)
    assert played[0].score == pytest.approx(float(squares.mean()))
    in_memory = ml.run(LINE, stream, {"counts": Counts()}, protocol=protocol, progress=False)
    assert of(in_memory, "counts") == played
    short = ml.run(LINE, stream[:2], {"counts": Counts()}, protocol=protocol, out=tmp_path, progress=False)
    assert of(short, "counts") == played[:6]
    whole = ml.run(LINE, stream, {"counts": Counts()}, protocol=protocol, out=tmp_path, resume=True, progress=False)
    assert of(whole, "counts") == played  # goes on to the third task, from a state that is no pytree of arrays
    assert of(ml.load(tmp_path), "counts") == played
    page = whole.report(tmp_path / "report")
    assert "counts" in page.read_text()
    table = whole.to_pandas()
    assert list(table["datapoints"]) == [5, 10, 12] * 3
    assert list(table["squared error"]) == pytest.approx([record.score for record in played])
    assert "counts" in whole.table()
    assert whole.figure().axes
    with pytest.raises(ml.UserError, match="unknown figure 'curves': did you mean learning-curves"):
        whole.figure("curves")


def test_going_on_from_a_state_plays_the_tasks_that_are_given() -> None:
    stream, protocol, learner = [task(i) for i in range(5)], ml.OnlineProtocol(chunk=4), ml.FTML(meta_steps=1)
    whole = plain(list(ml.play(LINE, stream, learner, protocol)))
    state = ml.begin(LINE, learner, stream[0])
    first = [(state := reached, record) for reached, record in ml.resume(LINE, stream[:2], learner, protocol, state)]
    rest = [record for _, record in ml.resume(LINE, stream[2:], learner, protocol, state)]
    assert plain([record for _, record in first if record] + [record for record in rest if record]) == whole
    assert [record.round for record in rest if record] == [3, 3, 3, 4, 4, 4, 5, 5, 5]


def test_more_rounds_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from command import call

    def scores(out: Path) -> list[Any]:
        lines = next(out.rglob("records.jsonl")).read_text().splitlines()
        return [(line["round"], line["score"]) for line in map(json.loads, lines)]

    smoke = ["run", "sinusoid", "--preset", "smoke", "--learner", "toe", "--out"]
    assert call(*smoke, str(tmp_path / "long"), "--stream.rounds", "5") == 0
    assert call(*smoke, str(tmp_path / "short"), "--stream.rounds", "2") == 0
    assert call(*smoke, str(tmp_path / "short"), "--stream.rounds", "5", "--resume") == 0
    assert scores(tmp_path / "short") == scores(tmp_path / "long")
    assert call(*smoke, str(tmp_path / "short"), "--stream.rounds", "3", "--resume") == 2
    assert "stream.rounds = 5, now it is 3" in capsys.readouterr().err


@pytest.mark.parametrize("move_on", [False, True])
def test_a_run_with_returning_tasks_goes_on_with_what_they_had_before(tmp_path: Path, move_on: bool) -> None:
    stream = [task(i, n=6 + i, key=i % 2) for i in range(5)]
    protocol, learners = ml.OnlineProtocol(chunk=4, threshold=3.0, move_on=move_on), {"ftml": ml.FTML(meta_steps=1)}
    whole = ml.run(LINE, stream, learners, protocol=protocol, progress=False)
    ml.run(LINE, stream[:3], learners, protocol=protocol, out=tmp_path, progress=False)
    went_on = ml.run(LINE, stream, learners, protocol=protocol, out=tmp_path, resume=True, progress=False)
    assert of(went_on, "ftml") == of(whole, "ftml")
    sizes = [record.datapoints for record in whole.runs[0].records if record.round == 3]
    assert sizes[0] > 4  # the first task came back


def endless(asked: list[int] | None = None) -> Iterator[ml.Task]:
    for i in itertools.count():
        if asked is not None:
            asked.append(i)
        yield task(i, n=4 + 2 * (i % 5))


def test_a_generator_without_end_is_asked_for_each_task_once() -> None:
    asked: list[int] = []
    learner = ml.TOE(steps=1)
    records = list(itertools.islice(ml.play(LINE, endless(asked), learner, ml.OnlineProtocol(chunk=100)), 7))
    assert [record.datapoints for record in records] == [4, 6, 8, 10, 12, 4, 6]
    assert asked == list(range(7))
    same = ml.run(LINE, endless(), learner, rounds=7, protocol=ml.OnlineProtocol(chunk=100), progress=False)
    assert plain(same.runs[0].records) == plain(records)


def test_of_a_long_stream_only_the_rounds_that_are_played_are_made() -> None:
    asked: list[int] = []

    def make(i: int) -> ml.Task:
        asked.append(i)
        return task(i)

    stream = ml.Stream(make, 1000, (("file", "checksum"),))
    results = ml.run(LINE, stream, ml.TOE(steps=1), rounds=3, progress=False)
    assert {0, 1, 2} <= set(asked)
    assert len(asked) < 100  # the type checks of the tests look into the stream at random places too
    assert results.runs[0].about.rounds == 3
    assert results.runs[0].about.data == {"file": "checksum"}


def test_what_can_be_iterated_over_once_is_not_run_twice_or_resumed(tmp_path: Path) -> None:
    with pytest.raises(ml.UserError, match="iterated over once only, and 2 runs need it"):
        ml.run(LINE, iter([task(0)]), ml.TOE(steps=1), seeds=2, progress=False)

    def stopping() -> Iterator[ml.Task]:
        yield task(0)
        raise RuntimeError("no connection")

    with pytest.warns(RuntimeWarning, match="failed: no connection"):
        once = ml.run(LINE, stopping(), ml.TOE(steps=1), out=tmp_path, progress=False)
    assert once.runs[0].outcome == "failed: no connection"


def test_users_0_1_0_interleaved_are_those_of_a_plain_ftml() -> None:
    """Each user sends one point again and again, so that draws of them do not matter; nu is on the one longest ago."""
    points = {0: (1.0, 2.0), 1: (-0.5, 1.0)}
    visits = [(0, 3), (1, 2), (0, 1), (0, 2), (1, 4), (0, 1)]
    alpha, beta, inner, outer = 0.1, 0.05, 2, 3
    model = ml.Model(lambda key: {"w": np.float32(0.3)}, lambda params, x, weights: params["w"] * x)
    problem = ml.Problem(model, ml.squared_error, ml.mean_squared_error)
    learner = ml.FTML(
        ml.GradientDescent(inner, alpha),
        meta_steps=outer,
        optimizer=optax.sgd(beta),
        sampling=lambda ages: jnp.where(jnp.isinf(ages), 0, ages == jnp.max(jnp.where(jnp.isinf(ages), -1, ages))),
    )
    stream = []
    for user, n in visits:
        inputs, targets = (np.full((n, 1), value, np.float32) for value in points[user])
        stream.append(ml.Task.from_arrays(inputs, targets, inputs, targets, key=user))
    records = list(ml.play(problem, stream, learner, ml.OnlineProtocol(chunk=100)))

    def step(w: float, user: int) -> tuple[float, float]:
        """One step of gradient descent on (w x - y)^2, and its derivative."""
        x, y = points[user]
        return w - alpha * 2 * x * (w * x - y), 1 - alpha * 2 * x * x

    w, met, held = 0.3, list[int](), dict[int, int]()
    for (user, n), record in zip(visits, records, strict=True):
        met = [other for other in met if other != user] + [user]
        held[user] = held.get(user, 0) + n
        for _ in range(outer):
            for_user, slope = w, 1.0
            for _ in range(inner if held[met[0]] > 1 else 0):  # a single datapoint is all for validation
                for_user, factor = step(for_user, met[0])
                slope *= factor
            x, y = points[met[0]]
            w -= beta * 2 * x * (for_user * x - y) * slope
        adapted = w
        for _ in range(inner):
            adapted, _ = step(adapted, user)
        x, y = points[user]
        assert record.datapoints == held[user]
        assert record.loss == pytest.approx((adapted * x - y) ** 2, rel=1e-4, abs=1e-7)


def test_without_held_out_data_datapoints_are_judged_before_they_are_learned_from() -> None:
    whole = [replace(task(i), test=None) for i in range(2)]
    records = list(ml.play(LINE, whole, Counts(), ml.OnlineProtocol(chunk=5)))
    assert [record.datapoints for record in records] == [0, 5, 10] * 2
    sums = [0, 5, 10, 12, 17, 22]  # what was observed until then
    for record, total, chunk in zip(records, sums, [slice(0, 5), slice(5, 10), slice(10, 12)] * 2, strict=True):
        targets = whole[record.round - 1].train.targets[chunk]
        assert record.loss == pytest.approx(float(np.square(total - targets).mean()))


def test_size_0_is_before_the_first_datapoint_of_a_task() -> None:
    protocol = ml.OnlineProtocol(chunk=6, evaluate_at=(0, 6))
    stream = [task(i) for i in range(2)]
    for learner in (Counts(), ml.FTML(meta_steps=1), ml.FTL(steps=1), ml.TOE(steps=1), ml.Scratch(steps=1)):
        records = list(ml.play(LINE, stream, learner, protocol))
        assert [record.datapoints for record in records] == [0, 6, 12] * 2
        assert not any(record.diverged for record in records)
    counted = list(ml.play(LINE, stream, Counts(), protocol))
    assert counted[3].score == pytest.approx(float(np.square(2 * stream[1].held_out.inputs - 12).mean()))


@pytest.mark.parametrize("n", [21, 100])
def test_scores_of_scikit_learn_are_its_own_values(n: int) -> None:
    random = np.random.default_rng(n)
    x, logits = random.normal(size=(n + 5, 2)).astype(np.float32), random.normal(size=(2, 3)).astype(np.float32)
    y = random.integers(0, 3, n + 5).astype(np.int32)

    class Fixed(Counts):
        def predict(self, problem: ml.Problem, adapted: Any, inputs: Any) -> Any:
            return inputs @ logits

    scores = (
        ml.from_sklearn(metrics.balanced_accuracy_score, predictions="labels"),
        ml.from_sklearn(metrics.f1_score, "macro F1", predictions="labels", average="macro"),
        ml.from_sklearn(metrics.roc_auc_score, "AUC", predictions="probabilities", multi_class="ovr"),
        ml.accuracy,
    )
    problem = ml.Problem(None, ml.CrossEntropy(0.0), scores)
    one = ml.Task.from_arrays(x[:5], y[:5], x[5:], y[5:])
    (record,) = ml.play(problem, [one], Fixed(), ml.OnlineProtocol(chunk=5))
    outputs = x[5:] @ logits
    labels, each = outputs.argmax(axis=1), np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    assert record.score == pytest.approx(metrics.balanced_accuracy_score(y[5:], labels), rel=1e-6)
    assert record.other_scores == {
        "macro F1": pytest.approx(metrics.f1_score(y[5:], labels, average="macro"), rel=1e-6),
        "AUC": pytest.approx(metrics.roc_auc_score(y[5:], each, multi_class="ovr"), rel=1e-5),
        "accuracy": pytest.approx(float((labels == y[5:]).mean()), rel=1e-6),
    }


def test_regression_metrics_of_the_whole_set() -> None:
    stream = [task(i) for i in range(2)]
    scores = ml.from_sklearn(metrics.root_mean_squared_error, higher_is_better=False), ml.from_sklearn(metrics.r2_score)
    problem = ml.Problem(None, ml.squared_error, scores)
    for record, total in zip(ml.play(problem, stream, Counts(), ml.OnlineProtocol(chunk=12)), (12, 24), strict=True):
        truth = stream[record.round - 1].held_out.targets
        assert record.score == pytest.approx(float(np.sqrt(np.square(truth - total).mean())), rel=1e-6)
        assert record.other_scores["r2"] == pytest.approx(metrics.r2_score(truth, np.full_like(truth, total)), rel=1e-6)


def test_inputs_may_be_dicts() -> None:
    def example(i: int) -> ml.Task:
        random = np.random.default_rng(i)
        inputs = {"image": random.normal(size=(20, 3, 3)), "age": random.normal(size=20)}
        inputs = {name: value.astype(np.float32) for name, value in inputs.items()}
        targets = (inputs["image"].sum(axis=(1, 2)) + inputs["age"])[:, None]
        first, rest = ({name: value[part] for name, value in inputs.items()} for part in (slice(12), slice(12, None)))
        return ml.Task.from_arrays(first, targets[:12], rest, targets[12:])

    def apply(params: Any, inputs: Any, weights: Any) -> Any:
        return (inputs["image"].reshape(-1, 9) @ params["w"] + inputs["age"] * params["v"])[:, None]

    model = ml.Model(lambda key: {"w": np.zeros(9), "v": 0.5}, apply)
    problem = ml.Problem(model, ml.squared_error, ml.mean_squared_error)
    learner = ml.FTML(ml.GradientDescent(step_size=0.05), optimizer=ml.Adam(0.1))
    records = list(ml.play(problem, [example(i) for i in range(8)], learner, ml.OnlineProtocol(chunk=6)))
    assert records[-1].loss is not None
    assert records[0].loss is not None
    assert records[-1].loss < 0.2 * records[0].loss
