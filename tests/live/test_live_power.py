"""After a power cut, a learner that lives has all that it acknowledged, and learns the same from it."""

import random
import signal
import time
from pathlib import Path

import pytest
from living import EAGER, as_bytes, groups, leaves, log, plainly
from test_live_kills import started

from metaleader.live import Live, check
from power import Image, image_or_skip

CUTS = 30


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_by_a_cut_of_a_real_file_system(tmp_path: Path) -> None:
    disk, chance, cuts = image_or_skip(tmp_path), random.Random(0), list[tuple[Image, list[str]]]()
    acknowledged = tmp_path / "acknowledged"  # on another disk, whose power stays
    with disk.mounted(tmp_path / "mounted") as mounted, started(mounted / "live", acknowledged, ["0"]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "opened\n"
        while len(cuts) < CUTS:
            time.sleep(chance.uniform(0.05, 0.6))
            process.send_signal(signal.SIGSTOP)  # which syncs nothing; a sync under way goes on
            lines = acknowledged.read_text().splitlines() if acknowledged.exists() else []
            cuts.append((disk.cut(tmp_path / f"cut-{len(cuts)}"), lines))
            process.send_signal(signal.SIGCONT)
            assert process.poll() is None
        process.kill()
        process.wait()
    disk.path.unlink()
    assert len(cuts[-1][1]) > 100
    for number, (image, lines) in enumerate(cuts):
        with image.mounted(tmp_path / "left") as left:
            folder = left / "live"
            rows = log(folder)
            names = [row[3] for row in rows]
            assert set(lines) <= set(names), number
            assert len(set(names)) == len(names)
            assert check(folder).faults == ()
            if number % 10 == 9:
                with Live.open(folder, pace=EAGER) as live:
                    live.wait()
                    assert leaves(live) == as_bytes(plainly(groups(rows))[0])
        image.path.unlink()
