"""Regret: measured as defined, below its bounds, and bounds that would fail if the constants were wrong."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaleader import FTML, GradientDescent, Identity, Protocol, UserError, cli
from metaleader import theory as th
from metaleader.theory.page import verdict
from metaleader.theory.regret import hindsight, state_bytes
from metaleader.theory.streaming import convexity

RADIUS, ROUNDS = 2.0, 300
LEARNERS: dict[str, Any] = {"FTML": th.Leader(), **th.STREAMING}


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def games(learner: Any) -> tuple[Any, Any, Any]:
    """Two adversarial streams."""
    streams = [th.ConvexStream("quadratic", "adversarial", ROUNDS).tasks(seed) for seed in (0, 1)]
    own = [th.setting(s.problem, s.pool, RADIUS) for s in streams]
    alpha = min(s.update.step_size for s in own)  # type: ignore[union-attr]
    settings = [th.with_step(s, stream.pool, alpha) for s, stream in zip(own, streams, strict=True)]
    return settings, streams, th.play_convex(settings, streams, learner, ROUNDS)


def loss(pool: Any, index: int, w: Any, alpha: float) -> Any:
    """f(U(w)) and its gradient for a quadratic, in numpy."""
    x, y = pool.inputs[index], pool.targets[index]
    a, b = x.T @ x / len(x), -x.T @ y / len(x)
    turn = np.eye(len(w)) - alpha * a
    u = turn @ w - alpha * b
    return np.mean((x @ u - y) ** 2) / 2, turn @ (a @ u + b)


@pytest.mark.parametrize("name", LEARNERS)
def test_regret_is_below_its_bounds_against_an_adversary(name: str) -> None:
    settings, streams, played = games(LEARNERS[name])
    at = th.checkpoints(ROUNDS)
    for setting, stream, game in zip(settings, streams, played, strict=True):
        curve = th.regret(setting, stream.pool, game, at)
        assert curve.holds
        assert (curve.observed <= curve.bound * (1 + 1e-9)).all()
        assert curve.regret[-1] > 0.1
        # The best in hindsight, by brute force: no point of a cloud around it loses less in all rounds.
        best = hindsight(setting, stream.pool, game.order, np.array([ROUNDS]))[0]
        alpha = setting.update.step_size
        cloud = th.theorem.random_points(0, RADIUS, 4, 40)
        counts = np.bincount(game.order, minlength=16)
        sums = [sum(c * loss(stream.pool, i, w, alpha)[0] for i, c in enumerate(counts)) for w in cloud]
        assert best <= min(sums)


def test_a_bound_from_a_wrong_constant_is_broken() -> None:
    settings, streams, _ = games(th.Leader())
    wrong = [
        s._replace(constants=s.constants._replace(strong_convexity=300 * s.constants.strong_convexity))
        for s in settings
    ]
    played = th.play_convex(wrong, streams, th.Leader(), ROUNDS)
    curves = [th.regret(s, x.pool, g, th.checkpoints(ROUNDS)) for s, x, g in zip(wrong, streams, played, strict=True)]
    assert not any(curve.holds for curve in curves)


def test_who_never_learns_pays_in_every_round_and_ftml_does_not() -> None:
    at = th.checkpoints(ROUNDS)
    growth = {}
    for name, learner in (("frozen", th.Frozen()), ("FTML", th.Leader())):
        settings, streams, played = games(learner)
        growth[name] = th.regret(settings[0], streams[0].pool, played[0], at).growth
    assert growth["frozen"] > 5
    assert growth["FTML"] < 1.25


def test_mirror_descent_with_the_euclidean_map_is_projected_gradient_descent_with_step_8_over_mu_t() -> None:
    settings, streams, played = games(th.MirrorDescent())
    setting, pool, w = settings[0], streams[0].pool, np.zeros(4)
    for t in range(1, 60):
        losses = [loss(pool, i, w, setting.update.step_size)[0] for i in range(16)]
        assert played[0].order[t - 1] == np.argmax(losses)
        value, gradient = loss(pool, int(np.argmax(losses)), w, setting.update.step_size)
        assert played[0].losses[t - 1] == pytest.approx(value, abs=1e-10)
        w = w - 8 / (setting.constants.strong_convexity * t) * gradient
        w = w * min(1, RADIUS / np.linalg.norm(w))


def test_the_largest_gradient_and_the_least_curvature_of_what_is_incurred() -> None:
    settings, streams, _ = games(th.Leader())
    sigma, lipschitz = convexity(settings[0])
    alpha = settings[0].update.step_size
    points = th.theorem.random_points(3, RADIUS, 4, 200)
    norms = [np.linalg.norm(loss(streams[0].pool, i, w, alpha)[1]) for i in range(16) for w in points]
    assert max(norms) <= float(lipschitz)
    assert float(sigma) == settings[0].constants.strong_convexity / 8
    assert convexity(settings[0]._replace(update=Identity())) == (
        settings[0].constants.strong_convexity,
        settings[0].constants.lipschitz,
    )


@given(st.integers(0, 10**6), st.sampled_from([th.Euclidean(), th.PNorm(1.3), th.Entropic(0.3), th.Entropic(2.0)]))
def test_mirror_maps(seed: int, mirror: Any) -> None:
    """Gradients invert, divergences are between their bounds, projections are nearest."""
    random = np.random.default_rng(seed)

    def inside() -> Any:
        w = np.asarray(mirror.primal(mirror.dual(random.normal(size=4), RADIUS), RADIUS))
        return 0.999 * w

    def divergence(u: Any, w: Any) -> float:
        """B(u, w), by integrating the gradient of R from w to u."""
        path = np.stack([np.asarray(mirror.dual(w + (k + 0.5) / 20 * (u - w), RADIUS)) for k in range(20)])
        return float(np.mean((path - np.asarray(mirror.dual(w, RADIUS))) @ (u - w)))

    u, w = inside(), inside()
    np.testing.assert_allclose(mirror.primal(mirror.dual(u, RADIUS), RADIUS), u, atol=1e-9)
    between = divergence(u, w)
    norm = mirror.dual_norm  # of the dual; the primal norm is the largest x'g over unit g
    p = getattr(mirror, "p", 2.0)
    primal_norm = np.sum(np.abs(u - w) ** p) ** (1 / p)
    assert np.abs((u - w) @ w) <= primal_norm * float(norm(w)) * (1 + 1e-9)
    assert between >= mirror.modulus(RADIUS, 4) / 2 * primal_norm**2 * 0.9
    assert between <= min(mirror.curvature(RADIUS, 4) / 2 * np.sum((u - w) ** 2), mirror.diameter(RADIUS, 4)) * 1.1
    theta = 3 * random.normal(size=4) + np.asarray(mirror.dual(w, RADIUS))
    nearest = np.asarray(mirror.primal(theta, RADIUS))
    # Optimality over the domain: (grad R(nearest) - theta)'(u - nearest) >= 0.
    assert (np.asarray(mirror.dual(nearest, RADIUS)) - theta) @ (u - nearest) >= -1e-8


def test_logistic_leaders_are_followed_to_the_solver_s() -> None:
    stream = th.ConvexStream("logistic", "iid", 40).tasks(0)
    assert stream.order is not None
    setting = th.setting(stream.problem, stream.pool, RADIUS)
    assert isinstance(setting.update, GradientDescent)
    game = th.follow(setting, stream.pool, stream.order, setting.update)
    for t in (1, 5, 39):
        w = th.leader(
            stream.problem, setting.update, stream.pool, np.bincount(stream.order[:t], minlength=16) * 1.0, RADIUS
        ).w
        x, y = stream.pool.inputs[stream.order[t]], stream.pool.targets[stream.order[t]]
        slope = x.T @ (-y / (1 + np.exp(y * (x @ w)))) / 12 + 0.1 * w
        u = w - setting.update.step_size * slope
        assert game.losses[t] == pytest.approx(np.mean(np.log1p(np.exp(-y * (x @ u)))) + 0.05 * u @ u, abs=1e-10)
    assert th.regret(setting, stream.pool, game, th.checkpoints(40)).holds


@pytest.mark.parametrize("name", th.STREAMING)
def test_what_a_streaming_learner_keeps_does_not_grow(name: str) -> None:
    stream = th.ConvexStream("quadratic", "iid", 1000).tasks(0)
    setting = th.setting(stream.problem, stream.pool, RADIUS)
    few, many = (state_bytes(setting, stream, th.STREAMING[name], rounds) for rounds in (10, 1000))
    assert few == many <= 64


def test_regret_of_a_deep_learner_is_estimated_from_below_and_its_comparator_is_near_the_best() -> None:
    """On convex tasks the best in hindsight is known."""
    stream = th.ConvexStream("quadratic", "iid", 16).tasks(0)
    update = GradientDescent(steps=1, step_size=0.5)
    exact = th.setting(stream.problem, stream.pool, RADIUS)
    exact = th.with_step(exact, stream.pool, 0.5)
    best = hindsight(exact, stream.pool, np.arange(16), np.array([16]))[0]
    tasks = th.as_tasks(stream.pool, np.arange(16))
    with jax.enable_x64(False):
        offline = th.train_offline(stream.problem, update, tasks, steps=300, step_size=0.03)
        learner = FTML(update, meta_steps=2, meta_batch=2)
        estimate = th.estimate_regret(stream.problem, tasks, learner, Protocol(chunk=12), offline)
    assert best - 1e-5 <= offline.losses.sum() <= best + 1e-3
    assert 0 <= offline.gap < 1e-3
    regret = estimate.losses.sum() - best
    assert estimate.regret <= regret + 1e-5
    assert regret <= estimate.regret + 1e-3
    assert regret <= estimate.largest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--step", "4", "--rounds", "100"], "alpha <= 1 / (2 beta) fails: alpha = "),
        (["--radius", "inf", "--rounds", "100"], "G < inf fails"),
        (["--ridge", "-0.2", "--rounds", "100"], "mu > 0 fails"),
        (["--rounds", "3"], "rounds must be at least 100"),
        (["--rouns", "3"], "--rouns"),
    ],
)
def test_the_command_refuses_in_one_line(
    options: list[str], message: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(["theory", *options])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert message in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_results_are_not_overwritten_and_verdicts_say_what_is_outside(tmp_path: Any) -> None:
    (tmp_path / "theory.json").write_text("{}")
    with pytest.raises(UserError, match="exists already"):
        th.check_free(tmp_path)
    found = th.Findings()
    found.add("a", "", 1.0, 2.0)
    found.add("b", "", 1.0, 2.0, outside="alpha too large")
    found.add("c", "", 1.0, 2.0, at_most=False)
    assert [verdict(claim) for claim in found.claims] == ["NO", "outside, fails", "yes"]
    assert [claim.claim for claim in found.failed] == ["a"]


@pytest.mark.slow
def test_the_command_from_options_to_page(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, jax.enable_x64(False):
        cli.main(["theory", "--rounds", "300", "--seeds", "1", "--out", str(tmp_path / "out")])
    assert end.value.code == 0
    assert (tmp_path / "out" / "theory.md").read_text().count("| yes |") > 50
    assert (tmp_path / "out" / "figures" / "theory" / "regret.png").stat().st_size > 10_000
    assert "Corollary 2" in capsys.readouterr().out
