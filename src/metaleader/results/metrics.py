"""From records to numbers: learning efficiency, scores at sizes, compute (paper, sections 5 and 6).

A run's records become a table of rounds x sizes, and several runs of a learner the array runs x rounds x sizes;
every statistic is a function of such an array, NaN where there is no value.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from metaleader.errors import UserError
from metaleader.files import read_json, whole_lines
from metaleader.online.description import RunDescription, ScoreDescription
from metaleader.online.record import Record, records_of
from metaleader.problem.scores import reaches
from metaleader.results.statistics import Interval, t_interval


@dataclass(frozen=True)
class Run:
    """A run as its folder has it, finished or not.

    Attributes:
        about: what it is of.
        records: in order.
        outcome: `finished`, `diverged`, `failed: ...`, or None if it can go on.
        illustration: arrays of a picture of what was learned, if the run made one.
        folder: where it lies.
        sha256: checksum of its `records.jsonl`, by which a reader can tell that a figure is of these records.
    """

    about: RunDescription
    records: tuple[Record, ...]
    outcome: str | None
    illustration: Mapping[str, np.ndarray] | None = None
    folder: Path | None = field(default=None, compare=False)
    sha256: str = field(default="", compare=False)

    @property
    def learner(self) -> str:
        """The learner's name."""
        return self.about.learner

    @property
    def setting(self) -> tuple[list[str], list[str]]:
        """What a sweep set for this run as `NAME=VALUE`: in the experiment, and in the learner."""
        given, own = self.about.setting, f"{self.learner}."
        return [s for s in given if not s.startswith(own)], [s.removeprefix(own) for s in given if s.startswith(own)]

    @property
    def section(self) -> str:
        """What a report calls the runs that are compared with this one."""
        return " ".join([f"{self.about.experiment} ({self.about.preset})", *self.setting[0]])

    @property
    def line(self) -> str:
        """What a table calls this run and its other seeds: the learner, and what was set in it."""
        return " ".join([self.learner, *self.setting[1]])

    @property
    def planned(self) -> int:
        """Rounds in the stream; of one that does not say, those of which there are records."""
        return self.about.rounds or self.played

    @property
    def played(self) -> int:
        """Rounds of which there are records."""
        return max((record.round for record in self.records), default=0)

    @property
    def diverged(self) -> bool:
        """Whether the learner was stopped since its losses were no longer finite."""
        return self.outcome == "diverged"

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to run."""
        return self.outcome in ("finished", "diverged")

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher score is a better one."""
        return self.about.score.higher_is_better

    @property
    def threshold(self) -> float:
        """The score of proficiency."""
        return self.about.threshold

    @property
    def completed(self) -> int:
        """Rounds to take into account: all planned, where the run ended, and otherwise those that are complete."""
        if self.ended:
            return self.planned
        return max((record.round for record in self.records), default=1) - 1


def load(paths: Sequence[Path]) -> list[Run]:
    """The runs in folders and their subfolders, in the order of their paths.

    Raises:
        UserError: a folder does not exist or holds no run.
    """
    runs = []
    seen = set[Path]()
    for path in paths:
        if not path.is_dir():
            raise UserError(f"there is no folder {path}: name one that `metaleader run` made")
        # In the order in which they were made, which is the order in which the user named the learners.
        configs = list(path.rglob("config.json"))
        if not configs:
            raise UserError(f"{path} holds no run (no config.json): name a folder that `metaleader run` made")
        # Each once, though a folder be named twice, or lie in another one.
        found = [_load(config.parent) for config in configs if config.resolve() not in seen]
        seen.update(config.resolve() for config in configs)
        runs += sorted(found, key=lambda run: (run.about.made, str(run.folder)))
    return runs


