"""`metaleader list`."""

from __future__ import annotations

import shlex

from rich.console import Console
from rich.table import Table

from metaleader.errors import UserError
from metaleader.experiments import EXPERIMENTS


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    if arguments:
        raise UserError(f"list takes no arguments, got {shlex.join(arguments)}")
    table = Table("experiment", "presets", "learners", "what it is", box=None, pad_edge=False)
    for experiment in EXPERIMENTS.values():
        learners = dict.fromkeys(name for preset in experiment.presets.values() for name in preset.learners)
        table.add_row(experiment.name, " ".join(experiment.presets), " ".join(learners), experiment.summary)
    Console().print(table)
    return 0
