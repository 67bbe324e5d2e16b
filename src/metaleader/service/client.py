"""A client of a learner that is served: the verbs of `Live`, by HTTP."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import random
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from metaleader.buffer import TaskKey
from metaleader.errors import UserError, imported
from metaleader.live import Acknowledged, Forgotten, Mean, Predictor, Standing
from metaleader.problem.arrays import real_array
from metaleader.problem.batch import Examples
from metaleader.streams.objects import DAY, MICROSECOND

OVERLOADED = (429, 503)  # refused before anything was done
LONGEST = 60.0  # seconds between two tries


class Client:
    """Asks a learner that `metaleader serve` serves; its methods do, take and give what those of `Live` do.

    An answer that does not come, or says that the service is overloaded, is asked for again, after the time that the
    service names, or else one that doubles. Datapoints have their ids before they are first sent, so that they count
    once however often they are sent. All methods may be called by several threads at once.

    Where a learner takes rows of a table, they are given as a data frame, or a list of dicts, in place of `x` and `y`.

    Args:
        url: of the service, such as `http://127.0.0.1:8000`.
        token: one of those that the service knows; None: it needs none.
        timeout: seconds that one try may take; rebuilding and forgetting may take longer.
        retries: how many further tries there are.
        transport: of httpx2, in place of the network.

    Raises:
        UserError: httpx2 is not installed. Of methods: the service refuses, which says why, or cannot be reached.

    Examples:
        >>> import httpx2, metaleader as ml
        >>> def service(request):  # what a service would answer; without `transport`, one is asked over the network
        ...     return httpx2.Response(200, json={"tasks": [{"task": "north", "datapoints": 20}], "next": None})
        >>> with ml.Client("http://127.0.0.1:8000", transport=httpx2.MockTransport(service)) as client:
        ...     client.tasks()
        {'north': 20}
    """

    def __init__(
        self, url: str, token: str | None = None, *, timeout: float = 30.0, retries: int = 5, transport: Any = None
    ) -> None:
        self.url, self._retries = url.rstrip("/"), retries
        self._httpx = imported("httpx2", "serve", "ml.Client")
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = self._httpx.Client(base_url=self.url, headers=headers, timeout=timeout, transport=transport)
        self._patient = self._httpx.Timeout(timeout, read=None)

    # Learning

    def learn(self, task: TaskKey, x: Examples, y: Any = None, ids: Sequence[str] | None = None) -> Acknowledged:
        """Take datapoints of a task; returns once they are on the disk of the service; see `Live.learn`."""
        told = _datapoints(x, y)
        names = [secrets.token_hex(16) for _ in range(_count(told))] if ids is None else list(ids)
        return Acknowledged(**self._ask("POST", "/v1/learn", {"task": _key(task), **told, "ids": names}))

    def wait(self, timeout: float = 60.0) -> None:
        """Wait until all that was acknowledged is learned, and predictions are made from it; see `Live.wait`."""
        self._ask("POST", "/v1/wait", {"timeout": timeout}, long=True)

    @property
    def backlog(self) -> int:
        """About how many datapoints are acknowledged, but not yet learned."""
        return int(self.status()["backlog"])

    # Predicting

    def predict(self, task: TaskKey, x: Examples) -> Any:
        """Predictions for inputs of a task; see `Live.predict`. Tuples come back as lists."""
        return _arrays(self._ask("POST", "/v1/predict", {"task": _key(task), **_inputs(x)}))

    def adapt(self, x: Examples, y: Any = None) -> Predictor:
        """What predicts a task that has these datapoints; nothing is stored; see `Live.adapt`.

        They are sent with each prediction.
        """
        told = _datapoints(x, y)

        def predicted(x: Examples) -> Any:
            ((name, value),) = _inputs(x).items()
            return _arrays(self._ask("POST", "/v1/adapt", {**told, {"x": "inputs", "rows": "input_rows"}[name]: value}))

        return Predictor(predicted)

    # Looking and keeping

    def tasks(self) -> Mapping[TaskKey, int]:
        """The tasks that have datapoints, and how many each."""
        found, start = dict[TaskKey, int](), 0
        while start is not None:
            some = self._ask("GET", f"/v1/tasks?start={start}&limit=10000")
            found.update((each["task"], each["datapoints"]) for each in some["tasks"])
            start = some["next"]
        return found

    def score(self) -> Standing:
        """How good predictions were, each datapoint judged before it was learned; see `Live.score`."""
        told = self._ask("GET", "/v1/score")
        by_age = {int(age): _mean(mean) for age, mean in told["by_age"].items()}
        return Standing(_mean(told["overall"]), by_age, _mean(told["recent"]), told["not_finite"])

    def status(self) -> dict[str, Any]:
        """How the learner and the service stand, as plain data."""
        return self._ask("GET", "/v1/status")

    def forget(self, task: TaskKey) -> Forgotten:
        """Remove the datapoints of a task; see `Live.forget`."""
        return Forgotten(**self._ask("POST", "/v1/forget", {"task": _key(task)}, long=True, once=True))

    def rebuild(self) -> None:
        """Learn the log anew, without all that was forgotten; see `Live.rebuild`."""
        self._ask("POST", "/v1/rebuild", long=True, once=True)

    def save(self) -> None:
        """Write a snapshot now; see `Live.save`."""
        self._ask("POST", "/v1/save", long=True)

    def close(self) -> None:
        """Close connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Within

    def _ask(self, method: str, path: str, body: Any = None, *, long: bool = False, once: bool = False) -> Any:
        """The answer to a request, as plain data.

        Args:
            method: of HTTP.
            path: with its query.
            body: plain data.
            long: whether it may take longer than `timeout`; what is then not done in time is not tried again.
            once: whether it must not be done twice: it is then not sent again if its answer is lost.

        Raises:
            UserError: see the class.
        """
        settings: dict[str, Any] = {"timeout": self._patient} if long else {}
        if body is not None:
            settings["content"] = json.dumps(body, allow_nan=False)
            settings["headers"] = {"Content-Type": "application/json"}
        for tried in range(self._retries + 1):
            pause = random.uniform(0.5, 1.0) * min(0.1 * 2**tried, LONGEST)
            try:
                response = self._http.request(method, path, **settings)
            except self._httpx.TransportError as error:
                why = f"{self.url} cannot be reached: {str(error) or type(error).__name__}"
                if once and not isinstance(error, self._httpx.ConnectError):
                    raise UserError(f"{why}; it may have been done") from error
            else:
                if response.is_success:
                    return response.json() if response.content else None
                why = _message(response)
                again = () if once else (502,) if long else (502, 504)
                if response.status_code not in (*OVERLOADED, *again):
                    raise UserError(why)
                pause = max(pause, _seconds(response.headers.get("Retry-After", "")))
            if tried < self._retries:
                time.sleep(pause)
        raise UserError(f"{why} (tried {self._retries + 1} times)")


