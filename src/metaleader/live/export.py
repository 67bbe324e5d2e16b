"""A predictor on its own: a folder with a program and its parameters, which runs without this package."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from metaleader.errors import UserError, imported, writing
from metaleader.files import make_folder, sync_folder, write_json, write_whole
from metaleader.learners import Learner
from metaleader.live.layout import Layout, layout_of
from metaleader.live.settings import Unit
from metaleader.problem import CrossEntropy, Problem

PROGRAM, PARAMETERS, ABOUT = "predictor.stablehlo", "parameters.safetensors", "predictor.json"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
FORMAT = 1  # of the folder
LOADING = """\
import json, pathlib
import jax, jax.export, numpy as np
from safetensors.flax import load_file

folder = pathlib.Path("north")
about = json.loads((folder / "predictor.json").read_text())
jax.config.update("jax_enable_x64", about["x64"])
program = jax.export.deserialize((folder / "predictor.stablehlo").read_bytes())
outputs = program.call(load_file(folder / "parameters.safetensors"), x)
predicted = np.asarray(outputs, np.float64) * about["target"]["scale"] + about["target"]["mean"]
"""


def write(
    folder: Path, problem: Problem, learner: Learner, adapted: Any, layout: Layout, unit: Unit | None, about: Any
) -> None:
    """Write what predicts a task to a new folder, which appears when it is complete.

    `predictor.stablehlo` is a serialised `jax.export.Exported`: the StableHLO of a function `(parameters, inputs) ->
    outputs` for any number of rows, in which `parameters` is a dict of arrays by name. They are in
    `parameters.safetensors`, and `predictor.json` says the rest. Outputs are probabilities with `CrossEntropy`;
    otherwise what the learner predicts, which is `(y - mean) / scale` of a target in its unit.

    Args:
        folder: which.
        problem: what was learned.
        learner: whose predictions they are.
        adapted: what it predicts the task by.
        layout: of the inputs.
        unit: of the target, if it has one.
        about: what else `predictor.json` is to say.

    Raises:
        UserError: the folder exists; a package is missing; or the predictions are not those of a function that JAX can
            trace, as with scikit-learn's models.
        WriteError: the file system refuses.
    """
    safetensors = imported("safetensors.flax", "serve", "export")
    imported("flatbuffers", "serve", "export")
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists already: choose a new folder for the predictor")
    parameters, rebuilt = _named(learner, adapted)
    exported, serialised, outputs = _program(problem, learner, parameters, rebuilt, layout)
    classes = isinstance(problem.loss, CrossEntropy)
    unit = unit or Unit("")
    described = {
        "format": FORMAT,
        **about,
        "inputs": layout.inputs,
        "outputs": outputs,
        "predicts": "probabilities" if classes else "values",
        "classes": list(unit.classes),
        "target": {"name": unit.name, "mean": unit.mean, "scale": unit.scale},
        "parameters": {name: {"dtype": str(leaf.dtype), "shape": leaf.shape} for name, leaf in parameters.items()},
        "platforms": list(exported.platforms),
        "x64": bool(jax.config.values["jax_enable_x64"]),
        "versions": {
            **{name: metadata.version(name) for name in ("metaleader", "jax", "safetensors")},
            "python": platform.python_version(),
            "calling_convention": exported.calling_convention_version,
        },
        "needs": "pip install jax safetensors flatbuffers",
        "to_load": LOADING.replace('"north"', repr(folder.name)).splitlines(),
    }
    partial = folder.with_name(f".{secrets.token_hex(8)}.tmp")
    with writing(folder, "make room or choose another folder, then export again"):
        try:
            make_folder(partial, new=True)
            write_whole(partial / PROGRAM, lambda file: file.write(serialised))
            write_whole(partial / PARAMETERS, lambda file: file.write(safetensors.save(parameters)))
            write_json(partial / ABOUT, described)
            os.replace(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(folder.parent)


def _named(learner: Learner, adapted: Any) -> tuple[dict[str, jax.Array], Callable[[Mapping[str, Any]], Any]]:
    """The arrays of an adapted value by name, and how it is made of them again.

    Raises:
        UserError: it holds something else.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(adapted)
    numbers = (jax.Array, np.ndarray, np.generic, int, float)
    if odd := [leaf for _, leaf in leaves if not isinstance(leaf, numbers)]:
        raise _not_exported(learner, f"what it adapts to a task holds a {type(odd[0]).__name__}")
    names = [jax.tree_util.keystr(path, simple=True, separator="/") or "parameters" for path, _ in leaves]
    if len(set(names)) < len(names):  # {1: ..., "1": ...}
        names = [f"{number}/{name}" for number, name in enumerate(names)]
    arrays = {name: jax.numpy.asarray(leaf) for name, (_, leaf) in zip(names, leaves, strict=True)}
    return arrays, lambda found: jax.tree.unflatten(structure, [found[name] for name in names])


def _program(
    problem: Problem, learner: Learner, parameters: Mapping[str, jax.Array], rebuilt: Any, layout: Layout
) -> tuple[jax.export.Exported, bytes, Any]:
    """The program for all platforms that it can be lowered for, also as bytes; and the layout of an output.

    Raises:
        UserError: JAX cannot trace what the learner predicts by, or store it.
    """
    (rows,) = jax.export.symbolic_shape("rows")

    def predict(parameters: Mapping[str, Any], inputs: Any) -> Any:
        outputs = learner.predict(problem, rebuilt(parameters), inputs)
        return jax.nn.softmax(outputs, axis=-1) if isinstance(problem.loss, CrossEntropy) else outputs

    def exported(platforms: tuple[str, ...]) -> tuple[jax.export.Exported, bytes, Any]:
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), parameters)
        inputs = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), layout.example().inputs
        )
        found = jax.export.export(jax.jit(predict), platforms=platforms)(shapes, inputs)
        shown = jax.tree.unflatten(
            found.out_tree, [np.zeros((1, *aval.shape[1:]), aval.dtype) for aval in found.out_avals]
        )
        return found, bytes(found.serialize()), layout_of(shown, "outputs")

    def possible(platform: str) -> bool:
        try:
            exported((platform,))
        except Exception:
            return False
        return True

    try:
        return exported(PLATFORMS)
    except Exception as error:  # whatever tracing a user's function raises; or an operation that one platform lacks
        if not (some := tuple(filter(possible, PLATFORMS))):
            raise _not_exported(learner, " ".join(str(error).split())[:300]) from error
    return exported(some)


def _not_exported(learner: Learner, why: str) -> UserError:
    return UserError(
        f"{type(learner).__name__} cannot be exported: {why}. A predictor is exported as one program of JAX, for any "
        "number of rows: its model must be made of jax.numpy (not of NumPy, scikit-learn or river) and take the number "
        "of rows as x.shape[0], not len(x)"
    )
