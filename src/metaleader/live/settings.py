"""The settings that a learner lives with, as plain data: compared when it is opened, and made into values again.

Values are made of the classes and functions listed here, by their names; nothing is imported by a name that a folder
tells.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jax

from metaleader import learners, models, streams, update
from metaleader.buffer import Recency, Retention
from metaleader.errors import UserError, listed
from metaleader.learners import Learner, external
from metaleader.online import OnlineProtocol
from metaleader.online.description import described, differences
from metaleader.problem import (
    CrossEntropy,
    Problem,
    Score,
    accuracy,
    label_accuracy,
    sigmoid_cross_entropy,
    squared_error,
)
from metaleader.streams.table import RootMeanSquare

CLASSES: Mapping[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(learners.FTL, learners.FTML, learners.TOE, learners.MultiHeadFTL, learners.MultiHeadTOE),
        *(learners.OnlineMetaGradient, learners.Scratch, learners.AdaGrad, learners.Adam, learners.Momentum),
        *(update.GradientDescent, update.HeadFirst, update.Identity, update.InnerAdam, update.InnerMomentum),
        *(update.MetaSGD, update.OptimizerSteps, update.Proximal, update.Reptile, update.Ridge),
        *(models.MLP, models.ConvNet, models.PoseNet),
        *external.SEARCHED,
        *(streams.ColouredDigits, streams.ColouredMnist, streams.FiveWayCifar100, streams.Pose),
        *(streams.RainbowDigits, streams.RainbowMnist, streams.Sinusoid, OnlineProtocol),
        *(Recency, Retention, Problem, Score, CrossEntropy, RootMeanSquare),
    )
}
FUNCTIONS: Mapping[str, Any] = {
    function.__qualname__: function
    for function in (squared_error, sigmoid_cross_entropy, accuracy.function, label_accuracy.function)
}


def settings(problem: Problem, learner: Learner, seed: int, window: int) -> dict[str, Any]:
    """What determines what is learned, as plain JSON."""
    told = {"problem": problem, "learner": learner, "seed": seed, "window": window}
    told["x64"] = bool(jax.config.values["jax_enable_x64"])
    return {name: json.loads(json.dumps(described(value))) for name, value in told.items()}


def current(place: str, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a learner that is there, as `settings` gives them now.

    Raises:
        UserError: an earlier version wrote them, and knew less than is needed now.
    """
    if stored.get("unit") is not None:
        raise UserError(
            f"{place} was made by an earlier version of metaleader, which kept the unit of a table's target, but not "
            "how its rows are encoded: make a new one by Live.create(folder, problem, learner, table=table), and learn "
            "the rows again"
        )
    return {name: value for name, value in stored.items() if name != "unit"}


def check_same(place: str, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Make sure that a folder is opened with the settings it was made with.

    Raises:
        UserError: naming the first that differs, what it was and what it is.
    """
    found = sorted(differences(stored, now, tuple(stored)), key=lambda each: not each[0].endswith(".type"))
    for name, before, is_now in found:
        what = f"{name} = {before!r}, now it is {is_now!r}"
        if name.endswith(".code"):
            what = f"other code of {name.removesuffix('.code')}, or under another version of Python"
        raise UserError(f"{place} was made with {what}: open it with the same, or make a new one by Live.create")


def rebuilt(told: Any) -> Any:
    """The value that `described` told of.

    Raises:
        UserError: it is of a class or function that is not listed here.
    """
    if isinstance(told, Mapping):
        kind = str(told.get("type") or told.get("function") or "a mapping")
        if kind not in CLASSES or "code" in told:
            raise UserError(f"{kind} is not one of those of metaleader")
        fields = {each.name: each for each in dataclasses.fields(CLASSES[kind]) if each.init}
        if fields.keys() != told.keys() - {"type"}:
            raise UserError(f"{kind} has the settings {listed(list(fields))} in this version of metaleader")
        return CLASSES[kind](**{name: _field(fields[name], told[name]) for name in fields})
    if isinstance(told, list):
        return tuple(map(rebuilt, told))
    return told


def _field(field: dataclasses.Field[Any], told: Any) -> Any:
    if not isinstance(told, str) or field.type == "str":
        return rebuilt(told)
    if field.type == "float":
        return float(told)  # inf
    return FUNCTIONS.get(told, told)


def problem_and_learner(place: str, stored: Mapping[str, Any]) -> tuple[Problem, Learner]:
    """Those that a folder was made with, if they are of this package.

    Raises:
        UserError: they are of the user's own code.
    """
    try:
        problem, learner = rebuilt(stored["problem"]), rebuilt(stored["learner"])
        same = described(problem), described(learner)
        if json.loads(json.dumps(same)) != [stored["problem"], stored["learner"]]:
            raise UserError("they are not the same when they are made again")
    except (UserError, ValueError, TypeError) as error:
        raise UserError(
            f"{place} does not tell all of its problem and learner ({error}): open it by "
            "Live.open(folder, problem, learner), with those it was made with"
        ) from error
    return problem, learner
