"""Regret checks: every learner on every stream, and the same judgement of learners that make a mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from metaleader.theory.claims import Findings, RegretCheck, TheoryOptions
from metaleader.theory.problems import Setting, setting, with_step, without_adaptation
from metaleader.theory.regret import RegretCurve, checkpoints, follow, play_convex, regret
from metaleader.theory.streaming import STREAMING, AdaGrad, Frozen, Leader, MirrorDescent, OnlineLearner, Unadapted
from metaleader.theory.streams import RIDGE, ConvexStream, ConvexTasks, Kind, Order
from metaleader.update import GradientDescent, Identity

MISTAKES = ("joint training", "step x 100", "sign error")
"""What goes wrong in the learners that `mistaken` makes.

Examples:
    >>> from metaleader.theory import MISTAKES, Leader, mistaken
    >>> tuple(mistaken(Leader())) == MISTAKES
    True
"""

TRAP_ROUNDS, TRAP_RADIUS = 200_000, 0.5  # long enough that joint training breaks even the paper's own bound
SOURCES = {"FTML": "Corollary 2", "FTL, U = identity": "Eq. 2"}


@dataclass(frozen=True)
class Streams:
    """Streams that are played at once: equal shapes, one alpha.

    Attributes:
        names: of each, the same for its seeds.
        tasks: of each.
        settings: of each.
        rounds: T.
    """

    names: tuple[str, ...]
    tasks: tuple[ConvexTasks, ...]
    settings: tuple[Setting, ...]
    rounds: int

    @property
    def trap(self) -> bool:
        """Whether they are made to catch mistakes."""
        return self.names[0].endswith("trap")

    def without_adaptation(self) -> Streams:
        """The same with U the identity."""
        known = zip(self.settings, self.tasks, strict=True)
        return replace(self, settings=tuple(without_adaptation(given, stream.pool) for given, stream in known))


def streams(options: TheoryOptions, kinds: Sequence[Kind], orders: Sequence[Order]) -> Streams:
    """All kinds in all orders and seeds, with one alpha, the smallest that one of them allows.

    The trap has its own T, radius and alpha: it shows what the checks are worth, and asks for no option.

    Raises:
        UserError: an assumption of the theory fails and `outside_theory` is not set.
    """
    trap = "trap" in orders
    rounds = TRAP_ROUNDS if trap else options.rounds
    drawn = [
        (
            f"{kind}, {order}",
            ConvexStream(kind, order, rounds, ridge=options.ridge if kind == "logistic" else RIDGE).tasks(seed),
        )
        for kind in kinds
        for order in orders
        for seed in range(options.seeds)
    ]
    radius, step = (TRAP_RADIUS, 1.0) if trap else (options.radius, options.step)
    own = [setting(s.problem, s.pool, radius, step, 1, options.outside_theory) for _, s in drawn]
    alpha = min(alpha_of(each) for each in own)
    settings = tuple(with_step(each, s.pool, alpha) for each, (_, s) in zip(own, drawn, strict=True))
    return Streams(tuple(name for name, _ in drawn), tuple(s for _, s in drawn), settings, rounds)


def alpha_of(given: Setting) -> float:
    """The step size of U."""
    assert isinstance(given.update, GradientDescent)
    return given.update.step_size


def mistaken(learner: Leader | MirrorDescent | AdaGrad) -> dict[str, OnlineLearner]:
    """The learner with each of `MISTAKES` in its code, and with the bound that it would have without.

    Examples:
        >>> from metaleader.theory import AdaGrad, mistaken
        >>> for name, learner in mistaken(AdaGrad()).items():
        ...     print(name, learner, sep=": ")
        joint training: Unadapted(learner=AdaGrad(factor=1.0))
        step x 100: AdaGrad(factor=100.0)
        sign error: AdaGrad(factor=-1.0)
    """
    joint = replace(learner, meta=False) if isinstance(learner, Leader) else Unadapted(learner)
    return dict(zip(MISTAKES, (joint, replace(learner, factor=100.0), replace(learner, factor=-1.0)), strict=True))


def parts(found: Findings, groups: Mapping[str, Streams]) -> Iterator[tuple[str, Callable[[], None]]]:
    """Every game by name, as a function that plays it and notes what it finds."""
    for group in groups.values():
        label = " and ".join(dict.fromkeys(group.names))
        closed = "logistic" not in label
        known: dict[str, Leader | MirrorDescent | AdaGrad] = {**({"FTML": Leader()} if closed else {}), **STREAMING}
        for name, learner in known.items():
            yield f"regret of {name}, {label}", _later(_play, found, group, name, learner)
        if not closed:
            yield f"regret of FTML, {label}", _later(_follow, found, group)
        yield f"regret of w_1 for ever, {label}", _later(_frozen, found, group)
    for group in (groups["quadratics"], groups["trap"]):
        yield "regret without adaptation", _later(_unadapted, found, group.without_adaptation())


def _later(function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    return lambda: function(*arguments)


def _play(found: Findings, group: Streams, name: str, learner: Leader | MirrorDescent | AdaGrad) -> None:
    everyone = {"": learner, **mistaken(learner)}
    _note(found, group, name, {mistake: curves(group, each, name == "FTML") for mistake, each in everyone.items()})


def curves(group: Streams, learner: OnlineLearner, paper: bool = False) -> list[RegretCurve]:
    """The regret of a learner on every stream, with the paper's own bound if asked for."""
    at, known = checkpoints(group.rounds), zip(group.settings, group.tasks, strict=True)
    games = play_convex(group.settings, group.tasks, learner, group.rounds)
    return [regret(given, s.pool, game, at, paper) for (given, s), game in zip(known, games, strict=True)]


