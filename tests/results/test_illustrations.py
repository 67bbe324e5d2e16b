"""Figure 1: coloured MNIST, and the pictures of what was learned."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from metaleader import (
    TOE,
    ColouredDigits,
    ColouredMnist,
    GradientDescent,
    OnlineProtocol,
    Score,
    Sinusoid,
    Task,
    UserError,
    begin,
    play,
    squared_error,
)
from metaleader.commands import main as cli
from metaleader.experiments import EXPERIMENTS
from metaleader.learners import FTL
from metaleader.results import illustrations
from metaleader.streams import sources as data
from metaleader.streams.coloured import recoloured
from metaleader.streams.rainbow import COLOURS
from problems import CURVES, points


@pytest.fixture
def numbered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An MNIST of small images, whose pixels say: number, and 1 if for testing; image i shows the digit i mod 10."""
    arrays = []
    for kind, n in enumerate((6000, 2000)):
        images = np.zeros((n, 4, 4), np.uint8)
        images[:, 0, 0], images[:, 0, 1], images[:, 0, 2] = np.arange(n) // 256, np.arange(n) % 256, kind
        arrays += [images, (np.arange(n) % 10).astype(np.uint8)]
    paths = {str(i): tmp_path / str(i) for i in range(4)}
    for path in paths.values():
        path.write_bytes(b"")
    monkeypatch.setattr(data, "locate", lambda *_: paths)
    monkeypatch.setattr(data, "read_idx", lambda path: arrays[int(path.name)])


def grey(images: np.ndarray, colour: str) -> np.ndarray:
    return images[..., COLOURS[colour].index(0)]


def test_a_background_is_fixed_in_a_task_and_comes_back_with_other_labels(numbered: None) -> None:
    tasks = list(ColouredMnist(rounds=14, examples_per_task=20, test_examples=10).stream(0))
    colours = [task.name.split("/")[0] for task in tasks]
    assert set(colours[:7]) == set(COLOURS)
    assert colours[7:] == colours[:7]
    assert any(a.name != b.name for a, b in zip(tasks[:7], tasks[7:], strict=True))
    for task, colour in zip(tasks, colours, strict=True):
        for batch in (task.train, task.held_out):
            assert (batch.inputs[:, 2:] == COLOURS[colour]).all()


def test_labels_are_the_places_of_the_digits_and_images_for_testing_are_held_out(numbered: None) -> None:
    for task in ColouredMnist(rounds=4, examples_per_task=50, test_examples=20).stream(2):
        colour, digits = task.name.split("/")
        assert len(set(digits)) == 5
        for batch, kind in ((task.train, 0), (task.held_out, 1)):
            pixels = grey(np.asarray(batch.inputs), colour).astype(int)
            number = pixels[:, 0, 0] * 256 + pixels[:, 0, 1]
            assert (pixels[:, 0, 2] == kind).all()
            assert len(set(number)) == len(batch)
            assert [int(digits[label]) for label in batch.targets] == (number % 10).tolist()
            assert len(set(np.bincount(batch.targets))) == 1


def test_another_background_leaves_the_strokes() -> None:
    strokes = np.random.default_rng(0).integers(0, 256, (2, 5, 5)).astype(np.uint8)
    red = np.rint(np.array(COLOURS["red"]) * (1 - strokes[..., None] / 255) + strokes[..., None]).astype(np.uint8)
    green = recoloured(red, "red", "green")
    np.testing.assert_array_equal(grey(green, "green"), strokes)
    np.testing.assert_array_equal(recoloured(green, "green", "red"), red)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rounds": 0}, "rounds must be from 1"),
        ({"examples_per_task": 12}, "examples_per_task must be a multiple of 5"),
        ({"test_examples": 4005}, "test_examples must be from 1 to 4000"),
    ],
)
def test_impossible_streams_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ColouredMnist(**setting)


def test_adapting_to_no_data_changes_nothing() -> None:
    learner = FTL(update=GradientDescent(step_size=0.05))
    state = begin(CURVES, learner, next(iter(Sinusoid(rounds=1).stream(0)))).learner
    params, cost = learner.adapt(CURVES, state, "unseen", points(8)[:0])
    assert cost == 0
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_curves_recorded_are_those_of_the_parameters() -> None:
    learner, stream = FTL(update=GradientDescent(step_size=0.01)), Sinusoid(rounds=2, examples_per_task=10)
    state = begin(CURVES, learner, stream.stream(0)[0]).learner
    arrays = illustrations.record("sinusoids", CURVES, stream, learner, state, 0, None)
    unseen = Sinusoid(rounds=3, examples_per_task=10).stream(illustrations.UNSEEN)
    ones = np.ones(201, np.float32)
    before = CURVES.net.apply(state.params, arrays["x"][:, None], ones)
    np.testing.assert_allclose(arrays["before"], before[:, 0], atol=1e-5)
    adapted, _ = learner.adapt(CURVES, state, "unseen", unseen[2].train)
    after = CURVES.net.apply(adapted, arrays["x"][:, None], ones)
    np.testing.assert_allclose(arrays["after"][2], after[:, 0], atol=1e-5)


