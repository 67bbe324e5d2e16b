"""Which learners to compare with, and among which settings of each to search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from metaleader.errors import UserError, unknown
from metaleader.learners.base import Learner
from metaleader.learners.external.linear import PooledLinear, ShrunkenLinear, TaskLinear
from metaleader.learners.external.means import TaskMean, TaskNeighbours
from metaleader.learners.external.mixed import MixedModel
from metaleader.learners.external.streaming import RiverModel
from metaleader.learners.external.trees import PooledTrees

KINDS = ("regression", "binary", "multi-class")
PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)

SEARCHED: Mapping[type, Mapping[str, tuple[Any, ...]]] = {
    TaskMean: {"prior_strength": (0.3, 1.0, 3.0, 10.0, 30.0)},
    PooledLinear: {"penalty": PENALTIES},
    TaskLinear: {"penalty": PENALTIES},
    ShrunkenLinear: {
        "penalty": (1.0, 30.0, 1000.0),
        "deviation": (1.0, 3.0, 10.0, 30.0, 100.0),
        "intercept": (0.3, 1.0, 3.0, 10.0, 30.0),
    },
    MixedModel: {"slopes": (0, 1, 2, 4)},
    PooledTrees: {
        "trees": (30, 60, 120),
        "learning_rate": (0.05, 0.15, 0.3),
        "leaves": (7, 15, 31),
        "l2": (0.0, 1.0, 10.0),
        "prior_strength": (1.0, 3.0, 10.0),
    },
    TaskNeighbours: {"bandwidth": (0.25, 0.5, 1.0, 2.0), "prior_strength": (0.1, 0.3, 1.0, 3.0)},
    RiverModel: {"step_size": (0.003, 0.01, 0.03, 0.1)},
}
"""Of each learner, the values among which to search by field. `prior_strength` of trees counts with `task_features`,
`step_size` of river with `linear`."""


def compared(kind: str) -> Mapping[str, Learner]:
    """The learners to compare with, by name, with settings to begin with.

    Those of an extra are among them where it is installed: the mixed model, for regression alone, river's linear
    models, and LightGBM's trees beside scikit-learn's.

    >>> list(compared("binary"))[:3]
    ['task mean', 'linear, pooled', 'linear, per task']

    Args:
        kind: what is predicted: `regression`, `binary` or `multi-class`.

    Raises:
        UserError: the kind is unknown.
    """
    if kind not in KINDS:
        raise UserError(unknown("kind of target", kind, KINDS))
    # A round of several classes grows a tree for each: fewer of them, in larger steps, take about the same time.
    trees = PooledTrees(trees=30, learning_rate=0.3) if kind == "multi-class" else PooledTrees()
    found: dict[str, Learner] = {
        "task mean": TaskMean(),
        "linear, pooled": PooledLinear(),
        "linear, per task": TaskLinear(),
        "linear, shrunken": ShrunkenLinear(),
        "trees, pooled": trees,
        "trees, task features": replace(trees, task_features=True),
        "neighbours, per task": TaskNeighbours(),
    }
    if find_spec("lightgbm"):
        found["LightGBM, pooled"] = replace(trees, library="LightGBM")
        found["LightGBM, task features"] = replace(trees, library="LightGBM", task_features=True)
    if kind == "regression" and find_spec("statsmodels"):
        found["mixed model"] = MixedModel()
    if find_spec("river"):
        found["river, pooled"] = RiverModel("linear")
        found["river, per task"] = RiverModel("linear", per_task=True)
    return found
