"""The experiments: named, frozen values in one registry."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from metaleader.errors import UserError, unknown
from metaleader.experiments.cifar100 import CIFAR100
from metaleader.experiments.coloured import COLOURED_DIGITS, COLOURED_MNIST
from metaleader.experiments.experiment import Experiment, Preset, StreamSettings
from metaleader.experiments.pose import POSE, POSE_PRIMITIVES
from metaleader.experiments.rainbow import RAINBOW_DIGITS, RAINBOW_MNIST
from metaleader.experiments.sinusoid import SINUSOID

__all__ = ["EXPERIMENTS", "Experiment", "Preset", "StreamSettings", "find"]

EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        experiment.name: experiment
        for experiment in (
            COLOURED_DIGITS,
            RAINBOW_DIGITS,
            RAINBOW_MNIST,
            CIFAR100,
            POSE,
            POSE_PRIMITIVES,
            SINUSOID,
            COLOURED_MNIST,
        )
    }
)


def find(name: str) -> Experiment:
    """The experiment of that name, or the value `experiment` of a Python file.

    Raises:
        UserError: there is no such experiment or file, or the file does not define one.
    """
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise UserError(f"there is no file {name}: give the path of a Python file that defines `experiment`")
        # As a module of its own, so that the types in its annotations are found by name.
        specification = importlib.util.spec_from_file_location(Path(name).stem, name)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[specification.name] = module
        specification.loader.exec_module(module)
        found = getattr(module, "experiment", None)
        if not isinstance(found, Experiment):
            raise UserError(f"{name} must define `experiment`, a metaleader.Experiment; found {type(found).__name__}")
        return found
    if name not in EXPERIMENTS:
        raise UserError(unknown("experiment", name, EXPERIMENTS))
    return EXPERIMENTS[name]
