"""What runs are called, and where their numbers come from: command, commit, machine, and checksums of the records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metaleader.results.formats import significant
from metaleader.results.metrics import Run

SETTINGS = {
    "model.norm=batch": "the authors' normalisation, in which held-out images help to predict one another",
}
"""Settings that need a word of explanation wherever results in them are shown."""

HEADINGS = ("run", "how it ended", "SHA-256 of records.jsonl")


def title(run: Run) -> str:
    """What the results of a run and those beside it are called, and how they differ from the paper."""
    said = [SETTINGS[setting] for setting in run.setting[0] if setting in SETTINGS]
    return ": ".join([run.section, *filter(None, ["; ".join(said), differs(run)])])


def differs(run: Run) -> str:
    """How the preset differs from the paper, as its experiment says; empty where it does not say."""
    return run.about.differs


def made(runs: Sequence[Run]) -> dict[str, str]:
    """What it takes to make the runs again."""
    first = runs[0].about
    seconds = sum(run.records[-1].train_seconds + run.records[-1].evaluation_seconds for run in runs if run.records)
    return {
        "commands": "\n".join(dict.fromkeys(run.about.command for run in runs)),
        "commit of the source": counted((run.about.commit for run in runs), "runs"),
        "time": f"{len(runs)} runs, {significant(seconds / 3600)} hours of learning and judging, one after another",
        "versions": pairs(first.versions),
        "machine": "\n\n".join(dict.fromkeys(pairs(run.about.machine) for run in runs)),
        "data": pairs(first.data) if first.data else "embedded or generated; no files",
        "seeds": ", ".join(map(str, sorted({run.about.seed for run in runs}))),
    }


def blocks(made: Mapping[str, str]) -> list[str]:
    """The same in Markdown."""
    return [f"{name}:\n\n```\n{text}\n```" for name, text in made.items()]


def counted(commits: Iterable[str | None], what: str) -> str:
    """A line for every commit, and where they are several, of how many `what` it is."""
    counts = Counter(commit or "not recorded" for commit in commits)
    return "\n".join(commit if len(counts) == 1 else f"{commit}  ({count} {what})" for commit, count in counts.items())


def rows(runs: Sequence[Run], root: Path) -> list[list[str]]:
    """A row of text for every run: its folder within `root`, how it ended, and the checksum of its records."""
    return [[_within(run.folder, root), run.outcome or "can go on", run.sha256] for run in runs]


def _within(folder: Path | None, root: Path) -> str:
    if folder is None:
        return ""
    whole, above = folder.absolute(), root.absolute()
    return str(whole.relative_to(above)) if whole.is_relative_to(above) else str(folder)


def as_json(runs: Sequence[Run], root: Path) -> list[dict[str, Any]]:
    """The same as plain JSON, with the commit."""
    return [
        {"run": where, "outcome": outcome, "commit": run.about.commit, "records_sha256": checksum}
        for run, (where, outcome, checksum) in zip(runs, rows(runs, root), strict=True)
    ]


def settings_rows(settings: Mapping[str, Any]) -> list[list[str]]:
    """A row for every setting, a column for every learner."""
    flat = {name: dict(_flat(value)) for name, value in settings.items()}
    keys = dict.fromkeys(key for values in flat.values() for key in values)
    return [[key, *(values.get(key, "") for values in flat.values())] for key in keys]


def _flat(value: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value if isinstance(value, str) else json.dumps(value)


def pairs(values: Mapping[str, Any]) -> str:
    """A line for every name and value."""
    return "\n".join(f"{key}  {', '.join(v) if isinstance(v, list) else v}" for key, v in values.items())
