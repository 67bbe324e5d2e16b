"""Copies of a learner from a folder or a database to another one: the same log, and the same weights."""

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from living import EAGER, LEARNER, PROBLEM, as_bytes, example, leaves, plainly, points, told, written

from command import call
from metaleader import UserError
from metaleader.live import Live, Pace, check, copy, copying
from metaleader.live.place import Kept
from metaleader.live.store import Store

X = points(50, 5)[0]


def stored(live: Live) -> list[Any]:
    return list(live._store.datapoints())


def test_there_and_back_all_is_the_same_and_weights_bit_for_bit(tmp_path: Path, url: str) -> None:
    places: list[Path | str] = [tmp_path / "first", url, f"{url}_b", tmp_path / "last", tmp_path / "third"]
    with Live.create(places[0], PROBLEM, LEARNER, seed=3, pace=EAGER) as live:
        told(live, range(5), tasks=4)
        live.learn("für Größe\0", *points(7), ids=["ä"])
        live.learn(3, *points(8), ids=["ä"])
        live.forget("t3")
        live.wait()
        told(live, range(5, 6), tasks=4)
        live.wait()
        live.save()
        told(live, range(6, 8), tasks=4)
        live.wait()
        for source, target in pairwise(places):
            copy(source, target)  # the first is in use
        expected = leaves(live), live.score(), stored(live), live.tasks(), live.predict("t1", X).tobytes()
    for place in places[1:]:
        assert check(place).faults == ()
        assert check(place).snapshots == check(places[1]).snapshots == 2  # of forgetting, and the one that was saved
        with Live.open(place, pace=EAGER) as live:
            live.wait()
            assert (leaves(live), live.score(), stored(live), live.tasks(), live.predict("t1", X).tobytes()) == expected
            assert live.learn("für Größe\0", *points(7), ids=["ä"]).new == 0
            assert live.learn("t3", *points(9), ids=["3-0"]).new == 1  # it was forgotten there, too


def test_a_learner_that_met_nothing_is_copied(where: Path | str, tmp_path: Path) -> None:
    Live.create(where, PROBLEM, LEARNER, pace=EAGER).close()
    copy(where, tmp_path / "copy")
    with Live.open(tmp_path / "copy") as live:
        told(live, range(3))
        live.wait()
        assert leaves(live) == as_bytes(plainly(written(live))[0])


def test_a_copy_is_whole_while_others_learn_and_forget(where: Path | str, url: str, tmp_path: Path) -> None:
    targets: list[Path | str] = [tmp_path / "a", f"{url}_a", tmp_path / "b", f"{url}_b"]
    with Live.create(where, PROBLEM, LEARNER, example=example(), pace=Pace(1.0, 0.05, 0.05)) as live:
        over = threading.Event()

        def learn() -> None:
            i = 0
            while not over.is_set():
                told(live, range(i, i + 4))
                i += 4
                if i % 16 == 0:
                    live.forget("t1")

        learning = threading.Thread(target=learn)
        learning.start()
        try:
            before = [live.status().stored]
            for target in targets:
                copy(where, target)
                before.append(live.status().stored)
        finally:
            over.set()
            learning.join()
    for target, least in zip(targets, before, strict=False):
        assert check(target).faults == ()
        with Live.open(target, pace=EAGER) as found:
            assert found.status().stored >= least
            found.wait()
            buffer = found._worker.progress.state.buffer  # type: ignore[union-attr]
            assert int(np.asarray(buffer.counts).sum()) == found.status().datapoints  # none of what was forgotten
            found.rebuild()
            assert leaves(found) == as_bytes(plainly(written(found))[0])


