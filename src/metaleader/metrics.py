"""From records to numbers: learning efficiency, scores at sizes, compute (paper, sections 5 and 6).

A run's records become a table of rounds x sizes, and several runs of a learner the array runs x rounds x sizes;
every statistic is a function of such an array, NaN where there is no value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from metaleader.errors import UserError
from metaleader.record import Record

Interval: TypeAlias = list[float | None]  # mean, low, high


@dataclass(frozen=True)
class Run:
    """A run as its folder has it, finished or not.

    Attributes:
        config: what determined the records.
        records: in order.
        outcome: `finished`, `diverged`, `failed: ...`, or None if it can go on.
        illustration: arrays of a picture of what was learned, if the run made one.
    """

    config: dict[str, Any]
    records: tuple[Record, ...]
    outcome: str | None
    illustration: Mapping[str, np.ndarray] | None = None

    @property
    def learner(self) -> str:
        """The learner's name."""
        return str(self.config["learner"])

    @property
    def setting(self) -> tuple[list[str], list[str]]:
        """What a sweep set for this run as `NAME=VALUE`: in the experiment, and in the learner."""
        given, own = self.config.get("setting", []), f"{self.learner}."
        return [s for s in given if not s.startswith(own)], [s.removeprefix(own) for s in given if s.startswith(own)]

    @property
    def section(self) -> str:
        """What a report calls the runs that are compared with this one."""
        return " ".join([f"{self.config['experiment']} ({self.config['preset']})", *self.setting[0]])

    @property
    def line(self) -> str:
        """What a table calls this run and its other seeds: the learner, and what was set in it."""
        return " ".join([self.learner, *self.setting[1]])

    @property
    def planned(self) -> int:
        """Rounds in the stream."""
        return int(self.config["rounds"])

    @property
    def diverged(self) -> bool:
        """Whether the learner was stopped since its losses were no longer finite."""
        return self.outcome == "diverged"

    @property
    def completed(self) -> int:
        """Rounds to take into account: all planned, where the run ended, and otherwise those that are complete."""
        if self.outcome in ("finished", "diverged"):
            return self.planned
        return max((record.round for record in self.records), default=1) - 1


def load(paths: Sequence[Path]) -> list[Run]:
    """The runs in folders and their subfolders, in the order of their paths.

    Raises:
        UserError: a folder does not exist or holds no run.
    """
    runs = []
    for path in paths:
        if not path.is_dir():
            raise UserError(f"there is no folder {path}: name one that `metaleader run` made")
        # In the order in which they were made, which is the order in which the user named the learners.
        found = sorted((config.parent for config in path.rglob("config.json")), key=_made)
        if not found:
            raise UserError(f"{path} holds no run (no config.json): name a folder that `metaleader run` made")
        runs += [_load(folder) for folder in found]
    return runs


def _made(folder: Path) -> tuple[str, str]:
    return str(json.loads((folder / "config.json").read_text())["made"]), str(folder)


def _load(folder: Path) -> Run:
    outcome, lines, arrays = (folder / name for name in ("outcome.json", "records.jsonl", "illustration.npz"))
    text = lines.read_text() if lines.exists() else ""
    complete = text[: text.rfind("\n") + 1].splitlines()  # a run under way may be writing the last line
    return Run(
        json.loads((folder / "config.json").read_text()),
        tuple(Record(**json.loads(line)) for line in complete),
        json.loads(outcome.read_text())["outcome"] if outcome.exists() else None,
        dict(np.load(arrays)) if arrays.exists() else None,
    )


def sizes(runs: Sequence[Run]) -> list[int]:
    """The sizes of D_t at which tasks were evaluated, ascending."""
    return sorted({record.datapoints for run in runs for record in run.records})


def scores(runs: Sequence[Run], at: Sequence[int]) -> Float[np.ndarray, "runs rounds sizes"]:
    """The score of every run, round and size; NaN where it was not evaluated or not finite."""
    array = np.full((len(runs), max(run.planned for run in runs), len(at)), np.nan)
    for i, run in enumerate(runs):
        for record in run.records:
            if record.datapoints in at and record.score is not None:
                array[i, record.round - 1, at.index(record.datapoints)] = record.score
    return array


def final_scores(runs: Sequence[Run]) -> Float[np.ndarray, "runs rounds"]:
    """The score at the end of every round."""
    array = np.full((len(runs), max(run.planned for run in runs)), np.nan)
    for i, run in enumerate(runs):
        for record in run.records:  # the last record of a round overwrites those before
            array[i, record.round - 1] = np.nan if record.score is None else record.score
    return array


