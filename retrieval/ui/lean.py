"""What Gradio does for other apps, and the page has no use for, left out: a third of its start, and 10 MB.

Where a version of Gradio works in another way, nothing breaks: it only takes longer again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

_META = "gradio.component_meta"


class _WithoutStubs(SourceFileLoader):
    """Loads the module in which Gradio writes type stubs, and lets it leave those of its own classes as they are."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        write: Callable[..., None] | None = getattr(module, "create_or_modify_pyi", None)
        if write is None:  # a version of Gradio that does not do this
            return

        def write_others(component: type, *rest: Any) -> None:
            if not component.__module__.startswith("gradio."):
                write(component, *rest)

        module.create_or_modify_pyi = write_others  # type: ignore[attr-defined]


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _META:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _WithoutStubs(spec.loader.name, spec.loader.path)
        return spec


def leave_stubs() -> None:
    """From now on, importing Gradio does not write the type stubs of its 81 classes again, which are in its package.

    At each start it parses the source of each class and renders a template for it, to find them as they were.
    """
    if _META not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def leave_matplotlib() -> None:
    """From now on, Gradio does not import matplotlib at the first event, to set a backend for plots of the app.

    The backend is named in the environment instead, for other apps in this process.
    """
    from gradio import utils

    os.environ.setdefault("MPLBACKEND", "agg")
    utils.MatplotlibBackendMananger = nullcontext
