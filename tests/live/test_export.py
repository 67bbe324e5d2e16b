"""A predictor that is exported predicts the same in a process that cannot import this package."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from flax import linen, nnx
from living import EAGER, LEARNER, PROBLEM, Counts, points, told
from safetensors.numpy import load_file

import metaleader as ml
from command import call
from metaleader.errors import UserError, WriteError
from metaleader.learners import external
from metaleader.live import Live
from metaleader.live.export import LOADING
from metaleader.streams import RowEncoder, from_table

FEW = ml.GradientDescent(2)
LEARNERS = {
    "FTML": LEARNER,
    "Ridge": ml.FTML(ml.Ridge(), meta_steps=1),
    "TOE": ml.TOE(1),
    "MultiHeadFTL": ml.MultiHeadFTL(1),
    "Scratch": ml.Scratch(1),
}
MORE = {
    "FTML, averaged": ml.FTML(FEW, meta_steps=1, optimizer=ml.Adam(average=0.5)),
    "HeadFirst": ml.FTML(ml.HeadFirst(), meta_steps=1),
    "MetaSGD": ml.FTML(ml.MetaSGD(2), meta_steps=1),
    "OptimizerSteps": ml.FTML(ml.OptimizerSteps(), meta_steps=1),
    "Proximal": ml.FTML(ml.Proximal(2), meta_steps=1),
    "Reptile": ml.FTML(ml.Reptile(), meta_steps=1),
    "OnlineMetaGradient": ml.OnlineMetaGradient(FEW, meta_steps=1),
    "FTL": ml.FTL(1),
    "MultiHeadTOE": ml.MultiHeadTOE(1),
}
LABELS = np.array([0, 2, 1, 1, 0], np.int32)
ALONE = f"""
import pathlib, sys
class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "metaleader": raise ImportError("it is not there")
sys.meta_path.insert(0, Blocked())
import numpy as np
for at in map(pathlib.Path, sys.argv[1:]):
    x = np.load(at / "x.npy")
{"".join("    " + line + chr(10) for line in LOADING.replace('pathlib.Path("north")', "at / 'out'").splitlines())}
    np.save(at / "predicted.npy", predicted)
