"""`metaleader theory`."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from rich.console import Console

from metaleader import devices, theory
from metaleader.commands.terminal import results_in, say
from metaleader.experiments.parsing import parse
from metaleader.runs.progress import steps


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    options = parse(theory.TheoryOptions, arguments, "metaleader theory")
    with results_in(options.out, "theory", resume=False, among_others=True) as out:
        return _theory(options, out, arguments)


def _theory(options: theory.TheoryOptions, out: Path, arguments: list[str]) -> int:
    theory.check_free(out)
    devices.start()
    began = time.monotonic()
    with steps() as show:
        for step in theory.run_checks(options):
            show(step.name, step.done, step.total)
    command = shlex.join(["metaleader", "theory", *arguments])
    page = theory.write(step.found, options, out, command, time.monotonic() - began)
    Console().print(theory.terminal_table(step.found))
    print(f"page: {page}")
    for claim in step.found.failed:
        say(f"does not hold: {claim.claim}")
    return int(bool(step.found.failed))
