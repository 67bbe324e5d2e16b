"""A learner that lives on the rows of a table: they are told as they are, in any form, and predicted in its words."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from living import EAGER, LEARNER, leaves, log

import metaleader as ml
from metaleader import UserError
from metaleader.learners import external
from metaleader.live import Live
from metaleader.streams import Table, from_table

ROWS = 48


def frame() -> pl.DataFrame:
    random, i = np.random.default_rng(0), np.arange(ROWS)
    x = random.normal(size=ROWS).round(2)
    return pl.DataFrame(
        {
            "user": [f"u{k}" for k in i % 4],
            "x": [None if k % 11 == 0 else v for k, v in enumerate(x.tolist())],
            "city": random.choice(["Rome", "Oslo"], ROWS),
            "y": 1000 + 50 * x + 10 * random.normal(size=ROWS),
            "like": random.choice(["no", "yes", "so"], ROWS),
            "grade": random.choice([1.0, 2.0, 5.0], ROWS),
            "hot": random.integers(0, 2, ROWS),
            "big": random.integers(0, 2, ROWS),
        }
    )


def table(target: Any = "y") -> Table:
    targets = [target] if isinstance(target, str) else target
    return from_table(frame().select("user", "x", "city", *targets), group="user", target=target)


def made(folder: Path, target: Any = "y", learner: Any = LEARNER) -> Live:
    found = table(target)
    model = ml.MLP(len(found.features), found.outputs, width=4, depth=1)
    return Live.create(folder, found.problem(model), learner, table=found, pace=EAGER)


@pytest.mark.parametrize("target", ["y", "like", "grade", ["hot", "big"]], ids=str)
def test_rows_are_learned_as_the_table_encodes_them(tmp_path: Path, target: Any) -> None:
    found, data = table(target), frame()
    targets = list(found.target.columns)
    inputs, encoded = found.examples(np.arange(ROWS))
    with made(tmp_path / "live", target) as live:
        assert live.encoder == found.encoder
        assert live.classes == found.classes
        zero_shot = live.predict("u0", data.drop(targets)[:3])
        live.learn("u0", data[:4], ids=list("abcd"))
        records = data[:4].to_dicts()
        assert live.learn("u0", json.loads(json.dumps(records)), ids=list("abcd")).new == 0
        apart = data[:4].drop(targets), data[:4].select(targets) if len(targets) > 1 else data[targets[0]][:4]
        assert live.learn("u0", *apart, ids=list("abcd")).new == 0
        live.learn_encoded("u1", ml.Batch.of(inputs[4:8], encoded[4:8]))
        live.learn("u2", data[4:8])
        live.wait()
        stored = [row[4] for row in log(live.folder)]
        assert stored[4:8] == stored[8:12]
        for i, row in enumerate(stored[:4]):
            assert row == inputs[i].tobytes() + encoded[i].tobytes()
        predicted = live.predict("u0", {name: data[name][:3].to_list() for name in ("x", "city")})
        adapted = live.adapt(data[:4]).predict(data[:3])
        np.testing.assert_allclose(adapted, predicted, rtol=1e-5)
        outputs = len(found.classes) or 1
        for given in (zero_shot, predicted):
            assert given.shape == (3, outputs)
            if target == "y":
                assert np.abs(given - 1000).max() < 300
            else:
                assert (given > 0).all()
                assert (given < 1).all()
            if isinstance(target, str) and target != "y":
                np.testing.assert_allclose(given.sum(axis=1), 1, rtol=1e-5)
        weights = leaves(live)
    with Live.open(tmp_path / "live") as live:  # the folder tells all
        live.wait()
        assert leaves(live) == weights
        assert live.encoder == found.encoder
        np.testing.assert_array_equal(live.predict("u0", data[:3]), predicted)


def test_tasks_are_known_by_words(tmp_path: Path) -> None:
    with made(tmp_path / "live") as live:
        live.learn(7, frame()[:2])
        assert live.tasks() == {"7": 2}
        np.testing.assert_array_equal(live.predict(7, frame()[:2]), live.predict("7", frame()[:2]))
        live.forget(np.int64(7))  # type: ignore[arg-type]
        assert live.tasks() == {}


def test_what_cannot_be_encoded_is_refused_and_not_stored(tmp_path: Path) -> None:
    data = frame()
    with made(tmp_path / "live", "like") as live:
        for x, y, message in (
            (data.drop("city"), None, "unknown column 'city'"),
            (data.drop("like"), None, "unknown column 'like'"),
            (data[:2], ["no", "maybe"], "'like' has no class maybe: its classes are no, so, yes"),
            (data[:2], ["no", None], "target 'like' lacks a value in row 1"),
            (data[:2], ["no"], "as many inputs as targets"),
            (data[:2].with_columns(x=pl.lit("many")), None, "column 'x' cannot be numeric: row 0 holds 'many'"),
            (np.zeros((2, 3)), ["no", "no"], "a table must be a data frame in memory.*got numpy.ndarray"),
        ):
            with pytest.raises(ValueError, match=message):
                live.learn("a", x, y)
            with pytest.raises(ValueError, match=message):
                live.adapt(x, y)
        assert live.tasks() == {}
        with pytest.raises(ValueError, match="labels must be from 0 to 2"):
            live.learn_encoded("a", ml.Batch.of(np.zeros((1, 4), np.float32), np.array([3], np.int32)))


def test_targets_must_be_given_where_there_is_no_table(tmp_path: Path) -> None:
    problem = ml.Problem(ml.MLP(1), ml.squared_error, ml.mean_squared_error)
    with (
        Live.create(tmp_path / "live", problem, LEARNER) as live,
        pytest.raises(UserError, match="targets are missing: give y"),
    ):
        live.learn("a", np.zeros((1, 1), np.float32))


def test_a_problem_that_does_not_fit_the_table_is_refused(tmp_path: Path) -> None:
    found = table()
    with pytest.raises(ValueError, match="the first datapoints"):
        Live.create(tmp_path / "live", found.problem(ml.MLP(7)), LEARNER, table=found)
    assert not (tmp_path / "live" / "log.sqlite").exists()


@pytest.mark.parametrize(
    "unit", [None, {"name": "y", "classes": [], "mean": 0.0, "scale": 1.0}], ids=["arrays", "unit"]
)
def test_an_older_folder_opens_or_says_what_to_do(tmp_path: Path, unit: Any) -> None:
    folder = tmp_path / "live"
    problem = ml.Problem(ml.MLP(1), ml.squared_error, ml.mean_squared_error)
    with Live.create(folder, problem, LEARNER) as live:
        live.learn("a", np.ones((2, 1), np.float32), np.ones((2, 1), np.float32))
        live.wait()
        weights = leaves(live)
    connection = sqlite3.connect(folder / "log.sqlite")
    (told,) = connection.execute("SELECT value FROM about WHERE name = 'settings'").fetchone()
    told = json.dumps({**json.loads(told), "unit": unit})
    connection.execute("UPDATE about SET value = ? WHERE name = 'settings'", [told])
    connection.commit()
    connection.close()
    if unit is None:
        with Live.open(folder) as live:
            assert leaves(live) == weights
    else:
        with pytest.raises(
            UserError, match=r"made by an earlier version.*Live.create\(folder, problem, learner, table"
        ):
            Live.open(folder)


RIVALS = [
    (target, name)
    for target, kind in (("y", "regression"), ("like", "multi-class"))
    for name in external.compared(kind)
]


@pytest.mark.parametrize(("target", "name"), RIVALS)
def test_every_rival_lives_and_comes_back(tmp_path: Path, target: str, name: str) -> None:
    found, data = table(target), frame()
    learner = external.compared(found.kind)[name]
    with made(tmp_path / "live", target, learner) as live:
        for task in ("u0", "u1", "u2", "u3"):
            live.learn(task, data.filter(pl.col("user") == task))
        live.wait()
        predicted = live.predict("u1", data[:5]), live.predict("new", data[:5])
        score = live.score()
    with Live.open(tmp_path / "live") as live:
        live.wait()
        assert live.learner == learner
        assert live.score() == score
        for task, before in zip(("u1", "new"), predicted, strict=True):
            np.testing.assert_array_equal(live.predict(task, data[:5]), before)
