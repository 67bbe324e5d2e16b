"""`metaleader live check`, `copy`, `export` and `keep`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import tyro

from metaleader.errors import UserError, printable, unknown
from metaleader.experiments.parsing import parse


@dataclass(frozen=True)
class CheckOptions:
    """Verify a learner that lives: its log, datapoint by datapoint, and its snapshots.

    Nothing is changed, and processes that have it open may go on. It ends with exit code 1 if something is
    wrong.
    """

    dir: tyro.conf.Positional[str]
    """The folder, or the URL of a PostgreSQL database."""
    json: bool = False
    """For machines: an object."""


@dataclass(frozen=True)
class CopyOptions:
    """Copy a learner that lives, from a folder or a database to another one, also while it is in use.

    The copy is the learner as of one moment, with its log, settings, snapshots, and what was forgotten.
    """

    source: tyro.conf.Positional[str]
    """The folder of the learner, or the URL of a PostgreSQL database."""
    target: tyro.conf.Positional[str]
    """A new folder, or the URL of a database with the name of a new learner."""


@dataclass(frozen=True)
class ExportOptions:
    """Write what predicts a task to a new folder, to be loaded by JAX without metaleader.

    All that was acknowledged is learned first. A process that has the folder open must end before, or exports by
    itself (Live.export). A learner of your own code is exported from Python.
    """

    dir: tyro.conf.Positional[str]
    """The folder of the learner, or the URL of a PostgreSQL database."""
    out: Path
    """The folder to write, which must not exist."""
    task: str | None = None
    """The task; without one, what predicts a task before its first datapoint (zero-shot)."""


@dataclass(frozen=True)
class KeepOptions:
    """Make a learner that lives of a run of `metaleader run` that has finished, by learning its stream again.

    The run's folder is left as it is.
    """

    dir: tyro.conf.Positional[Path]
    """The folder of the run, or of all runs."""
    out: Path
    """A new folder, for the learner."""
    learner: str | None = None
    """Which of the learners that ran. None: there is one."""
    seed: int | None = None
    """Of which of its runs. None: 0, or whichever the folder of a single run has."""
    data_dir: Path | None = None
    """Folder with data sets, searched first."""


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    if not arguments or arguments[0] not in VERBS:
        if arguments and arguments[0] in ("-h", "--help"):
            print(f"usage: metaleader live {{{','.join(VERBS)}}} --help")
            return 0
        raise UserError(unknown("command of metaleader live", arguments[0] if arguments else "", VERBS))
    return VERBS[arguments[0]](arguments[1:])


def _check(arguments: list[str]) -> int:
    options = parse(CheckOptions, arguments, "metaleader live check")
    from metaleader.live import check
    from metaleader.live.keeping import place

    found = check(options.dir)
    if options.json:
        print(json.dumps({"learner": place(options.dir).name, **found._asdict()}, indent=2))
        return 1 if found.faults else 0
    for fault in found.faults:
        print(printable(f"fault: {fault}"))
    print(
        f"{place(options.dir).name}: {found.datapoints} datapoints of {found.tasks} tasks, "
        f"{found.snapshots} sound snapshots, {len(found.faults) or 'no'} faults"
    )
    return 1 if found.faults else 0


def _copy(arguments: list[str]) -> int:
    options = parse(CopyOptions, arguments, "metaleader live copy")
    from metaleader.live import check, copy
    from metaleader.live.keeping import place

    copy(options.source, options.target)
    made = check(options.target)
    print(f"{place(options.target).name}: {made.datapoints} datapoints of {made.tasks} tasks")
    return 0


def _export(arguments: list[str]) -> int:
    options = parse(ExportOptions, arguments, "metaleader live export")
    from metaleader.live import Live

    with Live.open(options.dir) as live:
        tasks = live.tasks()
        named = {str(task): task for task in sorted(tasks, key=lambda task: isinstance(task, str))}  # "1" before 1
        if options.task is not None and options.task not in named:
            raise UserError(unknown("task", options.task, named))
        live.wait()
        live.export(None if options.task is None else named[options.task], options.out)
    print(printable(f"wrote {options.out}: predictor.json there says how it is loaded"))
    return 0


def _keep(arguments: list[str]) -> int:
    options = parse(KeepOptions, arguments, "metaleader live keep")
    from metaleader.live import from_run, run_folder
    from metaleader.runs.progress import steps

    run = run_folder(options.dir, options.learner, options.seed)
    with steps() as show:
        kept = from_run(run, options.out, data_dir=options.data_dir, show=show)
    print(f"{kept.folder}: {kept.datapoints} datapoints of {kept.tasks} tasks, learned as in {run}")
    if not kept.snapshot:
        print("its state cannot be stored as plain data: it is learned anew whenever the folder is opened")
    folder = shlex.quote(str(kept.folder))
    print(f"`metaleader serve {folder}` serves it; metaleader.Live.open({str(kept.folder)!r}) opens it")
    return 0


VERBS: Mapping[str, Callable[[list[str]], int]] = {
    "check": _check,
    "copy": _copy,
    "export": _export,
    "keep": _keep,
}
