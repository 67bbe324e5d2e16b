"""The command: what it makes, and one line for every mistake."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import matplotlib
import pytest

import tunable
from accounts import account
from command import Refused, call
from metaleader import UserError, devices
from metaleader.commands.terminal import results_in
from metaleader.online import Record
from metaleader.runs.folder import RunFolder
from metaleader.runs.progress import steps

SMOKE = ["run", "sinusoid", "--preset", "smoke"]


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest) -> None:
    """The first test alone looks at pictures."""
    if request.function is not test_every_experiment_runs_at_smoke_from_command_to_report:
        request.getfixturevalue("blank_figures")


@pytest.mark.parametrize(  # the others: where their streams are tested
    "name", ["rainbow-mnist", pytest.param("rainbow-digits", marks=pytest.mark.slow)]
)
def test_every_experiment_runs_at_smoke_from_command_to_report(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    if name == "rainbow-mnist":
        request.getfixturevalue("data_dir")
    assert call("run", name, "--preset", "smoke", "--out", str(tmp_path / "out")) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["experiment"], summary["preset"]) == (name, "smoke")
    assert list(summary["learners"]) == ["ftml", "ftl", "toe", "scratch"]
    for numbers in summary["learners"].values():
        assert all(entry[0] is not None for entry in numbers["score_at"].values())
        assert numbers["gradient_evaluations"] > 0
    assert (tmp_path / "out" / "report.html").stat().st_size > 50_000
    shown = capsys.readouterr().out
    assert "FTML" in shown
    assert "report.html" in shown
    assert call("report", str(tmp_path / "out" / "ftml"), "--out", str(tmp_path / "out")) == 0


def test_hyperparameters_learners_and_seeds_by_name(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--learner", "ftml-last-layer", "toe", "--learner", "ftl", "--seeds", "2", "--out", str(out)]
    settings = ["--ftml-last-layer.meta-steps", "3", "--ftl.update.optimizer.step-size", "0.02", "--stream.rounds", "2"]
    assert call(*SMOKE, *options, *settings, "--toe.optimizer.learning-rate", "1e-4", "--protocol.move-on") == 0
    configs = {path.parent.parent.name: json.loads(path.read_text()) for path in out.rglob("config.json")}
    assert set(configs) == {"ftml-last-layer", "toe", "ftl"}
    assert configs["ftml-last-layer"]["settings"]["learner"]["meta_steps"] == 3
    assert configs["ftml-last-layer"]["settings"]["learner"]["update"]["adapt_only"] == ["head"]
    assert configs["ftl"]["settings"]["learner"]["update"]["optimizer"]["step_size"] == 0.02
    assert configs["toe"]["settings"]["learner"]["optimizer"]["learning_rate"] == 1e-4
    assert configs["toe"]["settings"]["protocol"]["move_on"] is True
    assert configs["toe"]["settings"]["stream"]["rounds"] == 2
    assert configs["toe"]["command"].startswith("metaleader run sinusoid --preset smoke --learner")
    summary = json.loads((out / "summary.json").read_text())
    assert summary["learners"]["toe"]["seeds"] == 2
    assert None not in summary["learners"]["toe"]["final_score"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "unknown command 'rnu': did you mean run?"),
        (["run", "rainbow-mnits"], "unknown experiment 'rainbow-mnits': did you mean rainbow-mnist"),
        (["run", "nowhere.py"], "there is no file nowhere.py"),
        (["run", "sinusoid", "--preset", "labtop"], "unknown preset 'labtop': did you mean laptop?"),
        ([*SMOKE, "--learner", "ftlm"], "unknown learner 'ftlm': did you mean ftl or ftml"),
        ([*SMOKE, "--ftml.meta-stps", "3"], "did you mean --ftml.meta-steps"),
        ([*SMOKE, "--ftml.meta-steps", "many"], "--ftml.meta-steps: invalid literal for int"),
        ([*SMOKE, "--ftml.meta-steps", "0"], "--ftml: meta_steps must be positive and finite, got 0"),
        ([*SMOKE, "--ftml.optimizer.average", "2"], "--ftml.optimizer: average must be in [0, 1), got 2.0"),
        ([*SMOKE, "--ftml.retention.policy", "last"], "budget must be at least 1 for the policy last, got None"),
        (
            [*SMOKE, "--learner", "ftml-imaml", "--ftml-imaml.update.strength", "0"],
            "strength must be positive and finite, got 0",
        ),
        ([*SMOKE, "--protocol.evaluate-at", "3"], "multiples of chunk = 5"),
        ([*SMOKE, "--protocol.evaluate-from", "99"], "evaluate_from is 99, and the stream has"),
        ([*SMOKE, "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["run", "rainbow-mnist", "--data-dir", "/nowhere"], "--data-dir /nowhere is no folder"),
        (["run", "rainbow-digits", "--stream.rounds", "99"], "rounds must be from 1 to 56, got 99"),
        (["run", "rainbow-digits", "--model.norm", "layer"], "invalid choice 'layer'"),
        (["report"], "name at least one folder"),
        (["report", "/nowhere"], "there is no folder /nowhere"),
        (["data", "minst"], "unknown data set 'minst': did you mean mnist"),
        ([*SMOKE, "--protocol.threshold", "inf"], "threshold must be a finite number, a score of proficiency, got inf"),
        ([*SMOKE, "--protocol.threshold", "None"], "--protocol.threshold: "),
        ([*SMOKE, "--stream.rounds", "-1"], "must be at least 1, got Sinusoid(rounds=-1"),
        (["data", "pascal3d"], "pascal3d must be fetched by hand"),
        (["list", "x"], "Unrecognized options: x (`metaleader list --help` lists all options)"),
        ([*SMOKE, "--preset", "labtop"], "unknown preset 'labtop'"),  # the last one counts, as everywhere
        ([*SMOKE, "--ftml.meta-steps", "9" * 20], "--ftml.meta-steps: must be at most 9223372036854775807, got 999"),
        ([*SMOKE, "--seeds", "9" * 20], "--seeds: must be at most 9223372036854775807, got 999"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], message: str, refused: Refused) -> None:
    refused(*arguments, message=message)


def test_damaged_data_is_named_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / "data" / "mnist").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "mnist" / f"{name}-ubyte.gz").write_bytes(b"damaged")
    out = tmp_path / "out"
    assert call("run", "rainbow-mnist", "--data-dir", str(tmp_path / "data"), "--out", str(out)) == 2
    said = capsys.readouterr().err
    assert "train-images-idx3-ubyte.gz is damaged: its SHA-256 is" in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_an_output_folder_that_exists_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*SMOKE, "--learner", "toe", "--out", str(tmp_path / "out")]
    assert call(*arguments) == 0
    assert call(*arguments) == 2
    assert "exists already: go on with it by --resume" in capsys.readouterr().err
    assert call(*arguments, "--resume") == 0  # nothing left to do; the report is made again


def test_a_diverging_learner_is_told_and_the_others_finish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wild = ["--learner", "ftl", "toe", "--ftl.optimizer.learning-rate", "1e30", "--out", str(tmp_path)]
    assert call(*SMOKE, *wild, "--stream.rounds", "5") == 0
    captured = capsys.readouterr()
    assert "seed-0: diverged" in captured.err
    assert "FTL (diverged)" in captured.out
    assert json.loads((tmp_path / "summary.json").read_text())["learners"]["toe"]["final_score"][0] is not None


@pytest.mark.slow
def test_update_procedures_and_memories_by_name(tmp_path: Path) -> None:
    memory = ["--ftml.retention.policy", "reservoir", "--ftml.retention.budget", "96", "--ftml.retention.unit", "bytes"]
    settings = [*memory, "--ftml-adam.update.optimizer.epsilon", "0.01", "--ftml-imaml.update.strength", "2"]
    names = ["ftml", "ftml-adam", "ftml-imaml", "ftml-reptile"]
    assert call(*SMOKE, "--learner", *names, *settings, "--out", str(tmp_path)) == 0
    configs = {path.parent.parent.name: json.loads(path.read_text()) for path in tmp_path.rglob("config.json")}
    learners = {name: configs[name]["settings"]["learner"] for name in names}
    assert learners["ftml"]["retention"] == {"type": "Retention", "policy": "reservoir", "budget": 96, "unit": "bytes"}
    assert learners["ftml-adam"]["update"]["optimizer"]["epsilon"] == 0.01
    assert learners["ftml-imaml"]["update"]["strength"] == 2
    assert learners["ftml-reptile"]["update"]["type"] == "Reptile"
    assert None not in json.loads((tmp_path / "summary.json").read_text())["learners"]["ftml-imaml"]["final_score"][:1]


def test_folders_are_numbered_where_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert call(*SMOKE, "--learner", "toe") == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["sinusoid-smoke", "sinusoid-smoke-2"]


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.md").write_text("mine")
    for command in ("run", "sweep", "tune", "reproduce"):
        arguments = ["--experiment"] * (command == "reproduce")
        assert call(command, *arguments, "sinusoid", "--preset", "smoke", "--out", str(tmp_path)) == 2
        assert "holds no results but report.md: choose a new folder with --out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]
    assert (tmp_path / "report.md").read_text() == "mine"


@pytest.mark.parametrize("resume", [False, True])
def test_what_a_kill_leaves_before_the_first_run_began_is_in_nobodys_way(resume: bool, tmp_path: Path) -> None:
    (tmp_path / "toe" / "seed-0").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "toe" / "seed-0"):
        (folder / ".owner").touch()
    (tmp_path / "toe" / "seed-0" / ".0123456789abcdef.tmp").write_text('{"experi')
    assert call(*SMOKE, "--learner", "toe", "--out", str(tmp_path), *["--resume"] * resume) == 0
    assert (tmp_path / "report.html").exists()


def test_two_commands_that_begin_together_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with results_in(None, "a", resume=False) as first, results_in(None, "a", resume=False) as second:
        assert (first.name, second.name) == ("a", "a-2")
        with (
            pytest.raises(UserError, match=r"runs/a is in use by process \d+ on "),
            results_in(first, "a", resume=True),
        ):
            pass
        (second / "kept").touch()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a-2"]  # nothing came of the other
    with pytest.raises(UserError, match="there is no runs/b to resume"), results_in(None, "b", resume=True):
        pass


def test_an_experiment_of_one_s_own_in_one_file(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "own_experiment.py"
    assert call("run", str(example), "--preset", "smoke", "--out", str(tmp_path), "--nearest-mean.shrinkage", "2") == 0
    assert set(json.loads((tmp_path / "summary.json").read_text())["learners"]) == {"ftml", "nearest-mean"}


@pytest.mark.parametrize("command", ["list", "data", "--help", "--version"])
def test_what_there_is(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command) == 0
    expected = {"list": "rainbow-mnist", "data": "mnist", "--help": "usage: metaleader", "--version": "metaleader 0."}
    assert expected[command] in capsys.readouterr().out


@pytest.mark.parametrize("command", [["list"], ["data"], ["report"], ["run", "sinusoid"], ["theory"]])
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*command, "--help") == 0
    assert f"usage: metaleader {' '.join(command)}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["run", "--help"]])
def test_nobody_needs_to_read_all_of_the_output(arguments: list[str]) -> None:
    """As in `metaleader list | head -1`."""
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "metaleader", *arguments]
    done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True)
    os.close(writes)
    assert (done.returncode, done.stderr) == (1, "")


def test_nothing_of_the_environment_is_in_the_way(tmp_path: Path) -> None:
    """A notebook's backend that is not installed, a matplotlibrc that needs LaTeX, colours in a log."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    theirs = {"MPLBACKEND": "not-installed", "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "FORCE_COLOR": "1"}
    theirs |= {"HOME": str(tmp_path), "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    theirs |= {"MPLCONFIGDIR": matplotlib.get_cachedir()}  # otherwise its list of fonts is made anew, for seconds
    own = Path(tunable.__file__)
    command = [sys.executable, "-m", "metaleader", "run", str(own), "--preset", "smoke", "--out=~/out"]
    environment = {**os.environ, **theirs, "PYTHONPATH": os.pathsep.join(map(str, (own.parent, *sys.path[1:])))}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "report.html").exists()
    assert not (tmp_path / "~").exists()


