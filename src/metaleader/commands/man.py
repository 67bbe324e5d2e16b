"""`metaleader man`: the man page, of the same help that the commands print."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

from metaleader.commands import helps
from metaleader.experiments.parsing import parse

_SUMMARY = "online meta-learning: run, compare, search and serve learners that learn to adapt faster with every task"


@dataclass(frozen=True)
class ManOptions:
    """Print the man page: metaleader man > metaleader.1; man ./metaleader.1 shows it."""


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    parse(ManOptions, arguments, "metaleader man")
    print(page())
    return 0


def page() -> str:
    """The page, in the language of troff."""
    from metaleader.commands.main import COMMANDS, USAGE

    parts = [
        f'.TH METALEADER 1 "" "metaleader {metadata.version("metaleader")}" "User Commands"',
        f".SH NAME\nmetaleader \\- {_SUMMARY}",
        f".SH SYNOPSIS\n{_verbatim(USAGE)}",
        *(
            f'.SH "{" ".join(path).upper()}"\n{_verbatim(helps.help_of(path))}'
            for path in helps.paths(COMMANDS)
            if path[0] != "run" or len(path) == 1  # of each experiment there would be pages of settings
        ),
        ".SH EXIT STATUS\n0; 1 if a run failed or a folder has faults; 2 if the input was not understood; "
        "130 after Ctrl-C.",
        ".SH ENVIRONMENT\n.TP\nMETALEADER_DATA\na folder with data sets, searched before the cache",
    ]
    return "\n".join(parts)


def _verbatim(text: str) -> str:
    """Lines as they are; a dot or quote at the beginning of one would be a command."""
    lines = (line.rstrip().replace("\\", "\\e").replace("-", "\\-") for line in text.strip("\n").splitlines())
    return "\n".join([".nf", *(f"\\&{line}" if line[:1] in (".", "'") else line for line in lines), ".fi"])
