"""`metaleader list`."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from metaleader.experiments import EXPERIMENTS
from metaleader.experiments.parsing import parse


@dataclass(frozen=True)
class ListOptions:
    """List the experiments, their presets and learners."""

    json: bool = False
    """For machines: a list of objects."""


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    options = parse(ListOptions, arguments, "metaleader list")
    rows = [
        {
            "experiment": experiment.name,
            "presets": list(experiment.presets),
            "learners": list(dict.fromkeys(name for preset in experiment.presets.values() for name in preset.learners)),
            "what it is": experiment.summary,
        }
        for experiment in EXPERIMENTS.values()
    ]
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else " ".join(value) for value in row.values()))
    Console().print(table)
    return 0
