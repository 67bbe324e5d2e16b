"""Records without their timings, which are never the same twice."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from metaleader import Record


def without_times(records: Iterable[Record]) -> list[Record]:
    return [replace(record, train_seconds=0.0, evaluation_seconds=0.0) for record in records]


def recorded(run: Path) -> list[dict[str, Any]]:
    """The records in the folder of a run."""
    lines = (run / "records.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if not key.endswith("_seconds")} for line in lines]


def account(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """All records below a folder, by the folder of their run."""
    return {
        str(path.parent.relative_to(folder)): recorded(path.parent) for path in sorted(folder.rglob("records.jsonl"))
    }
