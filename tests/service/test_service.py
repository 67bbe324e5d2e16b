"""The service: every verb, every refusal, and that nothing is stored of what was refused."""

import io
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from serving import EXAMPLE, HERE, LEARNER, PACE, PROBLEM, TOKEN, body, message, new, points, served
from starlette.testclient import TestClient

import metaleader as ml
from metaleader.errors import UserError, WriteError
from metaleader.live import Live, Mean, Standing
from metaleader.service import arrow
from metaleader.service.limits import Limits, Rates
from metaleader.service.logs import JsonLines
from metaleader.service.tokens import Tokens
from metaleader.service.watch import POINTS, Watch

JSON = {"Content-Type": "application/json"}
ARROW = {"Content-Type": arrow.MEDIA_TYPE}
AWKWARD = [
    "a/b",
    "../../etc/passwd",
    "..",
    "%2e%2e%2f",
    "<script>alert(1)</script>",
    "",
    " ",
    "ü \0 \n 'x'; --",
    7,
    "7",
    -1,
]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with new(tmp_path_factory.mktemp("live") / "shops") as live:
        yield live


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[TestClient]:
    with served(live) as client:
        yield client


def stream(table: pa.Table, **about: Any) -> bytes:
    sink = io.BytesIO()
    table = table.replace_schema_metadata({b"metaleader": json.dumps(about).encode()})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def lists(array: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])


# Verbs


@pytest.mark.parametrize("task", AWKWARD)
def test_a_task_of_any_name_is_learned_predicted_listed_and_forgotten(
    client: TestClient, live: Live, task: str | int
) -> None:
    before = live.status().stored
    learned = client.post("/v1/learn", json=body(task, 1, 3))
    assert (learned.status_code, learned.json()) == (200, {"new": 3, "sequence": before + 3})
    live.wait()
    x, _ = points(2)
    predicted = client.post("/v1/predict", json={"task": task, "x": x.tolist()}).json()
    assert np.array_equal(np.array(predicted["predictions"], predicted["dtype"]), live.predict(task, x))
    listed = client.get("/v1/tasks").json()["tasks"]
    assert {"task": task, "datapoints": 3} in listed
    assert client.post("/v1/forget", json={"task": task}).json() == {"task": task, "datapoints": 3, "influence": True}
    assert task not in live.tasks()
    again = client.post("/v1/forget", json={"task": task})
    assert again.status_code == 404
    assert "is not known: nothing of it is stored" in message(again)


def test_an_unknown_task_is_predicted_as_the_learner_would_before_any_datapoint(client: TestClient, live: Live) -> None:
    x, _ = points(3)
    told = client.post("/v1/predict", json={"task": "nobody", "x": x.tolist()}).json()
    assert np.array_equal(np.float32(told["predictions"]), live.predict("nobody", x))
    assert "nobody" not in live.tasks()


def test_adapting_stores_nothing_and_predicts_as_if_it_had(client: TestClient, live: Live) -> None:
    stored, (x, y) = live.status().stored, points(4, 5)
    sent = {"x": x.tolist(), "y": y.tolist(), "inputs": x.tolist()}
    told = client.post("/v1/adapt", json=sent).json()
    assert np.array_equal(np.float32(told["predictions"]), live.adapt(x, y).predict(x))
    assert live.status().stored == stored


def test_the_same_ids_count_once_and_other_content_is_refused(client: TestClient, live: Live) -> None:
    sent = body("once", 1, ids=["a", "b"])
    assert client.post("/v1/learn", json=sent).json()["new"] == 2
    assert client.post("/v1/learn", json=sent).json()["new"] == 0
    refused = client.post("/v1/learn", json=body("once", 2, ids=["a", "b"]))
    assert refused.status_code == 422
    assert "is known with other content" in message(refused)
    assert live.tasks()["once"] == 2


def test_tasks_come_in_pages(tmp_path: Path) -> None:
    with new(tmp_path / "live") as live, served(live) as client:
        for i in range(5):
            live.learn(i, *points(i))
        pages, start = [], 0
        while start is not None:
            page = client.get(f"/v1/tasks?start={start}&limit=2").json()
            pages.append([each["task"] for each in page["tasks"]])
            assert page["total"] == 5
            start = page["next"]
        assert pages == [[0, 1], [2, 3], [4]]