def _load(folder: Path) -> Run:
    outcome, records, arrays = (folder / name for name in ("outcome.json", "records.jsonl", "illustration.npz"))
    lines = whole_lines(records)
    return Run(
        RunDescription.from_json(read_json(folder / "config.json"), str(folder / "config.json")),
        tuple(records_of(lines, records)),
        read_json(outcome)["outcome"] if outcome.exists() else None,
        dict(np.load(arrays)) if arrays.exists() else None,
        folder,
        hashlib.sha256(b"".join(lines)).hexdigest(),
    )


def sizes(runs: Sequence[Run]) -> list[int]:
    """The sizes of D_t at which tasks were evaluated, ascending."""
    return sorted({record.datapoints for run in runs for record in run.records})


def scores(runs: Sequence[Run], at: Sequence[int]) -> Float[np.ndarray, "runs rounds sizes"]:
    """The score of every run, round and size; NaN where it was not evaluated, undefined or not finite."""
    array = np.full((len(runs), _rounds(runs), len(at)), np.nan)
    for i, run in enumerate(runs):
        for record in run.records:
            if record.datapoints in at and record.score is not None:
                array[i, record.round - 1, at.index(record.datapoints)] = record.score
    return array


def _rounds(runs: Sequence[Run]) -> int:
    """Rounds of an array of runs: those played; where a learner diverged all planned, as the others count as lost."""
    return max(run.planned if run.diverged else run.played for run in runs)


def final_scores(runs: Sequence[Run], other: str | None = None) -> Float[np.ndarray, "runs rounds"]:
    """The first score, or another by name, at the end of every round; NaN where there is none, as in `scores`."""
    array = np.full((len(runs), _rounds(runs)), np.nan)
    for i, run in enumerate(runs):
        for record in run.records:  # the last record of a round overwrites those before
            value = _score(record, other)
            array[i, record.round - 1] = np.nan if value is None else value
    return array


def _score(record: Record, other: str | None) -> float | None:
    """The first score, or another by name."""
    return record.score if other is None else record.other_scores.get(other)


def proficiency(runs: Sequence[Run], other: ScoreDescription | None = None) -> Float[np.ndarray, "runs rounds 2"]:
    """Learning efficiency as an interval: more datapoints than the first of the two, and at most the second.

    A task is judged at some sizes only. What it needs to become proficient lies between the last size judged before it
    was, or 0, and the first size at which its score was at least as good as the threshold (Algorithm 1). A task that
    never got there is censored: more than its last size, and at most infinity; in rounds that a diverged learner did
    not play, the last size is the run's largest. NaN for a round that has not been played to its end, or in which the
    learner was not judged, or every score is undefined (see `Record`).

    With `other`, another score than the first, that one and its threshold count.
    """
    array = np.full((len(runs), _rounds(runs), 2), np.nan)
    for i, run in enumerate(runs):
        by, threshold = (run.about.score, run.threshold) if other is None else (other, other.threshold)
        assert threshold is not None, f"{by.name} has no threshold"
        if run.diverged:
            array[i, run.played : run.completed] = max(sizes([run]), default=0), np.inf
        for judged in _by_round(run):
            values = [_score(record, None if other is None else other.name) for record in judged]
            if any(value is not None or record.diverged for value, record in zip(values, judged, strict=True)):
                at = [record.datapoints for record in judged]
                array[i, judged[0].round - 1] = _needed(at, values, threshold, by.higher_is_better)
    return array


def _by_round(run: Run) -> list[list[Record]]:
    """The records of every completed round that was played, in order."""
    rounds: dict[int, list[Record]] = {}
    completed = run.completed
    for record in run.records:
        if record.round <= completed:
            rounds.setdefault(record.round, []).append(record)
    return list(rounds.values())


def _needed(
    sizes: Sequence[int], values: Sequence[float | None], threshold: float, higher: bool
) -> tuple[float, float]:
    before = 0
    for size, value in zip(sizes, values, strict=True):
        if value is not None and reaches(value, threshold, higher):
            return before, size
        before = size
    return before, np.inf


