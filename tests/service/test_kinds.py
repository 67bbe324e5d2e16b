"""Services of learners that are not as others: made from a table, or following another process."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from serving import HERE, PACE, body, message, new, points, served, transport

import metaleader as ml
from command import call
from metaleader.live import Live
from metaleader.streams import from_table


def frame(target: str) -> pl.DataFrame:
    random = np.random.default_rng(0)
    x = random.normal(size=24).round(2)
    sales = (1000 + 50 * x + random.normal(size=24)).tolist()
    goal: dict[str, Any] = {"sales": sales, "like": random.choice(["no", "yes"], 24).tolist()}
    return pl.DataFrame({"shop": ["a", "b", "c"] * 8, "x": x, "city": ["Rome", "Oslo"] * 12, target: goal[target]})


def of_table(folder: Path, target: str) -> Live:
    table = from_table(frame(target), group="shop", target=target)
    problem = table.problem(ml.MLP(len(table.features), table.outputs, width=4, depth=1))
    return Live.create(folder, problem, ml.FTML(meta_steps=1, meta_batch=2), table=table, pace=PACE)


@pytest.mark.parametrize("target", ["sales", "like"])
def test_rows_are_learned_and_predicted_in_the_words_of_the_table(tmp_path: Path, target: str) -> None:
    rows = frame(target).drop("shop")
    asked, records = rows.drop(target)[:5], rows[:5].to_dicts()
    with of_table(tmp_path / "shops", target) as live, served(live) as client:
        assert client.post("/v1/learn", json={"task": "a", "rows": records}).json() == {"new": 5, "sequence": 5}
        live.wait()
        expected = live.predict("a", asked)
        told = client.post("/v1/predict", json={"task": "a", "rows": asked.to_dicts()}).json()
        np.testing.assert_array_equal(np.array(told["predictions"], told["dtype"]), expected)
        assert told.get("classes", []) == list(live.classes)
        zero_shot = client.post("/v1/adapt", json={"rows": records, "input_rows": asked.to_dicts()}).json()
        np.testing.assert_array_equal(np.array(zero_shot["predictions"]), live.adapt(rows[:5]).predict(asked))
        for wrong, says in (
            ({"rows": [{"x": 1.0}]}, "city"),
            ({"rows": [{"x": "much", "city": "Rome"}]}, "x"),
            ({"x": [[1.0]]}, "made from a table: give rows"),
        ):
            answer = client.post("/v1/predict", json={"task": "a", **wrong})
            assert answer.status_code == 422
            assert says in message(answer)
        assert client.get("/v1/tasks").json()["tasks"] == [{"task": "a", "datapoints": 5}]
        status = client.get("/v1/status").json()
        assert (status["takes_rows"], status["classes"]) == (True, list(live.classes))


def test_a_client_gives_rows_as_a_frame_or_as_records(tmp_path: Path) -> None:
    rows = frame("sales").drop("shop")
    with of_table(tmp_path / "shops", "sales") as live, served(live) as inside:
        client = ml.Client(HERE, transport=transport(inside))
        client.learn("a", rows[:4])
        client.learn("b", rows[4:8].to_dicts())
        assert client.tasks() == {"a": 4, "b": 4}
        client.wait()
        np.testing.assert_array_equal(client.predict("a", rows.drop("sales")[:3]), live.predict("a", rows[:3]))


def test_a_service_that_follows_predicts_and_stores_for_the_one_that_learns(tmp_path: Path) -> None:
    x, _ = points(3)
    with new(tmp_path / "shops") as live, Live.follow(tmp_path / "shops", pace=PACE) as other, served(other) as client:
        assert client.post("/v1/learn", json=body("north", 1, 3)).json()["new"] == 3
        live.wait()
        live.save()
        assert client.post("/v1/wait", json={"timeout": 20.0}).status_code == 204
        told = client.post("/v1/predict", json={"task": "north", "x": x.tolist()}).json()
        np.testing.assert_array_equal(np.array(told["predictions"], told["dtype"]), live.predict("north", x))
        assert client.get("/readyz").status_code == 200
        status = client.get("/v1/status").json()
        assert (status["learns"], status["backlog"], status["snapshot"] is None) == (False, 0, False)
        for verb in ("save", "rebuild"):
            answer = client.post(f"/v1/{verb}")
            assert answer.status_code == 409
            assert "follows another one" in message(answer)
        assert client.post("/v1/forget", json={"task": "north"}).json()["datapoints"] == 3
        assert live.tasks() == {}
        assert client.post("/v1/forget", json={"task": "north"}).status_code == 404


def test_a_process_follows_or_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new(tmp_path / "shops").close()
    for options, says in (
        (("--follow", "--wait", "3"), "leave one of them out"),
        (("--wait", "-1"), "--wait must not be negative, got -1"),
    ):
        assert call("serve", str(tmp_path / "shops"), *options) == 2
        assert says in capsys.readouterr().err
