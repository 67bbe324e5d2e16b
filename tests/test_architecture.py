"""Imports point one way, public names are documented, and what docstrings show is true."""

import ast
import doctest
import importlib
import inspect
import itertools
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import metaleader
from command import call

ROOT = Path(metaleader.__file__).parent
SHOWN = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if ">>> " in path.read_text()
)


def test_imports_point_one_way() -> None:
    lint = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run(lint, cwd=ROOT.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "2 kept, 0 broken" in done.stdout


def test_the_table_of_faults_names_tests() -> None:
    tests = Path(__file__).parent
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (tests / "faults.md").read_text())
    assert len(named) > 50
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in (tests / file).read_text()]
    assert missing == []


PUBLIC = ("", ".learners", ".live", ".models", ".streams", ".theory")
VALUES = {  # that have no docstring of their own, and where they are documented, in a string below them
    "EXPERIMENTS": "metaleader.experiments",
    "MISTAKES": "metaleader.theory.games",
    "STREAMING": "metaleader.theory.streaming",
    "accuracy": "metaleader.problem.scores",
    "label_accuracy": "metaleader.problem.scores",
    "mean_squared_error": "metaleader.problem.scores",
}


def below_values(module: ModuleType) -> dict[str, str]:
    """The strings below the values of a module, by name: documentation that Python itself does not keep."""
    body = ast.parse(inspect.getsource(module)).body
    found = {}
    for value, text in itertools.pairwise(body):
        if isinstance(value, (ast.Assign, ast.AnnAssign)) and isinstance(text, ast.Expr):
            target = value.targets[0] if isinstance(value, ast.Assign) else value.target
            found[ast.unparse(target)] = str(ast.literal_eval(text.value))
    return found


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_has_an_example(module: str) -> None:
    public = importlib.import_module(f"metaleader{module}")

    def documentation(name: str) -> str:
        if name in VALUES:
            return below_values(importlib.import_module(VALUES[name]))[name]
        value = getattr(public, name)
        assert inspect.ismodule(value) or inspect.isclass(value) or inspect.isfunction(value), name
        return value.__doc__ or ""

    assert [name for name in public.__all__ if ">>> " not in documentation(name)] == []


@pytest.mark.parametrize("module", SHOWN)
def test_what_docstrings_show_is_true(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = importlib.import_module(module)
    monkeypatch.setattr(imported, "__test__", below_values(imported), raising=False)  # which doctest tries as well
    failed, tried = doctest.testmod(imported)
    assert tried > 0
    assert failed == 0


DESCRIBED = (["--help"], ["list"], ["run", "--help"])
DESCRIBE = """
import sys
from metaleader.commands.main import main
for arguments in ARGUMENTS:
    try: main(arguments)
    except SystemExit as end: assert not end.code
assert not {"jaxlib", "matplotlib", "scipy"} & sys.modules.keys()
import jax, metaleader as ml
problem, one = ml.Problem(ml.MLP(), ml.squared_error, ml.mean_squared_error), jax.numpy.ones((1, 1))
ml.FTML().init(problem, jax.random.key(0), ml.Batch.of(one, one))
"""


def test_help_needs_no_jax_says_the_same_and_leaves_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in DESCRIBED:  # here, where JAX is there
        assert call(*arguments) == 0
    expected = capsys.readouterr().out
    program = DESCRIBE.replace("ARGUMENTS", repr(DESCRIBED))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said, expected = ("".join(re.findall(r"\w", text)) for text in (done.stdout, expected))  # without frames and wraps
    assert said == expected
    assert "ftmlmetasteps" in said
