"""Shapes in annotations are checked while the tests run; data is found through METALEADER_DATA.

Most of the tests' time goes into compiling, so programs are compiled with as little effort as possible, and kept: where
nothing changed, the second run takes half of the time of the first.
"""

import gc
import os
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jaxtyping
import platformdirs
from matplotlib.figure import Figure

# Two CPU devices, so that what is spread over devices is tested on any machine; and fast compiling. In the environment,
# so that the processes that tests start have the same.
FLAGS = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
FLAGS += " --xla_cpu_parallel_codegen_split_count=1"
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # later ones end with an error at this flag
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", FLAGS)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(platformdirs.user_cache_path("metaleader") / "compiled-tests"))
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each of those processes compiles the package anew
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
gc.set_threshold(50_000, 20, 20)  # few of the many objects that imports and traces make are garbage
# Where annotations tell shapes. Elsewhere the type checker has seen all that they say.
SHAPED = ("buffer", "experiments.pose", "learners", "models", "problem", "results", "streams", "theory", "update")
jaxtyping.install_import_hook([f"metaleader.{room}" for room in SHAPED], "typecheck.check")

import hypothesis
import jax
import pytest

from metaleader.processes import own_memory, release_memory

ROOM = 2_000_000_000  # bytes; by then, there are about 10,000 maps of the 65,530 that a process may have
pytest_plugins = ["postgresql"]
hypothesis.settings.register_profile("default", deadline=None, max_examples=12)
hypothesis.settings.load_profile("default")


def pytest_collection_finish() -> None:
    """What was imported stays: no collection needs to look at it again."""
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _forgotten() -> Iterator[None]:
    """Other modules have little use for what one compiles, and thousands of programs exceed the memory maps that a
    process may have. To forget takes seconds, and so waits until there is much."""
    yield
    taken = own_memory()
    if taken is None or taken > ROOM:
        jax.clear_caches()
        release_memory()


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`assert_refused` in an empty folder: `refused(*arguments, message=...)`."""
    from command import assert_refused

    monkeypatch.chdir(tmp_path)
    return partial(assert_refused, folder=tmp_path, capsys=capsys)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of data sets, or a skip with the reason."""
    folder = os.environ.get("METALEADER_DATA")
    if not folder or not (Path(folder) / "mnist").is_dir():
        pytest.skip("METALEADER_DATA names no folder that holds mnist/")
    return Path(folder)


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For commands whose pictures are not looked at: figures are written blank, as drawing takes most of their time."""
    monkeypatch.setattr(Figure, "draw", lambda *_: None)


@pytest.fixture(scope="module")
def compiled_once() -> Iterator[None]:
    """For searches: trials clear what was compiled, which tests have use for, and the memory, full of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "clear_caches", lambda: None)
        patch.setattr(gc, "collect", lambda: 0)
        yield
