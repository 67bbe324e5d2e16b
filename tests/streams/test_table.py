"""Tables as streams: kinds, encoding by the first tasks alone, held-out rows, order, and what is refused."""

from __future__ import annotations

import datetime
import warnings
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import metaleader as ml
from metaleader import UserError
from metaleader.streams import Table, from_table

pd = pytest.importorskip("pandas")
TASKS, ROWS = 10, 12


def frame(seed: int = 0) -> Any:
    """Ten users of twelve rows each, in turn; prices depend on the size by a slope of each user."""
    random, n = np.random.default_rng(seed), TASKS * ROWS
    user = np.arange(n) % TASKS
    size = random.normal(50, 10, n)
    return pd.DataFrame(
        {
            "user": [f"u{i}" for i in user],
            "size": np.where(np.arange(n) % 11 == 0, np.nan, size),
            "rooms": random.integers(1, 6, n),
            "city": random.choice(["Rome", "Oslo", "Bern"], n),
            "sold": pd.Timestamp("2024-01-01") + pd.to_timedelta(random.permutation(n), "D"),
            "remark": [f"remark {i}" for i in range(n)],
            "price": 1000 + (user + 1) * size + random.normal(size=n),
        }
    )


def table(data: Any = None, **settings: Any) -> Table:
    return from_table(frame() if data is None else data, **{"group": "user", "target": "price", **settings})


def inputs_of(found: Table) -> np.ndarray:
    return found.examples(np.arange(found.rows))[0]


def targets_of(found: Table) -> np.ndarray:
    return found.examples(np.arange(found.rows))[1]


def named(found: Table, seed: int = 0) -> dict[str, ml.Task]:
    return {task.name: task for task in found.stream(seed)}


def test_kinds_are_found_and_told() -> None:
    found = table()
    assert {column.name: column.kind for column in found.columns} == {
        "size": "numeric",
        "rooms": "numeric",
        "city": "categorical",
        "sold": "date",
    }
    assert found.features == ("size", "rooms", "sold", "size missing", "city=Bern", "city=Oslo", "city=Rome")
    assert found.left_out == ("column 'remark': text, 120 different values",)
    categories = frame().assign(rooms=lambda data: data.rooms.astype("category"))
    assert table(categories).features[3:8] == tuple(f"rooms={i}" for i in range(1, 6))
    told = table(columns={"rooms": "categorical", "city": "left out", "size": "text"})
    assert told.features == ("sold", *(f"rooms={i}" for i in range(1, 6)))
    assert told.left_out[:2] == ("column 'size': text, 109 different values", "column 'city': as told")


def test_describe_says_what_was_understood() -> None:
    data = frame()
    data.loc[data.user == "u3", "price"] = np.nan
    data = data.drop(index=data.index[(data.user == "u4")][3:])
    lines = table(data, order="sold").describe().splitlines()
    assert lines[0] == "8 tasks, one for each 'user', of 12 to 12 rows (median 12); 96 of 111 rows"
    assert lines[1].startswith("target: 'price', regression, scaled by mean 1")
    assert lines[2] == "inputs: 6 numbers of 3 columns"
    assert f"  'size': numeric, {data['size'].isna().sum()} missing" in lines
    assert "held out: last 30%, 32 rows" in lines
    assert "order: tasks by their first row, rows by 'sold'" in lines
    assert any(line.startswith("fitted on the 16 rows to learn from of the first 2 tasks: ") for line in lines)
    assert "  12 rows without a value of 'user' or 'price' or 'sold'" in lines
    assert "  task user=u4: 3 rows, fewer than 5" in lines


@pytest.mark.parametrize("settings", [{}, {"order": "sold"}, {"held_out": "last 25%", "tasks": "time"}])
def test_every_row_in_use_is_in_one_place(settings: Any) -> None:
    found = table(**settings)
    places = [part for task in found.tasks for part in (task.train, task.test) if part is not None]
    np.testing.assert_array_equal(np.sort(np.concatenate(places)), np.arange(TASKS * ROWS))
    users = frame().user.to_numpy()
    for task in found.tasks:
        assert set(users[task.train]) == {task.name.removeprefix("user=")}


