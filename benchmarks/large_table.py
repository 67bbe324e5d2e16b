"""A table larger than memory: made as a Parquet file, described and run through from disk, with the peak of memory.

    python -m benchmarks.large_table --gigabytes 20 --folder /somewhere/with/room

The file has one row in 160 bytes: 16 numbers, two categories, a time and a target, of 5000 users in random order. It
stays in the folder, for the next time.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

BYTES_A_ROW = 160
USERS = 5000
STEP = 200_000  # rows that are made at a time


@dataclass(frozen=True)
class LargeTable:
    """A Parquet file described and streamed from disk."""

    gigabytes: float = 1.0
    """Size of the file."""
    folder: Path = Path("runs/large-table")
    """Folder for the file and for the grouped copy."""
    tasks: int = 200
    """How many tasks to read, in order."""
    order: bool = True
    """Whether rows arrive by time; otherwise as they stand in the file."""


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


def measure(path: Path, options: LargeTable) -> None:
    """Describe the table and read tasks; print what that took."""
    from metaleader.streams import from_table

    before, began = _peak(), time.perf_counter()
    table = from_table(
        path,
        group="user",
        target="y",
        order="day" if options.order else None,
        columns={"device": "categorical"},
        on_disk=True,
        scratch=path.parent,
    )
    print(table.describe())
    made, described = time.perf_counter(), _peak()
    rows = 0
    for _, task in zip(range(options.tasks), table.stream(0), strict=False):
        rows += len(task.train) + len(task.held_out)
    seconds = time.perf_counter() - made
    print(
        f"{path.stat().st_size / 1e9:.3g} GB of {table.rows} rows: described in {made - began:.0f} s; {rows} rows of "
        f"{min(options.tasks, len(table.tasks))} tasks read in {seconds:.1f} s. Peak of memory: {before:.2f} GB after "
        f"imports, {described:.2f} GB when described, {_peak():.2f} GB at the end"
    )


def _peak() -> float:
    """The most memory this process had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main(options: LargeTable) -> None:
    """Make the file in a process of its own, whose memory does not count, then measure."""
    path = options.folder / f"{options.gigabytes:g}-gb.parquet"
    if not path.exists():
        call = f"from benchmarks.large_table import make; make(__import__('pathlib').Path({str(path)!r}), "
        subprocess.run([sys.executable, "-c", f"{call}{options.gigabytes})"], check=True)
    measure(path, options)


if __name__ == "__main__":
    main(tyro.cli(LargeTable, description=__doc__))
