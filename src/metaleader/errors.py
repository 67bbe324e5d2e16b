"""The error of a user's input, and how it is found and said."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANY = 30  # names, too many to list in a message
TO_GO_ON = "make room or choose another folder with --out, then add --resume to go on from the last checkpoint"


class UserError(ValueError):
    """Bad input; the message says what was received, what was expected and how to fix it.

    The command prints the message in one line and ends with exit code 2.

    Examples:
        >>> import metaleader as ml
        >>> ml.RainbowDigits(rounds=57)
        Traceback (most recent call last):
            ...
        metaleader.errors.UserError: rounds must be from 1 to 56, got 57
    """


class WriteError(UserError):
    """The file system refuses to take results; no later run can go on either."""


class RunFailed(Exception):  # noqa: N818 - one of the ways in which a run stops
    """One of several processes cannot go on with a run, and the others cannot without it."""


@contextmanager
def writing(folder: Path, remedy: str = TO_GO_ON) -> Iterator[None]:
    """Turn what the file system refuses into one line, with what to do about it.

    Raises:
        WriteError: naming the file, or `folder`.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(f"cannot write to {error.filename or folder}: {error.strerror or error}; {remedy}") from error


def imported(name: str, extra: str, who: str) -> Any:
    """A module of an extra.

    Args:
        name: of the module.
        extra: which of ours installs it.
        who: needs it.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise UserError(f"{who} needs {package}, which is not installed: pip install 'metaleader[{extra}]'") from error


def in_one_line(error: BaseException) -> str:
    """What an error says, or its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def failure(error: Exception) -> str:
    """The outcome of what ended with this error, in one line."""
    return f"failed: {in_one_line(error)}"


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not among those known, with the nearest ones first."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    names = ", ".join(known) if len(known) <= MANY else f"{len(known)} of them"
    there_are = f"There are {names}" if known else "There is none"
    return f"unknown {kind} {name!r}: {meant}{there_are}"


def check_word(kind: str, value: Any, known: Iterable[str]) -> None:
    """Make sure that an option is one of the words that are known.

    Raises:
        UserError: it is not; says which are.
    """
    if value not in (known := tuple(known)):
        raise UserError(unknown(kind, str(value), known))


def listed(names: Sequence[str], many: int = MANY) -> str:
    """Names in one line, the first of them where there are many."""
    return ", ".join(at_most(names, many))


def at_most(names: Sequence[str], many: int = MANY) -> list[str]:
    """The first of the names, and how many more there are."""
    more = len(names) - many
    return [*names[:many], *([f"and {more} more"] if more > 0 else [])]


def printable(text: str) -> str:
    """Text whose control characters, which a terminal would obey, are replaced."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def check_positive(settings: object, *names: str) -> None:
    """Refuse a setting that is not a positive, finite number.

    Raises:
        ValueError: naming the setting and its value.
    """
    for name in names:
        value = getattr(settings, name)
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive and finite, got {value}")


def check_not_negative(settings: object, *names: str) -> None:
    """Refuse a setting that is negative or not finite.

    Raises:
        ValueError: naming the setting and its value.
    """
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be at least 0 and finite, got {value}")


def check_between(name: str, value: int, low: int, high: int) -> None:
    """Refuse a setting outside of what there is.

    Raises:
        UserError: naming it, its value and the ends.
    """
    if not low <= value <= high:
        raise UserError(f"{name} must be from {low} to {high}, got {value}")
