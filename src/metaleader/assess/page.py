"""An assessment as a page that begins with the answer, and as a table at the terminal."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table as TerminalTable

from metaleader.assess.answer import Answer, Comparison, in_words
from metaleader.assess.contest import Contest
from metaleader.assess.figures import all_figures, by_task, error_name, size_names
from metaleader.assess.keeping import Kept
from metaleader.assess.keeping import in_words as kept_in_words
from metaleader.files import write_json, write_text
from metaleader.results import report
from metaleader.results.formats import significant

EXTREMES = 5  # tasks named at either end


def write(
    found: Contest, answer: Answer, described: str, made: dict[str, str], out: Path, kept: Kept | None = None
) -> Path:
    """Write `report.html`, which needs no other file, `report.md`, `figures/*` and `assess.json`; returns the first.

    Args:
        found: the errors.
        answer: what they say.
        described: the table, as it was understood.
        made: how this was made: command, versions, machine, seconds.
        out: the folder.
        kept: the learner that was left in a folder; None: none was.
    """
    words = in_words(found, answer)
    folder = report.figures_folder(out)
    pictures = {
        name: (report.save_figure(figure, folder / name), caption)
        for name, (figure, caption) in all_figures(found, answer).items()
    }
    headings, rows = error_rows(found, answer)
    costs = cost_rows(found)
    tasks = task_rows(found, answer)
    keeping = kept_words(found, answer, kept)
    title = f"Does learning across tasks pay? {found.setup.tasks.about}"
    note = _note(found, answer)
    html = [
        f"<h1>{escape(title)}</h1>",
        *(f'<p class="lead">{escape(text)}</p>' for text in words),
        "<h2>Errors</h2>",
        f'<div class="scroll">{report.text_table(headings, rows)}</div><p class="words">{escape(note)}</p>',
        "<h2>Figures</h2>",
        *(report.figure_html(name, png, caption) for name, (png, caption) in pictures.items()),
        "<h2>Where the gain comes from</h2>",
        f'<div class="scroll">{report.text_table(*tasks)}</div>',
        "<h2>What it costs</h2>",
        f'<div class="scroll">{report.text_table(*costs)}</div>',
        "<h2>The learner to keep</h2>",
        *(f"<p>{escape(each)}</p>" for each in keeping),
        *([f"<pre>{escape(kept.code)}</pre>"] if kept else []),
        f"<h2>What was understood of the table</h2><pre>{escape(described)}</pre>",
        "<h2>How this was made</h2><dl>",
        *(f"<dt>{escape(name)}</dt><dd><code>{escape(value)}</code></dd>" for name, value in made.items()),
        "</dl>",
    ]
    text = [
        f"# {report.markdown(title)}\n",
        *(f"{report.markdown(each)}\n" for each in words),
        f"## Errors\n\n{report.markdown_table(headings, rows)}\n{report.markdown(note)}\n",
        *(f"![{name}](figures/{name}.png)\n\n{report.markdown(c)}\n" for name, (_, c) in pictures.items()),
        f"## Where the gain comes from\n\n{report.markdown_table(*tasks)}",
        f"## What it costs\n\n{report.markdown_table(*costs)}",
        "## The learner to keep\n",
        *(f"{report.markdown(each)}\n" for each in keeping),
        *([f"```python\n{kept.code}\n```\n"] if kept else []),
        f"## What was understood of the table\n\n```\n{described}\n```\n",
        "## How this was made\n",
        *(f"- {name}: `{value}`" for name, value in made.items()),
    ]
    write_json(out / "assess.json", as_json(found, answer, words, made, kept))
    page = out / "report.html"
    write_text(page, report.PAGE.substitute(title=escape(title), sections="\n".join(html)))
    write_text(page.with_suffix(".md"), "\n".join(text) + "\n")
    return page


def terminal_table(found: Contest, answer: Answer) -> TerminalTable:
    """Mean errors, for a terminal."""
    headings, rows = error_rows(found, answer)
    return report.rich_table(headings, rows, f"mean {error_name(found)} against rows of a task")


def error_rows(found: Contest, answer: Answer) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for each learner, the best first; `*` marks those not shown to be worse than the best."""
    means = found.errors.mean(axis=1)
    names = list(found.setup.candidates)
    with np.errstate(divide="ignore"):
        order = np.argsort(np.log(means).mean(axis=1), kind="stable")
    rows = []
    for i in order:
        failed = next((played.failed for played in found.played[names[i]] if played.failed), "")
        cells = [
            f"{significant(mean)}{'*' if names[i] in able else ''}" if np.isfinite(mean) else "-"
            for mean, able in zip(means[i].tolist(), answer.best_at, strict=True)
        ]
        title = found.setup.candidates[names[i]].title
        rows.append([f"{title} ({failed})" if failed else title, *cells])
    return ["learner", *size_names(found.setup.sizes)], rows


