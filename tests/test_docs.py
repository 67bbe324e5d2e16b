"""The documentation site, without building it: pages are reachable, and names are in the reference."""

import importlib
import inspect
import re
from fnmatch import fnmatch
from typing import Any

import pytest

import metaleader as ml
from metaleader.commands.main import COMMANDS
from pages import DOCS, pages

PUBLIC = ("metaleader", "metaleader.streams", "metaleader.learners", "metaleader.theory", "metaleader.live")


def documented() -> list[Any]:
    """What the directives of the reference name, constants by their full name."""
    found: list[Any] = []
    for path in (DOCS / "reference").glob("*.md"):
        module = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if named := re.match(r"\.\. currentmodule:: (\S+)", line):
                module = named[1]
            elif named := re.match(r"\.\. py:data:: (\S+)", line):
                found.append(f"{module}.{named[1]}")
            elif named := re.match(r"\.\. auto\w+:: (\S+)", line):
                found.append(getattr(importlib.import_module(module), named[1]))
    return found


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(module: str) -> None:
    found = documented()
    known = {f"{value.__module__}.{value.__qualname__}" for value in found if not isinstance(value, str)}
    missing = []
    for name in importlib.import_module(module).__all__:
        value = getattr(importlib.import_module(module), name)
        if inspect.ismodule(value):
            continue
        full = f"{module}.{name}"
        if not (full in found or f"{value.__module__}.{getattr(value, '__qualname__', name)}" in known):
            missing.append(full)
    assert not missing, f"add them to docs/reference: {missing}"


def test_the_reference_names_nothing_twice() -> None:
    found = [value if isinstance(value, str) else f"{value.__module__}.{value.__qualname__}" for value in documented()]
    assert len(found) > 100
    assert sorted(found) == sorted(set(found))


def test_every_command_is_in_the_reference() -> None:
    shown = re.findall(r"```\{command-help\} ?([\w-]*)", (DOCS / "reference" / "cli.md").read_text(encoding="utf-8"))
    assert set(COMMANDS) <= set(shown)


def test_every_page_is_reached_from_the_first_and_every_entry_is_a_page() -> None:
    texts = pages()
    reached, coming = set(), ["index"]
    while coming:
        page = coming.pop()
        reached.add(page)
        folder = page.rpartition("/")[0]
        for toctree in re.findall(r"```\{toctree\}\n(.*?)```", texts[page], flags=re.DOTALL):
            for entry in filter(None, map(str.strip, toctree.splitlines())):
                if entry.startswith(":"):
                    continue
                pattern = f"{folder}/{entry}" if folder else entry
                matching = [name for name in texts if fnmatch(name, pattern)]
                assert matching, f"{page}: no page {entry}"
                coming += [name for name in matching if name not in reached]
    assert reached == set(texts)


def test_links_and_included_files_are_there() -> None:
    broken = []
    for page, text in pages().items():
        folder = (DOCS / page).parent
        prose = re.sub(r"```\w*\n.*?```", "", text, flags=re.DOTALL)
        linked = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose)
        included = re.findall(r"\{(?:literalinclude|include)\} (\S+)", text)
        files = [target for target in linked if not target.startswith(("http", "mailto"))] + included
        broken += [f"{page}: {target}" for target in files if not (folder / target).exists()]
    assert not broken


def test_what_pages_say_of_settings_is_so() -> None:
    for learner in (
        ml.FTML(ml.GradientDescent(prior_strength=10), optimizer=ml.Adam(3e-4, average=0.99), adapt_steps=50),
        ml.FTML(ml.GradientDescent(derivative="plain"), tasks_at_once=1),
        ml.FTML(ml.Ridge()),
        ml.FTML(ml.Identity()),
    ):
        assert isinstance(learner, ml.Learner)
    assert ml.OnlineProtocol(chunk=5, evaluate_at=(5, 10, 20)).judges_at(10)
