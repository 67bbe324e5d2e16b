"""The columns of a table: of what kind each is, found chunk by chunk, and its values as an array."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from metaleader.errors import UserError, unknown
from metaleader.streams import objects
from metaleader.streams.objects import DAY, MISSING, WRITTEN_DATE, Base, labels

if TYPE_CHECKING:
    import narwhals as nw

ColumnKind: TypeAlias = Literal["numeric", "categorical", "date", "text", "left out"]
FEW = 20  # so many different words are categories however few rows there are
MANY = 100_000  # so many different values are counted, which bounds the memory; of more words, a column is text


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
        return objects.label_sets(str(series.name), series.to_list(), absent)
    base: Base = "none" if absent.all() else _base(series, absent)
    if kind in ("categorical", "text"):
        return _words(series, np.isnan(_numbers(series, absent, base)) if base == "numbers" else absent)
    return _days(series, absent, base) if kind == "date" else _numbers(series, absent, base)


def not_finite(name: str, row: int, value: float, many: int) -> UserError:
    """The error of a column that holds numbers that are infinite, or of more than 32 bits; `row` has the first."""
    return UserError(
        f"column {name!r} must hold finite numbers, of 32 bits: row {row} holds {value:g}, one of {many} such; replace "
        "them, or mark them as missing"
    )


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
        elif self.told == "date":
            absent = np.isnan(_days(series, absent, base, offset))
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
            raise UserError(f"all values of column {self.name!r} are missing: {objects.leave_out(self.name)}")
        distinct = frozenset(self.distinct)
        if self.told == "labels":
            return Column(self.name, "labels", self.missing, distinct)
        if self.told in ("categorical", "text") or (self.told is None and "words" in self.bases):
            many = len(distinct) > MANY or (len(distinct) > FEW and len(distinct) > rows / 2)
            found: ColumnKind = "text" if many else "categorical"
            kind: ColumnKind = found if self.told is None else "text" if self.told == "text" else "categorical"
            return Column(self.name, kind, self.missing, distinct)
        if self.beyond:
            raise not_finite(self.name, *self.beyond, self.infinite)
        kind = "date" if self.told == "date" or (self.told is None and "dates" in self.bases) else "numeric"
        return Column(self.name, kind, self.missing, distinct, self.low, self.high)

    def _meet(self, found: Iterable[Any]) -> None:
        if len(self.distinct) <= MANY:
            self.distinct.update(itertools.islice(found, 2 * MANY))


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
        raise objects.no_kind(str(series.name), str(dtype).split("(")[0].lower())
    if dtype == nw.String:
        written = series.filter(~series.is_null()).unique().to_list()
        return "dates" if all(map(WRITTEN_DATE.fullmatch, written)) else "words"
    return objects.base_of(str(series.name), series.to_list(), absent, offset)


def _numbers(series: nw.Series[Any], absent: np.ndarray, base: str, offset: int = 0) -> np.ndarray:
    import narwhals as nw

    if series.dtype == nw.Duration:
        values: Any = series.dt.total_microseconds().cast(nw.Float64).to_numpy() / DAY
    elif base == "numbers" and series.dtype not in (nw.Object, nw.Unknown):
        values = series.cast(nw.Float64).to_numpy()
    else:
        return objects.numbers(str(series.name), series.to_list(), absent, offset)
    return np.array(values, np.float64)


def _days(series: nw.Series[Any], absent: np.ndarray, base: str, offset: int = 0) -> np.ndarray:
    """Dates and times in days since 1970, UTC."""
    import narwhals as nw

    if series.dtype in (nw.Date, nw.Datetime):
        times = series.cast(nw.Datetime("us")) if series.dtype == nw.Date else series
        return np.array(times.dt.timestamp("us").cast(nw.Float64).to_numpy(), np.float64) / DAY
    if base == "numbers":
        row = int(np.flatnonzero(~absent)[0])
        raise objects.no_date(str(series.name), offset + row, series[row])
    return objects.days(str(series.name), series.to_list(), absent, offset)


def _words(series: nw.Series[Any], absent: np.ndarray) -> np.ndarray:
    import narwhals as nw

    if series.dtype == nw.String:
        words = np.array([*series.to_list(), None], object)[:-1]
    elif series.dtype.is_numeric() or series.dtype == nw.Boolean:  # of many rows, few values
        filled = series.fill_null(False if series.dtype == nw.Boolean else 0)
        different, places = np.unique(filled.to_numpy(), return_inverse=True)
        words = labels(different)[places]
    else:
        return objects.words(series.to_list(), absent)
    words[absent] = MISSING
    return words
