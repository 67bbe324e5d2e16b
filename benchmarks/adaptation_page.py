"""The page of benchmarks.adaptation: a figure, and the best number of steps of every procedure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.comparison import label, save, write_page
from metaleader.results import figures, report
from metaleader.results.figures import style
from metaleader.results.formats import significant, with_interval
from metaleader.results.statistics import Interval, t_interval

LOOKS = {
    "descent": ("#0072B2", "o"),
    "momentum": ("#D55E00", "^"),
    "adam": ("#009E73", "s"),
    "head first, descent": ("#555555", "D"),
}
DASHES = ("-", "--", ":", "-.")  # by step size, from the smallest
HEADINGS = ["learner", "datapoints", "procedure", "step size", "steps", "score", "as it is", "better by"]


@dataclass(frozen=True)
class Curves:
    """Scores of a learner at a size, means over the rounds that were judged.

    Attributes:
        own: of the learner's own adaptation, one a seed.
        found: of every procedure, by name: `(step sizes, seeds, numbers of steps)`.
    """

    own: Float[np.ndarray, " seeds"]
    found: Mapping[str, Float[np.ndarray, "sizes seeds steps"]]


def curves(results: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], Curves]:
    """By learner and size. A score that was not finite in any of the rounds makes the mean NaN."""
    table: dict[tuple[str, int], Curves] = {}
    for learner in dict.fromkeys(result["learner"] for result in results):
        its = [result for result in results if result["learner"] == learner]
        for i, size in enumerate(its[0]["sizes"]):
            found = {
                name: np.stack([np.array(r["found"][name], float)[:, :, i].mean(axis=1) for r in its], axis=1)
                for name in its[0]["procedures"]
            }
            table[learner, size] = Curves(np.array([np.array(r["own"], float)[:, i].mean() for r in its]), found)
    return table


@dataclass(frozen=True)
class Best:
    """The best of a procedure: the step size and number of steps whose mean over seeds is best.

    Attributes:
        step_size: of the procedure.
        steps: how many.
        score: mean over seeds, with a t interval.
        gain: by how much better than the learner's own adaptation, paired by seed.
        last: whether it is the largest number of steps tried.
    """

    step_size: float
    steps: int
    score: Interval
    gain: Interval
    last: bool


def best(of: Curves, name: str, step_sizes: Sequence[float], steps: Sequence[int], higher: bool) -> Best | None:
    """The best of a procedure; None where no mean is finite."""
    sign = 1 if higher else -1
    means = sign * of.found[name].mean(axis=1)
    if not np.isfinite(means).any():
        return None
    i, k = divmod(int(np.nanargmax(means)), means.shape[1])
    values = of.found[name][i, :, k]
    gain = t_interval(sign * (values - of.own))
    return Best(step_sizes[i], steps[k], t_interval(values), gain, k == len(steps) - 1)


def write(results: Sequence[dict[str, Any]], lacking: Sequence[str], page: Path, held_out: str, title: str) -> None:
    """Write the page and its figure.

    Args:
        results: what `adaptation.measure` gives; those that diverged take no part.
        lacking: what is not measured yet.
        page: where to write it.
        held_out: on which images learners were judged.
        title: the experiment.
    """
    first, whole = results[0], [result for result in results if not result["diverged"]]
    diverged = [f"`{r['learner']}`, seed {r['seed']}" for r in results if r["diverged"]]
    parts = [f"**Not complete.** Not measured yet: {'; '.join(lacking)}."] if lacking else []
    parts += [f"Diverged in training, and left out: {'; '.join(diverged)}."] if diverged else []
    parts.append(_about(first, results, held_out, title))
    if whole:
        table = curves(whole)
        several = len({result["seed"] for result in whole}) > 1
        name, higher = first["score"]["name"], first["score"]["higher_is_better"]
        with figures.drawing():
            picture = save(figure(table, first), page, page.stem)
        parts += [
            "## Best of each learner",
            "\n".join(words(table, first)),
            f"![Score against adaptation steps]({picture})\n\nHeld-out {name} ({'higher' if higher else 'lower'} is "
            "better) against the number of steps, a line for every procedure and step size: solid for the smallest "
            "step size, then dashed, then dotted. Means over seeds"
            + (", with 95 % t intervals for the best step size of a procedure, cut at the edges" if several else "")
            + ". Thin black line: the learner's own adaptation in the preset.",
            "## Best number of steps",
            report.markdown_table(HEADINGS, rows(table, first)),
            "Score: mean over the judged rounds and seeds, with a 95 % t interval over seeds. As it is: the preset's "
            "own adaptation at the same weights; better by: the difference, paired by seed. The best is the best of "
            "all that were tried on the same images, and flattered by that. *: the most steps that were tried; more "
            "may be better.",
        ]
    parts += ["## How this was made", _made(results)]
    write_page(page, "Score against adaptation steps", parts)


def _about(first: Mapping[str, Any], results: Sequence[Mapping[str, Any]], held_out: str, title: str) -> str:
    seeds = ", ".join(map(str, sorted({result["seed"] for result in results})))
    stream = first["settings"]["stream"]
    if "held_out" not in stream:
        judged = "data that the streams of these seeds hold out"
    elif held_out == "validation":
        judged = "a validation split of the training images, which no result is judged on, so that settings may be "
        judged += "chosen by it"
    else:
        judged = "the test images, which results are judged on as well: nothing may be chosen by it"
    rounds = ", ".join(map(str, first["rounds"]))
    return (
        f"{title}. Each learner is trained once a seed (seeds {seeds}), by its preset; in rounds {rounds}, its weights "
        "are adapted to D_t by several procedures, full batches all, and judged after each number of steps. Training "
        f"is the same for all procedures: FTML was meta-trained for its own steps, not for these. Judged on {judged}."
    )


def words(table: Mapping[tuple[str, int], Curves], first: Mapping[str, Any]) -> list[str]:
    """A line for every size: the best of each learner over all procedures."""
    lines = []
    for size in dict.fromkeys(size for _, size in table):
        said = []
        for learner in (learner for learner, of in table if of == size):
            each = _all_best(table[learner, size], first)
            if each:
                sign = 1 if first["score"]["higher_is_better"] else -1
                name, top = max(each.items(), key=lambda item: sign * float(item[1].score[0] or 0))
                said.append(
                    f"{label(learner)} {with_interval(top.score)} by {top.steps} steps of {name} of "
                    f"{top.step_size:g} (as it is: {significant(float(table[learner, size].own.mean()))})"
                )
        lines.append(f"- After {size} datapoints: {'; '.join(said)}.")
    return lines


def _all_best(of: Curves, first: Mapping[str, Any]) -> dict[str, Best]:
    higher = first["score"]["higher_is_better"]
    each = {name: best(of, name, sizes, first["steps"], higher) for name, sizes in first["procedures"].items()}
    return {name: found for name, found in each.items() if found is not None}


def rows(table: Mapping[tuple[str, int], Curves], first: Mapping[str, Any]) -> list[list[str]]:
    """A row of text for every learner, size and procedure, under `HEADINGS`."""
    return [
        [
            label(learner),
            f"{size}",
            name,
            f"{found.step_size:g}",
            f"{found.steps}{'*' if found.last else ''}",
            with_interval(found.score),
            with_interval(t_interval(of.own)),
            with_interval(found.gain, sign=True),
        ]
        for (learner, size), of in table.items()
        for name, found in _all_best(of, first).items()
    ]


def figure(table: Mapping[tuple[str, int], Curves], first: Mapping[str, Any]) -> Figure:
    """A panel for every learner and size; a line for every procedure and step size."""
    learners, sizes = list(dict.fromkeys(of for of, _ in table)), list(dict.fromkeys(size for _, size in table))
    drawn = Figure(figsize=(3.6 * len(sizes) + 1.2, 3.2 * len(learners) + 0.9), layout="constrained")
    panels = drawn.subplots(len(learners), len(sizes), sharex=True, sharey="col", squeeze=False)
    for row, learner in zip(panels, learners, strict=True):
        for panel, size in zip(row, sizes, strict=True):
            if (learner, size) in table:
                _panel(panel, table[learner, size], first)
            panel.set_title(f"{style(learner).short}, {size} datapoints")
        row[0].set_ylabel(f"held-out {first['score']['name']}")
    for panel in panels[-1]:
        panel.set_xlabel("adaptation steps")
    for column in panels.T:  # with few seeds, intervals are wider than what there is to see
        lines = np.concatenate([np.asarray(line.get_ydata(), float) for panel in column for line in panel.lines])
        low, high = np.nanmin(lines), np.nanmax(lines)
        margin = 0.08 * (high - low)
        logarithmic = not first["score"]["higher_is_better"]
        column[0].set_ylim((low / 1.2, high * 1.2) if logarithmic else (low - margin, high + margin))
    handles, labels = panels[0][0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside right upper", title="procedure, step size")
    return drawn


def _panel(panel: Axes, of: Curves, first: Mapping[str, Any]) -> None:
    steps, chosen = np.array(first["steps"]), _all_best(of, first)
    for name, step_sizes in first["procedures"].items():
        colour, marker = LOOKS[name]
        for i, step_size in enumerate(step_sizes):
            found = of.found[name][i]
            is_best = name in chosen and chosen[name].step_size == step_size
            dashes = DASHES[sorted(step_sizes).index(step_size) % len(DASHES)]
            look: Any = {"color": colour, "marker": marker, "ls": dashes, "lw": 2 if is_best else 1, "ms": 4}
            panel.plot(steps, found.mean(axis=0), label=f"{name}, {step_size:g}", **look)
            intervals = [t_interval(column) for column in found.T]
            if is_best and all(low is not None for _, low, _ in intervals):
                _, low, high = np.array(intervals, float).T
                panel.fill_between(steps, low, high, color=colour, alpha=0.15, lw=0)
    panel.axhline(float(of.own.mean()), color="black", lw=0.8, zorder=0)
    panel.set_xscale("symlog", linthresh=1, linscale=0.4)
    panel.set_xticks(steps, [f"{n}" for n in steps])
    panel.minorticks_off()
    panel.tick_params(axis="x", labelsize=8)
    if not first["score"]["higher_is_better"]:
        panel.set_yscale("log")


def _made(results: Sequence[Mapping[str, Any]]) -> str:
    commands = "\n".join(dict.fromkeys(result["command"] for result in results))
    commits = ", ".join(dict.fromkeys(str(result["commit"]) for result in results))
    devices = ", ".join(dict.fromkeys(device for result in results for device in result["machine"]))
    made = "\n\n".join([f"```\n{commands}\n```", f"Commit {commits}; {devices}."])
    checksums = report.markdown_table(
        ["learner", "seed", "SHA-256 of its file"],
        [[f"`{result['learner']}`", f"{result['seed']}", result["sha256"]] for result in results],
    )
    return f"{made}\n\n{checksums}"
