"""Several processes of one learner: killed, stopped, and taken over from, they lose and double nothing."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from living import LEARNER, PROBLEM, as_bytes, example, plainly, told, written
from several import PACE, X

from metaleader.live import Live, check
from metaleader.live.follower import Follower

SCRIPT = [sys.executable, str(Path(__file__).with_name("several.py"))]


@contextmanager
def process(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """One that has begun, and is killed in the end."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent), *sys.path])
    one = subprocess.Popen(
        [*SCRIPT, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    with one:
        try:
            yield one
        finally:
            one.kill()


def line(one: "subprocess.Popen[str]") -> str:
    """What it says next."""
    assert one.stdout is not None
    said = one.stdout.readline()
    assert said, one.stderr and one.stderr.read()
    return said.strip()


def asked(one: "subprocess.Popen[str]", task: str) -> str:
    assert one.stdin is not None
    one.stdin.write(task + "\n")
    one.stdin.flush()
    return line(one)


def learned(live: Live) -> list[bytes]:
    """The state that is followed, once all is learned."""
    live.wait(60)
    assert isinstance(live._worker, Follower)
    return as_bytes(live._worker.progress.state)


CASES = [("url", signal.SIGKILL), ("url", signal.SIGSTOP), ("tmp_path", signal.SIGKILL)]


@pytest.mark.parametrize(
    ("fixture", "how"),
    [CASES[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES[1:])],
    ids=["killed", "stopped", "killed-folder"],
)
def test_another_process_takes_over_and_all_predict_the_same(
    fixture: str, how: signal.Signals, request: pytest.FixtureRequest
) -> None:
    url = str(request.getfixturevalue(fixture))  # or the path of a folder
    Live.create(url, PROBLEM, LEARNER, example=example()).close()
    with ExitStack() as stack:
        live = stack.enter_context(Live.follow(url, pace=PACE))
        first = stack.enter_context(process("learn", url))
        predicting = [stack.enter_context(process("predict", url)) for _ in range(2)]
        assert line(first) == "learns"
        second = stack.enter_context(process("learn", url))  # stands by
        assert [line(one) for one in predicting] == ["predicts"] * 2
        told(live, range(5))
        for numbers in (range(5, 10), range(10, 13)):
            assert learned(live) == as_bytes(plainly(written(live))[0])
            for task in ("t0", "new"):
                expected = live.predict(task, X).tobytes().hex()
                assert [asked(one, task) for one in predicting] == [expected] * 2
            if numbers.start == 5:
                first.send_signal(how)
                told(live, numbers)  # while nobody learns
                assert line(second) == "learns"
            else:
                if how == signal.SIGSTOP:
                    first.send_signal(signal.SIGCONT)
                    assert "was taken over by process" in line(first)
                told(live, numbers)
        assert learned(live) == as_bytes(plainly(written(live))[0])
        assert second.poll() is None
    assert check(url).faults == ()
    assert check(url).datapoints == 26


@pytest.mark.slow
@pytest.mark.parametrize("kills", [60])
def test_killed_at_random_nothing_is_lost_or_doubled(kills: int, url: str, tmp_path: Path) -> None:
    Live.create(url, PROBLEM, LEARNER, example=example()).close()
    chance, done, acknowledged = random.Random(kills), 0, tmp_path / "acknowledged"
    before: list[bytes] = []
    with Live.follow(url, pace=PACE) as live:
        while done < kills:
            with ExitStack() as stack:
                one = stack.enter_context(process("learn", url))
                others = [
                    stack.enter_context(process("store", url, str(acknowledged), f"{done}-{k}")) for k in range(2)
                ]
                for other in others:
                    assert line(other) == "stores"
                for each in chance.sample([one, *others], 3):
                    time.sleep(chance.uniform(0.05, 1.5))
                    assert each.poll() is None, each.stderr and each.stderr.read()
                    each.send_signal(signal.SIGKILL)
                    done += 1
            names, lines = Counter(row.id for row in live._store.datapoints()), acknowledged.read_text().splitlines()
            assert set(lines) <= names.keys(), "lost"
            assert set(names.values()) == {1}, "doubled"
            rows = [row.digest for row in live._store.datapoints()]
            assert rows[: len(before)] == before
            before = rows
            print(f"{done} kills: {len(lines)} acknowledged, {len(rows)} stored", flush=True)
        with process("learn", url):
            assert learned(live) == as_bytes(plainly(written(live))[0])
    assert check(url).faults == ()
