"""Runs a module as if only what `pip install .` brings were installed: without torch, datasets and the other extras.

    python tests/support/without_torch.py retrieval search retrieval/starter photo.jpg

With `--with psycopg,psycopg_pool` in front of the module, these are there, too.

What the package needs comes from pyproject.toml and from what each installed package says of itself. All other modules
of site-packages look as if they were not there.
"""

import importlib.metadata
import runpy
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def needed(requirements):
    """Every requirement of these and, in turn, of the packages that they name, as installed here."""
    waiting, seen = list(requirements), set()
    while waiting:
        requirement = waiting.pop()
        yield requirement
        for extra in ("", *requirement.extras):
            key = canonicalize_name(requirement.name), extra
            if key not in seen:
                seen.add(key)
                brought = map(Requirement, importlib.metadata.requires(requirement.name) or [])
                waiting += [one for one in brought if one.marker is None or one.marker.evaluate({"extra": extra})]


def hidden():
    """Top modules of the packages installed here that `pip install .` does not bring."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    brought = {canonicalize_name(each.name) for each in needed(map(Requirement, project["dependencies"]))}
    owners = importlib.metadata.packages_distributions()
    ours = {"retrieval", "training", "lookalike"}
    return {m for m, names in owners.items() if not brought & set(map(canonicalize_name, names))} - ours


class Hidden:
    """The finders of `sys.meta_path`, but for some top modules and all that is in them."""

    def __init__(self, modules):
        self._modules = modules
        self._finders = list(sys.meta_path)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self._modules:
            return None
        found = (finder.find_spec(name, path, target) for finder in self._finders)
        return next((spec for spec in found if spec is not None), None)

    def find_distributions(self, *arguments):
        for finder in self._finders:
            if hasattr(finder, "find_distributions"):
                yield from finder.find_distributions(*arguments)


def main():
    del sys.argv[0]
    there = set()
    if sys.argv[0] == "--with":
        there = set(sys.argv[1].split(","))
        del sys.argv[:2]
    sys.meta_path[:] = [Hidden(hidden() - there)]
    sys.path[0] = str(Path.cwd())
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
