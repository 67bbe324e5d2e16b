"""Follow the meta leader in one file, with nothing but JAX, optax and NumPy.

Algorithms 1 and 2 of "Online Meta-Learning" (Finn, Rajeswaran, Kakade, Levine, ICML 2019) on a family of
sinusoids. It is what `metaleader.FTML` computes, written to be read from top to bottom: a test compares the two,
parameter by parameter. Run it with `python examples/ftml_in_one_file.py`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

ALPHA, INNER_STEPS = 0.02, 5  # the update procedure: gradient descent
META_STEPS, META_BATCH = 10, 4  # outer steps whenever datapoints arrive, tasks in each
TRAIN, VALIDATION = 5, 5  # datapoints in D_tr and D_val
CHUNK, ROUND = 10, 40  # datapoints that arrive at a time, and in a round
optimizer = optax.adam(1e-3)


# The model: two functions.


def init(key: Any) -> Any:
    """Weights of a net with one hidden layer."""
    first, second = jax.random.split(key)
    hidden = {"kernel": jax.random.normal(first, (1, 40)), "bias": jnp.linspace(-3, 3, 40)}
    return {"hidden": hidden, "head": {"kernel": 0.1 * jax.random.normal(second, (40, 1))}}


def apply(params: Any, x: Any) -> Any:
    """Predictions `(n, 1)` for inputs `(n, 1)`."""
    return jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"]) @ params["head"]["kernel"]


def loss(params: Any, x: Any, y: Any) -> Any:
    """L(D, w): the mean squared error."""
    return jnp.mean((apply(params, x) - y) ** 2)


# Algorithm 2.


def update_procedure(params: Any, x: Any, y: Any) -> Any:
    """U(w): a few steps of gradient descent on a task's data."""
    for _ in range(INNER_STEPS):
        gradient = jax.grad(loss)(params, x, y)
        params = jax.tree.map(lambda p, g: p - ALPHA * g, params, gradient)
    return params


def meta_objective(params: Any, tasks: Any) -> Any:
    """The mean over tasks of L(D_val, U(w)), with U(w) on D_tr (Eq. 5); its gradient goes through U."""

    def of_task(train: Any, validation: Any) -> Any:
        return loss(update_procedure(params, *train), *validation)

    return jnp.mean(jax.vmap(of_task)(*tasks))


@jax.jit
def meta_step(params: Any, opt_state: Any, tasks: Any) -> Any:
    """One step of the outer optimiser along the meta-gradient."""
    gradient = jax.grad(meta_objective)(params, tasks)
    changes, opt_state = optimizer.update(gradient, opt_state)
    return optax.apply_updates(params, changes), opt_state


def draw_distinct(key: Any, count: int, n: int) -> list[int]:
    """The first `n` places of a Fisher-Yates shuffle of 0, ..., count - 1."""
    places = list(range(count))
    left = jnp.maximum(count - jnp.arange(n), 1)
    drawn = np.arange(n) + np.minimum((jax.random.uniform(key, (n,)) * left).astype(int), left - 1)
    for i, j in enumerate(drawn):
        places[i], places[j] = places[j], places[i]
    return places[:n]


def sample(key: Any, buffer: list[Any]) -> tuple[Any, list[Any]]:
    """For every meta-step: tasks of the buffer with replacement, and disjoint D_tr and D_val of each."""
    key, tasks_key, data_key = jax.random.split(key, 3)
    uniform = jax.random.uniform(tasks_key, (META_STEPS, META_BATCH))
    chosen = np.ceil((1 - np.asarray(uniform)) * len(buffer)).astype(int) - 1
    keys = jax.random.split(data_key, (META_STEPS, META_BATCH))
    steps = []
    for tasks, task_keys in zip(chosen, keys, strict=True):
        parts = []
        for task, task_key in zip(tasks, task_keys, strict=True):
            x, y = buffer[task]
            places = np.array(draw_distinct(task_key, len(x), TRAIN + VALIDATION))
            train, validation = places[1::2], places[::2]  # every other one
            parts.append(((x[train], y[train]), (x[validation], y[validation])))
        steps.append(jax.tree.map(lambda *leaves: np.stack(leaves), *parts))
    return key, steps


# Algorithm 1.


def online(stream: list[Any], seed: int = 0) -> tuple[Any, list[tuple[int, int, float]]]:
    """Meet the tasks of a stream; returns the final w, and (round, datapoints, held-out loss) as they came."""
    key, init_key = jax.random.split(jax.random.key(seed))
    params = init(init_key)
    opt_state, buffer, records = optimizer.init(params), [], []
    for t, (x, y, test_x, test_y) in enumerate(stream, start=1):
        buffer.append((x[:0], y[:0]))
        for seen in range(CHUNK, ROUND + 1, CHUNK):
            buffer[-1] = (x[:seen], y[:seen])
            key, steps = sample(key, buffer)
            for tasks in steps:
                params, opt_state = meta_step(params, opt_state, tasks)
            adapted = jax.jit(update_procedure)(params, x[:seen], y[:seen])
            records.append((t, seen, float(loss(adapted, test_x, test_y))))
    return params, records


def sinusoids(rounds: int, seed: int = 0) -> list[Any]:
    """Tasks `y = a sin(x + phase)`, each with 40 datapoints to learn from and 100 held out."""
    random, stream = np.random.default_rng(seed), []
    for _ in range(rounds):
        amplitude, phase = random.uniform(0.1, 5), random.uniform(0, np.pi)
        x = random.uniform(-5, 5, (ROUND + 100, 1)).astype(np.float32)
        y = (amplitude * np.sin(x + phase)).astype(np.float32)
        stream.append((x[:ROUND], y[:ROUND], x[ROUND:], y[ROUND:]))
    return stream


if __name__ == "__main__":
    for t, seen, error in online(sinusoids(60))[1]:
        if seen == CHUNK and t % 5 == 1:
            print(f"round {t:2d}: squared error {error:6.3f} after {seen} datapoints")
