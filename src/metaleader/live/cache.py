"""A cache of what was adapted to tasks: those used least recently go first."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import jax


class Cache:
    """Values by name, each good for one version, within a number of bytes. Its methods may be called by any thread."""

    def __init__(self, most: int) -> None:
        self.most, self.bytes = most, 0
        self._lock = threading.Lock()
        self._held: OrderedDict[Hashable, tuple[Hashable, Any, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, name: Hashable, version: Hashable) -> Any:
        """The value of that name and version; None: it is not there."""
        with self._lock:
            found = self._held.get(name)
            if found is None or found[0] != version:
                return None
            self._held.move_to_end(name)
            return found[1]

    def put(self, name: Hashable, version: Hashable, value: Any) -> None:
        """Keep a value, in place of other versions of it; not one that is larger than all there is room for."""
        size = sum(getattr(leaf, "nbytes", 0) or sys.getsizeof(leaf) for leaf in jax.tree.leaves(value))
        with self._lock:
            self._drop(name)
            if size <= self.most:
                self._held[name] = version, value, size
                self.bytes += size
            while self.bytes > self.most:
                self._drop(next(iter(self._held)))

    def drop(self, name: Hashable) -> None:
        """Keep it no longer."""
        with self._lock:
            self._drop(name)

    def _drop(self, name: Hashable) -> None:
        if name in self._held:
            self.bytes -= self._held.pop(name)[2]
