"""`metaleader live check`."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from metaleader.errors import UserError, printable, unknown
from metaleader.experiments.parsing import parse

VERBS = ("check",)


@dataclass(frozen=True)
class CheckOptions:
    """Verify a learner that lives: its log, datapoint by datapoint, and its snapshots.

    Nothing is changed, and processes that have it open may go on. It ends with exit code 1 if something is
    wrong.
    """

    dir: tyro.conf.Positional[str]
    """The folder, or the URL of a PostgreSQL database."""


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    if not arguments or (arguments[0] not in VERBS and not arguments[0].startswith("-")):
        raise UserError(unknown("command of metaleader live", arguments[0] if arguments else "", VERBS))
    words = arguments if arguments[0].startswith("-") else arguments[1:]
    options = parse(CheckOptions, words, "metaleader live check")
    from metaleader.live import check
    from metaleader.live.keeping import place

    found = check(options.dir)
    for fault in found.faults:
        print(printable(f"fault: {fault}"))
    print(
        f"{place(options.dir).name}: {found.datapoints} datapoints of {found.tasks} tasks, "
        f"{found.snapshots} sound snapshots, {len(found.faults) or 'no'} faults"
    )
    return 1 if found.faults else 0
