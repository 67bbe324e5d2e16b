"""Update procedures: values in closed form, derivatives by finite differences."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import Ridge as SklearnRidge

from metaleader import (
    MLP,
    Batch,
    ConvNet,
    CrossEntropy,
    GradientDescent,
    InnerAdam,
    InnerMomentum,
    MetaSGD,
    Model,
    OptimizerSteps,
    PoseNet,
    Problem,
    Proximal,
    Reptile,
    Ridge,
    UpdateProcedure,
    UserError,
    accuracy,
    mean_squared_error,
    meta_gradient,
    meta_objective,
    squared_error,
)
from metaleader.streams.rendering import Rendering
from metaleader.update import mask
from problems import CURVES, DIGITS, UPDATES, images, points, quadratic


def smooth_problem() -> Problem:
    """A net without kinks, so that finite differences converge."""

    def features(params: Any, inputs: Any, weights: Any) -> Any:
        return jnp.tanh(inputs @ params["hidden"]["kernel"] + params["hidden"]["bias"])

    def apply(params: Any, inputs: Any, weights: Any) -> Any:
        return features(params, inputs, weights) @ params["head"]["kernel"] + params["head"]["bias"]

    def init(key: Any) -> Any:
        first, second = jax.random.split(key)
        hidden = {"kernel": jax.random.normal(first, (1, 5), float), "bias": jnp.ones(5, float) / 7}
        head = {"kernel": jax.random.normal(second, (5, 1), float), "bias": jnp.ones(1, float) / 3}
        return {"hidden": hidden, "head": head}

    return replace(CURVES, model=Model(init, apply, features=features))


@pytest.mark.parametrize("name", UPDATES)
def test_meta_gradient_equals_central_finite_differences(name: str) -> None:
    """In all that is meta-learned; the proximal update is run to its minimum here, where its derivative is exact."""
    update = UPDATES[name]
    with jax.enable_x64(True):
        problem = smooth_problem()
        params = update.init(problem.net.init(jax.random.key(0)))
        train, validation = points(6, 1, dtype=np.float64), points(7, 2, dtype=np.float64)

        def value(p: Any) -> Any:
            return meta_objective(problem, update, p, train, validation)

        flat, unravel = jax.flatten_util.ravel_pytree(params)
        exact = jax.flatten_util.ravel_pytree(jax.jit(jax.grad(value))(params))[0]
        compiled = jax.jit(lambda vector: value(unravel(vector)))
        h = 1e-5
        numeric = np.array([(compiled(flat + h * e) - compiled(flat - h * e)) / (2 * h) for e in np.eye(len(flat))])
        error = np.linalg.norm(exact - numeric) / np.linalg.norm(numeric)
    if getattr(update, "first_order", False) or isinstance(update, Reptile):
        assert error > 1e-2  # it leaves out the curvature
    else:
        assert error < 1e-6


def test_the_error_of_the_proximal_derivative_falls_with_the_steps_of_its_solver() -> None:
    """Far from the minimum the implicit derivative is not that of the steps taken."""
    with jax.enable_x64(True):
        problem = smooth_problem()
        params = problem.net.init(jax.random.key(0))
        train, validation = points(6, 1, dtype=np.float64), points(7, 2, dtype=np.float64)
        direction = jax.tree.map(jnp.ones_like, params)

        def error(steps: int) -> float:
            update = Proximal(steps, strength=2.0, cg_steps=30, tolerance=1e-12)

            def along(h: float) -> Any:
                moved = jax.tree.map(lambda p, d: p + h * d, params, direction)
                return meta_objective(problem, update, moved, train, validation)

            numeric = (along(1e-5) - along(-1e-5)) / 2e-5
            gradient = jax.grad(lambda p: meta_objective(problem, update, p, train, validation))(params)
            exact = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(gradient))
            return float(abs(exact - numeric) / abs(numeric))

        errors = [error(steps) for steps in (1, 10, 50)]
        assert errors[0] > 10 * errors[1] > 100 * errors[2]


@pytest.mark.parametrize(
    "update",
    [
        GradientDescent(steps=3, adapt_only=("head",)),
        GradientDescent(steps=3, clip=0.5),
        MetaSGD(prior_strength=5.0),
        OptimizerSteps(3, InnerMomentum()),
        OptimizerSteps(3, InnerAdam()),
    ],
    ids=str,
)
@pytest.mark.parametrize("kept", [1 << 24, 0])
def test_derivative_of_hessian_vector_products_equals_the_plain_one(
    update: Any, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether what the inner gradients computed is kept for them or computed again."""
    monkeypatch.setattr("metaleader.update.steps.KEPT", kept)
    params = update.init(DIGITS.net.init(jax.random.key(0)))

    def gradient(derivative: str) -> Any:
        def value(w: Any) -> Any:
            return meta_objective(DIGITS, replace(update, derivative=derivative), w, images(9, 1), images(8, 2))

        return jax.flatten_util.ravel_pytree(jax.jit(jax.grad(value))(params))[0]

    plain, ours = gradient("plain"), gradient("forward-over-reverse")
    assert np.isfinite(plain).all()
    assert np.linalg.norm(plain - ours) < 1e-4 * np.linalg.norm(plain)


