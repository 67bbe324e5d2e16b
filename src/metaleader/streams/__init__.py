"""Streams of tasks."""

from metaleader.streams.cifar100 import FiveWayCifar100
from metaleader.streams.rainbow import RainbowDigits, RainbowMnist
from metaleader.streams.sinusoid import Sinusoid
from metaleader.streams.task import Stream, Task

__all__ = ["FiveWayCifar100", "RainbowDigits", "RainbowMnist", "Sinusoid", "Stream", "Task"]
