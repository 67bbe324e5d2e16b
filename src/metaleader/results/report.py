"""From numbers to a table, figures and a page that anyone can open."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Literal

from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from metaleader.errors import UserError, printable
from metaleader.files import write_json, write_text, write_whole
from metaleader.results import figures, illustrations, metrics, overtaking, provenance
from metaleader.results.figures import style
from metaleader.results.formats import significant, with_interval
from metaleader.results.looks import FORMATS, Look
from metaleader.results.metrics import Run

OWN = Look()
PAGE, SECTION = (Template(Path(__file__).with_name(f"{name}.html").read_text()) for name in ("report", "section"))


def write_report(
    paths: Sequence[Path], out: Path, look: Look = OWN, formats: Iterable[str] = FORMATS[:2]
) -> tuple[Path, list[dict[str, Any]]]:
    """Write `summary.json`, `figures/*.png`, `figures/*.svg`, `report.html` and `report.md` into `out`.

    Runs of several experiments have a section each; `summary.json` then holds the list of their summaries. The page in
    Markdown is for a repository: it shows the figures in `figures`.

    Args:
        paths: folders of runs, or folders that hold some.
        out: the folder.
        look: of the figures.
        formats: of their files, beside PNG: see `looks.FORMATS`.

    Returns:
        The page in HTML, which needs no other file, and the summary of every section.

    Raises:
        UserError: see `metrics.load`.
    """
    return write(metrics.load(paths), out, look, formats)


def write(
    runs: Sequence[Run], out: Path, look: Look = OWN, formats: Iterable[str] = FORMATS[:2]
) -> tuple[Path, list[dict[str, Any]]]:
    """The same of runs at hand."""
    sections = sectioned(runs)
    summaries = [metrics.summary(each) for each in sections.values()]
    folder = figures_folder(out)
    write_json(out / "summary.json", summaries[0] if len(summaries) == 1 else summaries)
    bodies, texts = [], []
    for (name, each), summary in zip(sections.items(), summaries, strict=True):
        prefix = prefix_of(name, sections)
        shown = []
        for figure_name, (figure, caption) in pictures(each, summary).items():
            png = save_figure(look.of(figure), folder / f"{prefix}{figure_name}", formats)
            shown.append((f"{prefix}{figure_name}", png, caption))
        bodies.append(_section(each, summary, shown, out))
        texts.append(_markdown(each, summary, shown, out))
    page = out / "report.html"
    title = escape(", ".join(sections))
    write_text(page, PAGE.substitute(title=title, sections="\n".join(bodies)))
    write_text(page.with_suffix(".md"), "\n".join(texts))
    return page, summaries


def figures_folder(out: Path, *below: str) -> Path:
    """The folder for figures in `out`, made if it is not there.

    Raises:
        UserError: it is a link, which may lead anywhere.
        OSError: it cannot be made.
    """
    folder = out
    for name in ("figures", *below):
        folder = folder / name
        if folder.is_symlink():
            raise UserError(f"{folder} is a link, and figures would be written where it leads: remove it")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def pictures(runs: Sequence[Run], summary: dict[str, Any]) -> dict[str, tuple[Figure, str]]:
    """The figures of the runs of one experiment, each with its caption, by name."""
    drawn = _drawn(runs, summary)
    return {**_illustration(drawn), **figures.all_figures(drawn), **_overtaking(drawn)} if drawn else {}


def sectioned(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs by `Run.section`, of every experiment the preset as it is first; learners in the paper's order."""
    experiments = list(dict.fromkeys(run.about.experiment for run in runs))

    learners = list(dict.fromkeys(run.learner for run in runs))

    def order(run: Run) -> tuple[int, bool, int, int, int]:
        of, place = run.about, figures.place(run.learner)
        return experiments.index(of.experiment), bool(run.setting[0]), place, learners.index(run.learner), of.seed

    ordered = sorted(runs, key=order)
    return {name: [run for run in ordered if run.section == name] for name in dict.fromkeys(r.section for r in ordered)}


def prefix_of(section: str, sections: Iterable[str]) -> str:
    """What the names of a section's figures begin with: nothing for the first, in which nothing or all else is set."""
    first = next(iter(sections))
    alone = all(other.startswith(first) for other in sections)
    if alone and section == first:
        return ""
    prefix = re.sub(r"\W+", "-", f"{section}-")
    if [re.sub(r"\W+", "-", f"{other}-") for other in sections].count(prefix) == 1 and len(prefix.encode()) <= 100:
        return prefix
    return f"{prefix[:25]}-{hashlib.sha256(section.encode()).hexdigest()[:12]}-"


