"""Models as pairs of pure functions."""

from metaleader.models.conv import ConvNet
from metaleader.models.mlp import MLP
from metaleader.models.pose import PoseNet

__all__ = ["MLP", "ConvNet", "PoseNet"]
