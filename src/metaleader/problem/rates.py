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
    """A dataclass with None in place of its rates; and the rates.

    A class says by `RATES` that it may be given tracers for numbers: for the fields that are named there, with which it
    computes and does nothing else, and for the rates of what is in its other fields. A subclass says so for itself, as
    it may do more with what it inherits. Other values have no rates.

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
    named = vars(type(value)).get("RATES")
    if named is None:
        return value
    parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    changed = {name: change(part) if name in named else _changed(part, change) for name, part in parts.items()}
    if all(changed[name] is part for name, part in parts.items()):
        return value
    found = copy.copy(value)
    for name, part in changed.items():
        object.__setattr__(found, name, part)  # without the checks of a new one, which compare numbers
    return found
