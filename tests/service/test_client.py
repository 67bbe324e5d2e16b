"""The client: the same verbs and types as `Live`, tries again what counts once, and says what the service says."""

import datetime
import decimal
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pandas as pd
import polars as pl
import pytest
from serving import HERE, TOKEN, new, points, transport
from starlette.testclient import TestClient

import metaleader as ml
from metaleader.live import Live
from metaleader.service.app import application
from metaleader.service.client import _rows
from metaleader.service.tokens import Tokens
from metaleader.streams import frames

Handler = Callable[[httpx2.Request], httpx2.Response]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with new(tmp_path_factory.mktemp("live") / "shops") as live:
        yield live


@pytest.fixture(scope="module")
def service(live: Live) -> Iterator[TestClient]:
    with TestClient(application(live, tokens=Tokens([TOKEN])), HERE) as service:
        yield service


@pytest.fixture
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def test_a_client_does_takes_and_gives_what_the_learner_does(live: Live, service: TestClient) -> None:
    x, y = points(1, 3)
    with ml.Client(HERE, TOKEN, transport=transport(service)) as client:
        acknowledged = client.learn("a/../b", x, y)
        assert acknowledged == live.learn("a/../b", x, y, ids=[row.id for row in live._store.datapoints()])._replace(
            new=3
        )
        client.learn(7, x, y, ids=["one", "two", "three"])
        client.wait()
        assert client.tasks() == live.tasks() == {"a/../b": 3, 7: 3}
        for task in ("a/../b", 7, "nobody"):
            told, expected = client.predict(task, x), live.predict(task, x)
            assert told.dtype == expected.dtype
            assert np.array_equal(told, expected)
        assert np.array_equal(client.adapt(x, y).predict(x[:1]), live.adapt(x, y).predict(x[:1]))
        assert client.score() == live.score()
        assert client.backlog == 0
        client.save()
        assert client.status()["snapshot"] is not None
        assert client.forget(7) == ml.live.Forgotten(7, 3, True)
        client.rebuild()
        assert client.tasks() == live.tasks() == {"a/../b": 3}


def test_what_the_service_says_is_raised(service: TestClient) -> None:
    x, y = points(1)
    with ml.Client(HERE, TOKEN, transport=transport(service)) as client:
        for ask, why in (
            (lambda: client.forget("nobody"), "task 'nobody' is not known"),
            (lambda: client.predict("a", x[:, :1]), r"of shape \(1,\)"),
            (lambda: client.learn("a", np.array([[np.nan, 1]]), y[:1]), "inputs must be finite"),
            (lambda: client.learn("a", [1, "b"]), "a data frame or a list of dicts; got list"),
            (lambda: client.learn("a", [{"x": 1}]), "takes no rows"),
        ):
            with pytest.raises(ValueError, match=why):
                ask()
    with (
        ml.Client(HERE, "another", transport=transport(service)) as stranger,
        pytest.raises(ml.UserError, match="a token is needed"),
    ):
        stranger.tasks()


def test_datapoints_whose_acknowledgement_is_lost_count_once(
    live: Live, service: TestClient, no_sleep: list[float]
) -> None:
    whole, sent = transport(service), list[Any]()

    def lossy(request: httpx2.Request) -> httpx2.Response:
        answer = whole.handler(request)
        sent.append(json.loads(request.content))
        if len(sent) == 1:
            raise httpx2.ReadError("the connection broke")
        return answer  # type: ignore[return-value] # not of a coroutine

    with ml.Client(HERE, TOKEN, transport=httpx2.MockTransport(lossy)) as client:
        assert client.learn("lost", *points(1, 3)).new == 0
    assert sent[0] == sent[1]
    assert len(set(sent[0]["ids"])) == 3
    assert live.tasks()["lost"] == 3
    assert len(no_sleep) == 1


def answering(*answers: Any) -> tuple[httpx2.MockTransport, list[httpx2.Request]]:
    left, asked = list(answers), list[httpx2.Request]()

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return httpx2.MockTransport(answer), asked


def test_an_overloaded_service_is_asked_again_when_it_says(no_sleep: list[float]) -> None:
    refused = {"error": {"message": "try again later"}}
    transport, asked = answering(
        httpx2.Response(503, headers={"Retry-After": "7"}, json=refused),
        httpx2.Response(429, headers={"Retry-After": "3"}, json=refused),
        httpx2.Response(504, json=refused),
        httpx2.Response(200, json={"new": 1, "sequence": 1}),
    )
    with ml.Client(HERE, transport=transport) as client:
        assert client.learn("a", *points(1, 1)).new == 1
    assert len(asked) == 4
    assert no_sleep[:2] == [7, 3]
    assert 0.2 <= no_sleep[2] <= 0.4
    transport, asked = answering(*[httpx2.Response(503, json=refused)] * 3)
    with (
        ml.Client(HERE, retries=2, transport=transport) as client,
        pytest.raises(ml.UserError, match=r"try again later \(tried 3 times\)"),
    ):
        client.score()
    assert len(asked) == 3


