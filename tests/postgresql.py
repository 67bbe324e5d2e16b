"""A PostgreSQL server of its own for the tests that need one, where there is PostgreSQL."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

USERS = ("postgres", "nobody")  # of those, one runs the server where the tests are run by root, which it refuses
_numbers = count()


def of_postgresql() -> Path | None:
    """The folder of the newest PostgreSQL's programs."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    on_path = shutil.which("initdb")
    found = [*([Path(on_path).resolve().parent] if on_path else []), *debian]
    return next((path for path in reversed(found) if (path / "initdb").exists()), None)


def as_user() -> tuple[str | None, list[str]]:
    """Who runs the server, and the beginning of a command by which it does."""
    if os.getuid() != 0:
        return None, []
    import pwd

    known = {entry.pw_name for entry in pwd.getpwall()}
    user = next((user for user in USERS if user in known), None)
    if user is None:
        return None, []
    return user, ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a database of a new server, whose socket is a file."""
    programs = of_postgresql()
    if programs is None:
        pytest.skip("there is no PostgreSQL: install Debian's package postgresql")
    user, by = as_user()
    if os.getuid() == 0 and (user is None or shutil.which("setpriv") is None):
        pytest.skip("PostgreSQL does not run as root, and there is no other user to run it")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path must be short
    try:
        if user is not None:
            shutil.chown(folder, user)
        make = [
            str(programs / "initdb"),
            "-D",
            str(folder / "data"),
            "-U",
            "live",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ]
        subprocess.run([*by, *make], check=True, capture_output=True, cwd=folder)
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c max_connections=200"
        control = [*by, str(programs / "pg_ctl"), "-D", str(folder / "data"), "-w", "-l", str(folder / "log")]
        subprocess.run([*control, "-o", options, "start"], check=True, stdout=subprocess.DEVNULL, cwd=folder)
        try:
            yield f"postgresql+psycopg://live@/postgres?host={folder}"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def url(server: str) -> str:
    """Where there is no learner yet, in that database."""
    return f"{server}&learner=l{next(_numbers)}"


@pytest.fixture(params=["folder", "database"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """A folder, or a database, in which there is no learner yet."""
    return tmp_path / "live" if request.param == "folder" else str(request.getfixturevalue("url"))
