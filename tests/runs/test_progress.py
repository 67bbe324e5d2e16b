"""The display of a run."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from metaleader import TOE, OnlineProtocol, Record, RunState
from metaleader.online.description import RunDescription
from metaleader.runs import progress
from metaleader.runs.run import Plan
from problems import CURVES, lines


@pytest.mark.parametrize(("score", "said"), [(1.23456e-5, "1.23e-05"), (0.5, "0.500"), (None, "not finite")])
def test_a_score_has_three_significant_digits(
    score: float | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, protocol = io.StringIO(), OnlineProtocol()
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=shown, force_terminal=True, width=200))
    monkeypatch.setattr(progress, "_watched", lambda: True)
    about = RunDescription.of("small", "own", CURVES, protocol)
    plan = Plan(CURVES, {0: lines(1)}, {"toe": TOE()}, protocol, tmp_path, about)
    with progress.live(plan) as show:
        show("toe", 0, 1, RunState(None), Record(1, "task", 10, score, score, score is None, 1, 0.0, 0.0, 1))
    assert f"10 datapoints  squared error {said}" in shown.getvalue()
