"""Who competes on a table: learners across tasks, learners of one task alone, and what is searched of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from metaleader.assess.stored import Stored
from metaleader.learners import FTL, FTML, Adam, Learner, Scratch, external
from metaleader.models import MLP
from metaleader.problem import Problem
from metaleader.update import GradientDescent, InnerAdam, OptimizerSteps, Ridge

ENOUGH = 12_000  # meta-steps over the whole stream, at most, about
CLIP = 10.0  # longest gradient, also inside, of a target of standard deviation 1: without, some real tables diverge
ALONE = (Scratch, external.TaskLinear, external.TaskNeighbours)  # see the datapoints of one task only


@dataclass(frozen=True)
class Candidate:
    """A learner that competes.

    Attributes:
        title: what the page calls it.
        learner: with the settings that it begins the search with.
        problem: the table's, with the learner's model.
        searched: values to try of its settings, by their dotted names.
    """

    title: str
    learner: Learner
    problem: Problem
    searched: Mapping[str, tuple[Any, ...]]

    @property
    def across(self) -> bool:
        """Whether it learns across tasks."""
        return not isinstance(self.learner, ALONE) and not getattr(self.learner, "per_task", False)

    @property
    def rival(self) -> bool:
        """Whether other libraries learn it, and not JAX."""
        return type(self.learner) in external.SEARCHED

    @property
    def meta(self) -> bool:
        """Whether it learns to adapt."""
        return isinstance(self.learner, FTML)


def candidates(tasks: Stored, arrivals: int) -> dict[str, Candidate]:
    """All candidates by name.

    Args:
        tasks: whose rows are to be predicted.
        arrivals: how often datapoints arrive in the whole stream, by which learners of steps are given steps.
    """
    net, linear = (tasks.problem(MLP(tasks.inputs, tasks.outputs, depth=depth)) for depth in (2, 0))
    half = max(2, math.ceil(float(np.median(tasks.learned)) / 2))
    most = min(max(round(ENOUGH / arrivals), 5), 50)
    few, steps = max(most // 10, 1), max(most // 3, 2)
    sizes: dict[str, Any] = {
        "meta_steps": steps,
        "train_size": min(half, 10),
        "validation_size": min(half, 20),
        "vary_train_size": True,
    }
    rates = {"optimizer.learning_rate": (1e-3, 3e-3, 1e-2)}
    meta = {**rates, "meta_steps": (few, steps, most)}
    descent = {**meta, "update.step_size": (0.01, 0.03, 0.1, 0.3), "update.steps": (1, 3, 5)}
    fine_tuning = {"update.optimizer.step_size": (0.001, 0.003, 0.01, 0.03), "update.steps": (5, 20, 50)}
    ridge = {**meta, "update.regulariser": (0.3, 1.0, 3.0)}
    outer, faster = (Adam(rate, average=0.99, clip=CLIP) for rate in (3e-3, 1e-2))
    # What a linear FTML learns are a few numbers, which more and larger steps bring nearer to the best ones.
    linearly = {**ridge, "optimizer.learning_rate": (3e-3, 1e-2, 3e-2)}
    many = {**sizes, "meta_steps": most}
    tuned = OptimizerSteps(20, InnerAdam(0.01))
    own = {
        "ftml": Candidate(
            "FTML, gradient steps", FTML(GradientDescent(3, 0.1, clip=CLIP), **sizes, optimizer=outer), net, descent
        ),
        "ftml-ridge": Candidate("FTML, closed-form head", FTML(Ridge(), **sizes, optimizer=outer), net, ridge),
        "ftml-linear": Candidate("FTML, linear", FTML(Ridge(), **many, optimizer=faster), linear, linearly),
        "ftl": Candidate(
            "pooled net, fine-tuned (FTL)",
            FTL(steps, update=tuned, optimizer=outer),
            net,
            {**rates, "steps": (few, steps, most), **fine_tuning},
        ),
        "scratch": Candidate(
            "net from scratch", Scratch(50, optimizer=Adam(1e-2, clip=CLIP)), net, {**rates, "steps": (20, 50, 200)}
        ),
    }
    rivals = {
        name: Candidate(name, learner, linear, external.SEARCHED[type(learner)])
        for name, learner in (external.compared(tasks.kind).items() if tasks.kind != "multi-label" else ())
    }
    if tasks.kind == "multi-label":  # which the closed form and the rivals do not know
        own = {name: each for name, each in own.items() if name not in ("ftml-ridge", "ftml-linear")}
    return {**own, **rivals}
