"""What is installed: this version, as a package or not, and the packages that only some tasks need.

The package alone serves; each other task has an extra, listed in pyproject.toml. Their packages are imported where they
are used, inside `needs`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from retrieval.errors import MissingExtraError

VERSION = "0.5.0"  # stated here and nowhere else: packaging, `--version` and metrics.json read it

_ROOT = Path(__file__).parents[1]
EXTRAS = {
    "build": ("torch", "torchvision", "timm", "transformers", "sentencepiece"),
    "datasets": ("datasets",),
    "train": ("pytorch_metric_learning", "accelerate"),
    "openvino": ("openvino",),
    "int8": ("nncf",),
    "map": ("openTSNE", "umap"),
    "bench": ("playwright",),
}
"""Extra -> the modules that it adds. `build` includes `datasets`, `train` includes `build`."""
_EXTRA_OF = {module: extra for extra, modules in EXTRAS.items() for module in modules}
_PACKAGES = {"umap": "umap-learn"}  # modules whose package has another name


@contextmanager
def needs(task: str, *, extra: str | None = None) -> Iterator[None]:
    """Imports inside are for `task`, such as "training": MissingExtraError tells what to install if they fail.

    `extra` is the one to name instead of the missing module's own. A module that belongs to no extra is none of these
    errors: its ModuleNotFoundError passes.

    >>> with needs("reading a dataset"):
    ...     import datasets
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (found := missing(error, task, extra=extra)) is None:
            raise
        raise found from error


def missing(error: ModuleNotFoundError, task: str, *, extra: str | None = None) -> MissingExtraError | None:
    """The error in words for an import that failed; None if the module belongs to no extra."""
    module = (error.name or "").partition(".")[0]
    if module not in _EXTRA_OF:
        return None
    return MissingExtraError(f"{task} needs {module}, which is not installed: {how_to_install(module, extra=extra)}")


def how_to_install(module: str, *, extra: str | None = None) -> str:
    """The command that installs the extra of a module, or another one: `pip install 'lookalike[map]'` for `umap`."""
    extra = extra or _EXTRA_OF[module]
    if is_installed():
        return f"pip install 'lookalike[{extra}]'"
    if (_ROOT / "pyproject.toml").is_file():  # a checkout
        here = "." if Path.cwd() == _ROOT else str(_ROOT)
        return f"pip install {shlex.quote(f'{here}[{extra}]')}"
    return f"pip install {_PACKAGES.get(module, module)}"  # a Space


@cache
def is_installed() -> bool:
    """Whether the distribution is installed; a wheel built in a checkout leaves metadata there, but no RECORD."""
    from importlib.metadata import distributions

    return any(found.read_text("RECORD") for found in distributions(name="lookalike"))