assert "metaleader" not in sys.modules
"""


def alone(*folders: Path) -> list[np.ndarray]:
    """What the predictor in `out` of each folder makes of `x.npy` there, in a process without this package."""
    done = subprocess.run([sys.executable, "-c", ALONE, *map(str, folders)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [np.load(folder / "predicted.npy") for folder in folders]


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def exported(folder: Path, problem: ml.Problem, learner: Any, x: Any, y: Any, n: int = 7) -> Any:
    """Export a task to `folder / "out"`, and some inputs to `x.npy`; gives what the learner predicts of these."""
    with Live.create(folder / "live", problem, learner, pace=EAGER) as live:
        live.learn("north", x, y)
        live.learn("south", x[:2], y[:2])
        live.wait()
        live.export("north", folder / "out")
        asked = np.concatenate([np.asarray(x)] * n)[:n]
        np.save(folder / "x.npy", asked)
        return live.predict("north", asked)


@pytest.mark.parametrize("learners", [LEARNERS, pytest.param(MORE, marks=pytest.mark.slow)], ids=["some", "others"])
def test_every_learner_predicts_the_same_without_this_package(tmp_path: Path, learners: dict[str, Any]) -> None:
    x, y = points(1, 5)
    expected = [exported(tmp_path / name, PROBLEM, learner, x, y) for name, learner in learners.items()]
    for found, same in zip(alone(*(tmp_path / name for name in learners)), expected, strict=True):
        close(found, same)


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)


class WithNorm(linen.Module):
    @linen.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        return linen.Dense(1)(linen.BatchNorm(use_running_average=not train)(x))


class WithDropout(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm, self.head = nnx.BatchNorm(1, rngs=rngs), nnx.Linear(1, 1, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.head(self.dropout(self.norm(x)))


def regression(model: Any) -> ml.Problem:
    return ml.Problem(model, ml.squared_error, ml.mean_squared_error)


def classification(model: Any) -> ml.Problem:
    return ml.Problem(model, ml.CrossEntropy(), ml.accuracy)


@pytest.mark.slow
def test_every_kind_of_model(tmp_path: Path) -> None:
    x, y = points(1, 5)
    images = ml.ConvNet(2, 3, image=(8, 8, 1), classes=3, norm="task")
    cases: dict[str, tuple[ml.Problem, Any, Any]] = {
        "classes": (classification(ml.MLP(1, 3, width=4)), x, LABELS),
        "images": (classification(images), IMAGES, LABELS),
        "linen": (regression(ml.from_flax_linen(WithNorm(), x)), x, y),
        "nnx": (regression(ml.from_flax_nnx(WithDropout)), x, y),
        "equinox": (regression(ml.from_equinox(lambda key: eqx.nn.MLP(1, 1, 4, 1, key=key))), x, y),
        "own": (regression(ml.Model(one_name_twice, own)), x, y),
    }
    expected = [exported(tmp_path / name, case[0], LEARNER, *case[1:]) for name, case in cases.items()]
    for found, same in zip(alone(*(tmp_path / name for name in cases)), expected, strict=True):
        close(found, same)
    np.testing.assert_allclose(expected[0].sum(axis=1), 1, rtol=1e-5)
    kinds = {told["dtype"] for told in about(tmp_path / "own" / "out")["parameters"].values()}
    assert kinds == {"bfloat16", "float32"}


def one_name_twice(key: Any) -> Any:
    return {"w/0": jnp.ones(1, jnp.bfloat16), "w": [jnp.ones(())]}


def own(params: Any, x: Any, weights: Any) -> Any:
    return (x * params["w/0"] + params["w"][0]).astype(jnp.float32)


def about(folder: Path) -> Any:
    return json.loads((folder / "predictor.json").read_text())


def test_a_target_of_a_table_is_predicted_in_its_unit(tmp_path: Path) -> None:
    days = [float(i * 7 % 13) for i in range(40)]
    frame = pl.DataFrame({"shop": list("abcd") * 10, "day": days, "sales": [1e6 + i % 17 / 3 for i in range(40)]})
    table = from_table(frame, group="shop", target="sales")
    problem, out = table.problem(ml.MLP(len(table.features), width=4)), tmp_path / "out"
    with Live.create(tmp_path / "live", problem, LEARNER, table=table, pace=EAGER) as live:
        live.learn("a", frame[:10])
        live.wait()
        live.export("a", out)
        x, expected = live.encoder.encode(frame[:7]), live.predict("a", frame[:7])  # type: ignore[union-attr]
        np.save(tmp_path / "x.npy", x)
        assert RowEncoder.from_json(about(out)["rows"]) == live.encoder
    (found,) = alone(tmp_path)
    np.testing.assert_allclose(found, expected, rtol=1e-9)  # the mean is not added in float32
    told = about(tmp_path / "out")
    assert told["target"] == {"name": "sales", "mean": table.target.mean, "scale": table.target.scale}
    assert (told["predicts"], told["classes"], told["task"], told["datapoints"]) == ("values", [], "a", 10)
    assert told["inputs"] == {"dtype": "float32", "shape": [x.shape[1]]}
    assert told["outputs"] == {"dtype": "float32", "shape": [1]}
    assert told["learner"] == "FTML"
    assert {"cpu", "cuda", "tpu"} <= set(told["platforms"])


def test_inputs_and_outputs_may_be_several_arrays(tmp_path: Path) -> None:
    x, y = points(1, 5)
    inputs, out = {"a": x, "b": (x, x[:, 0])}, tmp_path / "out"

    def apply(params: Any, x: Any, weights: Any) -> Any:
        return {"mean": x["a"] * params + x["b"][1][:, None], "rows": [x["b"][0]]}

    model = ml.Model(lambda key: jnp.ones(1), apply)
    loss = lambda outputs, y: ml.squared_error(outputs["mean"], y)  # noqa: E731
    problem = ml.Problem(model, loss, ml.Score("error", loss, higher_is_better=False))
    with Live.create(tmp_path / "live", problem, LEARNER, pace=EAGER) as live:
        live.learn("north", inputs, y)
        live.export("north", out)
        expected = live.predict("north", inputs)
    program = jax.export.deserialize(bytearray((out / "predictor.stablehlo").read_bytes()))
    found = program.call(load_file(out / "parameters.safetensors"), inputs)
    jax.tree.map(close, found, expected)  # and of one structure
    column = {"dtype": "float32", "shape": [1]}
    assert about(out)["outputs"] == {"dict": {"mean": column, "rows": {"list": [column]}}}
    assert list(about(out)["parameters"]) == ["parameters"]


def test_weights_are_parameters_not_constants(tmp_path: Path) -> None:
    x, y = points(1, 5)
    problem = regression(ml.MLP(width=200, depth=2))
    exported(tmp_path, problem, ml.TOE(1), x, y)
    told, out = about(tmp_path / "out"), tmp_path / "out"
    assert (out / "predictor.stablehlo").stat().st_size < 10_000 < (out / "parameters.safetensors").stat().st_size
    parameters = load_file(out / "parameters.safetensors")
    assert {name: list(leaf.shape) for name, leaf in parameters.items()} == {
        name: leaf["shape"] for name, leaf in told["parameters"].items()
    }
    assert parameters["hidden/1/kernel"].shape == (200, 200)
    program = jax.export.deserialize(bytearray((out / "predictor.stablehlo").read_bytes()))
    zeros = jax.tree.map(np.zeros_like, parameters)
    assert not np.any(program.call({**zeros, "head/bias": np.zeros(1, np.float32)}, x))
    np.testing.assert_array_equal(program.call({**zeros, "head/bias": np.ones(1, np.float32)}, x), np.ones((5, 1)))


def test_datapoints_that_are_not_stored_and_a_task_without_any(tmp_path: Path) -> None:
    x, y = points(1, 5)
    adapted, first = tmp_path / "adapted", tmp_path / "first"
    with Live.create(tmp_path / "live", PROBLEM, LEARNER, pace=EAGER) as live:
        live.learn("north", x, y)
        live.wait()
        predictor = live.adapt(x[:3], y[:3])
        predictor.export(adapted / "out")
        live.export(None, first / "out")
        live.export("nobody", tmp_path / "nobody")
        expected = predictor.predict(x), live.predict("nobody", x)
    assert [about(at)["datapoints"] for at in (adapted / "out", first / "out", tmp_path / "nobody")] == [3, 0, 0]
    assert [about(at)["task"] for at in (adapted / "out", first / "out", tmp_path / "nobody")] == [None, None, "nobody"]
    for folder in (adapted, first):
        np.save(folder / "x.npy", x)
    for found, same in zip(alone(adapted, first), expected, strict=True):
        close(found, same)
    assert not np.allclose(*expected)


def eigenvalues(params: Any, x: Any, weights: Any) -> Any:
    matrices = x[:, :, None] * jnp.eye(1) * params["w"]
    return jnp.real(jnp.linalg.eigvals(matrices))


def test_an_operation_that_not_all_platforms_have(tmp_path: Path) -> None:
    x, y = points(1, 5)
    model = ml.Model(lambda key: {"w": jnp.ones(())}, eigenvalues)
    expected = exported(tmp_path, regression(model), ml.TOE(1), x, y)
    platforms = about(tmp_path / "out")["platforms"]
    assert "cpu" in platforms
    assert "tpu" not in platforms
    close(alone(tmp_path)[0], expected)


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (external.TaskLinear(), "TaskLinear cannot be exported: "),
        (external.PooledTrees(), "PooledTrees cannot be exported: "),
        (external.TaskMean(), "TaskMean cannot be exported: "),
        (Counts(), "Counts cannot be exported: .* take the number of rows as x.shape"),
    ],
)
def test_what_jax_cannot_trace_is_refused(tmp_path: Path, learner: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        exported(tmp_path, PROBLEM, learner, *points(1, 5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = points(1, 5)
    with Live.create(tmp_path / "live", PROBLEM, LEARNER, pace=EAGER) as live:
        with pytest.raises(UserError, match="nothing was learned yet"):
            live.export("north", tmp_path / "out")
        live.learn("north", x, y)
        (tmp_path / "there").mkdir()
        with pytest.raises(UserError, match="there exists already: choose a new folder"):
            live.export("north", tmp_path / "there")
        (tmp_path / "x.npy").touch()
        with pytest.raises(WriteError, match=r"cannot write to .*x\.npy"):
            live.export("north", tmp_path / "x.npy" / "out")

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("metaleader.live.export.write_json", full)
            with pytest.raises(WriteError, match="No space left on device; make room"):
                live.export("north", tmp_path / "out")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["live", "there", "x.npy"]
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "safetensors.flax", None)
            with pytest.raises(UserError, match=r"export needs safetensors, .*metaleader\[serve\]"):
                live.export("north", tmp_path / "out")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "live", tmp_path / "out"
    with Live.create(folder, PROBLEM, LEARNER, pace=EAGER) as live:
        told(live, range(6))
        live.learn(1, *points(9, 3))
        assert call("live", "export", str(folder), "--task", "t0", "--out", str(out)) == 2
        assert f"{folder} is in use by process {os.getpid()}" in capsys.readouterr().err
    x, _ = points(3, 4)
    for name, task in (("t0", "t0"), ("1", 1)):
        assert call("live", "export", str(folder), "--task", name, "--out", str(tmp_path / name / "out")) == 0
        assert (
            capsys.readouterr().out == f"wrote {tmp_path / name / 'out'}: predictor.json there says how it is loaded\n"
        )
        np.save(tmp_path / name / "x.npy", x)
        assert about(tmp_path / name / "out")["task"] == task
    found = alone(tmp_path / "t0", tmp_path / "1")
    with Live.open(folder) as live:
        close(found[0], live.predict("t0", x))
        close(found[1], live.predict(1, x))
    assert call("live", "export", str(folder), "--out", str(out)) == 0
    assert about(out)["datapoints"] == 0
    for arguments, message in (
        (["--task", "t9", "--out", str(tmp_path / "new")], "unknown task 't9': did you mean t2 or t1 or t0"),
        (["--task", "t1", "--out", str(out)], "exists already"),
        (["--task", "t1"], "--out"),
    ):
        assert call("live", "export", str(folder), *arguments) == 2
        assert message in capsys.readouterr().err


def test_the_page_shows_how_it_is_loaded() -> None:
    page = (Path(__file__).parents[2] / "docs" / "live.md").read_text()
    assert LOADING in page
