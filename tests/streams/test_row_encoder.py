"""A table's preprocessing as plain data: what scikit-learn does, from JSON, and for rows in every form."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from metaleader import UserError
from metaleader.streams import RowEncoder, Table, frames, from_table
from metaleader.streams.columns import Column, survey
from metaleader.streams.encoding import CATEGORIES, fitted
from metaleader.streams.objects import MISSING

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
FINITE = st.floats(-1e12, 1e12, allow_subnormal=False)
NUMBERS = FINITE | st.just(np.nan) | st.sampled_from([0.0, 1.0, 0.1])
WORDS = st.sampled_from([MISSING, *map(str, range(40))]) | st.text(max_size=3)


def again(encoder: RowEncoder) -> RowEncoder:
    """As a folder would give it back."""
    return RowEncoder.from_json(json.loads(json.dumps(encoder.as_json(), allow_nan=False)))


@st.composite
def columns(draw: st.DrawFn) -> tuple[list[Column], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Columns, their values in a fit, and others."""
    rows, more = draw(st.integers(1, 60)), draw(st.integers(1, 8))
    kinds = draw(st.lists(st.sampled_from(["numeric", "date", "categorical"]), min_size=1, max_size=5))
    found, fit, new = [], {}, {}
    for i, kind in enumerate(kinds):
        values = WORDS if kind == "categorical" else NUMBERS
        own, others = (draw(st.lists(values, min_size=n, max_size=n)) for n in (rows, more))
        name, dtype = f"c{i}", object if kind == "categorical" else np.float64
        found.append(Column(name, kind, 0))  # type: ignore[arg-type]
        fit[name], new[name] = np.array(own, dtype), np.array(others, dtype)
        if kind != "categorical" and np.isnan(fit[name]).all():
            fit[name][0] = 1.5
    return found, fit, new


@settings(max_examples=150, deadline=None)
@given(columns())
def test_it_is_what_scikit_learn_does(drawn: Any) -> None:
    found, fit, new = drawn
    encoding = fitted(found, fit)
    numbers = [c.name for c in found if c.kind != "categorical"]
    categories = [c.name for c in found if c.kind == "categorical"]
    for values in (fit, new):
        expected = []
        if numbers:
            scaler = make_pipeline(StandardScaler(), SimpleImputer(add_indicator=True))
            scaler.fit(np.column_stack([fit[name] for name in numbers]))
            expected.append(scaler.transform(np.column_stack([values[name] for name in numbers])))
        if categories:
            one_hot = OneHotEncoder(
                handle_unknown="infrequent_if_exist", max_categories=CATEGORIES, sparse_output=False
            )
            one_hot.fit(np.column_stack([fit[name] for name in categories]))
            expected.append(one_hot.transform(np.column_stack([values[name] for name in categories])))
        together = np.hstack(expected)
        if np.abs(together).max() < 1e38:
            np.testing.assert_array_equal(encoding(values), together.astype(np.float32), strict=True)
            assert encoding(values).shape[1] == len(encoding.features)


@pytest.mark.parametrize("kinds", [0, 10, CATEGORIES, CATEGORIES + 1, 50])
def test_rare_categories_are_taken_together(kinds: int) -> None:
    words = np.array([MISSING, *(str(i) for i in range(kinds) for _ in range(1 + i % 3))], object)
    encoding = fitted([Column("c", "categorical", 0)], {"c": words})
    (category,) = encoding.categories
    assert category.rare == (kinds + 1 > CATEGORIES)
    assert len(encoding.features) == min(kinds + 1, CATEGORIES)
    never_met = encoding({"c": np.array(["never met"], object)})
    assert never_met.sum() == never_met[0, -1] == category.rare


def frame(rows: int = 60) -> Any:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "user": np.arange(rows) % 6,
            "x": np.where(np.arange(rows) % 7 == 0, np.nan, random.normal(3e4, 1e-1, rows)),
            "n": random.integers(0, 9, rows),
            "open": np.arange(rows) % 3 == 0,
            "city": [["Rome", None, "Oslo", "Köln"][i % 4] for i in range(rows)],
            "day": pd.Timestamp("2024-01-01 13:00") + pd.to_timedelta(random.permutation(rows), "D"),
            "y": random.normal(1e6, 3.0, rows),
            "like": [("no", "yes", "so")[i * i % 7 % 3] for i in range(rows)],
            "grade": [float(i * i % 5) for i in range(rows)],
            "tags": [["a", "b", "c"][: i * i % 11 % 4] for i in range(rows)],
            "hot": [i * i % 7 % 2 for i in range(rows)],
            "big": [i * i % 11 % 2 for i in range(rows)],
        }
    )


def table(target: Any = "y", **told: Any) -> Table:
    names = ["user", "x", "n", "open", "city", "day", *([target] if isinstance(target, str) else target)]
    return from_table(frame()[names], group="user", target=target, columns={"n": "categorical"}, **told)


