"""FTML on Rainbow MNIST against the share of the data that its memory may keep, beside streaming (docs/memory.md).

    python -m benchmarks.memory

Interrupt it and start it again at will: it goes on from the last checkpoint.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.figure import Figure

from benchmarks.comparison import Options, compare, machine, page, save, settings_of, signed
from metaleader import EXPERIMENTS, FTML, Learner, Memory, Preset, metrics
from metaleader.metrics import Run

POLICIES = {"reservoir": ("#0072B2", "o", "-"), "share": ("#D55E00", "^", "--"), "last": ("#009E73", "s", ":")}


@dataclass(frozen=True)
class MemoryOptions(Options):
    """FTML with limited memory and streaming, on Rainbow MNIST."""

    percent: tuple[float, ...] = (30, 10, 3, 1)
    """Budgets, in per cent of all datapoints of the stream; 100 is always there."""
    policies: tuple[str, ...] = ("reservoir", "share", "last")
    """Policies to compare."""
    out: Path = Path("runs/memory")
    """Folder for the runs."""
    page: Path = Path("docs/memory.md")
    """The page to write; its figure goes beside it, under figures/."""


def name(policy: str, percent: float) -> str:
    """What the runs of a policy and budget are called."""
    return f"ftml-{policy}-{percent:g}"


def learners(preset: Preset, options: MemoryOptions, datapoints: int) -> dict[str, Learner]:
    """FTML that keeps everything, streaming, which keeps no past, and FTML with every policy and budget."""
    ftml = preset.learners["ftml"]
    assert isinstance(ftml, FTML)
    limited = {
        name(policy, percent): dataclasses.replace(
            ftml,
            memory=Memory(policy, max(round(datapoints * percent / 100), 1)),  # type: ignore[arg-type]
        )
        for policy in options.policies
        for percent in options.percent
    }
    return {"ftml": ftml, "streaming": preset.learners["streaming"], **limited}


def drawn(learner: Learner) -> int:
    """Datapoints that one `observe` draws from the buffer."""
    assert isinstance(learner, FTML)
    return learner.meta_steps * learner.meta_batch * (learner.train_size + learner.validation_size)


def datapoints_kept(learner: Learner, tasks: Sequence[int]) -> int:
    """How many are kept at most of a stream of tasks of these sizes."""
    return learner.memory.budget or sum(tasks) if isinstance(learner, FTML) else max(tasks)


def forgets_oldest(learner: Learner) -> bool:
    """Whether what is kept is the newest; the other policies keep what they have drawn from before."""
    return not isinstance(learner, FTML) or learner.memory.policy == "last"


def after_few(runs: Sequence[Run]) -> np.ndarray:
    """The score at the smallest size, over the last third of the rounds, of every run."""
    smallest = metrics.sizes(runs)[:1]
    values, counted = metrics.scores(runs, smallest)[:, :, 0], metrics.last_third(runs)
    return np.array([row[mask].mean() for row, mask in zip(values, counted, strict=True)])


def reached(runs: Sequence[Run]) -> float:
    """The share of the tasks in the last third of the rounds that became proficient."""
    return float(np.isfinite(metrics.datapoints_to_proficiency(runs)[metrics.last_third(runs)]).mean())


def figure(runs: dict[str, list[Run]], options: MemoryOptions) -> Figure:
    """Score after few datapoints, and tasks that reached proficiency, against the budget."""
    drawn = Figure(figsize=(9.6, 4.0), layout="constrained")
    left, right = drawn.subplots(1, 2)
    percents = [*sorted(options.percent), 100.0]
    for policy in options.policies:
        colour, marker, dashes = POLICIES[policy]
        each = [runs["ftml"] if percent == 100 else runs[name(policy, percent)] for percent in percents]
        scores = [after_few(of) for of in each]
        look: dict[str, Any] = {"color": colour, "marker": marker, "ls": dashes, "label": policy}
        left.plot(percents, [score.mean() for score in scores], **look)
        for percent, score in zip(percents, scores, strict=True):
            left.plot(np.full(len(score), percent), score, marker, color=colour, alpha=0.3, mew=0)
        right.plot(percents, [100 * reached(of) for of in each], **look)
    streaming = runs["streaming"]
    look = {"color": "#555555", "lw": 0.9, "label": "streaming"}
    left.axhline(after_few(streaming).mean(), **look)
    right.axhline(100 * reached(streaming), **look)
    config = runs["ftml"][0].config
    few, threshold = metrics.sizes(runs["ftml"])[0], config["settings"]["protocol"]["threshold"]
    left.set(xscale="log", ylabel=f"held-out {config['score']['name']} after {few} datapoints")
    right.set(xscale="log", ylabel=f"tasks that reached {threshold:g} (%)")
    for panel in (left, right):
        panel.set_xlabel("datapoints kept (% of all)")
        panel.set_xticks(percents, [f"{percent:g}" for percent in percents])
        panel.minorticks_off()
    left.legend(title="policy", frameon=False)
    return drawn


def main() -> None:
    """Run what has not run yet, then write the page and its figure."""
    options = tyro.cli(MemoryOptions, description=__doc__)
    experiment = EXPERIMENTS["rainbow-mnist"]
    preset = settings_of(experiment, options)
    tasks = [len(task.train) for task in preset.stream.stream(0, options.data_dir)]
    datapoints = sum(tasks)
    compared = learners(preset, options, datapoints)
    runs, summary = compare(experiment, preset, compared, options)
    picture = save(figure(runs, options), options.page, "memory")
    few = metrics.sizes(runs["ftml"])[0]
    whole = after_few(runs["ftml"])
    lines = []
    for policy in options.policies if 10 in options.percent else ():
        difference = 100 * (after_few(runs[name(policy, 10)]) - whole).mean()
        lines.append(f"- `{policy}`: {signed(difference)} points after {few} datapoints.")
    # As many images are drawn whatever is kept; who forgets the oldest has drawn from all of them by the end.
    draws = datapoints // preset.protocol.chunk * drawn(compared["ftml"])
    kept = {key: datapoints_kept(learner, tasks) for key, learner in compared.items()}
    distinct = {key: datapoints if forgets_oldest(compared[key]) else kept[key] for key in compared}
    page(
        options.page,
        "Limited memory",
        [
            f"FTML (Eq. 4) whose buffer keeps a part of the {datapoints:,} datapoints of Rainbow MNIST; what the "
            "policies keep is in the docstring of `metaleader.Memory`. The current round counts towards the budget. "
            "`streaming` meta-learns from the current round alone and then forgets it. All learners take as many "
            "meta-steps, so that each datapoint kept is drawn the more often the fewer there are, and memorised: that "
            "is what a small memory loses by. Where a task has fewer datapoints left than D_tr and D_val want, "
            "they share them.",
            f"![Score and proficiency against the budget]({picture})",
            *(["With a tenth of the data, against FTML that keeps everything:", "\n".join(lines)] if lines else []),
        ],
        summary,
        {
            "datapoints kept": {key: f"{count:,}" for key, count in kept.items()},
            "draws of each": {key: f"{draws / count:.0f}" for key, count in distinct.items()},
        },
        machine(runs["ftml"][0], sys.argv),
    )


if __name__ == "__main__":
    main()
