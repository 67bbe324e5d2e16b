"""FTML with every update procedure on Rainbow MNIST, at equal compute (docs/updates.md).

    python -m benchmarks.updates

Interrupt it and start it again at will: it goes on from the last checkpoint.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import tyro

from benchmarks.comparison import Options, compare, machine, page, save, settings_of
from metaleader import EXPERIMENTS, FTML, Preset, figures

COMPARED = (
    "ftml", "ftml-meta-sgd", "ftml-data-steps", "ftml-momentum", "ftml-adam", "ftml-imaml", "ftml-first-order",
    "ftml-reptile",
)  # fmt: skip


@dataclass(frozen=True)
class UpdatesOptions(Options):
    """FTML with other update procedures, on Rainbow MNIST."""

    learners: tuple[str, ...] = COMPARED
    """Learners to compare; the first sets the compute."""
    out: Path = Path("runs/updates")
    """Folder for the runs."""
    page: Path = Path("docs/updates.md")
    """The page to write; its figure goes beside it, under figures/."""


def equalised(preset: Preset, names: tuple[str, ...]) -> dict[str, FTML]:
    """The learners, with as many meta-steps as cost what those of the first do, to the nearest whole step."""
    chosen = {}
    for name in names:
        learner = preset.learners[name]
        assert isinstance(learner, FTML)
        chosen[name] = learner
    first = chosen[names[0]]
    spent = first.meta_steps * first.meta_gradient_evaluations()
    return {
        name: dataclasses.replace(learner, meta_steps=max(round(spent / learner.meta_gradient_evaluations()), 1))
        for name, learner in chosen.items()
    }


def main() -> None:
    """Run what has not run yet, then write the page and its figure."""
    options = tyro.cli(UpdatesOptions, description=__doc__)
    experiment = EXPERIMENTS["rainbow-mnist"]
    preset = settings_of(experiment, options)
    compared = equalised(preset, options.learners)
    runs, summary = compare(experiment, preset, compared, options)
    with matplotlib.rc_context(figures.RC):
        picture = save(figures.score_at_sizes(runs), options.page, "updates")
    page(
        options.page,
        "Update procedures",
        [
            "FTML (Eq. 4) with update procedures of several kinds; their equations are in the docstrings of "
            "`metaleader.update`. Compute is equal: whenever datapoints arrive, each takes as many meta-steps as cost "
            f"what those of `{options.learners[0]}` do, counted in per-example gradients; for the proximal update, "
            "that is the most it may take. Adapting to D_t is not equalised; its cost is in the total. Step sizes and "
            "the outer optimiser are those of the preset, and were not tuned for each procedure apart.",
            f"![Score after few and after all datapoints]({picture})",
        ],
        summary,
        {"meta-steps": {name: str(learner.meta_steps) for name, learner in compared.items()}},
        machine(runs[options.learners[0]][0], sys.argv),
    )


if __name__ == "__main__":
    main()
