"""Numbers as text."""

from __future__ import annotations

import math

from metaleader.results.statistics import Interval


def significant(value: float, sign: bool = False) -> str:
    """A number with three significant digits, or as many as its whole part has.

    >>> [significant(x) for x in (0.95, 1e-5, 0.99961, 20, 1234.5, 0, math.inf)]
    ['0.950', '1.00e-05', '1.00', '20.0', '1234', '0', 'inf']

    Args:
        value: any number.
        sign: put a sign before positive numbers too.
    """
    plus = "+" if sign else ""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return f"{value:{plus}}"
    exponent = math.floor(math.log10(abs(float(f"{value:.2e}"))))  # of the rounded number: 0.9996 is 1.00
    if not -4 <= exponent < 7:
        return f"{value:{plus}.2e}"
    return f"{value:{plus}.{max(0, 2 - exponent)}f}"


def with_interval(interval: Interval, sign: bool = False) -> str:
    """`mean [low, high]`, only the mean where there are no ends, `-` where there is nothing."""
    mean, low, high = interval
    if mean is None:
        return "-"
    if low is None or high is None:
        return significant(mean, sign)
    return f"{significant(mean, sign)} [{significant(low, sign)}, {significant(high, sign)}]"


def p_value(p: float | None) -> str:
    """A p-value with two significant digits, or that it is under 0.0001."""
    return "-" if p is None else "<0.0001" if p < 1e-4 else f"{p:.2g}"
