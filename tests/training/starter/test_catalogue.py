"""The pictures that the project draws itself: complete, identical everywhere, and in the colour they are named for."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT

from training.starter.catalogue import ARTICLES, COLOURS, PATTERNS, VIEWS, Item, catalogue, draw

SIDE = 64


def pixels(item, size=SIDE):
    return np.asarray(draw(item, size), float)


def share_near(picture, colour, distance=60):
    """The share of pixels whose RGB distance from a colour is below `distance`."""
    return (np.linalg.norm(picture - np.array(colour), axis=-1) < distance).mean()


def test_catalogue_has_every_combination_once():
    items = catalogue()
    kinds = {(item.article, item.colour, item.pattern, item.view) for item in items}
    assert len(items) == len(kinds) == 1152 == len(ARTICLES) * len(COLOURS) * len(PATTERNS) * len(VIEWS)
    assert [item.seed for item in items] == list(range(1152))
    assert items == catalogue()


@pytest.mark.parametrize("article", ARTICLES)
def test_every_article_can_be_drawn_in_every_pattern_and_view(article):
    items = [Item(article, "teal", pattern, view, seed=5) for pattern in PATTERNS for view in VIEWS]
    pictures = [draw(item, SIDE) for item in items]
    assert {(picture.mode, picture.size) for picture in pictures} == {("RGB", (SIDE, SIDE))}
    assert len({picture.tobytes() for picture in pictures}) == len(items)
    for picture in pictures:
        assert np.asarray(picture, float).std(axis=(0, 1)).min() > 15  # not just the plain background


def test_no_two_pictures_of_the_catalogue_are_identical():
    pictures = {draw(item, 24).tobytes() for item in catalogue()}
    assert len(pictures) == 1152


@pytest.mark.parametrize("size", [24, 97, 224])
def test_any_size_can_be_drawn(size):
    picture = draw(Item("shirt", "red", "striped", "front", seed=1), size)
    assert (picture.mode, picture.size) == ("RGB", (size, size))


@pytest.mark.parametrize("view", VIEWS)
def test_same_item_draws_identically_and_another_seed_differs(view):
    item = Item("mug", "blue", "dotted", view, seed=9)
    first = draw(item, SIDE).tobytes()
    draw(replace(item, seed=10), SIDE)  # drawing another item in between changes nothing
    assert draw(item, SIDE).tobytes() == first
    assert len({draw(replace(item, seed=seed), SIDE).tobytes() for seed in range(12)}) == 12


def test_another_process_draws_the_same_bytes():
    """Python's hash() of a string differs from process to process; a drawing must not."""
    code = (
        "import hashlib; from training.starter.catalogue import catalogue, draw;"
        "print(hashlib.sha256(b''.join(draw(i, 24).tobytes() for i in catalogue()[::97])).hexdigest())"
    )
    here = hashlib.sha256(b"".join(draw(item, 24).tobytes() for item in catalogue()[::97])).hexdigest()
    for seed in ("1", "2"):
        python = [sys.executable, "-c", code]
        run = subprocess.run(
            python, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        )
        assert run.stdout.decode().strip() == here


@pytest.mark.parametrize("article", ARTICLES)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_plain_article_has_its_colour(article, colour):
    """The named colour covers a good share of the picture, and more of it than any other colour does."""
    for view, least in (("front", 0.05), ("close-up", 0.1)):
        picture = pixels(Item(article, colour, "plain", view, seed=3))
        shares = {name: share_near(picture, value) for name, value in COLOURS.items()}
        assert shares[colour] >= least, f"{view}: {shares}"
        assert max(shares, key=shares.get) == colour, f"{view}: {shares}"


@pytest.mark.parametrize("article", ARTICLES)
@pytest.mark.parametrize("pattern", [pattern for pattern in PATTERNS if pattern != "plain"])
def test_patterned_article_keeps_its_colour_and_adds_a_light_one(article, pattern):
    """A patterned article still shows its colour, but less of it than a plain one: the rest is light thread."""

    def blue(kind):
        items = [Item(article, "blue", kind, "close-up", seed) for seed in range(4)]
        return np.mean([share_near(pixels(item), COLOURS["blue"]) for item in items])

    plain, patterned = blue("plain"), blue(pattern)
    assert 0.05 < patterned < 0.95 * plain


def test_background_wall_is_light():
    for article in ARTICLES:
        picture = pixels(Item(article, "charcoal", "plain", "front", seed=2))
        assert picture[:3, :3].min() > 200
