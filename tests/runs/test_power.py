"""After a power cut nothing is lost that was said to be saved, and a run goes on to the same records."""

import random
import signal
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from test_kills import arguments, found, until
from test_run import plan

from accounts import account
from metaleader.commands import main as cli
from metaleader.commands import run as run_command
from metaleader.files import write_whole
from metaleader.runs.folder import RunFolder
from metaleader.runs.run import run
from power import Image, PowerCuts, emptied, image_or_skip

CUTS = 50  # of a real file system
COMMAND = "run sinusoid --preset smoke --stream.rounds 24 --learner ftml toe --checkpoint-seconds 0.1 --out"


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
    whole = account(out)
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
        assert account(left) == whole


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


@pytest.fixture
def ext4(tmp_path: Path) -> Image:
    """An empty file system that can be mounted, or a skip with the reason."""
    return image_or_skip(tmp_path)


def promised(out: Path) -> dict[str, int]:
    """The number of the newest checkpoint of every run that is saved for sure: `save` has returned."""
    numbers = {}
    for folder in out.glob("*/*/checkpoints"):
        there = sorted(int(path.stem) for path in folder.glob("*.state"))
        # Of three the last may still be on its way to the disk: once it is there, `save` clears the first away.
        certain = len(there) > 0 and there[-1] > 2 and there[0] > there[-1] - 2
        numbers[str(folder.parent.relative_to(out))] = there[-1] - (not certain) if there else 0
    return numbers


@pytest.mark.slow
def test_a_run_goes_on_after_a_cut_of_a_real_file_system(
    ext4: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, whole = random.Random(0), tmp_path / "whole"
    began = time.monotonic()
    subprocess.run(arguments(COMMAND, whole), check=True, capture_output=True)
    gap = (time.monotonic() - began) / 6  # about ten cuts a run
    cuts = list[tuple[Image, dict[str, int]]]()
    with ext4.mounted(tmp_path / "live") as live:
        out = live / "out"
        while len(cuts) < CUTS:
            with subprocess.Popen(
                arguments(COMMAND, emptied(out)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            ) as process:
                until(out.exists, process)
                while process.poll() is None and len(cuts) < CUTS:
                    time.sleep(chance.uniform(0, gap))
                    # Every other cut comes while a file is being written, which takes a small part of the time only.
                    if len(cuts) % 2:
                        until(lambda: bool(found(out, ".*.tmp")), process)
                    if process.poll() is not None:
                        break
                    sure = promised(out)
                    process.send_signal(signal.SIGSTOP)  # which syncs nothing; a sync under way goes on
                    try:
                        cuts.append((ext4.cut(tmp_path / f"cut-{len(cuts)}"), sure))
                    finally:
                        process.send_signal(signal.SIGCONT)
                if len(cuts) == CUTS:
                    process.kill()
                else:
                    assert process.returncode == 0, process.stderr and process.stderr.read()
                    assert account(out) == account(whole)
    ext4.path.unlink()
    monkeypatch.setattr(run_command, "finish", lambda *_: 0)  # the report takes longer than the run
    assert sum(max(sure.values(), default=0) > 0 for _, sure in cuts) > CUTS / 3
    for image, sure in cuts:
        with image.mounted(tmp_path / "left") as left:
            for run_folder, number in sure.items():
                if number:
                    folder = RunFolder(left / "out" / run_folder)
                    newest = max(int(path.stem) for path in (folder.path / "checkpoints").glob("*.state"))
                    assert newest >= number
                    assert folder._newest() is not None  # and nothing is damaged, of which a warning would tell
            with pytest.raises(SystemExit) as end:
                cli.main(arguments(COMMAND, left / "out")[3:])
            assert end.value.code == 0
            assert account(left / "out") == account(whole)
        image.path.unlink()
