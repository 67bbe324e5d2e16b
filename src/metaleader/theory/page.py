"""The table, the figures and the page of `metaleader theory`."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from rich.markup import escape
from rich.table import Table

from metaleader.errors import UserError
from metaleader.figures import RC
from metaleader.files import write_text
from metaleader.record import write_json
from metaleader.report import save_figure
from metaleader.run import describe
from metaleader.theory.claims import Claim, Findings, TheoryOptions

PAGE = Template(Path(__file__).with_name("page.md").read_text())
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
SHOWN = ("regression, iid", "regression, adversarial", "logistic, iid")


def check_free(out: Path) -> None:
    """Make sure that nothing is overwritten.

    Raises:
        UserError: the results of an earlier run are there.
    """
    for name in ("theory.json", "theory.md"):
        if (out / name).exists():
            raise UserError(f"{out / name} exists already: choose another folder with --out, or remove it")


def write(found: Findings, options: TheoryOptions, out: Path, command: str, seconds: float) -> Path:
    """Write `theory.json`, `theory.md` and `figures/theory/*` into `out`, and return the page.

    Raises:
        UserError: see `check_free`, or the folder cannot be written.
    """
    check_free(out)
    try:
        folder = out / "figures" / "theory"
        folder.mkdir(parents=True, exist_ok=True)
        shown = []
        for name, (figure, caption) in figures(found).items():
            save_figure(figure, folder / name)
            shown.append(f"![{caption}](figures/theory/{name}.png)\n\n{caption}")
        write_json(out / "theory.json", _json(found, options, command, seconds))
        page = PAGE.substitute(
            table=_markdown(found),
            figures="\n\n".join(shown),
            command=command,
            seconds=f"{seconds:.0f}",
            machine=f"{platform.system()} {platform.machine()}, {len(os.sched_getaffinity(0))} cores",
            versions=", ".join(f"{name} {metadata.version(name)}" for name in ("metaleader", "jax", "numpy", "scipy")),
            settings=f"T = {options.rounds}, {options.seeds} seeds, radius {options.radius:g}, "
            f"alpha {options.step:g} times the bound",
        )
        write_text(out / "theory.md", page)
    except OSError as error:
        raise UserError(
            f"cannot write to {error.filename or out}: {error.strerror or error}; choose a folder with --out"
        ) from error
    return out / "theory.md"


def verdict(claim: Claim) -> str:
    """Yes or no; for what the theory does not cover, what was seen; a dash for an estimate."""
    if claim.outside:
        return "outside, holds" if claim.holds else "outside, fails"
    return "-" if claim.holds is None else "yes" if claim.holds else "NO"


def terminal_table(found: Findings) -> Table:
    """The claims for a terminal."""
    table = Table("claim", "source", title="Theory, checked", title_justify="left", box=None, pad_edge=False)
    for heading in ("bound", "measured", "holds"):
        table.add_column(heading, justify="right")
    for claim in found.claims:
        table.add_row(*map(escape, _row(claim)))  # brackets are not markup
    return table


def _row(claim: Claim) -> list[str]:
    sign = "<=" if claim.at_most else ">="
    bound = "-" if claim.bound is None else f"{sign} {claim.bound:.4g}"
    return [claim.claim, claim.source, bound, f"{claim.measured:.4g}", verdict(claim)]


def _markdown(found: Findings) -> str:
    lines = ["| claim | source | bound | measured | holds |", "|---|---|--:|--:|---|"]
    for claim in found.claims:
        text = [cell.replace("||", "‖").replace("|", "\\|") for cell in _row(claim)]
        lines.append(f"| {' | '.join(text)} |")
    failing = list(dict.fromkeys(claim.outside for claim in found.claims if claim.outside))
    return "\n".join([*lines, "", *(f"Outside the theory: {reason}." for reason in failing)])


def figures(found: Findings) -> dict[str, tuple[Figure, str]]:
    """Every figure by name, each with a caption."""
    with matplotlib.rc_context(RC):
        return {
            "eigenvalues": (
                _eigenvalues(found),
                "Eigenvalues of the Hessian of f(U(w)), the worst of 16 tasks at points sought out, against the step "
                "size alpha as a multiple of Theorem 1's bound. Shaded: where the theorem speaks, and the range it "
                "gives. Beyond the bound convexity does not go at once, but it goes for the logistic loss; quadratics "
                "stay convex, and lose smoothness.",
            ),
            "regret": (
                _regret(found),
                "Regret against the best meta-learner in hindsight, mean over seeds. Dashed black: FTML's bound from "
                "the gradients it saw; dotted black: from the constants alone. Regret below 0 is not drawn.",
            ),
            "regret-over-log": (
                _over_log(found),
                "Regret over log T, mean over seeds: level where regret is logarithmic.",
            ),
        }


def _eigenvalues(found: Findings) -> Figure:
    figure = Figure(figsize=(9.4, 3.8), layout="constrained")
    for panel, (kind, sweep) in zip(figure.subplots(1, 2), found.sweep.items(), strict=True):
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
        panel.legend(loc="upper left", fontsize=9)
    return figure


def _panels() -> tuple[Figure, list[tuple[Any, str]]]:
    figure = Figure(figsize=(11.4, 4.2), layout="constrained")
    panels = figure.subplots(1, len(SHOWN))
    for panel, label in zip(panels, SHOWN, strict=True):
        panel.set(title=label.replace("iid", "i.i.d."), xlabel="rounds T", xscale="log", yscale="log")
    return figure, list(zip(panels, SHOWN, strict=True))


def _learners(found: Findings, label: str) -> dict[str, Any]:
    return {name: found.curves[label, name] for name in LOOKS if (label, name) in found.curves}


def _regret(found: Findings) -> Figure:
    figure, panels = _panels()
    for panel, label in panels:
        for name, curves in _learners(found, label).items():
            mean = np.mean([curve.regret for curve in curves], axis=0)
            _line(panel, name, curves[0].rounds, mean)
        ours = found.curves[label, "FTML"]
        for key, dashes, name in (
            ("observed", "--", "bound of FTML, gradients seen"),
            ("bound", ":", "bound of FTML, constants"),
        ):
            panel.plot(
                ours[0].rounds,
                np.mean([getattr(c, key) for c in ours], axis=0),
                color="black",
                ls=dashes,
                lw=1.3,
                label=name,
            )
        panel.set_ylim(bottom=1e-3)
    panels[0][0].set_ylabel("regret (loss)")
    _legend(figure, panels)
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


def _json(found: Findings, options: TheoryOptions, command: str, seconds: float) -> dict[str, Any]:
    return {
        "command": command,
        "seconds": round(seconds, 1),
        "settings": describe(replace(options, out=None)),
        "claims": [_finite({**vars(claim)}) for claim in found.claims],
        "regret": [
            {
                "stream": label,
                "learner": name,
                "seed": seed,
                "growth": curve.growth if math.isfinite(curve.growth) else None,
            }
            | {key: _finite(getattr(curve, key).tolist()) for key in ("rounds", "regret", "observed", "bound")}
            for (label, name), curves in found.curves.items()
            for seed, curve in enumerate(curves)
        ],
        "eigenvalues": found.sweep,
        "deep": {
            name: {
                "regret": each.regret,
                "largest": each.largest,
                "gap": each.offline.gap,
                "gradient_norm": each.offline.gradient_norm,
            }
            for name, each in found.estimates.items()
        },
    }


def _finite(value: Any) -> Any:
    """With None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
