"""The theory: constants that hold and are no larger than need be, exact leaders, Theorem 1, and what it refuses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaleader import GradientDescent, Identity, OnlineProtocol, UserError, play
from metaleader import theory as th
from metaleader.theory import theorem
from metaleader.theory.exact import derivatives
from metaleader.theory.problems import Constants, LogisticLoss, SquareLoss

RADIUS = 2.0


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def tasks(kind: Any = "quadratic", seed: int = 0, order: Any = "iid", rounds: int = 16, **settings: Any) -> Any:
    return th.ConvexStream(kind, order, rounds, **settings).tasks(seed)


def one_step(alpha: float, steps: int = 1) -> GradientDescent:
    return GradientDescent(steps, alpha, derivative="plain")


def value(problem: Any, x: Any, y: Any, w: Any) -> float:
    """f(w), in numpy, loss by loss."""
    margins = x @ w
    square = isinstance(problem.loss, SquareLoss)
    losses = (margins - y) ** 2 / 2 if square else np.log1p(np.exp(-y * margins))
    return float(losses.mean() + problem.model.ridge / 2 * w @ w)


def slope(problem: Any, x: Any, y: Any, w: Any) -> Any:
    margins = x @ w
    square = isinstance(problem.loss, SquareLoss)
    each = margins - y if square else -y / (1 + np.exp(y * margins))
    return x.T @ each / len(x) + problem.model.ridge * w


def adapted_value(problem: Any, x: Any, y: Any, w: Any, alpha: float, steps: int = 1) -> float:
    for _ in range(steps):
        w = w - alpha * slope(problem, x, y, w)
    return value(problem, x, y, w)


# Exact leaders


@pytest.mark.parametrize("steps", [1, 3])
def test_the_closed_form_is_that_of_appendix_a(steps: int) -> None:
    @given(st.integers(0, 10**6))
    def check(seed: int) -> None:
        stream = tasks(seed=seed)
        x, y = stream.pool
        a = np.einsum("tni,tnj->tij", x, x) / x.shape[1]
        b = -np.einsum("tni,tn->ti", x, y) / x.shape[1]
        factor = np.linalg.matrix_power(np.eye(4) - 0.4 * a, 2 * steps)
        expected = -np.linalg.solve((factor @ a).mean(0), np.einsum("tij,tj->ti", factor, b).mean(0))
        w = th.lead(stream.problem, one_step(0.4, steps), stream.pool, np.ones(16), RADIUS)
        np.testing.assert_allclose(w, expected, atol=1e-10)

    check()


def test_the_solver_gives_the_closed_form_and_stationary_points_by_finite_differences() -> None:
    for kind in ("quadratic", "logistic"):
        stream, update = tasks(kind), one_step(0.3)
        counts = np.arange(16.0)
        found = th.leader(stream.problem, update, stream.pool, counts, RADIUS)
        assert found.gradient_norm <= 1e-10
        if kind == "quadratic":
            expected = th.lead(stream.problem, update, stream.pool, counts, RADIUS)
            np.testing.assert_allclose(found.w, expected, atol=1e-10)

        def mean(w: Any, stream: Any = stream, counts: Any = counts) -> Any:
            each = [adapted_value(stream.problem, x, y, w, 0.3) for x, y in zip(*stream.pool, strict=True)]
            return counts @ each / counts.sum()

        h = 1e-5
        differences = [(mean(found.w + h * e) - mean(found.w - h * e)) / (2 * h) for e in np.eye(4)]
        np.testing.assert_allclose(differences, 0, atol=1e-9)
        assert found.value == pytest.approx(mean(found.w), abs=1e-12)


@pytest.mark.parametrize("kind", ["quadratic", "logistic"])
def test_a_leader_outside_the_ball_is_the_best_on_its_sphere(kind: str) -> None:
    """There the gradient points inwards along w: `grad F(w) = -nu w` with nu > 0."""
    stream, update, radius = tasks(kind), one_step(0.3), 0.2
    w = np.asarray(th.lead(stream.problem, update, stream.pool, np.ones(16), radius))
    assert np.linalg.norm(w) == pytest.approx(radius, abs=1e-10)
    gradient = np.asarray(derivatives(stream.problem, update, stream.pool, np.ones(16) / 16, w)[1])
    nu = -gradient @ w / radius**2
    assert nu > 1e-3
    np.testing.assert_allclose(gradient, -nu * w, atol=1e-9)


def test_ftml_is_joint_training_for_equal_hessians_and_beats_it_otherwise_by_what_appendix_a_gives() -> None:
    stream, update = tasks(), one_step(0.4)
    same = stream.pool._replace(inputs=np.broadcast_to(stream.pool.inputs[:1], stream.pool.inputs.shape))
    meta, joint = (np.asarray(th.lead(stream.problem, u, same, np.ones(16), RADIUS)) for u in (update, Identity()))
    np.testing.assert_allclose(meta, joint, atol=1e-10)

    meta, joint = (
        np.asarray(th.lead(stream.problem, u, stream.pool, np.ones(16), RADIUS)) for u in (update, Identity())
    )
    x, y = stream.pool
    a = np.einsum("tni,tnj->tij", x, x) / x.shape[1]
    power = np.linalg.matrix_power(np.eye(4) - 0.4 * a, 2)
    predicted = (joint - meta) @ (power @ a).mean(0) @ (joint - meta) / 2
    after = [
        np.mean([adapted_value(stream.problem, *task, w, 0.4) for task in zip(x, y, strict=True)])
        for w in (meta, joint)
    ]
    assert after[1] - after[0] == pytest.approx(predicted, abs=1e-10)
    assert predicted > 1e-6


@pytest.mark.parametrize("kind", ["quadratic", "logistic"])
def test_exact_learners_go_through_the_verbs_and_the_protocol(kind: str) -> None:
    stream, update = tasks(kind), one_step(0.3)
    order = np.array([0, 1, 2, 1])
    for learner, leads in ((th.ExactFTML(update, RADIUS), update), (th.ExactFTL(update, RADIUS), Identity())):
        records = list(play(stream.problem, th.as_tasks(stream.pool, order), learner, OnlineProtocol(chunk=12)))
        for t, record in enumerate(records):
            counts = np.bincount(order[:t], minlength=16).astype(float)
            w = np.zeros(4) if t == 0 else np.asarray(th.lead(stream.problem, leads, stream.pool, counts, RADIUS))
            x, y = stream.pool.inputs[order[t]], stream.pool.targets[order[t]]
            assert record.loss == pytest.approx(adapted_value(stream.problem, x, y, w, 0.3), abs=1e-10)


def test_exact_leaders_need_float64() -> None:
    stream = tasks()
    with jax.enable_x64(False), pytest.raises(UserError, match=r"need float64.*enable_x64"):
        th.leader(stream.problem, Identity(), stream.pool, np.ones(16), RADIUS)


# Constants


@pytest.mark.parametrize("kind", ["quadratic", "regression", "logistic"])
def test_constants_hold_on_the_ball_and_are_not_idle(kind: Any) -> None:
    @given(st.integers(0, 10**6))
    def check(seed: int) -> None:
        stream = tasks(kind, seed)
        known = th.constants(stream.problem, stream.pool, RADIUS)
        points = np.concatenate([np.zeros((1, 4)), theorem.random_points(seed, RADIUS, 4, 10)])
        h, steepest, largest, least = 1e-4, 0.0, 0.0, np.inf
        for x, y in zip(*stream.pool, strict=True):
            for w in points:
                steepest = max(steepest, float(np.linalg.norm(slope(stream.problem, x, y, w))))
                hessian = np.array(
                    [
                        (slope(stream.problem, x, y, w + h * e) - slope(stream.problem, x, y, w - h * e)) / (2 * h)
                        for e in np.eye(4)
                    ]
                )
                eigenvalues = np.linalg.eigvalsh((hessian + hessian.T) / 2)
                least, largest = min(least, eigenvalues[0]), max(largest, eigenvalues[-1])
        assert steepest <= known.lipschitz <= 3 * steepest
        assert largest - 1e-6 <= known.smoothness <= 1.5 * largest
        assert least + 1e-6 >= known.strong_convexity >= 0.2 * least

    check()


@given(st.integers(0, 10**6), st.floats(0.01, 5), st.sampled_from(["quadratic", "logistic"]))
def test_the_enlarged_ball_holds_the_updates_of_every_point(seed: int, alpha: float, kind: Any) -> None:
    stream = tasks(kind, seed)
    reach = th.enlarged(stream.problem, stream.pool, RADIUS, one_step(alpha, 2))
    for w in theorem.random_points(seed, RADIUS, 4, 10):
        for x, y in zip(*stream.pool, strict=True):
            v = w
            for _ in range(2):
                v = v - alpha * slope(stream.problem, x, y, v)
                assert np.linalg.norm(v) <= reach


# Theorem 1


@given(st.integers(0, 10**6), st.sampled_from(["quadratic", "logistic"]))
def test_every_inequality_of_the_proof_holds_on_random_instances(seed: int, kind: Any) -> None:
    stream = tasks(kind, seed)
    given_setting = th.setting(stream.problem, stream.pool, RADIUS)
    assert given_setting.outside is None
    for each in th.inequalities(given_setting, stream.pool, seed, pairs=20):
        assert each.holds, each


def test_wrong_constants_and_a_violated_alpha_are_found_out() -> None:
    stream = tasks("logistic")
    right = th.setting(stream.problem, stream.pool, RADIUS)
    points = theorem.random_points(0, RADIUS, 4, 40)
    least, largest = th.worst_range(right, stream.pool, points, steps=6)
    assert right.constants.strong_convexity / 8 <= least <= largest <= 9 / 8 * right.constants.smoothness
    # As convex and as curved as at any of some other points, by the Hessian of the engine.
    for w in theorem.random_points(1, RADIUS, 4, 10):
        for counts in np.eye(16):
            update = one_step(right.update.step_size)  # type: ignore[union-attr]
            hessian = derivatives(stream.problem, update, stream.pool, counts, w)[2]
            assert least <= np.linalg.eigvalsh(hessian)[0] + 1e-9
            assert largest >= np.linalg.eigvalsh(hessian)[-1] - 1e-9
    for name, factor in (
        ("lipschitz", 0.4),
        ("smoothness", 0.8),
        ("hessian_lipschitz", 0.3),
        ("strong_convexity", 1.3),
    ):
        wrong = right.constants._replace(**{name: factor * getattr(right.constants, name)})
        failed = [i for i in th.inequalities(right._replace(constants=wrong), stream.pool, pairs=100) if not i.holds]
        assert failed, name
    beyond = th.with_step(right, stream.pool, 10.0)
    assert "alpha <= 1 / (2 beta) fails: alpha = 10" in str(beyond.outside)
    found = th.worst_range(beyond, stream.pool, points, steps=6)
    assert found.least < 0  # no longer convex
    assert found.largest > 9 / 8 * beyond.constants.smoothness


def test_the_last_step_of_the_proof_is_tight_and_needs_its_alpha() -> None:
    least, largest = th.margins()
    assert 1 - 1e-9 <= least <= 1 + 1e-6
    assert 0.99 <= largest <= 1 + 1e-9
    for multiple in (1.01, 1.5):
        beyond = th.margins(multiple)
        assert beyond.least < 1 - 1e-3
    assert beyond.largest > 1 + 1e-3


def test_the_hessian_is_that_of_the_engine_and_of_finite_differences() -> None:
    stream, alpha = tasks("logistic"), 0.3
    w, h = np.full(4, 0.3), 1e-3
    x, y = stream.pool.inputs[0], stream.pool.targets[0]
    counts = np.eye(16)[0]
    hessian = np.asarray(derivatives(stream.problem, one_step(alpha), stream.pool, counts, w)[2])
    differences = np.array(
        [
            [
                sum(
                    s * r * adapted_value(stream.problem, x, y, w + h * (s * a + r * b), alpha) / (4 * h * h)
                    for s in (1, -1)
                    for r in (1, -1)
                )
                for a in np.eye(4)
            ]
            for b in np.eye(4)
        ]
    )
    np.testing.assert_allclose(hessian, differences, atol=1e-5)
    eigenvalues = theorem._eigenvalues(stream.problem, alpha, stream.pool, np.broadcast_to(w, (16, 40, 4)))
    np.testing.assert_allclose(eigenvalues[0, 0], np.linalg.eigvalsh(hessian), atol=1e-12)


# What is refused


def test_violated_assumptions_are_refused_with_the_inequality_and_its_values() -> None:
    stream = tasks("logistic")
    problem, pool = stream.problem, stream.pool
    with pytest.raises(UserError, match=r"alpha <= mu / \(8 rho G\) fails: alpha = .* with mu = .*rho = .*G = "):
        th.setting(problem, pool, RADIUS, step=1.5)
    with pytest.raises(UserError, match=r"steps = 1 fails: Theorem 1 is on one gradient step, U takes 5"):
        th.setting(problem, pool, RADIUS, steps=5)
    with pytest.raises(UserError, match=r"G < inf fails: .* \|\|w\|\| <= inf"):
        th.setting(problem, pool, float("inf"))
    with pytest.raises(UserError, match=r"step must be positive and finite"):
        th.setting(problem, pool, RADIUS, step=0.0)
    quadratics = tasks()
    with pytest.raises(UserError, match=r"alpha <= 1 / \(2 beta\) fails"):
        th.setting(quadratics.problem, quadratics.pool, RADIUS, step=1.01)
    hollow = th.convex_problem(LogisticLoss(), 4, ridge=-0.1)
    with pytest.raises(UserError, match=r"mu > 0 fails: f is not strongly convex .* mu = -0.0"):
        th.setting(hollow, pool, RADIUS)
    outside = th.setting(hollow, pool, RADIUS, outside_theory=True)
    assert "mu > 0 fails" in str(outside.outside)
    assert th.setting(problem, pool, RADIUS, step=1.5, outside_theory=True).outside
    assert th.setting(problem, pool, RADIUS).outside is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "quadratics"}, "unknown kind of convex stream 'quadratics': did you mean quadratic?"),
        ({"order": "drift"}, "unknown order of convex stream 'drift': did you mean drifting?"),
        ({"examples": 4}, "examples above dimension"),
        ({"rounds": 0}, "must be at least 1"),
        ({"kind": "logistic", "order": "trap"}, "order trap is for kind quadratic"),
    ],
)
def test_impossible_streams_are_refused(settings: Any, message: str) -> None:
    stream = th.ConvexStream()
    for name, value in settings.items():  # past the type checks of the tests, which refuse some of them first
        object.__setattr__(stream, name, value)
    with pytest.raises(UserError, match=message):
        stream.__post_init__()


def test_a_page_is_written_where_nothing_could_be_computed(tmp_path: Path) -> None:
    """Outside the theory, games can fail: they are left out of the figures."""
    page = th.write(th.Findings(), th.TheoryOptions(outside_theory=True), tmp_path, "metaleader theory", seconds=1.0)
    assert page.read_text().count("](figures/") == 4


def test_constants_are_values() -> None:
    assert Constants(3.0, 1.0, 0.0, 0.2).largest_step == 0.5
    assert Constants(3.0, 1.0, 2.0, 0.2).largest_step == pytest.approx(0.2 / 48)
