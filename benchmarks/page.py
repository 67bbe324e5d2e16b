"""The results of all parts as a page with figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.outcome import Outcome, Panel, as_text, bound, number, verdict
from metaleader.results.figures import drawing

LOOKS = (("#0072B2", "o", "-"), ("#D55E00", "s", "--"), ("#009E73", "^", "-."), ("#555555", "D", ":"))


def write(outcomes: Sequence[Outcome], page: Path, figures: Path) -> None:
    """The page, and a figure for every part beside it."""
    figures.mkdir(parents=True, exist_ok=True)
    page.parent.mkdir(parents=True, exist_ok=True)
    sections = ["# Benchmarks", _introduction(outcomes), _summary(outcomes)]
    for outcome in outcomes:
        gpu = outcome.context["gpu"]
        name = f"{outcome.context['part']}{'-gpu' * bool(gpu)}"
        file = figures / f"{name.replace('_', '-')}.png"
        with drawing():
            draw(outcome.panels).savefig(file, dpi=120, metadata={"Software": None})
        context = outcome.context
        sections += [
            f"## {outcome.title}{f' on a GPU: {gpu}' if gpu else ''}",
            *(as_text(table).strip() for table in outcome.tables),
            f"![{outcome.title}]({file.relative_to(page.parent).as_posix()})",
            f"`{context['command']}`, {context['made'][:10]}, {context['seconds']} s, load average "
            f"{context['load']:g} and {context['busy']} cores in use by other programs at the start."
            + (f" Machine: {_machines([outcome])}." if gpu else ""),
            # Written into a result by hand, where what it measured has changed since.
            *([context["note"]] if "note" in context else []),
        ]
    page.write_text("\n\n".join(sections) + "\n")


def _introduction(outcomes: Sequence[Outcome]) -> str:
    on_cpu = [outcome for outcome in outcomes if outcome.context["gpu"] is None]
    text = (
        "Made by `make bench` (and `make bench-compile`, which is measured apart as torch.compile takes minutes to "
        "compile); "
        f"machine: {_machines(on_cpu)}."
    )
    if len(on_cpu) == len(outcomes):
        text += " No GPU was at hand: on one, nothing was measured."
    if any(outcome.context["quick"] for outcome in outcomes):
        text += "\n\n**At a reduced size, to see that the benchmarks work: the figures mean nothing.**"
    return text


def _machines(outcomes: Sequence[Outcome]) -> str:
    machines = list(dict.fromkeys(str(outcome.context["machine"]) for outcome in outcomes))
    versions = {name: version for outcome in outcomes for name, version in outcome.context["versions"].items()}
    return f"{'; '.join(machines)}; versions: {', '.join(f'{n} {v}' for n, v in versions.items())}"


def _summary(outcomes: Sequence[Outcome]) -> str:
    rows = [
        f"| {bar.what} | {number(bar.value)}{bar.unit} | {bound(bar)} | {verdict(bar)} |"
        for outcome in outcomes
        for bar in outcome.bars
    ]
    return "\n".join(["| what | measured | bar | |", "|---|---|---|---|", *rows])


def draw(panels: Sequence[Panel]) -> Figure:
    """Panels side by side, two in a row."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.8 * columns, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, axis in zip(panels, axes, strict=False):
        _draw(panel, axis)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    return figure


def _draw(panel: Panel, axis: Axes) -> None:
    for (name, (x, y)), (colour, marker, dashes) in zip(panel.series.items(), LOOKS, strict=False):
        if isinstance(x[0], str):
            bars = axis.barh(x, y, color=colour)
            axis.bar_label(bars, labels=[number(value) for value in y], padding=3)
            axis.invert_yaxis()
            axis.margins(x=0.15)
        else:
            axis.plot(x, y, color=colour, marker=marker, ls=dashes, label=name)
            axis.set(xscale="log" if panel.log_x else "linear", yscale="log" if panel.log_y else "linear")
            if not panel.log_y:
                axis.set_ylim(0, 1.3 * max(max(values) for _, values in panel.series.values()))
            if name:
                axis.legend()
    axis.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
