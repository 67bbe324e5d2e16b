"""What an assessment shows: errors against rows, what learning across tasks gains, and on which tasks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaleader.assess.answer import Answer
from metaleader.assess.contest import END, Contest
from metaleader.results.figures import drawing, literal
from metaleader.results.statistics import t_interval

SHOWN = 6  # learners in colour: the best
ABOVE = 1.1  # times the largest of their errors is in the frame, and the least of all by as much below
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#332288")
MARKERS = ("o", "s", "^", "D", "v", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 2)), (0, (3, 1, 1, 1)))


def all_figures(found: Contest, answer: Answer) -> dict[str, tuple[Figure, str]]:
    """Every figure by name, each with a caption."""
    with drawing():
        return {
            "error-against-rows": (
                error_against_rows(found, answer),
                f"Mean {error_name(found)} over {answer.tasks} tasks against the rows of a task that were seen, the "
                "same tasks everywhere. In colour the best learners, in grey the others, as far as the frame goes. "
                "Band: the 95 % t interval of the mean over tasks of the learner to keep. Tasks differ by more than "
                "learners do: whether these differ is in the answer, by intervals of paired differences.",
            ),
            "gain-across-tasks": (
                gain(answer, found),
                "What learning across tasks spares of the error of the best learner of one task alone: the best "
                "learner across tasks at each size, with intervals that all hold at once with 95 %. It pays where the "
                "whole interval lies above the line.",
            ),
            "where-the-gain-comes-from": (
                of_tasks(found, answer),
                "For each task, the error of the best learner of one task alone less that of the learner to keep, at "
                "the fewest rows that are not zero; tasks are sorted by it.",
            ),
        }


def error_name(found: Contest) -> str:
    """What an error is."""
    score = found.setup.tasks.score
    return f"1 - {score.name}" if score.higher_is_better else score.name


def error_against_rows(found: Contest, answer: Answer) -> Figure:
    """A line for each learner."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    names = list(found.setup.candidates)
    means = found.errors.mean(axis=1)
    with np.errstate(divide="ignore"):
        order = np.argsort(np.log(means).mean(axis=1), kind="stable")
    places = np.arange(len(found.setup.sizes))
    looks = cycle(zip(COLOURS, MARKERS, DASHES, strict=True))
    for rank, i in enumerate(order):
        if not np.isfinite(means[i]).any():
            continue
        title = literal(found.setup.candidates[names[i]].title)
        shown = np.where(np.isfinite(means[i]), means[i], np.nan)
        if rank < SHOWN:
            colour, marker, dashes = next(looks)
            chosen = " (to keep)" if names[i] == answer.winner else ""
            axis.plot(places, shown, color=colour, marker=marker, ls=dashes, lw=1.8, label=title + chosen, zorder=3)
            if names[i] == answer.winner:
                ends = np.array([t_interval(errors)[1:] for errors in found.errors[i].T], np.float64)
                axis.fill_between(places, *ends.T, color=colour, alpha=0.15, lw=0)
        else:
            axis.plot(places, shown, color="#b5b5b5", lw=1, label="others" if rank == SHOWN else None)
    _size_ticks(axis, found)
    coloured = means[order[:SHOWN]]
    finite: np.ndarray = coloured[np.isfinite(coloured)]
    if finite.size and finite.min() > 0 and finite.max() > 10 * finite.min():
        axis.set_yscale("log")
    if finite.size:
        axis.set_ylim(float(means[np.isfinite(means)].min()) / ABOVE, ABOVE * float(finite.max()))
    axis.set(xlabel="rows of the task seen", ylabel=f"mean {error_name(found)}")
    if finite.size:  # otherwise all failed
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def gain(answer: Answer, found: Contest) -> Figure:
    """Points with intervals, one for each size."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axis = figure.subplots()
    gains = 100 * np.array([[c.ratio.gain, c.ratio.low, c.ratio.high] for c in answer.pays])
    places = np.arange(len(gains))
    axis.axhline(0, color="#555555", lw=1)
    floor = min(-50.0, 1.3 * float(np.nanmin(gains[:, 0], initial=0.0)))
    low = np.maximum(gains[:, 1], floor)
    errors = np.maximum([gains[:, 0] - low, gains[:, 2] - gains[:, 0]], 0)
    best = dict.fromkeys(comparison.better for comparison in answer.pays if not comparison.failed)
    for name, colour, marker in zip(best, cycle(COLOURS), cycle(MARKERS), strict=False):
        at = [i for i, comparison in enumerate(answer.pays) if comparison.better == name and not comparison.failed]
        title = literal(found.setup.candidates[name].title)
        axis.errorbar(
            places[at], gains[at, 0], errors[:, at], color=colour, marker=marker, ls="none", capsize=4, label=title
        )
    _size_ticks(axis, found)
    axis.set(xlabel="rows of the task seen", ylabel="error spared (%)")
    if best:
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1), title="best across tasks")
    return figure


def of_tasks(found: Contest, answer: Answer) -> Figure:
    """A bar for each task."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axis = figure.subplots()
    values = np.sort([value for _, value in by_task(found, answer)])
    axis.bar(np.arange(len(values)), values, width=1.0, color=np.where(values >= 0, "#0072B2", "#D55E00"))
    axis.axhline(0, color="#555555", lw=1)
    axis.set(xlabel="tasks, from the one that loses most", ylabel=f"{error_name(found)} spared")
    return figure


def by_task(found: Contest, answer: Answer) -> list[tuple[str, float]]:
    """For each task, what the learner to keep spares of the error of the best learner of one task alone."""
    at = next((i for i, size in enumerate(found.setup.sizes) if size), 0)
    names = list(found.setup.candidates)
    alone = answer.pays[at].other
    with np.errstate(invalid="ignore"):  # where both failed
        spared = found.errors[names.index(alone), :, at] - found.errors[names.index(answer.winner), :, at]
    return list(zip(found.setup.judged, np.where(np.isfinite(spared), spared, 0.0).tolist(), strict=True))


def size_names(sizes: Sequence[int]) -> list[str]:
    """`0`, `5`, `all`."""
    return ["all" if size == END else str(size) for size in sizes]


def _size_ticks(axis: Axes, found: Contest) -> None:
    names: Any = size_names(found.setup.sizes)
    axis.set_xticks(range(len(names)), names)
