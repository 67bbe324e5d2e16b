"""A learner that lives: it predicts as a plain loop would, keeps what it is told, and forgets what it shall."""

import logging
import os
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import polars as pl
import pytest
from living import EAGER, LEARNER, PROBLEM, Counts, as_bytes, example, groups, leaves, log, plainly, points, told
from test_store import small_files

import metaleader as ml
from metaleader import UserError
from metaleader.errors import WriteError
from metaleader.live import Live, Pace, check, snapshot
from metaleader.streams import from_table
from problems import LEARNERS


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    with Live.create(tmp_path / "live", PROBLEM, LEARNER, pace=EAGER) as live:
        yield live


def test_weights_predictions_and_score_are_those_of_a_plain_loop(live: Live) -> None:
    with pytest.raises(UserError, match="nothing was learned yet"):
        live.predict("t0", points(0)[0])
    assert live.tasks() == {}
    assert live.score().overall.datapoints == 0
    told(live, range(12))
    live.wait()
    steps = groups(log(live.folder))
    state, errors = plainly(steps)
    assert leaves(live) == as_bytes(state)
    assert live.tasks() == {"t0": 8, "t1": 8, "t2": 8}
    score, mean = live.score(), pytest.approx
    assert score.overall.datapoints == 24
    assert score.overall.values == {"loss": mean(np.mean(errors)), "squared error": mean(np.mean(errors))}
    by_age: dict[int, list[float]] = {}
    for i, error in enumerate(errors):
        before = i // 6 * 2  # of a group of two, after groups of two of each of three tasks
        by_age.setdefault({0: 0, 2: 2, 4: 3, 6: 5}[before], []).append(error)
    assert {age: found.values["loss"] for age, found in score.by_age.items()} == {
        age: mean(np.mean(of)) for age, of in by_age.items()
    }
    x = points(50, 5)[0]
    of_task = [batch for task, batch in steps if task == "t1"]
    data = ml.Batch.of(*(np.concatenate([getattr(b, name) for b in of_task]) for name in ("inputs", "targets")))
    adapted, _ = LEARNER.adapt(PROBLEM, state, "t1", data)
    assert np.array_equal(live.predict("t1", x), LEARNER.predict(PROBLEM, adapted, x))
    before, _ = LEARNER.adapt(PROBLEM, state, "new", data[:0])
    assert np.array_equal(live.predict("new", x), LEARNER.predict(PROBLEM, before, x))  # zero-shot
    assert np.array_equal(live.adapt(data.inputs, data.targets).predict(x), live.predict("t1", x))
    assert "new" not in live.tasks()


def test_the_recent_window_and_scores_of_whole_sets(tmp_path: Path) -> None:
    days = [float(i * 7 % 13) for i in range(40)]
    frame = pl.DataFrame({"shop": list("abcd") * 10, "day": days, "sales": [100.0 + i % 17 / 3 for i in range(40)]})
    table = from_table(frame, group="shop", target="sales")
    problem = table.problem(ml.MLP(len(table.features), width=4, depth=1))
    folder, sales = tmp_path / "live", frame["sales"].to_numpy()
    with Live.create(folder, problem, LEARNER, table=table, window=6, pace=EAGER) as live:
        predicted: list[Any] = []
        for i in range(0, 20, 2):
            predicted.append(live.predict("a", frame[i : i + 2]))
            live.learn("a", frame[i : i + 2])
            live.wait()
        recent = live.score().recent
        errors = np.concatenate(predicted[-3:])[:, 0] - sales[14:20]
        assert recent.datapoints == 6
        assert recent.values["RMSE of sales"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-3)
        assert np.abs(predicted[-1] - 103).max() < 20  # in the unit of the target
        expected = live.score()
    with Live.open(folder) as live:  # made of plain data
        assert live.problem == problem
        assert live.score() == expected


