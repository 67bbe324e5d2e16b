"""A learner in a database, and those that follow it: the same weights and guarantees as in a folder."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from living import EAGER, LEARNER, PROBLEM, Counts, as_bytes, example, leaves, plainly, points, told, written
from sqlalchemy import text

import metaleader as ml
from metaleader import UserError
from metaleader.errors import WriteError
from metaleader.live import Live, Pace, check, copy, snapshot, tables
from metaleader.live.follower import Follower
from metaleader.live.postgres import Schema, shown
from metaleader.live.shared import Lease, Lost
from metaleader.live.store import Store

OFTEN = Pace(refresh=0.05, snapshot=0.05, lease=2.0)
X = points(50, 5)[0]


@pytest.fixture
def live(where: Path | str) -> Iterator[Live]:
    with Live.create(where, PROBLEM, LEARNER, pace=OFTEN) as live:
        yield live


def test_weights_are_those_of_a_plain_loop_and_come_back(where: Path | str) -> None:
    with Live.create(where, PROBLEM, LEARNER, pace=EAGER) as live:
        told(live, range(5))
        live.wait()
        live.save()
        told(live, range(5, 8))
        live.wait()
        state, predicted, score = leaves(live), live.predict("t1", X), live.score()
        assert state == as_bytes(plainly(written(live))[0])
    with Live.open(where) as live:
        assert live.backlog == 0
        assert leaves(live) == state
        assert np.array_equal(live.predict("t1", X), predicted)
        assert live.score() == score
        told(live, range(6, 10))  # the first two again
        live.wait()
        assert live.tasks() == {"t0": 8, "t1": 6, "t2": 6}
        assert leaves(live) == as_bytes(plainly(written(live))[0])
        live.forget("t1")
        live.rebuild()
        expected = [step for step in written(live) if step[0] != "t1"]
        assert leaves(live) == as_bytes(plainly(expected)[0])
    assert check(where) == (14, 2, 1, ())


def test_a_folder_and_a_database_give_the_same_bit_for_bit(tmp_path: Path, url: str) -> None:
    found = []
    for where in (tmp_path / "live", url):
        with Live.create(where, PROBLEM, LEARNER, seed=3, pace=EAGER) as live:
            told(live, range(6), n=3)
            live.forget("t2")
            told(live, range(6, 9))
            live.wait()
            found.append((leaves(live), live.score(), live.tasks(), live.predict("t0", X).tobytes()))
    assert found[0] == found[1]


def test_one_that_follows_predicts_as_the_one_that_learns_and_stores_for_it(where: Path | str, live: Live) -> None:
    with Live.follow(where, pace=OFTEN) as other, Live.follow(where, pace=OFTEN) as third:
        with pytest.raises(UserError, match="nothing was learned yet"):
            other.predict("t0", X)
        told(other, range(3))  # before the one that learns knew what datapoints are like
        told(live, range(2, 6))
        told(third, range(5, 9))
        for each in (live, other, third):
            each.wait(60)
            assert each.backlog == 0
            assert each.tasks() == {"t0": 6, "t1": 6, "t2": 6}
            for task in ("t0", "t1", "new"):
                assert np.array_equal(each.predict(task, X), live.predict(task, X))
            assert each.score() == live.score()
        assert leaves(live) == as_bytes(plainly(written(live))[0])
        assert other.learn("t0", *points(0, 2), ids=["0-0", "0-1"]).new == 0
        with pytest.raises(ValueError, match="inputs are float32 of shape"):
            other.learn("t0", np.zeros((1, 2), np.float32), np.zeros((1, 1), np.float32))
        for call in (other.save, other.rebuild, lambda: other.backup("nowhere")):
            with pytest.raises(
                UserError, match=r"this process follows, and neither learns nor saves: .* process \d+ on"
            ):
                call()


def test_predictions_of_one_that_follows_use_all_that_is_acknowledged_before_it_is_learned(url: str) -> None:
    with Live.create(url, PROBLEM, LEARNER, example=example(), pace=EAGER) as live:
        live.save()
    with Live.follow(url) as one, Live.follow(url) as other:  # and nobody learns
        one.learn("a", *points(1, 4))
        assert np.array_equal(other.predict("a", X), other.adapt(*points(1, 4)).predict(X))
        assert not np.array_equal(other.predict("a", X), other.predict("b", X))
        assert other.backlog == 4
        with pytest.raises(UserError, match=r"not all is learned after 0\.05 seconds"):
            other.wait(0.05)


def test_what_is_forgotten_by_any_process_is_in_no_prediction_of_others(where: Path | str, live: Live) -> None:
    with Live.follow(where, pace=OFTEN) as one, Live.follow(where, pace=OFTEN) as other:
        told(one, range(6))
        for each in (live, one, other):
            each.wait(60)
        shown = other.predict("t1", X)
        assert one.forget("t1") == ("t1", 4, True)
        for each in (other, live):
            assert each.tasks() == {"t0": 4, "t2": 4}
            zero_shot = each.predict("t1", X)
            assert np.array_equal(zero_shot, each.predict("new", X))
            assert not np.array_equal(zero_shot, shown)
        assert [task for task, _ in written(live)] == ["t0", "t2"] * 2
        other.wait(60)
        buffer = other._worker.progress.state.buffer  # type: ignore[union-attr]
        assert int(np.asarray(buffer.counts).sum()) == 8
        live.forget("t0")
        assert other.tasks() == {"t2": 4}
        with pytest.raises(UserError, match="task 't0' is not known"):
            other.forget("t0")


def test_without_a_process_that_learns_it_is_no_use_to_wait(where: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaleader.live.follower.ALONE", 0.3)
    Live.create(where, PROBLEM, LEARNER, example=example(), pace=EAGER).close()
    with Live.follow(where, pace=OFTEN) as other:
        other.learn("a", *points(1))
        with pytest.raises(UserError, match=r"no process learns: start one by Live\.open"):
            other.wait()
        with pytest.raises(UserError, match="no process learns"):
            other.forget("a")
        assert other.tasks() == {}
        with Live.open(where, pace=OFTEN):
            other.wait(60)
        assert other.score().overall.datapoints == 1


def test_one_that_follows_goes_on_from_damage_and_from_weights_learned_anew(
    where: Path | str, live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    told(live, range(3))
    live.wait()
    live.save()
    with Live.follow(where, pace=OFTEN) as other:
        other.wait(60)
        shelf, follower = live._kept.shelf, other._worker
        assert isinstance(follower, Follower)
        before = follower.published
        shelf.write(live._store.last, b"damaged", 2)
        until = time.monotonic() + 60
        while "damaged" not in caplog.text and time.monotonic() < until:
            time.sleep(0.02)
        assert "is damaged (7 bytes); following the one before" in caplog.text
        assert follower.published.version == before.version
        live.rebuild()  # of the same number
        while follower.published.version == before.version and time.monotonic() < until:
            time.sleep(0.02)
        assert as_bytes(follower.progress.state) == leaves(live)


def test_of_a_second_process_it_is_said_who_learns_and_it_may_wait(url: str) -> None:
    live = Live.create(url, PROBLEM, LEARNER, pace=OFTEN)
    told(live, range(3))
    with pytest.raises(UserError, match=r"is learned by process \d+ on .*: follow it by Live.follow, or give a number"):
        Live.open(url)
    with pytest.raises(UserError, match="is learned by process"):
        Live.open(url, wait=0.3)
    with pytest.raises(UserError, match=r"holds a learner already: open it by Live\.open"):
        Live.create(url, PROBLEM, LEARNER)
    closing = threading.Timer(0.5, live.close)
    closing.start()
    with Live.open(url, wait=60, pace=OFTEN) as live:
        live.wait()
        assert live.tasks() == {"t0": 2, "t1": 2, "t2": 2}
    closing.join()


def test_a_lease_is_kept_while_it_is_renewed_and_who_lost_it_writes_nothing(url: str) -> None:
    store = Store.create(Schema(url), {})
    first, second = Lease(store, 0.4), Lease(store, 0.4)
    first.take(0)
    with pytest.raises(UserError, match="is learned by process"):
        second.take(1.2)  # three times as long as it lasts
    with ThreadPoolExecutor(1) as pool:
        with first.held() as connection:  # for longer than that: nobody can take it
            time.sleep(0.6)
            taking = pool.submit(second.take, 0)
            assert store.append("a", ["1"], [b"x"]).new == 1  # which waits for neither
            connection.execute(text("SELECT 1"))
        with pytest.raises(UserError, match="is learned by process"):
            taking.result()
    first._over.set()  # it is not renewed any more
    second.take(5)
    with (
        pytest.raises(Lost, match=r"was taken over by process .*, as this one did not answer for 0\.4 seconds"),
        first.held(),
    ):
        pytest.fail("may not be done")
    with pytest.raises(Lost):
        first.check()
    with pytest.raises(Lost):
        store.delete(1, first.fence)
    first.leave()  # which is not its own any more
    second.check()
    with second.held():
        pass
    second.leave()
    third = Lease(store, 0.4)
    third.take(0)  # at once
    third.leave()
    store.close()


def test_a_clock_of_this_process_that_steps_changes_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Live.create(url, PROBLEM, LEARNER, example=example(), pace=OFTEN) as live:
        times = iter(range(1_000_000, 0, -1000))
        monkeypatch.setattr(time, "time", lambda: float(next(times)))
        told(live, range(6))
        live.wait()
        assert leaves(live) == as_bytes(plainly(written(live))[0])
        with pytest.raises(UserError, match="is learned by"):
            Live.open(url)


def test_who_stops_amid_a_transaction_holds_up_others_for_a_moment_alone(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metaleader.live.postgres.STOPPED", "300ms")
    store = Store.create(Schema(url), {})
    other = Store.open(Schema(url))
    appended = []

    def stop() -> None:
        with other.refusals(), other.home.writing.begin() as connection:
            other.home.lock(connection)
            appended.append(store.append("a", ["1"], [b"x"]))  # once it holds the lock no longer

    with pytest.raises(WriteError, match="cannot write to postgresql"):
        stop()
    assert appended == [(1, 1)]
    assert other.append("a", ["2"], [b"y"]) == (1, 2)
    for each in (store, other):
        each.close()


def test_what_is_acknowledged_is_on_the_disk_whatever_the_server_is_set_to(url: str) -> None:
    store = Store.create(Schema(url), {})
    with store.home.writing.connect() as connection:
        assert connection.exec_driver_sql("SHOW fsync").scalar() == "on"
        for before, within in (("off", "on"), ("on", "on"), ("remote_apply", "remote_apply")):
            connection.exec_driver_sql(f"SET SESSION synchronous_commit = {before}")
            connection.commit()
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == within
            connection.rollback()
    store.close()


def ended(call: Callable[[], Any], seconds: float) -> str:
    """What is said when what is called again and again is refused."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            call()
        except UserError as error:
            if "learning ended" in str(error):
                return str(error)
    return ""


