"""What a service takes, and what it refuses: sizes, rates and queues, all with a bound."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from metaleader.errors import check_not_negative, check_positive

CLIENTS = 10_000  # whose rates are remembered; those seen least recently go first


@dataclass(frozen=True)
class Limits:
    """Bounds of a service. What exceeds one is refused, with the time after which to try again where that helps.

    Raises:
        ValueError: a number is not positive; `rate` may be 0.
    """

    body: int = 4 << 20
    """Bytes of a request."""
    rows: int = 10_000
    """Datapoints, or inputs to predict, of a request."""
    requests: int = 64
    """Requests that are worked on at one time; further ones are refused until one is done."""
    rate: float = 0.0
    """Requests a second of one token, or of one address where there are no tokens; 0: as many as come."""
    backlog: int = 10_000
    """Datapoints that are stored but not learned, at which further ones are refused until some are learned."""
    timeout: float = 30.0
    """Seconds until a request that is not answered, or not sent whole, is given up."""

    def __post_init__(self) -> None:
        check_positive(self, "body", "rows", "requests", "backlog", "timeout")
        check_not_negative(self, "rate")


class Rates:
    """Requests of each client, as a bucket that fills by `rate` a second and holds two seconds' worth, at least one."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._most, self._clock = rate, max(2 * rate, 1.0), clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Count a request. Returns 0 if it may pass, or else the seconds until one may."""
        if not self._rate:
            return 0.0
        now = self._clock()
        left, since = self._left.pop(client, (self._most, now))
        left = min(self._most, left + (now - since) * self._rate)
        passes = left >= 1
        self._left[client] = (left - 1 if passes else left), now
        if len(self._left) > CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if passes else (1 - left) / self._rate


def whole_seconds(seconds: float) -> str:
    """As `Retry-After` takes it: at least 1, at most 60."""
    return str(min(max(math.ceil(seconds), 1), 60))
