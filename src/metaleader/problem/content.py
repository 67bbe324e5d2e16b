"""Equality by content: of two functions that do the same, whichever lambda made them.

What is compiled for a problem serves every problem that is equal to it. Python compares functions by identity, so that
two models of one definition would be compiled twice. A run that goes on in another process makes sure, by checksums of
content, that it goes on with the same.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import sys
import sysconfig
import types
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
import numpy as np

T = TypeVar("T")


class Static(Generic[T]):
    """A value as a static argument of a compiled function: equal to others of the same content (see `content`)."""

    __slots__ = ("_content", "value")

    def __init__(self, value: T) -> None:
        self.value = value
        self._content = content(value)

    def __hash__(self) -> int:
        return hash(self._content)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self._content == other._content


def content(value: Any) -> Hashable:
    """What determines how a value behaves, comparable by `==`.

    Dataclasses by their fields; functions by their code, defaults, and what they close over and refer to; arrays by
    their bytes; objects whose class has a property `content`, by that. Any other object stands for itself, and so does
    a function that can be imported: its name may be given to another one, as when a notebook's cell is run again.

    >>> content(lambda x: x + 1) == content(lambda x: x + 1), content(lambda x: x + 1) == content(lambda x: x + 2)
    (True, False)
    """
    return _content(value, ())


def _content(value: Any, within: tuple[int, ...]) -> Hashable:
    if isinstance(value, (float, complex)):
        return type(value), repr(value)  # NaN differs from itself; 0.0 and -0.0 are equal numbers
    if value is None or isinstance(value, (int, str, bytes)):
        return type(value), value
    if id(value) in within:  # a function that calls itself
        return "within", within.index(id(value))
    inside = (*within, id(value))
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_content(item, inside) for item in value)
    if isinstance(value, Mapping):
        return type(value), tuple((_content(key, inside), _content(item, inside)) for key, item in value.items())
    if isinstance(value, (set, frozenset)):
        return type(value), frozenset(_content(item, inside) for item in value)
    # Of the class: an attribute of that name, such as a dataclass's field, is not about the whole value.
    if isinstance(getattr(type(value), "content", None), (property, functools.cached_property)):
        return type(value), value.content
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (field.name for field in dataclasses.fields(value))
        return type(value), tuple((name, _content(getattr(value, name), inside)) for name in fields)
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return _array(value)
    if isinstance(value, functools.partial):
        return "partial", _content((value.func, value.args, value.keywords), inside)
    if isinstance(value, types.MethodType):
        return "method", _content(value.__func__, inside), _content(value.__self__, inside)
    if isinstance(value, types.FunctionType) and not importable(value):
        return _function(value, inside)
    if isinstance(value, types.CodeType):
        return _code(value, inside)
    return Itself(value)


def checksum(value: Any) -> str:
    """A checksum of `content`, the same in every process of one version of Python.

    Classes and functions of installed packages count by their names, those of the user's own by their code as well.

    >>> checksum(lambda x: x + 1) == checksum(lambda x: x + 1), checksum(lambda x: x + 1) == checksum(lambda x: x + 2)
    (True, False)
    """
    return hashlib.blake2b(repr(_portable(content(value), set())).encode(), digest_size=8).hexdigest()


def _portable(part: Any, met: set[int]) -> Any:
    """A part of a content without what differs between processes."""
    if isinstance(part, tuple):
        return tuple(_portable(item, met) for item in part)
    if isinstance(part, frozenset):
        return sorted(repr(_portable(item, met)) for item in part)
    if isinstance(part, type):
        return _portable_object(part, met)
    return _portable_object(part.value, met) if isinstance(part, Itself) else part


def _portable_object(value: Any, met: set[int]) -> Any:
    named = value if hasattr(value, "__qualname__") else type(value)
    own = is_own(named)
    # A module of the user's own may be called otherwise in another process.
    name = named.__qualname__ if own else f"{named.__module__}.{named.__qualname__}"
    if id(value) in met or (named is value and not own):
        return name
    met.add(id(value))
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, types.FunctionType):
        return name, _portable(_function(value, ()), met)
    if isinstance(value, type):
        bases = tuple(_portable_object(base, met) for base in value.__bases__)
        members = {key: member for key, member in vars(value).items() if not key.startswith(("__", "_abc_"))}
        return name, bases, tuple((key, _portable(content(_plain(member)), met)) for key, member in members.items())
    inside = getattr(value, "__wrapped__", None) or getattr(value, "__dict__", {})
    return name, _portable(content(inside), met)


def _plain(member: Any) -> Any:
    """What a descriptor in a class is made of."""
    if isinstance(member, (staticmethod, classmethod)):
        return member.__func__
    if isinstance(member, property):
        return member.fget, member.fset, member.fdel
    return member.func if isinstance(member, functools.cached_property) else member


def is_own(value: Any) -> bool:
    """Whether a class or function is the user's own, and not of Python, of this package or of another installed one."""
    module = sys.modules.get(value.__module__ or "")
    if module is None or value.__module__ == "__main__":
        return True
    file = getattr(module, "__file__", None)
    return file is not None and not any(Path(file).is_relative_to(folder) for folder in _INSTALLED)


_INSTALLED = {*map(Path, sysconfig.get_paths().values()), Path(__file__).parents[1]}


class Itself:
    """A value that equals nothing but itself; keeps it alive, so that its place in memory is not another's."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Itself) and self.value is other.value


def _array(value: Any) -> Hashable:
    if isinstance(value, jax.core.Tracer):
        return Itself(value)
    kind = str(value.dtype), getattr(value, "weak_type", False)  # as a weak type gives way to others
    if isinstance(value, jax.Array) and jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    return ("array", kind, array.shape, array.tobytes()) if array.dtype != object else Itself(value)


def importable(value: Any) -> bool:
    """Whether a class or function is found by its name in its module."""
    found: Any = sys.modules.get(value.__module__)
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is value


def _function(function: types.FunctionType, within: tuple[int, ...]) -> Hashable:
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(_content(cell.cell_contents, within))
        except ValueError:  # not filled yet
            cells.append(None)
    # Names of attributes are among the code's names as well: at worst, functions that are equal are told apart.
    names = [name for name in _names(function.__code__) if name in function.__globals__]
    referred = tuple((name, _content(function.__globals__[name], within)) for name in names)
    defaults = _content((function.__defaults__, function.__kwdefaults__), within)
    return "function", _code(function.__code__, within), defaults, tuple(cells), referred


def _code(code: types.CodeType, within: tuple[int, ...]) -> Hashable:
    # Of all that a code object holds, what does not say where in a file it stands.
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    constants = tuple(_content(constant, within) for constant in code.co_consts)
    return "code", shape, code.co_code, code.co_exceptiontable, names, constants


def _names(code: types.CodeType) -> list[str]:
    nested = [name for constant in code.co_consts if isinstance(constant, types.CodeType) for name in _names(constant)]
    return list(dict.fromkeys([*code.co_names, *nested]))
