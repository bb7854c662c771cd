"""What `pip install .` alone can do: serve, search and change artifacts, without torch; the rest names its extra."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, png
from older import without_exported

from retrieval import Searcher

SCRIPT = ROOT / "tests" / "support" / "without_torch.py"


def light(*arguments):
    """Run `python -m ARGUMENTS` as if only the package's own dependencies were installed."""
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ}, timeout=120)


@pytest.fixture
def own(tmp_path, starter):
    return Path(shutil.copytree(starter, tmp_path / "own"))


def test_artifact_is_searched_and_changed_without_torch(own, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.png").write_bytes(png(5))
    added = light("retrieval", "add", own, tmp_path / "new")
    assert (added.returncode, added.stderr) == (0, "")
    assert "found 1 = indexed 1" in added.stdout
    found = light("retrieval", "search", own, tmp_path / "new" / "a.png", "-k", "1")
    assert found.returncode == 0
    assert found.stdout.startswith("1.0000")


def test_artifact_with_a_text_model_is_searched_and_changed_without_torch(twins, tmp_path):
    own = Path(shutil.copytree(twins, tmp_path / "own"))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.png").write_bytes(png(5))
    added = light("retrieval", "add", own, tmp_path / "new")
    assert (added.returncode, added.stderr) == (0, "")
    found = light("retrieval", "search", own, "--text", "a red shirt", "-k", "3")
    assert (found.returncode, found.stderr) == (0, "")
    expected = Searcher.open(own).search_text("a red shirt", k=3)
    assert [line.split()[0] for line in found.stdout.splitlines()[:3]] == [f"{hit.score:.4f}" for hit in expected]


@pytest.mark.parametrize(
    ("arguments", "task", "extra"),
    [
        (["retrieval", "build", "docs", "--out", "{out}"], "build needs timm", "build"),
        (["training", "caltech101", "--out", "{out}"], "training needs ", "train"),
        (["retrieval", "search", "{older}", "docs/page.png"], "an artifact without onnx/model.onnx", "build"),
        (["retrieval", "verify", "{own}", "--engine", "openvino"], "--engine openvino needs openvino", "openvino"),
    ],
)
def test_task_that_needs_more_names_its_extra(own, tmp_path, arguments, task, extra):
    places = {"out": tmp_path / "out", "own": own, "older": own}
    if "{older}" in arguments:
        without_exported(own)
    done = light(*(word.format(**places) for word in arguments))
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {task}")
    assert line.endswith(f"which is not installed: pip install '.[{extra}]'")