def _frozen(found: Findings, group: Streams) -> None:
    """For the figures: no bound, no check."""
    _keep(found, group, "frozen", curves(group, Frozen()))


def _follow(found: Findings, group: Streams) -> None:
    """FTML where sums of losses have no closed form."""
    everyone: dict[str, list[RegretCurve]] = {}
    how = (("", True, 1.0), *zip(MISTAKES, (False, True, True), (1.0, 100.0, -1.0), strict=True))
    for mistake, meta, factor in how:
        everyone[mistake] = []
        for given, stream in zip(group.settings, group.tasks, strict=True):
            assert stream.order is not None
            game = follow(given, stream.pool, stream.order, given.update if meta else Identity(), factor)
            everyone[mistake].append(regret(given, stream.pool, game, checkpoints(group.rounds), paper=True))
    _note(found, group, "FTML", everyone)


def _unadapted(found: Findings, group: Streams) -> None:
    """Follow the leader where no one adapts (Eq. 2): there, joint training is no mistake."""
    everyone = {"": Leader(), **{m: each for m, each in mistaken(Leader()).items() if m != MISTAKES[0]}}
    _note(found, group, "FTL, U = identity", {mistake: curves(group, each) for mistake, each in everyone.items()})


def _keep(found: Findings, group: Streams, name: str, kept: Sequence[RegretCurve]) -> None:
    for label in dict.fromkeys(group.names):
        found.curves[label, name] = [c for c, own in zip(kept, group.names, strict=True) if own == label]


def _note(found: Findings, group: Streams, name: str, everyone: Mapping[str, Sequence[RegretCurve]]) -> None:
    """Keep all curves, and judge each stream."""
    for mistake, kept in everyone.items():
        _keep(found, group, f"{name}: {mistake}" if mistake else name, kept)
    for label, given in dict(zip(group.names, group.settings, strict=True)).items():
        mistakes = {m: found.curves[label, f"{name}: {m}"] for m in everyone if m}
        found.regrets.append(
            judge(label, name, found.curves[label, name], mistakes, trap=group.trap, outside=given.outside)
        )


def judge(
    stream: str,
    learner: str,
    honest: Sequence[RegretCurve],
    mistakes: Mapping[str, Sequence[RegretCurve]],
    trap: bool = False,
    outside: str | None = None,
) -> RegretCheck:
    """One check: whether the honest learner keeps its bounds in every seed, and which of them each mistake breaks.

    Args:
        stream: its name.
        learner: its name.
        honest: regret of the learner, one curve a seed.
        mistakes: the same of those who make a mistake, by mistake; their bounds are computed by the same rule, from
            the gradients that they themselves saw.
        trap: whether every mistake must break every bound.
        outside: the assumption of the theory that fails, if one does.

    Examples:
        >>> import numpy as np
        >>> from metaleader.theory import RegretCurve, judge
        >>> bounds = {"gradients": np.array([2.0, 4.0])}
        >>> rounds, gap = np.array([1, 10]), np.zeros(2)
        >>> honest, wrong = (RegretCurve(rounds, np.array([1.0, last]), gap, bounds) for last in (3.0, 90.0))
        >>> check = judge("a stream", "FTML", [honest], {"sign error": [wrong]}, trap=True)
        >>> check.passed, check.caught
        (True, {'sign error': ('gradients',)})
    """
    worst = max(honest, key=lambda c: float(np.max(c.regret / c.bounds["gradients"])))
    return RegretCheck(
        stream,
        learner,
        SOURCES.get(learner, "its own bound"),
        int(worst.rounds[-1]),
        float(worst.regret[-1]),
        {name: float(bound[-1]) for name, bound in worst.bounds.items()},
        {name: all(c.holds(name) for c in honest) for name in worst.bounds},
        {
            m: tuple(name for name in worst.bounds if not any(c.holds(name) for c in each))
            for m, each in mistakes.items()
        },
        {m: min(float(c.regret[-1]) for c in each) for m, each in mistakes.items()},
        trap,
        outside,
    )
