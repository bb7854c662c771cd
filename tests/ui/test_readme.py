"""What the README says is true: its commands, its code, its tree, its versions."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import training.__main__
from retrieval.__main__ import main
from training.starter.catalogue import catalogue, draw

README = (ROOT / "README.md").read_text(encoding="utf-8")
TEST_COMMAND = "pip install -r requirements-dev.txt && python -m pytest"
APP_COMMAND = "pip install -r requirements.txt && python app.py"


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [body for name, body in fenced if name == language]


def pinned(name: str) -> str:
    versions = re.findall(rf"^{name}==(\S+)$", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(versions) == 1
    return versions[0]


def test_the_two_commands_stand_on_lines_of_their_own() -> None:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    assert lines[:2] == [APP_COMMAND, TEST_COMMAND]


def test_ci_runs_the_readmes_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    install, test = TEST_COMMAND.split(" && ")
    assert install.replace("pip install", "pip install -q") in script
    assert test in script.splitlines()
    assert "bash .ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")


def test_the_front_matter_names_the_pinned_gradio_and_files_that_exist() -> None:
    matter = dict(re.findall(r"^(\w+): (.+)$", README.split("---")[1], re.MULTILINE))
    assert matter["sdk"] == "gradio"
    assert matter["sdk_version"] == pinned("gradio")
    assert (ROOT / matter["app_file"]).is_file()
    assert matter["python_version"].strip('"') == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_everything_installed_is_pinned() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        for line in lines:
            assert re.fullmatch(r"#.*|-r requirements\.txt|[\w-]+==[\w.]+|", line), f"{name}: {line}"


def test_every_path_of_the_tree_exists() -> None:
    [tree] = blocks("")
    for line in tree.splitlines():
        assert (ROOT / line.split()[0]).exists(), line
    for link in re.findall(r"\]\((\w[^):]*)\)", README):
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("block", [b for b in blocks("python") if "gradio_client" not in b and "photo.jpg" not in b])
def test_the_code_runs_as_it_stands(block: str) -> None:
    """The way to read an artifact without this project; it gives the same answer as this project."""
    run = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("['shirt', 'shirt', 'shirt'")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture under the name that the README gives it, in a folder of its own."""
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    draw(catalogue()[4], 200).save(path)
    return path


def from_programs(language: str) -> list[str]:
    found = [block for block in blocks(language) if "photo.jpg" in block]
    assert found and all(block in README.split("## From programs")[1].split("\n## ")[0] for block in found)
    return found


def run_beside(photo: Path, command: list[str]) -> str:
    run = subprocess.run(command, cwd=photo.parent, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_code_for_python_runs(server: str, photo: Path) -> None:
    client, _, package = from_programs("python")
    said = run_beside(photo, [sys.executable, "-c", client.replace("http://127.0.0.1:7860", server)])
    assert len(re.findall(rf"^0\.\d+ shirt {server}/\S+\.jpg$", said, re.MULTILINE)) == 5
    code = package.replace('"retrieval/starter"', repr(str(ROOT / "retrieval" / "starter")))
    run_beside(photo, [sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}"])


def test_the_code_for_refined_searches_runs(twins_server: str, photo: Path) -> None:
    """With a text model, an encoder that explains and near-duplicates, which the starter does not all have."""
    first, refined, _ = from_programs("python")
    first = first.replace("http://127.0.0.1:7860", twins_server).replace(', where={"label": "shirt"}', "")
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
    said = run_beside(photo, [sys.executable, "-c", first + refined + told])
    assert json.loads(said.splitlines()[-1]) == [10, 10, 5, pytest.approx(0, abs=1e-5), 10]


def test_the_code_for_javascript_runs(server: str, photo: Path, npm_folder: Path) -> None:
    [block] = from_programs("javascript")
    code = photo.with_name("search.mjs")
    code.write_text(block.replace("http://127.0.0.1:7860", server), encoding="utf-8")
    code.with_name("node_modules").symlink_to(npm_folder / "node_modules")
    said = run_beside(photo, ["node", str(code)])
    assert len(re.findall(rf"^0\.\d+ shirt {server}/\S+\.jpg$", said, re.MULTILINE)) == 5


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here (apt-get install -y curl)")
def test_the_code_for_curl_runs(server: str, photo: Path) -> None:
    [block] = from_programs("bash")
    said = run_beside(photo, ["bash", "-euo", "pipefail", "-c", block.replace("http://127.0.0.1:7860", server)])
    assert "event: complete" in said
    [answer] = json.loads(re.findall(r"^data: (.*)$", said, re.MULTILINE)[-1])
    assert [hit["label"] for hit in answer["hits"]] == ["shirt"] * 5


@pytest.mark.parametrize("command", re.findall(r"^\| `(\w+) (?:SOURCE|DIR|OWNER)", README, re.MULTILINE))
def test_every_command_and_option_of_the_table_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    usage = capsys.readouterr().out
    row = next(line for line in README.splitlines() if line.startswith(f"| `{command} "))
    for option in re.findall(r"(?<![\w-])--?[a-z][\w-]*", row):
        assert option in usage


def test_what_the_readme_says_of_training_exists(capsys: pytest.CaptureFixture[str]) -> None:
    section = README.split("## Your own encoder")[1].split("\n## ")[0].replace("python app.py --artifact", "")
    section = re.sub(r"accelerate\s+launch.*?-m training", "", section, flags=re.DOTALL)  # whose options are not ours
    for command in ("train", "compare"):
        with pytest.raises(SystemExit):
            training.__main__.main([command, "--help"])
    usage = capsys.readouterr().out
    options = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", section))
    assert {"--resume", "--hold-out-classes", "--plot"} <= options
    assert all(option in usage for option in options)
    recipes = {path.stem for path in (ROOT / "training" / "recipes").glob("*.yaml")}
    assert all(f"`{recipe}`" in section for recipe in recipes)