def test_what_is_stored_for_the_derivative_keeps_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the gradients' intermediate results if those of all steps fit, and else the parameters alone."""
    params = DIGITS.net.init(jax.random.key(0))

    def stored(steps: int, kept: int) -> int:
        monkeypatch.setattr("metaleader.update.steps.KEPT", kept)
        update = GradientDescent(steps)
        return _bytes(jax.vjp(lambda w: update(DIGITS, w, images(9, 1)), params)[1])

    one = stored(1, 1 << 24)
    assert one > 2 * _bytes(params)
    assert stored(7, 8 * one) > 4 * one
    assert stored(7, 6 * one) == 7 * _bytes(params) + _bytes(images(9, 1))


def test_derivative_where_normalisation_is_folded_into_the_product() -> None:
    """With 27 inputs and 32 filters it is: against plain reverse mode, and against finite differences."""
    with jax.enable_x64(True):
        model = ConvNet(depth=2, filters=32, image=(16, 16, 3))
        problem = Problem(model, CrossEntropy(), accuracy)
        params = jax.tree.map(lambda leaf: leaf.astype(np.float64), model.init(jax.random.key(0)))
        batches = [
            Batch(batch.inputs / 255, batch.targets, batch.weights.astype(np.float64))
            for batch in (images(9, 1), images(8, 2))
        ]
        direction = jax.tree.map(jnp.sin, params)

        def value(w: Any, derivative: Any = "forward-over-reverse") -> Any:
            return meta_objective(problem, GradientDescent(3, derivative=derivative), w, *batches)

        compiled = jax.jit(value, static_argnums=1)
        ours, plain = (
            sum(jax.tree.leaves(jax.tree.map(jnp.vdot, jax.grad(compiled)(params, derivative), direction)))
            for derivative in ("forward-over-reverse", "plain")
        )
        up, down = (compiled(jax.tree.map(lambda p, d, h=h: p + h * d, params, direction)) for h in (1e-6, -1e-6))
        assert abs(ours - plain) < 1e-9 * abs(plain)
        assert abs(ours - (up - down) / 2e-6) < 1e-4 * abs(ours)


def _bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


