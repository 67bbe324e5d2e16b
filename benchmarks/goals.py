"""Goals of learning quality, next to what was reached: `python -m benchmarks.goals`."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.outcome import Bar, bound, number, verdict

Learners = Mapping[str, Mapping[str, Any]]  # what the summary of a report says of each


@dataclass(frozen=True)
class Options:
    """Read the summaries of reports and write a page: each goal, what was reached, and by which report."""

    results: tuple[Path, ...] = (Path("docs/results"), Path("docs/full"))
    """Folders of `metaleader reproduce`, with a folder for each experiment."""
    page: Path = Path("docs/goals.md")
    """The page to write."""


@dataclass(frozen=True)
class Goal:
    """What a report of an experiment at one of the presets was to show."""

    experiment: str
    presets: tuple[str, ...]
    what: str
    reached: Callable[[Learners], float]
    limit: float
    at_least: bool = True

    def bar(self, value: float) -> Bar:
        """The goal beside a value."""
        return Bar(self.what, value, self.limit, self.at_least)


def best(learners: Learners, size: int | None) -> float:
    """The score of the best variant of FTML over the last third, at a size of D_t; None: at the end of a round."""
    scores = {
        name: of["final_score"] if size is None else of["score_at"][str(size)]
        for name, of in learners.items()
        if name.startswith("ftml")
    }
    return max(score[0] for score in scores.values())


def ahead(learners: Learners, size: int) -> float:
    """By how many points the best variant of FTML is ahead of learning from scratch."""
    return 100 * (best(learners, size) - learners["scratch"]["score_at"][str(size)][0])


def datapoints(learners: Learners) -> float:
    """How many datapoints the median task of the last third needs to become proficient."""
    return min(
        of["datapoints_to_proficiency"]["median"] or math.inf
        for name, of in learners.items()
        if name.startswith("ftml")
    )


_WHOLE, _BUDGET = ("laptop", "full"), ", within 2 M gradients to learn"
GOALS = (
    # These presets are one.
    Goal("rainbow-mnist", _WHOLE, f"accuracy after 20{_BUDGET}", lambda found: best(found, 20), 0.97),
    Goal("rainbow-mnist", _WHOLE, f"accuracy at the end of a round{_BUDGET}", lambda found: best(found, None), 0.98),
    Goal("cifar100", ("full",), "points ahead of from scratch after 50", lambda found: ahead(found, 50), 15),
    Goal("cifar100", ("full",), "points ahead of from scratch after 250", lambda found: ahead(found, 250), 15),
    Goal("cifar100", ("full",), "points ahead of from scratch after 2000", lambda found: ahead(found, 2000), 0),
    Goal("pose", ("full",), "datapoints to an error of 0.05, median task of the last third", datapoints, 60, False),
)


def summaries(folders: Sequence[Path]) -> list[tuple[Path, Mapping[str, Any]]]:
    """The summary of every report in the folders, with the report's path."""
    files = [file for folder in folders for file in sorted(folder.glob("*/summary.json"))]
    return [(file.with_name("report.md"), json.loads(file.read_text())) for file in files]


def rows(found: Sequence[tuple[Path, Mapping[str, Any]]], beside: Path) -> list[str]:
    """A row of the table for each goal and each report that tells of it; one that says so where none does."""
    lines = []
    for goal in GOALS:
        telling = [
            (path, summary)
            for path, summary in found
            if summary["experiment"] == goal.experiment and summary["preset"] in goal.presets
        ]
        for path, summary in telling:
            bar = goal.bar(goal.reached(summary["learners"]))
            link = f"[{summary['title']}]({os.path.relpath(path, beside)})"
            lines.append(f"| {link} | {goal.what} | {number(bar.value)} | {bound(bar)} | {verdict(bar)} |")
        if not telling:
            none = bound(goal.bar(math.nan))
            lines.append(f"| {goal.experiment} ({goal.presets[-1]}) | {goal.what} | - | {none} | not run |")
    return lines


def main(options: Options) -> int:
    """Write the page; the exit code."""
    table = rows(summaries(options.results), options.page.parent)
    parts = [
        "# Goals of learning quality",
        "What this project set out to reach, next to what its reports found: means over seeds and over the last third "
        "of the rounds, of FTML or of the best of its variants that were run. Goals of speed are in "
        "[Benchmarks](benchmarks.md), the goal for a tenth of the memory is in [Limited memory](memory.md).",
        "\n".join(["| report | what | reached | goal | |", "| --- | --- | --- | --- | --- |", *table]),
        "Made by `python -m benchmarks.goals`.",
    ]
    options.page.write_text("\n\n".join(parts) + "\n")
    print("\n".join(table))
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