TARGETS = ["y", "like", "grade", "tags", ["hot", "big"]]


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_rows_in_every_form_are_encoded_as_in_the_table(target: Any) -> None:
    data, found = frame(), table(target)
    inputs, targets = found.examples(np.arange(len(data)))
    encoder = again(found.encoder)
    assert encoder == found.encoder
    assert (encoder.features, encoder.classes) == (found.features, found.classes)
    records = [
        {
            **{k: None if v is None or v is pd.NaT or v != v else v for k, v in row.items() if k != "tags"},
            "day": row["day"].isoformat() + "Z",
            "tags": row["tags"],
        }
        for row in data.to_dict("records")
    ]
    as_columns = {name: data[name].tolist() for name in data}
    of_polars = pl.DataFrame(
        {name: [row[name] for row in records] for name in records[0]} | {"day": data.day.to_list()}
    )
    for rows in (data, of_polars, as_columns, {n: data[n].to_numpy() for n in data}):
        np.testing.assert_array_equal(encoder.encode(rows), inputs)
        np.testing.assert_array_equal(encoder.targets(rows), targets)
    decoded = json.loads(json.dumps(records))
    np.testing.assert_array_equal(encoder.encode(decoded), inputs)
    np.testing.assert_array_equal(encoder.targets(decoded), targets)
    np.testing.assert_array_equal(encoder.encode(decoded[3]), inputs[3:4])
    np.testing.assert_array_equal(encoder.targets(decoded[3]), targets[3:4])
    apart = [data[list(target)], data[list(target)].to_numpy()] if isinstance(target, list) else [data[target]]
    if isinstance(target, str):
        apart += [data[target].tolist(), pl.Series(data[target].tolist())]
    for y in apart:
        np.testing.assert_array_equal(encoder.told(y), targets)
    if target == "y":
        np.testing.assert_array_equal(encoder.told(data[["y"]].to_numpy()), targets)
        np.testing.assert_array_equal(encoder.told(float(data.y[2])), targets[2:3])
        np.testing.assert_allclose(encoder.decode(targets), data.y, rtol=1e-9)


def test_a_word_never_met_counts_as_none() -> None:
    found = table()
    row = {"x": 30000.0, "n": 3, "open": False, "city": "Lima", "day": datetime.date(2024, 1, 1)}
    cities = [i for i, name in enumerate(found.features) if name.startswith("city=")]
    assert len(cities) == 4
    assert found.encoder.encode(row)[0, cities].sum() == 0


def test_values_of_several_types_are_read_by_the_kind_of_their_column() -> None:
    row = {"x": 30000.0, "n": 3, "open": False, "city": "Rome", "day": "2024-01-01"}
    other = {"x": "3e4", "n": "3", "open": 0, "city": "Rome", "day": datetime.datetime(2024, 1, 1)}
    encoder = table().encoder
    np.testing.assert_array_equal(encoder.encode([row, other]), encoder.encode([row, row]))


