"""`metaleader completion`: a script by which a shell completes commands, options and names of experiments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro

from metaleader.commands import helps
from metaleader.experiments import EXPERIMENTS
from metaleader.experiments.parsing import parse

_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"
_SCRIPT = """_metaleader() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" words
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands} --help --version"
    else
        case "${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _metaleader metaleader"""


@dataclass(frozen=True)
class CompletionOptions:
    """Print a script that lets a shell complete commands, options and names of experiments.

    For bash: metaleader completion bash > ~/.local/share/bash-completion/completions/metaleader; for zsh, add to
    ~/.zshrc: source <(metaleader completion zsh).
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh"]]
    """Which shell."""


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    from metaleader.commands.main import COMMANDS

    options = parse(CompletionOptions, arguments, "metaleader completion")
    print((_ZSH if options.shell == "zsh" else "") + script(COMMANDS))
    return 0


def script(commands: tuple[str, ...]) -> str:
    """The script, for bash, and for zsh after its `bashcompinit`."""
    found = {path: helps.options_in(helps.help_of(path)) for path in helps.paths(commands)}
    cases = []
    for path, options in sorted(found.items(), key=lambda item: -len(item[0])):  # the longest first
        names = [*helps.GROUPS.get(path[0], ()), *(EXPERIMENTS if path[0] in helps.OF_EXPERIMENTS else ())]
        words = " ".join([*(names if len(path) == 1 or path[0] == "run" else ()), *options])
        pattern = f'"{path[0]} "*' if len(path) == 1 else f'"{" ".join(path)}"'
        cases.append(f'            {pattern}) words="{words}" ;;')
    cases.append(f'            "live "*) words="{" ".join(helps.GROUPS["live"])} --help" ;;')
    return _SCRIPT.format(commands=" ".join(commands), cases="\n".join(cases))
