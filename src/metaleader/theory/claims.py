"""What is asked of the checks, and what they find."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from metaleader.errors import UserError
from metaleader.theory.deep import RegretEstimate
from metaleader.theory.regret import RegretCurve


@dataclass(frozen=True)
class TheoryOptions:
    """Check Theorem 1 and the regret bounds on convex streams, and write a table, figures and a page."""

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
        holds: whether it does, everywhere it was looked at; None where nothing is claimed.
        outside: the assumption that fails, if one does.
    """

    claim: str
    source: str
    bound: float | None
    measured: float
    at_most: bool = True
    holds: bool | None = None
    outside: str | None = None


@dataclass
class Findings:
    """All claims, and what the figures show.

    Attributes:
        claims: the table.
        curves: regret by stream and learner, one a seed.
        kept: bytes that a learner keeps after the longest stream.
        sweep: the range of eigenvalues against alpha, by kind of loss.
        estimates: regret of deep learners.
    """

    claims: list[Claim] = field(default_factory=list)
    curves: dict[tuple[str, str], list[RegretCurve]] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    sweep: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    estimates: dict[str, RegretEstimate] = field(default_factory=dict)

    @property
    def failed(self) -> list[Claim]:
        """Claims inside the theory that do not hold."""
        return [claim for claim in self.claims if claim.holds is False and claim.outside is None]

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
