"""Tables in files: formats, what CSV means, what is refused, and that tables on disk are those in memory."""

from __future__ import annotations

import errno
import gzip
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import metaleader as ml
from metaleader import UserError
from metaleader.streams import Table, from_table, rows

pl = pytest.importorskip("polars")
ROLES: dict[str, Any] = {"group": "user", "target": "price"}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So small chunks and parts that every table has several."""
    monkeypatch.setattr(rows, "CHUNK", 7)
    monkeypatch.setattr(rows, "PART", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # leaks, of so few rows
        yield


def frame(seed: int, tasks: int = 9) -> Any:
    """Users of some rows each, in random order, with missing values in every column; users 0 and 1 have few rows."""
    random = np.random.default_rng(seed)
    user = np.repeat(np.arange(tasks), [2, 4, *random.integers(5, 30, tasks - 2)])
    random.shuffle(user)
    n = len(user)

    def some(values: Any, share: float = 0.1) -> Any:
        return pl.Series([None if random.uniform() < share else value for value in values])

    return pl.DataFrame(
        {
            "user": [f"u{i}" for i in user],
            "size": some(random.normal(50, 10, n).tolist()),
            "rooms": some(random.integers(1, 6, n).tolist()),
            "city": some(random.choice(["Rome", "Oslo", "Bern"], n).tolist()),
            "street": some([f"street {i}" for i in random.integers(0, 40, n)]),
            "sold": some([f"2024-{1 + i // 28:02}-{1 + i % 28:02}" for i in random.integers(0, 200, n).tolist()]),
            "late": some((random.uniform(size=n) < 0.4).tolist(), 0.0),
            "price": some((1000 + (user + 1) * random.normal(5, 1, n)).tolist()),
        }
    )


def write_gzip(data: Any, path: Path) -> None:
    path.write_bytes(gzip.compress(data.write_csv().encode()))


WRITERS: dict[str, Callable[[Any, Path], Any]] = {
    "t.csv": lambda data, path: data.write_csv(path),
    "t.csv.gz": write_gzip,
    "t.tsv": lambda data, path: data.write_csv(path, separator="\t"),
    "t.parquet": lambda data, path: data.write_parquet(path, row_group_size=20),
    "t.feather": lambda data, path: data.write_ipc(path),
    "t.arrow": lambda data, path: data.with_columns(pl.col("city").cast(pl.Categorical)).write_ipc(path),
    "t.jsonl": lambda data, path: data.write_ndjson(path),
}


class Same(NamedTuple):
    """What must be equal, bit for bit."""

    told: str
    features: tuple[str, ...]
    names: list[str]
    checksums: list[str]


def facts(table: Table, seed: int = 3) -> Same:
    told = table.describe().replace(", on disk, grouped by task", "")
    stream = table.stream(seed)
    return Same(told, table.features, [task.name for task in stream], [task.checksum for task in stream])


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_the_data_frame(name: str, tmp_path: Path) -> None:
    data = frame(0)
    WRITERS[name](data, tmp_path / name)
    if "csv" in name or "tsv" in name:  # where truth values are words
        data = data.with_columns(late=pl.col("late").cast(pl.String))
    expected = facts(from_table(data, **ROLES))
    assert facts(from_table(tmp_path / name, **ROLES)) == expected
    assert facts(from_table(str(tmp_path / name), on_disk=True, scratch=tmp_path, **ROLES)) == expected


SETTINGS: list[dict[str, Any]] = [
    {},
    {"order": "sold"},
    {"order": "sold", "columns": {"sold": "date", "street": "categorical"}, "held_out": "random 40%"},
    {"held_out": "late", "fitted_on": 4, "smallest": 3},
    {"held_out": "none", "tasks": "time"},
    {"order": "sold", "arrive": "by time"},
    {"order": "rooms", "arrive": "by time", "held_out": "none", "fitted_on": 30},
    {"target": "rooms", "kind": "multi-class"},
    {"target": "city", "columns": {"street": "left out"}},
    {"target": "late", "order": "sold", "smallest": 12},
]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_table_on_disk_is_that_in_memory(seed: int, settings: Any, tmp_path: Path) -> None:
    data = frame(seed)
    data.write_parquet(tmp_path / "t.parquet", row_group_size=11)
    in_memory = from_table(data, **{**ROLES, **settings})
    on_disk = from_table(tmp_path / "t.parquet", on_disk=True, **{**ROLES, **settings})
    assert on_disk.on_disk
    assert not in_memory.on_disk
    assert facts(on_disk, seed) == facts(in_memory, seed)
    assert ", on disk, grouped by task" in on_disk.describe()
    assert (on_disk.target.mean, on_disk.target.scale) == (in_memory.target.mean, in_memory.target.scale)
    assert on_disk.warnings == in_memory.warnings


def test_large_files_stay_on_disk_and_the_copy_goes_with_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame(0).write_parquet(tmp_path / "t.parquet")
    assert not from_table(tmp_path / "t.parquet", **ROLES).on_disk
    monkeypatch.setattr("metaleader.streams.files.LIMIT", 100)
    assert not from_table(tmp_path / "t.parquet", on_disk=False, **ROLES).on_disk
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    table = from_table(tmp_path / "t.parquet", scratch=scratch, **ROLES)
    assert table.on_disk
    (copy,) = scratch.iterdir()
    assert len(list(copy.glob("*.arrow"))) > 3
    assert not list(copy.glob("*.parts"))
    (tmp_path / "t.parquet").unlink()  # it is needed no longer
    learner = ml.FTL(steps=2)
    results = ml.run(table.problem(), table.stream, learner, rounds=3, progress=False)
    assert len(results.runs[0].records) >= 3
    del table, results
    import gc

    gc.collect()
    assert list(scratch.iterdir()) == []


def test_a_disk_without_room_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame(0).write_parquet(tmp_path / "t.parquet")
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(rows, "_sort", full)
        with pytest.raises(UserError, match=f"needs more room in {scratch}, where .* GB are free: choose another"):
            from_table(tmp_path / "t.parquet", on_disk=True, scratch=scratch, **ROLES)
    assert list(scratch.iterdir()) == []
    usage = shutil.disk_usage(scratch)._replace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(UserError, match=r"grouped by task, needs about .* GB in .*, where 1e-06 GB are free"):
            from_table(tmp_path / "t.parquet", on_disk=True, scratch=scratch, **ROLES)
    assert list(scratch.iterdir()) == []
    with pytest.raises(UserError, match=r"scratch: cannot make a folder in .*none: No such file"):
        from_table(tmp_path / "t.parquet", on_disk=True, scratch=tmp_path / "none", **ROLES)


def csv(tmp_path: Path, **columns: Any) -> Path:
    """A CSV file of 30 rows, with what `columns` say as it is written."""
    n = 30
    given = {
        "user": [f"u{i % 3}" for i in range(n)],
        "size": [str(i * 0.5) for i in range(n)],
        "price": [str(1.5 * (i % 7) + i % 3) for i in range(n)],
        **{name: [values[i % len(values)] for i in range(n)] for name, values in columns.items()},
    }
    lines = [",".join(given), *(",".join(row) for row in zip(*given.values(), strict=True))]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_csv_fields_mean(on_disk: bool, tmp_path: Path) -> None:
    path = csv(
        tmp_path,
        postcode=["01067", "80331", "00199"],
        quoted=['"a, b"', '"c ""d"""', "e"],
        decimal=["-1.5e3", " 2", "+.5", "7."],
        gap=["", "NA", "NaN", "null", "1", '""', "2"],
        word_gap=["x", "", "N/A", "y"],
        whole=["1", "2", "3", "4"],
    )
    table = from_table(path, **ROLES, on_disk=on_disk, fitted_on=3)
    kinds = {column.name: (column.kind, column.missing) for column in table.columns}
    assert kinds == {
        "size": ("numeric", 0),
        "postcode": ("categorical", 0),
        "quoted": ("categorical", 0),
        "decimal": ("numeric", 0),
        "gap": ("numeric", 22),
        "word_gap": ("categorical", 15),
        "whole": ("numeric", 0),
    }
    assert [name for name in table.features if name[:6] in ("postco", "quoted")] == [
        "postcode=00199",
        "postcode=01067",
        "postcode=80331",
        "quoted=a, b",
        'quoted=c "d"',
        "quoted=e",
    ]
    decimal = next(column for column in table.columns if column.name == "decimal")
    assert (decimal.low, decimal.high, decimal.distinct) == (-1500.0, 7.0, frozenset())  # of inputs none are kept
    as_target = from_table(path, group="user", target="decimal", kind="multi-class", on_disk=on_disk)
    assert as_target.classes == ("-1500", "0.5", "2", "7")
    groups = from_table(csv(tmp_path, user=["007", "07", "7"]), **ROLES, on_disk=on_disk)
    assert {task.name for task in groups.tasks} == {"user=007", "user=07", "user=7"}
    times: dict[str, Any] = {"order": "day", "columns": {"day": "numeric"}}
    assert "day" in from_table(csv(tmp_path, day=["3", "1", "2"]), **ROLES, on_disk=on_disk, **times).features
    told = from_table(csv(tmp_path, size=["1", "x", "2", "3"]), **ROLES, columns={"size": "categorical"})
    assert told.features == ("size=1", "size=2", "size=3", "size=x")


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"size": ["1,5".join('""')]}, {}, "column 'size' writes numbers with a comma, such as '1,5'"),
        ({"size": ["1", "x", "2"]}, {}, r"column 'size' mixes 20 numbers \(such as '1'\) and 10 words \(such as 'x'\)"),
        ({"size": ["1", "inf"]}, {}, "'size' must hold finite numbers, of 32 bits: row 1 holds inf, one of 15 such"),
        ({"size": ["1", "x"]}, {"columns": {"size": "numeric"}}, "'size' cannot be numeric: row 1 holds 'x'"),
        ({"day": ["2024-01-01", "soon"]}, {"columns": {"day": "date"}}, "'day' cannot be a date: row 1 holds 'soon'"),
        ({"size": ["NA", ""]}, {}, "all values of column 'size' are missing"),
        ({"price": ["1"]}, {}, "target 'price' is constant, always 1"),
    ],
)
def test_bad_fields_are_refused(on_disk: bool, columns: Any, settings: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        from_table(csv(tmp_path, **columns), **ROLES, on_disk=on_disk, **settings)


def test_rows_are_counted_over_chunks(tmp_path: Path) -> None:
    path = csv(tmp_path, size=[*["1"] * 24, *["inf"] * 6])
    with pytest.raises(UserError, match="row 24 holds inf, one of 6 such"):
        from_table(path, **ROLES, on_disk=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", r"t\.csv is empty, of 0 bytes"),
        ("t.csv", b"user,size,price\n", "the table has no rows"),
        ("t.csv", b"user;size;price\nu1;2;3\n", "found one column, 'user;size;price'; ';' seems to separate its col"),
        ("t.tsv", b"user,size,price\nu1,2,3\n", "found one column, 'user,size,price'; ',' seems to .* expected .*t'"),
        ("t.csv", b"user,size,size,price\n", "names of their own, but 'size' came more than once"),
        ("t.csv", b"user,size,price\nu1,2,3,4\n", r"t\.csv cannot be read as \.csv: .*; it may be damaged"),
        ("t.csv", "user,größe,price\n".encode("latin-1"), "is not written in UTF-8"),
        ("t.csv.gz", b"user,size", "is damaged or cut off"),
        ("t.parquet", b"no parquet", r"t\.parquet cannot be read as \.parquet: .*; it may be damaged or cut off"),
        ("t.feather", b"no arrow file", r"t\.feather cannot be read as \.feather"),
        ("t.jsonl", b'{"user": 1}\n{"user', r"t\.jsonl cannot be read as \.jsonl"),
        ("t.json", b"{}", r"the name must end in one of \.csv, .*one object a line is JSON lines: call it \.jsonl"),
        ("t.xlsx", b"x", r"the name must end in one of \.csv, .*; read others into a data frame first"),
    ],
)
def test_bad_files_are_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        from_table(tmp_path / name, **ROLES)


