"""Data frames of any library that narwhals reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from metaleader.errors import UserError, listed, unknown

if TYPE_CHECKING:
    import narwhals as nw


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


def as_frame(rows: Any, names: Sequence[str]) -> Any:
    """A data frame of these columns, from dicts, one a row; what is no list of dicts is given back.

    Raises:
        UserError: a dict lacks a column; neither pandas nor polars is installed.
    """
    if isinstance(rows, Mapping):
        rows = [rows]
    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, Mapping) for row in rows):
        return rows
    for row in rows:
        check_names([str(name) for name in row], *names)
    given = {name: [row[name] for row in rows] for name in names}
    if find_spec("pandas"):
        import pandas as pd

        return pd.DataFrame({name: pd.Series(column, dtype=object).infer_objects() for name, column in given.items()})
    if find_spec("polars"):
        import polars as pl

        return pl.DataFrame(given, strict=False)
    raise UserError("rows as dicts need pandas or polars: pip install 'metaleader[pandas]'")


def is_of_lists(series: nw.Series[Any]) -> bool:
    """Whether a column holds lists, as its first value tells."""
    import narwhals as nw

    if series.dtype in (nw.List, nw.Array):
        return True
    there = series.drop_nulls()
    return (
        series.dtype == nw.Object and len(there) > 0 and isinstance(there.to_list()[0], (list, tuple, set, np.ndarray))
    )


def check_names(known: Sequence[str], *names: str) -> None:
    """Make sure that there are columns of these names.

    Raises:
        UserError: naming the first that is missing, and the nearest ones.
    """
    for name in names:
        if name not in known:
            raise UserError(unknown("column", name, known))
