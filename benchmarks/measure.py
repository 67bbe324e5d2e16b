"""Timing contenders by turns, so that what else goes on in the machine meets all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import track


@dataclass(frozen=True)
class Timing:
    """Wall time of single calls, in seconds."""

    calls: tuple[float, ...]

    @property
    def least(self) -> float:
        """The shortest call: what the work itself takes."""
        return min(self.calls)

    @property
    def median(self) -> float:
        """The usual call."""
        return statistics.median(self.calls)


def by_turns(
    contenders: Mapping[str, Callable[[], Any]],
    rounds: int,
    what: str,
    turn_seconds: float = 0.3,
    pause: float = 0.2,
) -> dict[str, Timing]:
    """Time every contender in every round; each call must end when its work is done.

    A turn is as many calls as fit in `turn_seconds`, at least one, after a first call that is not counted where
    calls are that short. The pause before it lets the threads of the contender before come to rest. Every round
    begins with another contender.
    """
    calls: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    console = Console(stderr=True)
    turns = [names[(i + r) % len(names)] for r in range(rounds) for i in range(len(names))]
    for name in track(turns, what, console=console, disable=not console.is_terminal, transient=True):
        time.sleep(pause)
        contender = contenders[name]
        if calls[name] and min(calls[name]) < turn_seconds / 3:
            contender()
        ends = time.perf_counter() + turn_seconds
        while True:
            began = time.perf_counter()
            contender()
            ended = time.perf_counter()
            calls[name].append(ended - began)
            if ended >= ends:
                break
    return {name: Timing(tuple(each)) for name, each in calls.items()}
