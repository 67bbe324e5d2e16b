"""Reports of runs with any names and in any environment: nothing in a name is obeyed."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import matplotlib
import pytest
from rich.console import Console

from command import call
from made_up import folder, made
from metaleader import UserError
from metaleader.online.description import ScoreDescription
from metaleader.results import figures, metrics, report

ODD = r"[bold]a[/bold] $\frac{$ <b>&|`* [x](http://y) " + "\x1b[31m" + "z" * 300


def odd(path: Path) -> Path:
    """A run in which everything has such a name."""
    run = made([[0.1, 0.2, 0.3]] * 3, learner=f"own {ODD}".replace("/", ""), experiment=ODD)
    about = replace(run.about, scores=(ScoreDescription(ODD, True),), setting=(f"own={ODD}",))
    return folder(path, replace(run, about=about, outcome=f"failed: {ODD}"))


def test_names_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In figures, too, of which a formula that is none would be the end."""
    odd(tmp_path / "a")
    folder(tmp_path / "b", made([[0.1, 0.2, 0.3]] * 3))
    assert call("report", str(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "[bold]a[/bold]" in shown.replace("\n", "")
    html = (tmp_path / "report.html").read_text()
    assert "<b>" not in html
    assert "[bold]a[/bold]" in html
    markdown = (tmp_path / "report.md").read_text().partition("## How this was made")[0]
    assert "\x1b" not in markdown
    assert "](http" not in markdown
    assert " <b>" not in markdown
    rows = [line.replace(r"\|", "") for line in markdown.splitlines() if line.startswith("| ")]
    assert len({row.count("|") for row in rows[:3]}) == 1


def test_a_table_in_the_terminal_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=80).print(report.rich_table(["[red]a"], [["[/red]"]], title="[b]", note="\x1b[31m"))
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("[red]a", "[/red]", "[b]"))
    assert "\x1b" not in shown


def test_figures_of_long_and_equal_names_are_files_of_their_own() -> None:
    sections = ["a", "b/c", "b c", "d" * 300]
    prefixes = [report.prefix_of(section, sections) for section in sections]
    assert len(set(prefixes)) == len(sections)
    assert max(map(len, prefixes)) <= 101


def test_the_user_s_settings_of_matplotlib_do_not_matter() -> None:
    run = {"ftml": [made([[0.1, 0.2, 0.3]] * 3)]}
    with matplotlib.rc_context({"text.usetex": True, "font.size": 40, "savefig.bbox": "tight"}):
        with figures.drawing():
            drawn = figures.learning_curves(run)
            assert not matplotlib.rcParams["text.usetex"]
        assert drawn.axes[0].title.get_fontsize() == figures.RC["axes.titlesize"]
        assert not drawn.axes[0].title.get_usetex()
        assert matplotlib.rcParams["text.usetex"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder(out / "a", made([[0.1, 0.2, 0.3]] * 3))
    (out / "figures").symlink_to(elsewhere)
    with pytest.raises(UserError, match="figures is a link, and figures would be written where it leads: remove it"):
        report.write_report([out], out)
    assert list(elsewhere.iterdir()) == []
    (out / "figures").unlink()
    (out / "figures").mkdir()
    (out / "figures" / "theory").symlink_to(elsewhere)
    with pytest.raises(UserError, match="theory is a link"):
        report.figures_folder(out, "theory")


def test_a_folder_counts_once(tmp_path: Path) -> None:
    folder(tmp_path / "a" / "b", made([[0.1, 0.2, 0.3]] * 3))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    named = [tmp_path / "a", tmp_path / "a", tmp_path / "a" / "b", tmp_path / "link", tmp_path]
    assert len(metrics.load(named)) == 1


@pytest.mark.parametrize("outcome", ["finished", "failed: stopped", None])
def test_rounds_that_nobody_played_take_no_memory(outcome: str | None, tmp_path: Path) -> None:
    path = folder(tmp_path / "a", made([[0.1, 0.2, 0.3]] * 3, outcome))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "rounds": 10_000_000}))
    tracemalloc.start()
    numbers = metrics.summary(metrics.load([tmp_path]))
    assert tracemalloc.get_traced_memory()[1] < 30_000_000
    tracemalloc.stop()
    assert numbers["learners"].keys() == {"ftml"}


def test_a_name_with_spaces_is_no_setting_of_a_sweep() -> None:
    assert figures.style("linear, per task").name == "linear, per task"
    assert figures.style("ftml meta-steps=2").name == f"{figures.style('ftml').name} meta-steps=2"
