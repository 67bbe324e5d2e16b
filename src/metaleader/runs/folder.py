"""The folder of a run: plain files that outlive any stop."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from metaleader import devices
from metaleader.errors import UserError, failure, writing
from metaleader.files import (
    contents,
    make_folder,
    read_json,
    sync,
    sync_folder,
    whole_lines,
    write_json,
    write_text,
    write_whole,
)
from metaleader.online import Record, RunState
from metaleader.online.description import RunDescription
from metaleader.online.record import is_record
from metaleader.processes import owned_for_results
from metaleader.runs import checkpoint

P = ParamSpec("P")
T = TypeVar("T")
PATIENCE = 30.0  # seconds that a worker whose parent was killed may take to end


def _writes(method: Callable[Concatenate[RunFolder, P], T]) -> Callable[Concatenate[RunFolder, P], T]:
    """A method that raises `WriteError` where the file system refuses."""

    @functools.wraps(method)
    def told(self: RunFolder, *args: P.args, **kwargs: P.kwargs) -> T:
        with writing(self.path):
            return method(self, *args, **kwargs)

    return told  # type: ignore[return-value] # its first parameter may be given by name, which nobody does


class RunFolder:
    """The folder of one run: one learner, one seed.

    - `config.json`: everything that determines the records, and how and where they were made (`RunDescription`);
    - `records.jsonl`: one `Record` a line;
    - `checkpoints/`: the newest states from which the run can go on;
    - `outcome.json`: how the run ended, once it did;
    - `traceback.txt`: of the error that ended the run, if one did;
    - `illustration.npz`: arrays of a picture of what was learned, for experiments that have one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def owned(self) -> AbstractContextManager[None]:
        """Be the only process that writes in this folder.

        Raises:
            UserError: another process does; says which.
            WriteError: the file system refuses.
        """
        return owned_for_results(self.path, PATIENCE)

    @property
    def begun(self) -> bool:
        """Whether a run was made here."""
        return (self.path / "config.json").exists()

    @property
    def outcome(self) -> str | None:
        """`finished`, `diverged` or `failed: ...`, and None while the run can go on.

        Raises:
            UserError: `outcome.json` is damaged.
        """
        path = self.path / "outcome.json"
        return str(read_json(path)["outcome"]) if path.exists() else None

    @property
    def description(self) -> RunDescription:
        """What the run is of.

        Raises:
            UserError: `config.json` is damaged, or of another version.
        """
        path = self.path / "config.json"
        return RunDescription.from_json(read_json(path), str(path))

    @property
    def rounds(self) -> tuple[int, int]:
        """The round of the last sound record, and how many are planned; 0 before the run began or if nobody knows."""
        planned, lines = (self.description.rounds or 0) if self.begun else 0, whole_lines(self.path / "records.jsonl")
        last = next(filter(is_record, reversed(lines)), None)
        return int(json.loads(last)["round"]) if last else 0, planned

    @_writes
    def create(self, description: RunDescription) -> None:
        """Make the folder of a new run; refuses one that exists."""
        self.refuse_existing()
        make_folder(self.path)
        write_json(self.path / "config.json", description.as_json())

    @_writes
    def refuse_existing(self) -> None:
        """Make sure that there is nothing to overwrite.

        Raises:
            UserError: the folder exists and is not empty.
        """
        if contents(self.path):
            raise UserError(
                f"{self.path} exists already: go on with it by --resume, or choose another folder with --out"
            )

    def check_settings(self, now: RunDescription) -> None:
        """Make sure that going on with this run means what it meant when it began.

        Raises:
            UserError: naming the first setting that differs.
        """
        if difference := self.description.difference(now):
            raise UserError(changed(self.path, *difference))

    @_writes
    def append(self, record: Record) -> None:
        """Add a line to `records.jsonl`, and hand it to the operating system at once."""
        with (self.path / "records.jsonl").open("a") as file:
            file.write(record.as_line())

    @property
    def traceback(self) -> Path:
        """The file that keeps the traceback of a run that failed."""
        return self.path / "traceback.txt"

    @_writes
    def failed(self, error: Exception) -> str:
        """The outcome of a run that ended with this error, in one line; the traceback is kept, if the run has begun."""
        if self.begun:
            write_text(self.traceback, "".join(traceback.format_exception(error)))
        return failure(error)

    @_writes
    def end(self, outcome: str) -> None:
        """Note how the run ended."""
        if not outcome.startswith("failed"):
            self.traceback.unlink(missing_ok=True)  # of an attempt before
        write_json(self.path / "outcome.json", {"outcome": outcome})

    @_writes
    def lengthen(self, now: RunDescription) -> None:
        """Let the run go on to the rounds that its stream has now, also if it had finished."""
        (self.path / "outcome.json").unlink(missing_ok=True)
        longer = dataclasses.replace(self.description, rounds=now.rounds, settings=now.settings)
        write_json(self.path / "config.json", longer.as_json())

    @_writes
    def illustrate(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the arrays of an illustration, if there are any."""
        if arrays:
            write_whole(self.path / "illustration.npz", lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]

    @_writes
    def save(self, state: RunState) -> None:
        """Checkpoint a run state; the records made so far are on the disk before it is."""
        lines = self.path / "records.jsonl"
        if lines.exists():
            with lines.open("rb") as file:
                sync(file)
            sync_folder(self.path)
        checkpoint.save(self.path / "checkpoints", state)

    def restore(self, like: Any) -> RunState | None:
        """The newest run state whose records are there, without the datapoints of tasks that may come back, or None.

        A checkpoint that is damaged, or counts on records that are lost, gives way to the one before, with a warning.
        With several processes, process 0 reads and the others receive.
        """
        saved = devices.on_first(self._newest)
        return None if saved is None else checkpoint.placed(saved, like)

    def _newest(self) -> RunState | None:
        path = self.path / "records.jsonl"
        there = len(list(itertools.takewhile(is_record, whole_lines(path))))
        for found in checkpoint.newest_first(self.path / "checkpoints"):
            if isinstance(found, RunState) and found.records <= there:
                return found
            damage = f"{path}: line {there + 1} is missing or damaged" if isinstance(found, RunState) else found
            warnings.warn(f"{damage}; going on from what was saved before, to the same records", stacklevel=2)
        return None

    @_writes
    def rewind(self, records: int) -> None:
        """Drop what was recorded after the first `records` records: the run will make it again."""
        path = self.path / "records.jsonl"
        kept = whole_lines(path)[:records]
        write_whole(path, lambda file: file.writelines(kept))


def changed(folder: Path, name: str, before: Any, now: Any) -> str:
    """The message for a folder that was made with other settings."""
    what = f"{name} = {before!r}, now it is {now!r}"
    if name.endswith(".code"):
        what = f"other code of {name.removesuffix('.code')}, or under another version of Python"
    return f"{folder} was made with {what}: resume with the settings it began with, or choose another folder with --out"