ROW = {"x": 30000.0, "n": 3, "open": False, "city": "Rome", "day": "2024-01-01", "y": 1.0, "like": "no"}
BAD_ROWS: dict[str, tuple[Any, str]] = {
    "no such column": ({k: v for k, v in ROW.items() if k != "city"} | {"citty": "Rome"}, "'city': did you mean citty"),
    "a word": (ROW | {"x": "many"}, "column 'x' cannot be numeric: row 0 holds 'many'"),
    "a date": (ROW | {"x": datetime.date(2024, 1, 1)}, "column 'x' cannot be numeric: row 0 holds datetime.date"),
    "infinite": ([ROW, ROW | {"x": float("inf")}], "column 'x' must hold finite numbers, of 32 bits: row 1 holds inf"),
    "beyond floats": (ROW | {"x": 10**400}, "column 'x' cannot be numeric"),
    "too large": (ROW | {"x": 3e38}, "column 'x' holds the number 3e.38, too large beside"),
    "no date": (ROW | {"day": "soon"}, "column 'day' cannot be a date: row 0 holds 'soon'"),
    "a number for a date": (ROW | {"day": 3}, "column 'day' cannot be a date: row 0 holds 3"),
    "a list": (
        ROW | {"city": ["Rome"]},
        r"column 'city' must hold a word or a number in every row: row 0 holds \['Rome'",
    ),
    "a dict": (ROW | {"city": {"a": 1}}, "column 'city' must hold a word or a number in every row"),
    "no rows": ([], "there are no rows"),
    "no columns of rows": ({name: [] for name in ROW}, "there are no rows"),
    "lengths": ({**{name: [v, v] for name, v in ROW.items()}, "x": [1.0]}, "as many values each, got 1 of 'x'"),
    "a number": (3, "a table must be a data frame"),
    "an array": (np.zeros((2, 3)), "a table must be a data frame"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows_are_refused(name: str) -> None:
    rows, message = BAD_ROWS[name]
    with pytest.raises(UserError, match=message):
        table().encoder.encode(rows)


def test_a_category_is_known_however_a_file_or_a_data_frame_spells_it(tmp_path: Path) -> None:
    """Learned from a CSV file, asked by JSON or a data frame; and the other way round."""
    path = tmp_path / "t.csv"
    rows = [f"{user},{i % 2 == 0},{'1.0' if i % 3 else '2.0'},{i % 7},{i % 5 < 2}" for user in "ab" for i in range(30)]
    path.write_text("user,flag,code,x,like\n" + "\n".join(rows).replace("True", "true").replace("False", "false"))
    kinds = {"flag": "categorical", "code": "categorical"}
    of_file = from_table(path, group="user", target="like", columns=kinds)
    data = pd.DataFrame({"flag": [True, False], "code": [1, 2], "x": [0.5, 0.5]})
    written = [{"flag": flag, "code": code, "x": 0.5} for flag, code in (("true", "1.0"), ("false", "2.0"))]
    told = [{"flag": True, "code": 1, "x": 0.5}, {"flag": False, "code": 2.0, "x": 0.5}]
    forms = (data, written, told)
    users = pd.DataFrame({"user": list("ab") * 30, "x": range(60)})
    users = users.assign(flag=users.x % 4 < 2, code=1 + users.x % 3 // 2, like=users.x % 5 < 2, x=users.x % 7)
    for encoder in (of_file.encoder, from_table(users, group="user", target="like", columns=kinds).encoder):
        encoded = [encoder.encode(rows) for rows in forms]
        for other in encoded[1:]:
            np.testing.assert_array_equal(encoded[0], other)
        assert (encoded[0].sum(axis=0) != 0).all()  # every category was found
        answers = [encoder.told(y).tolist() for y in ([True, False], ["true", "false"], np.array([True, False]))]
        assert answers[0] == answers[1] == answers[2]
        assert len(set(answers[0])) == 2


BAD_TARGETS: dict[str, tuple[Any, Any, str]] = {
    "a word": ("y", "many", "column 'y' cannot be numeric"),
    "missing": ("y", [1.0, None], "target 'y' lacks a value in row 1"),
    "infinite": ("y", [np.inf], "column 'y' must hold finite numbers"),
    "two numbers": ("y", [[1.0, 2.0]], "column 'y' cannot be numeric: row 0 holds"),
    "a class": ("like", ["no", "maybe"], "'like' has no class maybe: its classes are no, so, yes"),
    "a number between": ("grade", [0.5], "'grade' has no class 0.5: its classes are 0, 1, 4"),
    "a label": ("tags", [["a"], ["d", "a"]], "'tags' has no class d: its classes are a, b, c"),
    "no list": ("tags", ["a"], "column 'tags' must hold a list of labels in every row: row 0 holds 'a'"),
    "two": (["hot", "big"], [[0, 2]], "'hot, big' has no class 2: its classes are 0 and 1"),
    "of another shape": (["hot", "big"], [0, 1], r"targets must have shape \(n, 2\), a column for each of hot, big"),
    "of a column": (["hot", "big"], {"hot": [1]}, "unknown column 'big'"),
}


@pytest.mark.parametrize("name", BAD_TARGETS)
def test_bad_targets_are_refused(name: str) -> None:
    target, y, message = BAD_TARGETS[name]
    with pytest.raises(UserError, match=message):
        table(target).encoder.told(y)


def test_a_target_too_large_beside_the_first_is_refused() -> None:
    data = frame().assign(y=np.arange(60) * 1e-30)
    found = from_table(data[["user", "x", "y"]], group="user", target="y")
    with pytest.raises(UserError, match=r"target 'y' holds the number 1e\+30 in row 0, too large"):
        found.encoder.told([1e30])


def test_what_is_no_encoder_is_refused() -> None:
    told = table().encoder.as_json()
    with pytest.raises(UserError, match="preprocessing of version 2 cannot be read, this metaleader reads 1"):
        RowEncoder.from_json({**told, "version": 2})
    with pytest.raises(UserError, match="preprocessing is damaged"):
        RowEncoder.from_json({"version": 1, "inputs": told["inputs"]})


def test_dates_that_are_empty_are_missing_and_other_forms_refused() -> None:
    for nothing in ("", "NaT", np.datetime64("NaT"), None):
        found = frames.values_of([{"d": nothing}, {"d": "1970-01-02"}], {"d": "date"}, "d")["d"]
        np.testing.assert_array_equal(found, [np.nan, 1.0])
    for odd in ("today", "now", "20240131", "2024", "2024-01"):
        with pytest.raises(UserError, match="cannot be a date: row 0"):
            frames.values_of([{"d": odd}], {"d": "date"}, "d")
    read = frames.frame(pd.DataFrame({"d": ["", "1970-01-02", "NaT"]}))
    known = survey([read], {"d": "date"})["d"]
    assert (known.kind, known.missing, known.low, known.high) == ("date", 2, 1.0, 1.0)
