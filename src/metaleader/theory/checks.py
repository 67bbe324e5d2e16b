"""Every claim of the theory beside what is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from metaleader.errors import UserError
from metaleader.learners import FTML, Adam, Learner, OnlineMetaGradient
from metaleader.models import MLP
from metaleader.online.protocol import OnlineProtocol, play
from metaleader.problem.losses import squared_error
from metaleader.problem.problem import Problem
from metaleader.problem.scores import mean_squared_error
from metaleader.streams import Sinusoid
from metaleader.theory import deep, games, theorem
from metaleader.theory.claims import Claim, Findings, TheoryOptions
from metaleader.theory.exact import ExactFTML, derivatives, lead, leader
from metaleader.theory.games import Streams, alpha_of
from metaleader.theory.problems import SLACK, Pool, Setting, with_step
from metaleader.theory.regret import play_convex
from metaleader.theory.streaming import Leader
from metaleader.theory.streams import ConvexTasks, as_tasks
from metaleader.update import GradientDescent, Identity

WIDE = 1e3  # radius of a ball in which no solution is at the border: appendix A knows no domain


class Step(NamedTuple):
    """Where `run_checks` stands: what comes next, how many checks of how many are done, what was found so far."""

    name: str
    done: int
    total: int
    found: Findings


def run_checks(options: TheoryOptions) -> Iterator[Step]:
    """Run all checks, and yield where it stands before each and at the end.

    Raises:
        UserError: an assumption of the theory fails and `outside_theory` is not set.

    Examples:
        >>> from metaleader.theory import TheoryOptions, run_checks
        >>> step = next(run_checks(TheoryOptions(rounds=100, seeds=1)))  # each further one takes seconds
        >>> step.name, step.done, step.found.claims
        ('closed forms', 0, [])
    """
    found = Findings()
    with jax.enable_x64(True):
        groups: dict[str, Streams] = {
            "quadratics": games.streams(options, ("quadratic", "regression"), ("iid", "drifting")),
            "adversarial": games.streams(options, ("quadratic", "regression"), ("adversarial",)),
            "logistic": games.streams(options, ("logistic",), ("iid", "drifting")),
            "trap": games.streams(options, ("quadratic",), ("trap",)),
        }
    first, curved = ((groups[name].settings[0], groups[name].tasks[0]) for name in ("quadratics", "logistic"))
    parts: list[tuple[str, Callable[[], None]]] = [
        ("closed forms", lambda: _exact(found, *first)),
        ("the proof's last step", lambda: _margins(found)),
        ("Theorem 1, quadratics", lambda: _theorem(found, "quadratic", *first)),
        ("Theorem 1, logistic", lambda: _theorem(found, "logistic", *curved)),
        *games.parts(found, groups),
        ("verbs and protocol", lambda: _verbs(found, *first)),
    ]
    total = len(parts) + 1
    for done, (name, part) in enumerate(parts):
        yield Step(name, done, total, found)
        try:
            with jax.enable_x64(True):
                part()
        except UserError as error:
            if not options.outside_theory:
                raise
            found.claims.append(Claim(f"{name}: cannot be computed", "", None, math.nan, outside=str(error)))
    yield Step("deep learners", total - 1, total, found)
    _deep(found)
    yield Step("done", total, total, found)


def _exact(found: Findings, given: Setting, stream: ConvexTasks) -> None:
    """Closed forms against the solver on the engine's own objective, and against appendix A in numpy."""
    pool, problem = Pool(*(leaf[:16] for leaf in stream.pool)), stream.problem
    ones, alpha = np.ones(16), alpha_of(given)
    for steps in (1, 3):
        update = GradientDescent(steps, alpha, derivative="plain")
        apart = lead(problem, update, pool, ones, given.radius) - leader(problem, update, pool, ones, given.radius).w
        found.add(
            f"closed form of FTML is the solver's, {steps} steps: ||w - w'||",
            "Eq. 4, app. A",
            1e-10,
            np.linalg.norm(apart),
        )
    update = GradientDescent(1, alpha, derivative="plain")
    same = Pool(np.broadcast_to(pool.inputs[:1], pool.inputs.shape), pool.targets)
    meta, joint = (np.asarray(lead(problem, u, same, ones, WIDE)) for u in (update, Identity()))
    found.add("equal A_i: FTML is joint training: ||w - w'||", "app. A", 1e-10, np.linalg.norm(meta - joint))
    a = np.einsum("tni,tnj->tij", pool.inputs, pool.inputs) / pool.inputs.shape[1]
    b = -np.einsum("tni,tn->ti", pool.inputs, pool.targets) / pool.inputs.shape[1]
    turned = np.linalg.matrix_power(np.eye(len(b[0])) - alpha * a, 2)
    plus = (turned @ a).mean(axis=0)
    expected = (
        -np.linalg.solve(a.mean(axis=0), b.mean(axis=0)),
        -np.linalg.solve(plus, np.einsum("tij,tj->ti", turned, b).mean(axis=0)),
    )
    values = []
    for name, through, by_hand in zip(("joint training", "FTML"), (Identity(), update), expected, strict=True):
        w = np.asarray(lead(problem, through, pool, ones, WIDE))  # type: ignore[arg-type]
        found.add(f"other A_i: {name} is appendix A's: ||w - w'||", "app. A", 1e-10, np.linalg.norm(w - by_hand))
        values.append(float(derivatives(problem, update, pool, ones / 16, w)[0]))
    apart = expected[0] - expected[1]
    wrong = abs(values[0] - values[1] - apart @ plus @ apart / 2) / (values[0] - values[1])
    found.add("... FTML gains (w-w')' A+ (w-w') / 2 by it after adaptation: relative error", "app. A", 1e-6, wrong)


