"""Figures in the manner of the paper's figure 3, from runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import matplotlib.style
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from metaleader.errors import printable
from metaleader.results import metrics
from metaleader.results.metrics import Run
from metaleader.results.statistics import t_interval

Runs = Mapping[str, Sequence[Run]]  # by learner
LONGEST = 60  # characters of a name
WINDOW = 7  # rounds in a running mean or median


@dataclass(frozen=True)
class Style:
    """How a learner is named and drawn; shapes and dashes tell learners apart in grey."""

    name: str
    short: str
    colour: str
    marker: str
    dashes: Any


STYLES = {
    "ftml": Style("FTML", "FTML", "#0072B2", "o", "-"),
    "ftml-last-layer": Style("FTML, last layer", "FTML last layer", "#56B4E9", "P", (0, (3, 1, 1, 1))),
    "ftml-first-order": Style("FTML, first order", "FTML first order", "#E69F00", "v", (0, (5, 2))),
    "ftml-second-order": Style("FTML, second order", "FTML second order", "#88CCEE", "d", (0, (2, 1))),
    "ftml-reptile": Style("FTML, Reptile", "FTML Reptile", "#CC79A7", "X", (0, (1, 1))),
    "ftml-meta-sgd": Style("FTML, learned steps (Meta-SGD)", "FTML Meta-SGD", "#332288", "*", (0, (7, 1))),
    "ftml-momentum": Style("FTML, momentum inside", "FTML momentum", "#882255", "h", (0, (4, 1, 1, 1, 1, 1))),
    "ftml-adam": Style("FTML, Adam inside", "FTML Adam", "#117733", "<", (0, (2, 2))),
    "ftml-imaml": Style("FTML, proximal (iMAML)", "FTML iMAML", "#AA4499", ">", (0, (6, 2, 2, 2))),
    "ftml-data-steps": Style("FTML, steps by datapoints", "FTML data steps", "#44AA99", "p", (0, (3, 3))),
    "ftml-ridge": Style("FTML, closed-form head", "FTML ridge", "#999933", "H", (0, (8, 2, 1, 2))),
    "ftl": Style("FTL (joint + fine-tuning)", "FTL", "#009E73", "s", "--"),
    "toe": Style("TOE (train on everything)", "TOE", "#D55E00", "^", "-."),
    "scratch": Style("from scratch", "scratch", "#555555", "D", ":"),
}
OTHERS = (("#CC79A7", "v"), ("#E69F00", "X"), ("#332288", "*"), ("#882255", "h"))
RC: Any = {  # matplotlib types the keys one by one
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "font.size": 10,
    "legend.frameon": False,
    "svg.hashsalt": "metaleader",  # the same figure is the same file
}


def drawing() -> AbstractContextManager[None]:
    """Draw in this style, whatever the user's matplotlibrc says."""
    return matplotlib.style.context(RC, after_reset=True)


def literal(name: str) -> str:
    """A name of the user's as a figure shows it: no formula, no control characters, and not longer than it has room."""
    shown = printable(name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}...")
    return shown.replace("$", r"\$")


def style(learner: str) -> Style:
    """The style of a learner; one that is not known keeps its name and gets a colour by its name's letters.

    What follows its name, as in `ftml meta-steps=2`, is added to what it is called.
    """
    learner, setting = learner_and_setting(learner)
    if setting:
        of_learner = style(learner)
        return replace(of_learner, name=f"{of_learner.name} {setting}", short=f"{of_learner.short} {setting}")
    if learner in STYLES:
        return STYLES[learner]
    colour, marker = OTHERS[sum(map(ord, learner)) % len(OTHERS)]
    return Style(learner, learner, colour, marker, (0, (5, 2)))


def learner_and_setting(line: str) -> tuple[str, str]:
    """Of `Run.line`: the learner, and what a sweep set in it, as NAME=VALUE; a name of the user's may have spaces."""
    learner, _, setting = line.partition(" ")
    return (learner, setting) if "=" in setting.partition(" ")[0] else (line, "")