def test_what_must_not_be_done_twice_is_not_asked_again_when_its_answer_is_lost(no_sleep: list[float]) -> None:
    transport, asked = answering(
        httpx2.ConnectError("refused"), httpx2.ReadError("the connection broke"), httpx2.Response(500)
    )
    with ml.Client(HERE, transport=transport) as client:
        with pytest.raises(ml.UserError, match="cannot be reached: the connection broke; it may have been done"):
            client.forget("a")
        assert len(asked) == 2  # once more, as nothing was sent at first
        with pytest.raises(ml.UserError, match="answered 500 Internal Server Error"):
            client.rebuild()


def test_who_waited_in_vain_does_not_wait_again(no_sleep: list[float]) -> None:
    late = httpx2.Response(504, json={"error": {"message": "not all is learned after 5 seconds: wait longer"}})
    transport, asked = answering(httpx2.Response(502), late)
    with (
        ml.Client(HERE, transport=transport) as client,
        pytest.raises(ml.UserError, match="not all is learned after 5 seconds"),
    ):
        client.wait(5)
    assert len(asked) == 2
    assert len(no_sleep) == 1


def test_rows_are_sent_as_plain_data(no_sleep: list[float]) -> None:
    day, rows = datetime.date(2024, 1, 2), [{"shop": "a", "n": 1, "at": "2024-01-02", "size": None}]
    for frame in (
        pl.DataFrame({"shop": ["a"], "n": [1], "at": [day], "size": [float("nan")]}),
        pd.DataFrame({"shop": ["a"], "n": [1], "at": [str(day)], "size": [np.nan]}),
        [{"shop": "a", "n": np.int64(1), "at": day, "size": np.nan}],
    ):
        acknowledged = httpx2.Response(200, json={"new": 1, "sequence": 1})
        predicted = httpx2.Response(200, json={"predictions": [None], "dtype": "float64"})
        transport, asked = answering(acknowledged, predicted, predicted)
        with ml.Client(HERE, transport=transport) as client:
            client.learn("t", frame)
            assert np.isnan(client.predict("t", frame)).all()
            client.adapt(frame).predict(frame)
        learned, asked_for, adapted = (json.loads(request.content) for request in asked)
        assert learned["rows"] == asked_for["rows"] == adapted["rows"] == adapted["input_rows"] == rows
        assert len(learned["ids"]) == 1


def test_names_of_classes_and_trees_are_sent_and_come_back(tmp_path: Path) -> None:
    transport, asked = answering(
        httpx2.Response(200, json={"new": 2, "sequence": 2}),
        httpx2.Response(
            200,
            json={"predictions": {"a": [[1]], "b": [[0.5], [2]]}, "dtype": {"a": "int32", "b": ["float32", "float64"]}},
        ),
    )
    with ml.Client(HERE, transport=transport) as client:
        client.learn("t", {"u": np.ones((2, 1), np.float32), "v": (np.zeros(2), np.ones(2))}, np.array(["yes", "no"]))
        told = client.predict("t", np.ones((1, 1)))
    sent = json.loads(asked[0].content)
    assert (sent["x"], sent["y"]) == ({"u": [[1.0], [1.0]], "v": [[0.0, 0.0], [1.0, 1.0]]}, ["yes", "no"])
    assert len(sent["ids"]) == 2
    assert [told["a"].dtype, *(part.dtype for part in told["b"])] == [np.int32, np.float32, np.float64]


def test_a_service_that_cannot_be_reached_is_named(no_sleep: list[float]) -> None:
    with (
        ml.Client("http://127.0.0.1:9", retries=1) as client,
        pytest.raises(ml.UserError, match=r"http://127.0.0.1:9 cannot be reached: .* \(tried 2 times\)"),
    ):
        client.tasks()


@pytest.mark.parametrize("library", [pd, pl])
def test_cells_are_sent_as_the_learner_reads_them(library: Any) -> None:
    data = {
        "price": [decimal.Decimal("1.25"), None],
        "lasts": [datetime.timedelta(hours=36), None],
        "at": [datetime.datetime(2024, 1, 2, 3, 4, 5, 6), None],
        "day": [datetime.date(2024, 1, 2), None],
        "size": [0.5, float("nan")],
    }
    told = {"price": "numeric", "lasts": "numeric", "at": "date", "day": "date", "size": "numeric"}
    frame = library.DataFrame(data)
    sent = json.loads(json.dumps(_rows(frame), allow_nan=False))
    expected, read = (frames.values_of(rows, told, "size") for rows in (frame, sent))
    for name in told:
        np.testing.assert_array_equal(read[name], expected[name])
        assert np.isnan(read[name]).tolist() == [False, True]


def test_cells_of_numpy_are_sent_and_others_refused() -> None:
    at, nothing = np.datetime64("2024-01-02T12:00", "ns"), np.datetime64("NaT", "ns")
    rows = [{"at": at, "lasts": np.timedelta64(36, "h"), "tags": ["a"]}, {"at": nothing, "lasts": None, "tags": []}]
    sent = _rows(rows)
    assert sent[1] == {"at": None, "lasts": None, "tags": []}
    assert (sent[0]["lasts"], sent[0]["tags"]) == (1.5, ["a"])
    told = {"at": "date"}
    expected, read = (frames.values_of(each, told, "at")["at"] for each in (rows, sent))
    np.testing.assert_array_equal(read, expected)
    for value, message in ((float("inf"), "finite"), (decimal.Decimal("-Infinity"), "finite"), (b"a", "type bytes")):
        with pytest.raises(ml.UserError, match=f"column 'a'.*{message}"):
            _rows([{"a": value}])
