"""How long it takes until something is seen: `python -m benchmarks.starting`."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from rich.console import Console
from rich.progress import track

from benchmarks.outcome import Bar, Outcome, Panel, PartOptions, Table, main

TITLE = "The first answer"
FIRST_RECORD = """
import numpy as np
import metaleader as ml
from metaleader import devices

devices.keep_compiled()


def task(i):
    x = np.random.default_rng(i).normal(size=(30, 4)).astype(np.float32)
    y = (x.sum(axis=1) > 0).astype(np.int32)
    return ml.Task.from_arrays(x[:20], y[:20], x[20:], y[20:])


problem = ml.Problem(ml.MLP(inputs=4, outputs=2), ml.CrossEntropy(), ml.accuracy)
next(ml.play(problem, [task(i) for i in range(3)], ml.FTML()))
"""
COMMANDS = {
    "metaleader --help": ["-m", "metaleader", "--help"],
    "metaleader list": ["-m", "metaleader", "list"],
    "metaleader run --help": ["-m", "metaleader", "run", "--help"],
    "import jax": ["-c", "import jax"],
}
LIMIT, FIRST = 0.5, 2.0  # seconds of CPU


@dataclass(frozen=True)
class Options(PartOptions):
    """Start commands again and again, and a small net up to its first record with an empty cache and a filled one."""

    repeats: int = 5
    """How often; the median counts."""


def measure(options: Options) -> Outcome:
    """A row for every command."""
    repeats, console = 1 if options.quick else options.repeats, Console(stderr=True)
    spent: dict[str, tuple[float, float]] = {}
    for name in track(COMMANDS, "commands", console=console, disable=not console.is_terminal, transient=True):
        spent[name] = _median([_run(COMMANDS[name]) for _ in range(repeats)])
    with tempfile.TemporaryDirectory() as cache:
        environment = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        spent["first record, cold"] = _run(["-c", FIRST_RECORD], environment)
        spent["first record, warm"] = _median([_run(["-c", FIRST_RECORD], environment) for _ in range(repeats)])
    rows = tuple((name, f"{cpu:.2f}", f"{wall:.2f}") for name, (cpu, wall) in spent.items())
    note = (
        f"Processes of their own, the median of {repeats}. First record: `play` with FTML on an MLP of two layers of "
        "40 units, to the first record, imports included; cold: with an empty cache of compiled programs, once."
    )
    bars = (
        *(Bar(f"CPU time of {name}", spent[name][0], LIMIT, unit=" s") for name in list(COMMANDS)[:3]),
        Bar("CPU time up to the first record of a small net, warm", spent["first record, warm"][0], FIRST, unit=" s"),
    )
    panel = Panel(TITLE, "CPU time (s)", "", {"": (list(spent), [cpu for cpu, _ in spent.values()])}, False)
    return Outcome(TITLE, (Table(TITLE, ("what", "CPU, s", "wall, s"), rows, note),), bars, (panel,))


def _run(arguments: list[str], environment: dict[str, str] | None = None) -> tuple[float, float]:
    """The CPU and wall time of a Python process."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    given = {**os.environ, **(environment or {})}
    given.pop("PYTHONDONTWRITEBYTECODE", None)  # Python keeps bytecode unless told otherwise
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=given)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def _median(times: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(cpu for cpu, _ in times), statistics.median(wall for _, wall in times)


if __name__ == "__main__":
    main(Options, measure)