def test_the_report_shows_what_was_learned(tmp_path: Path) -> None:
    arguments = ["run", "sinusoid", "--preset", "smoke", "--learner", "ftml", "ftl", "toe", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 0
    assert (tmp_path / "ftl" / "seed-0" / "illustration.npz").exists()
    assert not (tmp_path / "toe" / "seed-0" / "illustration.npz").exists()
    assert (tmp_path / "figures" / "what-was-learned.png").exists()
    assert 'id="what-was-learned"' in (tmp_path / "report.html").read_text()


def test_the_bars_are_what_was_recorded() -> None:
    random = np.random.default_rng(0)
    of: dict[str, Any] = {
        name: [
            {
                "accuracy": random.random((14, 2, 2)),
                "changed": random.random((14, 2)),
                "images": random.integers(0, 256, (3, 5, 8, 8, 3)).astype(np.uint8),
                "names": np.array(["red/01234", "blue/12345", "red/43210"]),
            }
            for _ in range(seeds)
        ]
        for name, seeds in (("ftml", 2), ("ftl", 1), ("scratch", 1))
    }
    drawn = illustrations.draw("colours", of)
    assert drawn is not None
    left, middle, right = drawn[0].axes

    def heights(panel: Any) -> list[float]:
        return [bar.get_height() for bar in panel.patches]

    def mean(name: str, key: str, *at: Any) -> Any:
        return np.mean([arrays[key][:, *at] for arrays in of[name]])

    expected = [mean(name, "accuracy", 1, j) for j in (0, 1) for name in ("ftl", "ftml")]
    np.testing.assert_allclose(heights(middle), expected)
    changed = [mean(name, "changed", j) for j in (0, 1) for name in ("ftl", "ftml")]
    np.testing.assert_allclose(heights(right), changed)
    np.testing.assert_array_equal(np.asarray(left.images[0].get_array())[14:22, 8:16], of["ftl"][0]["images"][1, 1])
    assert illustrations.draw("colours", {"scratch": of["scratch"]}) is None


@pytest.mark.slow
def test_the_smoke_preset_of_coloured_mnist_runs(data_dir: Path, tmp_path: Path) -> None:
    arguments = ["run", "coloured-mnist", "--preset", "smoke", "--learner", "ftml", "--data-dir", str(data_dir)]
    with pytest.raises(SystemExit) as end:
        cli.main([*arguments, "--out", str(tmp_path)])
    assert end.value.code == 0
    (config,) = (json.loads(path.read_text()) for path in tmp_path.rglob("config.json"))
    assert config["illustration"] == "colours"
    assert (tmp_path / "figures" / "what-was-learned.png").exists()


def test_other_scores_are_recorded_by_name() -> None:
    doubled = Score("twice", lambda outputs, targets: 2 * squared_error(outputs, targets), higher_is_better=False)
    problem = replace(CURVES, scores=(*CURVES.scored, doubled))
    task = Task(points(8), points(5, 1))
    (record,) = play(problem, [task], TOE(steps=1, batch_size=8), OnlineProtocol(chunk=8))
    assert record.score is not None
    np.testing.assert_allclose(record.other_scores["twice"] or 0, 2 * record.score, rtol=1e-5)


@pytest.mark.parametrize(("rounds", "shown"), [(1, 1), (2, 2), (7, 2), (8, 3)])
def test_a_short_stream_shows_the_tasks_that_it_has(rounds: int, shown: int) -> None:
    learner, stream = FTL(), ColouredDigits(rounds=rounds)
    problem = EXPERIMENTS["coloured-digits"].problem(EXPERIMENTS["coloured-digits"].preset("smoke"))
    state = begin(problem, learner, stream.stream(0)[0]).learner
    arrays = illustrations.record("colours", problem, stream, learner, state, 0, None)
    assert len(arrays["names"]) == shown
    drawn = illustrations.draw("colours", {"ftl": [arrays]})
    assert drawn is not None
    assert ("have the same colour" in drawn[1]) is (shown == 3)
    assert (arrays["names"][0].split("/")[0] == arrays["names"][-1].split("/")[0]) is (shown != 2)
