"""The figure of a search: score against every setting that was searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from metaleader.results.figures import drawing, literal, style

COLUMNS = 5
OFF = 10  # times the best error: off the scale


def search(tuned: Mapping[str, Any]) -> tuple[Figure, str]:
    """What `tune.json` holds as a figure and its caption: score against every setting searched."""
    spaces, score = tuned["spaces"], tuned["score"]
    higher = score["higher_is_better"]
    columns = min(COLUMNS, max(map(len, spaces.values())))
    lines = {learner: -(-len(space) // columns) for learner, space in spaces.items()}
    with drawing():
        apart = ConstrainedLayoutEngine(w_pad=0.15)  # the ends of neighbouring axes
        size = (3.0 * columns + 0.8, 2.4 * sum(lines.values()) + 0.7)
        figure = Figure(figsize=size, layout=apart)
        every = list(figure.subplots(sum(lines.values()), columns, squeeze=False))
        legend: dict[str, Any] = {}
        lost_as = "no score" if higher else "no score, or off the scale"
        for learner, space in spaces.items():
            found = tuned["learners"][learner]
            shown = _on_one_scale(found, higher)
            panels = [panel for _ in range(lines[learner]) for panel in every.pop(0)]
            for i, (option, ends) in enumerate(space.items()):
                if i > 0:
                    panels[i].sharey(panels[0])
                panels[i].tick_params(labelleft=i % columns == 0)
                _searched(panels[i], learner, option, ends, found, shown, lost_as)
                handles, labels = panels[i].get_legend_handles_labels()
                legend.update(zip(labels, handles, strict=True))
            for panel in panels[len(space) :]:
                panel.set_axis_off()
            for panel in panels[: len(space) : columns]:
                panel.set_ylabel(f"held-out {literal(score['name'])}")
            panels[0].set_title(literal(style(learner).name))
            scores = [trial["score"] for trial in shown]
            if scores and min(scores) > 0 and not higher:
                panels[0].set_yscale("log")
                _between(panels[0].yaxis, min(scores), max(scores), True)
        figure.legend(list(legend.values()), list(legend), loc="outside upper center", ncols=5)
    far_off = "" if higher else f", or whose error is more than {OFF} times the best"
    pruned = any(
        trial["outcome"].startswith("pruned") for each in tuned["learners"].values() for trial in each["trials"]
    )
    ticks = " Bars on the axis: trials that were pruned, whose scores are of earlier rounds." if pruned else ""
    return figure, (
        f"Held-out {score['name']} of every trial that ran to its end against each setting searched; "
        f"{'higher' if higher else 'lower'} is better.{ticks} Crosses on the axis: trials without a score, "
        f"which diverged or failed{far_off}."
    )


def _on_one_scale(found: Mapping[str, Any], higher_is_better: bool) -> list[Mapping[str, Any]]:
    """The trials of a learner whose scores can be shown beside the best; all, where the best error is not positive."""
    scored = [trial for trial in found["trials"] if trial["score"] is not None]
    if higher_is_better or not scored or found["best"]["score"] <= 0:
        return scored
    return [trial for trial in scored if trial["score"] <= OFF * found["best"]["score"]]


def _searched(
    panel: Axes,
    learner: str,
    option: str,
    ends: Mapping[str, Any],
    found: Mapping[str, Any],
    shown: Sequence[Mapping[str, Any]],
    lost_as: str,
) -> None:
    """The trials of a learner against one of the settings searched; those not in `shown` are marks on the axis."""
    look, choices = style(learner), ends.get("choices")

    def where(trials: Sequence[Mapping[str, Any]]) -> list[Any]:
        values = [trial["settings"][option] for trial in trials]
        return [choices.index(value) for value in values] if choices else values

    # A preset's own value may be none, or none of the choices.
    trials = [
        trial
        for trial in found["trials"]
        if (trial["settings"][option] in choices if choices else trial["settings"][option] is not None)
    ]
    scored = [trial for trial in trials if trial in shown]
    groups: dict[str, tuple[list[Any], dict[str, Any]]] = {
        "trial": (scored, {"marker": look.marker, "color": look.colour, "ms": 5, "mew": 0}),
        "preset": (
            [trial for trial in scored if trial["trial"] == 0],
            {"marker": "o", "mfc": "none", "mec": "black", "ms": 11, "mew": 1.2},
        ),
        "best": (
            [trial for trial in scored if trial["trial"] == found["best"]["trial"]],
            {"marker": "*", "mfc": "none", "mec": "black", "ms": 17, "mew": 1.2},
        ),
    }
    for label, (group, looks) in groups.items():
        if group:
            y = [trial["score"] for trial in group]
            panel.plot(where(group), y, ls="none", label=label, zorder=3, clip_on=False, **looks)
    unscored = [trial for trial in trials if trial not in scored]
    pruned = [trial for trial in unscored if trial["outcome"].startswith("pruned")]
    lost = [trial for trial in unscored if trial not in pruned]
    for group, marker, label in ((pruned, "|", "pruned"), (lost, "x", lost_as)):
        if group:
            edge, looks = panel.get_xaxis_transform(), {"color": "black", "ms": 6, "clip_on": False}
            panel.plot(where(group), [0.0] * len(group), marker, transform=edge, label=label, **looks)
    panel.set_xlabel(option.removeprefix(f"{learner}."))
    if choices:
        panel.set_xticks(range(len(choices)), list(map(literal, choices)))
        panel.set_xlim(-0.5, len(choices) - 0.5)
    else:
        panel.set_xscale("log" if ends["log"] else "linear")
        _between(panel.xaxis, ends["low"], ends["high"], ends["log"])


def _between(axis: Axis, low: float, high: float, log: bool) -> None:
    """Ticks at the ends of a range and evenly between, as plain numbers; all of the range is shown."""
    whole = isinstance(low, int) and isinstance(high, int)
    evenly = (np.geomspace if log else np.linspace)(low, high, 3)
    ticks = [float(round(tick)) if whole else float(f"{tick:.3g}") for tick in evenly]
    axis.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)
