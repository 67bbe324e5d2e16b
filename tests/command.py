"""The command, called in this process, and the records it makes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from metaleader.commands import main as cli


def call(*arguments: str) -> int:
    """The exit code of `metaleader ARGUMENTS`."""
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    return int(end.value.code or 0)


def account(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """All records below a folder, timings aside, by their file."""
    return {
        str(path.relative_to(folder)): [
            {key: value for key, value in json.loads(line).items() if not key.endswith("_seconds")}
            for line in path.read_text().splitlines()
        ]
        for path in folder.rglob("records.jsonl")
    }


Refused: TypeAlias = Callable[..., None]  # what the fixture `refused` gives


def assert_refused(*arguments: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line with `message` on standard error, exit code 2, and nothing written into `folder`."""
    assert call(*arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert list(folder.iterdir()) == []
