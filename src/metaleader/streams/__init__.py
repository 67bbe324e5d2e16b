"""Streams of tasks.

Examples:
    >>> import metaleader as ml
    >>> settings = ml.streams.Sinusoid(rounds=2), ml.streams.RainbowDigits(rounds=2)
    >>> [task.train.inputs.shape for each in settings for task in each.stream(seed=0)]
    [(50, 1), (50, 1), (100, 16, 16, 3), (100, 16, 16, 3)]
"""

from metaleader.streams.cifar100 import FiveWayCifar100
from metaleader.streams.coloured import ColouredDigits, ColouredMnist
from metaleader.streams.folders import Folder, from_folder
from metaleader.streams.pose import Pose
from metaleader.streams.rainbow import RainbowDigits, RainbowMnist
from metaleader.streams.reading import from_table
from metaleader.streams.row_encoder import RowEncoder
from metaleader.streams.sinusoid import Sinusoid
from metaleader.streams.table import Table
from metaleader.streams.task import Stream, Task

__all__ = [
    "ColouredDigits",
    "ColouredMnist",
    "FiveWayCifar100",
    "Folder",
    "Pose",
    "RainbowDigits",
    "RainbowMnist",
    "RowEncoder",
    "Sinusoid",
    "Stream",
    "Table",
    "Task",
    "from_folder",
    "from_table",
]
