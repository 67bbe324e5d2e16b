"""Data frames of any library that narwhals reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from metaleader.errors import UserError, listed, unknown
from metaleader.streams import columns as kinds
from metaleader.streams import objects

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


def values_of(rows: Any, told: Mapping[str, str], key: str) -> dict[str, np.ndarray]:
    """The values of columns of rows, by name (see `columns.values`).

    Args:
        rows: a data frame; a mapping of columns, name to values; or a list of mappings, one a row, or one alone.
        told: the columns to read, and of what kind each is.
        key: a column of one value a row, never a list: it tells a mapping of columns from one row.

    Raises:
        UserError: there is no row, a column is missing, or a value cannot be of the kind, or is infinite.
    """
    if isinstance(rows, Mapping):
        check_names([str(name) for name in rows], *told)
        several = _is_several(rows[key if key in rows else next(iter(told))])
        columns = {name: as_list(rows[name]) if several else [rows[name]] for name in told}
    elif isinstance(rows, (list, tuple)) and all(isinstance(row, Mapping) for row in rows):
        for row in rows:
            check_names([str(name) for name in row], *told)
        columns = {name: [row[name] for row in rows] for name in told}
    else:
        read = frame(rows)
        check_names(read.columns, *told)
        found = {name: kinds.values(read[name], kind) for name, kind in told.items()}
        return {name: _finite(name, values) for name, values in found.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    if 0 in lengths.values():
        raise UserError("there are no rows: give one at least")
    if len(set(lengths.values())) > 1:
        raise UserError(
            f"columns must have as many values each, got {listed([f'{n} of {k!r}' for k, n in lengths.items()])}"
        )
    return {name: _finite(name, objects.values(name, columns[name], kind)) for name, kind in told.items()}


def as_list(values: Any) -> list[Any]:
    """The values of an array, a series or a sequence as Python objects; one value alone is a list of one."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "M":
        values = values.astype("datetime64[us]")
    for name in ("tolist", "to_list"):
        if hasattr(values, name):
            values = getattr(values, name)()
            break
    return list(values) if _is_several(values) else [values]


def _is_several(values: Any) -> bool:
    return (
        hasattr(values, "__len__") and not isinstance(values, (str, bytes, Mapping)) and getattr(values, "ndim", 1) > 0
    )


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    """The same values.

    Raises:
        UserError: one is infinite, or of more than 32 bits.
    """
    if values.dtype.kind == "f" and (beyond := np.flatnonzero(np.abs(values) > np.finfo(np.float32).max)).size:
        raise kinds.not_finite(name, int(beyond[0]), float(values[beyond[0]]), beyond.size)
    return values


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
