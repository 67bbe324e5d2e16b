"""How long JAX traces, lowers, compiles and loads compiled programs, from its own monitoring events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import jax

STAGES = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling",
}
HIT, MISS = "/jax/compilation_cache/cache_hits", "/jax/compilation_cache/cache_misses"


@dataclass
class Compiling:
    """Intervals of wall time in which JAX made programs, by stage and by what the program was doing.

    Attributes:
        phase: what the program is doing; set by it.
        intervals: `(stage, phase, began, ended)`.
        hits: programs found in the persistent cache.
        misses: programs that were not.
    """

    phase: str = ""
    intervals: list[tuple[str, str, float, float]] = field(default_factory=list)
    hits: int = 0
    misses: int = 0

    def seconds(self, phase: str | None = None, stage: str | None = None) -> float:
        """The length of the union of intervals, as tracing one function traces others within."""
        chosen = [
            (began, ended)
            for of_stage, of_phase, began, ended in self.intervals
            if stage in (None, of_stage) and phase in (None, of_phase)
        ]
        total, reached = 0.0, 0.0
        for began, ended in sorted(chosen):
            total += max(0.0, ended - max(began, reached))
            reached = max(reached, ended)
        return total


@contextmanager
def compiling() -> Iterator[Compiling]:
    """Listen while the block runs."""
    seen = Compiling()

    def on_duration(event: str, duration_secs: float, **_: str | int) -> None:
        if event in STAGES:
            now = time.perf_counter()
            seen.intervals.append((STAGES[event], seen.phase, now - duration_secs, now))

    def on_event(event: str, **_: str | int) -> None:
        seen.hits += event == HIT
        seen.misses += event == MISS

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(on_duration)
        jax.monitoring.unregister_event_listener(on_event)
