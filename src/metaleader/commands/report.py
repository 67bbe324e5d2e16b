"""`metaleader report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from metaleader.commands.terminal import told
from metaleader.errors import UserError
from metaleader.experiments.parsing import parse
from metaleader.results import report


@dataclass(frozen=True)
class ReportOptions:
    """Make the table, the figures and the page again from the records of runs, finished or not."""

    dirs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs, or folders that hold some."""
    out: Path | None = None
    """Where to put the report. None: into the first folder."""


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    options = parse(ReportOptions, arguments, "metaleader report")
    if not options.dirs:
        raise UserError("name at least one folder of runs: metaleader report DIR...")
    page, summaries = report.write_report(list(options.dirs), options.out or options.dirs[0])
    return told(map(report.terminal_table, summaries), page, {})
