"""From a CSV file of 100,000 rows to the page, in time and memory: `python -m benchmarks.assessing`."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.outcome import Bar, Outcome, Panel, PartOptions, Table, main

TITLE = "From a CSV file to the page"
SECONDS, MEMORY = 300, 1.0  # GB
LEARNERS = ("--learner", "ftml-linear", "--learner", "linear, per task")  # at a reduced size


@dataclass(frozen=True)
class Options(PartOptions):
    """Run `metaleader assess` on a made-up table, and look at all of its processes twice a second."""

    rows: int = 100_000
    """Of the table."""
    tasks: int = 700
    """Users, whose rows come in random order."""


def make(path: Path, rows: int, tasks: int) -> None:
    """Write a table of eight numbers, two categories and a target whose linear function differs between users."""
    import polars as pl

    random = np.random.default_rng(0)
    user, x = random.integers(0, tasks, rows), random.normal(size=(rows, 8))
    weights = 1 + 0.5 * random.normal(size=(tasks, 8))
    pl.DataFrame(
        {
            "user": user,
            **{f"x{i}": x[:, i] for i in range(8)},
            "city": np.array(["Rome", "Oslo", "Bern", "Lima"])[random.integers(0, 4, rows)],
            "device": [f"d{i}" for i in random.integers(0, 30, rows)],
            "y": (x * weights[user]).sum(axis=1) + random.normal(size=rows),
        }
    ).write_csv(path)


def measure(options: Options) -> Outcome:
    """A row for the whole, one for the process that takes most, and one for a second time."""
    rows, tasks = (2_000, 40) if options.quick else (options.rows, options.tasks)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "people.csv"
        make(file, rows, tasks)
        command = [sys.executable, "-m", "metaleader", "assess", str(file), "--group", "user", "--target", "y"]
        command += ["--trials", "1", *LEARNERS] if options.quick else []
        first = run([*command, "--out", f"{folder}/first"], Path(folder) / "compiled")
        again = run([*command, "--out", f"{folder}/again"], Path(folder) / "compiled")
    table = (
        ("time, s", f"{first.seconds:.0f}", f"{again.seconds:.0f}"),
        ("processor time, s", f"{first.processor:.0f}", f"{again.processor:.0f}"),
        ("memory of all processes, GB", f"{first.together:.2f}", f"{again.together:.2f}"),
        ("memory of the largest process, GB", f"{first.largest:.2f}", f"{again.largest:.2f}"),
    )
    note = (
        f"{rows:,} rows of {tasks} users, all learners, with a search of each; the first time, with nothing compiled "
        "before, and again. Memory is the sum of the proportional set sizes (PSS) of all processes, in which pages "
        "that several of them share count once, at its largest."
    )
    bars = (
        Bar(f"from a CSV file of {rows:,} rows to the page", first.seconds, SECONDS, unit=" s"),
        Bar("memory of all processes on the way", first.together, MEMORY, unit=" GB"),
    )
    both = {"": (["all processes", "the largest"], [first.together, first.largest])}
    panel = Panel(TITLE, "memory (GB)", "", both, False)
    return Outcome(TITLE, (Table(TITLE, ("what", "the first time", "again"), table, note),), bars, (panel,))


class Taken(NamedTuple):
    """What a command took: seconds by the clock, seconds of processors, and memory in GB at its largest."""

    seconds: float
    processor: float
    together: float
    largest: float


def run(command: list[str], compiled: Path) -> Taken:
    """Run a command that keeps what it compiles in a folder, and look at its processes twice a second.

    Raises:
        CalledProcessError: the command failed.
    """
    environment = {"JAX_COMPILATION_CACHE_DIR": str(compiled), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    began, before, together, largest = time.perf_counter(), processor_seconds(), 0.0, 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **environment}) as process:
        while process.poll() is None:
            each = memory(process.pid)
            together, largest = max(together, sum(each)), max(largest, *each, 0.0)
            time.sleep(0.5)  # to look takes a tenth of that
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Taken(time.perf_counter() - began, processor_seconds() - before, together, largest)


def processor_seconds() -> float:
    """What processes that were waited for, and those that they waited for, took of processors so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory(root: int) -> list[float]:
    """The proportional set sizes of a process and of all that descend from it, in GB."""
    parents = dict[int, int]()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    family = {root}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    found = []
    for process in family:
        with suppress(OSError):
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            found += [int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("Pss:")]
    return found


if __name__ == "__main__":
    main(Options, measure)
