"""What a terminal shows: tables, where results are, and how to go on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from metaleader import devices
from metaleader.errors import UserError


def finish(out: Path, outcomes: Mapping[str, str]) -> int:
    """Report on the runs in `out`."""
    from metaleader.results import report

    page, summaries = report.write_report([out], out)
    return told(map(report.terminal_table, summaries), page, outcomes)


def table(headings: Iterable[str], rows: Iterable[Iterable[str]], title: str = "", note: str = "") -> Table:
    """A table for the terminal."""
    found = Table(*headings, title=title or None, caption=note or None, box=None, pad_edge=False)
    found.title_justify = found.caption_justify = "left"
    for column in found.columns:
        column.overflow = "fold"  # an option is of use only whole
    for row in rows:
        found.add_row(*row)
    return found


def told(tables: Iterable[Table], page: Path, outcomes: Mapping[str, str]) -> int:
    """Show the tables, name the runs that did not finish and the page; the exit code: 1 if a run failed."""
    console = Console()
    for table in tables:
        console.print(table)
    for folder, outcome in outcomes.items():
        if outcome != "finished":
            say(f"{folder}: {outcome}")
    console.print(f"report: {page}", soft_wrap=True)
    return int(any(outcome.startswith("failed") for outcome in outcomes.values()))


def stopped(command: list[str], given: Path | None, out: Path) -> int:
    """Say how to go on after Ctrl-C; `given` is the folder that the user named, if any."""
    again = [word for word in command if word != "--resume"] + ([] if given else ["--out", str(out)])
    if devices.is_first():
        say(f"stopped; everything is saved in {out}. Go on with: {shlex.join(['metaleader', *again, '--resume'])}")
    return 130


def chosen(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """The names of an option that may be given several times, each once, in order."""
    return tuple(dict.fromkeys(name for names in groups for name in names))


def folder(name: str, resume: bool) -> Path:
    """A new folder runs/NAME, runs/NAME-2, ...; the newest that exists, to resume."""
    root = Path("runs")
    candidates = [root / name] + [root / f"{name}-{i}" for i in range(2, 1000)]
    free = next(i for i, path in enumerate(candidates) if not path.exists())
    if resume and free == 0:
        raise UserError(f"there is no {candidates[0]} to resume: name the folder with --out")
    return candidates[free - 1] if resume else candidates[free]


def say(line: str) -> None:
    """Print a line on standard error."""
    print(line, file=sys.stderr)
