"""`metaleader live check DIR`."""

import json
from pathlib import Path

import pytest
from living import EAGER, LEARNER, PROBLEM, told

from command import call
from metaleader.live import Live


def test_a_folder_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "live"
    with Live.create(folder, PROBLEM, LEARNER, pace=EAGER) as live:
        told(live, range(3))
    assert call("live", "check", str(folder)) == 0
    assert capsys.readouterr().out == f"{folder}: 6 datapoints of 3 tasks, 1 sound snapshots, no faults\n"
    assert call("live", "check", str(folder), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"learner": str(folder), "datapoints": 6, "tasks": 3, "snapshots": 1, "faults": []}
    next((folder / "snapshots").iterdir()).write_bytes(b"x")
    assert call("live", "check", str(folder)) == 1
    said = capsys.readouterr().out.splitlines()
    assert "is damaged (1 bytes)" in said[0]
    assert said[1].endswith("0 sound snapshots, 1 faults")


def test_it_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("live", "--help") == 0
    assert capsys.readouterr().out == "usage: metaleader live {check,copy,export,keep} --help\n"
    assert call("live", "export", "--help") == 0
    assert "--task" in capsys.readouterr().out


def test_what_cannot_be_verified_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["check", str(tmp_path)], "holds no learner"),
        (["chek"], "did you mean check"),
        ([], "There are check"),
    ):
        assert call("live", *arguments) == 2
        assert message in capsys.readouterr().err


def test_a_database_is_verified_and_its_password_is_not_told(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    url = url.replace("live@", "live:secret@")
    with Live.create(url, PROBLEM, LEARNER, pace=EAGER) as live:
        told(live, range(3))
    assert call("live", "check", url) == 0
    said = capsys.readouterr().out
    assert said.startswith("postgresql+psycopg://live:***@/postgres?")
    assert said.endswith(": 6 datapoints of 3 tasks, 1 sound snapshots, no faults\n")
