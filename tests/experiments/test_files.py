"""Experiments of one's own, in Python files: what lies beside them, what they are called, and what fails in them."""

import copy
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tunable
from command import call
from metaleader import EXPERIMENTS, UserError
from metaleader.experiments import find
from metaleader.experiments.plans import folder_name
from metaleader.experiments.sweeps import jobs

pytestmark = pytest.mark.usefixtures("blank_figures")

OWN = """
from dataclasses import dataclass, replace
from helpers import ROUNDS
from tunable import Guess, Noise, START, experiment as base

@dataclass(frozen=True)
class Few(Noise):
    rounds: int = ROUNDS
    scale: object = lambda x: x

    def stream(self, seed, data_dir=None):
        return list(super().stream(seed))

preset = replace(base.presets["smoke"], stream=Few(), loss=lambda outputs, targets: ((outputs - targets) ** 2).sum(-1))
experiment = replace(base, presets={"smoke": preset}, compared=("guess",))
"""
FAILING = """
from dataclasses import replace
from pathlib import Path
from tunable import Guess, START, experiment as base

class Failing(Guess):
    def observe(self, problem, state, task, batch):
        if not Path(__file__).with_name("sensor").exists():
            raise RuntimeError("no sensor")
        return state, 0

preset = replace(base.presets["smoke"], learners={"failing": Failing(*START)})
experiment = replace(base, presets={"smoke": preset}, compared=("failing",))
"""


@pytest.fixture(autouse=True)
def imports() -> Iterator[None]:
    """What files import is forgotten."""
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - modules.keys():
        if "metaleader_experiment" in name or name == "helpers":
            del sys.modules[name]


def own(folder: Path, name: str = "own.py", content: str = OWN) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "helpers.py").write_text("ROUNDS = 2\n")
    (folder / name).write_text(content)
    return str(folder / name)


@pytest.mark.parametrize("name", ["own.py", "copy.py", "optuna.py"])
def test_a_file_imports_what_lies_beside_it_and_takes_no_module_s_place(name: str, tmp_path: Path) -> None:
    """The stream of this one is a list, and lambdas are among its settings."""
    out = tmp_path / "out"
    assert call("run", own(tmp_path, name), "--preset", "smoke", "--out", str(out)) == 0
    assert len((out / "guess" / "seed-0" / "records.jsonl").read_text().splitlines()) == 2 * 2
    assert sys.modules["copy"] is copy
    assert getattr(sys.modules.get("optuna"), "experiment", None) is None


def test_a_sweep_has_each_of_its_settings_and_goes_on(tmp_path: Path) -> None:
    file, out = own(tmp_path), tmp_path / "out"
    sweep = ["sweep", file, "--preset", "smoke", "--set", "guess.steps=1,2", "--out", str(out), "--workers", "1"]
    assert call(*sweep) == 0
    assert call(*sweep, "--resume") == 0
    configs = [json.loads(path.read_text()) for path in out.rglob("config.json")]
    assert sorted(config["settings"]["learner"]["steps"] for config in configs) == [1, 2]


def test_two_files_of_one_experiment_s_name_are_refused(tmp_path: Path) -> None:
    first, second = (own(tmp_path / "files", name) for name in ("a.py", "b.py"))
    with pytest.raises(UserError, match=r"a\.py and .*b\.py are both named 'tunable'"):
        jobs([first, second], "smoke", (), [0], (), tmp_path)
    with pytest.raises(UserError, match=r"b\.py cannot be used together with .*helpers\.py, as a file beside it has"):
        jobs([first, own(tmp_path / "others", "b.py")], "smoke", (), [0], (), tmp_path)


