"""The code in README and docs/ runs and prints what the pages say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import chdir
from pathlib import Path

import datasets
import pytest
from conftest import ROOT, STARTER
from test_docs import PAGES, README, blocks

from retrieval.ui.api.answers import HitJson
from retrieval.ui.api.endpoints import Endpoints
from training.starter.catalogue import catalogue, draw

ADDRESS = "http://127.0.0.1:7860"


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with the file name that the docs use, in its own folder."""
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    draw(catalogue()[4], 200).save(path)
    return path


def run_beside(folder: Path, code: str) -> None:
    """Run a code block of the docs as a program in that working directory."""
    with chdir(folder):
        exec(compile(code.replace('"retrieval/starter"', repr(str(STARTER))), "a page", "exec"), {})


def test_every_code_block_in_the_docs_has_a_test() -> None:
    """The tests below run each of these blocks; a new block needs a new test."""
    counts = {
        (name, language): len(found)
        for name, text in PAGES.items()
        for language in ("python", "javascript")
        if (found := blocks(text, language))
    }
    assert counts == {
        ("README.md", "python"): 1,
        ("artifact.md", "python"): 2,
        ("endpoints.md", "python"): 2,
        ("endpoints.md", "javascript"): 1,
        ("filters.md", "python"): 1,
    }


def test_python_code_of_the_readme_runs(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [block] = blocks(README, "python")
    run_beside(photo.parent, block)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 6
    assert all(re.fullmatch(r"[01]\.\d{3} \w+ (red|pink) [0-9a-f]{16}", line) for line in said[:5])
    assert said[5] == "5 more, 10 like the first and unlike the last"


def test_documented_code_reads_an_artifact_without_this_project(capsys: pytest.CaptureFixture[str]) -> None:
    _, block = blocks(PAGES["artifact.md"], "python")
    assert not re.search(r"(import|from) retrieval", block)
    run_beside(ROOT, block)
    assert capsys.readouterr().out.startswith("['shirt', 'shirt', 'shirt'")


def test_documented_code_reads_a_gallery_as_a_dataset(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    block, _ = blocks(PAGES["artifact.md"], "python")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    run_beside(ROOT, block)
    assert capsys.readouterr().out == "1152 shirt\n"


def test_python_client_code_runs(server: str, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, _ = blocks(PAGES["endpoints.md"], "python")
    run_beside(photo.parent, first.replace(ADDRESS, server))
    found = re.findall(rf"^0\.\d+ shirt {server}/\S+\.jpg$", capsys.readouterr().out, re.MULTILINE)
    assert len(found) == 5


def test_refined_search_code_runs(twins_server: str, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """This needs a text model, an encoder that explains and near-duplicates, which the starter does not all have."""
    first, refined = blocks(PAGES["endpoints.md"], "python")
    first = first.replace(ADDRESS, twins_server).replace(', where={"label": "shirt"}', "")
    lines = [line for line in refined.splitlines() if "client.predict" in line]
    assert [re.findall(r'api_name="/(\w+)"', line) for line in lines] == [
        ["search"], ["search_by_id"], ["search_text"], ["explain"], ["duplicates"],
    ]  # fmt: skip
    told = """
import json
cells = why["query"]
total = sum(map(sum, cells["cells"])) + cells["bias"] - why["cosine"]
print(json.dumps([len(part["hits"]), len(near["hits"]), len(said["hits"]), total, len(same["groups"])]))
"""
    run_beside(photo.parent, first + refined + told)
    answered = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answered == [10, 10, 5, pytest.approx(0, abs=1e-5), 10]


def said_by(command: list[str], folder: Path) -> str:
    """The output of a program that is not Python."""
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_javascript_client_code_runs(server: str, photo: Path, npm_folder: Path) -> None:
    [block] = blocks(PAGES["endpoints.md"], "javascript")
    code = photo.with_name("search.mjs")
    code.write_text(block.replace(ADDRESS, server), encoding="utf-8")
    code.with_name("node_modules").symlink_to(npm_folder / "node_modules")
    said = said_by(["node", str(code)], photo.parent)
    assert len(re.findall(rf"^0\.\d+ shirt {server}/\S+\.jpg$", said, re.MULTILINE)) == 5


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here (apt-get install -y curl)")
def test_curl_code_runs(server: str, photo: Path) -> None:
    [block] = blocks(PAGES["endpoints.md"], "bash")
    said = said_by(["bash", "-euo", "pipefail", "-c", block.replace(ADDRESS, server)], photo.parent)
    assert "event: complete" in said
    [answer] = json.loads(re.findall(r"^data: (.*)$", said, re.MULTILINE)[-1])
    assert [hit["label"] for hit in answer["hits"]] == ["shirt"] * 5


def test_endpoints_page_lists_the_real_arguments_and_fields() -> None:
    text = PAGES["endpoints.md"]

    def named(heading: str) -> set[str]:
        section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
        return {name for line in re.findall(r"^\| (`.*?) \|", section, re.M) for name in re.findall(r"`(\w+)`", line)}

    assert named("Fields of a hit") == set(HitJson.__annotations__)
    assert named("Arguments of a search") == set(Endpoints.search.__annotations__) - {"image", "request", "return"}
    endpoints = re.findall(r"^\| `/(\w+)` \|", text, re.MULTILINE)
    assert all(callable(getattr(Endpoints, name)) for name in endpoints) and len(endpoints) == 6
