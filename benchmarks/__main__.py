"""All benchmarks, or some: `python -m benchmarks [PART...]`."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from benchmarks import page
from benchmarks.outcome import load, sentence

# Run only when they are named: torch.compile takes minutes, and the large table 50 GB of the disk.
PARTS = {
    "starting": ("benchmarks.starting",),
    "meta_gradient": ("benchmarks.meta_gradient",),
    "scaling": ("benchmarks.scaling",),
    "rounds": ("benchmarks.rounds",),
    "compiling": ("benchmarks.compiling",),
    "runs": ("benchmarks.runs",),
    "saving": ("benchmarks.saving",),
    "serving": ("benchmarks.serving",),
    "assessing": ("benchmarks.assessing",),
    "large_table": ("benchmarks.large_table",),
    "compiled": ("benchmarks.meta_gradient", "--compiled"),
}
NAMED = ("large_table", "compiled")
TIME_LIMIT = 3600  # seconds for a part


@dataclass(frozen=True)
class Options:
    """Measure the parts one after another, each in a process of its own, and write the page of all results."""

    parts: tyro.conf.Positional[tuple[str, ...]] = tuple(name for name in PARTS if name not in NAMED)
    """Which parts: starting, meta_gradient, scaling, rounds, compiling, runs, saving, serving, assessing, large_table
    (20 GB) or compiled (torch.compile)."""
    quick: bool = False
    """Everything at a reduced size, to see that it works; written to runs/benchmarks instead of docs."""


def run(options: Options) -> int:
    """Measure, print every figure next to its bar, write the page; returns 1 if a part failed."""
    if unknown := [part for part in options.parts if part not in PARTS]:
        print(f"error: there is no part {unknown[0]}: choose from {', '.join(PARTS)}", file=sys.stderr)
        return 2
    root = Path("runs/benchmarks" if options.quick else "docs")
    figures = root / "figures" / "benchmarks"
    console, failed = Console(stderr=True), []
    for part in options.parts:
        console.rule(part)
        module, *arguments = PARTS[part]
        file, on_gpu = _results(figures, part)
        fresh = file.with_suffix(".new")
        arguments += ["--result", str(fresh), *["--quick"] * options.quick]
        try:
            subprocess.run([sys.executable, "-m", module, *arguments], check=True, timeout=TIME_LIMIT)
            fresh.rename(on_gpu if load(fresh).context["gpu"] else file)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            failed.append(part)
            print(f"{part} failed: {error}", file=sys.stderr)
    outcomes = [load(file) for part in PARTS for file in _results(figures, part) if file.exists()]
    if outcomes:
        page.write(outcomes, root / "benchmarks.md", figures)
        console.rule("figures and bars")
        for outcome in outcomes:
            for bar in outcome.bars:
                print(sentence(bar))
        print(f"page: {root / 'benchmarks.md'}")
    return int(bool(failed))


def _results(folder: Path, part: str) -> tuple[Path, Path]:
    """Where a part's results lie: those of a CPU, and those of a GPU, which stand beside them on the page."""
    name = part.replace("_", "-")
    return folder / f"{name}.json", folder / f"{name}-gpu.json"


if __name__ == "__main__":
    sys.exit(run(tyro.cli(Options, config=(tyro.conf.FlagCreatePairsOff,))))