X, Y = np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float32)
NAN = np.array([[0.0], [np.nan]], np.float32)
BAD: dict[str, tuple[Any, str]] = {
    "x of another shape": (("a", np.zeros((2, 3), np.float32), Y), "inputs are float32 of shape \\(3,\\)"),
    "y of another shape": (("a", X, np.zeros(2, np.float32)), "targets are float32 of shape \\(\\)"),
    "another type": (("a", X.astype(int), Y), "inputs are int64"),
    "NaN in x": (("a", NAN, Y), "inputs must be finite: example 1"),
    "inf in y": (("a", X, Y + np.inf), "targets must be finite: example 0"),
    "lengths": (("a", X, Y[:1]), "as many inputs as targets"),
    "nothing": (("a", X[:0], Y[:0]), "at least one"),
    "text": (("a", [["u"], ["v"]], Y), "inputs"),
    "a dict": (("a", {"x": X}, Y), "inputs are PyTreeDef"),
    "no task": ((None, X, Y), "a task's key must be an integer or a string"),
    "a truth": ((True, X, Y), "a task's key must be an integer or a string"),
    "half a character": (("\ud800", X, Y), "a task's key must be text.*surrogates"),
    "a long key": (("a" * 201, X, Y), "at most 200 characters, got 201"),
    "ids too few": (("a", X, Y, ["1"]), "ids must be 2 names, one a datapoint, got 1"),
    "one string": (("a", X, Y, "12"), "got one string"),
    "ids of numbers": (("a", X, Y, [1, 2]), "an id must be a printable string"),
    "ids empty": (("a", X, Y, ["", "1"]), "an id must be a printable string"),
    "ids too long": (("a", X, Y, ["x" * 201, "1"]), "1 to 200 characters"),
}


@pytest.mark.parametrize("begun", [False, True])
def test_what_does_not_fit_is_refused_and_nothing_is_stored(tmp_path: Path, begun: bool) -> None:
    with Live.create(tmp_path / "live", PROBLEM, LEARNER, example=example() if begun else None, pace=EAGER) as live:
        for name, (arguments, message) in BAD.items():
            if begun or name not in ("a dict", "y of another shape", "x of another shape", "another type"):
                with pytest.raises(ValueError, match=message):
                    live.learn(*arguments)
        for x in (NAN, np.zeros((2, 3), np.float32), {"x": X}):
            with pytest.raises(ValueError, match="inputs" if begun else "nothing was learned"):
                live.predict("a", x)
        if not begun:
            with pytest.raises(ValueError, match=r"the first datapoints: .*the net expects 1"):
                live.learn("a", np.zeros((2, 3), np.float32), Y)
        assert live.tasks() == {}
        assert log(live.folder) == []
        live.learn("a", X.astype(np.float64), Y.astype(np.float64))  # as JAX has them
        live.wait()
        assert live.tasks() == {"a": 2}


def test_opened_again_it_is_where_it_was_and_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    with Live.create(tmp_path / "live", PROBLEM, LEARNER, pace=EAGER) as live:
        told(live, range(5))
        live.wait()
        state, score, x = leaves(live), live.score(), points(9, 4)[0]
        predicted = live.predict("t1", x)
    with pytest.raises(UserError, match="is closed"):
        live.predict("t1", x)
    with pytest.raises(UserError, match="is closed"):
        live.learn("t1", *points(1))
    with Live.open(tmp_path / "live", PROBLEM, LEARNER) as live:
        assert live.backlog == 0
        assert leaves(live) == state
        assert live.score() == score
        assert np.array_equal(live.predict("t1", x), predicted)
        told(live, range(3, 9))  # the first two again
        live.wait()
        assert leaves(live) == as_bytes(plainly(groups(log(live.folder)))[0])
        assert live.tasks() == {"t0": 6, "t1": 6, "t2": 6}


OTHERS = ("ftml-averaged", "toe-last", "ftl-multi-head", "scratch", "streaming")


