"""What is installed: this version, as a package or not, and the packages that only some tasks need.

The package alone serves; each other task has an extra, listed in pyproject.toml. Their packages are imported where they
are used, inside `needs`.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.errors import MissingExtraError

if TYPE_CHECKING:
    from importlib.metadata import Distribution

VERSION = "0.5.0"  # stated here and nowhere else: packaging, `--version` and metrics.json read it

_NAME = "lookalike"
_ROOT = Path(__file__).parents[1]
EXTRAS = {
    "build": ("torch", "torchvision", "timm", "transformers", "sentencepiece"),
    "datasets": ("datasets",),
    "train": ("pytorch_metric_learning", "accelerate"),
    "openvino": ("openvino",),
    "int8": ("nncf",),
    "map": ("openTSNE", "umap"),
    "bench": ("playwright",),
    "qdrant": ("qdrant_client",),
    "postgresql": ("psycopg", "psycopg_pool"),
    "milvus": ("pymilvus", "milvus_lite"),
    "ray": ("ray",),
}
"""Extra -> the modules that it adds. `build` includes `datasets`, `train` includes `build`."""
_EXTRA_OF = {module: extra for extra, modules in EXTRAS.items() for module in modules}
_PACKAGES = {"umap": "umap-learn", "ray": "'ray[data]'"}  # modules whose package has another name


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


def check_installed(module: str, task: str) -> None:
    """Raise MissingExtraError if a module of an extra is not there, before a long task; imports nothing."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(f"{task} needs {module}, which is not installed: {how_to_install(module)}")


def missing(error: ModuleNotFoundError, task: str, *, extra: str | None = None) -> MissingExtraError | None:
    """The error in words for an import that failed; None if the module belongs to no extra."""
    module = (error.name or "").partition(".")[0]
    if module not in _EXTRA_OF:
        return None
    return MissingExtraError(f"{task} needs {module}, which is not installed: {how_to_install(module, extra=extra)}")


def how_to_install(module: str, *, extra: str | None = None) -> str:
    """The command that installs the extra of a module, or another one: `pip install '.[map]'` for `umap`.

    It never asks a package index for `lookalike`: that name may be nobody's there, or somebody else's.
    """
    extra = extra or _EXTRA_OF[module]
    if found := _distribution():
        return f"pip install {_again(found, extra) or _packages(found, extra)}"
    if (_ROOT / "pyproject.toml").is_file():  # a checkout
        return f"pip install {_with_extra(_ROOT, extra)}"
    return f"pip install {_PACKAGES.get(module, module)}"  # a Space


def is_installed() -> bool:
    """Whether the distribution is installed; a wheel built in a checkout leaves metadata there, but no RECORD."""
    return _distribution() is not None


@cache
def _distribution() -> Distribution | None:
    from importlib.metadata import distributions

    return next((found for found in distributions(name=_NAME) if found.read_text("RECORD")), None)


def _again(found: Distribution, extra: str) -> str | None:
    """What it was installed from, with the extra; None if that is not stated, or no longer there."""
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    told = json.loads(found.read_text("direct_url.json") or "{}")
    url = str(told.get("url", ""))
    if vcs := told.get("vcs_info"):
        return shlex.quote(f"{_NAME}[{extra}] @ {vcs['vcs']}+{url}@{vcs['commit_id']}")
    place = Path(url2pathname(urlsplit(url).path))
    if not url.startswith("file:") or not place.exists():
        return None
    return f"{'-e ' if told.get('dir_info', {}).get('editable') else ''}{_with_extra(place, extra)}"


def _with_extra(place: Path, extra: str) -> str:
    return shlex.quote(f"{'.' if Path.cwd() == place else place}[{extra}]")


def _packages(found: Distribution, extra: str) -> str:
    """The packages of an extra themselves, in the versions that it allows."""
    from packaging.requirements import Requirement

    needed, waiting = dict[str, str](), [extra]
    while waiting:
        asked = {"extra": waiting.pop()}
        for one in map(Requirement, found.requires or []):
            if one.marker is None or not one.marker.evaluate(asked):
                continue
            if one.name == _NAME:  # this extra includes others
                waiting += sorted(one.extras)
            elif not one.marker.evaluate({"extra": ""}):  # else it came with the package
                own = f"[{','.join(sorted(one.extras))}]" if one.extras else ""
                needed[one.name] = shlex.quote(f"{one.name}{own}{one.specifier}")
    return " ".join(needed[name] for name in sorted(needed))
