"""README and docs/ are correct: their commands, links, file tree and versions."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from test_layering import LAYERS, TRAINING_LAYERS

from retrieval.__main__ import main as retrieval_main
from training.__main__ import main as training_main

README = (ROOT / "README.md").read_text(encoding="utf-8")
# api.md and its examples are tested in test_api_reference.py.
PAGES = {
    path.name: path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if not path.name.startswith("api")
}
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
TEXTS += sorted((ROOT / "docs").glob("*.md"))
TEST_COMMAND = "pip install -r requirements-dev.txt && python -m pytest"
APP_COMMAND = "pip install . && python app.py"
MOST_WORDS = 25  # in a table cell


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of a language, in order."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [body for name, body in fenced if name == language]


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def pinned(name: str) -> str:
    versions = re.findall(rf"^{name}==(\S+)$", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(versions) == 1
    return versions[0]


# The form of the texts


def test_readme_is_under_200_lines() -> None:
    assert len(README.splitlines()) < 200


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_table_cells_are_short(path: Path) -> None:
    rows = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [cell.strip() for row in rows for cell in row.strip("|").split("|")]
    assert [cell for cell in cells if len(cell.split()) > MOST_WORDS] == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_link_target_exists(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.is_relative_to(ROOT)
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, link


def test_readme_lists_every_page_of_the_docs() -> None:
    listed = README.split("## Documentation")[1].split("\n## ")[0]
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"api_examples.md"}
    assert set(re.findall(r"\]\(docs/([\w-]+\.md)\)", listed)) == pages


def test_tree_in_the_readme_names_existing_paths() -> None:
    [tree] = blocks(README, "")
    named = [line.split()[0] for line in tree.splitlines()]
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert all((ROOT / name).is_dir() for name in named if name.endswith("/"))


@pytest.mark.parametrize(("package", "layers"), [("retrieval", LAYERS), ("training", TRAINING_LAYERS)])
def test_contributing_lists_every_part_in_import_order(package: str, layers: list[list[str]]) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.split(f"| `{package}/` |")[1].split("\n\n")[0]
    rows = [set(re.findall(r"`(\w+)", line.split("|")[1])) for line in table.splitlines()[2:]]
    assert rows == [set(row) for row in layers]


def test_changelog_starts_with_the_latest_version_and_breaking_changes() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## (\d+)\.(\d+)\.(\d+) - (\d{4}-\d\d-\d\d|unreleased)$", text, re.MULTILINE)
    versions = [tuple(map(int, head[:3])) for head in heads]
    assert len(heads) == text.count("\n## ")
    assert versions == sorted(versions, reverse=True)
    assert [head[3] for head in heads] == sorted((head[3] for head in heads), reverse=True)
    assert re.findall(r"^### (.+)$", text.split("\n## ")[1], re.MULTILINE)[0].startswith("Breaking changes")


# Commands


def test_readme_starts_with_the_app_command_and_the_test_command() -> None:
    lines = [line for block in blocks(README, "bash") for line in block.splitlines()]
    assert lines[:2] == [APP_COMMAND, TEST_COMMAND]


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    install, test = TEST_COMMAND.split(" && ")
    assert install.replace("pip install", "pip install -q") in script
    assert re.search(rf"^{re.escape(test)}( \|\| .*)?$", script, re.MULTILINE)
    assert "bash .ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")


def test_front_matter_matches_the_pinned_gradio_and_existing_files() -> None:
    matter = dict(re.findall(r"^(\w+): (.+)$", README.split("---")[1], re.MULTILINE))
    assert matter["sdk"] == "gradio"
    assert matter["sdk_version"] == pinned("gradio")
    assert (ROOT / matter["app_file"]).is_file()
    assert matter["python_version"].strip('"') == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_every_requirement_is_pinned() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        for line in lines:
            assert re.fullmatch(r"#.*|-r requirements\.txt|[\w-]+(\[\w+\])?==[\w.]+|", line), f"{name}: {line}"


def documented() -> Iterator[tuple[str, str]]:
    """(command, text) for each place in the docs that names options of `python -m retrieval COMMAND`."""
    for text in PAGES.values():
        yield from re.findall(r"^python -m retrieval (\w+)(.*)$", text, re.MULTILINE)
        yield from re.findall(r"^\| `(\w+) (?:SOURCE|DIR|OWNER)(.*)$", text, re.MULTILINE)
        # In a section about one command, the options are in the first column of its table.
        for command, section in re.findall(r"^##+ (?:Options of )?`(\w+)`\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.M):
            yield from ((command, cell) for cell in re.findall(r"^\| (`-.*?) \|", section, re.MULTILINE))


COMMANDS = sorted({command for command, _ in documented()})


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", text))


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_options_of_a_command_exist(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # wide enough that no option is truncated
    with pytest.raises(SystemExit) as ended:
        retrieval_main([command, "--help"])
    assert ended.value.code == 0
    usage = capsys.readouterr().out
    said = set().union(*(options_in(text) for name, text in documented() if name == command))
    assert {option for option in said if option not in usage} == set()


def test_every_command_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        retrieval_main(["--help"])
    usage = capsys.readouterr().out
    every = ["build", "search", "evaluate", "add", "remove", "list", "info", "verify", "export", "duplicates", "bench"]
    assert {*every} <= {*COMMANDS}
    assert all(command in usage for command in COMMANDS)


def test_training_docs_name_existing_options_and_every_recipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for words in (["--help"], ["train", "--help"], ["compare", "--help"]):
        with pytest.raises(SystemExit):
            training_main(words)
    usage = capsys.readouterr().out
    text = PAGES["train.md"].replace("python app.py --artifact", "")
    text = re.sub(r"accelerate\s+launch.*?-m training", "", text, flags=re.DOTALL)  # the options of accelerate
    said = options_in(text)
    assert {"--resume", "--hold-out-classes", "--plot"} <= said
    assert {option for option in said if option not in usage} == set()
    recipes = {path.stem for path in (ROOT / "training" / "recipes").glob("*.yaml")}
    assert all(f"`{recipe}`" in text for recipe in recipes)
