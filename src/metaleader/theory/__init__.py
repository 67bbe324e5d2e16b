"""The theory of the paper, checked: convex streams, exact leaders, Theorem 1, regret and its bounds (section 4)."""

from metaleader.theory.checks import run_checks
from metaleader.theory.claims import Claim, Findings, RegretCheck, TheoryOptions
from metaleader.theory.deep import Offline, RegretEstimate, estimate_regret, train_offline
from metaleader.theory.domains import Ball, Box
from metaleader.theory.exact import ExactFTL, ExactFTML, lead, leader
from metaleader.theory.games import MISTAKES, judge, mistaken
from metaleader.theory.hindsight import Best, best_on
from metaleader.theory.mirrors import Entropic, Euclidean, PNorm
from metaleader.theory.page import check_free, terminal_table, write
from metaleader.theory.problems import Constants, Pool, Setting, constants, convex_problem, enlarged, setting, with_step
from metaleader.theory.regret import RegretCurve, checkpoints, follow, play_convex, regret
from metaleader.theory.streaming import STREAMING, AdaGrad, Frozen, Leader, MirrorDescent, Unadapted
from metaleader.theory.streams import ConvexStream, as_tasks
from metaleader.theory.theorem import inequalities, margins, worst_range

__all__ = [
    "MISTAKES",
    "STREAMING",
    "AdaGrad",
    "Ball",
    "Best",
    "Box",
    "Claim",
    "Constants",
    "ConvexStream",
    "Entropic",
    "Euclidean",
    "ExactFTL",
    "ExactFTML",
    "Findings",
    "Frozen",
    "Leader",
    "MirrorDescent",
    "Offline",
    "PNorm",
    "Pool",
    "RegretCheck",
    "RegretCurve",
    "RegretEstimate",
    "Setting",
    "TheoryOptions",
    "Unadapted",
    "as_tasks",
    "best_on",
    "check_free",
    "checkpoints",
    "constants",
    "convex_problem",
    "enlarged",
    "estimate_regret",
    "follow",
    "inequalities",
    "judge",
    "lead",
    "leader",
    "margins",
    "mistaken",
    "play_convex",
    "regret",
    "run_checks",
    "setting",
    "terminal_table",
    "train_offline",
    "with_step",
    "worst_range",
    "write",
]
