"""Made-up runs, as values and as folders."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from metaleader import Record
from metaleader.online.description import RunDescription, ScoreDescription
from metaleader.results.metrics import Run

SIZES = (10, 20, 40)


def about(
    learner: str = "ftml",
    seed: int = 0,
    rounds: int = 3,
    threshold: float = 0.5,
    higher: bool = True,
    experiment: str = "made-up",
    **others: Any,
) -> RunDescription:
    return RunDescription(
        experiment=experiment,
        preset="laptop",
        learner=learner,
        seed=seed,
        rounds=rounds,
        settings={"protocol": {"threshold": threshold}, "learner": {"steps": 5, "<name>": learner}},
        scores=(ScoreDescription("accuracy" if higher else "squared error", higher),),
        threshold=threshold,
        command=f"metaleader run {experiment}",
        made=f"2026-01-01T00:00:0{seed}",
        versions={"metaleader": "0"},
        machine={"devices": ["cpu"], "cores": 2},
        **others,
    )


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
        settings: see `about`.
    """
    records = []
    for t, row in enumerate(scores, start=1):
        for size, score in zip(sizes, row, strict=False):
            cost, learned = 100 * t + size, sum(learning[:t])
            records.append(Record(t, f"task {t}", size, score, score, score is None, cost, float(t), 0.5 * t, learned))
    return Run(about(**{"rounds": len(scores), **settings}), tuple(records), outcome)


def folder(path: Path, run: Run, tail: str = "", extra: Mapping[str, Any] | None = None) -> Path:
    """Write a run as `metaleader run` would, without checkpoints; `tail`: a line that is still being written."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({**run.about.as_json(), **(extra or {})}))
    (path / "records.jsonl").write_text("".join(json.dumps(asdict(record)) + "\n" for record in run.records) + tail)
    if run.outcome:
        (path / "outcome.json").write_text(json.dumps({"outcome": run.outcome}))
    return path
