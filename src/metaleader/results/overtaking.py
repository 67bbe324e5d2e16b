"""From which round on FTML is ahead of each of the others: a figure, and the rounds as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaleader.results import advantage, figures
from metaleader.results.advantage import WHOLE, WINDOW, Pair
from metaleader.results.claims import FEW, FINAL, NAMES, Measure
from metaleader.results.figures import style
from metaleader.results.metrics import Run
from metaleader.results.statistics import t_interval

LEADER = "ftml"
MEASURES: tuple[Measure, ...] = (FEW, FINAL)


def rivals(runs: Sequence[Run]) -> dict[str, list[Pair]]:
    """The others by name, each in pairs with FTML of the same seed; only runs that have ended."""
    others = dict.fromkeys(run.learner for run in runs if run.learner != LEADER)
    paired = {other: advantage.pairs(runs, LEADER, other) for other in others}
    return {other: each for other, each in paired.items() if each}


def rounds(runs: Sequence[Run]) -> dict[str, dict[Measure, int | None]]:
    """For every other learner and measure the round from which FTML stays ahead, mean over seeds; None: never.

    See `advantage.overtakes`. A pair of which a learner diverged has no scores, and no round.
    """
    return {
        other: {measure: advantage.overtakes(advantage.running(measure, each)) for measure in MEASURES}
        for other, each in rivals(runs).items()
    }


def headings(runs: Sequence[Run]) -> list[str]:
    """Of `rows`."""
    size = advantage.few((runs[0], runs[0])) if runs else None
    return ["FTML overtakes", f"after {size} datapoints", "at the end of a round"]


def rows(runs: Sequence[Run]) -> list[list[str]]:
    """A row of text for every other learner."""
    return [
        [style(other).name, *(_told(measure, paired) for measure in MEASURES)] for other, paired in rivals(runs).items()
    ]


def _told(measure: Measure, paired: Sequence[Pair]) -> str:
    """From which round FTML is ahead, how many rounds after it are not judged, and on how many tasks that is."""
    mean = advantage.running(measure, paired)
    first = advantage.overtakes(mean)
    unknown = 0 if first is None else int(np.isnan(mean.mean(axis=0)[first:]).sum())
    gaps = f", but for {unknown} rounds that are not judged" if unknown else ""
    return _when(first) + gaps + _of(measure, paired)


def _of(measure: Measure, *paired: Sequence[Pair]) -> str:
    """On how many tasks an advantage is, where that is not on all; the fewest, of several rivals."""
    n, tasks = min(advantage.compared(measure, each, WHOLE) for each in paired)
    return f" (n = {n} of {tasks})" if n < tasks else ""


def _when(first: int | None) -> str:
    return "never" if first is None else "from the first round" if first == 1 else f"from round {first}"


NOTE = (
    f"The round from which FTML's advantage, mean over {WINDOW} rounds (the round and those before it) and "
    "over seeds, stays above zero to the end of the stream. A description, not a test: the verdicts and the bands of "
    "the figure say how sure it is."
)


def figure(runs: Sequence[Run]) -> tuple[Figure, str] | None:
    """The paired advantage of FTML over each other learner against round, with its caption; None without pairs."""
    paired = rivals(runs)
    if not paired:
        return None
    first = next(iter(paired.values()))[0][0]
    higher, name = first.higher_is_better, first.about.score.name
    bent = ""
    with figures.drawing():
        drawn = Figure(figsize=(9.6, 4.0), layout="constrained")
        panels = drawn.subplots(1, 2)
        for panel, measure in zip(panels, MEASURES, strict=True):
            largest = _panel(panel, measure, paired)
            if not higher and largest > WIDE * first.threshold > 0:
                panel.set_yscale("symlog", linthresh=first.threshold)
                bent = f" The axis of a panel is linear up to {first.threshold:g} and logarithmic beyond."
        size = advantage.few((first, first))
        panels[0].set(
            title=f"after {size} datapoints{_of(FEW, *paired.values())}",
            ylabel=f"{figures.literal(name)} {'gained' if higher else 'avoided'} by FTML",
        )
        panels[1].set(title="at the end of a round")
        legend, labels = panels[0].get_legend_handles_labels()
        drawn.legend(legend, labels, loc="outside upper center", ncols=len(labels) if len(labels) <= 4 else 3)
    return drawn, (
        f"By how much FTML is better than each other learner on the same task, held-out {name}: mean over seeds of the "
        f"running mean over {WINDOW} rounds, the round and those before it; above zero FTML is ahead. Bands, with "
        "several seeds: 95 % t intervals, each round by itself." + bent
    )


WIDE = 30  # times the threshold: errors avoided of which a linear axis would show only the largest


def _panel(panel: Axes, measure: Measure, paired: Mapping[str, Sequence[Pair]]) -> float:
    """Draw an advantage over each other learner; returns the largest."""
    ends = [0.0]
    for other, each in paired.items():
        look, values = style(other), advantage.running(measure, each)
        t = np.arange(1, values.shape[1] + 1)
        mean, low, high = np.array([t_interval(column) for column in values.T], dtype=float).T
        panel.plot(
            t,
            mean,
            color=look.colour,
            ls=look.dashes,
            lw=2,
            label=f"over {figures.literal(NAMES.get(other, look.name))}",
        )
        panel.plot(t[:: max(1, len(t) // 8)], mean[:: max(1, len(t) // 8)], look.marker, color=look.colour, ms=6)
        panel.fill_between(t, low, high, color=look.colour, alpha=0.15, lw=0)
        ends += mean[np.isfinite(mean)].tolist()
    panel.axhline(0, color="black", lw=1)
    panel.set(xlabel="round")
    # Bands of the first rounds may be far wider than anything of interest.
    room = 0.35 * (max(ends) - min(ends)) or 1.0
    panel.set_ylim(min(ends) - room, max(ends) + room)
    return max(map(abs, ends))