def test_settings_that_no_folder_can_be_called_by_have_folders_of_their_own() -> None:
    texts = ["a=1", "a=1/2", "a=1_2", "a=1|2", "a=[1]", "a=" + "x" * 300, "a=" + "x" * 301, "é" * 60]
    names = [folder_name(text) for text in texts]
    assert names[:3] == ["a=1", folder_name("a=1/2"), "a=1_2"]
    assert len(set(names)) == len(texts)
    assert max(len(name.encode()) for name in names) <= 100
    assert not any(character in name for name in names for character in "/[]*?")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1\ny = (\n", "own.py, line 2: SyntaxError: '(' was never closed"),
        ("import nowhere\n", "own.py, line 1: ModuleNotFoundError: No module named 'nowhere'"),
        ("import helpers\nx = helpers.nothing\n", "own.py, line 2: AttributeError: module 'helpers' has no attribute"),
        ("def broken():\n    return 1 / 0\n\nbroken()\n", "own.py, line 2: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)\n", "own.py, line 1: SystemExit: 3"),
        ("experiment = 3\n", "must define `experiment`, a metaleader.Experiment; found int"),
    ],
)
def test_what_fails_in_a_file_is_told_with_its_line(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        find(own(tmp_path, content=content))
    assert message in str(error.value)


@pytest.mark.parametrize("words", [["run"], ["sweep", "--set", "guess.steps=1,2"]], ids=["run", "sweep"])
def test_a_stream_that_fails_to_begin_is_told_with_its_line(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = own(tmp_path, content=OWN.replace("return list(super().stream(seed))", "return {}['sensor']"))
    out = tmp_path / "out"
    assert call(words[0], file, *words[1:], "--preset", "smoke", "--out", str(out)) == 2
    assert capsys.readouterr().err == f"error: {file}, line 12: KeyError: 'sensor'\n"
    assert not out.exists()


def test_the_traceback_of_a_failure_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["run", own(tmp_path, content=FAILING), "--preset", "smoke", "--out", str(out)]
    assert call(*command) == 1
    run = out / "failing" / "seed-0"
    assert f"{run}: failed: no sensor; the traceback is in {run / 'traceback.txt'}\n" in capsys.readouterr().err
    assert 'own.py", line 9, in observe' in (run / "traceback.txt").read_text()
    (tmp_path / "sensor").touch()
    assert call(*command, "--resume") == 0
    assert not (run / "traceback.txt").exists()


def test_learners_may_be_called_like_options_keywords_and_numbers(tmp_path: Path) -> None:
    names = ("1st-order", "class", "seeds", "my_own", "a" * 100)
    learners = "{" + ", ".join(f"{name!r}: Guess(*START)" for name in names) + "}"
    file = own(tmp_path, content=OWN.replace("stream=Few(),", f"stream=Few(), learners={learners},"))
    Path(file).write_text(Path(file).read_text().replace('("guess",)', repr(names)))
    options = [word for i, name in enumerate(names) for word in (f"--{name}.steps", str(10 + i))]
    out = tmp_path / "out"
    assert call("run", file, "--preset", "smoke", *options, "--seeds", "1", "--out", str(out)) == 0
    for i, name in enumerate(names):
        config = json.loads((out / name / "seed-0" / "config.json").read_text())
        assert config["settings"]["learner"]["steps"] == 10 + i
    planned = jobs([file], "smoke", ["my_own"], [0], ["my_own.steps=7"], tmp_path)
    assert [job.plan().learners["my_own"].steps for job in planned] == [7]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/b"], "must be at most 100 letters, digits, -, _ and .*, and not begin with -, as .* got 'a/b'"),
        (["a b"], "got 'a b'"),
        (["a.b"], "got 'a.b'"),
        (["-a"], "got '-a'"),
        ([""], "got ''"),
        (["a\x1b[1m"], "got 'a"),
        (["a" * 300], "got 'aaa"),
        (["stream"], "cannot be called 'stream', which is a part of every preset"),
        (["gradients"], "cannot be called 'gradients'"),
        (["a-b", "a_b"], "learners 'a-b' and 'a_b' would have the same options"),
    ],
)
def test_learners_that_cannot_have_options_are_refused(names: list[str], message: str) -> None:
    preset = tunable.experiment.presets["smoke"]
    with pytest.raises(ValueError, match=message):
        replace(preset, learners=dict.fromkeys(names, preset.learners["guess"]))


def test_an_experiment_of_any_name_runs_and_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = r"[bold] $\odd$ | <b>" + "x" * 300 + "\x1b[31m"
    file = own(tmp_path, content=OWN.replace("replace(base, presets", f"replace(base, name={name!r}, presets"))
    assert call("run", file, "--preset", "smoke") == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert len(folder.name) <= 100
    assert json.loads((folder / "summary.json").read_text())["experiment"] == name


def test_built_in_experiments_go_by_their_names() -> None:
    experiments: Any = [find(name) for name in EXPERIMENTS]
    assert experiments == list(EXPERIMENTS.values())
