"""A predictor on its own: a folder with a program and its parameters, which runs without this package."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from metaleader.errors import UserError, imported, writing
from metaleader.files import make_folder, sync_folder, write_json, write_whole
from metaleader.learners.base import Adapted
from metaleader.live.layout import Layout, layout_of

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


class Words(Protocol):
    """How a target is told: its name, those of its classes, and the mean and scale that a regression is scaled by."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def classes(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def mean(self) -> float: ...  # noqa: D102
    @property
    def scale(self) -> float: ...  # noqa: D102


def write(
    folder: Path,
    predict: Callable[[Adapted, Any], Any],
    adapted: Adapted,
    layout: Layout,
    target: Words | None,
    about: Mapping[str, Any],
) -> None:
    """Write what predicts a task to a new folder, which appears when it is complete.

    `predictor.stablehlo` is a serialised `jax.export.Exported`: the StableHLO of a function `(parameters, inputs) ->
    outputs` for any number of rows, in which `parameters` is a dict of arrays by name. They are in
    `parameters.safetensors`, and `predictor.json` says the rest. A regression's outputs are `(y - mean) / scale` of a
    target in its unit.

    Args:
        folder: which.
        predict: outputs, or probabilities, by what was adapted to the task and inputs.
        adapted: to the task.
        layout: of the inputs.
        target: how it is told, if that is known.
        about: what else `predictor.json` is to say, at least the name of the `learner`.

    Raises:
        UserError: the folder exists; a package is missing; or the predictions are not those of a function that JAX can
            trace, as with scikit-learn's models.
        WriteError: the file system refuses.
    """
    safetensors = imported("safetensors.flax", "serve", "export")
    imported("flatbuffers", "serve", "export")
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists already: choose a new folder for the predictor")
    try:
        parameters, rebuilt = _named(adapted)
        exported, serialised, outputs = _program(predict, parameters, rebuilt, layout)
    except _NotJax as error:
        raise UserError(
            f"{about['learner']} cannot be exported: {error}. A predictor is exported as one program of JAX, for any "
            "number of rows: its model must be made of jax.numpy (not of NumPy, scikit-learn or river) and take the "
            "number of rows as x.shape[0], not len(x)"
        ) from error.__cause__
    described = {
        "format": FORMAT,
        **about,
        "inputs": layout.inputs,
        "outputs": outputs,
        "classes": [] if target is None else list(target.classes),
        "target": {
            "name": None if target is None else target.name,
            "mean": 0.0 if target is None else target.mean,
            "scale": 1.0 if target is None else target.scale,
        },
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


class _NotJax(Exception):  # noqa: N818 - said to the user in other words
    """A prediction is not made by a function that JAX can trace and store."""


def _named(adapted: Adapted) -> tuple[dict[str, jax.Array], Callable[[Mapping[str, Any]], Any]]:
    """The arrays of an adapted value by name, and how it is made of them again.

    Raises:
        _NotJax: it holds something else.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(adapted)
    numbers = (jax.Array, np.ndarray, np.generic, int, float)
    if odd := [leaf for _, leaf in leaves if not isinstance(leaf, numbers)]:
        raise _NotJax(f"what it adapts to a task holds a {type(odd[0]).__name__}")
    names = [jax.tree_util.keystr(path, simple=True, separator="/") or "parameters" for path, _ in leaves]
    if len(set(names)) < len(names):  # {1: ..., "1": ...}
        names = [f"{number}/{name}" for number, name in enumerate(names)]
    arrays = {name: jax.numpy.asarray(leaf) for name, (_, leaf) in zip(names, leaves, strict=True)}
    return arrays, lambda found: jax.tree.unflatten(structure, [found[name] for name in names])


def _program(
    predict: Callable[[Adapted, Any], Any],
    parameters: Mapping[str, jax.Array],
    rebuilt: Callable[[Mapping[str, Any]], Adapted],
    layout: Layout,
) -> tuple[jax.export.Exported, bytes, Any]:
    """The program for all platforms that it can be lowered for, also as bytes; and the layout of an output.

    Raises:
        _NotJax: JAX cannot trace or store it.
    """
    (rows,) = jax.export.symbolic_shape("rows")

    def program(parameters: Mapping[str, Any], inputs: Any) -> Any:
        return predict(rebuilt(parameters), inputs)

    def exported(platforms: tuple[str, ...]) -> tuple[jax.export.Exported, bytes, Any]:
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), parameters)
        inputs = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), layout.example().inputs
        )
        found = jax.export.export(jax.jit(program), platforms=platforms)(shapes, inputs)
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
            raise _NotJax(" ".join(str(error).split())[:300]) from error
    return exported(some)
