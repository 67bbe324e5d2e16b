"""The example in one file is the package's FTML; the others run."""

import runpy
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from metaleader import (
    FTML,
    GradientDescent,
    Model,
    OnlineProtocol,
    Problem,
    Task,
    begin,
    mean_squared_error,
    resume,
    squared_error,
)

ROOT = Path(__file__).parents[1]


def test_ftml_in_one_file_is_the_package_s_ftml() -> None:
    example: dict[str, Any] = runpy.run_path(str(ROOT / "examples" / "ftml_in_one_file.py"))
    stream = example["sinusoids"](3)
    params, records = example["online"](stream)
    problem = Problem(
        Model(example["init"], lambda params, inputs, weights: example["apply"](params, inputs)),
        squared_error,
        mean_squared_error,
    )
    learner = FTML(GradientDescent(5, 0.02), meta_steps=10, meta_batch=4, train_size=5, validation_size=5)
    tasks = [Task.from_arrays(*arrays) for arrays in stream]
    played = list(resume(problem, tasks, learner, OnlineProtocol(chunk=10), begin(problem, learner, tasks[0])))
    scores = [(record.round, record.datapoints, record.score or 0.0) for _, record in played if record is not None]
    end, _ = played[-1]
    for ours, theirs in zip(jax.tree.leaves(end.learner.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(scores, records, rtol=1e-2)


@pytest.mark.parametrize(
    "name",
    [
        "own_learner",
        "own_stream",
        "own_metric",
        "own_table",
        "own_folder",
        "own_model_equinox",
        "own_model_nnx",
        "own_update",
    ],
)
def test_the_short_examples_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / "examples" / f"{name}.py"
    assert len(path.read_text().splitlines()) <= 40
    runpy.run_path(str(path), run_name="__main__")
    shown = capsys.readouterr().out
    expected = {
        "own_learner": "mean of user",
        "own_stream": "after 0 readings",
        "own_metric": "macro F1",
        "own_model_equinox": "FTML",
        "own_model_nnx": "FTML",
        "own_update": "signs",
        "own_folder": "target: binary, 2 classes: left, right",
        "own_table": "in RMSE of sold, in the unit of 'sold'",
    }
    assert expected[name] in shown
