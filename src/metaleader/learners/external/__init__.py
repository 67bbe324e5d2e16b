"""What someone with many small related tasks would use otherwise, as learners of the same four verbs.

They have models of their own, of inputs that are vectors `(n, p)` and targets that are numbers `(n, 1)` or labels
`(n,)`; of the problem they take the number of outputs. Where they predict classes, they give logarithms of
probabilities, of at least 1e-6. The cost that `observe` and `adapt` report is 0, as none takes per-example gradients in
the sense of the others: compare seconds. Examples of weight 0 take no part, all others count as one.

Examples:
    >>> import numpy as np, metaleader as ml
    >>> x = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
    >>> stream = [ml.Task.from_arrays(x, slope * x, x, slope * x) for slope in (5, -5)]
    >>> problem = ml.Problem(None, ml.squared_error, ml.mean_squared_error)
    >>> learners = ml.learners.external.TaskMean(), ml.learners.external.TaskLinear()
    >>> mean, linear = (list(ml.play(problem, stream, learner))[-1] for learner in learners)
    >>> linear.loss < mean.loss / 2
    True
"""

from metaleader.learners.external.linear import PooledLinear, ShrunkenLinear, TaskLinear
from metaleader.learners.external.means import TaskMean, TaskNeighbours
from metaleader.learners.external.mixed import MixedModel
from metaleader.learners.external.rivals import SEARCHED, compared
from metaleader.learners.external.streaming import RiverModel
from metaleader.learners.external.trees import PooledTrees

__all__ = [
    "SEARCHED",
    "MixedModel",
    "PooledLinear",
    "PooledTrees",
    "RiverModel",
    "ShrunkenLinear",
    "TaskLinear",
    "TaskMean",
    "TaskNeighbours",
    "compared",
]
