"""FTML on Rainbow MNIST against the share of the data that its memory may keep, beside streaming (docs/memory.md).

    python -m benchmarks.memory

Interrupt it and start it again at will: runs that have ended are kept, the others go on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.comparison import (
    Job,
    Options,
    by_learner,
    cli,
    differs,
    ended,
    made,
    missing,
    planned,
    save,
    settings_of,
    study,
    summary_table,
    write_page,
)
from benchmarks.outcome import Bar, verdict
from benchmarks.paired import Measure, differences
from metaleader import FTML, Learner, Preset, Retention, UserError
from metaleader.experiments import find
from metaleader.models import ConvNet, PoseNet, Shifted
from metaleader.results import figures, metrics
from metaleader.results.formats import with_interval
from metaleader.results.metrics import Run
from metaleader.results.statistics import t_interval
from metaleader.runs.sweep import Workers

GOAL_PERCENT, GOAL_POINTS = 10, 1.5  # with a tenth of the data at most so many points are to be lost
POLICIES = {
    "reservoir": ("#0072B2", "o", "-"),
    "balanced": ("#D55E00", "^", "--"),
    "mixed": ("#CC79A7", "D", "-."),
    "last": ("#009E73", "s", ":"),
}


@dataclass(frozen=True)
class MemoryOptions(Options):
    """FTML with limited memory and streaming, on Rainbow MNIST."""

    percent: tuple[float, ...] = (30, 10, 3, 1)
    """Budgets, in per cent of all datapoints of the stream; 100 is always there."""
    policies: tuple[str, ...] = ("reservoir", "balanced", "mixed", "last")
    """Policies to compare."""
    shift: int = 2
    """At a tenth (or the smallest budget above it), and with everything: runs whose training images are shifted by up
    to so many pixels at every draw; 0: none."""
    halve: bool = True
    """At the same budget: runs with half the meta-steps, so that each image kept is drawn half as often."""
    out: Path = Path("runs/memory")
    """Folder for the runs."""
    page: Path = Path("docs/memory.md")
    """The page to write; its figure goes beside it, under figures/."""


def name(policy: str, percent: float) -> str:
    """What the runs of a policy and budget are called."""
    return f"ftml-{policy}-{percent:g}"


def smallest(options: MemoryOptions) -> float | None:
    """The smallest budget of at least a tenth, in per cent; None: all are smaller."""
    return min((percent for percent in options.percent if percent >= 10), default=None)


def learners(preset: Preset, options: MemoryOptions, datapoints: int) -> dict[str, Learner]:
    """FTML that keeps everything, streaming, which keeps no past, and FTML with every policy and budget."""
    ftml, streaming = preset.learners["ftml"], preset.learners["streaming"]
    assert isinstance(ftml, FTML)
    limited = {
        name(policy, percent): dataclasses.replace(
            ftml,
            retention=Retention(policy, max(round(datapoints * percent / 100), 1)),  # type: ignore[arg-type]
        )
        for policy in options.policies
        for percent in options.percent
    }
    return {"ftml": ftml, "streaming": streaming, **limited}


def halved(compared: Mapping[str, Learner], options: MemoryOptions) -> dict[str, Learner]:
    """FTML with half the meta-steps, with every policy at a tenth."""
    if not options.halve or (percent := smallest(options)) is None:
        return {}
    found: dict[str, Learner] = {}
    for policy in options.policies:
        learner = compared[name(policy, percent)]
        assert isinstance(learner, FTML)
        found[f"{name(policy, percent)}-half"] = dataclasses.replace(
            learner, meta_steps=max(learner.meta_steps // 2, 1)
        )
    return found


def shifted(preset: Preset, compared: Mapping[str, Learner], options: MemoryOptions) -> Preset | None:
    """FTML trained on shifted images, with everything and with every policy at a tenth; None: there is to be none.

    Raises:
        UserError: the experiment has no images.
    """
    if not options.shift:
        return None
    if not isinstance(preset.model, (ConvNet, PoseNet)):
        raise UserError(f"--shift {options.shift} needs images, which {options.experiment} has not: say --shift 0")
    percent = smallest(options)
    names = ["ftml", *(name(policy, percent) for policy in options.policies if percent is not None)]
    of_shifted = {f"{each}-shifted": compared[each] for each in names}
    return dataclasses.replace(preset, model=Shifted(preset.model, options.shift), learners=of_shifted)


def drawn(learner: Learner) -> int:
    """Datapoints that one `observe` draws from the buffer."""
    assert isinstance(learner, FTML)
    return learner.meta_steps * learner.meta_batch * (learner.train_size + learner.validation_size)


def datapoints_kept(learner: Learner, tasks: Sequence[int]) -> int:
    """How many are kept at most of a stream of tasks of these sizes."""
    assert isinstance(learner, FTML)
    budget = learner.retention.budget or sum(tasks)
    if learner.retention.unit == "tasks":
        return max(sum(tasks[i : i + budget]) for i in range(len(tasks)))
    return budget


def forgets_oldest(learner: Learner) -> bool:
    """Whether what is kept is the newest; the other policies keep what they have drawn from before."""
    assert isinstance(learner, FTML)
    return learner.retention.policy == "last"


def after_few(runs: Sequence[Run]) -> Measure:
    """The score at the smallest size, over the last third of the rounds."""
    return Measure(metrics.sizes(runs)[0], whole=False)


def reached(runs: Sequence[Run]) -> float:
    """The share of the tasks in the last third of the rounds that became proficient."""
    return float(np.isfinite(metrics.datapoints_to_proficiency(runs)[metrics.last_third(runs)]).mean())


def figure(runs: Mapping[str, Sequence[Run]], options: MemoryOptions) -> Figure:
    """Score after few datapoints, and tasks that reached proficiency, against the budget."""
    drawn = Figure(figsize=(9.6, 4.0), layout="constrained")
    left, right = drawn.subplots(1, 2)
    some = next(iter(runs.values()))
    few = after_few(some)
    percents = [*sorted(options.percent), 100.0]
    for policy in options.policies:
        colour, marker, dashes = POLICIES[policy]
        named = {percent: "ftml" if percent == 100 else name(policy, percent) for percent in percents}
        each = {percent: runs[called] for percent, called in named.items() if called in runs}
        scores = [np.array([few.of(run) for run in of]) for of in each.values()]
        look: dict[str, Any] = {"color": colour, "marker": marker, "ls": dashes, "label": policy}
        left.plot(list(each), [score.mean() for score in scores], **look)
        for percent, score in zip(each, scores, strict=True):
            left.plot(np.full(len(score), percent), score, marker, color=colour, alpha=0.3, mew=0)
        right.plot(list(each), [100 * reached(of) for of in each.values()], **look)
    if streaming := runs.get("streaming"):
        look = {"color": "#555555", "lw": 0.9, "label": "streaming"}
        left.axhline(float(np.mean([few.of(run) for run in streaming])), **look)
        right.axhline(100 * reached(streaming), **look)
    left.set(xscale="log", ylabel=f"held-out {some[0].about.score.name} after {few.size} datapoints")
    right.set(xscale="log", ylabel=f"tasks that reached {some[0].threshold:g} (%)")
    for panel in (left, right):
        panel.set_xlabel("datapoints kept (% of all)")
        panel.set_xticks(percents, [f"{percent:g}" for percent in percents])
        panel.minorticks_off()
    left.legend(title="policy", frameon=False)
    return drawn


def main(options: MemoryOptions, workers: Workers | None = None) -> int:
    """Run what has not run yet, then write the page and its figure; the exit code."""
    experiment = find(options.experiment)
    preset = settings_of(experiment, options)
    tasks = [len(task.train) for task in preset.stream.stream(0, options.data_dir)]
    compared = learners(preset, options, sum(tasks))
    half = halved(compared, options)
    # The learners take the steps that they have, whatever their memory.
    own = dataclasses.replace(preset, learners={**compared, **half}, own_steps=(*preset.own_steps, *half))
    presets = [own] if (moved := shifted(preset, compared, options)) is None else [own, moved]
    jobs = [job for each in presets for job in planned(experiment, each, list(each.learners), options)]
    every = {key: learner for each in presets for key, learner in each.learners.items()}

    def write() -> None:
        write_page(options.page, "Limited memory", parts(jobs, ended(jobs), every, preset, tasks, options))

    return study(jobs, options, write, workers)


def parts(
    jobs: Sequence[Job],
    found: Mapping[Job, Run],
    compared: Mapping[str, Learner],
    preset: Preset,
    tasks: Sequence[int],
    options: MemoryOptions,
) -> list[str]:
    """The page below its title."""
    runs, every, datapoints = by_learner(found), list(found.values()), sum(tasks)
    with figures.drawing():
        picture = save(figure(runs, options), options.page, options.page.stem)
    # As many images are drawn whatever is kept; who forgets the oldest has drawn from all of them by the end.
    observed = sum(-(-size // preset.protocol.chunk) for size in tasks)
    kept = {key: datapoints_kept(compared[key], tasks) for key in runs}
    distinct = {key: datapoints if forgets_oldest(compared[key]) else kept[key] for key in runs}
    columns = {
        "datapoints kept": {key: f"{count:,}" for key, count in kept.items()},
        "draws of each": {key: f"{observed * drawn(compared[key]) / distinct[key]:.0f}" for key in runs},
    }
    return [
        *missing(jobs, found),
        f"{differs(every[0])} FTML (Eq. 4) whose buffer keeps a part of the {datapoints:,} datapoints; what the "
        "policies keep is in the docstring of `metaleader.Retention`. The current round counts towards the budget. "
        "`streaming` meta-learns from the current round alone and then forgets it. All learners take as many "
        "gradients, so that each datapoint kept is drawn the more often the fewer there are, and memorised: that "
        "is what a small memory loses by. Where a task has fewer datapoints left than D_tr and D_val want, "
        "they share them.",
        f"![Score and proficiency against the budget]({picture})",
        *_against_all(runs, options),
        *summary_table(metrics.summary(every), columns),
        *made(found, options),
    ]


def _against_all(runs: Mapping[str, Sequence[Run]], options: MemoryOptions) -> list[str]:
    """What each policy loses with the smallest budget of at least a tenth, and what the variants change."""
    if "ftml" not in runs or (percent := smallest(options)) is None:
        return []
    few = after_few(runs["ftml"])
    shown = [name(policy, percent) + variant for policy in options.policies for variant in ("", "-half", "-shifted")]
    lines = [
        f"- `{called}`: {with_interval(t_interval(differences(few, runs[called], runs['ftml'])), sign=True)}"
        for called in (*shown, "ftml-shifted")
        if called in runs
    ]
    return [
        f"With {percent:g} % of the data, by how much the score {few} is better than with all, paired by seed, with a "
        "95 % t interval. `half`: with half the meta-steps. `shifted`: training images are moved by up to "
        f"{options.shift} pixels at every draw (`metaleader.models.Shifted`), which is to be compared with "
        "`ftml-shifted` as well, which keeps everything.",
        "\n".join(lines),
        *_goal(few, {called: runs[called] for called in shown if called in runs}, runs["ftml"], percent),
    ]


def _goal(few: Measure, limited: Mapping[str, Sequence[Run]], whole: Sequence[Run], percent: float) -> list[str]:
    """What the best of those with a tenth of the data loses, next to the goal."""
    if percent != GOAL_PERCENT or not limited:
        return []
    lost = {called: -100 * float(np.mean(differences(few, runs, whole))) for called, runs in limited.items()}
    least = min(lost, key=lambda called: lost[called])
    bar = Bar(f"points lost by {least}", lost[least], GOAL_POINTS)
    return [
        f"Goal: at most {GOAL_POINTS:g} points lost with a tenth. The least is lost by `{least}`: {lost[least]:.1f} "
        f"points, {verdict(bar)}."
    ]


if __name__ == "__main__":
    cli(MemoryOptions, main, __doc__)
