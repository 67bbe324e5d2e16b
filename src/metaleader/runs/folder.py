"""The folder of a run: plain files that outlive any stop."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metaleader import devices
from metaleader.errors import UserError
from metaleader.files import write_json, write_text, write_whole
from metaleader.online import Record, RunState
from metaleader.online.description import RunDescription
from metaleader.runs import checkpoint


class RunFolder:
    """The folder of one run: one learner, one seed.

    - `config.json`: everything that determines the records, and how and where they were made (`RunDescription`);
    - `records.jsonl`: one `Record` a line;
    - `checkpoints/`: the newest state from which the run can go on;
    - `outcome.json`: how the run ended, once it did;
    - `illustration.npz`: arrays of a picture of what was learned, for experiments that have one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def begun(self) -> bool:
        """Whether a run was made here."""
        return (self.path / "config.json").exists()

    @property
    def outcome(self) -> str | None:
        """`finished`, `diverged` or `failed: ...`, and None while the run can go on."""
        path = self.path / "outcome.json"
        return str(json.loads(path.read_text())["outcome"]) if path.exists() else None

    @property
    def description(self) -> RunDescription:
        """What the run is of.

        Raises:
            UserError: `config.json` is of another version.
        """
        path = self.path / "config.json"
        return RunDescription.from_json(json.loads(path.read_text()), str(path))

    @property
    def rounds(self) -> tuple[int, int]:
        """The round of the last record, and how many are planned; 0 before the run began or where nobody knows."""
        lines = self.path / "records.jsonl"
        planned = (self.description.rounds or 0) if self.begun else 0
        text = lines.read_text() if lines.exists() else ""
        complete = text[: text.rfind("\n") + 1].splitlines()  # the last line may still be being written
        return int(json.loads(complete[-1])["round"]) if complete else 0, planned

    def create(self, description: RunDescription) -> None:
        """Make the folder of a new run; refuses one that exists."""
        self.refuse_existing()
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "config.json", description.as_json())

    def refuse_existing(self) -> None:
        """Make sure that there is nothing to overwrite.

        Raises:
            UserError: the folder exists and is not empty.
        """
        if self.path.exists() and any(self.path.iterdir()):
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

    def append(self, record: Record) -> None:
        """Add a line to `records.jsonl`, and hand it to the operating system at once."""
        with (self.path / "records.jsonl").open("a") as file:
            file.write(json.dumps(dataclasses.asdict(record), allow_nan=False) + "\n")

    def end(self, outcome: str) -> None:
        """Note how the run ended."""
        write_json(self.path / "outcome.json", {"outcome": outcome})

    def reopen(self, now: RunDescription) -> None:
        """Let a run that finished go on to the rounds that its stream has now."""
        longer = dataclasses.replace(self.description, rounds=now.rounds, settings=now.settings)
        write_json(self.path / "config.json", longer.as_json())
        (self.path / "outcome.json").unlink(missing_ok=True)

    def illustrate(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the arrays of an illustration, if there are any."""
        if arrays:
            write_whole(self.path / "illustration.npz", lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]

    def save(self, state: RunState) -> None:
        """Checkpoint a run state, with all records made so far; replaces the checkpoint before."""
        checkpoint.save(self.path / "checkpoints", state)

    def restore(self, like: Any) -> RunState | None:
        """The run state last saved, without the datapoints of tasks that may come back; None if none was saved.

        Records written after it are dropped: the run will write them again. With several processes, process 0
        reads and the others receive.
        """
        found = devices.on_first(lambda: checkpoint.read(self.path / "checkpoints"))
        saved = None if found is None else checkpoint.placed(found, like)
        devices.on_first(lambda: self._truncate(0 if saved is None else saved.records))
        return saved

    def _truncate(self, records: int) -> None:
        path = self.path / "records.jsonl"
        lines = path.read_text().splitlines(keepends=True)[:records] if path.exists() else []
        write_text(path, "".join(lines))


def changed(folder: Path, name: str, before: Any, now: Any) -> str:
    """The message for a folder that was made with other settings."""
    return (
        f"{folder} was made with {name} = {before!r}, now it is {now!r}: "
        "resume with the settings it began with, or choose another folder with --out"
    )