def test_who_lost_the_lease_stops_and_says_so(url: str) -> None:
    with Live.create(url, PROBLEM, LEARNER, pace=OFTEN) as live:
        told(live, range(3))
        live.wait()
        lease = live._kept.lease
        assert lease is not None
        with lease.store.home.writing.begin() as connection:  # as if it had been stopped for long
            connection.execute(text(f'UPDATE "{lease.store.home.schema}".owner SET expires = 0'))  # type: ignore[union-attr]
            lease._over.set()
        with Live.open(url, pace=OFTEN, wait=5) as other:
            other.wait()
            told(other, range(3, 5))
            assert "was taken over by process" in ended(live.save, 60)
            with pytest.raises(UserError, match=r"learning ended by an error after event .*was taken over by"):
                told(live, [5])
            other.wait()
            assert leaves(other) == as_bytes(plainly(written(other))[0])
            live.predict("t0", X)  # goes on
    assert check(url).faults == ()


def test_a_database_that_is_gone_for_a_while_is_waited_for(url: str) -> None:
    with Live.create(url, PROBLEM, LEARNER, pace=OFTEN) as live:
        told(live, range(3))
        with live._store.home.once.connect() as connection:
            end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            connection.execute(text(end))
        told(live, range(3, 6))
        live.wait(60)
        assert leaves(live) == as_bytes(plainly(written(live))[0])


