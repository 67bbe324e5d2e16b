"""Every block of code on the pages written by hand: Python runs, and commands are what the parsers take."""

import re
import runpy
import shlex
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro

import metaleader as ml
from command import call
from pages import ROOT, blocks, commands

PYTHON = [page for page in dict.fromkeys(block.page for block in blocks("python")) if page not in ("README", "serving")]


@pytest.fixture(autouse=True)
def _in_a_folder_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some write files


def test_blocks_tell_their_language() -> None:
    assert {block.language for block in blocks()} == {"bash", "python"}


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples" / f"{name}.py"))


def lines() -> dict[str, Any]:
    x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    problem = ml.Problem(ml.MLP(width=4), ml.squared_error, ml.mean_squared_error)
    return {"ml": ml, "problem": problem, "x": x[:2], "y": 2 * x[:2]}


@pytest.mark.parametrize("page", [page for page in PYTHON if page != "live"])
def test_python_on_a_page_runs(page: str) -> None:
    for block in blocks("python"):
        if block.page == page:
            exec(block.code, {})


def test_python_in_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    own, of_table, live, models = (block.code for block in blocks("python") if block.page == "README")
    exec(own, {})
    assert "accuracy" in capsys.readouterr().out
    sales = example("own_table")["sales"]()
    exec(of_table, {"ml": ml, "frame": sales.rename(columns={"sold": "sales"})})
    assert "target: 'sales'" in capsys.readouterr().out
    linen, nnx, equinox = (example(f"own_model{kind}") for kind in ("", "_nnx", "_equinox"))
    *made, problem = models.splitlines()
    known = {"ml": ml, "functools": nnx["functools"], "example_inputs": linen["stream"][0].train.inputs}
    nets = (linen["Net"], nnx["Net"], lambda width, key: equinox["Net"](key))
    for model, net in zip(made, nets, strict=True):
        exec(f"{model}\n{problem}", {**known, "Net": net})
    sales.to_csv("sales.csv", index=False)
    names: dict[str, Any] = {}
    exec(live, names)
    with names["live"] as shops:
        shops.wait()
        assert len(shops.tasks()) == 12
        assert abs(shops.predict("shop 3", [{"price": 9.5, "kind of day": "weekend"}]).item() - 150) < 60


def test_python_on_the_page_of_learners_that_live_runs(url: str) -> None:
    first, of_table, exported, database = (block.code for block in blocks("python") if block.page == "live")
    exec(first, lines())
    sales = example("own_table")["sales"]()
    sales.to_csv("sales.csv", index=False)
    names = {"ml": ml, "rows": sales[sales["shop"] == "shop 1"]}
    exec(of_table.replace('"shops"', '"of a table"'), names)
    with names["live"] as live:
        live.wait()  # what it has not learned yet would change what it predicts after the export
        live.export("north", "north")
        x = live.encoder.encode(sales[:3])
        loaded = {"x": x}
        exec(exported, loaded)
        np.testing.assert_allclose(loaded["predicted"], live.predict("north", sales[:3]), rtol=1e-4)
    given = re.search(r'URL = "(.*)"', database)
    assert given is not None
    names = lines()
    exec(database.replace(given[1], url), names)
    for each in ("standby", "other"):
        names[each].close()


class Parsed(Exception):  # noqa: N818 - it is no error
    """The parser took the words; what comes next is work."""


@pytest.fixture
def parsed_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands end once all of their words are parsed."""
    real = tyro.cli

    def parse(*arguments: Any, **others: Any) -> Any:
        found = real(*arguments, **others)
        if others.get("return_unknown_args"):
            return found
        raise Parsed

    monkeypatch.setattr(tyro, "cli", parse)


def of_metaleader() -> list[tuple[str, list[str]]]:
    """Every command of this package on a page, also behind `srun`, `uvx` and `pipx`, and in a container."""
    found = [(page, words) for page, words in commands() if words[0] == "metaleader"]
    for page, words in commands():
        if words[0] in ("srun", "docker", "uvx", "pipx"):
            start = "metaleader" if "metaleader" in words else "learner"
            if start in words:
                found.append((page, ["metaleader", *words[words.index(start) + 1 :]]))
    return found


@pytest.mark.parametrize(("page", "words"), of_metaleader(), ids=[" ".join(words)[:60] for _, words in of_metaleader()])
@pytest.mark.usefixtures("parsed_only")
def test_commands_are_what_the_parser_takes(page: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if any(word.endswith(".py") for word in words):
        Path("my_experiment.py").write_text((ROOT / "examples" / "own_experiment.py").read_text())
        if words[2].startswith("examples/"):
            monkeypatch.chdir(ROOT)
    with pytest.raises(Parsed):
        call(*(word.replace("$I", "0") for word in words[1:]))


def test_other_commands_are_there() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for page, words in commands():
        match words:
            case ["make", target]:
                assert target in targets, page
            case (
                ["pip" | "pipx", "install", what]
                | ["uv", "tool", "install", what]
                | ["uvx", "--from", what, "metaleader", *_]
                | ["pipx", "run", "--spec", what, "metaleader", *_]
            ):
                package = re.fullmatch(r"dist/\*\.whl|(?:metaleader|\.)(?:\[(.+)\])?", what)
                assert package is not None, (page, what)
                extras = set(package[1].split(",")) if package[1] else set()
                assert extras <= set(project["optional-dependencies"]), (page, what)
            case [program, *_]:
                assert program in ("metaleader", "curl", "docker", "srun", "echo", "python", "source"), (
                    page,
                    shlex.join(words),
                )
