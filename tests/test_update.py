"""Update procedures: values in closed form, derivatives by finite differences."""

from dataclasses import replace
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from metaleader import MLP, Batch, GradientDescent, Identity, Model, Problem, UpdateProcedure, meta_objective
from metaleader.update import mask
from problems import CURVES, DIGITS, UPDATES, images, points, quadratic


def smooth_problem() -> Problem:
    """A net without kinks, so that finite differences converge."""

    def apply(params: Any, inputs: Any, weights: Any) -> Any:
        hidden = jnp.tanh(inputs @ params["hidden"]["kernel"] + params["hidden"]["bias"])
        return hidden @ params["head"]["kernel"]

    def init(key: Any) -> Any:
        first, second = jax.random.split(key)
        hidden = {"kernel": jax.random.normal(first, (1, 5), float), "bias": jnp.ones(5, float) / 7}
        return {"hidden": hidden, "head": {"kernel": jax.random.normal(second, (5, 1), float)}}

    return replace(CURVES, model=Model(init, apply))


@pytest.mark.parametrize("name", UPDATES)
def test_meta_gradient_equals_central_finite_differences(name: str) -> None:
    update = UPDATES[name]
    with jax.enable_x64(True):
        problem = smooth_problem()
        params = problem.model.init(jax.random.key(0))
        train, validation = points(6, 1, dtype=np.float64), points(7, 2, dtype=np.float64)

        def value(p: Any) -> Any:
            return meta_objective(problem, update, p, train, validation)

        flat, unravel = jax.flatten_util.ravel_pytree(params)
        exact = jax.flatten_util.ravel_pytree(jax.jit(jax.grad(value))(params))[0]
        compiled = jax.jit(lambda vector: value(unravel(vector)))
        h = 1e-5
        numeric = np.array([(compiled(flat + h * e) - compiled(flat - h * e)) / (2 * h) for e in np.eye(len(flat))])
        error = np.linalg.norm(exact - numeric) / np.linalg.norm(numeric)
    if getattr(update, "first_order", False):
        assert error > 1e-2  # it leaves out the curvature
    else:
        assert error < 1e-6


@pytest.mark.parametrize("only", [(), ("head",)])
@pytest.mark.parametrize("steps", [1, 5])
def test_memory_light_derivative_equals_the_plain_one(steps: int, only: tuple[str, ...]) -> None:
    params = DIGITS.model.init(jax.random.key(0))
    gradients = [
        jax.flatten_util.ravel_pytree(
            jax.jit(jax.grad(lambda p, u: meta_objective(DIGITS, u, p, images(9, 1), images(8, 2))), static_argnums=1)(
                params, GradientDescent(steps=steps, only=only, derivative=derivative)
            )
        )[0]
        for derivative in ("plain", "forward-over-reverse")
    ]
    assert np.linalg.norm(gradients[0] - gradients[1]) < 1e-4 * np.linalg.norm(gradients[0])


@pytest.mark.parametrize("steps", [1, 3])
def test_adaptation_on_a_quadratic_has_the_closed_form(steps: int) -> None:
    """U(w) = w* + (I - alpha A)^steps (w - w*), and its derivative is (I - alpha A)^steps (appendix A)."""
    with jax.enable_x64(True):
        random, alpha = np.random.default_rng(0), 0.1
        x, y = random.normal(size=(20, 3)), random.normal(size=20)
        hessian, optimum = x.T @ x / 20, np.linalg.lstsq(x, y)[0]
        contraction = np.linalg.matrix_power(np.eye(3) - alpha * hessian, steps)
        update, w = GradientDescent(steps=steps, step_size=alpha), random.normal(size=3)

        def adapted(w: Any) -> Any:
            return update(quadratic().objective, {"w": w}, Batch.of(x, y))["w"]

        np.testing.assert_allclose(adapted(w), optimum + contraction @ (w - optimum), atol=1e-12)
        np.testing.assert_allclose(jax.jacrev(adapted)(w), contraction, atol=1e-12)


def test_padding_does_not_change_what_is_adapted_to() -> None:
    problem = quadratic()
    data = Batch.of(np.ones((2, 3), np.float32), np.ones(2, np.float32))
    padded = Batch(np.full((4, 3), 1.0, np.float32), np.array([1, 1, 9, 9], np.float32), np.array([1.0, 1, 0, 0]))
    params = problem.model.init(jax.random.key(0))
    update = GradientDescent()
    np.testing.assert_allclose(
        update(problem.objective, params, data)["w"], update(problem.objective, params, padded)["w"], rtol=1e-6
    )


def test_only_the_named_parameters_move_and_the_others_are_still_meta_learned() -> None:
    update = GradientDescent(only=("head",))
    params = CURVES.model.init(jax.random.key(0))
    adapted = update(CURVES.objective, params, points(5))
    np.testing.assert_array_equal(adapted["hidden"][0]["kernel"], params["hidden"][0]["kernel"])
    assert np.abs(adapted["head"]["kernel"] - params["head"]["kernel"]).max() > 1e-5
    gradient = jax.grad(lambda p: meta_objective(CURVES, update, p, points(5), points(5, 1)))(params)
    assert np.abs(gradient["hidden"][0]["kernel"]).max() > 1e-5


def test_a_name_that_no_parameter_bears_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no parameter is named haed: the names are .*head"):
        mask(MLP().init(jax.random.key(0)), ("haed",))


@pytest.mark.parametrize("settings", [{"steps": -1}, {"step_size": 0.0}, {"step_size": float("nan")}])
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        GradientDescent(**settings)


@pytest.mark.parametrize("name", UPDATES)
def test_every_update_procedure_is_a_value_and_states_its_cost(name: str) -> None:
    update: UpdateProcedure = UPDATES[name]
    assert hash(update) == hash(replace(update))  # type: ignore[type-var]
    assert update == replace(update)  # type: ignore[type-var]
    steps = 0 if isinstance(update, Identity) else update.steps  # type: ignore[attr-defined]
    assert update.gradient_evaluations(7) == 7 * steps
    curvature = 0 if name == "first order" else 2
    assert update.meta_gradient_evaluations(7) == 7 * steps * curvature