def test_score_status_save_and_rebuild(tmp_path: Path) -> None:
    with new(tmp_path / "live") as live, served(live) as client:
        assert client.get("/v1/score").json()["overall"] == {"datapoints": 0, "values": {}}
        assert client.get("/v1/status").json()["snapshot"] is None
        for i in range(4):
            client.post("/v1/learn", json=body(i % 2, i))
        assert client.post("/v1/wait", json={}).status_code == 204
        score = client.get("/v1/score").json()
        expected = live.score()
        assert score["overall"] == {"datapoints": 8, "values": dict(expected.overall.values)}
        assert score["by_age"]["0"]["datapoints"] == 4
        assert client.post("/v1/save").status_code == 204
        status = client.get("/v1/status").json()
        counts = {name: status[name] for name in ("tasks", "datapoints", "stored", "learned", "served", "backlog")}
        assert counts == {"tasks": 2, "datapoints": 8, "stored": 8, "learned": 8, "served": 8, "backlog": 0}
        assert status["snapshot"] == pytest.approx(status["now"], abs=60)
        assert status["score"] == score
        assert status["learner"]["type"] == "FTML"
        assert status["latency"]["learn"]["count"] == 4
        assert 0 < status["latency"]["learn"]["p50"] <= status["latency"]["learn"]["p99"]
        assert (status["ready"], status["failed"], status["rebuilding"]) == (True, False, False)
        live.forget(0)
        assert client.post("/v1/rebuild").status_code == 204
        assert client.get("/v1/score").json()["overall"]["datapoints"] == 4


def test_scores_over_time_are_noted_less_often_the_more_there_are() -> None:
    watch, noted = Watch(), 0
    for second in range(20_000):
        if watch.due:
            noted += 1
            watch.note(Standing(Mean(second + 1, {"loss": 0.5}), {}, Mean(1, {"loss": float(second)}), 0))
    points = watch.score_over_time
    assert POINTS / 2 <= len(points) < POINTS
    assert noted < 4 * POINTS
    assert points[0]["datapoints"] == 1
    assert points[-1]["recent"]["loss"] > 19_000
    steps = np.diff([point["datapoints"] for point in points])
    assert steps.max() <= 2 * steps.min()


def test_health_metrics_and_pages(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json()["status"] == "ready"
    client.post("/v1/predict", json={"task": "x", "x": "?"})
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    for line in (
        'metaleader_requests_total{status="422",verb="predict"}',
        "metaleader_backlog 0.0",
        "metaleader_tasks",
    ):
        assert line in metrics.text
    for path in ("/", "/docs"):
        page = client.get(path)
        assert page.status_code == 200
        assert "://" not in page.text.replace("http://www.w3.org", "")  # nothing of the internet
        for file in page.text.split('"/static/')[1:]:
            assert client.get(f"/static/{file.split(chr(34))[0]}").status_code == 200
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]["/v1/learn"]["post"]["requestBody"]["content"]) == {"application/json", arrow.MEDIA_TYPE}


def test_the_first_datapoints_of_all_may_be_told_by_json(tmp_path: Path) -> None:
    learner = ml.FTML(ml.GradientDescent(2), meta_steps=1, meta_batch=2, train_size=3, validation_size=3)
    problem = ml.Problem(ml.MLP(inputs=2, outputs=3, width=4), ml.CrossEntropy(), ml.accuracy)
    with Live.create(tmp_path / "live", problem, learner, pace=PACE) as live, served(live) as client:
        refused = client.post("/v1/predict", json={"task": "a", "x": [[1, 2]]})
        assert refused.status_code == 422
        assert "nothing was learned yet" in message(refused)
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/learn", json={"task": "a", "x": [[1, 2], [3, 4]], "y": [0, 2]}).status_code == 200
        assert live.layout is not None
        assert live.layout.as_json == {
            "inputs": {"dtype": "float32", "shape": [2]},
            "targets": {"dtype": "int32", "shape": []},
        }
        told = client.post("/v1/predict", json={"task": "a", "x": [[0.5, 1e-3]]}).json()
        assert sum(told["predictions"][0]) == pytest.approx(1.0)
        no_label = client.post("/v1/learn", json={"task": "a", "x": [[1, 2]], "y": [0.5]})
        assert "y must be whole numbers within the range of int32" in message(no_label)


