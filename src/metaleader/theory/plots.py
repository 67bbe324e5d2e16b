"""The figures of the theory page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from metaleader.results.figures import drawing
from metaleader.theory.claims import Findings
from metaleader.theory.games import MISTAKES

LOOKS: Mapping[str, tuple[str, str, Any]] = {  # colour, marker, dashes: told apart in grey too
    "FTML": ("#0072B2", "o", "-"),
    "joint training": ("#009E73", "s", "--"),
    "OGD, step 8/(mu t)": ("#D55E00", "^", "-."),
    "AdaGrad": ("#CC79A7", "v", (0, (5, 2))),
    "mirror, p-norm": ("#E69F00", "X", (0, (3, 1, 1, 1))),
    "mirror, entropic": ("#56B4E9", "P", (0, (1, 1))),
    "frozen": ("#555555", "D", ":"),
}
NAMES = {"OGD, step 8/(mu t)": "OGD, step $8/(\\mu t)$", "mirror, p-norm": "mirror descent, p-norm"}
NAMES |= {
    "mirror, entropic": "mirror descent, entropic",
    "frozen": "$w_1$ for ever",
    "joint training": "joint training, adapted",
}
WRONG = (("#009E73", "s"), ("#D55E00", "^"), ("#CC79A7", "v"))  # colour and marker of each of MISTAKES
SHOWN = ("regression, iid", "regression, adversarial", "logistic, iid")


def figures(found: Findings) -> dict[str, tuple[Figure, str]]:
    """Every figure by name, each with a caption; those of what could not be computed are empty."""
    with drawing():
        return {
            "eigenvalues": (
                _eigenvalues(found),
                "Eigenvalues of the Hessian of f(U(w)), the worst of 16 tasks at points sought out, against the step "
                "size alpha as a multiple of Theorem 1's bound. Shaded: where the theorem speaks, and the range it "
                "gives. Beyond the bound convexity does not go at once, but it goes for the logistic loss; quadratics "
                "stay convex, though not strongly so, and lose smoothness.",
            ),
            "regret": (
                _regret(found),
                "Regret against the best meta-learner in hindsight of the learner's own domain, mean over seeds. "
                "Black, bounds of FTML: dashed, from the gradients it saw; dotted, from the constants; dash-dotted, "
                "the paper's. Regret below 0 is not drawn.",
            ),
            "mistakes": (
                _mistakes(found),
                "The trap: each learner as it should be and with a mistake in its code, against its bounds, first "
                "seed. The bound from the gradients is drawn as the right learner has it; whoever makes a mistake is "
                "judged by the one from the gradients that it saw itself.",
            ),
            "regret-over-log": (
                _over_log(found),
                "Regret over log T, mean over seeds: level where regret is logarithmic.",
            ),
        }


def _eigenvalues(found: Findings) -> Figure:
    figure = Figure(figsize=(9.4, 3.8), layout="constrained")
    for panel, (kind, sweep) in zip(figure.subplots(1, 2), found.sweep.items(), strict=False):
        factors = np.array([each["factor"] for each in sweep])
        low, high = sweep[0]["mu"] / 8, 9 * sweep[0]["beta"] / 8
        panel.fill_between([factors[0], 1], low, high, color="0.88", lw=0, label="Theorem 1: $\\mu/8$ to $9\\beta/8$")
        for key, name, marker, dashes in (("largest", "largest", "^", "-"), ("least", "least", "v", "--")):
            panel.plot(
                factors, [each[key] for each in sweep], color="#0072B2", ls=dashes, marker=marker, ms=4, label=name
            )
        panel.axvline(1, color="black", lw=0.8)
        panel.axhline(0, color="black", lw=0.8)
        panel.set(xscale="log", title=f"{kind} loss", xlabel=r"$\alpha$ / bound of Theorem 1", ylabel="eigenvalue")
        panel.set_yscale("symlog", linthresh=0.1)
        panel.legend(loc="lower left", fontsize=9, frameon=True, facecolor="white", edgecolor="none", framealpha=1)
    return figure


def _panels() -> tuple[Figure, list[tuple[Any, str]]]:
    figure = Figure(figsize=(11.4, 4.2), layout="constrained")
    panels = figure.subplots(1, len(SHOWN))
    for panel, label in zip(panels, SHOWN, strict=True):
        panel.set(title=label.replace("iid", "i.i.d."), xlabel="rounds T", xscale="log", yscale="log")
    return figure, list(zip(panels, SHOWN, strict=True))


def _learners(found: Findings, label: str) -> dict[str, Any]:
    kept = {name: found.curves.get((label, f"FTML: {name}" if name in MISTAKES else name)) for name in LOOKS}
    return {name: curves for name, curves in kept.items() if curves}


def _regret(found: Findings) -> Figure:
    figure, panels = _panels()
    for panel, label in panels:
        for name, curves in _learners(found, label).items():
            mean = np.mean([curve.regret for curve in curves], axis=0)
            _line(panel, name, curves[0].rounds, mean)
        ours = found.curves.get((label, "FTML"), [])
        for key, dashes, name in (
            ("gradients", "--", "bound of FTML, gradients seen"),
            ("constants", ":", "bound of FTML, constants"),
            ("paper", "-.", "bound of FTML, the paper's"),
        ):
            if ours:
                bound = np.mean([c.bounds[key] for c in ours], axis=0)
                panel.plot(ours[0].rounds, bound, color="black", ls=dashes, lw=1.3, label=name)
        panel.set_ylim(bottom=1e-3)
    panels[0][0].set_ylabel("regret (loss)")
    _legend(figure, panels)
    return figure


def _mistakes(found: Findings) -> Figure:
    """A panel for each learner on the trap."""
    (label,) = {check.stream for check in found.regrets if check.trap} or {""}
    names = [check.learner for check in found.regrets if check.trap]
    figure = Figure(figsize=(11.4, 6.8), layout="constrained")
    columns = max(1, -(-len(names) // 2))
    panels = np.ravel(figure.subplots(2, columns, sharex=True, sharey=True, squeeze=False))
    for panel, name in zip(panels, names, strict=False):
        right = found.curves[label, name][0]
        panel.set(title=NAMES.get(name, name), xscale="log", yscale="log", xlabel="rounds T", ylabel="regret (loss)")
        for bound, dashes in (("gradients", "--"), ("constants", ":"), ("paper", "-.")):
            if bound in right.bounds:
                said = {"paper": "bound, the paper's", "gradients": "bound, gradients seen"}.get(
                    bound, f"bound, {bound}"
                )
                panel.plot(right.rounds, right.bounds[bound], color="black", ls=dashes, lw=1.3, label=said)
        for mistake, (colour, marker) in (("", ("#0072B2", "o")), *zip(MISTAKES, WRONG, strict=True)):
            if kept := found.curves.get((label, f"{name}: {mistake}" if mistake else name)):
                shown = np.where(kept[0].regret > 0, kept[0].regret, np.nan)
                panel.plot(
                    right.rounds,
                    shown,
                    color=colour,
                    marker=marker,
                    ms=4,
                    markevery=4,
                    lw=1.6,
                    label=mistake or "no mistake",
                )
    panels[0].set_ylim(bottom=1e-2)  # after all is drawn: the panels share it
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    _legend(figure, [(panel, "") for panel in panels])
    return figure


def _over_log(found: Findings) -> Figure:
    figure, panels = _panels()
    for panel, label in panels:
        for name, curves in _learners(found, label).items():
            rounds = curves[0].rounds
            late = rounds >= 10
            mean = np.mean([curve.regret for curve in curves], axis=0)[late] / np.log(rounds[late])
            _line(panel, name, rounds[late], mean)
        panel.set_ylim(bottom=3e-3)
    panels[0][0].set_ylabel("regret / log T (loss)")
    _legend(figure, panels)
    return figure


def _line(panel: Any, name: str, rounds: Any, values: Any) -> None:
    colour, marker, dashes = LOOKS[name]
    shown = np.where(values > 0, values, np.nan)
    panel.plot(
        rounds, shown, color=colour, ls=dashes, marker=marker, ms=4, markevery=4, lw=1.6, label=NAMES.get(name, name)
    )


def _legend(figure: Figure, panels: Any) -> None:
    known: dict[str, Any] = {}
    for panel, _ in panels:
        known |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=5, fontsize=9)
