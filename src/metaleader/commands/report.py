"""`metaleader report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from metaleader.commands.terminal import told
from metaleader.errors import UserError
from metaleader.experiments.parsing import parse
from metaleader.results import report
from metaleader.results.looks import Look


@dataclass(frozen=True)
class ReportOptions:
    """Make the table, the figures and the page again from the records of runs, finished or not."""

    dirs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs, or folders that hold some."""
    out: Path | None = None
    """Where to put the report. None: into the first folder."""
    format: tuple[Literal["png", "svg", "pdf"], ...] = ("png", "svg")
    """Files of each figure; PNG is always one, as the page shows it."""
    size: tuple[float, float] | None = None
    """Width and height of every figure in inches. None: each its own."""
    font_size: float | None = None
    """Of the text of figures, in points. None: 10."""
    grey: bool = False
    """Figures without colours."""
    table: Literal["latex", "markdown"] | None = None
    """Print the tables for LaTeX (with the package booktabs) or in Markdown, in place of a table for the terminal."""


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    options = parse(ReportOptions, arguments, "metaleader report")
    if not options.dirs:
        raise UserError("name at least one folder of runs: metaleader report DIR...")
    look = Look(options.size, options.font_size, options.grey)
    page, summaries = report.write_report(list(options.dirs), options.out or options.dirs[0], look, options.format)
    if options.table is not None:
        made = report.latex_table if options.table == "latex" else report.markdown_table
        for summary in summaries:
            print(made(*report.table_rows(summary)))
        return 0
    return told(map(report.terminal_table, summaries), page, {})