def test_compiled_programs_are_kept_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    before = jax.config.values["jax_compilation_cache_dir"]
    devices.keep_compiled()
    assert jax.config.values["jax_compilation_cache_dir"] == before  # tests have a folder of their own


def test_bars_are_for_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with steps() as show:
        show("searching", 1, 2)
    assert capsys.readouterr().err == ""


def test_a_system_that_does_not_tell_its_cores_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MacOS, for one."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert devices.available_cores() == os.cpu_count()
    command = ["run", str(Path(tunable.__file__)), "--preset", "smoke", "--learner", "guess"]
    assert call(*command, "--out", str(tmp_path / "out")) == 0


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "metaleader", *SMOKE, "--learner", "toe", "--stream.rounds", "5000"]
    process = subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.PIPE, text=True)
    while not (out / "toe" / "seed-0" / "records.jsonl").exists():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130
    assert said.count("\n") == 1
    assert "everything is saved" in said
    assert f"--out {out} --resume" in said
    assert (out / "toe" / "seed-0" / "checkpoints").is_dir()
    made = len((out / "toe" / "seed-0" / "records.jsonl").read_text().splitlines())
    elsewhere = tmp_path / "new" / "report"
    assert call("report", str(out), "--out", str(elsewhere)) == 0
    assert json.loads((elsewhere / "summary.json").read_text())["learners"]["toe"]["partial"]
    (tmp_path / "file").write_text("")
    capsys.readouterr()
    assert call("report", str(out), "--out", str(tmp_path / "file")) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert made > 0


