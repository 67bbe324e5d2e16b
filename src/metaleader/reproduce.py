"""Every experiment of the paper in one go, ending in a page of verdicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from metaleader import metrics, report, verdicts
from metaleader.experiments import EXPERIMENTS
from metaleader.files import write_text
from metaleader.record import write_json
from metaleader.run import Plan
from metaleader.verdicts import CLAIMS, Verdict


def experiments() -> list[str]:
    """The experiments about which the paper claims something, in its order."""
    return list(dict.fromkeys(claim.experiment for claim in CLAIMS if claim.experiment in EXPERIMENTS))


def plans(
    names: Sequence[str], preset_name: str, seeds: int, out: Path, data_dir: Path | None, command: str
) -> list[Plan]:
    """A plan for each experiment, with the learners that it compares.

    Raises:
        UserError: an experiment has no preset of that name.
    """
    return [
        Plan(
            EXPERIMENTS[name],
            preset_name,
            EXPERIMENTS[name].preset(preset_name),
            EXPERIMENTS[name].compared,
            tuple(range(seeds)),
            out / name,
            data_dir,
            command,
        )
        for name in names
    ]


def conclude(out: Path) -> tuple[Path, list[Verdict]]:
    """Report on every experiment in `out`, finished or not, and judge the claims.

    Writes a report into each experiment's folder, and `verdicts.json`, `index.html` and `README.md` into `out`; the
    last has all tables and figures, for a repository.

    Raises:
        UserError: see `metrics.load`.
    """
    folders = [out / name for name in experiments() if any((out / name).rglob("config.json"))]
    runs = metrics.load(folders or [out])
    links, sections = [], []
    for folder in folders:
        page, summaries = report.write_report([folder], folder)
        links.append(f'<li><a href="{folder.name}/{page.name}">{escape(EXPERIMENTS[folder.name].summary)}</a></li>')
        figures = sorted(path.relative_to(out) for path in (folder / "figures").glob("*.png"))
        sections += [report.markdown_section(summary, figures) for summary in summaries]
    judged = [verdict for claim in CLAIMS if (verdict := verdicts.judge(claim, runs)) is not None]
    write_json(out / "verdicts.json", verdicts.as_json(judged))
    rows = verdicts.rows(judged)
    made = "\n".join(dict.fromkeys(str(run.config["command"]) for run in runs))
    machine = json.dumps(runs[0].config["machine"])
    table = report.markdown_table(verdicts.HEADINGS, rows)
    how = f"## How this was made\n\n```\n{made}\n```\n\nMachine: `{machine}`\n"
    write_text(out / "README.md", "\n\n".join([f"# {TITLE}", NOTE, table.rstrip(), *sections, how]))
    body = (
        f"<h1>{TITLE}</h1>"
        f'<p class="lead">{escape(NOTE)}</p>'
        f'<div class="scroll">{report.html_table(verdicts.HEADINGS, [[escape(c) for c in row] for row in rows])}</div>'
        f"<h2>The experiments</h2><ul>{''.join(links)}</ul>"
        f"<h2>How this was made</h2><dl><dt>commands</dt><dd><pre>{escape(made)}</pre></dd>"
        f"<dt>machine</dt><dd><pre>{escape(machine)}</pre></dd></dl>"
    )
    page = out / "index.html"
    write_text(page, report.PAGE.substitute(title="The paper's claims", sections=body))
    return page, judged


TITLE = "Online meta-learning: the paper's claims"
NOTE = (
    "Each claim of the paper as a paired difference over seeds (task order, split and weights), with its 95 % "
    "bootstrap interval: datapoints saved, or score gained, by the learner said to be better, over the last third of "
    "the rounds. A task that never became proficient counts with all datapoints of its round. At equal compute, the "
    "learner that took more gradients is judged at the rounds it had completed with the other's number. Gradients: "
    "per-example gradient evaluations of the two learners, a Hessian-vector product counting as two."
)