def _key(task: TaskKey) -> TaskKey:
    return int(task) if isinstance(task, np.integer) else task


def _datapoints(x: Examples, y: Any) -> dict[str, Any]:
    if y is None:
        return {"rows": _rows(x)}
    names = [] if isinstance(y, Mapping) else list(y)  # of classes, if it is text
    is_text = names and all(isinstance(name, str) for name in names)
    return {"x": _plain(x, "inputs"), "y": names if is_text else _plain(y, "targets")}


def _inputs(x: Examples) -> dict[str, Any]:
    is_rows = hasattr(x, "columns") or (isinstance(x, list) and all(isinstance(row, Mapping) for row in x))
    return {"rows": _rows(x)} if is_rows else {"x": _plain(x, "inputs")}


def _rows(rows: Any) -> list[dict[str, Any]]:
    """Rows of a frame, or dicts, as plain data: times as text, missing values as null."""
    if hasattr(rows, "columns"):
        import narwhals as nw

        rows = nw.from_native(rows, eager_only=True).rows(named=True)
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise UserError(f"datapoints are x and y, or rows: a data frame or a list of dicts; got {type(rows).__name__}")
    return [{str(name): _cell(str(name), value) for name, value in row.items()} for row in rows]


def _cell(name: str, value: Any) -> Any:
    """A value of a column as plain data, which the service reads as `Live` would read the value itself.

    Raises:
        UserError: it is infinite, or of a type that a table does not hold.
    """
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):  # of labels
        return [_cell(name, label) for label in value]
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value.astype("datetime64[us]"))
    if isinstance(value, np.timedelta64):
        return None if np.isnat(value) else float(value / np.timedelta64(1, "us")) / DAY
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # of pandas
        return None
    if isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, datetime.timedelta):
        return value / MICROSECOND / DAY
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if not isinstance(value, (float, decimal.Decimal)):
        raise UserError(
            f"column {name!r} holds {value!r:.100}, of type {type(value).__name__}, expected a number, a word, a date, "
            "or a list of labels: convert it, or leave the column out"
        )
    if math.isinf(value):
        raise UserError(f"column {name!r} must hold finite numbers, got {value}: replace it, or mark it as missing")
    return None if math.isnan(value) else float(value)


def _plain(tree: Any, what: str) -> Any:
    if isinstance(tree, Mapping):
        return {name: _plain(part, f"{what}[{name!r}]") for name, part in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_plain(part, f"{what}[{i}]") for i, part in enumerate(tree)]
    array = real_array(tree, what)
    return (array if array.dtype.kind in "biuf" else array.astype(np.float32)).tolist()


def _count(told: Mapping[str, Any]) -> int:
    """How many datapoints there are."""
    value = told.get("rows", told.get("x"))
    while isinstance(value, Mapping):
        value = next(iter(value.values()), [])
    return len(value)


def _arrays(answer: Mapping[str, Any]) -> Any:
    def filled(value: Any, dtype: Any) -> Any:
        if isinstance(dtype, Mapping):
            return {name: filled(value[name], dtype[name]) for name in dtype}
        if isinstance(dtype, list):
            return [filled(part, own) for part, own in zip(value, dtype, strict=True)]
        return np.array(value, dtype)  # null becomes NaN

    return filled(answer["predictions"], answer["dtype"])


def _mean(told: Mapping[str, Any]) -> Mean:
    values = {name: math.nan if value is None else value for name, value in told["values"].items()}
    return Mean(told["datapoints"], values)


def _message(response: Any) -> str:
    """What the service says, or the status if something else answered."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{response.url} answered {response.status_code} {response.reason_phrase}"


def _seconds(retry_after: str) -> float:
    return min(float(retry_after), LONGEST) if retry_after.isascii() and retry_after.isdigit() else 0.0
