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

    Writes a report into each experiment's folder, and `verdicts.json`, `index.html` and `verdicts.md` into `out`; both
    pages lead to the reports. What a person has found out about a verdict, in paragraphs in `notes.md` of that folder,
    is shown below the verdicts.

    Raises:
        UserError: see `metrics.load`.
    """
    folders = [out / name for name in experiments() if any((out / name).rglob("config.json"))]
    runs = metrics.load(folders or [out])
    pages = {folder.name: report.write_report([folder], folder)[0] for folder in folders}
    judged = [verdict for claim in CLAIMS if (verdict := verdicts.judge(claim, runs)) is not None]
    write_json(out / "verdicts.json", verdicts.as_json(judged))
    rows = verdicts.rows(judged)
    made = "\n".join(dict.fromkeys(str(run.config["command"]) for run in runs))
    machine = json.dumps(runs[0].config["machine"])
    table = report.markdown_table(verdicts.HEADINGS, rows)
    listed = "".join(f"- [{EXPERIMENTS[n].summary}]({n}/{page.stem}.md)\n" for n, page in pages.items())
    notes = (out / NOTES).read_text().strip() if (out / NOTES).exists() else "Nothing is noted."
    how = f"## How this was made\n\n```\n{made}\n```\n\nMachine: `{machine}`"
    text = f"# {TITLE}\n\n{NOTE}\n\n{table}\n## Looked into\n\n{notes}\n\n## The experiments\n\n{listed}\n{how}\n"
    write_text(out / "verdicts.md", text)
    links = "".join(
        f'<li><a href="{n}/{page.name}">{escape(EXPERIMENTS[n].summary)}</a></li>' for n, page in pages.items()
    )
    explained = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in notes.split("\n\n"))
    body = (
        f"<h1>{TITLE}</h1>"
        f'<p class="lead">{escape(NOTE)}</p>'
        f'<div class="scroll">{report.html_table(verdicts.HEADINGS, [[escape(c) for c in row] for row in rows])}</div>'
        f"<h2>Looked into</h2>{explained}"
        f"<h2>The experiments</h2><ul>{links}</ul>"
        f"<h2>How this was made</h2><dl><dt>commands</dt><dd><pre>{escape(made)}</pre></dd>"
        f"<dt>machine</dt><dd><pre>{escape(machine)}</pre></dd></dl>"
    )
    page = out / "index.html"
    write_text(page, report.PAGE.substitute(title="The paper's claims", sections=body))
    return page, judged


NOTES = "notes.md"
TITLE = "Online meta-learning: the paper's claims"
NOTE = (
    "Each claim of the paper as a paired difference over seeds (task order, split and weights), with its 95 % "
    "bootstrap interval: datapoints saved, or score gained, by the learner said to be better, over the last third of "
    "the rounds. A task that never became proficient counts with all datapoints of its round. At equal compute, the "
    "learner that took more gradients is judged at the rounds it had completed with the other's number. Gradients: "
    "per-example gradient evaluations of the two learners, a Hessian-vector product counting as two."
)
