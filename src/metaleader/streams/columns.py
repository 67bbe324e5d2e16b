"""The columns of a table: of what kind each is, found chunk by chunk, and its values as an array."""

from __future__ import annotations

import datetime
import decimal
import itertools
import math
import numbers
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from metaleader.errors import UserError, unknown

if TYPE_CHECKING:
    import narwhals as nw

ColumnKind: TypeAlias = Literal["numeric", "categorical", "date", "text", "left out"]
Base: TypeAlias = Literal["none", "numbers", "words", "dates"]
MISSING = "(missing)"  # what a category is called where there is none
FEW = 20  # so many different words are categories however few rows there are
MANY = 100_000  # so many different values are counted, which bounds the memory; of more words, a column is text
WRITTEN_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?")
DAY = 86_400e6  # in microseconds


@dataclass(frozen=True)
class Column:
    """What is known of a column, of all rows of the table.

    Attributes:
        name: in the table.
        kind: as found, or as told; `labels`, of a target alone, are lists of words.
        missing: how many values are.
        distinct: different values beside those that are missing, `MANY` + 1 of them at most: labels of words and of
            lists, otherwise numbers; of an input of numbers or dates none are kept.
        low: the least number, in days since 1970 for dates; NaN for words.
        high: the greatest.
    """

    name: str
    kind: ColumnKind | Literal["labels"]
    missing: int
    distinct: frozenset[Any] = frozenset()
    low: float = math.nan
    high: float = math.nan

    @property
    def different(self) -> str:
        """How many different values there are, in words."""
        return f"more than {MANY}" if len(self.distinct) > MANY else str(len(self.distinct))


def present(values: np.ndarray) -> np.ndarray:
    """Where there is a value, among those that `values` gives: booleans of shape `(n,)`."""
    if values.dtype.kind != "O":
        return ~np.isnan(values)
    nothing = np.array(None, object)
    return np.asarray(np.not_equal(values, MISSING) & np.not_equal(values, nothing), bool)


def survey(
    chunks: Iterable[nw.DataFrame[Any]],
    told: Mapping[str, str | None],
    required: bool = True,
    distinct_numbers: bool = True,
) -> dict[str, Column]:
    """What is known of the columns that `told` names, by name; their kinds are found where it says None.

    Args:
        chunks: the rows of the table, in parts.
        told: kinds, by column.
        required: whether a column needs a value.
        distinct_numbers: whether different numbers are kept, as only those of a target are asked for: of ten columns of
            100,000 rows they take 100 MB.

    Raises:
        UserError: no value is present, one is infinite, or they are of several types; the values are none of numbers,
            words and dates; the kind is unknown or does not suit the values.
    """
    for name, kind in told.items():
        if kind is not None and kind not in (*get_args(ColumnKind), "labels"):
            raise UserError(f"column {name!r}: {unknown('kind', kind, get_args(ColumnKind))}")
    seen = {name: _Seen(name, kind, distinct_numbers) for name, kind in told.items()}
    rows = 0
    for chunk in chunks:
        for name, column in seen.items():
            column.add(chunk[name], rows)
        rows += len(chunk)
    return {name: column.known(rows, required) for name, column in seen.items()}


def values(series: nw.Series[Any], kind: str) -> np.ndarray:
    """The values of a column of this kind, shape `(n,)`.

    Numbers are float64, NaN where they are missing; dates likewise, in days since 1970; categories and text are
    strings, `MISSING` where they are; labels are tuples of strings, None where they are missing.

    Raises:
        UserError: a value cannot be of the kind.
    """
    absent = np.asarray(series.is_null().to_numpy(), bool)
    if kind == "left out" or (absent.all() and kind in ("numeric", "date")):
        return np.full(len(absent), np.nan)
    if kind == "labels":
        lists = np.empty(len(absent), object)
        lists[:] = [None if out else _as_labels(value) for value, out in zip(series.to_list(), absent, strict=True)]
        return lists
    base: Base = "none" if absent.all() else _base(series, absent)
    if kind in ("categorical", "text"):
        return _words(series, np.isnan(_numbers(series, absent, base)) if base == "numbers" else absent)
    return _days(series, absent, base) if kind == "date" else _numbers(series, absent, base)