def test_a_back_up_of_a_database_is_a_folder(url: str, tmp_path: Path) -> None:
    with Live.create(url, PROBLEM, LEARNER, pace=EAGER) as live:
        told(live, range(4))
        live.learn("\u00e9\U0001f600", *points(7), ids=["\u00e9"])
        live.wait()
        live.save()
        told(live, range(4, 6))
        live.backup(tmp_path / "copy")
        live.wait()
        assert check(tmp_path / "copy") == (13, 4, 1, ())
        with Live.open(tmp_path / "copy") as copy:
            copy.wait()
            assert leaves(copy) == leaves(live)
            assert copy.tasks() == live.tasks()
            assert copy.learn("\u00e9\U0001f600", *points(7), ids=["\u00e9"]).new == 0
        with pytest.raises(UserError, match="is no folder"):
            _ = live.folder


def test_learners_of_several_names_share_a_database(server: str) -> None:
    urls = [f"{server}&learner={name}" for name in ("shops", "users")]
    for i, url in enumerate(urls):
        with Live.create(url, PROBLEM, LEARNER, seed=i, pace=EAGER) as live:
            live.learn(f"t{i}", *points(1))
    for i, url in enumerate(urls):
        assert check(url).tasks == 1
        with Live.open(url) as live:
            assert live.tasks() == {f"t{i}": 1}
            with pytest.raises(UserError, match=f"learner={['shops', 'users'][i]} is learned by"):
                Live.open(url)


