"""What a terminal shows: tables, where results are, and how to go on."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table

from metaleader import devices
from metaleader.errors import UserError, printable, writing
from metaleader.experiments.plans import folder_name
from metaleader.files import contents
from metaleader.processes import owned
from metaleader.runs.folder import RunFolder

NOTES = ("by-hand.md", "notes.md")  # what a user may lay into a folder before its results come
RUNS = ("*/seed-*/config.json", "*/*/seed-*/config.json", "*/*/*/seed-*/config.json", "tune.json")


def finish(out: Path, outcomes: Mapping[str, str]) -> int:
    """Report on the runs in `out`."""
    from metaleader.results import report

    page, summaries = report.write_report([out], out)
    return told(map(report.terminal_table, summaries), page, outcomes)


def told(tables: Iterable[Table], page: Path, outcomes: Mapping[str, str]) -> int:
    """Show the tables, name the runs that did not finish and the page; the exit code: 1 if a run failed."""
    for table in tables:
        Console().print(table)
    for folder, outcome in outcomes.items():
        if outcome != "finished":
            kept = RunFolder(Path(folder)).traceback
            say(f"{folder}: {outcome}{f'; the traceback is in {kept}' if kept.exists() else ''}")
    print(f"report: {page}")
    return int(any(outcome.startswith("failed") for outcome in outcomes.values()))


def stopped(command: list[str], given: Path | None, out: Path) -> int:
    """Say how to go on after Ctrl-C; `given` is the folder that the user named, if any."""
    again = [word for word in command if word != "--resume"] + ([] if given else ["--out", str(out)])
    if devices.is_first():
        say(f"stopped; everything is saved in {out}. Go on with: {shlex.join(['metaleader', *again, '--resume'])}")
    return 130


@contextmanager
def results_in(given: Path | None, name: str, resume: bool, among_others: bool = False) -> Iterator[Path]:
    """The folder for the results of a command, of which this process is the only owner.

    Args:
        given: what the user named; None: a new folder runs/NAME, runs/NAME-2, ..., or the newest, to resume.
        name: of the new folder.
        resume: whether to go on with results that are there.
        among_others: whether the folder may hold other things than results.

    Raises:
        UserError: there is nothing to resume, another process owns the folder, or it holds other things than results.
    """
    with ExitStack() as ours:
        with writing(given or Path("runs")):
            if given is None and not resume:
                out = _new(name, ours)
            else:
                out = given or _newest(name)
                ours.enter_context(owned(out))
            others = [path.name for path in contents(out) if path.name not in NOTES]
            if others and not among_others and not any(next(out.glob(pattern), None) for pattern in RUNS):
                raise UserError(f"{out} holds no results but {', '.join(others[:3])}: choose a new folder with --out")
        yield out


def _numbered(name: str) -> Iterator[Path]:
    folder = Path("runs") / folder_name(name)
    return (folder.with_name(f"{folder.name}-{i}") if i > 1 else folder for i in itertools.count(1))


def _new(name: str, ours: ExitStack) -> Path:
    """The first folder that no other process has made."""
    for path in _numbered(name):
        with suppress(FileExistsError):
            ours.enter_context(owned(path, new=True))
            return path
    raise AssertionError  # there is always another number


def _newest(name: str) -> Path:
    there = list(itertools.takewhile(Path.exists, _numbered(name)))
    if not there:
        raise UserError(f"there is no {next(_numbered(name))} to resume: name the folder with --out")
    return there[-1]


def say(line: str) -> None:
    """Print a line on standard error."""
    print(printable(line), file=sys.stderr)