def test_inputs_may_be_objects_of_lists(tmp_path: Path) -> None:
    def apply(params: Any, inputs: Any, weights: Any) -> Any:
        return (inputs["a"] @ params["w"] + inputs["b"])[:, None]

    problem = ml.Problem(ml.Model(lambda key: {"w": np.zeros(2)}, apply), ml.squared_error, ml.mean_squared_error)
    with Live.create(tmp_path / "live", problem, LEARNER, pace=PACE) as live, served(live) as client:
        x = {"a": [[1, 2]], "b": [3]}
        assert client.post("/v1/learn", json={"task": "t", "x": x, "y": [[1]]}).status_code == 200
        assert client.post("/v1/predict", json={"task": "t", "x": x}).status_code == 200
        refused = client.post("/v1/predict", json={"task": "t", "x": {"a": [[1, 2]]}})
        assert "x must be an object with a, b" in message(refused)


def test_predictions_that_are_not_finite_are_null(
    client: TestClient, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "predict", lambda task, x: np.array([[np.nan], [1.5]], np.float32))
    told = client.post("/v1/predict", json={"task": "a", "x": [[1, 2], [3, 4]]}).json()
    assert told == {"predictions": [[None], [1.5]], "dtype": "float32"}


# Arrow


def test_arrow_batches_do_what_json_does(client: TestClient, live: Live) -> None:
    x, y = points(5, 3)
    sent = stream(pa.table({"x": lists(x), "y": lists(y)}), task="of arrow", ids=["a", "b", "c"])
    assert client.post("/v1/learn", content=sent, headers=ARROW).json()["new"] == 3
    as_json = body("of arrow", 5, 3, ids=["a", "b", "c"])
    assert client.post("/v1/learn", json=as_json).json()["new"] == 0
    live.wait()
    asked = stream(pa.table({"x": lists(x)}), task="of arrow")
    answered = client.post("/v1/predict", content=asked, headers={**ARROW, "Accept": arrow.MEDIA_TYPE})
    assert answered.headers["content-type"] == arrow.MEDIA_TYPE
    told = pa.ipc.open_stream(answered.content).read_all()["predictions"].combine_chunks()
    assert np.array_equal(told.flatten().to_numpy().reshape(3, 1), live.predict("of arrow", x))


def test_predictions_of_16_bits_are_told_with_32() -> None:
    predictions = np.array([[0.5], [-2.0]], ml_dtypes.bfloat16)
    told = pa.ipc.open_stream(arrow.written(predictions, {})).read_all()["predictions"].combine_chunks()
    assert told.flatten().to_pylist() == [0.5, -2.0]


