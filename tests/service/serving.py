"""A small learner that lives, a service of it without a network, and what to ask it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from starlette.testclient import TestClient

import metaleader as ml
from metaleader.live import Live, Pace
from metaleader.service.app import application
from metaleader.service.limits import Limits
from metaleader.service.tokens import Tokens

PROBLEM = ml.Problem(ml.MLP(inputs=2, width=4, depth=1), ml.squared_error, ml.mean_squared_error)
LEARNER = ml.FTML(ml.GradientDescent(2), meta_steps=1, meta_batch=2, train_size=3, validation_size=3)
PACE = Pace(refresh=0.0, snapshot=3600.0)
EXAMPLE = ml.Batch.of(np.zeros((1, 2), np.float32), np.zeros((1, 1), np.float32))
TOKEN = "a-token-of-many-characters"
HERE = "http://127.0.0.1:8000"


def points(seed: int, n: int = 2) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(seed).uniform(-1, 1, (n, 2)).astype(np.float32)
    return x, np.abs(x[:, :1] * (seed % 3 - 1))


def body(task: Any, seed: int, n: int = 2, **others: Any) -> dict[str, Any]:
    x, y = points(seed, n)
    return {"task": task, "x": x.tolist(), "y": y.tolist(), **others}


def new(folder: Path | str) -> Live:
    return Live.create(folder, PROBLEM, LEARNER, example=EXAMPLE, pace=PACE)


@contextmanager
def served(live: Live, limits: Limits | None = None, tokens: Tokens | None = None) -> Iterator[TestClient]:
    with TestClient(application(live, limits, tokens), HERE, raise_server_exceptions=False) as client:
        yield client


def message(response: Any) -> str:
    """What a refusal says; its body has one form."""
    told = response.json()
    assert list(told) == ["error"]
    assert list(told["error"]) == ["message"]
    assert "Traceback" not in told["error"]["message"]
    return str(told["error"]["message"])


def transport(service: TestClient) -> httpx2.MockTransport:
    """The service as a transport."""

    def passed(request: httpx2.Request) -> httpx2.Response:
        headers = {name: value for name, value in request.headers.items() if name != "content-length"}
        answer = service.request(request.method, request.url.raw_path.decode(), content=request.read(), headers=headers)
        return httpx2.Response(answer.status_code, headers=answer.headers, content=answer.content)

    return httpx2.MockTransport(passed)
