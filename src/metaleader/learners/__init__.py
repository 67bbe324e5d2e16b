"""Learners: FTML and what the paper compares it with."""

from metaleader.learners.ftml import FTML
from metaleader.learners.joint import FTL, TOE
from metaleader.learners.multihead import MultiHeadTOE
from metaleader.learners.scratch import Scratch
from metaleader.learners.state import Adam, Learner, Momentum, State
from metaleader.learners.streaming import AdaGrad, Streaming

__all__ = [
    "FTL",
    "FTML",
    "TOE",
    "AdaGrad",
    "Adam",
    "Learner",
    "Momentum",
    "MultiHeadTOE",
    "Scratch",
    "State",
    "Streaming",
]
