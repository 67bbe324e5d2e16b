"""The code on the page of the service runs, and its requests are answered."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import served, transport

import metaleader as ml
from metaleader.service import server
from pages import blocks, commands


def test_python_and_requests_on_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    client, own = (block.code for block in blocks("python") if block.page == "serving")
    x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    problem = ml.Problem(ml.MLP(width=4), ml.squared_error, ml.mean_squared_error)
    names: dict[str, Any] = {"ml": ml, "problem": problem, "learner": ml.FTML(), "x": x, "y": 2 * x}
    ml.Live.create("shops", names["problem"], names["learner"]).close()
    asked = [words for page, words in commands() if page == "serving" and words[0] == "curl"]
    served_by: list[ml.Live] = []
    monkeypatch.setattr(server, "bound", lambda host, port: (host, port))
    monkeypatch.setattr(server, "serve", lambda live, address, limits: served_by.append(live))
    exec(own, names)
    assert served_by
    with ml.Live.open("shops", names["problem"], names["learner"]) as live, served(live) as service:
        answers = []
        for words in asked:
            path = next(word for word in words if word.startswith("http"))
            header = words[words.index("-H") + 1].split(": ")
            body = words[words.index("-d") + 1]
            answers.append(service.post(path, content=body, headers=dict([header])).json())
        assert answers[0]["new"] == 2
        assert np.shape(answers[1]["predictions"]) == (1, 1)
        reached = ml.Client
        monkeypatch.setattr(ml, "Client", lambda url, token: reached(url, token, transport=transport(service)))
        exec(client, names)
