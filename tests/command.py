"""The command, called in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from metaleader.commands import main as cli


def call(*arguments: str) -> int:
    """The exit code of `metaleader ARGUMENTS`."""
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    return int(end.value.code or 0)


Refused: TypeAlias = Callable[..., None]  # what the fixture `refused` gives


def assert_refused(*arguments: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line with `message` on standard error, exit code 2, and nothing written into `folder`."""
    assert call(*arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert list(folder.iterdir()) == []