def cost_rows(found: Contest) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for each learner: seconds, gradients, memory and what the search chose."""
    rows = []
    for name, candidate in found.setup.candidates.items():
        played = found.played[name]
        many = len(played)
        settings = ", ".join(f"{key} {value}" for key, value in found.chosen[name].items())
        rows.append(
            [
                candidate.title,
                f"{sum(p.learning for p in played) / many:.1f}",
                f"{sum(p.predicting for p in played) / many:.1f}",
                report.readable(sum(p.gradients for p in played) // many) if played[0].gradients else "-",
                f"{max(p.state_bytes for p in played) / 1e6:.2g}" if all(p.state_bytes for p in played) else "-",
                str(found.trials[name]),
                f"{found.searching[name]:.1f}",
                settings or "its defaults",
            ]
        )
    headings = ["learner", "learning, s", "predicting, s", "gradients", "state, MB", "trials", "search, s", "chosen"]
    return headings, rows


def task_rows(found: Contest, answer: Answer) -> tuple[list[str], list[list[str]]]:
    """Headings, and the tasks that gain most and least."""
    values = sorted(by_task(found, answer), key=lambda each: -each[1])
    shown = values if len(values) <= 2 * EXTREMES else [*values[:EXTREMES], *values[-EXTREMES:]]
    headings = ["task", f"{error_name(found)} spared by {found.setup.candidates[answer.winner].title}"]
    return headings, [[name, significant(value, sign=True)] for name, value in shown]


def as_json(
    found: Contest, answer: Answer, words: Sequence[str], made: dict[str, str], kept: Kept | None = None
) -> dict[str, Any]:
    """All numbers, so that others can compute with them; `null` where a learner's errors were not finite."""
    return {
        "answer": list(words),
        "winner": answer.winner,
        "saved": answer.saved and {**dataclasses.asdict(answer.saved), "needed": _finite(answer.saved.needed)},
        "kept": kept and {"learner": kept.name, "folder": str(kept.folder), "datapoints": kept.datapoints},
        "tasks": found.setup.judged,
        "sizes": size_names(found.setup.sizes),
        "learners": {
            name: {
                "title": candidate.title,
                "settings": dict(found.chosen[name]),
                "errors": [[_finite(e) for e in row] for row in found.errors[i].tolist()],
                "failed": [played.failed for played in found.played[name] if played.failed],
                "seconds": round(sum(p.learning + p.predicting for p in found.played[name]), 3),
                "state_bytes": max(p.state_bytes for p in found.played[name]),
            }
            for i, (name, candidate) in enumerate(found.setup.candidates.items())
        },
        "comparisons": {
            kind: [_comparison(comparison) for comparison in getattr(answer, kind)] for kind in ("pays", "wins", "meta")
        },
        "made": made,
    }


def kept_words(found: Contest, answer: Answer, kept: Kept | None) -> list[str]:
    """What was kept, or how to keep it."""
    if kept is not None:
        folder = shlex.quote(str(kept.folder))
        return [*kept_in_words(kept, found, answer), f"`metaleader serve {folder}` serves it; from Python:"]
    title = found.setup.candidates[answer.winner].title
    return [
        f"With --keep DIR, the same command leaves {title}, with the settings found, in a folder in which it lives."
    ]


def _comparison(comparison: Comparison) -> dict[str, Any]:
    told = dataclasses.asdict(comparison)
    return {**told, "ratio": {name: _finite(value) for name, value in told["ratio"].items()}}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _note(found: Contest, answer: Answer) -> str:
    given = found.setup
    judged = "held-out rows" if given.tasks.held_out is not None else "the rows that came next"
    orders = f"{given.seeds} orders of the tasks" if given.seeds > 1 else "one order of the tasks"
    return (
        f"Mean over {answer.tasks} tasks of each task's {error_name(found)} on {judged}, {orders}. * not shown to be "
        "worse than the best at that size (95 %, all learners and sizes at once). Settings of every learner were "
        f"chosen among up to {given.trials} on the first {given.tasks.first} tasks, which are not judged here. Tasks "
        "with fewer rows than the largest size are learned from, and not judged."
    )