def _margins(found: Findings) -> None:
    """The algebra from the constants to 9 beta / 8 and mu / 8, over constants of all sizes."""
    least, largest = theorem.margins()
    source = "proof, app. B"
    found.add(
        "10,000 random constants: [(1-alpha beta)^2 mu - alpha rho G] / (mu/8), least",
        source,
        1,
        least,
        at_most=False,
        holds=least >= 1 - SLACK,
    )
    found.add(
        "10,000 random constants: [alpha rho G + (1-alpha mu)^2 beta] / (9 beta/8), largest",
        source,
        1,
        largest,
        holds=largest <= 1 + SLACK,
    )


def _theorem(found: Findings, kind: str, given: Setting, stream: ConvexTasks) -> None:
    """Theorem 1 and its proof on the first tasks of a stream, and alpha beyond the bound."""
    pool = Pool(*(leaf[:16] for leaf in stream.pool))
    points = theorem.random_points(0, given.radius, pool.inputs.shape[-1], 64)
    _, beta, _, mu = given.constants

    def in_range(how: str, least: float, largest: float, outside: str | None) -> None:
        for sign, bound, value in ((">= mu/8", mu / 8, least), ("<= 9 beta/8", 9 * beta / 8, largest)):
            found.add(f"{kind}: {how} {sign}", "Theorem 1", bound, value, at_most=sign.startswith("<"), outside=outside)

    in_range("eigenvalues of f(U(w))", *theorem.worst_range(given, pool, points), given.outside)
    for each in theorem.inequalities(given, pool):
        known = {"holds": each.holds, "outside": given.outside}
        found.add(f"{kind}: {each.claim}", "proof, app. B", each.bound, each.measured, each.at_most, **known)
    allowed = with_step(given, pool, alpha_of(given)).constants.largest_step
    found.sweep[kind] = []
    for factor in np.geomspace(0.1, 1000, 13):
        beyond = with_step(given, pool, factor * allowed)
        values = theorem.worst_range(beyond, pool, points, steps=12)
        found.sweep[kind].append(
            {"factor": factor, "alpha": alpha_of(beyond), **values._asdict(), "mu": mu, "beta": beta}
        )
    in_range(f"alpha = {factor:.0f} times the bound, eigenvalues", *values, beyond.outside)


def _verbs(found: Findings, given: Setting, stream: ConvexTasks) -> None:
    """The exact learner under the protocol of the deep ones."""
    assert stream.order is not None
    assert isinstance(given.update, GradientDescent)
    order, exact = stream.order[:12], ExactFTML(given.update, given.radius)
    records = list(
        play(
            stream.problem,
            as_tasks(Pool(*(leaf[:12] for leaf in stream.pool)), order),
            exact,
            OnlineProtocol(chunk=stream.pool.targets.shape[1]),
        )
    )
    game = play_convex([given], [stream], Leader(), 12)[0]
    apart = np.abs(np.array([record.loss for record in records]) - game.losses)
    found.add("observe, adapt and play give the same losses as the sums", "Algorithm 1", 1e-10, apart.max())


def _deep(found: Findings) -> None:
    """Regret of nets on the sinusoids, against a net trained offline on all of them."""
    problem, tasks = (
        Problem(MLP(), squared_error, mean_squared_error),
        list(Sinusoid(rounds=20, examples_per_task=20, test_examples=100).stream(0)),
    )
    update, adam = GradientDescent(step_size=0.003), Adam(3e-3)
    offline = deep.train_offline(problem, update, tasks)
    learners: dict[str, Learner] = {
        "FTML": FTML(update, meta_steps=50, optimizer=adam),
        "streaming": OnlineMetaGradient(update, meta_steps=50, optimizer=adam),
    }
    for name, learner in learners.items():
        estimate = deep.estimate_regret(problem, tasks, learner, OnlineProtocol(chunk=10, evaluate_at=(20,)), offline)
        found.estimates[name] = estimate
        found.claims.append(
            Claim(
                f"deep {name} on 20 sinusoids: regret, estimated (at most {estimate.largest:.3g})",
                "Eq. 3",
                None,
                estimate.regret,
            )
        )
    found.claims.append(Claim("... its comparator's loss over all rounds", "Eq. 3", None, float(offline.losses.sum())))
    found.claims.append(
        Claim(
            "... and the comparator's own gap: what its last tenth of training still gained", "Eq. 3", None, offline.gap
        )
    )
