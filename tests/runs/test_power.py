"""After a power cut nothing is lost that was said to be saved, and a run goes on to the same records."""

import random
import warnings
from pathlib import Path
from typing import Any

import pytest
from test_run import plan, records

from metaleader.files import write_whole
from metaleader.runs.folder import RunFolder
from metaleader.runs.run import run
from power import PowerCuts, emptied


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 9))])
def test_a_run_goes_on_after_a_cut_at_any_moment(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, chance = tmp_path / "out", random.Random(seed)
    out.mkdir()
    cuts, saved = list[tuple[Path, int]](), [0]

    def cut(*_: Any) -> None:
        left = tmp_path / f"cut-{len(cuts)}"
        disk.cut(left, chance)
        cuts.append((left, saved[0]))

    def save(folder: RunFolder, state: Any) -> None:
        of_state(folder, state)
        saved[0] = state.records if folder.path.parent.name == "ftml" else saved[0]

    of_state = RunFolder.save
    with monkeypatch.context() as patch, PowerCuts(out, patch) as disk:
        patch.setattr(RunFolder, "save", save)
        run(plan(out, checkpoint_seconds=0.0), progress=cut)
    whole = records(out)
    assert len(cuts) == 12
    for left, promised in cuts:
        folder = RunFolder(left / "ftml" / "seed-0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a checkpoint that a cut has torn is told
            restored = folder._newest()
        assert (restored.records if restored else 0) >= promised
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(plan(left), resume=True)
        assert records(left) == whole


def test_a_file_that_was_written_whole_outlives_a_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, chance = tmp_path / "out", random.Random(0)
    out.mkdir()
    with PowerCuts(out, monkeypatch) as disk:
        for i in range(20):
            write_whole(out / "file", lambda file, i=i: file.write(b"%d" % i * 9))  # type: ignore[misc]
            disk.cut(emptied(tmp_path / "left"), chance)
            assert (tmp_path / "left" / "file").read_bytes() == b"%d" % i * 9
        (out / "file").write_bytes(b"written, not synced")  # as is to be told from the other
        found = set()
        for _ in range(20):
            disk.cut(emptied(tmp_path / "left"), chance)
            found.add((tmp_path / "left" / "file").read_bytes())
        assert len(found) > 1
