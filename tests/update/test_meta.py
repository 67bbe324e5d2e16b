"""The meta-gradient is the mean over tasks, however they are grouped and on however many devices they lie."""

from dataclasses import replace
from typing import Any

import jax
import jax.flatten_util
import numpy as np
import pytest

from metaleader import FTML, Batch, GradientDescent, Learner, Problem, meta_gradient, meta_objective
from metaleader import devices as device_module
from problems import DIGITS, images


def stack(batches: list[Batch]) -> Batch:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


@pytest.mark.parametrize("at_once", [1, 2, 4, 6, 100])
def test_meta_gradient_is_the_mean_over_tasks(at_once: int) -> None:
    params, update = DIGITS.net.init(jax.random.key(0)), GradientDescent(steps=2)
    train, validation = [images(5, i) for i in range(6)], [images(4, 50 + i) for i in range(6)]
    one = jax.jit(jax.value_and_grad(lambda w, a, b: meta_objective(DIGITS, update, w, a, b)))
    each = [one(params, a, b) for a, b in zip(train, validation, strict=True)]
    expected = np.mean([jax.flatten_util.ravel_pytree(gradient)[0] for _, gradient in each], axis=0)
    grouped = jax.jit(meta_gradient, static_argnums=(0, 1, 5))
    loss, gradient = grouped(DIGITS, update, params, stack(train), stack(validation), at_once)
    np.testing.assert_allclose(loss, np.mean([value for value, _ in each]), rtol=1e-5)
    got = jax.flatten_util.ravel_pytree(gradient)[0]
    assert np.linalg.norm(got - expected) < 1e-4 * np.linalg.norm(expected)


def test_a_meta_update_on_two_devices_is_that_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    learner: Learner = FTML(GradientDescent(steps=2), meta_steps=2, meta_batch=3, train_size=3, validation_size=4)

    def learned() -> np.ndarray:
        state = learner.init(DIGITS, jax.random.key(0), images(1))
        for task in range(2):
            state, _ = learner.observe(DIGITS, state, task, images(9, task))
        return np.asarray(jax.flatten_util.ravel_pytree(state.params)[0])

    assert device_module.mesh(3).size == 2  # of which one takes a task without examples
    two = learned()
    one_device = device_module.mesh(1)
    monkeypatch.setattr(device_module, "mesh", lambda tasks: one_device)
    np.testing.assert_allclose(two, learned(), rtol=1e-3, atol=2e-4)


def test_a_mesh_has_the_fewest_devices_that_take_the_least_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [device_module.mesh(tasks).size for tasks in (1, 2, 3, 25)] == [1, 2, 2, 2]
    eight = jax.devices() * 4
    monkeypatch.setattr(jax, "devices", lambda: eight)
    monkeypatch.setattr(jax, "local_device_count", lambda: 8)
    assert [device_module.mesh(tasks).size for tasks in (4, 9, 10, 25)] == [4, 5, 5, 7]


def test_what_predicts_by_statistics_of_all_tasks_is_not_meta_trained_by_those_of_a_task() -> None:
    update, losses = GradientDescent(step_size=0.1), {}
    for norm in ("batch", "task", "running"):
        net: Any = DIGITS.model
        problem = Problem(replace(net, norm=norm), DIGITS.loss, DIGITS.scores)
        params = problem.init(jax.random.key(0))
        losses[norm] = float(meta_objective(problem, update, params, images(5), images(6, 1)))
    assert losses["running"] == losses["batch"] != losses["task"]
