"""What a part of the benchmarks finds: tables, figures, and figures set against a bar."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import tyro

from metaleader import devices

PACKAGES = ("metaleader", "jax", "jaxlib", "numpy", "torch", "higher", "torchopt", "parallel-metalearn")
BUSY = 0.2  # cores in use by other programs from which on it shows


@dataclass(frozen=True)
class Bar:
    """A figure and what it was to reach."""

    what: str
    value: float
    limit: float
    at_least: bool = False
    unit: str = ""

    @property
    def reached(self) -> bool:
        """Whether `value` is on the right side of `limit`."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True)
class Table:
    """Rows of text under a title, with a note on how they were measured."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """Lines `name -> (x, y)`; with text for x, horizontal bars."""

    title: str
    x: str
    y: str
    series: Mapping[str, tuple[Sequence[Any], Sequence[float]]]
    log_x: bool = True
    log_y: bool = True


@dataclass(frozen=True)
class Outcome:
    """All that a part found, and how and where it was made."""

    title: str
    tables: tuple[Table, ...]
    bars: tuple[Bar, ...] = ()
    panels: tuple[Panel, ...] = ()
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PartOptions:
    """One part of the benchmarks."""

    quick: bool = False
    """Everything at a reduced size, to see that it works; the figures mean nothing."""
    result: Path | None = None
    """Write what was found to this file, as JSON."""
    only: str | None = None
    """Measure this alone, in this process, and print it as JSON; what a part is made of that needs processes of its
    own."""


def main(options: type[Any], measure: Callable[[Any], Outcome], only: Callable[[Any], Any] | None = None) -> None:
    """Parse the options of a part, measure, print, and write the result with how and where it was made."""
    given = tyro.cli(options, config=(tyro.conf.FlagCreatePairsOff,))
    if given.only is not None and only is not None:
        print(json.dumps(only(given)))
        return
    load, used = os.getloadavg()[0], busy()
    if used > BUSY:
        print(f"warning: other programs use {used:.1f} cores (load average {load:.1f})", file=sys.stderr)
    began, made = time.perf_counter(), datetime.now(UTC)
    outcome = measure(given)
    module = Path(sys.argv[0]).stem
    arguments = [a for a in sys.argv[1:] if not a.startswith("--result") and a != str(given.result)]
    context = {
        "part": given.result.stem if given.result else module,
        "made": made.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - began),
        "load": round(load, 2),
        "busy": None if math.isnan(used) else round(used, 2),
        "quick": given.quick,
        "command": shlex.join(["python", "-m", f"benchmarks.{module}", *arguments]),
        "machine": machine(),
        "gpu": gpu(),
        "versions": versions(),
    }
    outcome = dataclasses.replace(outcome, context=context)
    for table in outcome.tables:
        print(f"\n{as_text(table)}")
    for bar in outcome.bars:
        print(sentence(bar))
    if given.result:
        given.result.parent.mkdir(parents=True, exist_ok=True)
        given.result.write_text(json.dumps(dataclasses.asdict(outcome), indent=1) + "\n")


def load(path: Path) -> Outcome:
    """What a part wrote."""
    value = json.loads(path.read_text())
    return Outcome(
        value["title"],
        tuple(Table(t["title"], tuple(t["columns"]), tuple(map(tuple, t["rows"])), t["note"]) for t in value["tables"]),
        tuple(Bar(**bar) for bar in value["bars"]),
        tuple(Panel(**panel) for panel in value["panels"]),
        value["context"],
    )


def in_own_process(module: str, *arguments: str) -> Any:
    """What `--only` of a part prints, with these options."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def sentence(bar: Bar) -> str:
    """The figure, the bar, and whether it was reached."""
    return f"{bar.what}: {number(bar.value)}{bar.unit} (bar: {bound(bar)}) {verdict(bar)}"


def bound(bar: Bar) -> str:
    """What was to be reached, in words."""
    return f"{'at least' if bar.at_least else 'at most'} {bar.limit:g}{bar.unit}"


def verdict(bar: Bar) -> str:
    """`reached` or `not reached`."""
    return "reached" if bar.reached else "not reached"


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def as_text(table: Table) -> str:
    """A table of Markdown, which reads well at a terminal too."""
    widths = [max(len(row[i]) for row in (table.columns, *table.rows)) for i in range(len(table.columns))]
    lines = [table.columns, tuple("-" * width for width in widths), *table.rows]
    body = "\n".join(f"| {' | '.join(c.ljust(w) for c, w in zip(row, widths, strict=True))} |" for row in lines)
    return f"**{table.title}**\n\n{body}\n" + (f"\n{table.note}\n" if table.note else "")


def versions() -> dict[str, str]:
    """Of Python and of the packages that are measured; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def busy(seconds: float = 1.0) -> float:
    """Cores in use by other programs, while this one waits; NaN where the system does not tell."""
    path = Path("/proc/stat")
    if not path.exists():
        return math.nan

    def idle() -> tuple[int, int]:
        ticks = [int(field) for field in path.read_text().splitlines()[0].split()[1:9]]
        return ticks[3] + ticks[4], sum(ticks)

    before = idle()
    time.sleep(seconds)
    after = idle()
    share = (after[0] - before[0]) / max(after[1] - before[1], 1)
    return (1 - share) * (os.cpu_count() or 1)


def machine() -> str:
    """Processor, cores in use and memory."""
    fields = {}
    for path in (Path("/proc/cpuinfo"), Path("/proc/meminfo")):
        for line in path.read_text().splitlines() if path.exists() else ():
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
    memory = int(fields["MemTotal"].split()[0]) / 2**20 if "MemTotal" in fields else float("nan")
    processor = fields.get("model name", platform.processor() or platform.machine())
    accelerator = f", {gpu()}" if gpu() else ""
    return f"{processor}, {devices.available_cores()} cores, {memory:.0f} GiB, {platform.system()}{accelerator}"


def gpu() -> str | None:
    """The accelerator that JAX uses, if any."""
    return None if jax.default_backend() == "cpu" else jax.local_devices()[0].device_kind
