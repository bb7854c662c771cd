"""Packages that only some tasks need: what runs without them, and what the others say."""

import json
import os

import pytest

from retrieval import installed
from retrieval.errors import MissingExtraError
from retrieval.installed import how_to_install, needs


def test_a_missing_package_is_named_with_its_extra():
    with pytest.raises(MissingExtraError) as caught, needs("drawing"):
        raise ModuleNotFoundError(name="umap.parametric")
    assert str(caught.value).startswith("drawing needs umap, which is not installed: pip install '")
    assert str(caught.value).endswith("[map]'")
    with pytest.raises(MissingExtraError, match=r"\[train\]'$"), needs("training", extra="train"):
        raise ModuleNotFoundError(name="torch")


def test_a_package_of_no_extra_is_no_error_of_ours():
    with pytest.raises(ModuleNotFoundError), needs("drawing"):
        raise ModuleNotFoundError(name="retrieval.no_such_module")


@pytest.fixture
def as_installed(tmp_path, monkeypatch):
    """A function that makes this process find an installed `lookalike`, from where pip says."""

    def install(told):
        metadata = tmp_path / "site" / "lookalike-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(
            "Metadata-Version: 2.4\nName: lookalike\nVersion: 1.0\nProvides-Extra: map\nProvides-Extra: all\n"
            "Requires-Dist: numpy\nRequires-Dist: pillow-heif; python_version > '3'\n"
            'Requires-Dist: umap-learn<1,>=0.5; extra == "map"\nRequires-Dist: lookalike[map]; extra == "all"\n'
        )
        (metadata / "RECORD").write_text("x")
        if told is not None:
            (metadata / "direct_url.json").write_text(json.dumps(told))
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        installed._distribution.cache_clear()

    yield install
    installed._distribution.cache_clear()


def test_package_installed_from_a_checkout_names_the_checkout(as_installed, tmp_path, monkeypatch):
    checkout = tmp_path / "my check-out"
    checkout.mkdir()
    as_installed({"url": checkout.as_uri(), "dir_info": {}})
    assert how_to_install("umap") == f"pip install '{checkout}[map]'"
    monkeypatch.chdir(checkout)
    assert how_to_install("umap") == "pip install '.[map]'"
    monkeypatch.chdir(os.sep)
    checkout.rmdir()
    assert how_to_install("umap") == "pip install 'umap-learn<1,>=0.5'"


def test_package_installed_to_be_edited_stays_so(as_installed, tmp_path):
    as_installed({"url": tmp_path.as_uri(), "dir_info": {"editable": True}})
    assert how_to_install("umap") == f"pip install -e '{tmp_path}[map]'"


def test_package_installed_from_git_names_the_same_commit(as_installed):
    as_installed({"url": "https://example.org/it.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}})
    assert how_to_install("umap") == "pip install 'lookalike[map] @ git+https://example.org/it.git@abc'"


@pytest.mark.parametrize("told", [None, {"url": "https://example.org/it-1.0.whl", "archive_info": {}}])
def test_package_installed_from_elsewhere_names_the_packages_of_the_extra(as_installed, told):
    as_installed(told)
    assert how_to_install("umap") == "pip install 'umap-learn<1,>=0.5'"
    assert how_to_install("umap", extra="all") == "pip install 'umap-learn<1,>=0.5'"
