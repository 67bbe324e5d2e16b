"""Every claim of the theory beside what is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from metaleader.errors import UserError
from metaleader.learners import FTML, Adam, Learner, Streaming
from metaleader.models import MLP
from metaleader.objective import Problem, mean_squared_error, squared_error
from metaleader.protocol import Protocol, play
from metaleader.streams import Sinusoid
from metaleader.theory import deep, theorem
from metaleader.theory.claims import Claim, Findings, TheoryOptions
from metaleader.theory.exact import ExactFTML, derivatives, lead, leader
from metaleader.theory.problems import Pool, Setting, setting, with_step
from metaleader.theory.regret import RegretCurve, checkpoints, follow, play_convex, regret, state_bytes
from metaleader.theory.streaming import STREAMING, Frozen, Leader, OnlineLearner
from metaleader.theory.streams import RIDGE, ConvexStream, ConvexTasks, Kind, Order, as_tasks
from metaleader.update import GradientDescent, Identity

LEVEL = 1.25  # a regret over log T that grew by less in a decade has levelled off
LOGARITHMIC = ("FTML", "OGD, step 8/(mu t)", "mirror, entropic")  # whose bounds are


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
    """
    found = Findings()
    with jax.enable_x64(True):
        streams = {group: _streams(options, *group) for group in GROUPS}
        settings = {group: _settings(options, each) for group, each in streams.items()}
    parts: list[tuple[str, Callable[[], None]]] = [
        ("closed forms", lambda: _exact(found, *_first(streams, settings, QUADRATICS))),
        ("Theorem 1, quadratics", lambda: _theorem(found, "quadratic", *_first(streams, settings, QUADRATICS))),
        ("Theorem 1, logistic", lambda: _theorem(found, "logistic", *_first(streams, settings, LOGISTIC))),
    ]
    for group in GROUPS:
        for name, learner in {**(CLOSED if group[0] != ("logistic",) else {}), **STREAMING, "frozen": Frozen()}.items():
            parts.append(
                (
                    f"regret of {name}, {_name(group)}",
                    _later(_play, found, group, streams, settings, name, learner, options),
                )
            )
    parts += [
        ("regret of FTML, logistic", lambda: _follow(found, streams[LOGISTIC], settings[LOGISTIC])),
        ("regret without adaptation", lambda: _without(found, streams[QUADRATICS], settings[QUADRATICS], options)),
        ("growth", lambda: _growth(found)),
        ("verbs and protocol", lambda: _verbs(found, *_first(streams, settings, QUADRATICS))),
        ("state", lambda: _state(found, streams[QUADRATICS][0], settings[QUADRATICS][0], options)),
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


Group = tuple[tuple[Kind, ...], tuple[Order, ...]]
QUADRATICS: Group = (("quadratic", "regression"), ("iid", "drifting"))
ADVERSARIAL: Group = (("quadratic", "regression"), ("adversarial",))
LOGISTIC: Group = (("logistic",), ("iid", "drifting"))
GROUPS = (QUADRATICS, ADVERSARIAL, LOGISTIC)
CLOSED: Mapping[str, OnlineLearner] = {"FTML": Leader(), "joint training": Leader(meta=False)}
Streams = list[tuple[str, ConvexTasks]]


def _name(group: Group) -> str:
    return f"{' and '.join(group[0])}, {' and '.join(group[1])}"


def _later(function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    return lambda: function(*arguments)


def _streams(options: TheoryOptions, kinds: tuple[Kind, ...], orders: tuple[Order, ...]) -> Streams:
    return [
        (
            f"{kind}, {order}",
            ConvexStream(kind, order, options.rounds, ridge=options.ridge if kind == "logistic" else RIDGE).tasks(seed),
        )
        for kind in kinds
        for order in orders
        for seed in range(options.seeds)
    ]


def _settings(options: TheoryOptions, streams: Streams) -> list[Setting]:
    """One alpha for all streams of a group, the smallest of theirs."""
    own = [setting(s.problem, s.pool, options.radius, options.step, 1, options.outside_theory) for _, s in streams]
    alpha = min(_alpha(each) for each in own)
    return [with_step(each, s.pool, alpha) for each, (_, s) in zip(own, streams, strict=True)]


def _alpha(given: Setting) -> float:
    assert isinstance(given.update, GradientDescent)
    return given.update.step_size


def _first(streams: Any, settings: Any, group: Group) -> tuple[Setting, ConvexTasks]:
    return settings[group][0], streams[group][0][1]


def _exact(found: Findings, given: Setting, stream: ConvexTasks) -> None:
    """Closed forms against the solver on the engine's own objective; joint training against FTML."""
    pool = Pool(*(leaf[:16] for leaf in stream.pool))
    ones = np.ones(16)
    for steps in (1, 3):
        update = GradientDescent(steps, _alpha(given), derivative="plain")
        apart = (
            np.asarray(lead(stream.problem, update, pool, ones, given.radius))
            - leader(stream.problem, update, pool, ones, given.radius).w
        )
        found.add(
            f"closed form of FTML is the solver's, {steps} steps: ||w - w'||",
            "Eq. 4, app. A",
            1e-10,
            np.linalg.norm(apart),
        )
    update = GradientDescent(1, _alpha(given), derivative="plain")
    same = Pool(np.broadcast_to(pool.inputs[:1], pool.inputs.shape), pool.targets)
    meta, joint = (np.asarray(lead(stream.problem, u, same, ones, given.radius)) for u in (update, Identity()))
    found.add("equal A_i: FTML is joint training: ||w - w'||", "app. A", 1e-10, np.linalg.norm(meta - joint))
    meta, joint = (np.asarray(lead(stream.problem, u, pool, ones, given.radius)) for u in (update, Identity()))
    values = [derivatives(stream.problem, update, pool, ones / 16, w) for w in (meta, joint)]
    predicted = (joint - meta) @ np.asarray(values[0][2]) @ (joint - meta) / 2
    gain = float(values[1][0] - values[0][0])
    found.add("other A_i: FTML beats joint training after adaptation, by", "app. A", 1e-12, gain, at_most=False)
    found.add("... which is (w-w')' A+ (w-w') / 2, to", "app. A", 1e-10, abs(gain - predicted))


def _theorem(found: Findings, kind: str, given: Setting, stream: ConvexTasks) -> None:
    """Theorem 1 and its proof on the first tasks of a stream, and alpha beyond the bound."""
    pool = Pool(*(leaf[:16] for leaf in stream.pool))
    points = theorem.random_points(0, given.radius, pool.inputs.shape[-1], 64)
    _, beta, _, mu = given.constants
    for how, values in (
        ("random points", theorem.random_range(given, pool, points)),
        ("points sought out", theorem.worst_range(given, pool, points)),
    ):
        known: dict[str, Any] = {"outside": given.outside}
        found.add(
            f"{kind}: eigenvalues of f(U(w)) >= mu/8, {how}", "Theorem 1", mu / 8, values.least, at_most=False, **known
        )
        found.add(
            f"{kind}: eigenvalues of f(U(w)) <= 9 beta/8, {how}", "Theorem 1", 9 * beta / 8, values.largest, **known
        )
    for each in theorem.inequalities(given, pool):
        found.add(
            f"{kind}: {each.claim}",
            "proof, app. B",
            each.bound,
            each.measured,
            each.at_most,
            holds=bool(each.holds),
            outside=given.outside,
        )
    allowed = with_step(given, pool, _alpha(given)).constants.largest_step
    found.sweep[kind] = []
    for factor in np.geomspace(0.1, 1000, 13):
        beyond = with_step(given, pool, factor * allowed)
        values = theorem.worst_range(beyond, pool, points, steps=12)
        found.sweep[kind].append(
            {"factor": factor, "alpha": _alpha(beyond), **values._asdict(), "mu": mu, "beta": beta}
        )
    last = found.sweep[kind][-1]
    found.add(
        f"{kind}: alpha = {last['factor']:.0f} times the bound, eigenvalues >= mu/8",
        "Theorem 1",
        mu / 8,
        last["least"],
        at_most=False,
        outside=beyond.outside,
    )
    found.add(
        f"{kind}: alpha = {last['factor']:.0f} times the bound, eigenvalues <= 9 beta/8",
        "Theorem 1",
        9 * beta / 8,
        last["largest"],
        outside=beyond.outside,
    )


def _play(
    found: Findings,
    group: Group,
    streams: Any,
    settings: Any,
    name: str,
    learner: OnlineLearner,
    options: TheoryOptions,
) -> None:
    given, tasks = settings[group], [stream for _, stream in streams[group]]
    games = play_convex(given, tasks, learner, options.rounds)
    at = checkpoints(options.rounds)
    curves = [regret(g, s.pool, game, at) for g, s, game in zip(given, tasks, games, strict=True)]
    found.kept[name] = games[0].state_bytes
    _note(found, name, streams[group], given, curves, claimed=name in {"FTML", *STREAMING})


def _follow(found: Findings, streams: Streams, settings: Sequence[Setting]) -> None:
    curves = []
    for (_, stream), given in zip(streams, settings, strict=True):
        assert stream.order is not None
        game = follow(given, stream.pool, stream.order, given.update)
        curves.append(regret(given, stream.pool, game, checkpoints(len(stream.order))))
    _note(found, "FTML", streams, settings, curves, claimed=True)


def _without(found: Findings, streams: Streams, settings: Sequence[Setting], options: TheoryOptions) -> None:
    """Follow the leader where no one adapts (Eq. 2)."""
    given = [each._replace(update=Identity()) for each in settings]
    tasks = [stream for _, stream in streams]
    games = play_convex(given, tasks, Leader(), options.rounds)
    curves = [
        regret(g, s.pool, game, checkpoints(options.rounds)) for g, s, game in zip(given, tasks, games, strict=True)
    ]
    _note(found, "FTL, U = identity", streams, given, curves, claimed=True)


def _note(
    found: Findings,
    name: str,
    streams: Streams,
    settings: Sequence[Setting],
    curves: Sequence[RegretCurve],
    claimed: bool,
) -> None:
    """Keep the curves, and claim of every stream that its worst seed is below the bound."""
    sources = {"FTML": "Corollary 2", "FTL, U = identity": "Eq. 2"}
    for label in dict.fromkeys(label for label, _ in streams):
        each = [(c, g) for c, g, (own, _) in zip(curves, settings, streams, strict=True) if own == label]
        found.curves[label, name] = [c for c, _ in each]
        if claimed:
            worst, given = max(each, key=lambda pair: float(np.max(pair[0].regret / pair[0].observed)))
            found.add(
                f"regret of {name}; {label}",
                sources.get(name, "its bound, see below"),
                worst.observed[-1],
                worst.regret[-1],
                holds=all(c.holds for c, _ in each),
                outside=given.outside,
            )


def _growth(found: Findings) -> None:
    """Logarithmic regret levels off over log T; who never learns pays in every round."""
    for name in LOGARITHMIC:
        growth = [c.growth for (_, own), kept in found.curves.items() if own == name for c in kept]
        found.add(
            f"{name}: regret over log T, against a decade before",
            "Corollary 2" if name == "FTML" else "its bound",
            LEVEL,
            max(growth),
        )
    frozen = [
        c.growth
        for (label, own), kept in found.curves.items()
        if own == "frozen" and "adversarial" in label
        for c in kept
    ]
    found.add(
        "the adversary makes the regret of w_1 for ever grow linearly", "section 3", 5, min(frozen), at_most=False
    )
    for label in dict.fromkeys(label for label, _ in found.curves if "logistic" not in label):
        ends = {own: np.mean([c.regret[-1] for c in found.curves[label, own]]) for own in CLOSED}
        found.claims.append(
            Claim(
                f"{label}: loss of joint training above FTML's, after adaptation, all rounds",
                "section 6",
                None,
                ends["joint training"] - ends["FTML"],
            )
        )


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
            Protocol(chunk=stream.pool.targets.shape[1]),
        )
    )
    game = play_convex([given], [stream], Leader(), 12)[0]
    apart = np.abs(np.array([record.loss for record in records]) - game.losses)
    found.add("observe, adapt and play give the same losses as the sums", "Algorithm 1", 1e-10, apart.max())


def _state(found: Findings, named: tuple[str, ConvexTasks], given: Setting, options: TheoryOptions) -> None:
    """What a streaming learner keeps, after 10 rounds and after all."""
    for name, learner in STREAMING.items():
        few, many = state_bytes(given, named[1], learner, 10), found.kept[name]
        found.add(
            f"{name}: bytes kept after {options.rounds} rounds, and after 10", "section 7", few, many, holds=few == many
        )


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
        "streaming": Streaming(update, meta_steps=50, optimizer=adam),
    }
    for name, learner in learners.items():
        estimate = deep.estimate_regret(problem, tasks, learner, Protocol(chunk=10, evaluate_at=(20,)), offline)
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
