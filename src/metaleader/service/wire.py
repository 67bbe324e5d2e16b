"""Bodies of requests as what `Live` takes, and what it gives as bodies of answers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import ValidationError

from metaleader.errors import UserError, listed
from metaleader.live import Live, Standing
from metaleader.problem import CrossEntropy
from metaleader.service import arrow
from metaleader.service.bodies import Body, Datapoints
from metaleader.service.refusal import Refusal

B = TypeVar("B", bound=Body)
JSON = "application/json"


def read(kind: type[B], raw: bytes, content_type: str, live: Live, most: int) -> B:
    """The body of a request.

    Raises:
        Refusal: its type is not known, or it is not what it should be.
    """
    media = content_type.partition(";")[0].strip().lower()
    try:
        if media == JSON:
            told = json.loads(raw, parse_constant=_no_number)
        elif media == arrow.MEDIA_TYPE:
            told = arrow.read(raw, most, rows=takes_rows(live))
        else:
            raise Refusal(415, f"the content type is {media or 'not given'!r:.80}: send {JSON} or {arrow.MEDIA_TYPE}")
        return kind.model_validate(told)
    except UserError as error:
        raise Refusal(422, str(error)) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field, *places = first["loc"] or ("the body",)
        where = ".".join([str(field)[:100], *(str(place) for place in places if isinstance(place, int))])
        raise Refusal(422, f"{where}: {first['msg'].lower()}") from error
    except (ValueError, RecursionError) as error:
        raise Refusal(422, f"the body is no JSON: {error!s:.200}") from error


def takes_rows(live: Live) -> bool:
    """Whether a learner takes rows of a table."""
    return live.encoder is not None


def datapoints(live: Live, body: Datapoints, most: int) -> tuple[Any, ...]:
    """What `Live.learn` and `Live.adapt` take: inputs and targets, or rows.

    Raises:
        UserError: they are neither, too many, or no numbers.
    """
    if body.rows is not None:
        return (_rows(live, body.rows, most, body.x is None and body.y is None),)
    if takes_rows(live):
        raise UserError("this learner was made from a table: give rows")
    if body.x is None or body.y is None:
        raise UserError("datapoints need x and y, or rows")
    layout = live.layout
    x = inputs(live, body.x, None, most)
    if layout is not None:
        y = _filled(layout.targets, body.y, "y")
    else:
        labels = isinstance(live.problem.loss, CrossEntropy)
        y = _first(body.y, "y", np.dtype(np.int32 if labels else np.float32))
    _check_size(y, most)
    return x, y


def inputs(live: Live, x: Any, rows: list[dict[str, Any]] | None, most: int, what: str = "x") -> Any:
    """What `Live.predict` takes: inputs, or rows.

    Raises:
        UserError: they are neither, too many, or no numbers.
    """
    if rows is not None:
        return _rows(live, rows, most, x is None)
    if takes_rows(live):
        raise UserError("this learner was made from a table: give rows to predict")
    if x is None:
        raise UserError(f"{what} is missing: give inputs to predict")
    layout = live.layout
    found = _first(x, what, np.dtype(np.float32)) if layout is None else _filled(layout.inputs, x, what)
    _check_size(found, most)
    return found


def plain(tree: Any) -> tuple[Any, Any]:
    """Arrays as lists, in which null stands for what is not finite; and their types by the names of NumPy."""
    if isinstance(tree, Mapping):
        parts = {str(name): plain(part) for name, part in tree.items()}
        return {name: part[0] for name, part in parts.items()}, {name: part[1] for name, part in parts.items()}
    if isinstance(tree, (list, tuple)):
        pairs = [plain(part) for part in tree]
        return [part[0] for part in pairs], [part[1] for part in pairs]
    array = np.asarray(tree)
    if array.dtype.kind in "biuU":
        return array.tolist(), str(array.dtype)
    wide = array if array.dtype.kind == "f" else array.astype(np.float32)  # such as bfloat16
    finite = np.isfinite(wide)
    if finite.all():
        return wide.tolist(), str(wide.dtype)
    shown = wide.astype(object)
    shown[~finite] = None
    return shown.tolist(), str(wide.dtype)


def standing(score: Standing) -> dict[str, Any]:
    """`Live.score` as plain JSON."""

    def mean(of: Any) -> dict[str, Any]:
        values = {name: value if math.isfinite(value) else None for name, value in of.values.items()}
        return {"datapoints": of.datapoints, "values": values}

    by_age = {str(age): mean(of) for age, of in score.by_age.items()}
    return {
        "overall": mean(score.overall),
        "by_age": by_age,
        "recent": mean(score.recent),
        "not_finite": score.not_finite,
    }


def _rows(live: Live, rows: list[dict[str, Any]], most: int, alone: bool) -> list[dict[str, Any]]:
    if not alone:
        raise UserError("give x (and y), or rows, not both")
    if not takes_rows(live):
        raise UserError("this learner was not made from a table, so it takes no rows: give x (and y)")
    if len(rows) > most:
        raise UserError(f"{len(rows)} rows are too many: send at most {most} at a time")
    return rows


def _filled(told: Any, value: Any, where: str) -> Any:
    """Arrays of the structure and the types of a layout; `Live` compares their shapes."""
    if "dtype" in told:
        return _cast(_array(value, where), np.dtype(jnp.dtype(told["dtype"])), where)
    ((kind, held),) = told.items()
    if kind == "dict":
        if not isinstance(value, dict) or value.keys() != held.keys():
            raise UserError(f"{where} must be an object with {listed(sorted(held))}")
        return {name: _filled(held[name], value[name], f"{where}.{name}") for name in held}
    if not isinstance(value, list) or len(value) != len(held):
        raise UserError(f"{where} must be a list of {len(held)} parts, each with one entry a datapoint")
    parts = [_filled(part, own, f"{where}[{i}]") for i, (part, own) in enumerate(zip(held, value, strict=True))]
    return tuple(parts) if kind == "tuple" else parts


def _first(value: Any, where: str, dtype: np.dtype[Any]) -> Any:
    """The first values of all, whose types are not known: JSON has one kind of number."""
    if isinstance(value, dict):
        return {name: _first(part, f"{where}.{name:.50}", dtype) for name, part in value.items()}
    return _cast(_array(value, where), dtype, where)


def _array(value: Any, where: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:
        raise UserError(f"{where} is ragged: every entry must have the same shape") from None
    if array.ndim == 0:
        raise UserError(f"{where} must be a list, with one entry a datapoint")
    if array.dtype.kind not in "biuf" and array.size:
        raise UserError(f"{where} must hold numbers alone")
    return array


def _cast(array: np.ndarray, dtype: np.dtype[Any], where: str) -> np.ndarray:
    """Numbers of a type, which must hold them."""
    if jnp.issubdtype(dtype, jnp.floating):
        wide = array.astype(np.float64)
        with np.errstate(over="ignore"):
            cast = wide.astype(dtype)
        if not np.isfinite(cast.astype(np.float64)).all():
            raise UserError(f"{where} must be finite and within the range of {dtype}")
        return cast
    with np.errstate(invalid="ignore"):
        cast = array.astype(dtype)
    if not (cast == array).all():
        raise UserError(f"{where} must be whole numbers within the range of {dtype}")
    return cast


def _check_size(tree: Any, most: int) -> None:
    if (n := max((len(leaf) for leaf in jax.tree.leaves(tree)), default=0)) > most:
        raise UserError(f"{n} datapoints are too many: send at most {most} at a time")


def _no_number(name: str) -> Any:
    raise UserError(f"the body holds {name}, which is no number of JSON: remove or repair it")