ASCII = "".join(character for character in map(chr, range(32, 127)) if character != "/")
BEYOND = [character for character in map(chr, range(128, 0xFFFF)) if character.isprintable()]
OTHERS = [
    *(f"{c} {c}" for c in ASCII if not c.isalnum()),
    *("".join(BEYOND[i : i + 60]) for i in range(0, len(BEYOND), 3000)),
]


@pytest.mark.parametrize("name", [ASCII, "-x", "~ ", *(pytest.param(each, marks=pytest.mark.slow) for each in OTHERS)])
def test_a_run_in_a_folder_of_any_name_is_stopped_and_goes_on_by_the_command_that_it_prints(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopping(folder: RunFolder, record: Record) -> None:
        append(folder, record)
        os.kill(os.getpid(), signal.SIGINT)

    append = RunFolder.append
    monkeypatch.chdir(tmp_path)
    words = ["run", tunable.__file__, "--preset", "smoke", "--learner", "guess", f"--out={name}"]
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", stopping)
        assert call(*words) == 130
    again = capsys.readouterr().err.rstrip("\n").split("Go on with: ")[1]
    assert call(*shlex.split(again)[1:]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]
    here = Path(name) / "guess" / "seed-0"
    assert call(*words[:-1], "--out", "whole") == 0
    assert account(here) == account(Path("whole") / "guess" / "seed-0")
    assert call("report", f"./{name}") == 0


@pytest.mark.parametrize(
    ("command", "said"), [("run", "; add --resume to go on from the last checkpoint"), ("live", "")]
)
def test_ctrl_c_tells_of_resume_where_there_is_one(
    command: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"metaleader.commands.{command}.main", interrupted)
    assert call(command) == 130
    assert capsys.readouterr().err == f"stopped at once{said}\n"
