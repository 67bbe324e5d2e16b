"""Made-up runs, as values and as folders."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from metaleader import Record
from metaleader.results.metrics import Run

SIZES = (10, 20, 40)


def config(
    learner: str = "ftml",
    seed: int = 0,
    rounds: int = 3,
    threshold: float = 0.5,
    higher: bool = True,
    experiment: str = "made-up",
) -> dict[str, Any]:
    return {
        "experiment": experiment,
        "preset": "laptop",
        "learner": learner,
        "seed": seed,
        "rounds": rounds,
        "command": f"metaleader run {experiment}",
        "made": f"2026-01-01T00:00:0{seed}",
        "settings": {"protocol": {"threshold": threshold}, "learner": {"steps": 5, "<name>": learner}},
        "score": {"name": "accuracy" if higher else "squared error", "higher_is_better": higher},
        "data": {},
        "versions": {"metaleader": "0"},
        "machine": {"devices": ["cpu"], "cores": 2},
    }


def made(
    scores: Sequence[Sequence[float | None]],
    outcome: str | None = "finished",
    learning: Sequence[int] = (),
    sizes: Sequence[int] = SIZES,
    **settings: Any,
) -> Run:
    """A run with the score of every round and size; None: not finite.

    Args:
        scores: of every round, at as many of the sizes.
        outcome: how the run ended.
        learning: gradients of learning in every round; none: records do not tell.
        sizes: at which tasks are judged.
        settings: see `config`.
    """
    records = []
    for t, row in enumerate(scores, start=1):
        for size, score in zip(sizes, row, strict=False):
            record = Record(t, f"task {t}", size, score, score, score is None, 100 * t + size, float(t), 0.5 * t)
            known = Record(**{**asdict(record), "learning_evaluations": sum(learning[:t])}) if learning else record
            records.append(known)
    return Run(config(**{"rounds": len(scores), **settings}), tuple(records), outcome)


def folder(path: Path, run: Run, tail: str = "", extra: Mapping[str, Any] | None = None) -> Path:
    """Write a run as `metaleader run` would, without checkpoints; `tail`: a line that is still being written."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({**run.about, **(extra or {})}))
    known = [{key: value for key, value in asdict(record).items() if key in _FIELDS} for record in run.records]
    (path / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in known) + tail)
    if run.outcome:
        (path / "outcome.json").write_text(json.dumps({"outcome": run.outcome}))
    return path


_FIELDS = Record.__dataclass_fields__