def place(learner: str) -> int:
    """Where tables and figures have a learner: in the order of `STYLES`, and others, which are the user's, behind."""
    return list(STYLES).index(learner) if learner in STYLES else len(STYLES)


def all_figures(runs: Runs) -> dict[str, tuple[Figure, str]]:
    """Every figure by name, each with a caption; none without runs, and one where no size but 0 was judged."""
    if not runs:
        return {}
    with drawing():
        return {**(_against_datapoints(runs) if max(metrics.sizes(_every(runs)), default=0) else {}), **_at_sizes(runs)}


def _against_datapoints(runs: Runs) -> dict[str, tuple[Figure, str]]:
    """The figures with an axis of datapoints, which is logarithmic."""
    threshold, score = _threshold(runs), _score(runs)
    several = any(len(each) > 1 for each in runs.values())
    return {
        "learning-curves": (
            learning_curves(runs),
            f"Learning curves: held-out {score} against the datapoints of the task seen so far, one line a task"
            f"{' of the first seed' if several else ''}, dark for early rounds and bright for late ones. "
            "A learner that learns to learn has its bright lines better, and better sooner, than its dark ones. "
            f"Dashed: proficiency, {threshold:g}.",
        ),
        "score-against-datapoints": (
            score_against_datapoints(runs),
            f"Held-out {score} against the datapoints of a task, mean over the last third of the rounds, of the "
            "tasks that all learners were judged on at a size. With several seeds, thin lines are seeds and bands "
            "95 % t intervals over seeds, each size by itself. Sizes that fewer than half of these tasks have are "
            "left out.",
        ),
        "datapoints-to-proficiency": (
            efficiency(runs),
            f"Learning efficiency: datapoints until held-out {score} was first judged at least as good as "
            f"{threshold:g}. Points are tasks, lines running medians over {WINDOW} rounds, bands go down to the "
            "running median of the last sizes judged before: what a task needs lies between. Hollow points are "
            "tasks that had not got there by their last datapoint, where they stand: they need more. On the top "
            "line, the median task had not got there.",
        ),
    }


def _at_sizes(runs: Runs) -> dict[str, tuple[Figure, str]]:
    at, score = shown_sizes(runs), _score(runs)
    return {
        "score-after-few-and-all": (
            score_at_sizes(runs),
            f"Held-out {score} after {' and after '.join(map(str, at))} datapoints of each task. Points are tasks, "
            f"lines running means over {WINDOW} rounds, of the tasks that all learners were judged on there, n of "
            "them where that is not all; with several seeds, lines are means over seeds and bands "
            "95 % t intervals of the running means, each round by itself.",
        ),
    }


def learning_curves(runs: Runs) -> Figure:
    """Score against |D_t|, a line for every task (of the first seed), coloured by round; a panel a learner."""
    figure = Figure(figsize=(3.1 * len(runs) + 1.1, 3.6), layout="constrained")
    panels = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
    colours = ScalarMappable(Normalize(1, max(2, *(run.planned for each in runs.values() for run in each))), "viridis")
    for panel, (learner, each) in zip(panels, runs.items(), strict=True):
        at = [size for size in metrics.sizes(each[:1]) if size]  # 0 is not on a logarithmic axis
        for t, curve in enumerate(metrics.scores(each[:1], at)[0], start=1):
            seen = np.isfinite(curve)
            marker = "." if seen.sum() == 1 else None
            panel.plot(
                np.array(at)[seen], curve[seen], color=colours.to_rgba(np.array(t)), lw=0.9, alpha=0.85, marker=marker
            )
        panel.axhline(_threshold(runs), color="black", ls="--", lw=1)
        panel.set(title=literal(style(learner).short))
        _plain_ticks(panel, at)
    figure.supxlabel("datapoints of the task", fontsize="medium")
    panels[0].set_ylabel(f"held-out {literal(_score(runs))}")
    _error_axis(runs, panels[0], metrics.scores([each[0] for each in runs.values()], metrics.sizes(_every(runs))))
    figure.colorbar(colours, ax=list(panels), label="round", pad=0.01)
    return figure


