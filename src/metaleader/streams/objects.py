"""Columns that are lists of Python objects, as records of JSON and columns of mixed types are: their values by kind."""

from __future__ import annotations

import datetime
import decimal
import numbers as abstract
import re
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from metaleader.errors import UserError

Base: TypeAlias = Literal["none", "numbers", "words", "dates"]
MISSING = "(missing)"  # what a category is called where there is none
DAY = 86_400e6  # in microseconds
MICROSECOND = datetime.timedelta(microseconds=1)
WHOLE = re.compile(r"\A(-?(?:0|[1-9]\d*))\.0+\Z")  # a whole number as text, written with a point
ZONE = re.compile(r":\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")  # ends a time that is not one of UTC without a word
WRITTEN_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?")


def values(name: str, given: Sequence[Any], kind: str) -> np.ndarray:
    """The values of a column of this kind, shape `(n,)`, as `columns.values` gives those of a data frame.

    Args:
        name: of the column, for messages.
        given: numbers, strings, dates, or lists of labels; None and NaN are missing.
        kind: `numeric`, `date`, `categorical`, `text` or `labels`.

    Raises:
        UserError: a value cannot be of the kind.
    """
    absent = np.array([_is_missing(value) for value in given], bool)
    if kind == "labels":
        return label_sets(name, given, absent)
    if kind in ("categorical", "text"):
        for row in np.flatnonzero(~absent).tolist():
            if _kind_of(given[row]) not in ("numbers", "words", "dates"):
                raise UserError(
                    f"column {name!r} must hold a word or a number in every row: row {row} holds {given[row]!r:.100}"
                )
        return words(given, absent)
    return (days if kind == "date" else numbers)(name, given, absent)


def base_of(name: str, given: Sequence[Any], absent: np.ndarray, offset: int = 0) -> Base:
    """What objects are of which one at least is there: `numbers`, `words` or `dates`.

    Args:
        name: of the column, for messages.
        given: the objects.
        absent: which of them are missing.
        offset: the number of the first row, for messages.

    Raises:
        UserError: they are of several types, or of none of these.
    """
    kinds = dict[str, int]()
    for row in np.flatnonzero(~absent).tolist():
        kinds.setdefault(_kind_of(given[row]), row)
    if len(kinds) > 1:
        (one, first), (other, second) = list(kinds.items())[:2]
        raise UserError(
            f"column {name!r} mixes types, {one} ({given[first]!r} in row {offset + first}) and {other} "
            f"({given[second]!r} in row {offset + second}): convert it to one, for instance by .astype(str), or, "
            f"{leave_out(name)}"
        )
    match next(iter(kinds)):
        case "numbers":
            return "numbers"
        case "words":
            return "words"
        case "dates":
            return "dates"
        case other:
            raise no_kind(name, other)


def numbers(name: str, given: Sequence[Any], absent: np.ndarray, offset: int = 0) -> np.ndarray:
    """Float64 numbers, NaN where they are missing; words that tell numbers are taken for them.

    Raises:
        UserError: one is no number.
    """
    found = np.full(len(absent), np.nan)
    for row in np.flatnonzero(~absent).tolist():
        try:
            value = given[row]
            found[row] = value / MICROSECOND / DAY if isinstance(value, datetime.timedelta) else float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"column {name!r} cannot be numeric: row {offset + row} holds {given[row]!r:.100}; repair it, or "
                "choose 'categorical' or 'date'"
            ) from error
    return found


def days(name: str, given: Sequence[Any], absent: np.ndarray, offset: int = 0) -> np.ndarray:
    """Dates and times in days since 1970, UTC; NaN where they are missing, as "" and NaT are as well.

    Raises:
        UserError: one is no date, or written in another form than 2024-12-31, with a time perhaps.
    """
    found = np.full(len(absent), np.nan)
    for row in np.flatnonzero(~absent).tolist():
        value = given[row]
        if _is_no_time(value):
            continue
        try:
            if _kind_of(value) == "numbers":
                raise ValueError("a number")
            if isinstance(value, str) and ZONE.search(value):
                value = datetime.datetime.fromisoformat(value)
            # NumPy reads "today" as well, and years of 8 digits.
            if isinstance(value, str) and not WRITTEN_DATE.fullmatch(value):
                raise ValueError("another form")
            if isinstance(value, datetime.datetime) and value.tzinfo is not None:
                value = value.astimezone(datetime.UTC).replace(tzinfo=None)
            found[row] = np.datetime64(value, "us").astype(np.int64) / DAY
        except ValueError as error:
            raise no_date(name, offset + row, given[row]) from error
    return found


def words(given: Sequence[Any], absent: np.ndarray) -> np.ndarray:
    """Names of objects, strings of shape `(n,)`, `MISSING` where they are missing."""
    found = labels(np.array([*given, None], object)[:-1])
    found[absent] = MISSING
    return found


def label_sets(name: str, given: Sequence[Any], absent: np.ndarray) -> np.ndarray:
    """Tuples of the labels of each row, None where they are missing; shape `(n,)`.

    Raises:
        UserError: a row holds no list.
    """
    found = np.empty(len(absent), object)
    for row in np.flatnonzero(~absent).tolist():
        if isinstance(given[row], str) or not hasattr(given[row], "__iter__"):
            raise UserError(
                f"column {name!r} must hold a list of labels in every row: row {row} holds {given[row]!r:.100}"
            )
        found[row] = tuple(sorted({_label(label) for label in given[row]}))
    return found


def labels(values: np.ndarray) -> np.ndarray:
    """Names for values, strings of shape `(n,)`; whole numbers are written without a point."""
    return np.array([_label(value) for value in values.tolist()], object)


def spelled(words: np.ndarray, known: Sequence[str]) -> np.ndarray:
    """The words, those that are not known as the known word that tells the same truth value or number, if there is one.

    A file of text may say `true` and `1.0` where a data frame, or JSON, holds True and 1.
    """
    exactly = set(known)
    if not (unknown := set(words.tolist()) - exactly):
        return words
    alike = {_told(word): word for word in known}
    others = {word: alike.get(_told(word), word) for word in unknown}
    return np.array([*(others.get(word, word) for word in words.tolist()), None], object)[:-1]


def _told(word: str) -> str:
    """What a word tells: a truth value or a whole number in one spelling, or itself (01 is no number but a code)."""
    if word.lower() in ("true", "false"):
        return word.lower()
    return WHOLE.sub(r"\1", word)


def no_date(name: str, row: int, value: Any) -> UserError:
    """The error of a value that is no date."""
    return UserError(
        f"column {name!r} cannot be a date: row {row} holds {value!r:.100}; convert it to dates, or write them as "
        "2024-12-31"
    )


def no_kind(name: str, of: str) -> UserError:
    """The error of a column of a type that is none of numbers, words and dates."""
    return UserError(
        f"column {name!r} holds values of type {of}, expected numbers, words or dates: convert it, or, "
        f"{leave_out(name)}"
    )


def leave_out(name: str) -> str:
    """Advice to leave a column out."""
    return f"if it is an input, leave it out by columns={{{name!r}: 'left out'}}"


def _is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # of pandas
        return True
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def _is_no_time(value: Any) -> bool:
    if isinstance(value, np.datetime64):
        return bool(np.isnat(value))
    return isinstance(value, str) and value in ("", "NaT")


def _kind_of(value: Any) -> str:
    if isinstance(value, (abstract.Real, np.bool_, decimal.Decimal, datetime.timedelta)):
        return "numbers"
    if isinstance(value, str):
        return "words"
    if isinstance(value, (datetime.date, np.datetime64)):
        return "dates"
    return type(value).__name__


def _label(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
