"""Peak memory and time against inner steps and datapoints: `python -m benchmarks.scaling`.

Every point is measured in a process of its own, as a peak of memory can only be read off a process that did nothing
else.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import jax
import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.cases import CASES, meta_batch, package
from benchmarks.measure import by_turns
from benchmarks.outcome import Bar, Outcome, Panel, PartOptions, Table, in_own_process, main
from metaleader import devices

TITLE = "Memory and time against inner steps and datapoints"
Derivative = Literal["forward-over-reverse", "plain"]


@dataclass(frozen=True)
class Options(PartOptions):
    """Peak memory and time of one meta-gradient of the Rainbow MNIST net, for both derivatives."""

    steps: tuple[int, ...] = (1, 5, 20, 80, 100)
    """Inner steps, on 10 datapoints."""
    datapoints: tuple[int, ...] = (10, 30, 100, 300, 900)
    """Datapoints in the update, at 5 inner steps."""


@dataclass(frozen=True)
class Point:
    """What is measured, and with what result.

    Attributes:
        steps: inner steps; 0: the process does all but the meta-gradient.
        datapoints: in the update of every task.
        derivative: of the inner steps.
        seconds: of one meta-gradient.
        peak: of the process, in MiB.
        working: how much of the peak came with running the compiled program, in MiB; NaN where the system does not
            tell.
    """

    steps: int
    datapoints: int
    derivative: Derivative = "forward-over-reverse"
    seconds: float = 0.0
    peak: float = 0.0
    working: float = 0.0


def measure(options: Options) -> Outcome:
    """A table against steps, a table against datapoints."""
    all_steps, sizes = ((5, 80), (10, 100)) if options.quick else (options.steps, options.datapoints)
    derivatives = get_args(Derivative)
    wanted = [Point(0, 10)]
    wanted += [Point(s, 10, d) for s in sorted({*all_steps, 5, 80}) for d in derivatives]
    wanted += [Point(5, n, d) for n in sorted(sizes) for d in derivatives if n != 10]
    console = Console(stderr=True)
    found = [
        Point(**in_own_process("scaling", "--only", json.dumps(dataclasses.asdict(point))))
        for point in track(wanted, "a process a point", console=console, disable=not console.is_terminal)
    ]
    baseline, points = found[0], found[1:]
    by_steps = [p for p in points if p.datapoints == 10]
    by_size = sorted((p for p in points if p.steps == 5), key=lambda p: p.datapoints)
    devices.start()
    cores = jax.local_device_count()
    note = (
        f"Rainbow MNIST net, {cores} tasks (one a core), 10 datapoints to validate. Peak: of the whole process, "
        f"compiling included; a process that imports, draws the data and compiles nothing peaks at "
        f"{baseline.peak:.0f} MiB. Working: what of the resident memory came with running the compiled program. "
        "Time: the shortest call. Up to 16 MiB a task, forward-over-reverse stores what the inner gradients computed, "
        "beyond that the parameters alone."
    )
    ours = {p.steps: p for p in by_steps if p.derivative == "forward-over-reverse"}
    return Outcome(
        TITLE,
        (
            Table("Against inner steps (10 datapoints)", _columns("inner steps"), _rows(by_steps, "steps"), note),
            Table("Against datapoints (5 inner steps)", _columns("datapoints"), _rows(by_size, "datapoints"), note),
        ),
        (Bar("peak memory at 80 inner steps, times that at 5", ours[80].peak / ours[5].peak, 1.15),),
        tuple(
            Panel("", axis.replace("datapoints", "datapoints in the update"), y, _series(each, attribute, value))
            for axis, attribute, each in (("inner steps", "steps", by_steps), ("datapoints", "datapoints", by_size))
            for y, value in (("peak memory (MiB)", "peak"), ("time (s)", "seconds"))
        ),
    )


def _columns(first: str) -> tuple[str, ...]:
    return (
        first,
        *(f"{what}, {d}" for what in ("peak, MiB", "working, MiB", "time, ms") for d in get_args(Derivative)),
    )


def _rows(points: list[Point], attribute: str) -> tuple[tuple[str, ...], ...]:
    at = {(getattr(p, attribute), p.derivative): p for p in points}
    places = sorted({place for place, _ in at})

    def cells(place: int) -> tuple[str, ...]:
        pair = [at[place, derivative] for derivative in get_args(Derivative)]
        return (
            str(place),
            *(f"{p.peak:.0f}" for p in pair),
            *(f"{p.working:.0f}" for p in pair),
            *(f"{p.seconds * 1e3:.1f}" for p in pair),
        )

    return tuple(cells(place) for place in places)


def _series(points: list[Point], attribute: str, value: str) -> dict[str, tuple[list[int], list[float]]]:
    return {
        derivative: (
            [getattr(p, attribute) for p in points if p.derivative == derivative],
            [getattr(p, value) for p in points if p.derivative == derivative],
        )
        for derivative in get_args(Derivative)
    }


def _one(point: Point) -> Point:
    """Measure `point` in this process."""
    case = CASES["rainbow-mnist"]
    devices.start()
    data = meta_batch(case, jax.local_device_count(), point.datapoints, 10)
    params = jax.tree.map(np.asarray, case.model.init(jax.random.key(0)))
    seconds, working, peak = 0.0, 0.0, 0.0
    if point.steps:
        jax.config.update("jax_enable_compilation_cache", False)  # every process compiles, so that peaks compare
        run, _ = package(case, data, params, point.steps, point.derivative)
        peak = _peak()
        before = _restart_peak()
        seconds = by_turns({"": run}, 3, "", turn_seconds=0.2, pause=0).popitem()[1].least
        working = _status("VmHWM") - before
    return Point(point.steps, point.datapoints, point.derivative, seconds, max(peak, _peak()), working)


def _peak() -> float:
    """The most memory that was resident, in MiB, since the process or `_restart_peak` began."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _restart_peak() -> float:
    """Let the peak of resident memory begin anew, after what compiling took; returns what is resident."""
    peak = Path("/proc/self/clear_refs")
    try:
        peak.write_text("5")
    except OSError:
        return float("nan")
    return _status("VmRSS")


def _status(name: str) -> float:
    """A line of the process's status, in MiB; NaN where the system has none."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{name}:")), float("nan"))


if __name__ == "__main__":
    main(Options, measure, lambda options: dataclasses.asdict(_one(Point(**json.loads(options.only)))))