class Quadratic:
    """Linear regression on random data, for closed forms: `f(w) = (w - w*)' A (w - w*) / 2` up to a constant."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.batch = Batch.of(random.normal(size=(20, 3)), random.normal(size=20))
        self.hessian = self.batch.inputs.T @ self.batch.inputs / 20
        self.optimum = np.linalg.lstsq(self.batch.inputs, self.batch.targets)[0]
        self.w = random.normal(size=3)

    def check(self, update: UpdateProcedure, contraction: np.ndarray) -> None:
        """`U(w) = w* + contraction (w - w*)`, with derivative `contraction`."""

        def adapted(w: Any) -> Any:
            return update(quadratic(), {"w": w}, self.batch)["w"]

        np.testing.assert_allclose(adapted(self.w), self.optimum + contraction @ (self.w - self.optimum), atol=1e-10)
        np.testing.assert_allclose(jax.jacrev(adapted)(self.w), contraction, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("prior_strength", [0.0, 5.0])
def test_gradient_descent_on_a_quadratic_has_the_closed_form(steps: int, prior_strength: float) -> None:
    """U(w) = w* + (I - alpha A)^steps (w - w*), and its derivative is (I - alpha A)^steps (appendix A)."""
    with jax.enable_x64(True):
        problem, alpha = Quadratic(), 0.1 * 20 / (20 + prior_strength)
        contraction = np.linalg.matrix_power(np.eye(3) - alpha * problem.hessian, steps)
        problem.check(GradientDescent(steps=steps, step_size=0.1, prior_strength=prior_strength), contraction)


@pytest.mark.parametrize("steps", [1, 3])
def test_momentum_on_a_quadratic_has_the_closed_form(steps: int) -> None:
    """With e = v - w*, the pair (e, m) moves to (e - alpha (A e + mu m), A e + mu m), from (w - w*, 0)."""
    with jax.enable_x64(True):
        problem, alpha, mu, eye = Quadratic(), 0.1, 0.7, np.eye(3)
        a = problem.hessian
        power = np.linalg.matrix_power(np.block([[eye - alpha * a, -alpha * mu * eye], [a, mu * eye]]), steps)
        problem.check(OptimizerSteps(steps, InnerMomentum(alpha, mu)), power[:3, :3])


@pytest.mark.parametrize("solver", ["newton", "gradient"])
def test_the_proximal_update_on_a_quadratic_has_the_closed_form(solver: Any) -> None:
    """U(w) = w* + (I + A / lambda)^{-1} (w - w*): one Newton step reaches it, gradient steps converge to it."""
    with jax.enable_x64(True):
        problem, strength = Quadratic(), 0.5
        contraction = np.linalg.inv(np.eye(3) + problem.hessian / strength)
        steps = {"newton": 1, "gradient": 500}[solver]
        problem.check(Proximal(steps, 0.1, strength, solver, cg_steps=10, tolerance=1e-13), contraction)


def test_meta_sgd_on_a_quadratic_has_the_closed_form() -> None:
    """One step: dU/dw = I - diag(alpha) A and dU/dalpha = -diag(grad f(w)), for step sizes of any sign."""
    with jax.enable_x64(True):
        problem, update = Quadratic(), MetaSGD(steps=1)
        alpha = np.array([0.2, -0.1, 0.05])

        def adapted(w: Any, alpha: Any) -> Any:
            start = update.init({"w": w})._replace(step_sizes={"w": alpha})
            return update(quadratic(), start, problem.batch)["w"]

        slope = problem.hessian @ (problem.w - problem.optimum)
        np.testing.assert_allclose(adapted(problem.w, alpha), problem.w - alpha * slope, atol=1e-12)
        by_w, by_alpha = jax.jacrev(adapted, argnums=(0, 1))(problem.w, alpha)
        np.testing.assert_allclose(by_w, np.eye(3) - alpha[:, None] * problem.hessian, atol=1e-12)
        np.testing.assert_allclose(by_alpha, -np.diag(slope), atol=1e-12)


def test_meta_sgd_with_its_first_step_sizes_is_gradient_descent() -> None:
    params, batch = CURVES.net.init(jax.random.key(0)), points(6)
    for prior_strength in (0.0, 4.0):
        learned, given = (
            MetaSGD(step_size=0.07, prior_strength=prior_strength),
            GradientDescent(step_size=0.07, prior_strength=prior_strength),
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
            learned(CURVES, learned.init(params), batch),
            given(CURVES, params, batch),
        )


@pytest.mark.parametrize(("clip", "steps"), [(10.0, 4), (1.5, 4), (0.1, 40)])
def test_a_clipped_gradient_is_scaled_to_its_norm(clip: float, steps: int) -> None:
    """On L(w) = |w - t|^2 / 2, whose gradients are w - t, and whose derivatives are those of the steps written out."""
    target = jnp.array([3.0, -4.0])
    model = Model(lambda key: jnp.zeros(2), lambda w, x, weights: w[None] + 0 * x)
    problem = Problem(model, squared_error, mean_squared_error)
    batch = Batch.of(np.zeros((1, 2)), target[None])

    def written_out(w: jax.Array) -> jax.Array:
        for _ in range(steps):
            length = jnp.linalg.norm(w - target)
            w = w - 0.2 * (w - target) * jnp.where(length > clip, clip / length, 1)
        return w

    update = GradientDescent(steps, 0.2, clip=clip)
    start = jnp.array([0.5, 0.5])
    np.testing.assert_allclose(update(problem, start, batch), written_out(start), rtol=1e-5)
    ours, theirs = (jax.jacrev(f)(start) for f in (lambda w: update(problem, w, batch), written_out))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    at_rest = jax.jacrev(lambda w: update(problem, w, batch))(target)  # where gradients are 0
    np.testing.assert_allclose(at_rest, 0.8**steps * np.eye(2), atol=1e-5)


def test_adam_inside_is_adam() -> None:
    """Written out anew for two steps; the epsilon is under the root."""
    with jax.enable_x64(True):
        problem, epsilon = Quadratic(), 0.01
        v, m, s = problem.w, np.zeros(3), np.zeros(3)
        for i in (1, 2):
            g = problem.hessian @ (v - problem.optimum)
            m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g**2
            v = v - 0.1 * (m / (1 - 0.9**i)) / np.sqrt(s / (1 - 0.999**i) + epsilon**2)
        adapted = OptimizerSteps(2, InnerAdam(0.1, epsilon))(quadratic(), {"w": problem.w}, problem.batch)
        np.testing.assert_allclose(adapted["w"], v, atol=1e-12)


def test_the_derivative_of_adam_inside_is_finite_at_a_zero_gradient() -> None:
    silent = Batch.of(np.zeros((4, 3), np.float32), np.ones(4, np.float32))
    problem, update = quadratic(), OptimizerSteps(3, InnerAdam())
    params = problem.net.init(jax.random.key(0))
    gradient = jax.grad(lambda p: meta_objective(problem, update, p, silent, points_of_a_plane()))(params)
    assert np.isfinite(gradient["w"]).all()
    assert np.abs(gradient["w"]).max() > 0


def points_of_a_plane() -> Batch:
    return Batch.of(np.eye(3, dtype=np.float32), np.array([1.0, -2.0, 3.0], np.float32))


@pytest.mark.parametrize("optimizer", [optax.adam(0.01), optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))])
def test_an_optimiser_whose_meta_gradients_would_be_nan_is_refused(optimizer: Any) -> None:
    params = {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"no finite derivative where an inner gradient is 0.* Use InnerAdam\(\)"):
        OptimizerSteps(1, optimizer).init(params)
    assert OptimizerSteps(1, optimizer, first_order=True).init(params) is params
    assert OptimizerSteps(1, partial(optax.adam, 0.01, eps_root=1e-6)).init(params) is params
    jax.jit(OptimizerSteps(1, InnerAdam()).init)(params)


@pytest.mark.parametrize("name", [name for name in UPDATES if "plain" not in name])
def test_parameters_of_16_bits_are_adapted_and_meta_learned(name: str) -> None:
    """They keep their type, and lead where those of 32 bits lead."""
    update, kind = UPDATES[name], jnp.float16 if len(name) % 2 else jnp.bfloat16

    def init(kind: Any) -> Any:
        return {"head": {"kernel": jnp.ones((3, 1), kind), "bias": jnp.zeros(1, kind)}}

    def apply(params: Any, inputs: Any, weights: Any) -> Any:
        return inputs @ params["head"]["kernel"] + params["head"]["bias"]

    model = Model(lambda key: init(kind), apply, features=lambda params, inputs, weights: inputs)
    problem = Problem(model, squared_error, mean_squared_error)
    random = np.random.default_rng(0)
    x = random.normal(size=(6, 3)).astype(kind)
    batch = Batch.of(x, (x @ np.array([[1.0], [-1.0], [0.5]])).astype(kind))

    def gradients(kind: Any) -> Any:
        meta_params = update.init(init(kind))
        return jax.jit(jax.grad(partial(meta_objective, problem, update)))(meta_params, batch, batch)

    for low, high in zip(*map(jax.tree.leaves, (gradients(kind), gradients(jnp.float32))), strict=True):
        assert low.dtype in (kind, jnp.float32)
        np.testing.assert_allclose(np.asarray(low, np.float32), high, rtol=0.2, atol=0.1)
    found = update(problem, update.init(init(kind)), batch)
    assert found["head"]["kernel"].dtype == found["head"]["bias"].dtype == kind


RIDGE = Ridge(regulariser=0.3)


def on_features(outputs: int, loss: Any = squared_error) -> Problem:
    """A model whose features are its inputs."""

    def init(key: Any) -> Any:
        return {"head": {"kernel": jnp.zeros((4, outputs)), "bias": jnp.zeros(outputs)}}

    def apply(params: Any, inputs: Any, weights: Any) -> Any:
        return inputs @ params["head"]["kernel"] + params["head"]["bias"]

    score = mean_squared_error if loss is squared_error else accuracy
    return Problem(Model(init, apply, features=lambda params, inputs, weights: inputs), loss, score)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("outputs", [1, 3])
def test_ridge_is_scikit_learn_s(n: int, outputs: int) -> None:
    """With a prior head of zeros and without; by the system of examples and that of features; with weights."""
    random = np.random.default_rng(n)
    with jax.enable_x64(True):
        problem = on_features(outputs)
        x, y, a = random.normal(size=(n, 4)), random.normal(size=(n, outputs)), random.uniform(0.5, 2, n)
        a[-1] = 0
        prior = random.normal(size=(5, outputs))
        extended = np.concatenate([x, np.ones((n, 1))], axis=1)
        for start in (np.zeros_like(prior), prior):
            params = {"head": {"kernel": jnp.asarray(start[:4]), "bias": jnp.asarray(start[4])}}
            found = RIDGE(problem, RIDGE.init(params), Batch(x, y, a))["head"]
            theirs = SklearnRidge(alpha=0.3, fit_intercept=False).fit(extended, y - extended @ start, sample_weight=a)
            expected = start + theirs.coef_.reshape(outputs, 5).T
            np.testing.assert_allclose(np.vstack([found["kernel"], found["bias"]]), expected, rtol=1e-5, atol=1e-9)
        free = RIDGE.init(problem.init(None))._replace(log_regulariser=jnp.log(jnp.array([0.3, 1e-9])))
        found = RIDGE(problem, free, Batch(x, y, a))["head"]
        theirs = SklearnRidge(alpha=0.3).fit(x, y, sample_weight=a)
        np.testing.assert_allclose(found["kernel"], theirs.coef_.reshape(outputs, 4).T, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["bias"], np.ravel(theirs.intercept_), rtol=1e-5, atol=1e-6)


def test_ridge_on_labels_is_one_on_centred_one_hot_targets_times_the_scale() -> None:
    random = np.random.default_rng(0)
    x, labels = random.normal(size=(9, 4)).astype(np.float32), random.integers(0, 3, 9).astype(np.int32)
    update, start = Ridge(regulariser=0.3, scale=7.0), on_features(3).init(None)
    of_labels = update(on_features(3, CrossEntropy()), update.init(start), Batch.of(x, labels))
    of_numbers = update(on_features(3), update.init(start), Batch.of(x, (np.eye(3)[labels] - 1 / 3).astype(np.float32)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 7 * b, rtol=1e-4, atol=1e-5), of_labels, of_numbers)


def test_before_data_ridge_has_its_prior() -> None:
    params = CURVES.init(jax.random.key(0))
    nothing = Batch(np.ones((2, 1), np.float32), np.ones((2, 1), np.float32), np.zeros(2, np.float32))
    found = Ridge()(CURVES, Ridge().init(params), nothing)
    jax.tree.map(lambda ours, w: np.testing.assert_allclose(ours, w, atol=1e-6), found, params)


def test_ridge_does_not_look_at_padding() -> None:
    """Which is zeros where there is no example to repeat, and features of zeros need not be finite."""
    given = on_features(3)
    model = Model(given.net.init, given.net.apply, features=lambda params, inputs, weights: jnp.divide(inputs, inputs))
    problem = replace(given, model=model)
    nothing = Batch(np.zeros((2, 4), np.float32), np.zeros((2, 3), np.float32), np.zeros(2, np.float32))
    found = Ridge()(problem, Ridge().init(problem.init(jax.random.key(0))), nothing)
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0), found)


def test_ridge_takes_whole_numbers_for_labels_of_two_outputs_or_more() -> None:
    problem = on_features(1)
    with pytest.raises(ValueError, match=r"for two outputs or more, got targets of shape \(\) for 1: give numbers as"):
        Ridge()(problem, Ridge().init(problem.init(jax.random.key(0))), Batch.of(np.ones((2, 4)), np.ones(2, int)))


@pytest.mark.parametrize(
    ("problem", "batch", "message"),
    [
        (quadratic(), points(3), "Model has no features: give it a function features"),
        (on_features(3), Batch.of(np.ones((2, 4)), np.ones((2, 2))), r"fits targets of shape \(3,\) an example, got"),
        (
            on_features(3),
            Batch.of(np.ones((2, 5)), np.ones((2, 3))),
            r"features of shape \(5,\), and a head for \(4, 3",
        ),
        (on_features(3), Batch.of(np.ones((2, 4)), np.ones((2, 3), int)), "takes one label an example"),
    ],
)
def test_ridge_says_what_it_needs(problem: Problem, batch: Batch, message: str) -> None:
    params = {"head": {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}}
    with pytest.raises(ValueError, match=message):
        Ridge()(problem, Ridge().init(params), batch)
    with pytest.raises(ValueError, match="needs a linear head"):
        Ridge()(problem, Ridge().init({"w": jnp.zeros(3)}), batch)


def test_reptile_moves_towards_what_its_steps_find() -> None:
    """The mean over tasks of (w - U'(w)) / alpha, where U' is `steps` on D_tr and one step more on D_val."""
    update, alpha = Reptile(steps=3, step_size=0.05), 0.05
    params = CURVES.net.init(jax.random.key(0))
    tasks = [(points(6, i), points(6, 10 + i)) for i in range(2)]
    expected = []
    for train, validation in tasks:
        v = params
        for batch in (train, train, train, validation):
            v = GradientDescent(1, alpha)(CURVES, v, batch)
        expected.append(jax.flatten_util.ravel_pytree(jax.tree.map(lambda w, v: (w - v) / alpha, params, v))[0])
    train, validation = (
        jax.tree.map(lambda *leaves: np.stack(leaves), *batches) for batches in zip(*tasks, strict=True)
    )
    _, gradient = jax.jit(meta_gradient, static_argnums=(0, 1))(CURVES, update, params, train, validation)
    np.testing.assert_allclose(
        jax.flatten_util.ravel_pytree(gradient)[0], np.mean(expected, axis=0), rtol=1e-3, atol=1e-5
    )


def test_padding_does_not_change_what_is_adapted_to() -> None:
    problem = quadratic()
    data = Batch.of(np.ones((2, 3), np.float32), np.ones(2, np.float32))
    padded = Batch(np.full((4, 3), 1.0, np.float32), np.array([1, 1, 9, 9], np.float32), np.array([1.0, 1, 0, 0]))
    params = problem.net.init(jax.random.key(0))
    update = GradientDescent()
    np.testing.assert_allclose(update(problem, params, data)["w"], update(problem, params, padded)["w"], rtol=1e-6)


@pytest.mark.parametrize(
    "update",
    [
        GradientDescent(adapt_only=("head",)),
        OptimizerSteps(adapt_only=("head",)),
        OptimizerSteps(optimizer=optax.sgd(0.1, 0.9), adapt_only=("head",)),
        OptimizerSteps(optimizer=optax.adamw(0.01, eps_root=1e-6), adapt_only=("head",)),  # decays all weights
    ],
    ids=["descent", "momentum", "optax", "weight decay"],
)
def test_only_the_named_parameters_move_and_the_others_are_still_meta_learned(update: UpdateProcedure) -> None:
    params = CURVES.net.init(jax.random.key(0))
    adapted = update(CURVES, params, points(5))
    np.testing.assert_array_equal(adapted["hidden"][0]["kernel"], params["hidden"][0]["kernel"])
    assert np.abs(adapted["head"]["kernel"] - params["head"]["kernel"]).max() > 1e-5
    gradient = jax.grad(lambda p: meta_objective(CURVES, update, p, points(5), points(5, 1)))(params)
    assert np.abs(gradient["hidden"][0]["kernel"]).max() > 1e-5


def test_a_name_that_no_parameter_bears_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no parameter is named haed: the names are .*head"):
        mask(MLP().init(jax.random.key(0)), ("haed",))


@pytest.mark.parametrize(
    ("build", "setting"),
    [
        (lambda: GradientDescent(steps=-1), "steps"),
        (lambda: GradientDescent(step_size=0.0), "step_size"),
        (lambda: GradientDescent(step_size=float("nan")), "step_size"),
        (lambda: GradientDescent(prior_strength=-1.0), "prior_strength"),
        (lambda: GradientDescent(clip=0.0), "clip"),
        (lambda: MetaSGD(step_size=-0.1), "step_size"),
        (lambda: MetaSGD(prior_strength=float("inf")), "prior_strength"),
        (lambda: InnerMomentum(decay=1.0), "decay"),
        (lambda: InnerAdam(epsilon=0.0), "epsilon"),
        (lambda: OptimizerSteps(steps=-2), "steps"),
        (lambda: Proximal(strength=0.0), "strength"),
        (lambda: Proximal(cg_steps=0), "cg_steps"),
        (lambda: Proximal(tolerance=-1.0), "tolerance"),
        (lambda: Reptile(steps=-1), "steps"),
    ],
)
def test_impossible_settings_are_refused(build: Any, setting: str) -> None:
    with pytest.raises(ValueError, match=rf"{setting} must be .*got"):
        build()


# Per example: gradients in one call, and in differentiating it, where a Hessian-vector product counts as two.
COSTS = {
    "identity": (0, 0), "one step": (1, 2), "five steps": (5, 10), "five steps, plain": (5, 10), "first order": (5, 0),
    "last layer": (5, 10), "last layer, plain": (5, 10), "clipped": (5, 10), "step by datapoints": (5, 10),
    "meta-sgd, one step": (1, 2), "meta-sgd": (5, 10), "meta-sgd, plain": (5, 10),
    "meta-sgd, by datapoints, last layer": (5, 10),
    "momentum, one step": (1, 2), "momentum": (5, 10), "momentum, last layer": (5, 10), "head first": (5, 10),
    "adam, one step": (1, 2), "adam": (5, 10), "adam, plain": (5, 10),
    # Conjugate gradients take a product for the first residual and one a step, at most 30.
    "imaml, newton": (12 * (1 + 2 * 31), 2 * 31), "imaml, gradient": (200, 2 * 31),
    "reptile": (5, 0), "ridge": (1, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", UPDATES)
def test_every_update_procedure_is_a_value_and_states_its_cost(name: str) -> None:
    update: UpdateProcedure = UPDATES[name]
    assert hash(update) == hash(replace(update))  # type: ignore[type-var]
    assert update == replace(update)  # type: ignore[type-var]
    calling, differentiating = COSTS[name]
    assert update.gradient_evaluations(7) == 7 * calling
    assert update.meta_gradient_evaluations(7) == 7 * differentiating


def test_ridge_takes_labels_that_are_true_or_false() -> None:
    problem, x = on_features(2), np.eye(4, dtype=np.float32)
    update = Ridge()
    meta = update.init(problem.init(jax.random.key(0)))
    told, numbers = (update(problem, meta, Batch.of(x, y)) for y in (np.arange(4) > 1, np.array([0, 0, 1, 1])))
    jax.tree.map(np.testing.assert_array_equal, told, numbers)


@pytest.mark.parametrize(
    ("settings", "name", "message"),
    [
        (Proximal(), "solver", "unknown solver 'newtn': did you mean newton"),
        (GradientDescent(), "derivative", "unknown derivative 'newtn'"),
        (ConvNet(), "norm", "unknown norm 'newtn'"),
        (PoseNet(), "norm", "unknown norm 'newtn'"),
        (Rendering(), "source", "unknown source 'newtn': There are cad, primitives"),
        (Rendering(), "paint", "unknown paint 'newtn'"),
    ],
)
def test_a_word_that_is_not_known_is_refused(settings: Any, name: str, message: str) -> None:
    object.__setattr__(settings, name, "newtn")  # past the type checks of the tests
    with pytest.raises(UserError, match=message):
        settings.__post_init__()


def test_a_word_in_place_of_names_is_not_taken_letter_by_letter() -> None:
    update = GradientDescent()
    object.__setattr__(update, "adapt_only", "head")
    with pytest.raises(ValueError, match=r"names of parameters are a tuple, as \('head',\), got 'head'"):
        update(CURVES, CURVES.init(jax.random.key(0)), points(4))
