"""A service whose learner is a process of its own, which may be killed."""

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from serving import LEARNER, PROBLEM, body, new, points, served

import metaleader as ml
from metaleader.learners import external
from metaleader.live import Ended, Live, Pace
from metaleader.service import beside
from metaleader.service.beside import Beside, followable, learning_beside

PACE = Pace(refresh=0.1, snapshot=0.1)


def until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("live") / "shops"
    new(path).close()
    return path


def test_it_learns_saves_and_comes_back_when_it_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = list[Beside]()
    begin = Beside.begin

    def noted(self: Beside) -> None:
        started.append(self)
        begin(self)

    monkeypatch.setattr(Beside, "begin", noted)
    x, _ = points(3)
    with learning_beside(str(folder), PACE, 0.0) as live, served(live) as client:
        with pytest.raises(ml.UserError, match="is in use by"), learning_beside(str(folder), PACE, 0.0):
            pass
        assert client.post("/v1/learn", json=body("north", 1, 3)).json()["new"] == 3
        live.wait(60)
        assert client.post("/v1/save").status_code == client.post("/v1/rebuild").status_code == 204
        assert client.get("/v1/status").json()["failed"] is False
        process = started[0]._process
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: live.status().failed)
        assert client.get("/readyz").status_code == client.post("/v1/save").status_code == 503
        assert client.post("/v1/learn", json=body("north", 2, 2)).json()["new"] == 2
        before = client.post("/v1/predict", json={"task": "north", "x": x.tolist()})
        assert before.status_code == 200
        until(lambda: not live.status().failed)
        live.wait(60)
        until(lambda: client.get("/readyz").status_code == 200)
        predicted = live.predict("north", x)
    with Live.create(folder.with_name("same"), PROBLEM, LEARNER) as same:
        same.learn("north", *points(1, 3))
        same.learn("north", *points(2, 2))
        same.wait()
        np.testing.assert_array_equal(predicted, same.predict("north", x))


def test_who_stands_by_ends_when_told(folder: Path) -> None:
    with Live.open(folder, pace=PACE) as first:
        with learning_beside(str(folder), PACE, math.inf) as second:
            assert not second.status().failed
        first.save()  # it still has the learner


def test_what_cannot_be_followed_is_learned_within(folder: Path, tmp_path: Path) -> None:
    assert followable(str(folder))
    Live.create(tmp_path / "trees", PROBLEM, external.PooledTrees()).close()
    assert not followable(str(tmp_path / "trees"))
    with pytest.raises(ml.UserError, match="holds no learner"):
        followable(str(tmp_path))


def test_who_waits_for_the_learner_follows_meanwhile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "LOOK", 0.05)
    x, _ = points(4)
    with Live.open(folder, pace=PACE) as first, learning_beside(str(folder), PACE, 60.0) as second:
        first.wait()
        np.testing.assert_array_equal(second.predict("", x), first.predict("", x))
        with pytest.raises(Ended, match="another process still learns"):
            second.save()
        first.close()

        def has() -> bool:
            try:
                second.save()
            except Ended:
                return False
            return True

        until(has)


def test_who_waits_in_vain_gives_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "LOOK", 0.05)

    def serve() -> None:
        """As a service does, until it is interrupted; whoever asks first is told, too."""
        with learning_beside(str(folder), PACE, 0.2) as live:
            while True:
                with pytest.raises(ml.UserError):
                    live.save()
                time.sleep(0.01)

    with Live.open(folder, pace=PACE), pytest.raises(ml.UserError, match="is in use by"):
        serve()


def test_what_is_asked_and_fails_is_answered() -> None:
    def fail() -> None:
        raise MemoryError("no room")

    ours, theirs = multiprocessing.Pipe()
    beside._answer(theirs, fail)
    assert isinstance(answer := ours.recv(), Ended)
    assert str(answer) == "it was not done: no room; the log says more"


def test_a_rebuild_does_not_keep_the_service_from_ending(tmp_path: Path) -> None:
    """The log takes seconds to learn; what was learned before stays."""
    learner = ml.TOE(steps=2000)
    with Live.create(tmp_path / "slow", PROBLEM, learner, pace=PACE) as live:
        for i in range(40):
            live.learn("north", *points(i, 3))
        live.wait()
        x, _ = points(50)
        before = live.predict("north", x)
    said = list[Exception]()
    with learning_beside(str(tmp_path / "slow"), PACE, 0.0) as live:

        def rebuild() -> None:
            try:
                live.rebuild()
            except ml.UserError as error:
                said.append(error)

        asking = threading.Thread(target=rebuild)
        asking.start()
        time.sleep(0.2)
    asking.join()
    assert len(said) == 1, "the rebuild was complete"
    with Live.open(tmp_path / "slow", pace=PACE) as live:
        np.testing.assert_array_equal(live.predict("north", x), before)
