"""Figures as paper needs them, and results where people keep them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

import metaleader as ml
from command import call
from metaleader.results.looks import LUMINANCE, Look

PROBLEM = ml.Problem(
    ml.MLP(depth=0), ml.squared_error, (ml.mean_squared_error, ml.Score("miss", ml.squared_error, False))
)


def task(i: int) -> ml.Task:
    random = np.random.default_rng(i)
    x = random.normal(size=(12, 1)).astype(np.float32)
    return ml.Task.from_arrays(x[:10], i * x[:10], x[10:], i * x[10:], f"line {i}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "lines"
    learners: dict[str, ml.Learner] = {"scratch": ml.Scratch(steps=2), "toe": ml.TOE(steps=2)}
    protocol = ml.OnlineProtocol(chunk=5, threshold=0.01)
    ml.run(PROBLEM, [task(i) for i in range(4)], learners, protocol=protocol, seeds=2, out=out, progress=False)
    return out


@pytest.fixture
def results(folder: Path) -> ml.Results:
    return ml.load(folder)


def test_every_record_is_a_row_wherever_it_is_kept(results: ml.Results, tmp_path: Path) -> None:
    import polars as pl
    import pyarrow.parquet

    rows = results.rows()
    assert len(rows) == 2 * 2 * 4 * 2
    assert {"experiment", "learner", "seed", "round", "task", "datapoints", "loss", "squared error", "miss"} <= set(
        rows[0]
    )
    assert results.to_arrow().to_pylist() == rows
    assert results.to_polars().to_dicts() == rows
    assert results.to_pandas().to_dict("records") == rows
    path = results.to_parquet(tmp_path / "records.parquet")
    assert pyarrow.parquet.read_table(path).to_pylist() == rows
    assert pl.read_parquet(path).height == len(rows)
    with pytest.raises(ml.UserError, match="cannot write"):
        results.to_parquet(tmp_path / "missing" / "records.parquet")


def test_scores_against_datapoints_are_means_over_the_last_third_with_intervals_over_seeds(results: ml.Results) -> None:
    (panel,) = results.figure("score-against-datapoints").axes
    rows = [row for row in results.rows() if row["learner"] == "toe" and row["round"] > 2]
    means = np.array(
        [
            [np.mean([r["squared error"] for r in rows if (r["seed"], r["datapoints"]) == (seed, n)]) for n in (5, 10)]
            for seed in (0, 1)
        ]
    )
    thick = [line for line in panel.get_lines() if line.get_label() == "TOE (train on everything)"]
    np.testing.assert_allclose(np.asarray(thick[0].get_ydata()), means.mean(0), rtol=1e-6)
    thin = [np.asarray(line.get_ydata()) for line in panel.get_lines() if line.get_linewidth() < 1]
    assert any(np.allclose(values, means[1]) for values in thin)
    half = 12.706 * means.std(0, ddof=1) / np.sqrt(2)  # Student's t with one degree of freedom
    bands = [each.get_paths()[0].vertices for each in panel.collections if isinstance(each, PolyCollection)]
    assert any(np.isclose(np.asarray(band)[:, 1].max(), (means.mean(0) + half).max(), rtol=1e-3) for band in bands)


def test_a_figure_gets_a_size_a_font_and_no_colour(results: ml.Results) -> None:
    plain = results.figure("score-after-few-and-all")
    assert results.figure("score-after-few-and-all", size=(4, 3)).get_size_inches().tolist() == [4, 3]
    figure = results.figure("score-after-few-and-all", font=5, grey=True)
    sizes = [[text.get_fontsize() for text in each.findobj(Text) if text.get_text()] for each in (plain, figure)]
    np.testing.assert_allclose(np.array(sizes[0], float) / 2, np.array(sizes[1], float))
    before, after = ([to_rgb(line.get_color()) for line in each.findobj(Line2D)] for each in (plain, figure))
    np.testing.assert_allclose([[LUMINANCE @ np.array(colour)] * 3 for colour in before], after)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    assert np.ptp(pixels, axis=-1).max() == 0
    assert np.ptp(pixels) > 100


@pytest.mark.parametrize("look", [{"size": (0, 3)}, {"font": -1}])
def test_sizes_that_make_no_sense_are_refused(look: dict[str, float]) -> None:
    with pytest.raises(ml.UserError, match="must be above 0"):
        Look(**look)  # type: ignore[arg-type]


def test_a_look_leaves_what_has_no_colour() -> None:
    figure = Figure()
    (line,) = figure.subplots().plot([1, 2], mfc="none", color="red")
    Look(grey=True).of(figure)
    assert line.get_markerfacecolor() == "none"
    np.testing.assert_allclose(to_rgb(line.get_color()), 0.2126)


def test_the_command_writes_figures_and_tables_for_papers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--format", "pdf", "--size", "4", "3", "--grey", "--table", "latex")
    assert call("report", str(folder), "--out", str(tmp_path), *options) == 0
    said = capsys.readouterr().out
    assert said.startswith("\\begin{tabular}{l")
    assert "TOE & " in said
    figures = {path.suffix for path in (tmp_path / "figures").iterdir()}
    assert figures == {".pdf", ".png"}
    assert call("report", str(folder), "--out", str(tmp_path), "--font-size", "0") == 2
    assert "must be above 0" in capsys.readouterr().err


def test_tables_are_markdown_or_latex(results: ml.Results) -> None:
    assert results.table().startswith("| learner |")
    assert "\\midrule" in results.table("latex")
