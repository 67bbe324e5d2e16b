"""What a learner has learned, shown: the pictures of the paper's figure 1.

An illustration computes a few arrays when a run ends, while the learner's state is at hand, and draws them later from
the run's folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaleader.learners import Learner
from metaleader.problem.batch import Batch
from metaleader.problem.problem import Problem
from metaleader.results.figures import drawing, literal, style
from metaleader.results.formats import significant
from metaleader.results.statistics import t_interval
from metaleader.streams import ColouredDigits, ColouredMnist, Sinusoid, Stream
from metaleader.streams.coloured import recoloured
from metaleader.streams.rainbow import COLOURS

Coloured: TypeAlias = ColouredMnist | ColouredDigits
Arrays: TypeAlias = Mapping[str, np.ndarray]
RETURNS = len(COLOURS)  # the round in which the colour of the first comes back, from 0
UNSEEN = 10_000  # added to the seed of a run: tasks that it did not meet
SHOWN = ("ftl", "ftml")  # joint training and FTML, in the order of the paper's figure


class Illustration(Protocol):
    """What a run ends with, and the picture of it."""

    def record(
        self, problem: Problem, stream: Any, learner: Learner, state: Any, seed: int, data_dir: Path | None
    ) -> Arrays:
        """What the learner in `state` does on unseen tasks of the stream settings `stream`; empty: nothing to show."""
        ...

    def draw(self, of: Mapping[str, Sequence[Arrays]]) -> tuple[Figure, str]:
        """The figure of the arrays of each learner, by name, of every seed, and its caption."""
        ...


class _Curves:
    """Sinusoids: the function learned, before and after adapting to a few points of three new tasks."""

    points, tasks = 10, 3

    def record(
        self, problem: Problem, stream: Sinusoid, learner: Learner, state: Any, seed: int, data_dir: Path | None
    ) -> Arrays:
        unseen = replace(stream, rounds=self.tasks, examples_per_task=self.points).stream(seed + UNSEEN, data_dir)
        grid = np.linspace(-5, 5, 201, dtype=np.float32)[:, None]
        return {
            "x": grid[:, 0],
            "train_x": np.stack([task.train.inputs[:, 0] for task in unseen]),
            "train_y": np.stack([task.train.targets[:, 0] for task in unseen]),
            "test_x": np.stack([task.held_out.inputs[:, 0] for task in unseen]),
            "test_y": np.stack([task.held_out.targets[:, 0] for task in unseen]),
            "before": _outputs(problem, learner, state, unseen[0].train[:0], grid)[:, 0],
            "after": np.stack([_outputs(problem, learner, state, task.train, grid)[:, 0] for task in unseen]),
        }

    def draw(self, of: Mapping[str, Sequence[Arrays]]) -> tuple[Figure, str]:
        figure = Figure(figsize=(4.6 * len(of) + 0.6, 3.9), layout="constrained")
        panels = figure.subplots(1, len(of), sharey=True, squeeze=False)[0]
        colours, dashes = ("#0072B2", "#D55E00", "#009E73"), ("-", "--", "-.")
        for panel, (learner, (arrays, *_)) in zip(panels, of.items(), strict=True):
            panel.plot(arrays["x"], arrays["before"], color="black", lw=3, label="learned, before adapting")
            for i, (colour, dash) in enumerate(zip(colours, dashes, strict=True)):
                order = np.argsort(arrays["test_x"][i])
                panel.plot(arrays["test_x"][i][order], arrays["test_y"][i][order], color=colour, lw=5, alpha=0.25)
                panel.plot(arrays["train_x"][i], arrays["train_y"][i], "o", color=colour, ms=4)
                panel.plot(
                    arrays["x"], arrays["after"][i], color=colour, ls=dash, lw=1.6, label=f"adapted, task {i + 1}"
                )
            panel.set(title=literal(style(learner).name), xlabel="x")
        panels[0].set_ylabel("y")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        return figure, (
            "What is learned of the sinusoids: the function before adapting (black), and after adapting to "
            f"{self.points} points (dots) of three tasks that were not met, whose true functions are the pale bands"
            f"{'; of the first seed' if any(len(each) > 1 for each in of.values()) else ''}. "
            "Joint training learns the mean of the tasks met, whatever that is worth as a place to adapt from."
        )


class _Colours:
    """Coloured MNIST: accuracy on new tasks on their own background and on others, before and after adapting."""

    points, tasks, images = 50, 14, 5

    def record(
        self, problem: Problem, stream: Coloured, learner: Learner, state: Any, seed: int, data_dir: Path | None
    ) -> Arrays:
        settings = replace(stream, rounds=self.tasks, examples_per_task=self.points)
        unseen = settings.stream(seed + UNSEEN, data_dir)
        right = np.zeros((self.tasks, 2, 2))  # task, before or after, own or other colour
        changed = np.zeros((self.tasks, 2))
        for i, task in enumerate(unseen):
            colour = task.name.split("/")[0]
            names = list(COLOURS)
            other = names[(names.index(colour) + 3) % len(names)]
            tests = task.held_out.inputs, recoloured(np.asarray(task.held_out.inputs), colour, other)
            for j, data in enumerate((task.train[:0], task.train)):
                labels = [_outputs(problem, learner, state, data, images).argmax(axis=1) for images in tests]
                right[i, j] = [np.mean(its == task.held_out.targets) for its in labels]
                changed[i, j] = np.mean(labels[0] != labels[1])
        met: Stream = stream.stream(seed, data_dir)
        shown = [met[i] for i in (0, 1, RETURNS) if i < len(met)]
        pairs = [(task.held_out.inputs, task.held_out.targets) for task in shown]
        sample = np.stack([[images[np.argmax(labels == k)] for k in range(self.images)] for images, labels in pairs])
        return {"accuracy": right, "changed": changed, "images": sample, "names": np.array([t.name for t in shown])}

    def draw(self, of: Mapping[str, Sequence[Arrays]]) -> tuple[Figure, str]:
        figure = Figure(figsize=(11, 3.9), layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=[1.25, 1, 1])
        _tasks(left, next(iter(of.values()))[0])
        after = {name: [arrays["accuracy"][:, 1].mean(axis=0) for arrays in each] for name, each in of.items()}
        _bars(middle, after, (("own colour", "0.35", ""), ("another colour", "0.75", "//")))
        middle.axhline(1 / self.images, color="black", ls=":", lw=1)
        middle.set(title="after adapting", ylabel="held-out accuracy")
        changed = {name: [arrays["changed"].mean(axis=0) for arrays in each] for name, each in of.items()}
        _bars(right, changed, (("before adapting", "#0072B2", "\\\\"), ("after adapting", "#E69F00", "..")))
        right.set(title="changed by the colour alone", ylabel="share of predictions")
        same = "; the first and the last of these tasks have the same colour and other labels"
        tasks = len(next(iter(of.values()))[0]["names"])
        return figure, (
            f"Coloured digits. Left: what a label means changes with the task, and so does the background"
            f"{same if tasks == 3 else ''}. Middle: held-out accuracy on "
            f"{self.tasks} tasks that were not met, after adapting to {self.points} images, on the task's own "
            "background and with the same digits on another; dotted: guessing. Right: how many predictions change "
            "when nothing but the background does."
            + (" Means over seeds with 95 % t intervals." if any(len(each) > 1 for each in of.values()) else "")
        )


def _tasks(panel: Axes, arrays: Arrays) -> None:
    """A row of images for each task, a column for each label."""
    images = arrays["images"]
    tasks, labels, height, width, _ = images.shape
    space = np.full((tasks, 6, labels * width, 3), 255, np.uint8)
    rows = np.concatenate([np.concatenate(list(images.transpose(1, 0, 2, 3, 4)), axis=2), space], axis=1)
    panel.imshow(rows.reshape(-1, labels * width, 3)[:-6])
    panel.set_xticks(width * (np.arange(labels) + 0.5), list(map(str, range(labels))))
    panel.set_yticks(
        (height + 6) * np.arange(tasks) + height / 2, [literal(str(n).split("/")[0]) for n in arrays["names"]]
    )
    panel.set(xlabel="label", title="tasks that were met")
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)


def _bars(panel: Axes, values: Mapping[str, Sequence[np.ndarray]], kinds: Sequence[tuple[str, str, str]]) -> None:
    """A group of bars for each learner, from 0 to 1, means of the values of seeds; a kind is label, colour, hatch."""
    places = np.arange(len(values))
    for j, (label, colour, hatch) in enumerate(kinds):
        found = np.array([t_interval(np.array(each)[:, j]) for each in values.values()], dtype=float)
        whiskers = np.nan_to_num(np.abs(found[:, 1:] - found[:, :1])).T  # none of a single seed
        bars = panel.bar(
            places + 0.38 * (j - 0.5), found[:, 0], 0.36, yerr=whiskers if whiskers.any() else None, capsize=3,
            color=colour, hatch=hatch, edgecolor="white", label=label,
        )  # fmt: skip
        panel.bar_label(bars, fmt=significant, fontsize=8)
    panel.set_xticks(places, [style(name).short for name in values])
    panel.set_ylim(0, 1.08)  # room for the number above a full bar
    panel.legend(loc="lower center", bbox_to_anchor=(0.5, -0.28), ncols=2, fontsize=8)


ILLUSTRATIONS: Mapping[str, Illustration] = MappingProxyType({"sinusoids": _Curves(), "colours": _Colours()})


def record(name: str, *of_run: Any) -> Arrays:
    """`Illustration.record` of the illustration of that name."""
    return ILLUSTRATIONS[name].record(*of_run)


def draw(name: str, of: Mapping[str, Sequence[Arrays]]) -> tuple[Figure, str] | None:
    """The figure of the learners that are shown, of every seed, with its caption; None if there is none."""
    shown = {learner: of[learner] for learner in SHOWN if learner in of}
    if not shown:
        return None
    with drawing():
        return ILLUSTRATIONS[name].draw(shown)


def _outputs(problem: Problem, learner: Learner, state: Any, data: Batch, inputs: Any) -> np.ndarray:
    """What the learner says of inputs of a task that it has not met, once it has adapted to its data."""
    adapted, _ = learner.adapt(problem, state, "unseen", data)
    return np.asarray(learner.predict(problem, adapted, inputs))
