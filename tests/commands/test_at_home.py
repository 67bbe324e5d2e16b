"""The command line at home: completion by a shell, the man page, and answers for machines."""

import json
import subprocess
from importlib import metadata

import pytest

from command import call
from metaleader.commands import completion, helps, man
from metaleader.commands.main import COMMANDS, USAGE
from metaleader.experiments import EXPERIMENTS


@pytest.fixture(scope="module")
def script() -> str:
    return completion.script(COMMANDS)


def completed(script: str, *words: str) -> set[str]:
    """What bash completes the last of the words to."""
    line = " ".join(f"'{word}'" for word in ("metaleader", *words))
    asked = f'{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}; _metaleader; echo "${{COMPREPLY[@]}}"'
    return set(subprocess.run(["bash", "-c", asked], check=True, capture_output=True, text=True).stdout.split())


def test_commands_options_and_experiments_are_completed(script: str) -> None:
    assert completed(script, "re") == {"reproduce", "report"}
    assert completed(script, "live", "") == {"check", "copy", "export", "keep", "--help"}
    assert completed(script, "run", "rainbow-") == {"rainbow-mnist", "rainbow-digits"}
    assert {"--ftml.update.steps", "--ftml.update.step-size"} <= completed(script, "run", "rainbow-mnist", "--ftml.u")
    assert completed(script, "live", "check", "--") == {"--help", "--json"}
    assert {"--learner", "--seeds", "--resume"} <= completed(script, "run", "--")
    assert set(EXPERIMENTS) <= completed(script, "tune", "")


def test_every_command_of_the_usage_is_there_and_has_options() -> None:
    told = {line.split()[0] for line in USAGE.splitlines() if line.startswith("  ")}
    assert told == set(COMMANDS)
    for path in helps.paths(COMMANDS):
        assert "--help" in helps.options_in(helps.help_of(path)), path


def test_the_man_page_holds_every_command_and_no_line_is_taken_for_one_of_troff() -> None:
    page = man.page()
    assert f"metaleader {metadata.version('metaleader')}" in page
    assert all(f'.SH "{" ".join(path).upper()}"' in page for path in helps.paths(COMMANDS) if path[0] != "run")
    commands = {line.split()[0] for line in page.splitlines() if line.startswith(".")}
    assert commands == {".TH", ".SH", ".nf", ".fi", ".TP"}


def test_a_shell_that_is_not_known_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("completion", "fish") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_lists_are_there_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["experiment"] for row in rows] == list(EXPERIMENTS)
    assert all("ftml" in row["learners"] and "laptop" in row["presets"] for row in rows)
    assert call("data", "--json") == 0
    assert {"data set", "file", "status"} <= set(json.loads(capsys.readouterr().out)[0])
