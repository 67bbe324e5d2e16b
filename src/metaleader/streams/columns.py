"""The columns of a data frame: of what kind each is, its values as an array."""

from __future__ import annotations

import datetime
import decimal
import numbers
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from metaleader.errors import UserError, listed, unknown

if TYPE_CHECKING:
    import narwhals as nw

ColumnKind: TypeAlias = Literal["numeric", "categorical", "date", "text", "left out"]
MISSING = "(missing)"  # what a category is called where there is none
FEW = 20  # so many different words are categories however few rows there are
WRITTEN_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?")
DAY = 86_400e6  # in microseconds


@dataclass(frozen=True)
class Column:
    """A column in memory.

    Attributes:
        name: in the data frame.
        kind: as found, or as told.
        values: shape `(n,)`: numbers as float64, NaN where they are missing; dates likewise, in days since 1970;
            categories and text as strings, `MISSING` where they are.
        missing: how many are.
        distinct: how many different values there are, beside those that are missing.
    """

    name: str
    kind: ColumnKind
    values: np.ndarray
    missing: int
    distinct: int

    @property
    def present(self) -> np.ndarray:
        """Where there is a value: booleans of shape `(n,)`."""
        absent = self.values == MISSING if self.values.dtype.kind == "O" else np.isnan(self.values)
        return ~absent


def frame(data: Any) -> nw.DataFrame[Any]:
    """A data frame of any library that narwhals reads.

    Raises:
        UserError: it is no data frame in memory, has no rows, or its columns lack names of their own.
    """
    import narwhals as nw
    from narwhals.exceptions import DuplicateError

    try:
        read = nw.from_native(data, eager_only=True)
        names = list(read.columns)
    except DuplicateError as error:
        columns = [str(name) for name in data.columns]
        twice = sorted({name for name in columns if columns.count(name) > 1})
        raise UserError(
            f"columns of a table must have names of their own, but {listed(list(map(repr, twice)))} came more than "
            "once: rename or drop one of them"
        ) from error
    except TypeError as error:
        kind = f"{type(data).__module__.split('.')[0]}.{type(data).__name__}"
        raise UserError(
            f"a table must be a data frame in memory, of pandas, polars or another library that narwhals reads; got "
            f"{kind}: "
            + ("call .collect() first" if hasattr(data, "collect") else "make it one, for instance by pandas.DataFrame")
        ) from error
    if odd := [name for name in names if not isinstance(name, str)]:
        raise UserError(f"names of columns must be text, got {odd[0]!r}: rename them, as by data.columns.map(str)")
    if not len(read):
        raise UserError("the table has no rows: give at least two tasks of a few rows each")
    return read


def check_names(known: Sequence[str], *names: str) -> None:
    """Make sure that there are columns of these names.

    Raises:
        UserError: naming the first that is missing, and the nearest ones.
    """
    for name in names:
        if name not in known:
            raise UserError(unknown("column", name, known))


def read(series: nw.Series[Any], told: str | None = None) -> Column:
    """A column of a data frame, its kind found unless told.

    Raises:
        UserError: no value is present, one is infinite, or they are of several types; the values are none of numbers,
            words and dates; the kind is unknown or does not suit the values.
    """
    name = str(series.name)
    if told is not None and told not in get_args(ColumnKind):
        raise UserError(f"column {name!r}: {unknown('kind', told, get_args(ColumnKind))}")
    absent = np.asarray(series.is_null().to_numpy(), bool)
    if told == "left out":
        return Column(name, "left out", np.full(len(absent), np.nan), int(absent.sum()), 0)
    base = "none" if absent.all() else _base(series, absent)
    if base == "numbers":  # NaN is missing, too, where a library tells the two apart
        absent = np.isnan(_numbers(series, absent, base))
    if absent.all():
        raise UserError(f"all values of column {name!r} are missing: {_leave_out(name)}")
    if told in ("categorical", "text") or (told is None and base == "words"):
        words = _words(series, absent)
        distinct = len(set(words[~absent]))
        found: ColumnKind = "text" if distinct > FEW and distinct > len(words) / 2 else "categorical"
        kind: ColumnKind = found if told is None else "text" if told == "text" else "categorical"
        return Column(name, kind, words, int(absent.sum()), distinct)
    if told == "date" or (told is None and base == "dates"):
        values, kind = _days(series, absent, base), "date"
    else:
        values, kind = _numbers(series, absent, base), "numeric"
    if (beyond := np.flatnonzero(np.abs(values) > np.finfo(np.float32).max)).size:
        raise UserError(
            f"column {name!r} must hold finite numbers, of 32 bits: row {beyond[0]} holds {values[beyond[0]]:g}, one "
            f"of {beyond.size} such; replace them, or mark them as missing"
        )
    present = values[~np.isnan(values)]
    return Column(name, kind, values, len(values) - len(present), len(np.unique(present)))


