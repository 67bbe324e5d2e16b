"""The command `metaleader`: each of its commands is a file here."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from typing import NoReturn

from metaleader.commands.standing_in import without_jax
from metaleader.errors import RunFailed, UserError, printable, unknown

RESUMABLE = ("run", "sweep", "tune", "reproduce")
COMMANDS = (
    "run", "sweep", "tune", "reproduce", "report", "list", "data", "theory", "assess", "live", "serve", "completion",
    "man",
)  # fmt: skip
USAGE = """usage: metaleader COMMAND ...

  run [EXPERIMENT]   run learners on an experiment, then report (coloured-digits, if none is named)
  sweep EXPERIMENT.. many runs at once: experiments, settings, learners and seeds, in processes or on Ray
  tune EXPERIMENT    search the settings of learners, each with the same number of trials
  reproduce          every experiment of the paper, and a verdict on each of its claims
  report DIR...      table, figures and page of runs, finished or not
  list               the experiments, their presets and learners
  data [NAME]        which data is present, where; with a name, fetch it
  data render NAME   render the images of pose or pose-primitives
  assess FILE        whether learning across tasks pays on your table, from how many rows on, with which learner
  theory             check the theorem and the regret bounds on convex streams; table, figures and a page
  live check DIR     verify the folder of a learner that lives: its log and its snapshots
  live copy FROM TO  copy a learner that lives, from a folder or a database to another one
  live export DIR    write what predicts a task to a folder, to be loaded by JAX without metaleader
  live keep RUN      make a learner that lives of a run that has finished
  serve DIR          answer requests by HTTP: a learner that lives takes datapoints, and predicts
  completion SHELL   a script that lets bash or zsh complete commands, options and names
  man                the man page

metaleader COMMAND --help tells more; metaleader run EXPERIMENT --help lists every setting."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and end with its exit code.

    0; 1 if a run failed or nobody reads the output; 2 if the user erred; 130 on Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = lambda message, *_: _say(f"warning: {message}")
    os.environ["MPLBACKEND"] = "agg"  # figures are files; the user's, a notebook's say, may not be installed here
    try:
        sys.exit(_perform(arguments))
    except BrokenPipeError:  # nobody reads on, as in `metaleader list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _end(1)
    except ValueError as error:  # UserError, and what the library says of settings and data
        _say(f"error: {' '.join(str(error).split())}")
        _end(2)
    except OSError as error:  # a report, say, that cannot be written
        _say(f"error: {error.filename or 'the system'}: {error.strerror or error}; make room or choose another path")
        _end(2)
    except RunFailed as error:
        _say(str(error))
        _end(1)
    except KeyboardInterrupt:
        resumes = bool(arguments) and arguments[0] in RESUMABLE
        _say("stopped at once" + "; add --resume to go on from the last checkpoint" * resumes)
        _end(130)


def _perform(arguments: list[str]) -> int:
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(USAGE)
            return 0
        if arguments[0] == "--version":
            from importlib import metadata

            print(f"metaleader {metadata.version('metaleader')}")
            return 0
        if arguments[0] not in COMMANDS:
            raise UserError(unknown("command", arguments[0], COMMANDS))
        with without_jax() if _describes(arguments) else nullcontext():
            return int(import_module(f"metaleader.commands.{arguments[0]}").main(arguments[1:]))
    finally:
        sys.stdout.flush()  # here, where it is noticed if nobody reads on


def _describes(arguments: list[str]) -> bool:
    """Whether the command only tells what there is, in the package itself: a user's own file may need JAX to say so."""
    asks = arguments[0] in ("list", "completion", "man") or not {"-h", "--help"}.isdisjoint(arguments)
    return asks and not any(word.endswith(".py") for word in arguments)


def _end(code: int) -> NoReturn:
    """Exit after a sudden stop; one of several processes tells the others nothing, as they may be waiting for it."""
    devices = sys.modules.get("metaleader.devices")
    if devices is not None and devices.joined():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr)