def test_json_lines_of_mixed_types_are_refused(tmp_path: Path) -> None:
    sizes = [*map(str, range(29)), '"big"']
    lines = [f'{{"user": {i % 3}, "size": {size}, "price": {i % 5}.5}}' for i, size in enumerate(sizes)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"'size' mixes 29 numbers \(such as '0'\) and 1 words \(such as 'big'\)"):
        from_table(tmp_path / "t.jsonl", **ROLES)
    assert from_table(tmp_path / "t.jsonl", columns={"size": "categorical"}, **ROLES).features[0] == "size=0"


def test_truth_values_may_be_missing() -> None:
    data = frame(0).with_columns(late=pl.when(pl.col("rooms") > 1).then(pl.col("rooms") > 3))
    pd = pytest.importorskip("pandas")
    in_pandas = pd.DataFrame({name: data[name].to_list() for name in data.columns}).astype({"late": "boolean"})
    for frame_of in (data, in_pandas):
        table = from_table(frame_of, columns={"late": "categorical"}, **ROLES)
        names = {name for name in table.features if name.startswith("late")}
        assert names == {"late=(missing)", "late=False", "late=True"}


def test_cut_off_files_are_refused(tmp_path: Path) -> None:
    data = frame(0)
    for name, write in WRITERS.items():
        if "csv.gz" in name or "parquet" in name or "feather" in name:
            write(data, tmp_path / name)
            content = (tmp_path / name).read_bytes()
            (tmp_path / name).write_bytes(content[: len(content) // 2])
            with pytest.raises(UserError, match="damaged or cut off"):
                from_table(tmp_path / name, **ROLES)


def test_paths_that_are_no_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csv(tmp_path).rename(tmp_path / "sales.csv")
    with pytest.raises(UserError, match=r"unknown file 'sale\.csv': did you mean sales\.csv"):
        from_table(tmp_path / "sale.csv", **ROLES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"unknown file 'sales\.csv': There is none$"):
        from_table(tmp_path / "empty" / "sales.csv", **ROLES)
    with pytest.raises(UserError, match=r"there is no folder .*none, hence no table sales.csv in it"):
        from_table(tmp_path / "none" / "sales.csv", **ROLES)
    with pytest.raises(UserError, match="is a folder, not a table"):
        from_table(tmp_path, **ROLES)
    with pytest.raises(UserError, match="on_disk=True needs a file, got data in memory"):
        from_table(frame(0), on_disk=True, **ROLES)
    with pytest.raises(UserError, match="unknown column 'prize': did you mean price"):
        from_table(tmp_path / "sales.csv", group="user", target="prize")
    monkeypatch.setitem(__import__("sys").modules, "polars", None)
    with pytest.raises(UserError, match=r"polars reads tables from files.*: pip install 'metaleader\[tables\]'"):
        from_table(tmp_path / "sales.csv", **ROLES)
    with pytest.raises(UserError, match=r"did you mean sales\.csv"):  # to install polars would not help
        from_table(tmp_path / "sale.csv", **ROLES)
