"""The tables and the page of `metaleader theory`."""

from __future__ import annotations

import math
import platform
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Any

from rich.markup import escape
from rich.table import Table

from metaleader import devices
from metaleader.errors import UserError
from metaleader.files import write_json, write_text
from metaleader.online.description import described
from metaleader.results.report import figures_folder, save_figure
from metaleader.theory.claims import Claim, Findings, RegretCheck, TheoryOptions
from metaleader.theory.games import MISTAKES, TRAP_RADIUS, TRAP_ROUNDS
from metaleader.theory.plots import figures

PAGE = Template(Path(__file__).with_name("page.md").read_text())


def check_free(out: Path) -> None:
    """Make sure that nothing is overwritten.

    Raises:
        UserError: the results of an earlier run are there.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from metaleader.theory import check_free
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     check_free(Path(folder))  # nothing is there
        ...     (Path(folder) / "theory.md").touch()
        ...     try:
        ...         check_free(Path(folder))
        ...     except ValueError as error:
        ...         print(str(error).partition(": ")[2])
        choose another folder with --out, or remove it
    """
    for name in ("theory.json", "theory.md"):
        if (out / name).exists():
            raise UserError(f"{out / name} exists already: choose another folder with --out, or remove it")


def write(found: Findings, options: TheoryOptions, out: Path, command: str, seconds: float) -> Path:
    """Write `theory.json`, `theory.md` and `figures/theory/*` into `out`, and return the page.

    Raises:
        UserError: see `check_free`, or the folder cannot be written.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from metaleader.theory import Findings, TheoryOptions, write
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "theory.json").touch()  # of an earlier run, which stays
        ...     try:
        ...         write(Findings(), TheoryOptions(), Path(folder), "metaleader theory", seconds=1.0)
        ...     except ValueError as error:
        ...         print(str(error).partition(": ")[2])
        choose another folder with --out, or remove it
    """
    check_free(out)
    try:
        folder = figures_folder(out, "theory")
        shown = []
        for name, (figure, caption) in figures(found).items():
            save_figure(figure, folder / name)
            shown.append(f"![{caption}](figures/theory/{name}.png)\n\n{caption}")
        write_json(out / "theory.json", _json(found, options, command, seconds))
        page = PAGE.substitute(
            summary=_summary(found),
            trap=_regrets([check for check in found.regrets if check.trap]),
            regrets=_regrets([check for check in found.regrets if not check.trap]),
            table=_markdown(found),
            gap=f"{max((float(c.gap.max()) for kept in found.curves.values() for c in kept), default=0.0):.1g}",
            rounds=options.rounds,
            trap_rounds=f"{TRAP_ROUNDS:,}",
            trap_radius=f"{TRAP_RADIUS:g}",
            figures="\n\n".join(shown),
            command=command,
            seconds=f"{seconds:.0f}",
            machine=f"{platform.system()} {platform.machine()}, {devices.available_cores()} cores",
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
    """The claims for a terminal.

    Examples:
        >>> from metaleader.theory import Findings, terminal_table
        >>> found = Findings()
        >>> found.add("Hessian of f <= beta", "Theorem 1", bound=1.0, measured=0.9)
        >>> [list(column.cells)[0] for column in terminal_table(found).columns]
        ['Hessian of f <= beta', 'Theorem 1', '<= 1', '0.9', 'yes']
    """
    table = Table("claim", "source", title="Theory, checked", title_justify="left", box=None, pad_edge=False)
    for heading in ("bound", "measured", "holds"):
        table.add_column(heading, justify="right")
    for claim in found.claims:
        table.add_row(*map(escape, _row(claim)))  # brackets are not markup
    for check in found.regrets:
        for name, bound in check.bounds.items():
            outside = "outside, " if check.outside else ""
            holds = outside + ("holds" if outside else "yes") if check.holds[name] else outside + "NO"
            table.add_row(
                escape(f"regret of {check.learner}; {check.stream}; bound: {name}"),
                check.source,
                f"<= {_number(bound)}",
                _number(check.regret),
                holds,
            )
        for mistake, caught in check.caught.items():
            if check.trap:
                table.add_row(
                    escape(f"... {mistake} breaks every bound"),
                    check.source,
                    f"> {_number(max(check.bounds.values()))}",
                    _number(check.pays[mistake]),
                    "yes" if len(caught) == len(check.bounds) else "NO",
                )
    return table


def _summary(found: Findings) -> str:
    """What a reader may believe, in a few lines."""
    inside = [check for check in found.regrets if check.outside is None]
    traps, claims = [c for c in inside if c.trap], [c for c in found.claims if c.holds is not None and not c.outside]
    caught = sum(len(names) for c in traps for names in c.caught.values())
    pairs = sum(len(c.caught) * len(c.bounds) for c in traps)
    bounds = [(c, name) for c in inside for name in c.bounds]
    return "\n".join(
        [
            f"- {sum(bool(c.holds) for c in claims)} of {len(claims)} inequalities and closed forms hold.",
            f"- {sum(c.holds[name] for c, name in bounds)} of {len(bounds)} regret bounds hold, of which "
            f"{sum(name in c.tested for c, name in bounds)} on streams where one of the mistakes breaks them.",
            f"- On the trap, {caught} of {pairs} pairs of a mistake and a bound end as they must: the mistake breaks "
            "the bound in every seed.",
            f"- No bound is tight: FTML's regret is at most {_share(inside, 'gradients')} of its bound from the "
            f"gradients and at most {_share(inside, 'paper')} of the paper's. That it stays below the paper's on the "
            "other streams says little; that joint training does not stay below it in the trap says more.",
        ]
    )


def _share(checks: list[RegretCheck], bound: str) -> str:
    """The largest part of a bound that FTML's regret is on any stream."""
    parts = [check.regret / check.bounds[bound] for check in checks if check.learner == "FTML"]
    return f"{100 * max(parts, default=math.nan):.2g} %"


def _regrets(checks: list[RegretCheck]) -> str:
    """One line a check: the regret, its bounds, and what each mistake pays and breaks."""
    names = ("gradients", "constants", "paper")
    heads = ["stream", "learner", "regret", *names, "holds", *MISTAKES]
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "--:|" * (1 + len(names)) + "---|" * (1 + len(MISTAKES))]
    for check in checks:
        cells = [check.stream, check.learner, _number(check.regret)]
        for name in names:
            bound = _number(check.bounds[name]) if name in check.bounds else "-"
            cells.append(bound if name in check.tested or name not in check.bounds else f"({bound})")
        broken = [name for name, holds in check.holds.items() if not holds]
        cells.append("outside" if check.outside else f"NO: {', '.join(broken)}" if broken else "yes")
        for mistake in MISTAKES:
            if mistake not in check.caught:
                cells.append("no mistake here")
                continue
            caught = check.caught[mistake]
            breaks = "all" if len(caught) == len(check.bounds) else ", ".join(caught) or "none"
            cells.append(f"{_number(check.pays[mistake])}: {breaks}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


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


def _json(found: Findings, options: TheoryOptions, command: str, seconds: float) -> dict[str, Any]:
    return {
        "command": command,
        "seconds": round(seconds, 1),
        "settings": described(replace(options, out=None)),
        "claims": [_finite({**vars(claim)}) for claim in found.claims],
        "checks": [{**vars(check)} for check in found.regrets],
        "regret": [
            {
                "stream": label,
                "learner": name,
                "seed": seed,
                "bounds": {key: _finite(bound.tolist()) for key, bound in curve.bounds.items()},
            }
            | {key: getattr(curve, key).tolist() for key in ("rounds", "regret", "gap")}
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