def score_against_datapoints(runs: Runs) -> Figure:
    """Score against |D_t| over the last third of the rounds, learners overlaid, with bands over seeds."""
    every = _every(runs)
    at = [size for size in metrics.sizes(every) if size]  # 0 is not on a logarithmic axis
    counts = metrics.judged_by_all(every, at) & metrics.last_third(every)[:, :, None]
    values = np.where(counts, metrics.scores(every, at), np.nan)
    enough = counts.sum((0, 1)) * 2 >= metrics.last_third(every).sum()
    at, values = [size for size, kept in zip(at, enough, strict=True) if kept], values[:, :, enough]
    tasks = np.isfinite(values).sum(1)
    means = np.where(tasks > 0, np.nansum(values, 1) / np.maximum(tasks, 1), np.nan)
    lines = np.array([learner for learner, each in runs.items() for _ in each])
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    panel = figure.subplots()
    for learner in runs:
        look, own = style(learner), means[lines == learner]
        if len(own) > 1:
            panel.plot(at, own.T, color=look.colour, lw=0.7, alpha=0.35)
        mean, low, high = np.array([t_interval(column) for column in own.T], dtype=float).reshape(-1, 3).T
        panel.plot(
            at, mean, color=look.colour, ls=look.dashes, lw=2, marker=look.marker, ms=5, label=literal(look.name)
        )
        panel.fill_between(at, low, high, color=look.colour, alpha=0.15, lw=0)
    panel.axhline(_threshold(runs), color="black", ls="--", lw=1, zorder=0)
    panel.set(xlabel="datapoints of the task", ylabel=f"held-out {literal(_score(runs))}")
    _plain_ticks(panel, at)
    _error_axis(runs, panel, means[:, :, None])
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def efficiency(runs: Runs) -> Figure:
    """Datapoints to proficiency against round, learners overlaid; censored tasks on a line of their own."""
    figure = Figure(figsize=(7.4, 4.2), layout="constrained")
    panel = figure.subplots()
    at = metrics.sizes(_every(runs))
    top = at[-1] * 1.6 if at else 1.0
    bottom = max(at[0], 1) / 1.6 if at else 1.0  # 0 is not on the axis
    for learner, each in runs.items():
        look, both = style(learner), metrics.proficiency(each)
        before, values = both[:, :, 0], both[:, :, 1]
        rounds = np.arange(1, values.shape[1] + 1)
        for row, last in zip(values, np.maximum(before, bottom), strict=True):
            reached, censored = np.isfinite(row), np.isinf(row)
            panel.plot(rounds[reached], row[reached], look.marker, color=look.colour, ms=4, alpha=0.35, mew=0)
            panel.plot(rounds[censored], last[censored], look.marker, mfc="none", mec=look.colour, ms=4)
        middle = running(values, np.median)
        known = ~np.isnan(middle)
        line = np.where(np.isinf(middle), top, middle)[known]
        panel.plot(rounds[known], line, color=look.colour, ls=look.dashes, lw=2, label=literal(look.name))
        least = np.maximum(running(before, np.median)[known], bottom)
        panel.fill_between(rounds[known], least, line, np.isfinite(middle[known]), color=look.colour, alpha=0.12, lw=0)
    panel.axhline(top, color="0.8", lw=0.8, zorder=0)
    panel.set(
        xlabel="round", ylabel=f"datapoints until {literal(_score(runs))} reaches {_threshold(runs):g}", yscale="log"
    )
    ticks = [*thinned([size for size in at if size], 8), top]
    panel.set_yticks(ticks, [*map(str, ticks[:-1]), "more"])
    panel.minorticks_off()
    figure.legend(loc="outside upper center", ncols=_legend_columns(runs))
    return figure


def _legend_columns(runs: Runs) -> int:
    """As many names as fit beside one another."""
    return len(runs) if len(runs) <= 4 else 3


