"""What predictions remember of tasks in memory."""

from pathlib import Path

import numpy as np
import pytest
from living import EAGER, LEARNER, PROBLEM, points, told

from metaleader.live import Live
from metaleader.live.store import Store


def test_datapoints_of_a_task_are_read_once_while_the_learner_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Live.create(tmp_path / "live", PROBLEM, LEARNER, pace=EAGER) as live:
        told(live, range(3))
        live.wait()
        before = live.predict("t0", points(0)[0])
        told(live, [4, 5])  # of other tasks
        live.wait()
        monkeypatch.setattr(Store, "of_task", lambda *_: pytest.fail("it was read again"))
        after = live.predict("t0", points(0)[0])
        monkeypatch.undo()
        assert not np.array_equal(before, after)
        live._cache.drop("t0")
        live._cache.drop(("t0", "datapoints"))
        assert np.array_equal(live.predict("t0", points(0)[0]), after)
        told(live, [6])
        live.wait()
        assert not np.array_equal(live.predict("t0", points(0)[0]), after)


def test_nothing_of_a_forgotten_task_is_remembered(tmp_path: Path) -> None:
    with Live.create(tmp_path / "live", PROBLEM, LEARNER, pace=EAGER) as live:
        told(live, range(3))
        for task in ("t0", "t1"):
            live.predict(task, points(0)[0])
        live.forget("t0")
        assert set(live._cache._held) == {"t1", ("t1", "datapoints")}
