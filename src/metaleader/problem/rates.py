"""Step sizes as arguments of compiled functions: what differs in them alone is compiled once.

A search tries many of them, and to compile takes longer than to learn from a small table.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def without_rates(value: T) -> tuple[T, tuple[float, ...]]:
    """A dataclass with None in place of its rates and of those of the dataclasses in its fields; and the rates.

    The rates of a class are the fields that it names itself in `RATES`: numbers that it computes with and nothing else,
    so that they may be traced. A subclass names its own, as it may do more with what it inherits.

    >>> from metaleader.learners import Adam
    >>> without_rates(Adam(0.01, average=0.9))
    (Adam(learning_rate=None, average=0.9, clip=None), (0.01,))
    """
    rates: list[float] = []
    return _changed(value, rates.append), tuple(rates)


def with_rates(value: T, rates: Iterable[Any]) -> T:
    """What `without_rates` was given, with these rates, in its order."""
    left = iter(rates)
    return _changed(value, lambda _: next(left))


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    if not dataclasses.is_dataclass(value):
        return value
    named = vars(type(value)).get("RATES", ())
    parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    changed = {name: change(part) if name in named else _changed(part, change) for name, part in parts.items()}
    if all(changed[name] is part for name, part in parts.items()):
        return value
    found = copy.copy(value)
    for name, part in changed.items():
        object.__setattr__(found, name, part)  # without the checks of a new one, which compare numbers
    return found
