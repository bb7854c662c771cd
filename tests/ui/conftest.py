"""What the tests of the page share: the app as a process of its own, and a picture to search with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from socket import socket

import pytest

from training.catalogue import Item, draw

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def starter() -> Path:
    return ROOT / "retrieval" / "starter"


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of `python app.py`, as a person would start it, on the starter artifact."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as app:
        said = []
        for line in app.stdout or ():
            said.append(line)
            if "Running on local URL" in line:
                break
        else:
            pytest.fail(f"app.py ended before it served: {''.join(said)}")
        yield f"http://127.0.0.1:{port}"
        app.terminate()


@pytest.fixture(scope="session")
def shirt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A striped red shirt, drawn anew: not one of the gallery's pictures."""
    path = tmp_path_factory.mktemp("query") / "shirt.png"
    draw(Item("shirt", "red", "striped", "front", seed=987_654), 256).save(path)
    return path
