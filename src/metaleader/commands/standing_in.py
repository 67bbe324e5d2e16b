"""Experiments are described without JAX, whose import takes longer than all the rest of `list` or of `--help`."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

ABSENT = ("jax", "optax")


@contextmanager
def without_jax() -> Iterator[None]:
    """Let modules be imported that name JAX and optax in annotations and to decorate functions, and ask no more.

    Every name in them is an empty class meanwhile; to call one for anything else is an error. In the end, all that was
    imported with them is forgotten. Does nothing where JAX is imported already.
    """
    if any(name in sys.modules for name in ABSENT):
        yield
        return
    finder, before = _Finder(), set(sys.modules)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in sorted(sys.modules.keys() - before, reverse=True):  # what is in a package before the package
            if name.partition(".")[0] in (*ABSENT, "jaxtyping", "metaleader"):
                package, _, last = name.rpartition(".")
                if package in sys.modules:
                    vars(sys.modules[package]).pop(last, None)
                del sys.modules[name]


def _named(owner: str, name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)  # Python and its libraries ask classes and modules for what not all have
    return _Named(name, (_StandIn,), {"__module__": owner})


class _Named(type):
    """Has every name."""

    def __getattr__(cls, name: str) -> Any:
        return _named(f"{cls.__module__}.{cls.__name__}", name)


class _StandIn(metaclass=_Named):
    """What a class is in an annotation, and a decorator to what it decorates."""

    def __new__(cls, function: Any = None, *_: Any, **__: Any) -> Any:
        if not callable(function):
            raise TypeError(f"{cls.__module__}.{cls.__name__} is called while JAX is absent: call it later")
        return function


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return _named(self.__name__, name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        found = name.partition(".")[0] in ABSENT
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if found else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to execute."""
