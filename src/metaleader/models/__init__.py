"""Models as pairs of pure functions: those here, and modules of Flax and Equinox."""

from metaleader.models.adapters import from_equinox, from_flax_linen, from_flax_nnx
from metaleader.models.conv import ConvNet
from metaleader.models.mlp import MLP
from metaleader.models.pose import PoseNet
from metaleader.models.shifted import Shifted

__all__ = ["MLP", "ConvNet", "PoseNet", "Shifted", "from_equinox", "from_flax_linen", "from_flax_nnx"]
