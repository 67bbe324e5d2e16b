"""Streams of tasks."""

from metaleader.streams.rainbow import RainbowDigits, RainbowMnist
from metaleader.streams.sinusoid import Sinusoid
from metaleader.streams.task import Stream, Task

__all__ = ["RainbowDigits", "RainbowMnist", "Sinusoid", "Stream", "Task"]