@pytest.mark.parametrize("target", ["folder", "database"])
def test_what_is_forgotten_while_it_is_copied_is_not_in_the_copy(
    target: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its snapshots and its log, which would then lack what the snapshots still hold."""
    source, to = tmp_path / "live", tmp_path / "copy" if target == "folder" else url
    with Live.create(source, PROBLEM, LEARNER, pace=EAGER) as live:
        told(live, range(6))
        live.wait()
        live.save()
        tasks, reading = iter(["t0"]), copying.snapshots

        def disturbed(kept: Kept) -> Iterator[tuple[int, bytes]]:
            yield from list(reading(kept))
            for task in tasks:
                live.forget(task)

        monkeypatch.setattr(copying, "snapshots", disturbed)
        copy(source, to)
    assert next(tasks, None) is None
    with Live.open(to, pace=EAGER) as found:
        found.wait()
        assert found.tasks() == {"t1": 4, "t2": 4}
        assert int(np.asarray(found._worker.progress.state.buffer.counts).sum()) == 8  # type: ignore[union-attr]


def test_what_is_disturbed_each_time_is_given_up_and_leaves_nothing(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Live.create(tmp_path / "live", PROBLEM, LEARNER, pace=EAGER).close()
    numbers = iter(range(1000))
    monkeypatch.setattr(Store, "removed", property(lambda _: next(numbers)))
    for target in (tmp_path / "copy", url):
        with pytest.raises(UserError, match="tasks were forgotten 10 times while a copy was written"):
            copy(tmp_path / "live", target)
        with pytest.raises(UserError, match="holds no learner"):
            Live.open(target)
    assert [path.name for path in tmp_path.iterdir()] == ["live"]


def test_a_folder_that_a_copy_could_not_replace_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hidden files, empty folders and the working directory are in the way of `os.replace`; a link is followed."""
    for folder in ("empty", "here", "hollow/within"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".gitkeep").touch()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "nowhere").symlink_to(tmp_path / "later")
    monkeypatch.chdir(tmp_path / "here")

    def never(*_: object) -> Iterator[tuple[int, bytes]]:
        raise AssertionError

    with Live.create(tmp_path / "live", PROBLEM, LEARNER, pace=EAGER) as live:
        told(live, range(3))
        with monkeypatch.context() as patch:
            patch.setattr(copying, "snapshots", never)
            for target, why in (
                (tmp_path / "hidden", "holds '.gitkeep', and would be replaced: remove that, or choose a new folder"),
                (tmp_path / "hollow", "holds 'within', and would be replaced: remove that, or choose a new folder"),
                (Path("."), "here is the working directory, which would be replaced: choose a new folder for the copy"),
                (tmp_path / "here", "here is the working directory"),
            ):
                with pytest.raises(UserError, match=why):
                    copy(tmp_path / "live", target)
                with pytest.raises(UserError, match=why):
                    live.backup(target)
        copy(tmp_path / "live", tmp_path / "link")
        live.backup(tmp_path / "nowhere")
        live.backup("../here/new")
    assert (tmp_path / "link").is_symlink()
    for made in ("empty", "link", "later", "nowhere", "here/new"):
        assert check(tmp_path / made)[:2] == (6, 3)
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]


def test_the_command_copies_and_says_what_it_refuses(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "shops", url.replace("live@", "live:secret@")
    with Live.create(source, PROBLEM, LEARNER, pace=EAGER) as live:
        told(live, range(3))
    assert call("live", "copy", str(source), target) == 0
    said = capsys.readouterr().out
    assert said.startswith("postgresql+psycopg://live:***@/postgres?")
    assert said.endswith(": 6 datapoints of 3 tasks\n")
    next((source / "snapshots").iterdir()).write_bytes(b"x")
    for arguments, why in (
        ((str(source), target), "holds a learner already: open it by Live.open, or choose another folder or name"),
        ((target, str(source)), f"{source} exists already: choose a new folder for the copy"),
        ((str(tmp_path / "none"), str(tmp_path / "copy")), "holds no learner"),
        ((str(source), str(tmp_path / "copy")), "is damaged (1 bytes): open the learner by Live.open"),
        ((str(source), "mysql://a@b/c"), "got an address of 'mysql'"),
        ((str(source),), "required"),
    ):
        assert call("live", "copy", *arguments) == 2, arguments
        assert why in capsys.readouterr().err
    assert not (tmp_path / "copy").exists()
