"""Score against compute: every learner at several multiples of the preset's gradients (docs/compute.md).

    python -m benchmarks.compute

Interrupt it and start it again at will: runs that have ended are kept, the others go on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib.figure import Figure

from benchmarks.comparison import (
    Job,
    Options,
    cli,
    differs,
    ended,
    label,
    made,
    missing,
    planned,
    save,
    settings_of,
    study,
    write_page,
)
from benchmarks.paired import Answer, Decision, Measure, decide, differences, measures
from metaleader import Preset, UserError
from metaleader.experiments import find
from metaleader.results import figures, report
from metaleader.results.figures import style
from metaleader.results.formats import p_value, with_interval
from metaleader.results.metrics import Run
from metaleader.runs.sweep import Workers

Cells: TypeAlias = Mapping[tuple[str, float], Sequence[Run]]  # by learner and multiple; only those with runs


@dataclass(frozen=True)
class ComputeOptions(Options):
    """Score against compute."""

    factors: tuple[float, ...] = (0.3, 1, 3, 10)
    """Multiples of the preset's gradients."""
    learners: tuple[str, ...] = ()
    """Learners; the first is compared with each of the others. None named: those that the experiment compares."""
    out: Path = Path("runs/compute")
    """Folder for the runs."""
    page: Path = Path("docs/compute.md")
    """The page to write; its figure goes beside it, under figures/."""


def gradients_of(preset: Preset, factor: float) -> int:
    """The gradients of a multiple.

    Raises:
        UserError: the preset gives learners steps, not gradients, or the multiple is not positive.
    """
    if not preset.gradients:
        raise UserError("the preset sets no gradients, which this study multiplies: choose one that does, as laptop")
    if not factor > 0:
        raise UserError(f"--factors must be positive, got {factor:g}")
    return max(round(factor * preset.gradients), 1)


def main(options: ComputeOptions, workers: Workers | None = None) -> int:
    """Run what has not run yet, then write the page and its figure; the exit code."""
    experiment = find(options.experiment)
    preset = settings_of(experiment, options)
    names, factors = options.learners or experiment.compared, sorted(set(options.factors))
    of_factor: dict[float, list[Job]] = {}
    for factor in factors:
        gradients = gradients_of(preset, factor)
        paid = dataclasses.replace(preset, gradients=gradients)
        of_factor[factor] = planned(experiment, paid, names, options, (f"gradients={gradients}",))
    jobs = [job for each in of_factor.values() for job in each]

    def write() -> None:
        found = ended(jobs)
        cells = {
            (name, factor): runs
            for name in names
            for factor, each in of_factor.items()
            if (runs := [found[job] for job in each if job.learner == name and job in found])
        }
        write_page(options.page, "Score against compute", parts(cells, jobs, found, options))

    return study(jobs, options, write, workers)


def parts(cells: Cells, jobs: Sequence[Job], found: Mapping[Job, Run], options: ComputeOptions) -> list[str]:
    """The page below its title."""
    runs = list(found.values())
    judged = measures(runs)
    first = jobs[0].learner
    decisions = {measure: compare(cells, first, measure) for measure in judged}
    with figures.drawing():
        picture = save(figure(cells, judged), options.page, options.page.stem)
    score = runs[0].about.score
    better = "higher" if score.higher_is_better else "lower"
    return [
        *missing(jobs, found),
        f"{differs(runs[0])} Every learner at {', '.join(f'{f:g}' for f in sorted({f for _, f in cells}))} times the "
        "per-example gradients that the preset pays for whenever datapoints arrive, a Hessian-vector product counting "
        "as two. More gradients are more steps; all other settings, step sizes among them, are those of the preset at "
        "every multiple, and were not searched again. Adapting in order to be judged is not counted.",
        f"## Where {label(first)} is ahead",
        "\n".join(words(decisions, first)),
        f"![Score against gradients]({picture})\n\nHeld-out {score.name} ({better} is better) against the gradients "
        "of a whole run in learning; means over seeds with 95 % t intervals.",
        "## Scores",
        report.markdown_table(*score_table(cells, judged)),
        "Mean over seeds, in brackets its 95 % t interval; `-` where a run diverged. Steps: whenever datapoints "
        "arrive. Gradients: of a whole run in learning, in millions.",
        f"## {label(first)} against each of the others",
        report.markdown_table(*difference_table(decisions)),
        f"By how much the score of {label(first)} is better, paired by seed, with a 95 % t interval; the p-value of a "
        "t test, after Holm's correction over all comparisons of the same measure, and what it decides at 0.05.",
        *made(found, options),
    ]


def compare(cells: Cells, first: str, measure: Measure) -> dict[tuple[str, float], Decision]:
    """The first learner against every other one, at each multiple at which both have runs."""
    return decide(
        {
            (name, factor): differences(measure, cells[first, factor], theirs)
            for (name, factor), theirs in cells.items()
            if name != first and (first, factor) in cells
        }
    )


def words(decisions: Mapping[Measure, Mapping[tuple[str, float], Decision]], first: str) -> list[str]:
    """A line for every other learner and measure."""
    lines = []
    others = list(dict.fromkeys(name for each in decisions.values() for name, _ in each))
    for name in others:
        lines.append(f"- Against {label(name)}:")
        for measure, each in decisions.items():
            answers = {factor: found.answer for (other, factor), found in each.items() if other == name}
            lines.append(f"  - {measure}: {overtaking(answers, label(first))}.")
    return lines or ["There is nothing to compare with yet."]


def overtaking(answers: Mapping[float, Answer], first: str) -> str:
    """Where the first learner is ahead, by multiple, and where it overtakes, if it does once and for all."""
    at = {
        answer: [factor for factor in sorted(answers) if answers[factor] == answer]
        for answer in ("ahead", "behind", "undecided")
    }
    listed = "; ".join(f"{answer} at {_times(factors)}" for answer, factors in at.items() if factors)
    ahead, behind, undecided = at["ahead"], at["behind"], at["undecided"]
    if not ahead:
        return f"{first} is nowhere shown to be ahead ({listed})"
    if not behind and not undecided:
        return f"{first} is ahead at every multiple tried"
    if max([*behind, *undecided]) < min(ahead):
        if not behind:
            return f"{first} is shown to be ahead from {min(ahead):g} times the gradients on ({listed})"
        return f"{first} overtakes between {max(behind):g} and {min(ahead):g} times the gradients ({listed})"
    if max(ahead) < min([*behind, *undecided]):
        return f"{first} is ahead up to {max(ahead):g} times the gradients, and not shown to be beyond ({listed})"
    return f"{first} is {listed}"


def _times(factors: Sequence[float]) -> str:
    return ", ".join(f"{factor:g}" for factor in factors)


def spent(runs: Sequence[Run]) -> float:
    """Per-example gradients of a whole run in learning, the mean over runs."""
    return float(np.mean([run.records[-1].learning_evaluations for run in runs]))


def steps(run: Run) -> int:
    """Steps whenever datapoints arrive."""
    settings = run.about.settings["learner"]
    return int(settings["meta_steps"] if "meta_steps" in settings else settings["steps"])


def figure(cells: Cells, judged: Sequence[Measure]) -> Figure:
    """A panel for every measure: score against gradients, a line a learner."""
    drawn = Figure(figsize=(9.6, 7.2), layout="constrained")
    panels = drawn.subplots(2, 2, sharex=True, sharey="row").flat
    names = list(dict.fromkeys(name for name, _ in cells))
    score = next(iter(cells.values()))[0].about.score
    for panel, measure in zip(panels, judged, strict=True):
        for place, name in enumerate(names):
            look = style(name)
            at = [(spent(runs), measure.interval(runs)) for (of, _), runs in sorted(cells.items()) if of == name]
            shown = [(x, each) for x, each in at if each[0] is not None]
            if not shown:
                continue
            # A little beside each other, so that intervals do not hide one another.
            x = np.array([x for x, _ in shown]) * 1.04 ** (place - (len(names) - 1) / 2)
            mean, low, high = np.array(
                [[each[0], *(each[1:] if each[1] is not None else each[:1] * 2)] for _, each in shown], float
            ).T
            panel.errorbar(
                x,
                mean,
                (mean - low, high - mean),
                color=look.colour,
                marker=look.marker,
                ls=look.dashes,
                ms=6,
                lw=1.6,
                elinewidth=1,
                capsize=3,
                label=look.name,
            )
        panel.set(title=str(measure), xscale="log")
        if not score.higher_is_better:
            panel.set_yscale("log")
        panel.grid(axis="y", color="0.9", lw=0.6)
    for axes in drawn.axes[::2]:
        axes.set_ylabel(f"held-out {score.name}")
    for axes in drawn.axes[2:]:
        axes.set_xlabel("gradients of a run in learning")
    handles, labels = drawn.axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper center", ncols=min(len(names), 4))
    return drawn


def score_table(cells: Cells, judged: Sequence[Measure]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for every learner and multiple."""
    headings = ["learner", "times", "steps", "gradients, M", "seeds", *map(str, judged)]
    rows = [
        [
            label(name),
            f"{factor:g}",
            str(steps(runs[0])),
            f"{spent(runs) / 1e6:.3g}",
            f"{len(runs)}",
            *(with_interval(measure.interval(runs)) for measure in judged),
        ]
        for (name, factor), runs in cells.items()
    ]
    return headings, rows


def difference_table(
    decisions: Mapping[Measure, Mapping[tuple[str, float], Decision]],
) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for every comparison."""
    rows = [
        [
            label(name),
            f"{factor:g}",
            str(measure),
            with_interval(found.interval, sign=True),
            p_value(found.p),
            found.answer,
        ]
        for measure, each in decisions.items()
        for (name, factor), found in each.items()
    ]
    return ["against", "times", "measure", "better by", "p", "first is"], rows


if __name__ == "__main__":
    cli(ComputeOptions, main, __doc__)