def datapoints_to_proficiency(runs: Sequence[Run]) -> Float[np.ndarray, "runs rounds"]:
    """The upper ends of `proficiency`: |D_t| when the score was first judged as good as the threshold, or infinity."""
    return proficiency(runs)[:, :, 1]


def judged(runs: Sequence[Run], other: str | None = None) -> Bool[np.ndarray, "runs rounds"]:
    """In which rounds each learner has a score at the end, the first or another by name, or diverged.

    Of a task without held-out data there may be too little for any size, and a score may be undefined (see `Record`).
    """
    array = np.zeros((len(runs), _rounds(runs)), bool)
    for i, run in enumerate(runs):
        for record in run.records:  # the last record of a round overwrites those before
            array[i, record.round - 1] = record.diverged or _score(record, other) is not None
    return array


def ended_by_all(runs: Sequence[Run], other: str | None = None) -> Bool[np.ndarray, "runs rounds"]:
    """Which rounds are `judged` in every run of the same seed, as far as it has played them."""
    return _of_seeds(runs, judged(runs, other) | ~_played(runs))


def _played(runs: Sequence[Run]) -> Bool[np.ndarray, "runs rounds"]:
    """Which rounds each run has completed and records of."""
    array = np.zeros((len(runs), _rounds(runs)), bool)
    for i, run in enumerate(runs):
        array[i, [judged[0].round - 1 for judged in _by_round(run)]] = True
    return array


def _of_seeds(runs: Sequence[Run], own: Bool[np.ndarray, "runs ..."]) -> Bool[np.ndarray, "runs ..."]:
    """What holds in every run of the same seed."""
    by_all = np.zeros_like(own)
    for seed in {run.about.seed for run in runs}:
        same = [i for i, run in enumerate(runs) if run.about.seed == seed]
        by_all[same] = own[same].all(axis=0)
    return by_all


def judged_by_all(runs: Sequence[Run], at: Sequence[int]) -> Bool[np.ndarray, "runs rounds sizes"]:
    """Which rounds every run of the same seed judged at a size, as far as it has played them.

    Tasks with fewer datapoints than a size, or whose round ended at proficiency, are not judged there, and a score may
    be undefined there (see `Record`); a mean at that size compares learners on the same tasks if it counts only those
    that all of them judged.
    """
    own = np.zeros((len(runs), _rounds(runs), len(at)), bool)
    for i, run in enumerate(runs):
        for judged in _by_round(run):
            with_score = {record.datapoints for record in judged if not record.undefined}
            own[i, judged[0].round - 1] = [size in with_score for size in at]
    return _of_seeds(runs, own | ~_played(runs)[:, :, None])


def last_third(runs: Sequence[Run]) -> Bool[np.ndarray, "runs rounds"]:
    """Which rounds count in a summary: the last third of those completed by each run, at least one."""
    numbers = np.arange(_rounds(runs)) + 1
    return np.array([(numbers >= last_third_from(run.completed)) & (numbers <= run.completed) for run in runs])