@pytest.mark.parametrize("name", ["ftml-reservoir", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_any_learner_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    learner = LEARNERS[name]
    with Live.create(tmp_path / "whole", PROBLEM, learner, pace=EAGER) as whole:
        told(whole, range(8), n=3)
        whole.wait()
        expected = leaves(whole)
    for part in range(0, 8, 4):
        opened = Live.open(tmp_path / "live") if part else Live.create(tmp_path / "live", PROBLEM, learner)
        with opened as live:
            told(live, range(part, part + 4), n=3)
            live.wait()
            found = leaves(live)
    assert found == expected


def newest(folder: Path) -> Path:
    return max((folder / "snapshots").glob("*.snapshot"))


@pytest.mark.parametrize("damage", ["cut off", "a bit", "empty", "of another state", "all"])
def test_a_damaged_snapshot_gives_way_to_the_one_before_and_the_log(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "live"
    with Live.create(folder, PROBLEM, LEARNER, pace=EAGER) as live:
        for part in (range(3), range(3, 5)):
            told(live, part)
            live.wait()
            live.save()
        state = leaves(live)
    content = newest(folder).read_bytes()
    (folder / "snapshots" / ".0123.tmp").write_bytes(content[:1000])  # of a process that was killed
    if damage == "of another state":
        from metaleader.live import snapshot

        found = snapshot.unpacked(content, "it")
        newest(folder).write_bytes(snapshot.packed(found._replace(leaves=found.leaves[1:])))
    elif damage == "a bit":
        middle = len(content) // 2
        newest(folder).write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        for path in [newest(folder)] if damage != "all" else (folder / "snapshots").glob("*.snapshot"):
            path.write_bytes(b"" if damage == "empty" else content[: len(content) // 3])
    if damage != "of another state":
        assert any("damaged" in fault for fault in check(folder).faults)
    with pytest.warns(RuntimeWarning, match="going on from what was saved before"):
        live = Live.open(folder)
    with live:
        live.wait()
        assert leaves(live) == state
    assert check(folder).faults == ()
    assert not list(folder.rglob("*.tmp"))


MARK = 12345.678


def in_files(folder: Path, value: bytes) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and value in path.read_bytes()]


@pytest.mark.parametrize("learner", [LEARNER, LEARNERS["ftl-multi-head"], Counts()], ids=["ftml", "multi-head", "own"])
def test_what_is_forgotten_is_in_no_file_and_rebuilding_removes_what_it_taught(tmp_path: Path, learner: Any) -> None:
    folder, mark = tmp_path / "live", np.full((3, 1), MARK, np.float32)
    with Live.create(folder, PROBLEM, learner, pace=Pace(refresh=0, snapshot=0)) as live:
        told(live, range(3))
        live.learn("secretive", mark, mark, ids=["s-1", "s-2", "s-3"])
        told(live, range(3, 6))
        live.wait()
        assert set(in_files(folder, mark[:1].tobytes())) >= {"log.sqlite-wal"}
        x = points(3, 4)[0]
        shown = live.predict("secretive", x)
        forgotten = live.forget("secretive")
        assert forgotten == ("secretive", 3, learner is LEARNER)
        for trace in (mark[:1].tobytes(), b"secretive", b"s-2"):
            assert in_files(folder, trace) == []
        assert live.tasks() == {"t0": 4, "t1": 4, "t2": 4}
        assert live.score().recent.datapoints == 12
        with pytest.raises(UserError, match="task 'secretive' is not known"):
            live.forget("secretive")
        told(live, range(6, 8))
        live.wait()
        state = leaves(live) if learner is LEARNER else None
        zero_shot = live.predict("secretive", x)
        assert np.array_equal(zero_shot, live.predict("never seen", x))
        assert not np.array_equal(zero_shot, shown)
    with Live.open(folder, PROBLEM, learner, pace=EAGER) as live:
        if state is not None:
            live.wait()
            assert leaves(live) == state
        live.rebuild()
        with Live.create(tmp_path / "other", PROBLEM, learner) as other:
            told(other, range(8))
            other.wait()
            assert leaves(live) == leaves(other)
            assert live.score() == other.score()
            assert np.array_equal(live.predict("t1", x), other.predict("t1", x))
            state = leaves(other)
    with Live.open(folder, PROBLEM, learner) as live:
        live.wait()
        assert leaves(live) == state
        assert live.learn("secretive", *points(3), ids=["s-1"]).new == 1  # it may come back


def test_forgetting_leaves_the_weights_and_all_other_datapoints(live: Live) -> None:
    told(live, range(7))
    live.wait()
    before = live._worker.progress.state  # type: ignore[union-attr]
    weights = as_bytes((before.params, before.opt_state))
    live.forget("t1")
    after = live._worker.progress.state  # type: ignore[union-attr]
    assert as_bytes((after.params, after.opt_state)) == weights
    buffer = after.buffer
    assert buffer.counts[:3].tolist() == [6, 4, 0]
    kept = np.asarray(buffer.data.inputs)[buffer.order[:10], 0]
    expected = [points(i, 2)[0] for i in (0, 3, 6, 2, 5)]
    assert np.array_equal(kept, np.concatenate(expected)[:, 0])
    told(live, range(7, 12))  # goes on, the task as a new one
    live.wait()
    assert live.tasks() == {"t0": 8, "t2": 8, "t1": 4}


@pytest.mark.parametrize("step", ["shelf.Files.write", "shelf.Files.tidy", "store.Store.delete", "store.Store._wipe"])
def test_forgetting_that_was_cut_short_is_finished_when_opened_again(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Live.create(tmp_path / "whole", PROBLEM, LEARNER, pace=EAGER) as whole:
        told(whole, range(6))
        whole.forget("t1")
        told(whole, range(6, 9))
        whole.wait()
        expected, score = leaves(whole), whole.score()

    def refused(*_: Any) -> None:
        raise WriteError("the disk is full")

    folder = tmp_path / "live"
    with Live.create(folder, PROBLEM, LEARNER, pace=EAGER) as live:
        told(live, range(2))
        live.wait()
        live.save()
        told(live, range(2, 6))
        with monkeypatch.context() as patch:
            patch.setattr(f"metaleader.live.{step}", refused)
            with pytest.raises(WriteError, match="the disk is full"):
                live.forget("t1")
            shutil.copytree(folder, tmp_path / "killed")
        assert "t1" not in live.tasks()
        live.save()  # which finishes it
        assert [in_files(folder, points(i, 2)[0][:1].tobytes()) for i in (1, 4)] == [[], []]
    for path in (tmp_path / "killed").glob(".owner"):
        path.unlink()
    with Live.open(tmp_path / "killed", pace=EAGER) as live:
        live.wait()
        assert [in_files(live.folder, points(i, 2)[0][:1].tobytes()) for i in (1, 4)] == [[], []]
        told(live, range(6, 9))
        live.wait()
        assert leaves(live) == expected
        assert live.score() == score
        assert live.tasks() == {"t0": 6, "t1": 2, "t2": 6}


def test_a_disk_that_is_full_for_a_while_loses_nothing_and_learns_the_same(tmp_path: Path) -> None:
    x, y = points(3, 1000)
    with Live.create(tmp_path / "live", PROBLEM, LEARNER, example=example(), pace=Pace(snapshot=0.01)) as live:
        acknowledged = 0

        def learn() -> int:
            return live.learn("a", x, y, ids=[f"{acknowledged}-{j}" for j in range(1000)]).new

        with small_files(500_000):
            with suppress(WriteError):
                while acknowledged < 1000 and learn():
                    acknowledged += 1
            with pytest.raises(WriteError, match="make room on the disk"):
                learn()
            assert np.isfinite(live.predict("a", x[:3])).all()
        assert live.tasks() == {"a": 1000 * acknowledged}
        assert learn() == 1000
        live.wait()
        assert leaves(live) == as_bytes(plainly(groups(log(live.folder)))[0])
    assert check(tmp_path / "live").faults == ()


class Waits:
    """A learner that waits to learn until it may."""

    def __init__(self) -> None:
        self.learning, self.may = threading.Event(), threading.Event()

    def init(self, problem: ml.Problem, key: Any, example: ml.Batch) -> Any:
        return LEARNER.init(problem, key, example)

    def observe(self, problem: ml.Problem, state: Any, task: int | str, batch: ml.Batch) -> tuple[Any, int]:
        self.learning.set()
        learned = LEARNER.observe(problem, state, task, batch)  # uses up the buffer
        assert self.may.wait(60)
        return learned

    def adapt(self, problem: ml.Problem, state: Any, task: int | str, batch: ml.Batch) -> tuple[Any, int]:
        return LEARNER.adapt(problem, state, task, batch)

    def predict(self, problem: ml.Problem, adapted: Any, inputs: Any) -> Any:
        return LEARNER.predict(problem, adapted, inputs)


def test_predicting_waits_for_no_learning_and_uses_all_that_was_acknowledged(tmp_path: Path) -> None:
    learner = Waits()
    with Live.create(tmp_path / "live", PROBLEM, learner, example=example(), pace=EAGER) as live:
        x, y = points(1, 5)
        before = live.predict("a", x)
        live.learn("a", x, y)
        assert learner.learning.wait(60)
        adapted = live.predict("a", x)  # while its buffer is used up, and learning has not ended
        assert not learner.may.is_set()
        assert not np.array_equal(adapted, before)
        assert np.array_equal(adapted, live.adapt(x, y).predict(x))
        live.learn("b", x, -y)  # nor does storing
        assert live.tasks() == {"a": 5, "b": 5}
        assert live.backlog == 10
        with pytest.raises(UserError, match=r"not all is learned after 0\.01 seconds"):
            live.wait(0.01)
        learner.may.set()
        live.wait()
        assert live.backlog == 0
        assert not np.array_equal(live.predict("a", x), adapted)


def test_many_threads_at_once(tmp_path: Path) -> None:
    with Live.create(tmp_path / "live", PROBLEM, LEARNER, pace=Pace(refresh=0.01, snapshot=0.05)) as live:
        faults: list[BaseException] = []

        def work(k: int) -> None:
            try:
                for i in range(10):
                    live.learn(f"t{i % 3}", *points(100 * k + i, 2))
                    assert np.isfinite(live.predict(f"t{(i + k) % 4}", points(i, 3)[0])).all()
                    live.score()
            except BaseException as fault:
                faults.append(fault)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        live.wait()
        assert faults == []
        state, errors = plainly(groups(log(live.folder)))
        assert leaves(live) == as_bytes(state)
        assert live.score().overall.values["loss"] == pytest.approx(np.mean(errors))


def test_a_store_that_does_not_answer_for_a_while_closes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise WriteError("cannot read the log")

    with Live.create(tmp_path / "live", PROBLEM, LEARNER, pace=EAGER) as live:
        with monkeypatch.context() as patch:
            patch.setattr("metaleader.live.store.Store.about", refused)
            with pytest.raises(WriteError, match="cannot read the log"):
                live.learn("a", *points(1))
        assert live.learn("a", *points(1)).new == 1
        live.wait()
        assert live.status().learned == live.status().stored == 1


def test_waiting_takes_no_longer_than_it_is_given(tmp_path: Path) -> None:
    begun, end = threading.Event(), threading.Event()

    class Slow(type(LEARNER)):  # type: ignore[misc] # a class is what type gives
        def observe(self, problem: Any, state: Any, task: Any, batch: Any) -> Any:
            if task == "slow":
                begun.set()
                end.wait(20)
            return super().observe(problem, state, task, batch)

    pace = Pace(refresh=1000.0)  # seconds between two states by which it predicts: who waits asks for one
    with Live.create(tmp_path / "live", PROBLEM, Slow(), example=example(), pace=pace) as live:
        live.learn("a", *points(1))
        live.wait()
        live.learn("a", *points(2))
        known = live._store.last
        live.learn("slow", *points(3))
        begun.wait(20)  # what came before is learned then, but not published
        worker = live._worker
        assert worker is not None
        assert worker.progress.sequence >= known > worker.published.sequence
        with pytest.raises(UserError, match=r"not all is learned after 0\.05 seconds"):
            worker.wait(known, 0.05)
        end.set()
        live.wait()


def test_one_that_follows_says_what_is_stored_though_nobody_asks_it_to_predict(tmp_path: Path) -> None:
    with (
        Live.create(tmp_path / "live", PROBLEM, LEARNER, example=example(), pace=EAGER) as live,
        Live.follow(tmp_path / "live", pace=EAGER) as follower,
    ):
        live.learn("a", *points(1, 4))
        until = time.monotonic() + 20
        while follower.status().datapoints < 4:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_states_of_any_number_type_come_back_as_they_were() -> None:
    kept: list[Any] = [
        np.arange(3, dtype=">f4"),
        np.ones((2, 0), ml_dtypes.bfloat16),
        np.float64(2.5),
        np.array([True]),
    ]
    half = np.array([0.5, -3.0], ml_dtypes.bfloat16)
    state = snapshot.flattened(kept, jax.tree.structure(kept))
    found = snapshot.unpacked(snapshot.packed(snapshot.Snapshot(3, state, {"half": half}, {})), "it")
    for before, after in zip(kept, found.leaves, strict=True):
        assert np.array_equal(before, after)
        assert after.dtype == before.dtype.newbyteorder("=")
    assert found.arrays["half"].dtype == half.dtype
    assert np.array_equal(found.arrays["half"], half)
    with pytest.raises(snapshot.Unsaveable, match="holds a ndarray"):
        snapshot.flattened([np.array(["a"])], jax.tree.structure([0]))


def test_only_one_may_have_it_open(live: Live) -> None:
    live.learn("a", *points(1))
    with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
        Live.open(live.folder)
    with pytest.raises(UserError, match="in use by process"):
        Live.create(live.folder, PROBLEM, LEARNER)
    assert check(live.folder) == (1, 1, 0, ())  # it may be looked at


def test_other_settings_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "live"
    Live.create(folder, PROBLEM, LEARNER, seed=3).close()
    for other, message in (
        (
            (ml.Problem(ml.MLP(width=5, depth=1), ml.squared_error, ml.mean_squared_error), LEARNER),
            "problem.model.width = 4, now it is 5",
        ),
        ((PROBLEM, ml.FTML(ml.GradientDescent(3), 1, 2, 3, 3)), "learner.update.steps = 2, now it is 3"),
        ((PROBLEM, ml.Scratch()), "learner.type"),
        ((PROBLEM, Counts()), "learner"),
    ):
        with pytest.raises(UserError, match=message):
            Live.open(folder, *other)
    with pytest.raises(UserError, match="holds a learner already"):
        Live.create(folder, PROBLEM, LEARNER)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("")
    with pytest.raises(UserError, match="holds other files"):
        Live.create(tmp_path / "full", PROBLEM, LEARNER)
    with pytest.raises(UserError, match="holds no learner"):
        Live.open(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(UserError, match="window must be at least 1"):
        Live.create(tmp_path / "none", PROBLEM, LEARNER, window=0)
    for bad in ({"share": 0}, {"share": 1.5}, {"refresh": -1}, {"cache_bytes": -1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Pace(**bad)


@pytest.mark.parametrize("name", LEARNERS)
def test_learners_and_problems_of_this_package_are_made_of_plain_data(name: str, tmp_path: Path) -> None:
    problem = ml.Problem(ml.MLP(2, 3), ml.CrossEntropy(0.2), (ml.accuracy,))
    Live.create(tmp_path / "live", problem, LEARNERS[name]).close()
    with Live.open(tmp_path / "live") as live:
        assert live.problem == problem
        assert live.learner == LEARNERS[name]


def test_own_code_is_never_loaded_from_a_folder(tmp_path: Path) -> None:
    own = ml.Problem(
        ml.Model(lambda key: {"w": np.zeros(1)}, lambda w, x, _: x * w["w"]), ml.squared_error, ml.mean_squared_error
    )
    both: list[tuple[ml.Problem, ml.Learner]] = [(own, LEARNER), (PROBLEM, Counts())]
    for i, (problem, learner) in enumerate(both):
        Live.create(tmp_path / str(i), problem, learner).close()
        with pytest.raises(
            UserError, match=r"does not tell all of its problem and learner .*: open it by Live.open\(folder, problem"
        ):
            Live.open(tmp_path / str(i))
        with Live.open(tmp_path / str(i), problem, learner) as live:
            live.learn("a", *points(1))
            live.wait()


def test_a_state_of_another_form_has_no_snapshots_and_is_learned_anew(tmp_path: Path) -> None:
    with Live.create(tmp_path / "live", PROBLEM, Counts(), pace=EAGER) as live:
        told(live, range(4))
        live.wait()
        with pytest.raises(UserError, match="another structure than its `init` gave"):
            live.save()
        assert live.predict("t0", X).tolist() == [[8.0], [8.0]]
    with Live.open(tmp_path / "live", PROBLEM, Counts()) as live:
        live.wait()
        assert live.predict("t0", X).tolist() == [[8.0], [8.0]]


class Fails(Counts):
    """A learner that fails at the third group."""

    def observe(self, problem: ml.Problem, state: Any, task: int | str, batch: ml.Batch) -> tuple[Any, int]:
        if len(state) == 2:
            raise RuntimeError("no more room")
        return super().observe(problem, state, task, batch)


def test_a_learner_that_fails_says_so_and_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL), Live.create(tmp_path / "live", PROBLEM, Fails(), pace=EAGER) as live:
        told(live, range(2))
        live.wait()
        told(live, [2])
        for call in (live.wait, live.save, live.rebuild, lambda: live.forget("t0"), lambda: told(live, [5])):
            with pytest.raises(UserError, match="learning ended by an error after event 4 of the log: no more room"):
                call()
        assert live.predict("t0", X).tolist() == [[4.0], [4.0]]
        assert live.tasks() == {"t0": 2, "t1": 2, "t2": 2}
    assert check(tmp_path / "live").datapoints == 6


def test_back_ups_are_whole_while_all_goes_on(live: Live, tmp_path: Path) -> None:
    live.backup(tmp_path / "empty")
    told(live, range(4))
    live.wait()
    live.save()
    told(live, range(4, 6))
    live.backup(tmp_path / "copy")
    told(live, range(6, 8))
    with pytest.raises(UserError, match="exists already"):
        live.backup(tmp_path / "copy")
    assert check(tmp_path / "copy") == (12, 3, 1, ())
    with Live.open(tmp_path / "copy") as copy:
        told(copy, range(6, 8))
        copy.wait()
        live.wait()
        assert leaves(copy) == leaves(live)
    with Live.open(tmp_path / "empty") as copy:
        assert copy.tasks() == {}


def test_checking_finds_what_was_changed(tmp_path: Path) -> None:
    folder = tmp_path / "live"
    with Live.create(folder, PROBLEM, LEARNER, pace=EAGER) as live:
        told(live, range(4))
        live.wait()
    assert check(folder) == (8, 3, 1, ())
    for change, fault in (
        ("UPDATE datapoints SET data = x'0000000000000000' WHERE sequence = 3", "datapoint 3 is not what was stored"),
        ("DELETE FROM datapoints WHERE sequence = 5", "datapoint 6 is not where it belongs"),
        ("DELETE FROM datapoints WHERE sequence = 8", "the last group lacks 1 datapoints"),
        ("UPDATE datapoints SET id = '0-0', task = '\"t0\"' WHERE sequence = 7", "its id was there before"),
        ("DELETE FROM datapoints WHERE sequence > 6", "has learned event 8, the log ends with 6"),
    ):
        log_file, before = folder / "log.sqlite", (folder / "log.sqlite").read_bytes()
        connection = sqlite3.connect(log_file)
        connection.execute(change)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        assert any(fault in line for line in check(folder).faults), change
        log_file.write_bytes(before)
    assert check(folder).faults == ()


def test_memory_for_what_was_adapted_is_bounded(tmp_path: Path) -> None:
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(PROBLEM.init(jax.random.key(0))))
    with Live.create(tmp_path / "live", PROBLEM, LEARNER, example=example(), pace=Pace(cache_bytes=3 * size)) as live:
        for i in range(6):
            live.predict(f"new {i}", X)
        assert len(live._cache) == 3
        assert live._cache.bytes == 3 * size
        version = 0, live._worker.published.version  # type: ignore[union-attr]
        kept = live._cache.get("new 3", version)
        assert kept is not None  # and is now the one used last
        live.predict("new 6", X)
        assert live._cache.get("new 4", version) is None
        assert live._cache.get("new 3", version) is kept


def test_a_share_of_a_core_is_a_matter_of_time_alone(live: Live, tmp_path: Path) -> None:
    with Live.create(tmp_path / "slow", PROBLEM, LEARNER, pace=Pace(share=0.5)) as slow:
        for each in (live, slow):
            told(each, range(4))
            each.wait()
        assert leaves(slow) == leaves(live)


def test_structured_inputs(tmp_path: Path) -> None:
    def apply(params: Any, inputs: Any, weights: Any) -> Any:
        return (inputs["image"].reshape(-1, 9) @ params["w"] + inputs["more"][0] * params["v"])[:, None]

    def data(seed: int, n: int) -> Any:
        chance = np.random.default_rng(seed)
        image, age = (chance.integers(0, 255, (n, 3, 3)).astype(np.uint8), chance.normal(size=n).astype(np.float32))
        return {"more": (age,), "image": image}, (age * 2)[:, None]

    model = ml.Model(lambda key: {"w": np.zeros(9, np.float32), "v": np.float32(0.5)}, apply)
    problem = ml.Problem(model, ml.squared_error, ml.mean_squared_error)
    learner = ml.FTML(ml.GradientDescent(2, 1e-5), meta_steps=1)
    x, y = data(0, 4)
    with Live.create(tmp_path / "live", problem, learner, pace=EAGER) as live:
        live.learn("a", x, y)
        live.learn("a", *data(1, 2))
    with Live.open(tmp_path / "live", problem, learner) as live:
        live.wait()
        buffer = live._worker.progress.state.buffer  # type: ignore[union-attr]
        assert np.array_equal(np.asarray(buffer.data.inputs["image"])[:4], x["image"])
        assert np.array_equal(np.asarray(buffer.data.inputs["more"][0])[4:6], data(1, 2)[0]["more"][0])
        assert live.predict("b", data(2, 3)[0]).shape == (3, 1)


def test_without_sqlalchemy_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("log", "place", "postgres", "shared", "sqlite", "store", "tables"):
        monkeypatch.delitem(sys.modules, f"metaleader.live.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(UserError, match=r"SQLAlchemy is not installed: pip install 'metaleader\[serve\]'"):
        Live.create(tmp_path / "live", PROBLEM, LEARNER)
    assert not (tmp_path / "live").exists()


def test_a_folder_whose_making_was_cut_short_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "live"
    folder.mkdir()
    (folder / "log.sqlite").write_bytes(b"")
    with pytest.raises(UserError, match="holds no learner"):
        Live.open(folder)
    with pytest.raises(ValueError, match="the first datapoints: "):
        Live.create(tmp_path / "other", PROBLEM, LEARNER, example=ml.Batch.of(np.zeros((2, 3)), np.zeros((2, 1))))
    assert not (tmp_path / "other").exists()
    Live.create(folder, PROBLEM, LEARNER, example=example()).close()
    with Live.open(folder) as live:
        assert live.predict("a", X).shape == (2, 1)  # what datapoints are like was stored with the rest
