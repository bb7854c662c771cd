"""How messages name a command: as it can be typed, with the package installed or from a checkout."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

# command -> what to type in a checkout
IN_A_CHECKOUT = {
    "serve": "python app.py",
    "serve --artifact DIR": "python app.py --artifact DIR",
    "train RECIPE --out DIR": "python -m training RECIPE --out DIR",
    "compare DIR DIR ...": "python -m training compare DIR DIR ...",
    "build SOURCE --out DIR": "python -m retrieval build SOURCE --out DIR",
    "push DIR me/shirts --private": "python -m retrieval push DIR me/shirts --private",
}


@pytest.fixture
def named(tmp_path):
    """A function that names the commands above, in a Python that sees `retrieval` and no installed package."""
    (tmp_path / "retrieval").symlink_to(ROOT / "retrieval")
    script = f"from retrieval.console import command\nfor line in {list(IN_A_CHECKOUT)}: print(command(line))"

    def run():
        python = [sys.executable, "-S", "-c", script]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(python, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    return run


def test_a_checkout_starts_commands_with_python(named, tmp_path):
    assert named() == list(IN_A_CHECKOUT.values())
    (tmp_path / "lookalike.egg-info").mkdir()  # what building a wheel leaves in a checkout
    (tmp_path / "lookalike.egg-info" / "PKG-INFO").write_text("Name: lookalike\nVersion: 1\n")
    assert named() == list(IN_A_CHECKOUT.values())


def test_an_installed_package_has_the_command_lookalike(named, tmp_path):
    metadata = tmp_path / "lookalike-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: lookalike\nVersion: 1\n")
    (metadata / "RECORD").write_text("lookalike.py,,\n")
    assert named() == [f"lookalike {line}" for line in IN_A_CHECKOUT]
