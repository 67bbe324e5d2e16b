"""Models as pairs of pure functions."""

from metaleader.models.conv import ConvNet
from metaleader.models.mlp import MLP

__all__ = ["MLP", "ConvNet"]
