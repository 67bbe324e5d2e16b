"""Regret: measured as defined, below its bounds, and bounds that would fail if the constants were wrong."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from metaleader import FTML, GradientDescent, Identity, OnlineProtocol, UserError
from metaleader import theory as th
from metaleader.commands import main as cli
from metaleader.theory.exact import derivatives
from metaleader.theory.hindsight import hindsight
from metaleader.theory.page import verdict
from metaleader.theory.problems import without_adaptation
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
        curve = th.regret(setting, stream.pool, game, at, paper=name == "FTML")
        assert all(curve.holds(bound) for bound in curve.bounds)
        assert (curve.bounds["gradients"] <= curve.bounds["constants"] * (1 + 1e-9)).all()
        if name == "FTML":
            g, _, _, mu = setting.constants
            np.testing.assert_allclose(curve.bounds["paper"], 32 * g**2 / mu * (1 + np.log(at)))
            assert (curve.bounds["constants"] <= curve.bounds["paper"]).all()
        assert curve.regret[-1] > 0.1
        # The best in hindsight, by brute force: no point of a cloud around it loses less in all rounds.
        best = hindsight(setting, stream.pool, game.order, np.array([ROUNDS]), game.domain)[0][0]
        alpha = setting.update.step_size
        cloud = [project(game.domain, w) for w in th.theorem.random_points(0, RADIUS, 4, 40)]
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
    assert not any(curve.holds("gradients") for curve in curves)


def trapped(learner: Any, rounds: int, seed: int = 0, paper: bool = False) -> Any:
    """The regret of a learner in the trap."""
    stream = th.ConvexStream("quadratic", "trap", rounds).tasks(seed)
    setting = th.setting(stream.problem, stream.pool, 0.5)
    game = th.play_convex([setting], [stream], learner, rounds)[0]
    return th.regret(setting, stream.pool, game, th.checkpoints(rounds), paper)


@pytest.mark.parametrize("name", LEARNERS)
def test_every_mistake_breaks_the_bounds_of_every_learner(name: str) -> None:
    rounds = 100_000 if name in {"AdaGrad", "mirror, p-norm"} else 20_000  # bounds like the square root of T
    mistakes = {mistake: [trapped(each, rounds)] for mistake, each in th.mistaken(LEARNERS[name]).items()}
    check = th.judge("trap", name, [trapped(LEARNERS[name], rounds)], mistakes, trap=True)
    assert list(check.caught) == list(th.MISTAKES)
    assert check.holds == {"gradients": True, "constants": True}
    assert all(caught == ("gradients", "constants") for caught in check.caught.values()), check.claim
    assert check.passed


def test_joint_training_breaks_the_papers_own_bound_and_ftml_does_not() -> None:
    """The mistake that costs least; the command, which is tested below, makes all of them in the trap."""
    assert trapped(th.Leader(), 200_000, paper=True).holds("paper")
    assert not trapped(th.mistaken(th.Leader())["joint training"], 200_000, paper=True).holds("paper")


def test_joint_training_is_ftml_where_all_hessians_are_equal_and_is_let_pass() -> None:
    stream = th.ConvexStream("quadratic", "trap", 2000).tasks(0)
    inputs = np.broadcast_to(stream.pool.inputs[:1], stream.pool.inputs.shape)
    centres = np.linalg.lstsq(stream.pool.inputs[0], stream.pool.targets.T, rcond=None)[0].T
    pool = th.Pool(inputs, np.einsum("nd,td->tn", inputs[0], centres))
    setting = th.setting(stream.problem, pool, 0.5)
    games = [
        th.play_convex([setting], [stream._replace(pool=pool)], th.Leader(meta), 2000)[0] for meta in (True, False)
    ]
    # At the border of the domain the two leaders differ while the first tasks come; nearly all rounds are the same.
    assert np.mean(np.abs(games[0].losses - games[1].losses) < 1e-9) > 0.95
    for game in games:
        assert th.regret(setting, pool, game, th.checkpoints(2000)).holds("gradients")


def test_what_a_check_missed_is_said() -> None:
    def curve(regret: float) -> Any:
        at, one = np.array([1, 10]), np.ones(2)
        return th.RegretCurve(at, regret * one, 0 * one, {"gradients": one, "constants": 3 * one})

    right, between, above = [curve(0.5), curve(-1.0)], [curve(2.0), curve(2.5)], [curve(4.0), curve(3.5)]
    found = th.Findings()
    found.regrets += [
        th.judge("a", "x", right, {"sign error": above}, trap=True),
        th.judge("b", "x", right, {"sign error": between}, trap=True),
        th.judge("c", "x", right, {"sign error": [curve(2.0), curve(0.9)]}),
        th.judge("d", "x", [curve(0.5), curve(2.0)], {"sign error": above}),
        th.judge("e", "x", above, {}, outside="mu > 0 fails"),
    ]
    assert [check.caught.get("sign error") for check in found.regrets] == [
        ("gradients", "constants"),
        ("gradients",),
        (),
        ("gradients", "constants"),
        None,
    ]
    assert found.regrets[0].pays == {"sign error": 3.5}
    assert found.regrets[2].tested == set()
    assert [each.claim for each in found.failed] == [
        "regret of x on b; not caught: sign error (constants)",
        "regret of x on d; bound broken: gradients",
    ]


def test_a_learner_is_compared_with_the_best_of_its_own_domain() -> None:
    """A p-norm learner of radius 0.3 does what its bound says; against the ball, which it may not use, it would not."""
    stream = th.ConvexStream("quadratic", "iid", 3000).tasks(0)
    setting = th.setting(stream.problem, stream.pool, 0.3)
    game = th.play_convex([setting], [stream], th.STREAMING["mirror, p-norm"], 3000)[0]
    assert game.domain == th.Ball(0.3, 1.5)
    at = th.checkpoints(3000)
    own = th.regret(setting, stream.pool, game, at)
    wider = th.regret(setting, stream.pool, game._replace(domain=th.Ball(0.3)), at)
    assert own.holds("gradients")
    assert not wider.holds("gradients")
    assert (wider.regret >= own.regret - 1e-9).all()
    assert own.gap.max() < 1e-9


DOMAINS = [th.Ball(0.4), th.Ball(0.4, 1.5), th.Ball(0.4, 1.1), th.Box(0.2)]


_project = jax.jit(lambda domain, w: domain.project(w), static_argnums=0)


def project(domain: Any, w: Any) -> Any:
    return np.asarray(_project(domain, jnp.asarray(w)))


def within(domain: Any, w: Any) -> bool:
    size = np.abs(w).max() if isinstance(domain, th.Box) else np.sum(np.abs(w) ** domain.p) ** (1 / domain.p)
    return bool(size <= getattr(domain, "half", getattr(domain, "radius", 0)) * (1 + 1e-9))


@given(st.integers(0, 10**6), st.sampled_from(DOMAINS), st.sampled_from([0.1, 0.5, 30.0]))
def test_projections_are_nearest_and_supports_are_largest(seed: int, domain: Any, scale: float) -> None:
    random = np.random.default_rng(seed)
    w, others = scale * random.normal(size=4), random.normal(size=(20, 4))
    w[seed % 4] *= seed % 2  # a coordinate may be 0
    nearest = project(domain, w)
    assert within(domain, nearest)
    for u in others:
        u = project(domain, u)
        assert (w - nearest) @ (u - nearest) <= 1e-8 * scale
        assert w @ u <= float(domain.support(jnp.asarray(w))) + 1e-9
    if within(domain, w):
        np.testing.assert_allclose(nearest, w)
    # Far along w, the nearest point of the domain is where w'u is largest.
    far = project(domain, w * 1e6 / scale)
    assert w @ far == pytest.approx(float(domain.support(jnp.asarray(w))), rel=1e-4)


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
@pytest.mark.parametrize("kind", ["quadratic", "logistic"])
def test_the_best_of_a_domain_is_scipys_and_its_certificate_holds(kind: Any, domain: Any) -> None:
    stream = th.ConvexStream(kind, "iid", 16).tasks(0)
    setting = th.setting(stream.problem, stream.pool, RADIUS)
    update, counts = setting.update, np.arange(1.0, 17)
    best, gap = (x[0] for x in hindsight(setting, stream.pool, np.repeat(np.arange(16), range(1, 17)), [136], domain))

    def mean(w: Any) -> Any:
        value, slope, _ = derivatives(stream.problem, update, stream.pool, jnp.asarray(counts / 136), jnp.asarray(w))
        return float(value), np.asarray(slope)

    if isinstance(domain, th.Box):
        found = scipy.optimize.minimize(mean, np.full(4, 0.01), jac=True, bounds=[(-domain.half, domain.half)] * 4)
    else:
        p, r = domain.p, domain.radius
        inside = {"type": "ineq", "fun": lambda w: r**p - np.sum(np.abs(w) ** p)}
        found = scipy.optimize.minimize(
            mean,
            np.full(4, 0.01),
            jac=True,
            constraints=inside,
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 500},
        )
    assert best / 136 == pytest.approx(found.fun, abs=1e-6)
    assert best / 136 <= found.fun + 1e-9
    assert 0 <= gap < 1e-7
    cloud = [project(domain, w) for w in th.theorem.random_points(0, 1.0, 4, 50)]
    assert best / 136 <= min(mean(w)[0] for w in cloud)


def test_a_minimum_without_a_certificate_is_refused() -> None:
    stream = th.ConvexStream("logistic", "iid", 16).tasks(0)
    with pytest.raises(UserError, match=r"no best in hindsight: the gap .* is certified to .* may not be convex"):
        # Steps of 1 / smoothness are far too long, and descend nowhere.
        th.best_on(stream.problem, Identity(), stream.pool, np.ones((1, 16)), th.Ball(RADIUS, 1.5), smoothness=0.01)


@pytest.mark.parametrize("factor", [1.0, 100.0, -1.0])
@pytest.mark.parametrize("meta", [True, False])
def test_following_the_leader_by_newton_is_the_leader_in_closed_form(meta: bool, factor: float) -> None:
    stream = th.ConvexStream("quadratic", "trap", 300).tasks(0)
    assert stream.order is not None
    setting = th.setting(stream.problem, stream.pool, 0.5)
    assert isinstance(setting.update, GradientDescent)
    closed = th.play_convex([setting], [stream], th.Leader(meta, factor), 300)[0]
    followed = th.follow(setting, stream.pool, stream.order, setting.update if meta else Identity(), factor)
    # The first leader lies outside the domain, at its border; a factor of 100 makes much of small differences.
    rounds = 40 if factor == 100 else 300
    np.testing.assert_allclose(followed.losses[:rounds], closed.losses[:rounds], atol=1e-6)
    np.testing.assert_allclose(followed.bound, closed.bound)
    np.testing.assert_allclose(followed.observed[:rounds], closed.observed[:rounds], atol=1e-5)


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
    assert float(lipschitz) <= 2.5 * max(norms)
    known = th.constants(streams[0].problem, streams[0].pool, RADIUS)
    plain = without_adaptation(settings[0], streams[0].pool)
    assert convexity(plain) == (known.strong_convexity, known.lipschitz)
    assert plain.constants == known


@given(st.integers(0, 10**6), st.sampled_from([th.Euclidean(), th.PNorm(1.3), th.Entropic(0.3), th.Entropic(2.0)]))
def test_mirror_maps(seed: int, mirror: Any) -> None:
    """Gradients invert, divergences are between their bounds, projections are nearest."""
    random = np.random.default_rng(seed)

    def dual(w: Any) -> Any:
        return np.asarray(mirror.dual(jnp.asarray(w), RADIUS))

    def primal(theta: Any) -> Any:
        return np.asarray(mirror.primal(jnp.asarray(theta), RADIUS))

    def inside() -> Any:
        w = primal(dual(random.normal(size=4)))
        return 0.999 * w

    def divergence(u: Any, w: Any) -> float:
        """B(u, w), by integrating the gradient of R from w to u."""
        path = np.stack([dual(w + (k + 0.5) / 20 * (u - w)) for k in range(20)])
        return float(np.mean((path - dual(w)) @ (u - w)))

    u, w = inside(), inside()
    np.testing.assert_allclose(primal(dual(u)), u, atol=1e-9)
    between = divergence(u, w)
    norm = mirror.dual_norm  # of the dual; the primal norm is the largest x'g over unit g
    p = getattr(mirror, "p", 2.0)
    primal_norm = np.sum(np.abs(u - w) ** p) ** (1 / p)
    assert np.abs((u - w) @ w) <= primal_norm * float(norm(jnp.asarray(w))) * (1 + 1e-9)
    assert between >= mirror.modulus(RADIUS, 4) / 2 * primal_norm**2 * 0.9
    assert between <= min(mirror.curvature(RADIUS, 4) / 2 * np.sum((u - w) ** 2), mirror.diameter(RADIUS, 4)) * 1.1
    theta = 3 * random.normal(size=4) + dual(w)
    nearest = primal(theta)
    # Optimality over the domain: (grad R(nearest) - theta)'(u - nearest) >= 0.
    assert (dual(nearest) - theta) @ (u - nearest) >= -1e-8


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
    curve = th.regret(setting, stream.pool, game, th.checkpoints(40))
    assert all(curve.holds(bound) for bound in curve.bounds)


@pytest.mark.parametrize(("name", "numbers"), list(zip(th.STREAMING, (1, 4, 1, 1), strict=True)))
def test_what_a_streaming_learner_keeps_beside_w(name: str, numbers: int) -> None:
    """One number, or one a coordinate: it is the state of a scan, whose shape cannot grow."""
    stream = th.ConvexStream("quadratic", "iid", 10).tasks(0)
    setting = th.setting(stream.problem, stream.pool, RADIUS)
    assert sum(leaf.size for leaf in jax.tree.leaves(th.STREAMING[name].start(setting))) == numbers


def test_regret_of_a_deep_learner_is_estimated_from_below_and_its_comparator_is_near_the_best() -> None:
    """On convex tasks the best in hindsight is known."""
    stream = th.ConvexStream("quadratic", "iid", 16).tasks(0)
    update = GradientDescent(steps=1, step_size=0.5)
    exact = th.setting(stream.problem, stream.pool, RADIUS)
    exact = th.with_step(exact, stream.pool, 0.5)
    best = hindsight(exact, stream.pool, np.arange(16), np.array([16]), th.Ball(RADIUS))[0][0]
    tasks = th.as_tasks(stream.pool, np.arange(16))
    with jax.enable_x64(False):
        offline = th.train_offline(stream.problem, update, tasks, steps=300, step_size=0.03)
        learner = FTML(update, meta_steps=2, meta_batch=2)
        estimate = th.estimate_regret(stream.problem, tasks, learner, OnlineProtocol(chunk=12), offline)
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