def test_arrow_that_cannot_be_taken_is_refused(client: TestClient, live: Live) -> None:
    x, y = points(5, 3)
    good = stream(pa.table({"x": lists(x), "y": lists(y)}), task="arrow")
    packed = io.BytesIO()
    table = pa.table({"x": lists(np.zeros((100, 2), np.float32))})
    with pa.ipc.new_stream(packed, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    words = pa.table({"x": pa.array(["a", "b"]).dictionary_encode()})
    missing = pa.table({"x": pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))})
    for content, why in (
        (b"", "metaleader"),
        (b"no arrow", "is no Arrow IPC stream"),
        (good[: len(good) // 2], "is no Arrow IPC stream"),
        (packed.getvalue(), "is compressed"),
        (stream(words, task="a"), "is of the type dictionary"),
        (stream(pa.table({"x": pa.nulls(3)}), task="a"), "is of the type null"),
        (stream(missing, task="a"), "x must be without missing values"),
        (stream(pa.table({"x": lists(x)}), task="a"), "datapoints need x and y"),
        (stream(pa.table({"x": lists(x), "y": lists(y)})), "task: field required"),
        (stream(pa.table({"x": lists(x), "z": lists(y)}), task="a"), "z: extra inputs are not permitted"),
    ):
        refused = client.post("/v1/learn", content=content, headers=ARROW)
        assert refused.status_code == 422, (refused.text, why)
        assert why in message(refused) or content == b""
    assert "arrow" not in live.tasks()
    assert "a" not in live.tasks()


def test_arrow_streams_with_flipped_bytes_are_never_an_error_of_the_service(client: TestClient) -> None:
    x, y = points(5, 3)
    good, random = stream(pa.table({"x": lists(x), "y": lists(y)}), task="flipped"), np.random.default_rng(0)
    for _ in range(150):
        bad = bytearray(good)
        for place in random.integers(0, len(bad), 3):
            bad[place] = random.integers(0, 256)
        assert client.post("/v1/adapt", content=bytes(bad), headers=ARROW).status_code in (200, 422)


# Refusals

REFUSED = {
    "no JSON": (b"{", "the body is no JSON"),
    "no UTF-8": (b'{"task": "\xff"}', "the body is no JSON"),
    "NaN": (b'{"task": "r", "x": [[NaN, 1]], "y": [[1]]}', "NaN, which is no number of JSON"),
    "Infinity": (b'{"task": "r", "x": [[1, 1]], "y": [[-Infinity]]}', "-Infinity, which is no number of JSON"),
    "too large for a float": (b'{"task": "r", "x": [[1e999, 1]], "y": [[1]]}', "x must be finite"),
    "too large for 32 bits": (b'{"task": "r", "x": [[1e300, 1]], "y": [[1]]}', "within the range of float32"),
    "no object": (b"[1]", "the body: input should be a valid dictionary"),
    "deep": (b"[" * 100_000, "the body is no JSON"),
    "deep x": (b'{"task": "r", "x": ' + b"[" * 90 + b"1" + b"]" * 90 + b', "y": [[1]]}', "x "),
    "a long number": (b'{"task": ' + b"1" * 5000 + b"}", "the body is no JSON"),
    "no task": (b'{"x": [[1, 2]], "y": [[1]]}', "task: field required"),
    "task null": (b'{"task": null, "x": [[1, 2]], "y": [[1]]}', "task: "),
    "task true": (b'{"task": true, "x": [[1, 2]], "y": [[1]]}', "task: "),
    "task 1.5": (b'{"task": 1.5, "x": [[1, 2]], "y": [[1]]}', "task: "),
    "a list as task": (b'{"task": ["r"], "x": [[1, 2]], "y": [[1]]}', "task: "),
    "a long task": (json.dumps(body("r" * 201, 1)).encode(), "task: string should have at most 200 characters"),
    "half of a character": (b'{"task": "\\ud800", "x": [[1, 2]], "y": [[1]]}', "task: input should be a valid string"),
    "no y": (b'{"task": "r", "x": [[1, 2]]}', "datapoints need x and y, or rows"),
    "more than is known": (b'{"task": "r", "x": [[1, 2]], "y": [[1]], "z": 1}', "z: extra inputs"),
    "another shape": (b'{"task": "r", "x": [[1, 2, 3]], "y": [[1]]}', "inputs are float32 of shape (3,)"),
    "another number": (b'{"task": "r", "x": [[1, 2], [3, 4]], "y": [[1]]}', "as many inputs as targets"),
    "ragged": (b'{"task": "r", "x": [[1, 2], [3]], "y": [[1], [2]]}', "x is ragged"),
    "text": (b'{"task": "r", "x": [["1", "2"]], "y": [[1]]}', "x must hold numbers alone"),
    "null": (b'{"task": "r", "x": [[null, 2]], "y": [[1]]}', "x must hold numbers alone"),
    "a number": (b'{"task": "r", "x": 1, "y": 2}', "x must be a list"),
    "none": (b'{"task": "r", "x": [], "y": []}', "at least one"),
    "rows": (b'{"task": "r", "rows": [{"a": 1}]}', "it takes no rows"),
    "rows and x": (b'{"task": "r", "rows": [{"a": 1}], "x": [[1, 2]], "y": [[1]]}', "not both"),
    "too few ids": (json.dumps(body("r", 1, ids=["a"])).encode(), "ids must be 2 names"),
    "odd ids": (json.dumps(body("r", 1, ids=["a", "b\n"])).encode(), "an id must be a printable string"),
    "too many": (json.dumps(body("r", 1, 10_001)).encode(), "10001 datapoints are too many"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_learned_is_refused_and_nothing_of_it_is_stored(
    client: TestClient, live: Live, case: str
) -> None:
    content, why = REFUSED[case]
    before = live.status()
    refused = client.post("/v1/learn", content=content, headers=JSON)
    assert refused.status_code == 422, refused.text
    assert why in message(refused)
    assert live.status() == before


def test_unknown_paths_methods_and_types_are_refused_in_the_same_form(client: TestClient) -> None:
    for method, path, headers, status in (
        ("GET", "/v1/nothing", {}, 404),
        ("GET", "/static/../secret", {}, 404),
        ("GET", "/static/%2e%2e/%2e%2e/pyproject.toml", {}, 404),
        ("PUT", "/v1/learn", JSON, 405),
        ("POST", "/v1/learn", {"Content-Type": "text/plain"}, 415),
        ("POST", "/v1/learn", {}, 415),
        ("GET", "/v1/tasks?start=-1", {}, 422),
        ("GET", "/v1/tasks?limit=x", {}, 422),
    ):
        refused = client.request(method, path, headers=headers, content=b"{}" if method == "POST" else None)
        assert refused.status_code == status, path
        assert message(refused)


def test_a_body_that_is_too_large_is_refused_before_it_is_read_whole(live: Live) -> None:
    read = 0

    def chunks() -> Iterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield b" " * 1000

    with served(live, Limits(body=10_000)) as client:
        told = client.post("/v1/learn", content=b" " * 10_001, headers=JSON)
        assert told.status_code == 413
        assert "larger than 10000 bytes" in message(told)
        assert client.post("/v1/learn", content=chunks(), headers=JSON).status_code == 413
        assert client.post("/v1/learn", content=b" " * 10_000, headers=JSON).status_code == 422


def test_without_a_known_token_nothing_is_told(live: Live) -> None:
    with served(live, tokens=Tokens([TOKEN, "another-one-of-many"])) as client:
        for value in (None, "", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"):
            headers = {} if value is None else {"Authorization": value}
            for path in ("/v1/tasks", "/v1/status", "/v1/score", "/metrics"):
                refused = client.get(path, headers=headers)
                assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
                assert "Authorization: Bearer TOKEN" in message(refused)
            assert client.post("/v1/learn", json=body("r", 1), headers=headers).status_code == 401
            assert "r" not in live.tasks()
        for token in (TOKEN, "another-one-of-many"):
            assert client.get("/v1/tasks", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json", "/"):
            assert client.get(path).status_code == 200
        elsewhere = {"Authorization": f"Bearer {TOKEN}", "Host": "example.org"}
        assert client.get("/v1/tasks", headers=elsewhere).status_code == 200
        schema = client.get("/openapi.json").json()
        assert schema["paths"]["/v1/learn"]["post"]["security"] == [{"token": []}]


def test_pages_of_other_sites_cannot_ask(client: TestClient) -> None:
    for headers in ({"Host": "example.org"}, {"Origin": "http://example.org"}, {"Origin": "null"}):
        assert client.get("/v1/tasks", headers=headers).status_code == 403
        assert client.post("/v1/save", headers=headers).status_code == 403
    for headers in ({"Host": "[bad"}, {"Origin": "http://[bad"}):  # which are no addresses
        assert client.get("/v1/tasks", headers=headers).status_code == 403
    for headers in ({"Host": "localhost:8000"}, {"Host": "[::1]:8000"}, {"Origin": HERE}):
        assert client.get("/v1/tasks", headers=headers).status_code == 200


def test_tokens_that_no_header_can_hold_are_refused() -> None:
    with pytest.raises(UserError, match="16 characters of ASCII"):
        Tokens(["ein-wort-mit-umlaut-\xfc"])


def test_rates_are_those_of_each_token(live: Live) -> None:
    tokens = Tokens([TOKEN, "another-one-of-many"])
    with served(live, Limits(rate=0.5), tokens) as client:
        first, second = ({"Authorization": f"Bearer {token}"} for token in (TOKEN, "another-one-of-many"))
        assert client.get("/v1/tasks", headers=first).status_code == 200
        refused = client.get("/v1/tasks", headers=first)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
        assert "more than 0.5 requests a second" in message(refused)
        assert client.get("/v1/tasks", headers=second).status_code == 200
        assert client.get("/healthz").status_code == 200


def test_a_rate_lets_pass_two_seconds_worth_at_once_and_then_as_many_as_it_says() -> None:
    now = [0.0]
    rates = Rates(5.0, lambda: now[0])
    assert [rates.wait("a") for _ in range(10)] == [0.0] * 10
    assert rates.wait("a") == pytest.approx(0.2)
    assert rates.wait("b") == 0.0
    now[0] = 1.0
    assert [rates.wait("a") == 0 for _ in range(6)] == [True] * 5 + [False]
    assert Rates(0.0).wait("a") == 0.0


def test_datapoints_are_refused_while_too_many_wait_to_be_learned(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(live, Limits(backlog=5)) as client:
        monkeypatch.setattr(Live, "backlog", 5)
        refused = client.post("/v1/learn", json=body("waits", 1))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "5 datapoints wait to be learned" in message(refused)
        assert "waits" not in live.tasks()
        assert client.post("/v1/predict", json={"task": "waits", "x": [[1, 2]]}).status_code == 200
        monkeypatch.setattr(Live, "backlog", 4)
        assert client.post("/v1/learn", json=body("waits", 1)).status_code == 200


def test_requests_beyond_the_bound_are_told_to_come_again_and_slow_ones_given_up(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = threading.Event()

    def slow(task: Any, x: Any) -> np.ndarray:
        end.wait(20)
        return np.zeros((1, 1), np.float32)

    monkeypatch.setattr(live, "predict", slow)
    asked = {"task": "a", "x": [[1, 2]]}
    try:
        with served(live, Limits(requests=2, timeout=0.2)) as client:
            for _ in range(2):
                late = client.post("/v1/predict", json=asked)
                assert late.status_code == 504
                assert "not done after 0.2 seconds" in message(late)
            refused = client.post("/v1/predict", json=asked)  # both of them still go on
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert client.get("/healthz").status_code == 200
            end.set()
    finally:
        end.set()


def test_what_waits_for_the_learner_keeps_nobody_else_waiting(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    end, asking = threading.Event(), list[threading.Thread]()
    monkeypatch.setattr(live, "wait", lambda timeout: end.wait(20))
    with served(live, Limits(timeout=5)) as client:
        try:
            for _ in range(8):
                asking.append(threading.Thread(target=client.post, args=("/v1/wait",), kwargs={"json": {}}))
                asking[-1].start()
            while client.get("/v1/status").json()["working_on"]["wait"] < 8:
                pass
            assert client.post("/v1/save").status_code == 204
            assert client.get("/readyz").status_code == 200
            assert client.get("/metrics").status_code == 200
            assert client.post("/v1/predict", json={"task": "a", "x": [[1, 2]]}).status_code == 200
        finally:
            end.set()
            for thread in asking:
                thread.join()


# Errors of the learner


def test_what_the_file_system_refuses_is_said_without_the_folder(
    client: TestClient, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise WriteError(f"cannot write to {live.folder}: the disk is full")

    monkeypatch.setattr(live, "learn", refused)
    told = client.post("/v1/learn", json=body("a", 1))
    assert (told.status_code, told.headers["retry-after"]) == (503, "10")
    assert "the file system refuses: nothing of this request is stored" in message(told)
    assert str(live.folder) not in told.text


def test_a_task_that_the_disk_keeps_though_it_is_forgotten_is_not_said_to_be_there_still(
    client: TestClient, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.post("/v1/learn", json=body("kept by the disk", 1)).status_code == 200

    def refused(*_: Any) -> None:
        raise WriteError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("metaleader.live.store.Store.delete", refused)
        told = client.post("/v1/forget", json={"task": "kept by the disk"})
    assert told.status_code == 507  # not 503, after which ml.Client asks again
    assert "with the next save that succeeds" in message(told)
    assert "kept by the disk" not in {each["task"] for each in client.get("/v1/tasks").json()["tasks"]}
    assert client.post("/v1/save").status_code == 204


def test_a_database_that_does_not_answer_is_no_fault_of_the_service(
    client: TestClient, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        raise WriteError("cannot read the log")

    monkeypatch.setattr(live, "status", refused)
    for path in ("/v1/status", "/readyz"):
        told = client.get(path)
        assert told.status_code == 503
        assert message(told) == "the disk or the database refuses: try again later"
    assert client.get("/metrics").status_code == 200


def test_waiting_that_runs_out_of_time_is_told_as_that(tmp_path: Path) -> None:
    end = threading.Event()

    class Slow(type(LEARNER)):  # type: ignore[misc] # a class is what type gives
        def observe(self, problem: Any, state: Any, task: Any, batch: Any) -> Any:
            end.wait(20)
            return super().observe(problem, state, task, batch)

    with Live.create(tmp_path / "live", PROBLEM, Slow(), example=EXAMPLE, pace=PACE) as live, served(live) as client:
        assert client.post("/v1/learn", json=body("a", 1)).status_code == 200
        told = client.post("/v1/wait", json={"timeout": 0.05})
        assert (told.status_code, message(told)) == (504, "not all is learned after 0.05 seconds: wait longer")
        end.set()
        assert client.post("/v1/wait", json={"timeout": 20}).status_code == 204


def test_once_learning_has_ended_it_is_not_ready_and_tells_nothing_of_the_cause(tmp_path: Path) -> None:
    class Fails(type(LEARNER)):  # type: ignore[misc] # a class is what type gives
        def observe(self, problem: Any, state: Any, task: Any, batch: Any) -> Any:
            if task == "bad":
                raise RuntimeError("the secret of a task")
            return super().observe(problem, state, task, batch)

    with Live.create(tmp_path / "live", PROBLEM, Fails(), example=EXAMPLE, pace=PACE) as live, served(live) as client:
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/learn", json=body("bad", 1)).status_code == 200
        client.post("/v1/wait", json={"timeout": 20})
        for response in (
            client.post("/v1/learn", json=body("a", 1)),
            client.post("/v1/save"),
            client.get("/readyz"),
        ):
            assert response.status_code == 503
            assert "learning has ended" in message(response)
            assert "secret" not in response.text
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/status").json()["failed"] is True
        assert client.post("/v1/predict", json={"task": "a", "x": [[1, 2]]}).status_code == 200


def test_an_error_of_the_service_is_told_by_its_number_alone(
    client: TestClient, live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(live, "predict", broken)
    told = client.post("/v1/predict", json={"task": "a", "x": [[1, 2]]}, headers={"X-Request-ID": "request-1"})
    assert told.status_code == 500
    assert "request request-1" in message(told)
    assert "secret" not in told.text
    assert "a secret" in caplog.text


def test_it_is_ready_once_it_has_caught_up_with_what_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new(tmp_path / "live") as live:
        status = live.status()
        monkeypatch.setattr(live, "status", lambda: status._replace(stored=200, served=50))
        with served(live) as client:
            waits = client.get("/readyz")
            assert (waits.status_code, waits.headers["retry-after"]) == (503, "2")
            assert "150 events of the log are still to be learned" in message(waits)
            monkeypatch.setattr(live, "status", lambda: status._replace(stored=900, served=200))
            assert client.get("/readyz").status_code == 200


# Logs


def test_logs_are_lines_of_json_with_a_request_and_nothing_that_users_sent(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "a-word-of-a-user"
    client.post("/v1/learn", json=body(secret, 1, ids=[secret, "b"]), headers={"X-Request-ID": "request-7"})
    answered = client.post("/v1/learn", json=body(secret, 1, z=secret), headers={"X-Request-ID": "no id!"})
    assert answered.headers["x-request-id"] != "no id!"
    client.get(f"/v1/{secret}")
    lines = [
        json.loads(JsonLines().format(record)) for record in caplog.records if record.name.startswith("metaleader")
    ]
    told = [{name: line.get(name) for name in ("method", "path", "status")} for line in lines if "path" in line]
    assert told == [
        {"method": "POST", "path": "/v1/learn", "status": 200},
        {"method": "POST", "path": "/v1/learn", "status": 422},
        {"method": "GET", "path": "other", "status": 404},
    ]
    assert secret not in json.dumps(lines)