def score_at_sizes(runs: Runs) -> Figure:
    """Score after few and after many datapoints against round, learners overlaid."""
    at, every = shown_sizes(runs), _every(runs)
    shown = np.where(metrics.judged_by_all(every, at), metrics.scores(every, at), np.nan)
    lines = np.array([learner for learner, each in runs.items() for _ in each])
    played = max(
        len({(run.about.seed, record.round) for run in each for record in run.records}) for each in runs.values()
    )
    figure = Figure(figsize=(4.4 * len(at) + 0.8, 4.0), layout="constrained")
    panels = figure.subplots(1, len(at), sharey=True, squeeze=False)[0]
    for i, (panel, size) in enumerate(zip(panels, at, strict=True)):
        n = max(int(np.isfinite(shown[lines == learner, :, i]).sum()) for learner in runs)
        for learner in runs:
            look, values = style(learner), shown[lines == learner, :, i]
            rounds = np.arange(1, values.shape[1] + 1)
            for row in values:
                panel.plot(rounds, row, look.marker, color=look.colour, ms=3.5, alpha=0.3, mew=0)
            smooth = np.array([running(row[None], np.mean) for row in values])
            mean, low, high = np.array([t_interval(column) for column in smooth.T], dtype=float).T
            panel.plot(rounds, mean, color=look.colour, ls=look.dashes, lw=2, label=literal(look.name))
            panel.fill_between(rounds, low, high, color=look.colour, alpha=0.15, lw=0)
        panel.axhline(_threshold(runs), color="black", ls="--", lw=1, zorder=0)
        few = f" (n = {n} of {played})" if n < played else ""
        panel.set(xlabel="round", title=f"after {size} datapoints{few}")
    panels[0].set_ylabel(f"held-out {literal(_score(runs))}")
    _error_axis(runs, panels[0], shown)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=_legend_columns(runs))
    return figure


def shown_sizes(runs: Runs) -> list[int]:
    """The sizes that the experiment names, as far as they were evaluated; otherwise the smallest and the largest."""
    at = metrics.sizes(_every(runs))
    named = [size for size in _first(runs).about.report_sizes if size in at]
    return named or list(dict.fromkeys([at[0], at[-1]] if at else [0]))


def running(values: Float[np.ndarray, "runs rounds"], statistic: Any) -> Float[np.ndarray, " rounds"]:
    """`statistic` of all values within `WINDOW` rounds around each round; NaN where a round has none itself."""
    half, out = WINDOW // 2, np.full(values.shape[1], np.nan)
    for t in range(values.shape[1]):
        near = values[:, max(0, t - half) : t + half + 1]
        if not np.isnan(values[:, t]).all():
            out[t] = statistic(near[~np.isnan(near)])
    return out


def _plain_ticks(panel: Axes, at: Sequence[int]) -> None:
    """A logarithmic axis of these sizes, if there are any."""
    if not at:
        return
    panel.set_xscale("log")
    ticks = thinned(at, 5)
    panel.set_xticks(ticks, list(map(str, ticks)))
    panel.minorticks_off()


def thinned(at: Sequence[int], most: int) -> list[int]:
    """Some of the sizes, evenly spread on a logarithmic axis, the first and the last among them; 0 stands beside it."""
    if len(at) <= most:
        return list(at)
    if at[0] == 0:
        return [0, *thinned(at[1:], most - 1)]
    wanted = np.geomspace(at[0], at[-1], most)
    return sorted({min(at, key=lambda size: abs(np.log(size / target))) for target in wanted})


def _error_axis(runs: Runs, panel: Axes, shown: Float[np.ndarray, "runs rounds sizes"]) -> None:
    """A logarithmic axis for errors, as far as their values, not the bands around them; linear if any is not positive.

    Scores that are better the lower they are may be zero or negative, such as log losses of densities.
    """
    known = shown[np.isfinite(shown)]
    if not _higher(runs) and known.size and known.min() > 0:
        panel.set_yscale("log")
        panel.set_ylim(known.min() / 1.5, known.max() * 1.5)


def _every(runs: Runs) -> list[Run]:
    return [run for each in runs.values() for run in each]


def _first(runs: Runs) -> Run:
    return next(iter(runs.values()))[0]


def _threshold(runs: Runs) -> float:
    return _first(runs).about.threshold


def _score(runs: Runs) -> str:
    return _first(runs).about.score.name


def _higher(runs: Runs) -> bool:
    return _first(runs).about.score.higher_is_better
