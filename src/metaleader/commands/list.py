"""`metaleader list`."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from metaleader.experiments import EXPERIMENTS
from metaleader.experiments.parsing import parse


@dataclass(frozen=True)
class ListOptions:
    """List the experiments, their presets and learners."""


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    parse(ListOptions, arguments, "metaleader list")
    table = Table("experiment", "presets", "learners", "what it is", box=None, pad_edge=False)
    for experiment in EXPERIMENTS.values():
        learners = dict.fromkeys(name for preset in experiment.presets.values() for name in preset.learners)
        table.add_row(experiment.name, " ".join(experiment.presets), " ".join(learners), experiment.summary)
    Console().print(table)
    return 0
