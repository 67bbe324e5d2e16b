"""A table larger than memory, described and read from disk: `python -m benchmarks.large_table --folder /with/room`.

It is a Parquet file of 20 numbers or words a row, 147 bytes, of 5000 users in random order. It and a copy that is
grouped by user take more than twice its size on the disk; both are removed in the end.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.outcome import Bar, Outcome, Panel, PartOptions, Table, in_own_process, main

TITLE = "A table larger than memory"
BYTES_A_ROW = 147
USERS = 5000
STEP = 200_000  # rows that are made at a time
LIMIT = 4.0  # GB of memory


@dataclass(frozen=True)
class Options(PartOptions):
    """Make a Parquet file, then describe and stream it in a process of its own."""

    gigabytes: float = 20.0
    """Size of the file, of 10^9 bytes each."""
    folder: Path = Path("runs/large-table")
    """Folder for the file and for the grouped copy."""
    tasks: int = 200
    """How many tasks to read, in order."""


def make(path: Path, gigabytes: float) -> None:
    """Write the file, part by part."""
    import polars as pl

    parts = path.with_suffix(".parts")
    parts.mkdir(parents=True, exist_ok=True)
    names = []
    for i in range(max(1, round(gigabytes * 1e9 / BYTES_A_ROW / STEP))):
        random = np.random.default_rng(i)
        user = random.integers(0, USERS, STEP)
        numbers = {f"x{j}": random.normal(size=STEP) for j in range(16)}
        frame = pl.DataFrame(
            {
                "user": user,
                "day": random.uniform(0, 1000, STEP),
                **numbers,
                "city": np.array(["Rome", "Oslo", "Bern", "Lima"])[random.integers(0, 4, STEP)],
                "device": random.integers(0, 30, STEP).astype(str),
                "y": numbers["x0"] * (user % 7) + numbers["x1"] + random.normal(size=STEP),
            }
        )
        names.append(parts / f"{i}.parquet")
        frame.write_parquet(names[-1], compression="uncompressed")
    pl.scan_parquet(names, low_memory=True).sink_parquet(path, compression="uncompressed", row_group_size=100_000)
    for name in names:
        name.unlink()
    parts.rmdir()


def streamed(options: Options) -> dict[str, Any]:
    """Describe the table `--only` and read tasks; what that took of this process."""
    from metaleader.streams import from_table

    path = Path(str(options.only))
    peaks, began = {"after imports": _peak()}, time.perf_counter()
    table = from_table(
        path,
        group="user",
        target="y",
        order="day",
        columns={"device": "categorical"},
        on_disk=True,
        scratch=path.parent,
    )
    described = time.perf_counter()
    peaks["when described"], rows = _peak(), 0
    for _, task in zip(range(options.tasks), table.stream(0), strict=False):
        rows += len(task.train) + len(task.held_out)
    peaks["at the end"] = _peak()
    return {
        "rows": table.rows,
        "describing": described - began,
        "read": rows,
        "reading": time.perf_counter() - described,
        "peaks": peaks,
    }


def _peak() -> float:
    """The most memory this process had resident, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measure(options: Options) -> Outcome:
    """A row for each thing that is done."""
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path, began = Path(folder) / "table.parquet", time.perf_counter()
        call = f"from pathlib import Path; from benchmarks.large_table import make; make(Path({str(path)!r}), "
        size = 0.05 if options.quick else options.gigabytes
        subprocess.run([sys.executable, "-c", f"{call}{size})"], check=True)  # whose memory does not count
        made, size = time.perf_counter() - began, path.stat().st_size / 1e9
        found = in_own_process("large_table", "--only", str(path), "--tasks", str(options.tasks))
    peaks = found["peaks"]
    rows = (
        ("make the file", f"{made:.0f}", ""),
        ("import", "", f"{peaks['after imports']:.2f}"),
        ("describe it, and group it on the disk", f"{found['describing']:.0f}", f"{peaks['when described']:.2f}"),
        (f"read {options.tasks} tasks", f"{found['reading']:.0f}", f"{peaks['at the end']:.2f}"),
    )
    note = (
        f"A Parquet file of {size:.3g} GB, {found['rows']:,} rows of {USERS} users in random order, tasks by time. The "
        f"tasks read have {found['read']:,} rows. Memory is what the one process had resident at most so far, mapped "
        "files included."
    )
    bar = Bar(f"peak memory for a Parquet file of {size:.3g} GB", max(peaks.values()), LIMIT, unit=" GB")
    panel = Panel(TITLE, "peak memory (GB)", "", {"": (list(peaks), list(peaks.values()))}, False)
    return Outcome(TITLE, (Table(TITLE, ("what", "time, s", "peak memory, GB"), rows, note),), (bar,), (panel,))


if __name__ == "__main__":
    main(Options, measure, streamed)
