"""All commands with what their `--help` says: the source of shell completion and of the man page."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from importlib import import_module

from metaleader.experiments import EXPERIMENTS

GROUPS = {"data": ("render",), "live": ("check", "copy", "export", "keep")}  # commands with commands of their own
OF_EXPERIMENTS = ("run", "sweep", "tune")  # commands that take names of experiments
WIDTH = 80  # columns of the text


def paths(commands: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The words of every command, those of groups and of `run` with each experiment included."""
    for command in commands:
        if command != "live":  # it is nothing by itself
            yield (command,)
        for verb in GROUPS.get(command, ()):
            yield command, verb
    for experiment in EXPERIMENTS:
        yield "run", experiment


def help_of(path: tuple[str, ...]) -> str:
    """What `metaleader PATH --help` prints, without colour, in lines of at most `WIDTH` columns."""
    shown = io.StringIO()
    settings = {"COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            import_module(f"metaleader.commands.{path[0]}").main([*path[1:], "--help"])
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return shown.getvalue()


def options_in(text: str) -> list[str]:
    r"""The long options that a help text lists, each once.

    >>> options_in(" -h, --help\n       show this\n --out PATH  see --preset\n --mean, --no-mean\n")
    ['--help', '--out', '--mean', '--no-mean']
    """
    lines = re.findall(r"^[\s│|]*(?:-h, )?(--[a-z][^\s,]*(?:, --[^\s,]+)*)", text, re.MULTILINE)
    return list(dict.fromkeys(option.strip(",") for line in lines for option in line.split()))
