"""The project as a package: a wheel is built, installed elsewhere, and used from a folder outside the checkout."""

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from socket import socket

import httpx
import pytest
from conftest import ROOT
from gradio_client import Client, handle_file
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from retrieval.installed import EXTRAS, VERSION
from retrieval.search import Searcher
from training.recipe import recipe_names

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "lookalike.py", "retrieval", "training")


def pins(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if "==" in line]
    return {canonicalize_name(each.name): next(iter(each.specifier)).version for each in found}


def ranges(lines):
    """The ranges of packages by name, without the project's own extras, which name others."""
    found = {canonicalize_name(each.name): each.specifier for each in map(Requirement, lines)}
    return {name: allowed for name, allowed in found.items() if name != PROJECT["name"]}


def test_requirements_pin_every_dependency_of_serving_and_training_within_its_range():
    extras = PROJECT["optional-dependencies"]
    allowed, pinned = ranges(PROJECT["dependencies"]), pins("requirements.txt")
    for extra in ("datasets", "build", "train"):
        allowed |= ranges(extras[extra])
    assert allowed.keys() == pinned.keys()
    assert not {name: version for name, version in pinned.items() if version not in allowed[name]}


def test_serving_installs_neither_torch_nor_what_only_training_needs():
    heavy = {"torch", "torchvision", "timm", "transformers", "datasets", "accelerate", "pytorch-metric-learning"}
    assert not heavy & ranges(PROJECT["dependencies"]).keys()


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_optional_dependencies_are_pinned_for_the_tests(extra):
    allowed, pinned = (
        ranges(PROJECT["optional-dependencies"][extra]),
        pins("requirements.txt") | pins("requirements-dev.txt"),
    )
    assert all(pinned[name] in allowed[name] for name in allowed)


