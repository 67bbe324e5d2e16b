"""The experiments: named, frozen values in one registry."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType

from metaleader.errors import UserError, unknown
from metaleader.experiments.cifar100 import CIFAR100
from metaleader.experiments.coloured import COLOURED_DIGITS, COLOURED_MNIST
from metaleader.experiments.experiment import Experiment, Preset, StreamSettings
from metaleader.experiments.pose import POSE, POSE_PRIMITIVES
from metaleader.experiments.rainbow import RAINBOW_DIGITS, RAINBOW_MNIST
from metaleader.experiments.sinusoid import SINUSOID

__all__ = ["EXPERIMENTS", "Experiment", "Preset", "StreamSettings", "find", "telling_where"]

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
"""All experiments by name, as the command line has them.

Examples:
    >>> import metaleader as ml
    >>> "rainbow-digits" in ml.EXPERIMENTS, ml.EXPERIMENTS["sinusoid"].summary
    (True, 'a family of sinusoids, of which joint training learns the mean (paper, figure 1)')
"""


def find(name: str) -> Experiment:
    """The experiment of that name, or the value `experiment` of a Python file.

    The file may import others beside it, unless an installed package or a module of Python has their name.

    Raises:
        UserError: there is no such experiment or file, or the file cannot be run or does not define one.
    """
    if name.endswith(".py"):
        path = Path(name).absolute()
        if not path.is_file():
            raise UserError(f"there is no file {name}: give the path of a Python file that defines `experiment`")
        found = getattr(_module(path, path.stat().st_mtime_ns), "experiment", None)
        if not isinstance(found, Experiment):
            raise UserError(f"{name} must define `experiment`, a metaleader.Experiment; found {type(found).__name__}")
        return found
    if name not in EXPERIMENTS:
        raise UserError(unknown("experiment", name, EXPERIMENTS))
    return EXPERIMENTS[name]


_FOLDERS: list[str] = []  # from which experiments came


@cache
def _module(path: Path, modified: int) -> ModuleType:  # noqa: ARG001 - a changed file is run again
    """What the file defines, as a module that is found by its name, as the types in its annotations need.

    Raises:
        UserError: with file and line where it fails; or a file beside it has the name of another experiment's.
    """
    folder = str(path.parent)
    for neighbour in path.parent.glob("*.py"):
        there = getattr(sys.modules.get(neighbour.stem), "__file__", None)
        if there is not None and Path(there) != neighbour and str(Path(there).parent) in _FOLDERS:
            raise UserError(
                f"{path} cannot be used together with {there}, as a file beside it has that name: rename one"
            )
    if folder not in _FOLDERS:
        _FOLDERS.append(folder)
        sys.path.append(folder)  # last: a file called copy.py or optuna.py must not take the place of that module
    name = f"metaleader_experiment_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        with telling_where():
            specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: {type(error).__name__}: {error}") from error
    return module


@contextmanager
def telling_where() -> Iterator[None]:
    """Tell what fails in a user's own files in one line; what fails elsewhere passes.

    Raises:
        UserError: with file and line.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, SyntaxError):
            raise UserError(f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}") from error
        frames = traceback.extract_tb(error.__traceback__)
        if own := [frame for frame in frames if str(Path(frame.filename).parent) in _FOLDERS]:
            where = f"{own[-1].filename}, line {own[-1].lineno}"
            raise UserError(f"{where}: {type(error).__name__}: {error}") from error
        raise
