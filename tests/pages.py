"""The pages written by hand, their blocks of code, and what these take for granted."""

import re
import shlex
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PARTS = ("_build/*", "results/notes.md", "tuning/*/by-hand.md")  # of other pages
MADE = ("results/*", "tables/*", "tuning/*", "paper/*", "theory", "benchmarks", "memory", "updates")  # by commands


class Block(NamedTuple):
    """A block of code: its page, its language (empty: none is told), and its text."""

    page: str
    language: str
    code: str


@cache
def pages() -> Mapping[str, str]:
    """The text of every page of the site by its name, without its suffix."""
    paths = {path.relative_to(DOCS).as_posix(): path for path in DOCS.rglob("*.md")}
    return {
        name.removesuffix(".md"): path.read_text(encoding="utf-8")
        for name, path in paths.items()
        if not any(fnmatch(name, part) for part in PARTS)
    }


def blocks(language: str | None = None) -> Iterator[Block]:
    """Those of pages written by hand, the README among them; directives such as `{code-cell}` are none."""
    written = {name: text for name, text in pages().items() if not any(fnmatch(name, made) for made in MADE)}
    others = {name: (ROOT / f"{name}.md").read_text(encoding="utf-8") for name in ("README", "CONTRIBUTING")}
    for name, text in {**others, **written}.items():
        for told, code in re.findall(r"^```([^\n]*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
            if not told.startswith("{") and language in (None, told):
                yield Block(name, told, code)


def commands() -> Iterator[tuple[str, list[str]]]:
    """What the blocks in bash run: the page, and the words of every line, in which a backslash joins it to the next."""
    for page, _, code in blocks("bash"):
        for line in code.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield page, words
