"""Tables in files: CSV, Parquet, Arrow and JSON lines, read by polars."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaleader.errors import UserError, listed, unknown
from metaleader.streams.rows import OnDisk, reading

if TYPE_CHECKING:
    import polars as pl

LIMIT = 1e9  # bytes of a file; what is larger stays on disk
SUFFIXES = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".jsonl": "json",
    ".ndjson": "json",
}
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")  # how a CSV file says that a value is missing
NUMBER = r"^\s*[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf|Inf|INF)\s*$"
LEADING_ZERO = r"^\s*[+-]?0\d"  # a code, such as a postcode; as a number it would lose its zeros
COMMA = r"^\s*[+-]?\d+,\d+\s*$"


def opened(
    path: str | Path, scratch: str | Path | None, as_written: Collection[str], numbers: Collection[str]
) -> OnDisk:
    """A file as rows on disk, of which nothing is read yet but the names and types of its columns.

    Args:
        path: of the file; its suffix tells its format.
        scratch: see `OnDisk`.
        as_written: columns of a CSV file that are no numbers, whatever they look like.
        numbers: columns of a CSV file that are told to be numbers: what is none is found later, with its row.

    Raises:
        UserError: there is no such file, its suffix is unknown, it is empty or damaged; columns of a CSV file share a
            name, or mix numbers and words; polars is not installed.
    """
    path = Path(path).expanduser()
    kind = _kind_of(path)
    try:
        import polars  # noqa: F401
    except ImportError as error:
        raise UserError(
            "polars reads tables from files, and it is not installed: pip install 'metaleader[tables]', or give a data "
            "frame"
        ) from error
    return OnDisk(_scan(path, kind, as_written, numbers), path, None if scratch is None else Path(scratch).expanduser())


def _kind_of(path: Path) -> str:
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a table: metaleader.streams.from_folder reads folders")
    if not path.exists():
        if not path.parent.is_dir():
            raise UserError(f"there is no folder {path.parent}, hence no table {path.name} in it: check the path")
        files = sorted(other.name for other in path.parent.iterdir() if other.is_file())
        where = "" if path.parent == Path() else f"{path.parent}: "
        raise UserError(f"{where}{unknown('file', path.name, files)}")
    name = path.name.lower()
    suffix = max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default="")
    if not suffix:
        lines = " (one object a line is JSON lines: call it .jsonl)" if name.endswith(".json") else ""
        raise UserError(
            f"{path}: the name must end in one of {', '.join(SUFFIXES)}{lines}; read others into a data frame first"
        )
    if not path.stat().st_size:
        raise UserError(f"{path} is empty, of 0 bytes: write it again")
    return SUFFIXES[suffix]


def _scan(path: Path, kind: str, as_written: Collection[str], numbers: Collection[str]) -> pl.LazyFrame:
    import polars as pl

    with reading(path):
        if kind == "csv":
            return _csv(path, as_written, numbers)
        if kind == "json":
            scan = pl.scan_ndjson(path, infer_schema_length=None if path.stat().st_size <= LIMIT else 100_000)
            words = [name for name, dtype in scan.collect_schema().items() if dtype == pl.String]
            for name, counts in _found(scan, [name for name in words if name not in as_written]).items():
                _is_of_numbers(path, name, counts, name in numbers)  # polars reads numbers among words as words
        else:
            scan = pl.scan_parquet(path, glob=False) if kind == "parquet" else pl.scan_ipc(path, glob=False)
        schema = scan.collect_schema()
        words = [name for name, dtype in schema.items() if dtype == pl.Categorical or dtype == pl.Enum]
        return scan.with_columns(pl.col(name).cast(pl.String) for name in words)


def _csv(path: Path, as_written: Collection[str], numbers: Collection[str]) -> pl.LazyFrame:
    """A CSV file, in which a column is of numbers if every value is written as one, without leading zeros."""
    import polars as pl

    separator = "\t" if ".tsv" in path.name.lower() else ","
    names = _header(path, separator)
    scan = pl.scan_csv(path, separator=separator, infer_schema=False, null_values=list(MISSING), glob=False)
    scan = scan.rename(dict(zip(scan.collect_schema().names(), names, strict=True)))
    found = _found(scan, [name for name in names if name not in as_written])
    cast = [name for name, counts in found.items() if _is_of_numbers(path, name, counts, name in numbers)]
    return scan.with_columns(pl.col(name).str.strip_chars().cast(pl.Float64) for name in cast)


def _found(scan: pl.LazyFrame, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of columns of words, how many values there are and how many are written as numbers, and an example of each."""
    import polars as pl

    asked = []
    for name in names:
        column = pl.col(name)
        number = column.str.contains(NUMBER)
        counts = {
            "there": column.is_not_null().sum(),
            "numbers": number.sum(),
            "codes": (column.str.contains(LEADING_ZERO) & number).sum(),
            "commas": column.str.contains(COMMA).sum(),
            "number": column.filter(number).first(),
            "word": column.filter(~number).first(),
        }
        asked.append(pl.struct([value.alias(what) for what, value in counts.items()]).alias(name))
    return scan.select(asked).collect(engine="streaming").row(0, named=True) if asked else {}


def _is_of_numbers(path: Path, name: str, found: Mapping[str, Any], told: bool) -> bool:
    """Whether a column holds numbers.

    Raises:
        UserError: half of its values do, and the others do not; or they have decimal commas.
    """
    there, numbers, codes, commas = (found[what] for what in ("there", "numbers", "codes", "commas"))
    if told:
        return bool(there and numbers == there)
    if commas and commas + numbers == there:
        raise UserError(
            f"{path}: column {name!r} writes numbers with a comma, such as {found['word']!r}: write a decimal "
            f"point and no commas between thousands, or say columns={{{name!r}: 'categorical'}} if they are none"
        )
    if numbers < there and numbers >= there / 2:
        raise UserError(
            f"{path}: column {name!r} mixes {numbers} numbers (such as {found['number']!r}) and "
            f"{there - numbers} words (such as {found['word']!r}): repair them, leave the field empty where a "
            f"number is missing, or say columns={{{name!r}: 'categorical'}}"
        )
    return bool(there and numbers == there and not codes)


def _header(path: Path, separator: str) -> list[str]:
    """The names of the columns.

    Raises:
        UserError: they come twice or lack a name, or there is but one column.
    """
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file, delimiter=separator), [])
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not written in UTF-8 ({error.reason}): save it with that encoding") from error
    except (EOFError, gzip.BadGzipFile, csv.Error) as error:
        raise UserError(f"{path} is damaged or cut off ({error}): write it again") from error
    if len(names) <= 1:
        line = "".join(names)
        others = [other for other in (",", ";", "\t", "|") if other != separator and other in line]
        hint = f"; {others[0]!r} seems to separate its columns, expected {separator!r}" if others else ""
        raise UserError(
            f"{path}: found one column, {line[:80]!r}{hint}: write a table of several columns that {separator!r} "
            "separates, or read it into a data frame first"
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"{path}: columns of a table must have names of their own, but {listed(list(map(repr, twice)))} came more "
            "than once: rename or drop one of them"
        )
    if "" in names:
        names = [name or f"column {i + 1}" for i, name in enumerate(names)]
    return names
