"""The page of verdicts on the paper's claims, from the folder in which `metaleader reproduce` ran, finished or not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from metaleader.errors import UserError
from metaleader.files import write_json, write_text
from metaleader.results import metrics, overtaking, provenance, report, words
from metaleader.results.claims import CLAIMS, claimed
from metaleader.results.metrics import Run
from metaleader.results.verdicts import Verdict, judge

NOTES = "notes.md"
TITLE = "Online meta-learning: the paper's claims"
LOOKED = "What was looked into"


@dataclass(frozen=True)
class Section:
    """One experiment in one setting.

    Attributes:
        runs: all of them.
        verdicts: on what the paper claims of the experiment.
        page: its report, without ending, from the page of verdicts.
        figure: its figure of paired advantages, if it has one.
        notes: what was looked into; the first section of an experiment has them.
    """

    runs: Sequence[Run]
    verdicts: Sequence[Verdict]
    page: str
    figure: str | None
    notes: str

    @property
    def title(self) -> str:
        """What it is called, and how it differs from the paper."""
        return provenance.title(self.runs[0])

    @property
    def seeds(self) -> int:
        """How many seeds its verdicts rest on, at most."""
        return max((len(v.seeds) for v in self.verdicts), default=0)


def conclude(out: Path) -> tuple[Path, list[tuple[str, list[Verdict]]]]:
    """Report on every experiment in `out`, finished or not, and judge the claims; nothing is run.

    Writes a report into each experiment's folder, and `verdicts.json`, `index.html` and `verdicts.md` into `out`; both
    pages lead to the reports. What a person has found out is shown from `notes.md` of that folder, in paragraphs:
    those below a heading such as `## rainbow-mnist` with that experiment, others at the end.

    Returns:
        The page in HTML, and the verdicts of every section by its name.

    Raises:
        UserError: the folder does not exist, or holds no run of an experiment about which the paper claims something.
    """
    folders = [out / name for name in claimed() if any((out / name).rglob("config.json"))]
    if not folders:
        raise UserError(f"{out} holds no run of an experiment of the paper: name a folder of `metaleader reproduce`")
    notes = _notes((out / NOTES).read_text() if (out / NOTES).exists() else "")
    sections = [section for folder in folders for section in _sections(folder, notes)]
    believed = _believed(sections)
    write_json(
        out / "verdicts.json",
        {
            "believe": believed,
            "sections": [
                {
                    "title": section.title,
                    "experiment": section.runs[0].about.experiment,
                    "preset": section.runs[0].about.preset,
                    "setting": section.runs[0].setting[0],
                    "claims": words.as_json(section.verdicts),
                    "ftml_overtakes": overtaking.rounds(section.runs),
                    "runs": provenance.as_json(section.runs, out),
                }
                for section in sections
            ],
        },
    )
    write_text(out / "verdicts.md", _markdown(sections, believed, notes[""], out))
    page = out / "index.html"
    write_text(page, report.PAGE.substitute(title=TITLE, sections=_html(sections, believed, notes[""], out)))
    return page, [(section.runs[0].section, list(section.verdicts)) for section in sections]


def _sections(folder: Path, notes: dict[str, str]) -> list[Section]:
    page, _ = report.write_report([folder], folder)
    sections = report.sectioned(metrics.load([folder]))
    found: list[Section] = []
    for name, runs in sections.items():
        claims = [claim for claim in CLAIMS if claim.experiment == folder.name]
        figure = f"{folder.name}/figures/{report.prefix_of(name, sections)}overtaking.png"
        found.append(
            Section(
                runs,
                judge(claims, runs),
                f"{folder.name}/{page.stem}",
                figure if (folder.parent / figure).exists() and overtaking.rivals(runs) else None,
                "" if found else notes.get(folder.name, ""),
            )
        )
    return found


def _notes(text: str) -> dict[str, str]:
    """The notes by experiment; those of none of them under the empty name, with their headings."""
    found, name = {"": ""}, ""
    for line in text.splitlines(keepends=True):
        heading = re.match(r"## *(\S+)\s*$", line)
        if heading and heading[1] in claimed():
            name = heading[1]
            continue
        if re.match(r"##? ", line):
            name = ""
        found[name] = found.get(name, "") + line
    return {name: noted.strip() for name, noted in found.items()}


def _believed(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """What a reader may believe: for every section where it holds, and sentences that follow from its verdicts."""
    believed = []
    for section in sections:
        first, many = section.runs[0], section.seeds
        cores = first.about.machine.get("cores")
        where = f"{many} seed{'s' * (many != 1)}, {f'{cores} cores, ' if cores else ''}{first.about.preset} preset"
        said = words.believed(section.verdicts) or ["Nothing is judged yet: no seed has ended runs of both learners."]
        unfinished = sum(not run.ended for run in section.runs)
        if unfinished:
            said.append(f"{unfinished} of {len(section.runs)} runs have not ended and are left out.")
        believed.append({"of": section.title, "where": where, "sentences": said})
    return believed


def _open(section: Section) -> bool:
    """Whether a claim is not shown, so that a reader wants to know what was looked into."""
    return any(reading.answer != "holds" for verdict in section.verdicts for reading in verdict.readings.values())


def _looked(section: Section) -> str:
    setting = bool(section.runs[0].setting[0])
    return section.notes or ("Nothing is noted of the claims that are not shown." * (_open(section) and not setting))


def _markdown(sections: Sequence[Section], believed: Sequence[dict[str, Any]], general: str, out: Path) -> str:
    parts = [f"# {TITLE}", "## What a reader may believe"]
    for each in believed:
        listed = "\n".join(f"- {sentence}" for sentence in each["sentences"])
        parts.append(f"**{each['of']}** ({each['where']})\n\n{listed}")
    parts += ["## How to read the verdicts", words.NOTE]
    for section in sections:
        parts += [f"## {section.title}", report.markdown_table(words.HEADINGS, words.rows(section.verdicts)).rstrip()]
        if rows := overtaking.rows(section.runs):
            parts.append(report.markdown_table(overtaking.headings(section.runs), rows).rstrip())
            parts.append(overtaking.NOTE)
        if section.figure:
            parts.append(f"![Paired advantage of FTML against round]({section.figure})")
        if looked := _looked(section):
            parts += [f"### {LOOKED}", looked]
        parts.append(f"[All tables and figures of {section.runs[0].section}]({section.page}.md)")
    if general:
        parts += ["## Notes", general]
    parts.append("## How this was made")
    for section in sections:
        made = "\n".join(f"{name}: {text}" for name, text in provenance.made(section.runs).items())
        parts.append(f"{section.runs[0].section}\n\n```\n{made}\n```")
    checksums = [row for section in sections for row in provenance.rows(section.runs, out)]
    parts += ["## Runs and the checksums of their records", report.markdown_table(provenance.HEADINGS, checksums)]
    return "\n\n".join(parts)


def _html(sections: Sequence[Section], believed: Sequence[dict[str, Any]], general: str, out: Path) -> str:
    parts = [f"<h1>{TITLE}</h1><h2>What a reader may believe</h2>"]
    for each in believed:
        listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in each["sentences"])
        parts.append(f"<p><strong>{escape(each['of'])}</strong> ({escape(each['where'])})</p><ul>{listed}</ul>")
    parts.append(f'<h2>How to read the verdicts</h2><p class="words">{escape(words.NOTE)}</p>')
    for section in sections:
        table = report.text_table(words.HEADINGS, words.rows(section.verdicts))
        parts.append(f'<h2>{escape(section.title)}</h2><div class="scroll verdicts">{table}</div>')
        parts.append(report.overtaken_html(section.runs))
        if section.figure:
            caption = "Paired advantage of FTML over each other learner against round; the report says more."
            parts.append(
                f'<figure><img alt="{caption}" src="{section.figure}"><figcaption>{caption}</figcaption></figure>'
            )
        if looked := _looked(section):
            parts.append(f"<h3>{LOOKED}</h3>{_paragraphs(looked)}")
        name = escape(section.runs[0].section)
        parts.append(f'<p><a href="{section.page}.html">All tables and figures of {name}</a></p>')
    if general:
        parts.append(f"<h2>Notes</h2>{_paragraphs(general)}")
    parts.append("<h2>How this was made</h2>")
    for section in sections:
        name, made = escape(section.runs[0].section), report.made_html(section.runs)
        parts.append(f"<details><summary>{name}</summary><dl>{made}</dl></details>")
    checksums = [row for section in sections for row in provenance.rows(section.runs, out)]
    table = report.text_table(provenance.HEADINGS, checksums)
    parts.append(
        f"<details><summary>Runs and the checksums of their records</summary>"
        f'<div class="scroll">{table}</div></details>'
    )
    return "\n".join(parts)


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{escape(paragraph.strip())}</p>" for paragraph in re.split(r"\n\s*\n", text))
