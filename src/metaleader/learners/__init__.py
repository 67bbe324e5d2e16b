"""Learners: FTML and what the paper compares it with."""

from metaleader.learners.base import Adam, Learner, Momentum, Spends, State
from metaleader.learners.ftml import FTML
from metaleader.learners.joint import FTL, TOE, JointTraining
from metaleader.learners.multihead import MultiHeadFTL, MultiHeadTOE
from metaleader.learners.online_meta_gradient import AdaGrad, Streaming
from metaleader.learners.scratch import Scratch

__all__ = [
    "FTL",
    "FTML",
    "TOE",
    "AdaGrad",
    "Adam",
    "JointTraining",
    "Learner",
    "Momentum",
    "MultiHeadFTL",
    "MultiHeadTOE",
    "Scratch",
    "Spends",
    "State",
    "Streaming",
]
