"""A program for tests: one of several processes, or the only one.

`one_of_several.py OUT [HOST:PORT PROCESSES PROCESS_ID]` writes the meta-gradient to OUT/gradient-ID.npy; as one of
several it then makes the runs of `plan`, of which the last process asks for a stop, and goes on with them.
"""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaleader import FTML, TOE, Experiment, GradientDescent, Learner, OnlineProtocol, Preset, Sinusoid, devices
from metaleader.buffer import store
from metaleader.experiments.plans import Selection
from metaleader.runs.run import Plan, RunInterrupted, run
from problems import CURVES, points

LEARNER = FTML(GradientDescent(step_size=0.01), meta_steps=2, meta_batch=4, train_size=3, validation_size=4)


def plan(out: Path) -> Plan:
    """Two small runs: one shares its meta-batches, the other does the same on every process."""
    stream = Sinusoid(rounds=3, examples_per_task=10, test_examples=20)
    learners: dict[str, Learner] = {"ftml": LEARNER, "toe": TOE(steps=2)}
    preset = Preset(stream, CURVES.net, CURVES.loss, OnlineProtocol(chunk=5), learners)
    experiment = Experiment("sinusoid", "curves", CURVES.score, {"tiny": preset})
    return Selection(experiment, "tiny", preset, tuple(learners), (0,), out).plan()


def recorder() -> optax.GradientTransformation:
    """An outer optimiser that stays where it is and keeps the meta-gradient as its state."""

    def keep(gradient: Any, state: Any, params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params), gradient

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), keep)


def gradient() -> np.ndarray:
    """The meta-gradient after three tasks, by way of `observe`, with a buffer that had to grow."""
    learner = FTML(meta_steps=1, meta_batch=4, train_size=3, validation_size=4, optimizer=recorder)
    with mock.patch.multiple(store, CAPACITY=16, SMALL=0):  # the three tasks have 27 datapoints
        state = learner.init(CURVES, jax.random.key(0), points(1))
    for task in range(3):
        state, _ = learner.observe(CURVES, state, task, points(9, task))
    assert len(state.buffer.order) == 32
    return np.concatenate([np.ravel(leaf.addressable_data(0)) for leaf in jax.tree.leaves(state.opt_state)])


def main(out: Path, coordinator: str = "", processes: str = "1", process: str = "0") -> None:
    if coordinator:
        devices.join(coordinator, int(processes), int(process))
    assert devices.mesh(4).size == len(jax.devices())
    np.save(out / f"gradient-{process}.npy", gradient())
    if not coordinator:
        return
    chunks = 0

    def stop(*_: Any) -> None:
        nonlocal chunks
        chunks += 1
        if chunks == 3 and not devices.is_first():
            os.kill(os.getpid(), signal.SIGINT)

    try:
        run(plan(out / "shared"), progress=stop)
    except RunInterrupted:
        if devices.is_first():
            shutil.copytree(out / "shared", out / "stopped")
        assert set(run(plan(out / "shared"), resume=True).values()) == {"finished"}
        print("stopped and finished")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
