"""What is released: the wheel and the archive of sources, as they are built and as they are installed elsewhere."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from pages import ROOT
from test_project import PYTHONS

pytestmark = pytest.mark.slow
DATA = {"__init__.pyi", "py.typed", "results/report.html", "service/page/index.html", "service/page/page.js"}


def said(*command: str | Path, cwd: Path) -> str:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV", "XLA_FLAGS")
    }
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    said(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


def found(version: str) -> str | None:
    """Where that version of Python is on this machine."""
    listed = said(sys.executable, "-m", "uv", "python", "list", "--only-installed", "--output-format", "json", cwd=ROOT)
    paths = [each["path"] for each in json.loads(listed) if each["version"].startswith(f"{version}.")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    paths += [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python"))]
    return paths[0] if paths else None


def test_both_hold_what_they_need_and_no_more(built: Path) -> None:
    (wheel,), (archive,) = built.glob("*.whl"), built.glob("*.tar.gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"metaleader/{name}" for name in DATA} <= names
    assert {name.partition("/")[0] for name in names} == {"metaleader", f"{wheel.name.rsplit('-', 3)[0]}.dist-info"}
    with tarfile.open(archive) as file:
        inside = {name.partition("/")[2] for name in file.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "tests/conftest.py", "examples/own_learner.py"} <= inside
    assert not any(name.startswith((".ci", "docs", "runs")) or "__pycache__" in name for name in inside)


@pytest.mark.parametrize(
    ("version", "resolution", "kind"),
    [
        *((version, resolution, "*.whl") for version in PYTHONS for resolution in ("highest", "lowest-direct")),
        ("3.11", "highest", "*.tar.gz"),
    ],
)
def test_it_is_installed_in_a_clean_environment_and_runs(
    version: str, resolution: str, kind: str, built: Path, tmp_path: Path
) -> None:
    if (python := found(version)) is None:
        pytest.skip(f"Python {version} is not on this machine")
    (package,) = built.glob(kind)
    uv = (sys.executable, "-m", "uv")
    said(*uv, "venv", "--quiet", "--python", python, tmp_path / "env", cwd=tmp_path)
    inside = ("--python", tmp_path / "env")
    said(*uv, "pip", "install", "--quiet", *inside, "--resolution", resolution, package, cwd=tmp_path)
    command = tmp_path / "env" / "bin" / "metaleader"
    assert (
        said(command, "--version", cwd=tmp_path) == f"metaleader {package.name.split('-')[1].removesuffix('.tar.gz')}\n"
    )
    assert "coloured-digits" in said(command, "list", cwd=tmp_path)
    shown = said(command, "run", "coloured-digits", "--preset", "smoke", "--learner", "ftml", "scratch", cwd=tmp_path)
    assert "FTML" in shown
    assert next(tmp_path.glob("runs/*/report.html"))


@pytest.mark.parametrize("kind", ["sources", "wheel"])
@pytest.mark.parametrize("words", [("uvx", "--from"), ("pipx", "run", "--spec")], ids=["uvx", "pipx"])
def test_it_runs_without_being_installed(words: tuple[str, ...], kind: str, built: Path, tmp_path: Path) -> None:
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    if (program := shutil.which(words[0], path=places)) is None:
        pytest.skip(f"{words[0]} is not on this machine")
    source = ROOT if kind == "sources" else next(built.glob("*.whl"))
    assert "coloured-digits" in said(program, *words[1:], source, "metaleader", "list", cwd=tmp_path)
