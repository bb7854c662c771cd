"""What several test files share: real pictures, a real (tiny) encoder, a real artifact, a real server."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from socket import socket

import pytest
import torch

from retrieval import Encoder, build_artifact, open_source
from training.catalogue import ARTICLES, Item, draw

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("LOOKALIKE_DATA", ROOT.parent / "shared" / "data"))
STARTER = ROOT / "retrieval" / "starter"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real images and weights are not here (LOOKALIKE_DATA)")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 drawn pictures: five class folders, PNG and JPEG."""
    folder = tmp_path_factory.mktemp("pictures")
    for article in ARTICLES[:5]:
        (folder / article).mkdir()
        for number, colour in enumerate(("red", "green", "blue") * 4):
            picture = draw(Item(article, colour, "plain", "front", seed=number), 64)
            picture.save(folder / article / f"{number:02d}.{'png' if number % 2 else 'jpg'}")
    return folder


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """A tiny timm network with random weights, always the same."""
    torch.manual_seed(0)
    return Encoder.create("test_resnet", pretrained=False, embedding_size=16)


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory, pictures: Path, encoder: Encoder) -> Path:
    """An artifact of `pictures`; not to be changed."""
    out = tmp_path_factory.mktemp("artifacts") / "small"
    build_artifact(open_source(str(pictures)), out, encoder)
    return out


@pytest.fixture
def copied_artifact(artifact: Path, tmp_path: Path) -> Path:
    """A copy of `artifact`, to be changed or spoiled."""
    return Path(shutil.copytree(artifact, tmp_path / "copied"))


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """`python app.py` on the starter artifact, as a process of its own; its address."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as app:
        assert app.stdout is not None
        for line in app.stdout:
            if "Running on local URL" in line:
                break
        assert app.poll() is None, "app.py ended before it served"
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            app.terminate()