def final_also(runs: Sequence[Run], name: str) -> Float[np.ndarray, "runs rounds"]:
    """Another score, by name, at the end of every round; NaN where it was not recorded or not finite."""
    array = np.full((len(runs), max(run.planned for run in runs)), np.nan)
    for i, run in enumerate(runs):
        for record in run.records:
            value = record.also.get(name)
            array[i, record.round - 1] = np.nan if value is None else value
    return array


def datapoints_to_proficiency(runs: Sequence[Run]) -> Float[np.ndarray, "runs rounds"]:
    """Learning efficiency: |D_t| when the score was first at least as good as the threshold (Algorithm 1).

    Infinity for a task that never got there (censored), also where a learner was stopped as diverged; NaN for
    a round that has not been played to its end.
    """
    array = np.full((len(runs), max(run.planned for run in runs)), np.nan)
    for i, run in enumerate(runs):
        threshold, higher = run.config["settings"]["protocol"]["threshold"], run.config["score"]["higher_is_better"]
        array[i, : run.completed] = np.inf
        for record in run.records:
            reached = record.score is not None and (record.score >= threshold if higher else record.score <= threshold)
            if reached and record.round <= run.completed:
                array[i, record.round - 1] = min(array[i, record.round - 1], record.datapoints)
    return array


def last_third(runs: Sequence[Run]) -> Bool[np.ndarray, "runs rounds"]:
    """Which rounds count in a summary: the last third of those completed by each run, at least one."""
    rounds = np.arange(max(run.planned for run in runs))
    return np.array([(rounds >= run.completed - -(-run.completed // 3)) & (rounds < run.completed) for run in runs])


def interval(per_run: Float[np.ndarray, " runs"], level: float = 0.95, resamples: int = 2000) -> Interval:
    """Mean over runs with the percentile bootstrap interval; `[mean, None, None]` for a single run.

    Runs are resampled with replacement by a generator of fixed seed, so that a report is the same every time.
    All None where a run has no value.
    """
    if len(per_run) == 0 or not np.isfinite(per_run).all():
        return [None, None, None]
    mean = float(per_run.mean())
    if len(per_run) == 1:
        return [mean, None, None]
    drawn = np.random.default_rng(0).integers(len(per_run), size=(resamples, len(per_run)))
    low, high = np.quantile(per_run[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return [mean, float(low), float(high)]


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """All measures of every learner (in a sweep: of each of its settings), over the last third of the rounds.

    The runs are of one experiment: see `Run.section`.

    Scores are averaged over rounds within a run, then over runs, with an interval over runs (seeds). A learner
    of which a run diverged has no mean score: an average over the rounds that survived would flatter it.
    """
    learners = {name: [run for run in runs if run.line == name] for name in dict.fromkeys(r.line for r in runs)}
    return {
        "title": runs[0].section,
        "experiment": runs[0].config["experiment"],
        "preset": runs[0].config["preset"],
        "score": runs[0].config["score"],
        "shown_at": runs[0].config.get("shown_at", []),
        "threshold": runs[0].config["settings"]["protocol"]["threshold"],
        "learners": {name: _of_learner(of_learner) for name, of_learner in learners.items()},
    }


def _of_learner(runs: Sequence[Run]) -> dict[str, Any]:
    at = sizes(runs)
    counted, diverged = last_third(runs), any(run.diverged for run in runs)
    efficiency = datapoints_to_proficiency(runs)[counted]
    middle = float(np.median(efficiency)) if len(efficiency) else float("inf")

    def over_rounds(values: Float[np.ndarray, "runs rounds"]) -> Interval:
        if diverged:
            return [None, None, None]
        kept = [row[mask & ~np.isnan(row)] for row, mask in zip(values, counted, strict=True)]
        return interval(np.array([row.mean() if len(row) else np.nan for row in kept]))

    table = scores(runs, at)
    ends = [run.records[-1] for run in runs if run.records]
    return {
        "seeds": len(runs),
        "rounds": min(run.completed for run in runs),
        "score_at": {str(size): over_rounds(table[:, :, i]) for i, size in enumerate(at)},
        "datapoints_to_proficiency": {
            "median": middle if np.isfinite(middle) else None,
            "reached": int(np.isfinite(efficiency).sum()),
            "tasks": len(efficiency),
        },
        "final_score": over_rounds(final_scores(runs)),
        "final_also": {
            name: over_rounds(final_also(runs, name))
            for name in dict.fromkeys(name for run in runs for record in run.records[:1] for name in record.also)
        },
        "gradient_evaluations": int(np.mean([end.gradient_evaluations for end in ends])) if ends else 0,
        "seconds": round(float(np.mean([e.train_seconds + e.evaluation_seconds for e in ends])), 1) if ends else 0.0,
        "diverged": diverged,
        "partial": any(run.outcome not in ("finished", "diverged") for run in runs),
        "failed": [run.outcome for run in runs if (run.outcome or "").startswith("failed")],
    }