def _drawn(runs: Sequence[Run], summary: dict[str, Any]) -> dict[str, list[Run]]:
    """The runs that figures show: of each learner the setting whose final score is best, where a sweep had several."""
    sign = 1 if summary["score"]["higher_is_better"] else -1
    best: dict[str, tuple[float, str]] = {}
    for run in runs:
        final = summary["learners"][run.line]["final_score"][0]
        value = float("-inf") if final is None else sign * final
        if run.records and (run.learner not in best or value > best[run.learner][0]):
            best[run.learner] = value, run.line
    return {line: [run for run in runs if run.line == line and run.records] for _, line in best.values()}


def _in_figures(runs: Sequence[Run], summary: dict[str, Any]) -> list[Run]:
    return [run for each in _drawn(runs, summary).values() for run in each]


def _illustration(by_learner: figures.Runs) -> dict[str, tuple[Figure, str]]:
    """The picture of what was learned, if the experiment has one."""
    shown = {name: [run.illustration for run in each] for name, each in by_learner.items()}
    kept = {name: arrays for name, each in shown.items() if (arrays := [a for a in each if a is not None])}
    name = next((each[0].about.illustration for each in by_learner.values()), "")
    drawn = illustrations.draw(name, kept) if kept and name in illustrations.ILLUSTRATIONS else None
    return {"what-was-learned": drawn} if drawn else {}


def _overtaking(by_learner: figures.Runs) -> dict[str, tuple[Figure, str]]:
    drawn = overtaking.figure([run for each in by_learner.values() for run in each])
    return {"overtaking": drawn} if drawn else {}


