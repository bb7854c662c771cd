"""What the process of a command loads and keeps: less memory, and a quicker start.

Nothing here changes what a command does. Where a library or a system works in another way, it only costs more.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

# Absent outside glibc.
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def without_pandas() -> None:
    """Leave pandas out of this process until somebody needs it, which saves 30 MB and a fifth of a second.

    Arrow imports it when it gets its first list, only to recognise arrays of pandas, and Gradio when it is imported
    itself. From now on Arrow takes arrays of pandas for plain lists: this is for commands that have none. Others get a
    module that loads itself when it is used.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    finder = _Pandas()
    sys.meta_path.insert(0, finder)
    pa.array([0])
    finder.hidden = False


def give_memory_back() -> None:
    """Give memory that is free again back to the system: what Arrow keeps, and what glibc does."""
    if arrow := sys.modules.get("pyarrow"):
        arrow.default_memory_pool().release_unused()
    if _trim is not None:
        _trim(ctypes.c_size_t(0))


class _Pandas(MetaPathFinder):
    """Finds pandas: first not at all, then as a module that is loaded when it is used."""

    hidden = True

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "pandas":
            return None
        if self.hidden:
            raise ModuleNotFoundError("pandas is not needed", name=fullname)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec
