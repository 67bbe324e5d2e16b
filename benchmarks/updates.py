"""FTML with every update procedure, at equal compute (docs/updates.md).

    python -m benchmarks.updates

Interrupt it and start it again at will: runs that have ended are kept, the others go on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.comparison import (
    Job,
    Options,
    by_learner,
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
    summary_table,
    write_page,
)
from benchmarks.paired import Decision, Measure, decide, differences, measures
from metaleader import Experiment, Preset, UserError
from metaleader.experiments import find
from metaleader.experiments.parsing import with_settings
from metaleader.results import figures, metrics, report
from metaleader.results.formats import p_value, with_interval
from metaleader.results.metrics import Run
from metaleader.runs.sweep import Workers

COMPARED = (
    "ftml-second-order", "ftml-first-order", "ftml-reptile", "ftml-meta-sgd", "ftml-data-steps", "ftml-momentum",
    "ftml-adam", "ftml-imaml", "ftml-ridge",
)  # fmt: skip
TUNED = Path("docs/tuning/rainbow-mnist-updates/tune.json")


@dataclass(frozen=True)
class UpdatesOptions(Options):
    """FTML with other update procedures."""

    learners: tuple[str, ...] = COMPARED
    """Learners to compare; the first is what the others are compared with."""
    tuned: tuple[Path, ...] = (TUNED,)
    """What `metaleader tune` found (tune.json) for these learners; of several files, later ones prevail. A learner in
    none of them runs with the preset's settings, and the page says so."""
    out: Path = Path("runs/updates")
    """Folder for the runs."""
    page: Path = Path("docs/updates.md")
    """The page to write; its figure goes beside it, under figures/."""


def searched(paths: Sequence[Path], experiment: Experiment, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """The best settings that searches found, by learner, for those of `names` that were searched.

    Raises:
        UserError: a search was of another experiment.
    """
    best: dict[str, dict[str, str]] = {}
    for path in (path for path in paths if path.exists()):
        tuned = json.loads(path.read_text())
        if tuned["experiment"] != experiment.name:
            raise UserError(f"{path} is a search of {tuned['experiment']}: give --tuned one of {experiment.name}")
        for name, of_learner in tuned["learners"].items():
            if name in names and of_learner["best"] is not None:
                settings: Mapping[str, Any] = of_learner["best"]["settings"]
                best[name] = {option: _text(value) for option, value in settings.items() if value is not None}
    return best


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def main(options: UpdatesOptions, workers: Workers | None = None) -> int:
    """Run what has not run yet, then write the page and its figure; the exit code."""
    experiment = find(options.experiment)
    best = searched(options.tuned, experiment, options.learners)
    preset = settings_of(experiment, options)
    own = {option: text for settings in best.values() for option, text in settings.items()}
    preset = with_settings(experiment, preset, own)
    jobs = planned(experiment, preset, options.learners, options)

    def write() -> None:
        write_page(options.page, "Update procedures", parts(jobs, ended(jobs), preset, best, options))

    return study(jobs, options, write, workers)


def parts(
    jobs: Sequence[Job],
    found: Mapping[Job, Run],
    preset: Preset,
    best: Mapping[str, Mapping[str, str]],
    options: UpdatesOptions,
) -> list[str]:
    """The page below its title."""
    runs, first = by_learner(found), options.learners[0]
    every = list(found.values())
    decisions = {
        measure: decide(
            {name: differences(measure, of, runs.get(first, [])) for name, of in runs.items() if name != first}
        )
        for measure in measures(every)
    }
    with figures.drawing():
        picture = save(figure(runs, list(decisions)), options.page, options.page.stem)
    columns = {"meta-steps": {name: str(getattr(preset.learners[name], "meta_steps", "-")) for name in runs}}
    return [
        *missing(jobs, found),
        f"{differs(every[0])} FTML (Eq. 4) with update procedures of several kinds; their equations are in the "
        f"docstrings of `metaleader.update`. {_compute(preset)} Adapting to D_t is not equalised; its cost is in the "
        f"total. {_settings(best, list(runs), options)}",
        "## Which is best",
        "\n".join(words(decisions, runs, first)),
        f"![Score of every update procedure]({picture})\n\nMeans over seeds with 95 % t intervals; dotted: "
        f"{label(first)}, last third.",
        *summary_table(metrics.summary(every), columns),
        f"## Against {label(first)}",
        report.markdown_table(*difference_table(decisions)),
        f"By how much the score is better than that of {label(first)}, paired by seed, with a 95 % t interval; the "
        "p-value of a t test, after Holm's correction over all comparisons of the same measure, and what it decides at "
        "0.05.",
        "## Settings",
        report.markdown_table(["learner", "settings"], _settings_rows(best, list(runs))),
        *made(found, options),
    ]


def _compute(preset: Preset) -> str:
    if not preset.gradients:
        return "Compute is not equal: each learner takes its own number of meta-steps."
    return (
        "Compute is equal: whenever datapoints arrive, each takes as many meta-steps as the preset's "
        f"{preset.gradients} per-example gradients pay for, to the nearest whole step, a Hessian-vector product "
        "counting as two; for the proximal update, that is the most it may take."
    )


def _settings(best: Mapping[str, Any], names: Sequence[str], options: UpdatesOptions) -> str:
    apart = [name for name in names if name not in best]
    said = []
    if best:
        sources = " and ".join(f"`{path}`" for path in options.tuned if path.exists())
        said.append(f"Step sizes and what else was searched are each learner's own best of the search in {sources}.")
    if apart:
        who = ", ".join(f"`{name}`" for name in apart) if best else "All learners"
        said.append(
            f"{who} ran with the preset's settings, **which were not searched for {'them' if best else 'each'}**: that "
            "a procedure is behind may be due to that."
        )
    return " ".join(said)


def _settings_rows(best: Mapping[str, Mapping[str, str]], names: Sequence[str]) -> list[list[str]]:
    return [
        [
            f"`{name}`",
            ", ".join(f"`{option.removeprefix(f'{name}.')}={text}`" for option, text in best[name].items())
            if name in best
            else "the preset's, not searched",
        ]
        for name in names
    ]


def words(
    decisions: Mapping[Measure, Mapping[str, Decision]], runs: Mapping[str, Sequence[Run]], first: str
) -> list[str]:
    """For every measure, which mean is best, who is ahead of the first and who behind, and first against second."""
    lines = []
    if first == "ftml-second-order" and "ftml-first-order" in runs:
        said = [
            f"{measure}: {each['ftml-first-order'].answer} "
            f"({with_interval(each['ftml-first-order'].interval, sign=True)})"
            for measure, each in decisions.items()
        ]
        lines.append(f"- First order against second order, {'; '.join(said)}.")
    for measure, each in decisions.items():
        means = {name: mean for name, of in runs.items() if (mean := measure.interval(of)[0]) is not None}
        if not means:
            continue
        higher = next(iter(runs.values()))[0].higher_is_better
        top = (max if higher else min)(means, key=means.__getitem__)
        groups = [
            f"{said} {label(first)}: {', '.join(label(name) for name in of)}"
            for answer, said in (("ahead", "ahead of"), ("behind", "behind"), ("undecided", "undecided against"))
            if (of := [name for name, found in each.items() if found.answer == answer])
        ]
        lines.append(f"- {measure}: {'; '.join([f'the best mean is that of {label(top)}', *groups])}.")
    return lines


def figure(runs: Mapping[str, Sequence[Run]], judged: Sequence[Measure]) -> Figure:
    """A panel after few datapoints and one at the end of rounds, a row for every learner."""
    sizes = list(dict.fromkeys(measure.size for measure in judged))
    drawn = Figure(figsize=(10.0, 0.42 * len(runs) + 1.6), layout="constrained")
    panels = drawn.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    score = next(iter(runs.values()))[0].about.score
    for panel, size in zip(panels, sizes, strict=True):
        for whole, marker, shift, filled in ((False, "o", -0.13, "#0072B2"), (True, "s", 0.13, "white")):
            for row, of in enumerate(runs.values()):
                mean, low, high = Measure(size, whole).interval(of)
                if mean is None:
                    continue
                ends = None if low is None or high is None else [[mean - low], [high - mean]]
                named = "whole stream" if whole else "last third"
                look: Any = {"color": "#0072B2", "mfc": filled, "capsize": 3, "label": named if row == 0 else None}
                panel.errorbar([mean], [row + shift], xerr=ends, fmt=marker, **look)
                if row == 0 and not whole:
                    panel.axvline(mean, color="0.5", ls=":", lw=1, zorder=0)
        panel.set(xlabel=f"held-out {score.name}")
        panel.set_title(str(Measure(size, False)).partition(",")[0])
    panels[0].set_yticks(range(len(runs)), [label(name) for name in runs])
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper center", ncols=2)
    return drawn


def difference_table(decisions: Mapping[Measure, Mapping[str, Decision]]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for every comparison."""
    rows = [
        [label(name), str(measure), with_interval(found.interval, sign=True), p_value(found.p), found.answer]
        for measure, each in decisions.items()
        for name, found in each.items()
    ]
    return ["learner", "measure", "better by", "p", "it is"], rows


if __name__ == "__main__":
    cli(UpdatesOptions, main, __doc__)
