"""The log: what was acknowledged is there once, in one order, whatever happens to process, clock and disk."""

import json
import os
import random
import re
import resource
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from living import LEARNER, PROBLEM, points

from metaleader import UserError
from metaleader.errors import WriteError
from metaleader.live import Live, check
from metaleader.live.events import Forgetting, Group
from metaleader.live.log import Home
from metaleader.live.postgres import Schema
from metaleader.live.sqlite import File
from metaleader.live.store import Store


def home(where: Path | str) -> Home:
    """A log that a process has open, in a file or in a database."""
    if isinstance(where, str):
        return Schema(where)
    where.mkdir(exist_ok=True)
    return File(where / "log.sqlite")


@pytest.fixture
def store(where: Path | str) -> Iterator[Store]:
    store = Store.create(home(where), {})
    yield store
    store.close()


def names(store: Store) -> list[tuple[str | int, str]]:
    return [(row.task, row.id) for row in store.datapoints()]


def test_the_same_again_counts_once_and_other_content_is_refused(store: Store) -> None:
    first = store.append("a", ["1", "2"], [b"x", b"y"])
    assert first == (2, 2)
    assert store.append("a", ["1", "2"], [b"x", b"y"]) == (0, 2)
    assert store.append("a", ["2", "3", "3"], [b"y", b"z", b"z"]) == (1, 3)
    assert store.append("b", ["1"], [b"other"]) == (1, 4)  # names are those of a task
    assert store.append(1, ["1"], [b"p"]) == store.append(1, ["1"], [b"p"])._replace(new=1)
    assert store.append("1", ["1"], [b"q"]).new == 1  # another task than 1
    for ids, rows in ((["9", "1"], [b"n", b"X"]), (["8", "8"], [b"n", b"m"])):
        with pytest.raises(UserError, match=f"id '{ids[1]}' of task 'a' is known with other content"):
            store.append("a", ids, rows)
    assert names(store) == [("a", "1"), ("a", "2"), ("a", "3"), ("b", "1"), (1, "1"), ("1", "1")]
    assert store.tasks() == {"a": 3, "b": 1, 1: 1, "1": 1}
    assert store.of_task("a", 2) == [b"x", b"y"]


def test_eight_threads_make_one_order_and_share_transactions(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[int] = []
    write = store._write

    def slowly(together: list[Any]) -> None:
        commits.append(len(together))
        time.sleep(0.003)
        write(together)

    monkeypatch.setattr(store, "_write", slowly)
    given = [(f"t{i % 5}", [f"{i}-{j}" for j in range(i % 3 + 1)]) for i in range(200)]

    def append(one: tuple[str, list[str]]) -> int:
        return store.append(one[0], one[1], [name.encode() for name in one[1]]).sequence

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(append, given))
    events = list(store.events(0))
    assert all(isinstance(event, Group) for event in events)
    by_number = {event.sequence: event for event in events}
    for (task, ids), number in zip(given, numbers, strict=True):
        event = by_number[number]  # together, under the number that was acknowledged
        assert event == Group(number, task, [name.encode() for name in ids])
    assert [row.sequence for row in store.datapoints()] == list(range(1, sum(len(ids) for _, ids in given) + 1))
    assert sum(commits) == len(given)
    assert len(commits) < len(given) / 2  # group commit
    store._read_tasks()  # what is known of tasks is what the file tells
    assert store.tasks() == {f"t{k}": sum(len(ids) for task, ids in given if task == f"t{k}") for k in range(5)}


def test_one_refused_does_not_harm_those_it_shares_a_transaction_with(store: Store) -> None:
    store.append("a", ["1"], [b"x"])
    with store._writing, ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(store.append, "a", [name], [row]) for name, row in (("2", b"y"), ("1", b"X"), ("3", b"z"))]
        while len(store._commits.queue) < 3:
            time.sleep(0.001)
        store._writing.release()
        outcomes = [call.exception() for call in calls]
        store._writing.acquire()
    assert [type(outcome) for outcome in outcomes] == [type(None), UserError, type(None)]
    assert sorted(names(store)) == [("a", "1"), ("a", "2"), ("a", "3")]


def test_events_come_in_order_whatever_the_sizes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaleader.live.log.AT_ONCE", 4)
    chance, expected, k = random.Random(0), list[Any](), 0
    held = 0
    for i in range(40):
        if i % 9 == 8:
            number, count = store.forget("a")
            assert count == held
            expected.append(Forgetting(number, "a"))
        else:
            n, task = chance.randint(1, 11), "a" if i % 9 in (0, 7) else "b"
            rows = [str(k + j).encode() for j in range(n)]
            number = store.append(task, [str(k + j) for j in range(n)], rows).sequence
            expected.append(Group(number, task, rows))
            k += n
        held = store.tasks().get("a", 0)
    assert list(store.events(0)) == expected
    for after in (0, 1, 17, store.last):
        assert list(store.events(after))[-5:] == [event for event in expected if event.sequence > after][-5:]


