"""How good are FTML's own settings on real tables? `python -m benchmarks.defaults`.

Each setting that `metaleader assess` would try plays the whole stream, and is judged on the tasks that come after the
first ones, as the page judges the winner of the search: by the geometric mean over sizes of mean errors. Large tables
are cut to some tasks. What is found is written beside the answers of `benchmarks.real_tables`, whose page shows it.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.real_tables import write
from benchmarks.table_sources import TABLES, Source
from metaleader import assess
from metaleader.assess.contest import Job, Played, perform, settings_to_try
from metaleader.files import write_json
from metaleader.runs.workers import LocalWorkers
from metaleader.streams import from_table

# Tables that the defaults are chosen on, so that `TABLES` can judge them.
OTHERS: Mapping[str, Source] = {
    "Cigar": Source("plm", "state", "sales", "sales of cigarettes by state and year", "year", {"year": "numeric"}),
    "Contraception": Source(
        "mlmRev", "district", "use", "use of contraception by district", None, {"woman": "left out"}
    ),
    "Gcsemv": Source("mlmRev", "school", "course", "scores of pupils by school", None, {"student": "left out"}),
    "guImmun": Source(
        "mlmRev", "comm", "immun", "immunisation by community", None, {"kid": "left out", "mom": "left out"}
    ),
    "Males": Source("plm", "nr", "wage", "wages of men by year", "year", {"year": "numeric"}),
    "Produc": Source("plm", "state", "gsp", "products of states by year", "year", {"year": "numeric"}),
    "ScotsSec": Source("mlmRev", "second", "attain", "attainment of pupils by school", None, {}, "regression"),
    "Soybean": Source("nlme", "Plot", "weight", "weights of leaves by day", "Time", {"Time": "numeric"}),
}


@dataclass(frozen=True)
class Defaults:
    """Play every setting that a search would try on whole tables."""

    tables: tyro.conf.Positional[tuple[str, ...]] = tuple(TABLES)
    """Which tables."""
    trials: int = 8
    """Settings of each learner, its defaults first."""
    learners: tuple[str, ...] = ("ftml-linear",)
    """Of which learners; the linear one is FTML as a table should meet it first: a convex problem of few numbers."""
    tasks: int = 50
    """Tasks of a table, at most."""
    workers: int = 2
    """Processes, of one core each."""
    out: Path = Path("docs/tables")
    """The folder of the pages."""


def measure(name: str, source: Source, options: Defaults) -> dict[str, Any]:
    """The errors of every setting, as the file has them."""
    frame = source.frame(name)
    there = list(dict.fromkeys(frame[source.group].dropna()))
    some = np.random.default_rng(0).permutation(len(there))[: options.tasks]
    frame = frame[frame[source.group].isin([there[i] for i in np.sort(some)])]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # `assess` says them on the page
        table = from_table(
            frame, group=source.group, target=source.target, order=source.order, columns=source.columns,
            kind=source.kind,
        )  # fmt: skip
        given = assess.setup(assess.store(table, Path(folder)), trials=options.trials, seeds=1)
        jobs = {
            learner: [Job(given, learner, settings, 0, False) for settings in settings_to_try(candidate, given.trials)]
            for learner, candidate in given.candidates.items()
            if learner in options.learners
        }
        pool: LocalWorkers[Job, Played] = LocalWorkers(options.workers, 1, perform)
        try:
            played = performed(pool, [job for each in jobs.values() for job in each])
        finally:
            pool.close()
    found = iter([score(each, given) for each in played])
    return {
        "tasks": len(given.judged),
        "learners": {
            learner: [{"settings": dict(job.settings), "error": next(found)} for job in each]
            for learner, each in jobs.items()
        },
    }


def performed(pool: LocalWorkers[Job, Played], jobs: list[Job]) -> list[Played]:
    """What every job found."""
    waiting: list[Future[Played]] = []
    for job in jobs:
        while sum(not future.done() for future in waiting) >= pool.slots:
            time.sleep(0.05)
        waiting.append(pool.submit(job))
    return [future.result() for future in waiting]


def score(played: Played, given: assess.Setup) -> float | None:
    """The geometric mean over sizes of mean errors over the tasks that are judged; None where it is not finite."""
    errors = np.array([played.errors.get(task, (math.inf,) * len(given.sizes)) for task in given.judged])
    value = float(np.exp(np.log(np.maximum(errors.mean(axis=0), 1e-12)).mean()))
    return value if math.isfinite(value) and not played.failed else None


def main(options: Defaults) -> int:
    """Measure, table after table, and write the page anew."""
    for name in options.tables:
        began = time.monotonic()
        source = {**TABLES, **OTHERS}[name]
        found = measure(name, source, options)
        (options.out / name).mkdir(parents=True, exist_ok=True)
        write_json(options.out / name / "defaults.json", found)
        if name in TABLES:
            write(options.out)
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Defaults, config=(tyro.conf.FlagCreatePairsOff,))))
