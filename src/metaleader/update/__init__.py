"""Update procedures U: how parameters change on the data of one task (paper, sections 3 and 5)."""

from metaleader.update.descent import GradientDescent, MetaSGD, MetaSGDParams, Reptile
from metaleader.update.head import HeadFirst
from metaleader.update.meta import adapt, mean_over_tasks, meta_gradient, meta_objective
from metaleader.update.optimizer import InnerAdam, InnerMomentum, Optimizer, OptimizerSteps
from metaleader.update.procedure import Identity, MetaParams, PullsBack, UpdateProcedure
from metaleader.update.proximal import Proximal
from metaleader.update.ridge import Ridge, RidgeParams
from metaleader.update.steps import Steps, mask

__all__ = [
    "GradientDescent",
    "HeadFirst",
    "Identity",
    "InnerAdam",
    "InnerMomentum",
    "MetaParams",
    "MetaSGD",
    "MetaSGDParams",
    "Optimizer",
    "OptimizerSteps",
    "Proximal",
    "PullsBack",
    "Reptile",
    "Ridge",
    "RidgeParams",
    "Steps",
    "UpdateProcedure",
    "adapt",
    "mask",
    "mean_over_tasks",
    "meta_gradient",
    "meta_objective",
]
