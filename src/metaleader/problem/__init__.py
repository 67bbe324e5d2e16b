"""What is learned: batches, models, losses and scores."""

from metaleader.problem.batch import Batch
from metaleader.problem.losses import CrossEntropy, sigmoid_cross_entropy, squared_error
from metaleader.problem.model import Model, ModelLike, Params
from metaleader.problem.problem import Problem
from metaleader.problem.scores import Score, accuracy, from_sklearn, label_accuracy, mean_squared_error

__all__ = [
    "Batch",
    "CrossEntropy",
    "Model",
    "ModelLike",
    "Params",
    "Problem",
    "Score",
    "accuracy",
    "from_sklearn",
    "label_accuracy",
    "mean_squared_error",
    "sigmoid_cross_entropy",
    "squared_error",
]