def table_rows(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and a row for each learner, as text."""
    at = _columns(summary)
    others = list(dict.fromkeys(name for numbers in summary["learners"].values() for name in numbers["final_others"]))
    counted = {size: summary["tasks_at"][size] for size in at}
    few = {size: f" (n = {n})" if n < summary["tasks"] else "" for size, n in counted.items()}
    seeds = max(numbers["seeds"] for numbers in summary["learners"].values())
    to = f"to {summary['threshold']:g}"
    thresholds = next(iter(summary["learners"].values()))["datapoints_to_others"]
    # The column of the score itself has the unit, in brackets.
    also = [f"{name.partition(' (')[0]} to {efficiency['threshold']:g}" for name, efficiency in thresholds.items()]
    headings = ["learner", *(f"at {size}{few[size]}" for size in at), "final", *others, to, "reached", *also]
    rows = []
    for name, numbers in summary["learners"].items():
        efficiency = numbers["datapoints_to_proficiency"]
        fewer = f" ({numbers['seeds']} of {seeds} seeds)" if numbers["seeds"] < seeds else ""
        state = " (diverged)" if numbers["diverged"] else " (partial)" if numbers["partial"] else ""
        row = [style(name).short + state + fewer]
        row += [with_interval(numbers["score_at"].get(size, [None] * 3)) for size in at]
        row += [with_interval(numbers["final_score"])]
        row += [with_interval(numbers["final_others"].get(name, [None] * 3)) for name in others]
        row += [_between(efficiency["above"], efficiency["median"])]
        row += [_reached(efficiency)]
        row += [
            f"{_between(of['above'], of['median'])}, {_reached(of)}" for of in numbers["datapoints_to_others"].values()
        ]
        row += [readable(numbers["gradient_evaluations"]), minutes(numbers["seconds"])]
        rows.append(row)
    return [*headings, "gradients", "time"], rows


def terminal_table(summary: dict[str, Any]) -> Table:
    """The summary for a terminal of 100 columns."""
    return rich_table(*table_rows(summary), _title(summary), _note(summary), justify="right")


def rich_table(
    headings: Iterable[str],
    rows: Iterable[Iterable[str]],
    title: str = "",
    note: str = "",
    justify: Literal["left", "right"] = "left",
) -> Table:
    """A table for the terminal, of text as it is: rich would read square brackets in names as markup."""
    found = Table(box=None, pad_edge=False, title_justify="left", caption_justify="left")
    found.title = Text(printable(title), "table.title") if title else None
    found.caption = Text(printable(note), "table.caption") if note else None
    for i, heading in enumerate(headings):
        found.add_column(Text(printable(heading)), justify=justify if i else "left", overflow="fold")
    for row in rows:
        found.add_row(*(Text(printable(cell)) for cell in row))
    return found


def _markdown(
    runs: Sequence[Run], summary: dict[str, Any], pictures: Iterable[tuple[str, bytes, str]], out: Path
) -> str:
    return "\n\n".join(
        [
            f"# {markdown(provenance.title(runs[0]))}",
            markdown_table(*table_rows(summary)).rstrip(),
            markdown(_note(summary)),
            *(f"**{markdown(f'{name}: {failure}')}**" for name, failure in _failures(summary)),
            *(f"![{name}](figures/{name}.png)\n\n{markdown(caption)}" for name, _, caption in pictures),
            *_overtaken_markdown(_in_figures(runs, summary)),
            "## How this was made",
            *provenance.blocks(provenance.made(runs)),
            markdown_table(provenance.HEADINGS, provenance.rows(runs, out)),
        ]
    )


def _overtaken_markdown(runs: Sequence[Run]) -> list[str]:
    table = markdown_table(overtaking.headings(runs), overtaking.rows(runs)).rstrip()
    return [table, overtaking.NOTE] if overtaking.rivals(runs) else []


def _section(
    runs: Sequence[Run], summary: dict[str, Any], pictures: Iterable[tuple[str, bytes, str]], out: Path
) -> str:
    headings, rows = table_rows(summary)
    common = {key: value for key, value in runs[0].about.settings.items() if key != "learner"}
    learners = {run.line: run.about.settings["learner"] for run in runs}
    return SECTION.substitute(
        title=escape(provenance.title(runs[0])),
        note=escape(_note(summary)),
        table=text_table(headings, rows),
        overtaking=overtaken_html(_in_figures(runs, summary)),
        failures="".join(
            f"<p class=warning>{escape(name)}: {escape(failure)}</p>" for name, failure in _failures(summary)
        ),
        figures="".join(figure_html(*picture) for picture in pictures),
        made=made_html(runs),
        runs=text_table(provenance.HEADINGS, provenance.rows(runs, out)),
        common=_settings_table({"": common}),
        learners=_settings_table({style(name).name: settings for name, settings in learners.items()}),
    )


def figure_html(name: str, png: bytes, caption: str) -> str:
    """A figure that needs no other file."""
    return (
        f'<figure id="{name}"><img alt="{escape(caption)}" src="data:image/png;base64,{_base64(png)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _failures(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Each with the name of its learner."""
    return [
        (style(name).name, failure) for name, numbers in summary["learners"].items() for failure in numbers["failed"]
    ]


def overtaken_html(runs: Sequence[Run]) -> str:
    """When FTML overtakes each of the others, as a table; empty where there is nothing to compare."""
    if not overtaking.rivals(runs):
        return ""
    table = text_table(overtaking.headings(runs), overtaking.rows(runs))
    return f'<div class="scroll">{table}</div><p class="words">{escape(overtaking.NOTE)}</p>'


def made_html(runs: Sequence[Run]) -> str:
    """How the runs were made, as terms of a list."""
    made = provenance.made(runs)
    return "".join(f"<dt>{name}</dt><dd><pre>{escape(text)}</pre></dd>" for name, text in made.items())


def _title(summary: dict[str, Any]) -> str:
    return str(summary["title"])


def _note(summary: dict[str, Any]) -> str:
    score, several = summary["score"], any(numbers["seeds"] > 1 for numbers in summary["learners"].values())
    fewer = any(summary["tasks_at"][size] < summary["tasks"] for size in _columns(summary))
    also = any(numbers["datapoints_to_others"] for numbers in summary["learners"].values())
    side = "at least" if score["higher_is_better"] else "at most"
    return (
        f"Held-out {score['name']} over the last third of the rounds at so many datapoints of a task and at the end "
        f"of its round; datapoints to proficiency ({side} {summary['threshold']:g}) of the median task, more than the "
        "last size judged before it and at most the first judged at it, and tasks that reached it"
        + ("; for other scores likewise" if also else "")
        + ". Gradients are "
        "per-example gradient evaluations in learning and adapting, a Hessian-vector product counting as two; time is "
        f"that of a run on the clock{', the median of the seeds' if several else ''}, whatever else went on beside it."
        + (f" {score['note']}" if score["note"] else "")
        + (" In brackets: 95 % t intervals over seeds." if several else "")
        + (f" Columns with n count the n of {summary['tasks']} tasks that were judged there for all." if fewer else "")
        + (
            f" Final scores leave out {summary['tasks_without_end']} of {summary['tasks']} tasks, at whose end a "
            "learner was not judged or its score is undefined."
            if summary["tasks_without_end"]
            else ""
        )
        + (" Figures show each learner in the setting whose final score is best." if _settings(summary) else "")
    )


def _settings(summary: dict[str, Any]) -> bool:
    """Whether a learner has several lines."""
    learners = [figures.learner_and_setting(line)[0] for line in summary["learners"]]
    return len(set(learners)) < len(learners)


def _columns(summary: dict[str, Any]) -> list[str]:
    """The sizes that the experiment names, or three from few to many; the end of the round has its own column."""
    at = sorted({int(size) for numbers in summary["learners"].values() for size in numbers["score_at"]})
    named = [size for size in summary["report_sizes"] if size in at[:-1]]
    return [str(size) for size in named or figures.thinned(at[:-1], 3)]


def _between(above: float | None, most: float | None) -> str:
    """An interval of datapoints, open below; no upper end is infinity."""
    if above is None:
        return "-"
    return f"> {above:g}" if most is None else f"({above:g}, {most:g}]"


def _reached(efficiency: dict[str, Any]) -> str:
    return f"{efficiency['reached']} of {efficiency['tasks']}"


def readable(count: int) -> str:
    """A count in thousands, millions or billions, with three significant digits."""
    rounded = float(f"{count:.2e}")  # 999,999 is a million
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rounded >= size:
            return f"{significant(rounded / size)} {unit}"
    return str(count)


def minutes(seconds: float) -> str:
    """A time in seconds or minutes."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def html_table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def text_table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in HTML, of cells that are text."""
    return html_table(headings, [[escape(cell) for cell in row] for row in rows])


def markdown_table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of text."""
    lines = [[markdown(cell) for cell in line] for line in (headings, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex_table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    r"""A table of text for LaTeX with the package booktabs.

    >>> print(latex_table(["learner", "at 20"], [["FTML", "0.95 [0.94, 0.96]"], ["from_scratch", "-"]]), end="")
    \begin{tabular}{lr}
    \toprule
    learner & at 20 \\
    \midrule
    FTML & 0.95 [0.94, 0.96] \\
    from\_scratch & - \\
    \bottomrule
    \end{tabular}
    """
    head, *body = ([_latex(cell) for cell in line] for line in (headings, *rows))
    ends = "\\\\\n"
    lines = ["".join([" & ".join(line), " ", ends]) for line in (head, *body)]
    columns = f"l{'r' * (len(head) - 1)}"
    return "".join(
        [f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n", lines[0], "\\midrule\n", *lines[1:], "\\bottomrule\n",
         "\\end{tabular}\n"]
    )  # fmt: skip


def _latex(text: str) -> str:
    signs = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
    signs |= {sign: f"\\{sign}" for sign in "&%$#_{}"}
    return "".join(signs.get(sign, sign) for sign in printable(text).replace("\n", " "))


def markdown(text: str) -> str:
    """Text on one line of Markdown, in which names make no tags, links, cells or control characters."""
    return re.sub(r"(?<!\\)([|<]|(?<=\])\()", r"\\\1", printable(text).replace("\n", " "))


def _settings_table(settings: dict[str, Any]) -> str:
    """A row for every setting, a column for every learner."""
    rows = provenance.settings_rows(settings)
    return html_table(["setting", *settings], [[f"<code>{escape(r[0])}</code>", *map(escape, r[1:])] for r in rows])


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def save_figure(figure: Figure, path: Path, formats: Iterable[str] = FORMATS[:2]) -> bytes:
    """Write a figure as `path` with `.png` and the other formats, each whole or not at all; returns the PNG."""
    png = io.BytesIO()
    with figures.drawing():
        figure.savefig(png, format="png", dpi=150)
        figure.set_layout_engine("none")  # the layout serves all; finding it takes half of the time of drawing
        for name in sorted({*formats} - {"png"}):
            undated = {"CreationDate" if name == "pdf" else "Date": None}  # the same figure is the same file
            save = partial(figure.savefig, format=name, metadata=undated)
            write_whole(path.with_name(f"{path.name}.{name}"), save)
    write_whole(path.with_name(f"{path.name}.png"), lambda file: file.write(png.getvalue()))
    return png.getvalue()
