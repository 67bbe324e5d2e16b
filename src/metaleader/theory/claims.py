"""What is asked of the checks, and what they find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from metaleader.errors import UserError
from metaleader.theory.deep import RegretEstimate
from metaleader.theory.regret import RegretCurve


@dataclass(frozen=True)
class TheoryOptions:
    """Check Theorem 1 and the regret bounds on convex streams, and write a table, figures and a page.

    Examples:
        >>> from metaleader.theory import TheoryOptions
        >>> TheoryOptions(rounds=1000).seeds
        3
        >>> TheoryOptions(rounds=10)
        Traceback (most recent call last):
            ...
        metaleader.errors.UserError: rounds must be at least 100 and seeds at least 1, got 10 and 3
    """

    rounds: int = 10_000
    """T, of the longest streams."""
    seeds: int = 3
    """Draws of every stream."""
    radius: float = 2.0
    """Of the domain, the ball ||w|| <= radius."""
    ridge: float = 0.1
    """Penalty of logistic regression; below 0, it is not convex."""
    step: float = 1.0
    """The step size alpha, as a multiple of the largest that Theorem 1 allows."""
    out: Path | None = None
    """Folder for theory.json, theory.md and figures/theory. None: a new one under runs/."""
    outside_theory: bool = False
    """Go on where an assumption fails, and mark what was found as outside the theory."""

    def __post_init__(self) -> None:
        if self.rounds < 100 or self.seeds < 1:
            raise UserError(f"rounds must be at least 100 and seeds at least 1, got {self.rounds} and {self.seeds}")


@dataclass(frozen=True)
class Claim:
    """A line of the table.

    Attributes:
        claim: in words.
        source: where it stands.
        bound: what the theory says, None for an estimate without one.
        measured: the worst found.
        at_most: whether the bound is from above.
        holds: whether it does, at every point checked; None where nothing is claimed.
        outside: the assumption that fails, if one does.

    Examples:
        >>> from metaleader.theory import Claim
        >>> claim = Claim("Hessian of f <= beta", "Theorem 1", bound=1.0, measured=0.9, holds=True)
        >>> claim.measured <= claim.bound, claim.outside
        (True, None)
    """

    claim: str
    source: str
    bound: float | None
    measured: float
    at_most: bool = True
    holds: bool | None = None
    outside: str | None = None


@dataclass(frozen=True)
class RegretCheck:
    """The regret of a learner on a stream, judged by its bounds, and what the same judgement says of mistakes.

    Attributes:
        stream: its name.
        learner: its name.
        source: where the bounds stand.
        rounds: T, of the stream.
        regret: after T rounds, of the seed in which it is the largest part of the bound from the gradients seen.
        bounds: of that seed after T rounds, by name.
        holds: by bound, whether it holds in every seed at every number of rounds looked at.
        caught: by mistake, the bounds that whoever makes it breaks, in every seed.
        pays: by mistake, its regret after T rounds, the least over seeds.
        trap: whether the stream is made so that every mistake must break every bound.
        outside: the assumption that fails, if one does.

    Examples:
        >>> from metaleader.theory import RegretCheck
        >>> known = {"bounds": {"gradients": 4.0}, "caught": {"sign error": ()}, "pays": {"sign error": 3.5}}
        >>> check = RegretCheck("a stream", "FTML", "Eq. 4", 10, 3.0, holds={"gradients": True}, trap=True, **known)
        >>> check.passed, check.claim
        (False, 'regret of FTML on a stream; not caught: sign error (gradients)')
    """

    stream: str
    learner: str
    source: str
    rounds: int
    regret: float
    bounds: Mapping[str, float]
    holds: Mapping[str, bool]
    caught: Mapping[str, tuple[str, ...]]
    pays: Mapping[str, float]
    trap: bool = False
    outside: str | None = None

    @property
    def tested(self) -> set[str]:
        """The bounds that some mistake breaks: a regret below any other shows nothing on this stream."""
        return {name for names in self.caught.values() for name in names}

    @property
    def missed(self) -> list[str]:
        """In a trap, the mistakes that a bound did not catch, with that bound."""
        every = [(mistake, name) for mistake in self.caught for name in self.bounds] if self.trap else []
        return [f"{mistake} ({name})" for mistake, name in every if name not in self.caught[mistake]]

    @property
    def claim(self) -> str:
        """The check in words, with what failed if something did."""
        broken = [name for name, holds in self.holds.items() if not holds]
        failed = [f"bound broken: {', '.join(broken)}"] * bool(broken)
        failed += [f"not caught: {', '.join(self.missed)}"] * bool(self.missed)
        return "; ".join([f"regret of {self.learner} on {self.stream}", *failed])

    @property
    def passed(self) -> bool:
        """Whether every bound holds and, in a trap, catches every mistake."""
        return all(self.holds.values()) and not self.missed


@dataclass
class Findings:
    """All claims, and what the figures show.

    Attributes:
        claims: the table.
        regrets: the table of regret checks.
        curves: regret by stream and learner, one a seed; mistakes are called "learner: mistake".
        sweep: the range of eigenvalues against alpha, by kind of loss.
        estimates: regret of deep learners.

    Examples:
        >>> from metaleader.theory import Findings
        >>> found = Findings()
        >>> found.add("Hessian of f <= beta", "Theorem 1", bound=1.0, measured=0.9)
        >>> found.add("Hessian of f >= mu", "Theorem 1", bound=0.2, measured=0.1, at_most=False)
        >>> [claim.claim for claim in found.failed]
        ['Hessian of f >= mu']
    """

    claims: list[Claim] = field(default_factory=list)
    regrets: list[RegretCheck] = field(default_factory=list)
    curves: dict[tuple[str, str], list[RegretCurve]] = field(default_factory=dict)
    sweep: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    estimates: dict[str, RegretEstimate] = field(default_factory=dict)

    @property
    def failed(self) -> list[Claim | RegretCheck]:
        """Claims and regret checks inside the theory that do not hold."""
        claims: list[Claim | RegretCheck] = [c for c in self.claims if c.holds is False and c.outside is None]
        return claims + [check for check in self.regrets if not check.passed and check.outside is None]

    def add(
        self,
        claim: str,
        source: str,
        bound: float,
        measured: float | np.floating[Any],
        at_most: bool = True,
        **known: Any,
    ) -> None:
        """A claim; whether it holds is what the numbers say, unless known better."""
        holds = bool(measured <= bound if at_most else measured >= bound)
        self.claims.append(Claim(claim, source, float(bound), float(measured), at_most, **{"holds": holds, **known}))
