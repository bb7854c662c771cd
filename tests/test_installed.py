"""Packages that only some tasks need: what runs without them, and what the others say."""

import pytest

from retrieval.errors import MissingExtraError
from retrieval.installed import needs


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
