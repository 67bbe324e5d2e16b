"""A folder has one owner, until its process ends, however it does; and workers end with their parent."""

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from metaleader import UserError
from metaleader.processes import OWNER, owned, owner, this_process

HOLD = """
import sys, time
from pathlib import Path
from metaleader.processes import owned
with owned(Path(sys.argv[1])):
    print("owned", flush=True)
    time.sleep(60)
"""


def test_the_second_is_told_who_holds_it_and_a_kill_frees_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"owned\n"
        with (
            pytest.raises(UserError, match=rf"out is in use by process {holder.pid} on .*time.sleep.*wait until"),
            owned(tmp_path / "out"),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
    with owned(tmp_path / "out", patience=5.0):
        assert (tmp_path / "out" / OWNER).exists()
    assert list((tmp_path / "out").iterdir()) == []


def test_what_was_made_for_nothing_is_removed(tmp_path: Path) -> None:
    with owned(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []
    with owned(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "kept").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["kept"]
    with pytest.raises(FileExistsError), owned(tmp_path / "a" / "b", new=True):
        pass


def test_one_process_cannot_own_a_folder_twice(tmp_path: Path) -> None:
    with owned(tmp_path), pytest.raises(UserError, match=f"in use by process {os.getpid()}"), owned(tmp_path):
        pass


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / OWNER).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="Too many levels of symbolic links"), owned(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "kept"


PARENT = """
import os, signal, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from metaleader.processes import end_with_parent

if __name__ == "__main__":
    pool = ProcessPoolExecutor(2, get_context("spawn"), end_with_parent)
    pool.submit(time.sleep, 60)
    print(*{pool.submit(os.getpid).result(), *pool._processes}, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    done = subprocess.run([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL
    workers = list(map(int, done.stdout.split()))
    assert len(workers) == 2
    until = time.monotonic() + 20
    while any(map(_alive, workers)):
        assert time.monotonic() < until
        time.sleep(0.02)


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # nobody may be there to take note of its end


FREEING = """
import numpy as np
from metaleader.processes import release_memory


def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))


small = [np.zeros(50) for _ in range(400_000)]
last = np.zeros(50)
full = resident()
del small
release_memory()
print(full - resident())
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries give memory back, or not, by themselves"
)
def test_what_was_freed_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", FREEING], check=True, capture_output=True, text=True)
    assert int(done.stdout) > 100_000  # kB of the 200,000


def test_who_owns_a_folder_is_nobody_once_that_one_was_killed(tmp_path: Path) -> None:
    assert owner(tmp_path) is None
    with owned(tmp_path):
        assert owner(tmp_path) == this_process()
    assert owner(tmp_path) is None
    (tmp_path / OWNER).write_text("process 1 on another machine (of one that was killed)")
    assert owner(tmp_path) is None


def test_looking_who_owns_a_folder_keeps_nobody_from_owning_it(tmp_path: Path) -> None:
    end = threading.Event()

    def look() -> None:
        while not end.is_set():
            owner(tmp_path)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(200):
            with owned(tmp_path):
                pass
    finally:
        end.set()
        looking.join()


def test_others_are_told_no_password_of_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    for secret in ("postgresql://live:se/cr@et@host/d?learner=a", "postgresql://host/d?password=secret&learner=a"):
        monkeypatch.setattr(sys, "orig_argv", ["metaleader", "serve", secret])
        told = this_process()
        assert not any(part in told for part in ("secret", "se/cr", "cr@et"))
        assert "learner=a" in told
