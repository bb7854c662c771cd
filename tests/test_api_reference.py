"""The API reference matches the docstrings, and each of its examples runs."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
from conftest import ROOT

import retrieval
from training.starter.catalogue import catalogue, draw

_SPEC = importlib.util.spec_from_file_location("make_api", ROOT / "docs" / "make_api.py")
assert _SPEC and _SPEC.loader
make_api = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(make_api)

EXAMPLES = make_api.examples()
# These would need a login and a Hub: tests/hub runs what they call against a local Hub.
ON_THE_HUB = {"push", "pull", "deploy"}
WITHOUT_EXAMPLE = {name for name in retrieval.__all__ if name.endswith("Error")} - {"LookalikeError"}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Path:
    """A folder with the files that the examples use."""
    folder = tmp_path_factory.mktemp("examples")
    draw(catalogue()[4], 200).save(folder / "photo.jpg")
    for item in catalogue()[:240:40]:
        path = folder / "my_pictures" / item.article / f"{item.colour}-{item.pattern}-{item.view}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(item, 96).save(path)
    (folder / "my_clip").symlink_to(clip)
    return folder


def test_api_page_is_up_to_date_with_the_docstrings() -> None:
    written = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert written == make_api.api(), "out of date: python -m docs.make_api"


def test_every_public_name_has_a_docstring_and_an_example() -> None:
    assert all(getattr(retrieval, name).__doc__ for name in retrieval.__all__)
    assert EXAMPLES.keys() == set(retrieval.__all__) - WITHOUT_EXAMPLE


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_example_imports_only_public_names(name: str) -> None:
    compile(EXAMPLES[name], name, "exec")
    lines = [line for line in EXAMPLES[name].splitlines() if "retrieval" in line]
    assert lines and all(line.startswith("from retrieval import ") for line in lines)
    assert all(word in retrieval.__all__ for line in lines for word in line.split("import ")[1].split(", "))


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - ON_THE_HUB))
def test_example_runs(name: str, workplace: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(workplace / "my_artifact", ignore_errors=True)
    shutil.copytree(artifact, workplace / "my_artifact")
    monkeypatch.chdir(workplace)
    exec(compile(EXAMPLES[name], name, "exec"), {"__name__": name})


def test_signatures_are_formatted_as_in_the_code() -> None:
    def quick(path: Path | str, k: int = 10, *, word: str = "AUTO") -> list[int]:
        """Anything."""

    assert make_api.signature("quick", quick) == (
        "quick(path: Path | str, k: int = 10, *, word: str = 'AUTO') -> list[int]"
    )
    long = make_api.signature("a_name_that_is_as_long_as_it_takes_to_put_each_argument_on_a_line", quick)
    assert long.splitlines()[1:] == [
        "    path: Path | str,",
        "    k: int = 10,",
        "    *,",
        "    word: str = 'AUTO',",
        ") -> list[int]",
    ]


def test_docstring_sections_become_lists() -> None:
    text = (
        "Find.\n\nArgs:\n    k: so many,\n        or less.\n    where: a filter.\n\nRaises:\n    QueryError: never.\n"
    )
    arguments = "**Args**\n\n- `k`: so many,\n    or less.\n- `where`: a filter."
    assert make_api.prose(text) == f"Find.\n\n{arguments}\n\n**Raises**\n\n- `QueryError`: never."