def test_all_is_every_other_extra_and_the_readme_names_each():
    extras = PROJECT["optional-dependencies"]
    named = {name for line in map(Requirement, extras["all"]) for name in line.extras}
    included = {
        name
        for extra in extras
        if extra != "all"
        for line in map(Requirement, extras[extra])
        if line.name == PROJECT["name"]  # others have extras of their own
        for name in line.extras
    }
    assert named | included == extras.keys() - {"all"}
    assert EXTRAS.keys() == extras.keys() - {"all"}
    install = (ROOT / "README.md").read_text(encoding="utf-8").split("## Search your own images")[0]
    assert {name for name in extras if f"[{name}]" in install or f"`{name}`" in install} == extras.keys()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder where the wheel is installed, and an empty folder elsewhere to run in."""
    root = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.building", "*.lock")
    for name in SOURCES:  # a copy, because setuptools leaves folders beside the sources
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / "source" / name, ignore=ignored)
        else:
            (root / "source").mkdir(exist_ok=True)
            shutil.copy(ROOT / name, root / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-deps", "--no-index"]
    subprocess.run(
        [*pip, "wheel", *offline, "--no-build-isolation", "-w", root, root / "source"], check=True, timeout=300
    )
    [wheel] = root.glob("lookalike-*.whl")
    assert wheel.name == f"lookalike-{VERSION}-py3-none-any.whl"
    subprocess.run([*pip, "install", *offline, "--target", root / "there", wheel], check=True, timeout=300)
    shutil.rmtree(root / "source")
    (root / "elsewhere").mkdir()
    return root / "there", root / "elsewhere"


@pytest.fixture
def lookalike(installed):
    """A function that starts `lookalike ...` in an empty folder."""
    there, elsewhere = installed
    environment = {**os.environ, "PYTHONPATH": str(there)}

    def start(*arguments):
        command = [there / "bin" / "lookalike", *map(str, arguments)]
        return subprocess.Popen(
            command, cwd=elsewhere, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start


def files_of(folder):
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if not any(part.startswith((".", "__pycache__")) for part in path.parts)}


def answer(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_installed_package_contains_every_file(installed, lookalike):
    there, _ = installed
    for package in ("retrieval", "training"):
        assert files_of(there / package) == files_of(ROOT / package)
    assert answer(lookalike("--version")) == (0, f"lookalike {VERSION}\n", "")
    status, out, _ = answer(lookalike("recipes"))
    assert status == 0
    assert all(f"\n  {name} " in out for name in recipe_names())


def test_the_hints_of_an_installed_package_name_its_command(lookalike):
    status, out, err = answer(lookalike("verify", "nowhere"))
    assert (status, out) == (1, "")
    assert err.endswith("no such folder. `lookalike build SOURCE --out DIR` makes one.\n")
    status, out, err = answer(lookalike("compare"))
    assert (status, out) == (1, "")
    assert err.endswith(": lookalike compare DIR DIR ...\n")


def how_to_install(installed, module):
    """What an installed package says of a module that is missing, run outside the checkout."""
    there, elsewhere = installed
    code = f"from retrieval.installed import how_to_install; print(how_to_install({module!r}))"
    environment = {**os.environ, "PYTHONPATH": str(there)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, env=environment, stdout=-1, text=True, check=True, timeout=60
    )
    return shlex.split(done.stdout)


@pytest.mark.parametrize(("module", "extra"), [("umap", "map"), ("torch", "build"), ("accelerate", "train")])
def test_command_that_installs_an_extra_works_and_asks_no_index_for_lookalike(installed, module, extra):
    there, elsewhere = installed
    wheel = there.parent / f"lookalike-{VERSION}-py3-none-any.whl"
    said = how_to_install(installed, module)
    assert said == ["pip", "install", f"{wheel}[{extra}]"]
    pip = [sys.executable, "-m", *said, "--disable-pip-version-check", "--dry-run", "--no-deps", "--no-index"]
    done = subprocess.run(pip, cwd=elsewhere, capture_output=True, text=True, check=True, timeout=300)
    assert f"Would install lookalike-{VERSION}" in done.stdout
    hidden = wheel.rename(wheel.with_name("moved"))  # then the packages themselves are named
    try:
        asked = [Requirement(word) for word in how_to_install(installed, module)[2:]]
    finally:
        hidden.rename(wheel)
    nested, expected = [extra], {}
    while nested:
        lines = PROJECT["optional-dependencies"][nested.pop()]
        expected |= ranges(lines)
        nested += [name for line in map(Requirement, lines) if line.name == PROJECT["name"] for name in line.extras]
    assert {canonicalize_name(each.name): each.specifier for each in asked} == expected


def test_installed_package_refuses_to_deploy(installed, lookalike):
    """A Space needs README.md and requirements.txt, which are not in the wheel."""
    status, out, err = answer(lookalike("deploy", "me/space", "--artifact", "me/shirts"))
    assert (status, out) == (1, "")
    assert err == f"error: README.md is not in {installed[0]}: deploy from a checkout of the project.\n"


def test_installed_package_serves_and_searches(installed, lookalike, starter, tmp_path):
    searcher = Searcher.open(starter)
    picture = tmp_path / "query.jpg"
    picture.write_bytes(searcher.gallery.thumbnail(3))
    expected = [hit.id for hit in searcher.search(picture, 5)]
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = lookalike("serve", "--host", "127.0.0.1", "--port", port)
    try:
        said = io.StringIO()
        for line in app.stdout:
            said.write(line)
            if found := re.search(r"Running on local URL:\s+(\S+)", line):
                break
        assert found, f"{said.getvalue()}{app.stderr.read()}"
        assert "Lookalike" in httpx.get(found[1]).raise_for_status().text
        hits = Client(found[1], verbose=False).predict(handle_file(picture), k=5, api_name="/search")["hits"]
        assert [hit["id"] for hit in hits] == expected
    finally:
        app.terminate()
        app.communicate(timeout=60)
    status, out, err = answer(lookalike("search", installed[0] / "retrieval" / "starter", picture))
    assert status == 0, err
    assert [line.split()[2] for line in out.splitlines()] == expected
