"""What the comparisons here share: reduced sizes, runs that go on where they stopped, and a page with its table."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import matplotlib
import platformdirs
from matplotlib.figure import Figure

from metaleader import Experiment, Learner, Preset, UserError, devices, figures, metrics, report
from metaleader.metrics import Run
from metaleader.progress import live
from metaleader.run import Plan, run


@dataclass(frozen=True)
class Options:
    """How large a comparison is."""

    out: Path
    """Folder for the runs."""
    page: Path
    """The page to write."""
    preset: str = "laptop"
    """Preset of the experiment."""
    seeds: int = 1
    """Number of seeds."""
    rounds: int | None = None
    """Rounds, to try things; None: all."""
    examples: int | None = None
    """Datapoints a task, to try things; None: all."""
    data_dir: Path | None = None
    """Folder with data sets, searched first."""


def settings_of(experiment: Experiment, options: Options) -> Preset:
    """The preset, reduced as the options ask."""
    preset = experiment.preset(options.preset)
    reduced = {"rounds": options.rounds, "examples_per_task": options.examples}
    given = {key: value for key, value in reduced.items() if value is not None}
    return dataclasses.replace(preset, stream=dataclasses.replace(preset.stream, **given))  # type: ignore[type-var]


def compare(
    experiment: Experiment, preset: Preset, learners: Mapping[str, Learner], options: Options
) -> tuple[dict[str, list[Run]], dict[str, Any]]:
    """The runs of the learners by name, made where they are missing, and their summary.

    Raises:
        UserError: a run failed, or was made with other settings.
    """
    devices.start()
    jax.config.update("jax_compilation_cache_dir", str(platformdirs.user_cache_path("metaleader") / "compiled"))
    plan = Plan(
        experiment,
        options.preset,
        dataclasses.replace(preset, learners=learners),
        tuple(learners),
        tuple(range(options.seeds)),
        options.out,
        options.data_dir,
    )
    with live(plan) as progress:
        outcomes = run(plan, resume=True, progress=progress)
    if failed := [f"{path}: {outcome}" for path, outcome in outcomes.items() if outcome.startswith("failed")]:
        raise UserError("; ".join(failed))
    runs = metrics.load([options.out / name for name in learners])
    return {name: [r for r in runs if r.learner == name] for name in learners}, metrics.summary(runs)


def save(figure: Figure, page: Path, name: str) -> str:
    """Write the figure beside the page, and return its path from there."""
    folder = page.parent / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(figures.RC):
        figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
    return f"figures/{name}.png"


def page(
    path: Path,
    title: str,
    paragraphs: Sequence[str],
    summary: dict[str, Any],
    columns: Mapping[str, Mapping[str, str]],
    made: str,
) -> None:
    """Write a page: the paragraphs, the summary's table with more columns by learner, and how it was made."""
    headings, rows = report.table_rows(summary)
    headings = [headings[0], *columns, *headings[1:]]
    rows = [
        [f"`{name}`", *(column[name] for column in columns.values()), *row[1:]]
        for name, row in zip(summary["learners"], rows, strict=True)
    ]
    note = (
        f"Held-out {summary['score']['name']} over the last third of the rounds; median of the datapoints to "
        f"{summary['threshold']:g}, and tasks that reached it. Gradients are per-example gradient evaluations in "
        "learning and adapting, a Hessian-vector product counting as two."
    )
    table = report.markdown_table(headings, rows).rstrip()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join([f"# {title}", *paragraphs, table, note, made]) + "\n")


def machine(of: Run, arguments: Sequence[str]) -> str:
    """The command, and where it ran."""
    machine, versions = of.config["machine"], of.config["versions"]
    command = ["python", "-m", f"benchmarks.{Path(arguments[0]).stem}", *arguments[1:]]
    return (
        f"Made by `{shlex.join(command)}` on {machine['cores']} cores "
        f"({', '.join(machine['devices'])}), metaleader {versions['metaleader']}, JAX {versions['jax']}; "
        f"{of.config['rounds']} rounds of "
        f"{of.config['settings']['stream']['examples_per_task']} datapoints."
    )


def signed(points: float) -> str:
    """A difference, with its sign."""
    return f"{points:+.1f}"