def test_encoding_is_that_of_the_first_rows_to_learn_from() -> None:
    data = frame()
    found = table(data, order="sold")
    fit = np.concatenate([task.train for task in found.tasks[: found.first]])
    assert found.first == 2
    rooms = data.rooms.to_numpy(float)
    expected = (rooms - rooms[fit].mean()) / rooms[fit].std()
    np.testing.assert_allclose(inputs_of(found)[:, found.features.index("rooms")], expected, rtol=1e-5)
    size = data["size"].to_numpy()
    expected = np.nan_to_num((size - np.nanmean(size[fit])) / np.nanstd(size[fit]))  # missing ones are the mean
    np.testing.assert_allclose(inputs_of(found)[:, found.features.index("size")], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(inputs_of(found)[:, found.features.index("size missing")], np.isnan(size))
    for city in ("Bern", "Oslo", "Rome"):
        np.testing.assert_array_equal(inputs_of(found)[:, found.features.index(f"city={city}")], data.city == city)
    price = data.price.to_numpy()
    np.testing.assert_allclose(targets_of(found)[:, 0], (price - price[fit].mean()) / price[fit].std(), rtol=1e-4)
    np.testing.assert_allclose(found.unscaled(targets_of(found))[:, 0], price, rtol=1e-5)


@settings(max_examples=10)
@given(st.integers(0, 999), st.sampled_from([{}, {"order": "sold"}, {"held_out": "random 40%", "tasks": "time"}]))
def test_nothing_is_learned_from_later_tasks_and_held_out_rows(seed: int, settings: Any) -> None:
    data, random = frame(), np.random.default_rng(seed)
    before = table(data, **settings)
    fit = np.concatenate([task.train for task in before.tasks[: before.first]])
    changed = np.setdiff1d(np.arange(len(data)), fit)
    data.loc[changed, "size"] = random.choice([np.nan, 1e6, -3.0], len(changed))
    data.loc[changed, "rooms"] = random.integers(-9, 99, len(changed))
    data.loc[changed, "city"] = random.choice(["Rome", "Cairo", "Lima"], len(changed))
    data.loc[changed, "price"] = random.normal(size=len(changed))
    after = table(data, **settings)
    assert after.features == before.features
    assert (after.target.mean, after.target.scale) == (before.target.mean, before.target.scale)
    np.testing.assert_array_equal(inputs_of(after)[fit], inputs_of(before)[fit])
    assert [task.name for task in after.stream(seed)] == [task.name for task in before.stream(seed)]
    for one, other in zip(after.tasks, before.tasks, strict=True):
        np.testing.assert_array_equal(one.train, other.train)


def test_later_categories_count_as_rare_or_as_none() -> None:
    data = frame()
    data.loc[data.index[-1], "city"] = "Lima"
    few = table(data, order="sold", columns={"sold": "left out"}, tasks="time")
    cities = [i for i, name in enumerate(few.features) if name.startswith("city=")]
    assert inputs_of(few)[-1, cities].sum() == (0 if "city=Lima" not in few.features else 1)
    data["street"] = np.where(np.arange(len(data)) % 2 == 0, "Main", [f"street {i}" for i in range(len(data))])
    many = table(data, columns={"street": "categorical"}, fitted_on=6)
    streets = [name for name in many.features if name.startswith("street=")]
    assert len(streets) == 20
    assert streets[-1] == "street=(rare)"
    rows = inputs_of(many)[:, [many.features.index(name) for name in streets]]
    np.testing.assert_array_equal(rows.sum(axis=1), 1)


def test_a_column_without_a_value_in_the_first_tasks_is_left_out() -> None:
    data = frame()
    found = table(data, tasks="time")
    early = data.user.isin([task.name.removeprefix("user=") for task in found.tasks[: found.first]])
    data.loc[early, "size"] = np.nan
    found = table(data, tasks="time")
    assert "column 'size': no value in the first tasks" in found.left_out
    assert "size" not in found.features


def test_held_out_rows() -> None:
    data = frame()
    for held_out, train in (("last 25%", 9), ("random 50%", 6), ("none", 12)):
        for drawn_task in table(data, held_out=held_out).stream(0):
            assert len(drawn_task.train) == train
            assert (drawn_task.test is None) == (held_out == "none")
    by_time = table(data, order="sold")
    for task in by_time.tasks:
        assert task.test is not None
        assert data.sold.to_numpy()[task.train].max() < data.sold.to_numpy()[task.test].min()
    drawn = table(data, held_out="random 30%")
    assert len({tuple(task.test // TASKS) for task in drawn.tasks if task.test is not None}) > 5
    for mark in (np.arange(120) % 3 == 0, np.where(np.arange(120) % 3 == 0, "test", "train")):
        marked = table(data.assign(later=mark), held_out="later")
        assert "later" not in marked.features
        assert "held out: rows marked by 'later', 40 rows" in marked.describe()
        for group in marked.tasks:
            assert group.test is not None
            assert (group.test % 3 == 0).all()
            assert (group.train % 3 != 0).all()
    part = data.assign(later=(np.arange(120) < 60) & (data.user != "u5"))
    assert "task user=u5: none of its 12 rows is held out" in table(part, held_out="later").left_out


def test_orders() -> None:
    data = frame()
    by_time = table(data, order="sold")
    first_rows = data.sort_values("sold").drop_duplicates("user").user
    assert [task.name for task in by_time.stream(0)] == [f"user={user}" for user in first_rows]
    assert [task.name for task in by_time.stream(1)] == [task.name for task in by_time.stream(0)]
    assert all((np.diff(data.sold.to_numpy()[task.train].astype(int)) > 0).all() for task in by_time.tasks)
    drawn = table(data)
    one, two = ([task.name for task in drawn.stream(seed)] for seed in (0, 1))
    assert one != two
    assert sorted(one) == sorted(two)
    assert set(one[:2]) == set(two[:2])  # encoders were fitted on those
    assert [task.name for task in table(data, tasks="time").stream(3)] == [f"user=u{i}" for i in range(TASKS)]


def test_targets_of_all_kinds() -> None:
    data = frame().drop(columns="price")
    dear = np.arange(120) % 7 == 0
    cases: list[tuple[Any, str, tuple[str, ...]]] = [
        (dear, "binary", ("False", "True")),
        (np.where(dear, 1.0, 0.0), "binary", ("0", "1")),
        (np.where(dear, "yes", "no"), "binary", ("no", "yes")),
        (np.arange(120) % 3 + 2, "multi-class", ("2", "3", "4")),
        (np.arange(120) % 50, "regression", ()),
        (np.arange(120) / 7, "regression", ()),
    ]
    for values, kind, classes in cases:
        found = table(data.assign(price=values), columns={"sold": "left out"})
        assert (found.kind, found.classes, found.outputs) == (kind, classes, max(len(classes), 1))
        if classes:
            labels = targets_of(found)
            assert [classes[label] for label in labels] == [str(v).removesuffix(".0") for v in np.asarray(values)]
            assert found.score is ml.accuracy
            with pytest.raises(UserError, match="'price' is of classes, which are not scaled"):
                found.unscaled(np.zeros((1, 2)))
    told = table(data.assign(price=np.arange(120) % 3), columns={"sold": "left out"}, kind="regression")
    assert told.kind == "regression"
    assert told.score.name == "RMSE of price"


def test_dates_are_days() -> None:
    data = frame()
    days = (data.sold - pd.Timestamp("1970-01-01")).dt.days.to_numpy(float)
    for dates in (data.sold, data.sold.dt.date, data.sold.dt.strftime("%Y-%m-%d"), data.sold.dt.tz_localize("UTC")):
        found = table(data.assign(sold=dates))
        fit = np.concatenate([task.train for task in found.tasks[: found.first]])
        scaled = (days - days[fit].mean()) / days[fit].std()
        np.testing.assert_allclose(inputs_of(found)[:, found.features.index("sold")], scaled, rtol=1e-5)
    assert isinstance(data.sold.dt.date[0], datetime.date)


def test_pandas_and_polars_give_the_same() -> None:
    pl = pytest.importorskip("polars")
    data = frame().assign(new=np.arange(120) % 4 == 0, level=pd.array([None, *range(119)], dtype="Int64"))
    data.loc[5, "city"] = None
    columns = {
        name: pl.Series(name, [None if pd.isna(value) else value for value in data[name].to_list()])
        for name in data.columns
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # 'level' counts rows
        one, other = table(data), table(pl.DataFrame(columns))
    assert one.describe() == other.describe()
    np.testing.assert_array_equal(inputs_of(one), inputs_of(other))
    np.testing.assert_array_equal(targets_of(one), targets_of(other))
    for a, b in zip(one.stream(3), other.stream(3), strict=True):
        assert a.checksum == b.checksum


def test_nan_is_missing_in_polars_too() -> None:
    pl = pytest.importorskip("polars")
    data = pl.DataFrame({name: frame()[name].to_list() for name in ("user", "size", "price")})
    data = data.with_columns(level=pl.col("size").floor())
    found = table(data, columns={"level": "categorical"})
    assert {column.name: column.missing for column in found.columns} == {"size": 11, "level": 11}
    assert "level=nan" not in found.features


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({}, {"group": "usr"}, "unknown column 'usr': did you mean user"),
        ({}, {"target": "prize"}, "unknown column 'prize': did you mean price"),
        ({}, {"columns": {"town": "text"}}, "unknown column 'town': "),
        ({}, {"columns": {"city": "number"}}, "column 'city': unknown kind 'number': did you mean numeric"),
        ({}, {"columns": {"city": "numeric"}}, "column 'city' cannot be numeric: row 0 holds 'Oslo'"),
        (
            {},
            {"columns": {"sold": "numeric"}},
            "column 'sold' cannot be numeric: row 0 .* choose 'categorical' or 'date'",
        ),
        ({}, {"columns": {"rooms": "date"}}, "column 'rooms' cannot be a date: row 0 holds"),
        ({}, {"columns": {"price": "numeric"}}, "tells the kind of 'price', which is no input"),
        ({}, {"group": "price"}, "group and target are the same column, 'price'"),
        ({}, {"order": "city"}, "order 'city' must hold times or numbers, got words such as 'Bern'"),
        ({}, {"held_out": "last third"}, "held_out must be 'last 30%' or .* got unknown column 'last third'"),
        ({}, {"held_out": "city"}, "held-out column 'city' must hold true or false.*got Bern, Oslo, Rome"),
        ({"later": [True, None] * 60}, {"held_out": "later"}, r"'later' must hold true or false.*got \(missing\)"),
        ({}, {"kind": "binary"}, "target 'price' has 120 different values, a binary one has 2"),
        ({}, {"target": "city", "kind": "regression"}, "holds words such as 'Bern': a regression needs numbers"),
        ({}, {"target": "remark"}, "target 'remark' holds 120 different words in 120 rows, which is text"),
        ({}, {"target": "sold"}, "target 'sold' holds dates"),
        (
            {"price": [1.0, np.nan] * 60, "sold": [None, pd.Timestamp("2024-01-01")] * 60},
            {"order": "sold"},
            "no row has a value of 'user' and 'price' and 'sold' at once",
        ),
        ({}, {"group": "remark"}, "every value of 'remark' has one row only"),
        (
            {},
            {"smallest": 13},
            "0 of 10 tasks can be learned, at least 2 must be; the largest has 12 rows.*user=u0: 12",
        ),
        ({}, {"fitted_on": 11}, "fitted_on must be from 1 to 10, got 11"),
        ({}, {"smallest": 1}, "smallest must be from 2"),
        ({"price": 3.5}, {}, "target 'price' is constant, always 3.5"),
        ({"user": "me"}, {}, "'user' has one value, 'me', hence there is one task"),
        ({"size": None}, {}, "all values of column 'size' are missing: if it is an input, leave it out by col"),
        ({"size": np.inf}, {}, "column 'size' must hold finite numbers, of 32 bits: row 0 holds inf, one of 120"),
        (
            {"size": [1, "two"] * 60},
            {},
            r"column 'size' mixes types, numbers \(1 in row 0\) and words \('two' in row 1\)",
        ),
        ({"size": [[1]] * 120}, {}, "column 'size' holds values of type list, expected numbers, words or dates"),
        ({"size": 1e300}, {}, "column 'size' must hold finite numbers, of 32 bits: row 0 holds 1e.300"),
        (
            {"size": [*(i * 1e-9 for i in range(119)), 1e38]},
            {"tasks": "time"},
            r"column 'size' holds the number 1e\+38, too large beside those of the first tasks",
        ),
    ],
)
def test_bad_tables_are_refused(change: Any, settings: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        table(frame().assign(**change), **settings)


def test_what_is_no_table_is_refused() -> None:
    data = frame()
    with pytest.raises(UserError, match="names of their own, but 'size' came more than once: rename or drop"):
        table(data.rename(columns={"rooms": "size"}))
    with pytest.raises(UserError, match=r"must be a data frame in memory, of pandas, .* got builtins.dict: make it"):
        table({"user": [1]})
    with pytest.raises(UserError, match="names of columns must be text, got 0"):
        table(pd.DataFrame([[1, 2]]))
    with pytest.raises(UserError, match="the table has no rows"):
        table(data.iloc[:0])
    with pytest.raises(UserError, match="the table has no column to predict 'price' from"):
        table(data[["user", "price"]])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda data: np.log(data.price), "column 'x' determines the target 'price'"),
        (lambda data: 1.2 * data.price.round(1), "column 'x' determines the target 'price'"),
        (lambda data: np.arange(120), "column 'x' looks like an identifier of rows"),
        (lambda data: data.user + " Smith", "column 'x' looks like an identifier of tasks"),
    ],
)
def test_leaks_are_named(values: Any, message: str) -> None:
    data = frame()
    with pytest.warns(UserWarning, match=message):
        found = table(data.assign(x=values(data)))
    assert any(line.startswith(f"warning: {message}") for line in found.describe().splitlines())


def test_leaks_of_classes_are_named() -> None:
    data = frame()
    data["dear"] = data.price > data.price.median()
    with pytest.warns(UserWarning, match="column 'price' determines the target 'dear'"):
        table(data, target="dear")
    data["word"] = np.where(data.dear, "high", "low")
    with pytest.warns(UserWarning, match="column 'word' determines the target 'dear'"):
        table(data.drop(columns="price"), target="dear")


@pytest.mark.parametrize("held_out", ["random 30%", "none"])
def test_ftml_learns_from_a_table(held_out: str) -> None:
    found = table(held_out=held_out, columns={"sold": "left out", "city": "left out", "rooms": "left out"})
    learner = ml.FTML(ml.GradientDescent(steps=3, step_size=0.1), optimizer=ml.Adam(0.01), meta_steps=10)
    protocol = ml.OnlineProtocol(chunk=4)
    results = ml.run(found.problem(ml.MLP(2, 1, width=8)), found.stream, learner, protocol=protocol, progress=False)
    (run,) = results.runs
    assert run.about.score.name == "RMSE of price"
    late = [record.score for record in run.records if record.round > 5 and record.datapoints == 8]
    assert len(late) == 5
    assert np.mean([score or np.inf for score in late]) < 0.5 * frame().price.std()


def test_classes_are_learned_from_a_table() -> None:
    data = frame()
    data["dear"] = np.where(data["size"].fillna(50) > 50, "dear", "cheap")
    data = data.drop(columns=["price"]).assign(
        size=data["size"].fillna(50) + np.random.default_rng(0).normal(0, 2, 120)
    )
    found = table(data, target="dear", order="sold")
    results = ml.run(
        found.problem(), found.stream, ml.FTL(steps=30), protocol=ml.OnlineProtocol(chunk=8), progress=False
    )
    assert results.runs[0].records[-1].score is not None
    assert results.runs[0].records[-1].score > 0.6