def test_what_is_forgotten_is_not_of_the_task_that_comes_back_with_the_same_ids(store: Store) -> None:
    store.append("a", ["1"], [b"old"])
    store.append("b", ["1"], [b"b"])
    assert store.forget("a") == (3, 1)
    assert store.tasks() == {"b": 1}
    assert store.append("a", ["1"], [b"new"]) == (1, 4)  # not known with other content
    assert store.of_task("a", 99) == [b"new"]
    assert store.of_task("a", 2) == [b"old"]  # as of then
    store.close()
    store = Store.open(store.home)  # the same again
    assert store.tasks() == {"b": 1, "a": 1}
    assert store.of_task("a", 99) == [b"new"]
    assert store.unfinished(3)
    store.delete(2)
    assert store.unfinished(3)
    store.delete(3)
    assert not store.unfinished(99)
    assert names(store) == [("b", "1"), ("a", "1")]
    assert list(store.events(2)) == [Forgetting(3, None), Group(4, "a", [b"new"])]
    assert store.append("b", ["2"], [b"x"]).sequence == 5  # numbers are given once
    with pytest.raises(UserError, match="task 'c' is not known"):
        store.forget("c")
    store.close()


def test_the_clock_may_step_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([2e9, 1e9, 0.0, 1.5e9])
    monkeypatch.setattr(time, "time", lambda: next(times))
    for i in range(4):
        store.append("a", [str(i)], [str(i).encode()])
    assert [row.id for row in store.datapoints()] == ["0", "1", "2", "3"]
    assert store.of_task("a", 4) == [b"0", b"1", b"2", b"3"]


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """The disk is full: no file grows beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_refuses_and_goes_on_once_there_is_room(tmp_path: Path) -> None:
    store, acknowledged, refused = Store.create(File(tmp_path / "log.sqlite"), {}), list[str](), list[str]()
    with small_files(200_000):
        for i in range(100):
            try:
                store.append("a", [str(i)], [os.urandom(5000)])
            except WriteError:
                refused.append(str(i))
                if len(refused) == 5:
                    break
            else:
                acknowledged.append(str(i))
        with pytest.raises(WriteError, match="make room on the disk, then give the same again with the same ids"):
            store.append("a", ["another"], [os.urandom(5000)])
    assert acknowledged
    assert len(refused) == 5
    assert [row.id for row in store.datapoints()] == acknowledged
    for name in refused:
        assert store.append("a", [name], [b"again"]).new == 1
    store.close()
    store = Store.open(File(tmp_path / "log.sqlite"))
    assert [row.id for row in store.datapoints()] == acknowledged + refused
    assert store.damage() == []
    store.close()


def test_what_is_no_log_or_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with pytest.raises(UserError, match="holds no learner"):
        Store.open(File(path))
    sqlite3.connect(path).close()  # killed while it was made
    path.write_bytes(b"")
    with pytest.raises(UserError, match="holds no learner"):
        Store.open(File(path))
    store = Store.create(File(path), {"a": [1, None]})
    assert store.about("a") == [1, None]
    assert store.about("b") is None
    store.close()
    with pytest.raises(UserError, match="holds a learner already"):
        Store.create(File(path), {})
    connection = sqlite3.connect(path)
    connection.execute("UPDATE about SET value = '7' WHERE name = 'version'")
    connection.commit()
    connection.close()
    with pytest.raises(UserError, match="its format is 7, this one reads 1; open it with the version that made it"):
        Store.open(File(path))
    path.write_bytes(os.urandom(4096))
    with pytest.raises(UserError, match="is damaged"):
        Store.open(File(path))


def test_a_damaged_name_of_a_task_is_said(tmp_path: Path) -> None:
    with Live.create(tmp_path, PROBLEM, LEARNER) as live:
        live.learn("north", *points(2))
    for name in ('"nor', "null", '["north"]'):
        connection = sqlite3.connect(tmp_path / "log.sqlite")
        connection.execute("UPDATE datapoints SET task = ? WHERE sequence = 1", [name])
        connection.commit()
        connection.close()
        for look in (check, Live.open):
            with pytest.raises(UserError, match=f"holds {re.escape(repr(name))} where the name of a task should be"):
                look(tmp_path)


def test_a_transaction_is_synced_before_it_is_acknowledged(tmp_path: Path) -> None:
    store = Store.create(File(tmp_path / "log.sqlite"), {})
    with store.home.once.connect() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "secure_delete")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1}
    store.close()


def test_appending_while_a_task_is_deleted_loses_nothing(store: Store) -> None:
    done = threading.Event()
    count = 0

    def append() -> None:
        nonlocal count
        while not done.is_set():
            store.append("b", [str(count)], [json.dumps(count).encode()])
            count += 1

    thread = threading.Thread(target=append)
    thread.start()
    for i in range(5):
        store.append("a", ["1"], [b"x" * 1000])
        number, _ = store.forget("a")
        store.delete(number)
        assert not store.unfinished(number), i
    done.set()
    thread.join()
    assert [row.id for row in store.datapoints()] == [str(i) for i in range(count)]


def test_what_is_closed_takes_nothing(store: Store) -> None:
    store.append("a", ["1"], [b"x"])
    store.close()
    for call in (lambda: store.append("a", ["2"], [b"x"]), lambda: store.forget("a"), lambda: store.set_about("a", 1)):
        with pytest.raises(UserError, match=r"is closed: open it by Live.open"):
            call()
    again = Store.open(store.home)
    assert names(again) == [("a", "1")]
    again.close()


def test_keys_and_ids_of_any_characters_are_stored(store: Store) -> None:
    chance = random.Random(0)
    long = "".join(chr(chance.randint(0x1F300, 0x1F5FF)) for _ in range(200))  # what is indexed may be too long
    for task in (long, "\0", 'a"b\\', "", "\u2028", -5):
        assert store.append(task, [long, "'; --", "%s :x"], [b"\0", b"", b"\xff"]).new == 3
        assert store.append(task, [long], [b"\0"]).new == 0
        assert store.of_task(task, store.last) == [b"\0", b"", b"\xff"]
    store.forget(long)
    assert long not in store.tasks()
    store._read_tasks()
    assert set(store.tasks().values()) == {3}


def test_several_processes_see_what_the_others_wrote(store: Store) -> None:
    other = Store.open(store.home)  # its own account of tasks, as another process has
    assert store.append("a", ["1", "2"], [b"x", b"y"]) == (2, 2)
    assert other.tasks() == {}
    other.refresh()
    assert other.tasks() == {"a": 2}
    assert other.append("a", ["2", "3"], [b"y", b"z"]) == (1, 3)
    assert store.append("a", ["3", "4"], [b"z", b"w"]) == (1, 4)
    with pytest.raises(UserError, match="id '4' of task 'a' is known with other content"):
        other.append("a", ["4"], [b"?"])
    assert other.forget("a") == (5, 4)
    assert store.append("a", ["1"], [b"new"]) == (1, 6)
    assert store.tasks() == {"a": 1}
    assert other.append("b", ["1"], [b"b"]) == (1, 7)
    store.delete(5)
    assert other.of_task("a", 7) == [b"new"]
    third = Store.open(store.home)  # which never knew the name of what was forgotten
    for each in (store, other, third):
        each.refresh()
        assert each.tasks() == {"a": 1, "b": 1}
        assert list(each.events(0)) == [Forgetting(5, None), Group(6, "a", [b"new"]), Group(7, "b", [b"b"])]
        assert not each.unfinished(7)
    assert store.set_about("a", 1) == other.set_about("a", 2) == third.about("a") == 1  # the first counts
    other._index.last = 4  # as of before the task was forgotten, whose name is gone by now
    other.refresh()
    assert other.tasks() == {"a": 1, "b": 1}
    for each in (other, third):
        each.close()
        each.home.dispose()


def test_a_reader_skips_no_event_of_several_writers(store: Store) -> None:
    stores, seen, done = [Store.open(store.home) for _ in range(4)], list[Any](), threading.Event()

    def read() -> None:
        after, over = 0, False
        while not over:
            over = done.is_set()
            store.refresh()
            for event in store.events(after):
                seen.append(event)
                after = event.sequence

    def write(k: int) -> None:
        for i in range(30):
            names = [f"{k}-{i}-{j}" for j in range(i % 3 + 1)]
            try:
                again = names[:1] if i % 7 == 6 else []  # with other content
                rows = [name.encode() for name in names]
                stores[k].append(f"t{i % 7}", names + again, rows + [b"!" for _ in again])
            except UserError:
                assert i % 7 == 6  # refused: what it was about to store leaves no gap

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    done.set()
    reader.join()
    assert [row.sequence for row in store.datapoints()] == list(range(1, store.last + 1))
    assert seen == list(store.events(0))
    assert [event.first for event in seen] == [1, *(event.sequence + 1 for event in seen[:-1])]
    for k in range(4):  # each writer's in its order
        own = [row.decode() for event in seen for row in event.rows if row.decode().startswith(f"{k}-")]
        assert own == [f"{k}-{i}-{j}" for i in range(30) if i % 7 != 6 for j in range(i % 3 + 1)]
    for each in stores:
        each.close()


def test_a_log_is_made_once(where: Path | str) -> None:
    def make(_: int) -> str:
        try:
            Store.create(home(where), {}).close()
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(4) as pool:
        said = sorted(pool.map(make, range(4)))
    assert said[0] == ""
    assert all("holds a learner already: open it by Live.open" in each for each in said[1:])