@dataclass
class _Seen:
    """What is known of a column after some chunks."""

    name: str
    told: str | None
    distinct_numbers: bool
    missing: int = 0
    bases: set[Base] = field(default_factory=set)
    distinct: set[Any] = field(default_factory=set)
    low: float = math.inf
    high: float = -math.inf
    beyond: tuple[int, float] | None = None  # the first number that is not finite, and its row
    infinite: int = 0

    def add(self, series: nw.Series[Any], offset: int) -> None:
        """Look at the rows from `offset` on."""
        import narwhals as nw

        absent = np.asarray(series.is_null().to_numpy(), bool)
        if self.told in ("left out", "labels") or absent.all():
            self.missing += int(absent.sum())
            if self.told == "labels":
                self._meet({label for row in values(series, "labels").tolist() for label in row or ()})
            return
        base = _base(series, absent, offset)
        self.bases.add(base)
        if base == "numbers":
            absent = np.isnan(_numbers(series, absent, base, offset))
        self.missing += int(absent.sum())
        as_words = self.told in ("categorical", "text")
        if as_words or (self.told is None and base != "numbers" and series.dtype not in (nw.Date, nw.Datetime)):
            self._meet(set(_words(series, absent).tolist()) - {MISSING})  # written dates may turn out to be words
        if as_words or (self.told is None and base == "words"):
            return
        as_date = self.told == "date" or (self.told is None and base == "dates")
        numbers = (_days if as_date else _numbers)(series, absent, base, offset)
        if (beyond := np.flatnonzero(np.abs(numbers) > np.finfo(np.float32).max)).size:
            self.beyond = self.beyond or (offset + int(beyond[0]), float(numbers[beyond[0]]))
            self.infinite += beyond.size
        there = numbers[~np.isnan(numbers)]
        if there.size:
            self.low, self.high = min(self.low, float(there.min())), max(self.high, float(there.max()))
        if base == "numbers" and self.distinct_numbers and len(self.distinct) <= MANY:
            self._meet(np.unique(there).tolist())

    def known(self, rows: int, required: bool) -> Column:
        """All that is known, after the last of the rows."""
        if self.told == "left out":
            return Column(self.name, "left out", self.missing)
        if required and self.missing == rows:
            raise UserError(f"all values of column {self.name!r} are missing: {_leave_out(self.name)}")
        distinct = frozenset(self.distinct)
        if self.told == "labels":
            return Column(self.name, "labels", self.missing, distinct)
        if self.told in ("categorical", "text") or (self.told is None and "words" in self.bases):
            many = len(distinct) > MANY or (len(distinct) > FEW and len(distinct) > rows / 2)
            found: ColumnKind = "text" if many else "categorical"
            kind: ColumnKind = found if self.told is None else "text" if self.told == "text" else "categorical"
            return Column(self.name, kind, self.missing, distinct)
        if self.beyond:
            row, value = self.beyond
            raise UserError(
                f"column {self.name!r} must hold finite numbers, of 32 bits: row {row} holds {value:g}, one of "
                f"{self.infinite} such; replace them, or mark them as missing"
            )
        kind = "date" if self.told == "date" or (self.told is None and "dates" in self.bases) else "numeric"
        return Column(self.name, kind, self.missing, distinct, self.low, self.high)

    def _meet(self, found: Iterable[Any]) -> None:
        if len(self.distinct) <= MANY:
            self.distinct.update(itertools.islice(found, 2 * MANY))


def labels(values: np.ndarray) -> np.ndarray:
    """Names for values, strings of shape `(n,)`; whole numbers are written without a point."""
    return np.array([_label(value) for value in values.tolist()], object)


def _base(series: nw.Series[Any], absent: np.ndarray, offset: int = 0) -> Base:
    import narwhals as nw

    dtype = series.dtype
    if dtype.is_numeric() or dtype == nw.Boolean or dtype == nw.Duration:
        return "numbers"
    if dtype in (nw.Date, nw.Datetime):
        return "dates"
    if dtype in (nw.Categorical, nw.Enum):
        return "words"
    if dtype in (nw.List, nw.Array, nw.Struct):
        raise _no_kind(series, str(dtype).split("(")[0].lower())
    if dtype == nw.String:
        written = series.filter(~series.is_null()).unique().to_list()
        return "dates" if all(map(WRITTEN_DATE.fullmatch, written)) else "words"
    values, kinds = series.to_list(), dict[str, int]()
    for row in np.flatnonzero(~absent).tolist():
        kinds.setdefault(_kind_of(values[row]), row)
    if len(kinds) > 1:
        (one, first), (other, second) = list(kinds.items())[:2]
        raise UserError(
            f"column {series.name!r} mixes types, {one} ({values[first]!r} in row {offset + first}) and {other} "
            f"({values[second]!r} in row {offset + second}): convert it to one, for instance by .astype(str), or, "
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
            raise _no_kind(series, other)


def _no_kind(series: nw.Series[Any], of: str) -> UserError:
    return UserError(
        f"column {series.name!r} holds values of type {of}, expected numbers, words or dates: convert it, or, "
        f"{_leave_out(str(series.name))}"
    )


def _kind_of(value: Any) -> str:
    if isinstance(value, (numbers.Real, np.bool_, decimal.Decimal)):
        return "numbers"
    if isinstance(value, str):
        return "words"
    if isinstance(value, (datetime.date, np.datetime64)):
        return "dates"
    return type(value).__name__


def _numbers(series: nw.Series[Any], absent: np.ndarray, base: str, offset: int = 0) -> np.ndarray:
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
                    f"column {series.name!r} cannot be numeric: row {offset + row} holds {given[row]!r}; repair it, or "
                    "choose 'categorical' or 'date'"
                ) from error
    return np.array(values, np.float64)


def _days(series: nw.Series[Any], absent: np.ndarray, base: str, offset: int = 0) -> np.ndarray:
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
                f"column {series.name!r} cannot be a date: row {offset + row} holds {given[row]!r}; convert it to "
                "dates, or write them as 2024-12-31"
            ) from error
    return values


def _words(series: nw.Series[Any], absent: np.ndarray) -> np.ndarray:
    import narwhals as nw

    if series.dtype == nw.String:
        words = np.array([*series.to_list(), None], object)[:-1]
    elif series.dtype.is_numeric() or series.dtype == nw.Boolean:  # of many rows, few values
        filled = series.fill_null(False if series.dtype == nw.Boolean else 0)
        different, places = np.unique(filled.to_numpy(), return_inverse=True)
        words = labels(different)[places]
    else:
        words = labels(np.array([*series.to_list(), None], object)[:-1])
    words[absent] = MISSING
    return words


def _as_labels(value: Any) -> tuple[str, ...]:
    """The labels of an example, each once."""
    return tuple(sorted({_label(label) for label in value}))


def _label(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _leave_out(name: str) -> str:
    return f"if it is an input, leave it out by columns={{{name!r}: 'left out'}}"
