"""What a run compiles, with an empty cache and with a filled one: `python -m benchmarks.compiling`."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from benchmarks.events import STAGES, compiling
from benchmarks.outcome import Bar, Outcome, Panel, PartOptions, Table, in_own_process, main
from metaleader import begin, devices, resume
from metaleader.experiments import find

TITLE = "Compiling a whole run"
BOUNDS = {"cold": 15.0, "warm": 3.0}


@dataclass(frozen=True)
class Options(PartOptions):
    """Play the first rounds of a Rainbow MNIST run, in which all its programs occur, cold and then warm."""

    learners: tuple[str, ...] = ("ftml", "ftl")
    """Which learners; the bars are those of the first."""
    rounds: int = 2
    """Rounds to play: what a run compiles, it compiles in the first two."""
    cache: Path = Path("runs/compiled")
    """Folder of compiled programs, for `--only`."""


def measure(options: Options) -> Outcome:
    """A row for every learner and cache."""
    console = Console(stderr=True)
    found: dict[tuple[str, str], dict[str, float]] = {}
    for learner in options.learners:
        with tempfile.TemporaryDirectory() as cache:
            for temperature in BOUNDS:
                with console.status(f"{learner}, {temperature}"):
                    arguments = ["--only", learner, "--cache", cache, "--rounds", str(options.rounds)]
                    found[learner, temperature] = in_own_process("compiling", *arguments, *["--quick"] * options.quick)
    rows = tuple(
        (
            learner,
            temperature,
            *(f"{spent[what]:.1f}" for what in ("total", *STAGES.values())),
            f"{spent['programs']:.0f}",
        )
        for (learner, temperature), spent in found.items()
    )
    note = (
        f"Rainbow MNIST, preset laptop, the first {options.rounds} rounds, in which all programs of a run occur; each "
        "row a process of its own. Total: wall time in which JAX traced, lowered, compiled or loaded programs; tracing "
        "and compiling overlap little. Programs: all that were compiled or loaded, small ones too."
    )
    columns = ("learner", "cache", *(f"{what}, s" for what in ("total", *STAGES.values())), "programs")
    first = options.learners[0]
    bars = tuple(
        Bar(f"{temperature} compile of a whole run ({first})", found[first, temperature]["total"], limit, unit=" s")
        for temperature, limit in BOUNDS.items()
    )
    names = [f"{learner}, {temperature}" for learner, temperature in found]
    panel = Panel(TITLE, "time (s)", "", {"": (names, [spent["total"] for spent in found.values()])}, False)
    return Outcome(TITLE, (Table(TITLE, columns, rows, note),), bars, (panel,))


def _one(name: str, cache: Path, rounds: int, quick: bool) -> dict[str, float]:
    """Play in this process, and give the seconds by stage."""
    devices.start()
    jax.config.update("jax_compilation_cache_dir", str(cache))
    experiment = find("rainbow-mnist")
    preset: Any = experiment.preset("smoke" if quick else "laptop")
    problem, stream, learner = experiment.problem(preset), preset.stream.stream(0), preset.learners[name]
    with compiling() as seen:
        state = begin(problem, learner, stream[0])
        for _ in resume(problem, itertools.islice(stream, rounds), learner, preset.protocol, state):
            pass
    programs = sum(stage == "compiling" for stage, *_ in seen.intervals)
    stages = {stage: seen.seconds(stage=stage) for stage in STAGES.values()}
    return {"total": seen.seconds(), **stages, "programs": float(programs)}


if __name__ == "__main__":
    main(Options, measure, lambda options: _one(options.only, options.cache, options.rounds, options.quick))
