"""Learners: FTML and what the paper compares it with.

Examples:
    >>> import metaleader as ml
    >>> shared = {"optimizer": ml.Adam(0.01), "retention": ml.Retention("reservoir", budget=1000)}
    >>> learners = {"ftml": ml.learners.FTML(**shared), "ftl": ml.learners.FTL(**shared)}
    >>> all(isinstance(learner, ml.Learner) for learner in learners.values())
    True
"""

from metaleader.learners import external
from metaleader.learners.base import Learned, Learner, Spends
from metaleader.learners.ftml import FTML
from metaleader.learners.joint import FTL, TOE, JointTraining
from metaleader.learners.multihead import MultiHeadFTL, MultiHeadTOE
from metaleader.learners.online_meta_gradient import OnlineMetaGradient
from metaleader.learners.optimizers import AdaGrad, Adam, Momentum, averaging
from metaleader.learners.scratch import Scratch

__all__ = [
    "FTL",
    "FTML",
    "TOE",
    "AdaGrad",
    "Adam",
    "JointTraining",
    "Learned",
    "Learner",
    "Momentum",
    "MultiHeadFTL",
    "MultiHeadTOE",
    "OnlineMetaGradient",
    "Scratch",
    "Spends",
    "averaging",
    "external",
]
