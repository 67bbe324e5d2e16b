"""The theory of the paper, checked: convex streams, exact leaders, Theorem 1, regret and its bounds (section 4)."""

from metaleader.theory.checks import run_checks
from metaleader.theory.claims import Claim, Findings, TheoryOptions
from metaleader.theory.deep import Offline, RegretEstimate, estimate_regret, train_offline
from metaleader.theory.exact import ExactFTL, ExactFTML, lead, leader
from metaleader.theory.page import check_free, terminal_table, write
from metaleader.theory.problems import Constants, Pool, Setting, constants, convex_problem, enlarged, setting, with_step
from metaleader.theory.regret import RegretCurve, checkpoints, follow, play_convex, regret
from metaleader.theory.streaming import STREAMING, AdaGrad, Entropic, Euclidean, Frozen, Leader, MirrorDescent, PNorm
from metaleader.theory.streams import ConvexStream, as_tasks
from metaleader.theory.theorem import inequalities, random_range, worst_range

__all__ = [
    "STREAMING",
    "AdaGrad",
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
    "RegretCurve",
    "RegretEstimate",
    "Setting",
    "TheoryOptions",
    "as_tasks",
    "check_free",
    "checkpoints",
    "constants",
    "convex_problem",
    "enlarged",
    "estimate_regret",
    "follow",
    "inequalities",
    "lead",
    "leader",
    "play_convex",
    "random_range",
    "regret",
    "run_checks",
    "setting",
    "terminal_table",
    "train_offline",
    "with_step",
    "worst_range",
    "write",
]
