"""Shapes in annotations are checked while the tests run; data is found through METALEADER_DATA."""

import gc
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import jaxtyping

# Two CPU devices, so that what is spread over devices is tested on any machine; and fast compiling.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false",
)
jaxtyping.install_import_hook("metaleader", "typecheck.check")

import hypothesis
import jax
import platformdirs
import pytest

hypothesis.settings.register_profile("default", deadline=None, max_examples=20)
hypothesis.settings.load_profile("default")
jax.config.update("jax_compilation_cache_dir", str(platformdirs.user_cache_path("metaleader") / "compiled-tests"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


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


@pytest.fixture(scope="module")
def compiled_once() -> Iterator[None]:
    """For searches: trials clear what was compiled, which tests have use for, and the memory, full of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "clear_caches", lambda: None)
        patch.setattr(gc, "collect", lambda: 0)
        yield