def labels(values: np.ndarray) -> np.ndarray:
    """Names for values, strings of shape `(n,)`; whole numbers are written without a point."""
    return np.array([_label(value) for value in values.tolist()], object)


def _base(series: nw.Series[Any], absent: np.ndarray) -> Literal["numbers", "words", "dates"]:
    import narwhals as nw

    dtype = series.dtype
    if dtype.is_numeric() or dtype == nw.Boolean or dtype == nw.Duration:
        return "numbers"
    if dtype in (nw.Date, nw.Datetime):
        return "dates"
    if dtype in (nw.Categorical, nw.Enum):
        return "words"
    if dtype == nw.String:
        written = set(series.filter(~series.is_null()).to_list())
        return "dates" if all(map(WRITTEN_DATE.fullmatch, written)) else "words"
    values, kinds = series.to_list(), dict[str, int]()
    for row in np.flatnonzero(~absent).tolist():
        kinds.setdefault(_kind_of(values[row]), row)
    if len(kinds) > 1:
        (one, first), (other, second) = list(kinds.items())[:2]
        raise UserError(
            f"column {series.name!r} mixes types, {one} ({values[first]!r} in row {first}) and {other} "
            f"({values[second]!r} in row {second}): convert it to one, for instance by .astype(str), or, "
            f"{_leave_out(str(series.name))}"
        )
    match next(iter(kinds)):
        case "numbers":
            return "numbers"
        case "words":
            return "words"
        case "dates":
            return "dates"
        case other:
            raise UserError(
                f"column {series.name!r} holds values of type {other}, expected numbers, words or dates: convert it, "
                f"or, {_leave_out(str(series.name))}"
            )


def _kind_of(value: Any) -> str:
    if isinstance(value, (numbers.Real, np.bool_, decimal.Decimal)):
        return "numbers"
    if isinstance(value, str):
        return "words"
    if isinstance(value, (datetime.date, np.datetime64)):
        return "dates"
    return type(value).__name__


def _numbers(series: nw.Series[Any], absent: np.ndarray, base: str) -> np.ndarray:
    import narwhals as nw

    if series.dtype == nw.Duration:
        values: Any = series.dt.total_microseconds().cast(nw.Float64).to_numpy() / DAY
    elif base == "numbers" and series.dtype not in (nw.Object, nw.Unknown):
        values = series.cast(nw.Float64).to_numpy()
    else:
        values = np.full(len(absent), np.nan)
        given = series.to_list()
        for row in np.flatnonzero(~absent).tolist():
            try:
                values[row] = float(given[row])
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"column {series.name!r} cannot be numeric: row {row} holds {given[row]!r}; repair it, or choose "
                    "'categorical' or 'date'"
                ) from error
    return np.array(values, np.float64)


def _days(series: nw.Series[Any], absent: np.ndarray, base: str) -> np.ndarray:
    """Dates and times in days since 1970, UTC."""
    import narwhals as nw

    if series.dtype in (nw.Date, nw.Datetime):
        times = series.cast(nw.Datetime("us")) if series.dtype == nw.Date else series
        return np.array(times.dt.timestamp("us").cast(nw.Float64).to_numpy(), np.float64) / DAY
    values, given = np.full(len(absent), np.nan), series.to_list()
    for row in np.flatnonzero(~absent).tolist():
        try:
            if base == "numbers":
                raise ValueError("a number")
            values[row] = np.datetime64(given[row], "us").astype(np.int64) / DAY
        except ValueError as error:
            raise UserError(
                f"column {series.name!r} cannot be a date: row {row} holds {given[row]!r}; convert it to dates, or "
                "write them as 2024-12-31"
            ) from error
    return values


def _words(series: nw.Series[Any], absent: np.ndarray) -> np.ndarray:
    words = labels(np.array([*series.to_list(), None], object)[:-1])
    words[absent] = MISSING
    return words


def _label(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _leave_out(name: str) -> str:
    return f"if it is an input, leave it out by columns={{{name!r}: 'left out'}}"
