"""Tables of several labels a row, rows that arrive by time, and new rows."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from sklearn import metrics

import metaleader as ml
from metaleader import UserError
from metaleader.streams import Table, from_table

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
USERS, N = 5, 80


def frame(seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    x, user = random.normal(size=N), np.arange(N) % USERS
    return pd.DataFrame(
        {
            "user": [f"u{i}" for i in user],
            "x": x,
            "city": random.choice(["Rome", "Oslo"], N),
            "time": random.permutation(N) // 2,
            "hot": (x + 0.5 * random.normal(size=N) > 0).astype(int),
            "big": x + 0.5 * random.normal(size=N) < 0.5,
            "tags": [
                ["a"] * bool(x[i] > 0.3 * (i % 4)) + ["b"] * (i % 3 == 0) + ["c", "c"] * (i % 7 == 0) for i in range(N)
            ],
            "y": 3 * x + user + random.normal(size=N),
        }
    )


def labels_of(table: Table) -> np.ndarray:
    return table.examples(np.arange(table.rows))[1]


def test_several_columns_are_labels() -> None:
    data = frame()
    table = from_table(data[["user", "x", "hot", "big"]], group="user", target=["hot", "big"])
    assert (table.kind, table.classes, table.outputs, table.target.name) == (
        "multi-label",
        ("hot", "big"),
        2,
        "hot, big",
    )
    np.testing.assert_array_equal(labels_of(table), np.column_stack([data.hot, data.big]).astype(np.float32))
    assert "target: 'hot, big', multi-label, 2 labels, any number a row: hot, big" in table.describe().splitlines()
    assert table.loss is ml.sigmoid_cross_entropy
    assert table.score is ml.label_accuracy
    results = ml.run(table.problem(), table.stream, ml.FTL(steps=20), progress=False)
    assert (results.runs[0].records[-1].score or 0) > 0.6
    assert table.decode(np.array([[1.0, -1.0], [-1.0, -1.0], [0.5, 2.0]])).tolist() == [("hot",), (), ("hot", "big")]


def test_a_column_of_lists_is_labels(tmp_path: Path) -> None:
    data = frame()[["user", "x", "tags"]]
    table = from_table(data, group="user", target="tags")
    assert (table.kind, table.classes, table.outputs) == ("multi-label", ("a", "b", "c"), 3)
    expected = [[name in tags for name in "abc"] for tags in data.tags]
    np.testing.assert_array_equal(labels_of(table), np.array(expected, np.float32))
    pl.DataFrame({name: data[name].to_list() for name in data}).write_parquet(tmp_path / "t.parquet")
    pl.DataFrame({name: data[name].to_list() for name in data}).write_ndjson(tmp_path / "t.jsonl")
    for name in ("t.parquet", "t.jsonl"):
        for on_disk in (False, True):
            again = from_table(tmp_path / name, group="user", target="tags", on_disk=on_disk)
            assert [t.checksum for t in again.stream(1)] == [t.checksum for t in table.stream(1)]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 6))
def test_loss_and_score_of_labels_are_those_of_scikit_learn(seed: int, n: int, labels: int) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, labels)).astype(np.float32)
    y = random.integers(0, 2, (n, labels)).astype(np.float32)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = np.mean([metrics.log_loss(y[:, j], p[:, j], labels=[0, 1]) for j in range(labels)])
    assert float(np.mean(ml.sigmoid_cross_entropy(logits, y))) == pytest.approx(expected, rel=1e-5)
    right = 1 - metrics.hamming_loss(y.astype(int).reshape(-1), (logits > 0).astype(int).reshape(-1))
    assert float(np.mean(ml.label_accuracy.function(logits, y))) == pytest.approx(right)
    for function in (ml.sigmoid_cross_entropy, ml.label_accuracy.function):
        with pytest.raises(ValueError, match=r"outputs have shape \(\d, \d\), targets \(\d,\): make them equal"):
            function(logits, y[:, 0])


@pytest.mark.parametrize(
    ("change", "target", "options", "message"),
    [
        (
            {"hot": 2.0},
            ["hot", "big"],
            {},
            "target 'hot' must hold 0 or 1 in every row, as one of several labels; got 2",
        ),
        ({}, ["hot", "city"], {}, "target 'city' must hold 0 or 1 in every row, as one of several labels; got Oslo"),
        ({"hot": 1, "big": 0}, ["hot", "big"], {}, "every target of 'hot, big' is constant"),
        ({}, ["hot", "hot"], {}, "target and target are the same column, 'hot'"),
        ({}, ["hot", "tags"], {}, "target 'tags' holds lists: give it alone"),
        ({}, [], {}, "target names no column"),
        ({}, ["hot", "big"], {"kind": "binary"}, "target 'hot, big' holds several labels a row, kind is 'binary'"),
        ({}, "hot", {"kind": "multi-label"}, "target 'hot' holds one value a row: for several labels, give several"),
        ({"tags": [[]] * N}, "tags", {}, "target 'tags' holds empty lists only"),
        ({}, "y", {}, "column 'tags' holds values of type list, expected numbers, words or dates"),
    ],
)
def test_bad_labels_are_refused(change: Any, target: Any, options: Any, message: str) -> None:
    data = frame().assign(**change)
    data = data if "tags" in message else data.drop(columns="tags")
    with pytest.raises(UserError, match=message):
        from_table(data, group="user", target=target, **options)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["none", "last 30%", "random 20%"]))
def test_rows_arrive_by_time(seed: int, held_out: str) -> None:
    data = frame(seed)[["user", "x", "time", "y"]]
    table = from_table(data, group="user", target="y", order="time", arrive="by time", held_out=held_out)
    plain = from_table(data, group="user", target="y", order="time", held_out=held_out)
    arrivals = table.arrivals
    assert arrivals is not None
    np.testing.assert_array_equal(np.sort(arrivals.rows), np.sort(np.concatenate([t.train for t in plain.tasks])))
    assert (np.diff(data.time.to_numpy()[arrivals.rows]) >= 0).all()
    rounds, mean, scale = list(table.stream(seed)), table.target.mean, table.target.scale
    assert len(rounds) == len(arrivals.ends) > USERS
    for i, task in enumerate(rounds):
        rows = arrivals.of(i)
        assert task.key == task.name == f"user={data.user[rows[0]]}"
        assert set(data.user[rows]) == {data.user[rows[0]]}
        np.testing.assert_allclose(task.train.targets[:, 0] * scale + mean, data.y[rows], rtol=1e-4, atol=1e-4)
        if i:
            assert task.key != rounds[i - 1].key
    fit = arrivals.rows[: table.fit]
    assert table.fit == -(-len(arrivals.rows) // 5)
    assert (mean, scale) == pytest.approx((data.y[fit].mean(), data.y[fit].std(ddof=0)))
    tests = {group.name: group.test for group in plain.tasks}
    for task in rounds:
        expected = tests[task.name]
        assert (task.test is None) == (expected is None)
        if task.test is not None and expected is not None:
            np.testing.assert_allclose(task.test.targets[:, 0] * scale + mean, data.y[expected], rtol=1e-4, atol=1e-4)


def test_a_table_by_time_is_told_and_learned() -> None:
    data = frame()[["user", "x", "time", "y"]]
    table = from_table(data, group="user", target="y", order="time", arrive="by time", held_out="none")
    assert (
        f"order: rows by 'time', in {len(table.stream(0))} rounds; tasks interleave and come back" in table.describe()
    )
    assert "fitted on the first 16 rows to learn from: " in table.describe()
    results = ml.run(
        table.problem(), table.stream, ml.FTL(steps=5), protocol=ml.OnlineProtocol(chunk=1), progress=False
    )
    assert [record.datapoints for record in results.runs[0].records if record.task == "user=u0"] == list(range(16))


def test_arrivals_are_checked() -> None:
    data = frame().drop(columns="tags")
    for options, message in (
        ({"arrive": "by day"}, "unknown arrival 'by day'"),
        ({"arrive": "by time"}, "arrive='by time' needs order="),
        ({"arrive": "by time", "order": "time", "tasks": "seed"}, "cannot be ordered by seed"),
        ({"arrive": "by time", "order": "time", "fitted_on": 1000}, "fitted_on must be from 1 to"),
    ):
        with pytest.raises(UserError, match=message):
            getattr(from_table, "__wrapped__", from_table)(data, group="user", target="y", **options)


def test_new_rows_are_encoded_as_those_of_the_table() -> None:
    data = (
        frame()
        .drop(columns="tags")
        .assign(
            day=pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(N) * 3 % 80, "D"),
            x=0.1 * frame().x,
            level=np.where(np.arange(N) % 5 == 0, np.nan, np.arange(N) % 13 + 0.5),
        )
    )
    table = from_table(data, group="user", target="y", columns={"hot": "categorical"})
    expected = table.examples(np.arange(N))[0]
    new = data.drop(columns=["user", "y"])
    np.testing.assert_array_equal(table.encode(new), expected)
    for part in (new[3:4], new[:1].assign(level=None)):
        np.testing.assert_array_equal(table.encode(part)[0], expected[part.index[0]])
    dicts = [{str(k): None if pd.isna(v) else v for k, v in row.items()} for row in new.to_dict("records")]
    np.testing.assert_array_equal(table.encode(dicts), expected)
    np.testing.assert_array_equal(table.encode({**dicts[7], "unknown": 3}), expected[7:8])
    np.testing.assert_array_equal(table.encode(pl.DataFrame(dicts)), expected)
    other = table.encode({**dicts[0], "city": "Lima", "day": datetime.date(2024, 1, 1)})
    assert other[0, [table.features.index(f"city={name}") for name in ("Oslo", "Rome")]].tolist() == [0, 0]
    for rows, message in (
        ({**dicts[0], "x": np.inf}, "column 'x' must hold finite numbers, of 32 bits: row 0 holds inf"),
        ({**dicts[0], "x": "many"}, "column 'x' cannot be numeric: row 0 holds 'many'"),
        ({**dicts[0], "x": 3e38}, "column 'x' holds the number 3e.38, too large beside those of the first tasks"),
        ({k: v for k, v in dicts[0].items() if k != "city"}, "unknown column 'city': "),
        (new.drop(columns="city"), "unknown column 'city': "),
        (3, "a table must be a data frame in memory"),
        (new[:0], "the table has no rows"),
    ):
        with pytest.raises(UserError, match=message):
            table.encode(rows)


def test_predictions_are_decoded() -> None:
    data = frame().drop(columns="tags")
    table = from_table(data, group="user", target="y")
    np.testing.assert_allclose(table.decode(labels_of(table)), data.y, rtol=1e-4, atol=1e-5)
    classes = from_table(data, group="user", target="city")
    assert classes.decode(np.array([[0.0, 1.0], [2.0, 1.0]])).tolist() == ["Rome", "Oslo"]
