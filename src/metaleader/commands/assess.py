"""`metaleader assess`."""

from __future__ import annotations

import platform
import re
import shlex
import tempfile
import textwrap
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from metaleader import assess
from metaleader.commands.terminal import results_in, say
from metaleader.errors import UserError
from metaleader.experiments.parsing import by_name, parse
from metaleader.processes import release_memory
from metaleader.runs.progress import steps
from metaleader.runs.workers import LocalWorkers, slots
from metaleader.streams import Table, from_table

PACKAGES = ("metaleader", "jax", "numpy", "scikit-learn")


@dataclass(frozen=True)
class AssessOptions:
    """Whether learning across tasks pays on your table, from how many rows of a task on, and with which learner.

    The rows of each group are a task. Many learners compete under one protocol, those that learn across tasks and
    those that learn each task alone, each with a short search on the first tasks. The page begins with the answer.
    """

    file: tyro.conf.Positional[Path]
    """The table: CSV, Parquet, Arrow (Feather) or JSON lines."""
    group: str
    """The column whose values are the tasks: a user, a device, a site."""
    target: str
    """The column to predict: numbers, or classes."""
    order: str | None = None
    """A column of times by which rows arrive. None: as they stand in the file, tasks in several random orders."""
    column: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME=KIND where the kind found is not meant: numeric, categorical, date, text or 'left out'; may be given several
    times."""
    kind: Literal["regression", "binary", "multi-class"] | None = None
    """What is predicted. None: found from the target."""
    held_out: str | None = None
    """Rows of each task to judge by: 'last 30%', 'random 30%', a column that marks them, or 'none': those to come."""
    smallest: int = 5
    """Rows that a task needs."""
    first: int | None = None
    """How many tasks come first: on them alone are encoders fitted and settings searched. None: a fifth."""
    sizes: tuple[int, ...] = ()
    """Numbers of rows of a task at which to judge. None given: 0 and up to five more that most tasks reach."""
    trials: int = 8
    """Settings of each learner to try, its defaults among them."""
    seeds: int | None = None
    """Orders of the tasks. None: 3, or 1 where time orders them or the table is large."""
    learner: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A learner that competes, such as ftml-linear or 'mixed model'; may be given several times. None: all."""
    workers: int | None = None
    """Processes, of one core each. None: as many as there are cores."""
    out: Path | None = None
    """Folder for the page. None: a new one under runs/."""
    keep: Path | None = None
    """New folder in which the learner to keep, which errs least, is left once it has learned all rows; metaleader.Live
    opens it."""
    keep_learner: str | None = None
    """Keep another learner, of those that compete."""


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    options = parse(AssessOptions, arguments, "metaleader assess")
    try:
        return _perform(options, arguments)
    except KeyboardInterrupt:
        say("stopped; an assessment keeps nothing before its end")
        return 130


def _perform(options: AssessOptions, arguments: list[str]) -> int:
    if options.out is not None and (options.out / "assess.json").exists():
        raise UserError(f"{options.out} holds an assessment already: choose another folder with --out, or remove it")
    with tempfile.TemporaryDirectory() as scratch:
        if options.keep is None:
            table = None
            tasks, description = _stored_elsewhere(options, scratch)
        else:
            table = _table(options)
            tasks, description = assess.store(table, Path(scratch)), table.describe()
            release_memory()  # of reading
        print(f"{description}\n")
        given = assess.setup(tasks, options.sizes, options.trials, options.seeds, options.learner)
        if options.keep is None and options.keep_learner is not None:
            raise UserError("--keep-learner says which learner to keep: say where with --keep")
        workers = slots(options.workers)
        with results_in(options.out, f"assess-{options.file.stem}", resume=False, among_others=True) as out:
            if table is not None and options.keep is not None:
                assess.check(table, given, options.keep, out, options.keep_learner)
            return _assess(given, workers, table, description, options, out, arguments)


def _stored_elsewhere(options: AssessOptions, folder: str) -> tuple[assess.Stored, str]:
    """The table's tasks and its description, by another process: what reading takes, a process gives back by its end.

    Raises:
        UserError: as `from_table` and `assess.store` do.
    """
    reader = LocalWorkers(1, 1, _stored)
    try:
        return reader.submit((options, folder)).result()
    finally:
        reader.close()


def _stored(job: tuple[AssessOptions, str], cores: int) -> tuple[assess.Stored, str]:  # noqa: ARG001
    options, folder = job
    table = _table(options)
    return assess.store(table, Path(folder)), table.describe()


def _table(options: AssessOptions) -> Table:
    with warnings.catch_warnings(), _as_options():
        warnings.simplefilter("ignore", UserWarning)  # `describe` says them
        return from_table(
            options.file,
            group=options.group,
            target=options.target,
            order=options.order,
            columns=by_name(options.column, "--column", "NAME=KIND such as zip=categorical"),
            kind=options.kind,
            held_out=options.held_out,
            smallest=options.smallest,
            fitted_on=options.first,
        )


@contextmanager
def _as_options() -> Iterator[None]:
    """Advice to a caller, as options of the command.

    Raises:
        UserError: what was raised within.
    """
    try:
        yield
    except UserError as error:
        raise UserError(re.sub(r"columns=\{'(.+?)': '(.+?)'\}", r"--column '\1=\2'", str(error))) from error


def _assess(
    given: assess.Setup,
    workers: int,
    table: Table | None,
    description: str,
    options: AssessOptions,
    out: Path,
    arguments: Sequence[str],
) -> int:
    began = time.monotonic()
    with steps() as show:
        found = assess.contest(given, LocalWorkers(workers, 1, assess.perform), show)
        answer = assess.answer(found)
        judged = time.monotonic() - began
        kept: assess.Kept | None = None
        unkept: BaseException | None = None
        if table is not None and options.keep is not None:
            try:
                kept = assess.keep(table, found, options.keep_learner or answer.winner, options.keep, show)
            except (Exception, KeyboardInterrupt) as error:  # whatever it is: the page is still worth having
                unkept = error
    from metaleader.assess.page import kept_words, terminal_table, write  # which load what draws figures

    processor = platform.processor() or platform.machine()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    made = {
        "command": shlex.join(["metaleader", "assess", *arguments]),
        "time": f"{judged:.0f} s",
        "versions": f"Python {platform.python_version()}, {versions}",
        "machine": f"{processor}, {platform.system()}, {workers} processes of one core each",
    }
    page = write(found, answer, description, made, out, kept)
    Console().print(terminal_table(found, answer))
    for text in assess.in_words(found, answer):
        print(f"\n{text}")
    if kept is not None:
        print("".join(f"\n{text}" for text in kept_words(found, answer, kept)))
        print(f"\n{textwrap.indent(kept.code, '    ', lambda _: True)}")
    print(f"\npage: {page}")
    for name, played in found.played.items():
        if failed := next((p.failed for p in played if p.failed), ""):
            say(f"{name}: {failed}; its errors are left out")
    if isinstance(unkept, KeyboardInterrupt):
        raise unkept
    if unkept is not None:
        raise UserError(f"the page is there, but no learner was kept: {_reason(unkept)}") from unkept
    return 0


def _reason(error: BaseException) -> str:
    """Why something failed; with the kind of the error where that is not one of the user."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