def last_third_from(rounds: int) -> int:
    """The first round, counted from 1, of the last third of so many: at least one round, rounded up."""
    return rounds - -(-rounds // 3) + 1


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """All measures of every learner (in a sweep: of each of its settings), over the last third of the rounds.

    The runs are of one experiment: see `Run.section`.

    Scores are averaged over rounds within a run, then over runs, with a t interval over runs (seeds). The mean at a
    size is over the tasks that all learners judged there (see `judged_by_all`), `tasks_at` of them; that at the end of
    rounds is over those that all have a score of. A learner of which a run diverged, or a score that counts was not
    finite, has no mean score: an average of the rest would flatter it.
    """
    at, names = sizes(runs), [run.line for run in runs]
    comparable = judged_by_all(runs, at) & last_third(runs)[:, :, None]
    groups = {name: [i for i, line in enumerate(names) if line == name] for name in dict.fromkeys(names)}
    tasks = [comparable[group].sum(axis=(0, 1)) for group in groups.values()]
    others = [score for score in runs[0].about.scores[1:] if score.threshold is not None]
    recorded = (name for run in runs for record in run.records[:1] for name in record.other_scores)
    named = dict.fromkeys([None, *recorded, *(score.name for score in others)])
    ends = {name: ended_by_all(runs, name) & last_third(runs) for name in named}
    without_end = last_third(runs) & ~ends[None]
    return {
        "title": runs[0].section,
        "experiment": runs[0].about.experiment,
        "preset": runs[0].about.preset,
        "score": dataclasses.asdict(runs[0].about.score),
        "report_sizes": list(runs[0].about.report_sizes),
        "threshold": runs[0].threshold,
        "tasks": max(int(last_third(runs)[group].sum()) for group in groups.values()),
        "tasks_at": {str(size): int(np.max(tasks, axis=0)[i]) for i, size in enumerate(at)},
        "tasks_without_end": max(int(without_end[group].sum()) for group in groups.values()),
        "learners": {
            name: _of_learner(
                [runs[i] for i in group],
                at,
                comparable[group],
                {other: mask[group] for other, mask in ends.items()},
                others,
            )
            for name, group in groups.items()
        },
    }


def _efficiency(needed: Float[np.ndarray, "tasks 2"]) -> dict[str, Any]:
    """The median task's interval of `proficiency`, and how many tasks got there; NaN is no task."""
    needed = needed[~np.isnan(needed[:, 1])]
    above, most = (float(np.median(ends)) if len(needed) else np.nan for ends in needed.T)
    return {
        "above": above if np.isfinite(above) else None,
        "median": most if np.isfinite(most) else None,
        "reached": int(np.isfinite(needed[:, 1]).sum()),
        "tasks": len(needed),
    }


def _of_learner(
    runs: Sequence[Run],
    at: Sequence[int],
    comparable: Bool[np.ndarray, "runs rounds sizes"],
    ends: Mapping[str | None, Bool[np.ndarray, "runs rounds"]],
    others: Sequence[ScoreDescription],
) -> dict[str, Any]:
    diverged = any(run.diverged for run in runs)

    def over_rounds(values: Float[np.ndarray, "runs own"], mask: Bool[np.ndarray, "runs all"]) -> Interval:
        if diverged:
            return [None, None, None]
        mask = mask[:, : values.shape[1]]
        return t_interval(np.array([row[of].mean() for row, of in zip(values, mask, strict=True) if of.any()]))

    def rounds_of(values: Float[np.ndarray, "runs own 2"], mask: Bool[np.ndarray, "runs all"]) -> Any:
        return values[mask[:, : values.shape[1]]]

    table, own = scores(runs, at), sizes(runs)
    last = [run.records[-1] for run in runs if run.records]
    return {
        "seeds": len(runs),
        "rounds": min(run.completed for run in runs),
        "score_at": {
            str(size): over_rounds(table[:, :, i], comparable[:, :, i]) for i, size in enumerate(at) if size in own
        },
        "datapoints_to_proficiency": _efficiency(rounds_of(proficiency(runs), ends[None])),
        "datapoints_to_others": {
            score.name: {
                "threshold": score.threshold,
                **_efficiency(rounds_of(proficiency(runs, score), ends[score.name])),
            }
            for score in others
        },
        "final_score": over_rounds(final_scores(runs), ends[None]),
        "final_others": {
            name: over_rounds(final_scores(runs, name), mask) for name, mask in ends.items() if name is not None
        },
        "gradient_evaluations": int(np.mean([end.gradient_evaluations for end in last])) if last else 0,
        "seconds": round(float(np.median([e.train_seconds + e.evaluation_seconds for e in last])), 1) if last else 0.0,
        "diverged": diverged,
        "partial": any(not run.ended for run in runs),
        "failed": [run.outcome for run in runs if (run.outcome or "").startswith("failed")],
    }