def test_what_the_target_of_a_copy_refuses_is_not_said_of_the_source(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Live.create(tmp_path / "here", PROBLEM, LEARNER) as live:
        told(live, range(2))

    def refused(connection: Any, plain: bool) -> Iterator[Any]:
        for table, some in tables.rows(connection, plain):
            yield table, [{**row, "sequence": None} if "sequence" in row else row for row in some]

    monkeypatch.setattr("metaleader.live.place.rows", refused)
    with pytest.raises(UserError) as said:
        copy(tmp_path / "here", url)
    assert str(tmp_path) not in str(said.value)


def test_a_large_snapshot_is_of_several_rows(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaleader.live.shared.CHUNK", 1000)
    with Live.create(url, PROBLEM, LEARNER, pace=EAGER) as live:
        told(live, range(3))
        live.wait()
        live.save()
        name = live._kept.shelf.names()[0]
        content = live._kept.shelf.read(name)
        assert content is not None
        assert len(content) > 3000
        assert snapshot.unpacked(content, name).sequence == 6
        state = leaves(live)
        with live._store.home.writing.begin() as connection:
            connection.execute(text(f'DELETE FROM "{live._store.home.schema}".chunks WHERE place = 1'))  # type: ignore[union-attr]
        assert any("is damaged" in fault for fault in check(url).faults)
    with pytest.warns(RuntimeWarning, match="snapshot 1 is damaged"):  # closing wrote none, as nothing was new
        live = Live.open(url)
    with live:
        live.wait()
        assert leaves(live) == state


BAD = {
    "mysql://a/b": "lives in a folder or in a PostgreSQL database, got an address of 'mysql'",
    "http://a": "got an address of 'http'",
    "postgresql://a/b?learner=Shops": "must be of lower-case letters, digits and _.*got 'Shops'",
    "postgresql://a/b?learner=pg_x": "got 'pg_x'",
    "postgresql://a/b?learner=x&learner=y": "got \\('x', 'y'\\)",
    "postgresql://me:hidden@/none?host=/nowhere": r"cannot (read|write to) postgresql.*me:\*\*\*@/none.*No such file",
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_database_is_said(bad: str) -> None:
    calls: list[Callable[[str], Any]] = [Live.open, Live.follow, check, lambda url: Live.create(url, PROBLEM, LEARNER)]
    for call in calls:
        with pytest.raises(UserError, match=BAD[bad]) as caught:
            call(bad)
        assert "hidden" not in str(caught.value)


def test_where_there_is_no_learner_or_another_one_it_is_said(url: str) -> None:
    for call in (Live.open, Live.follow, check):
        with pytest.raises(UserError, match=r"holds no learner: make one by Live\.create"):
            call(url)
    Live.create(url, PROBLEM, LEARNER).close()
    for call in (Live.open, Live.follow):
        with pytest.raises(UserError, match=r"learner\.type"):
            call(url, PROBLEM, ml.Scratch())


def test_a_learner_of_ones_own_lives_in_a_database_too(url: str) -> None:
    with Live.create(url, PROBLEM, Counts(), pace=EAGER) as live:
        told(live, range(4))
        live.wait()
        with pytest.raises(UserError, match="another structure than its `init` gave"):
            live.save()
    with Live.open(url, PROBLEM, Counts()) as live:
        live.wait()
        assert live.predict("t0", X)[0].tolist() == [8.0]


def test_a_password_in_a_query_is_not_shown() -> None:
    for secret in ("postgresql+psycopg://a:se/cret@host/d?learner=x", "postgresql+psycopg://a@host/d?password=se/cret"):
        assert "se/cret" not in shown(secret)
        assert shown(secret).startswith("postgresql+psycopg://a")
