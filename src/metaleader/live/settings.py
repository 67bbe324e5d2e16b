"""The settings that a learner lives with, as plain data: compared when it is opened, and made into values again.

Values are made of the classes and functions listed here, by their names; nothing is imported by a name that a folder
tells.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from metaleader import learners, models, update
from metaleader.buffer import Recency, Retention
from metaleader.errors import UserError, listed
from metaleader.learners import Learner
from metaleader.online.description import described, differences
from metaleader.problem import CrossEntropy, Problem, Score, accuracy, squared_error
from metaleader.streams.encoding import Target
from metaleader.streams.table import RootMeanSquare

CLASSES: Mapping[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(learners.FTL, learners.FTML, learners.TOE, learners.MultiHeadFTL, learners.MultiHeadTOE),
        *(learners.OnlineMetaGradient, learners.Scratch, learners.AdaGrad, learners.Adam, learners.Momentum),
        *(update.GradientDescent, update.HeadFirst, update.Identity, update.InnerAdam, update.InnerMomentum),
        *(update.MetaSGD, update.OptimizerSteps, update.Proximal, update.Reptile, update.Ridge),
        *(models.MLP, models.ConvNet, models.PoseNet),
        *(Recency, Retention, Problem, Score, CrossEntropy, RootMeanSquare),
    )
}
FUNCTIONS: Mapping[str, Any] = {function.__qualname__: function for function in (squared_error, accuracy.function)}


@dataclass(frozen=True)
class Unit:
    """How a target is told by the user: in its own unit, or by the names of its classes.

    Attributes:
        name: of the target.
        classes: names, by label; none for a regression.
        mean: of a regression's target, in its unit.
        scale: its standard deviation; the learner sees `(y - mean) / scale`.
    """

    name: str
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, target: Target) -> Unit:
        """That of the target of a table."""
        return cls(target.name, target.classes, target.mean, target.scale)

    def encoded(self, targets: Any) -> Any:
        """Targets as the learner sees them: labels `(n,)`, or scaled float32 `(n, 1)`.

        Raises:
            UserError: one is the name of no class.
        """
        values = np.asarray(targets)
        if not self.classes:
            scaled = (values.astype(np.float64) - self.mean) / self.scale if values.dtype.kind in "biuf" else values
            return scaled.reshape(len(scaled), 1) if scaled.ndim == 1 else scaled
        if values.dtype.kind not in "UO":
            return targets
        labels = {name: label for label, name in enumerate(self.classes)}
        if unknown := sorted({str(value) for value in values.reshape(-1)} - labels.keys()):
            raise UserError(f"{self.name!r} has no class {listed(unknown)}: its classes are {listed(self.classes)}")
        return np.array([labels[str(value)] for value in values.reshape(-1)], np.int32)

    def decoded(self, outputs: Any) -> Any:
        """Outputs of a regression in the target's unit; others as they are."""
        return outputs if self.classes else np.asarray(outputs, np.float64) * self.scale + self.mean


def settings(problem: Problem, learner: Learner, seed: int, window: int, unit: Unit | None) -> dict[str, Any]:
    """What determines what is learned, as plain JSON."""
    told = {"problem": problem, "learner": learner, "seed": seed, "window": window, "unit": unit}
    told["x64"] = bool(jax.config.values["jax_enable_x64"])
    return {name: json.loads(json.dumps(described(value))) for name, value in told.items()}


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
