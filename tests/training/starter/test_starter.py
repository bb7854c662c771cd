"""The artifact that ships with the repository: its files, its size, and that it finds what a person would expect."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from conftest import STARTER, contents

from retrieval import Searcher
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact, read_metrics
from retrieval.artifact.manifest import read_manifest
from retrieval.build.card import write_card
from training.starter.__main__ import ABOUT
from training.starter.catalogue import ARTICLES, COLOURS, PATTERNS, VIEWS, Item, catalogue, draw
from training.starter.nothing import KINDS, draw_nothing


@pytest.fixture(scope="module")
def searcher() -> Searcher:
    """Opening it verifies every byte and repeats the stored test query."""
    return Searcher.open(STARTER)


def test_starter_is_small_and_holds_only_artifact_files() -> None:
    files = {name: len(data) for name, data in contents(STARTER).items()}
    assert sorted(files) == sorted([*LAYOUT.names(), LAYOUT.exported, "plots/reliability.png"])
    assert sum(files.values()) <= 10_000_000


def test_starter_holds_the_whole_catalogue(searcher: Searcher) -> None:
    rows = searcher.gallery.take(range(len(searcher.gallery)))
    found = {(row.label, *(row.attributes[name] for name in ("colour", "pattern", "view"))) for row in rows}
    assert found == {(item.article, item.colour, item.pattern, item.view) for item in catalogue()}
    assert len(rows) == len(ARTICLES) * len(COLOURS) * len(PATTERNS) * len(VIEWS) == 1152
    report = read_manifest(STARTER)["build"]
    assert (report["found"], report["indexed"], report["duplicates"], report["skipped"]) == (1152, 1152, 0, [])


def test_starter_card_is_up_to_date(tmp_path: Path) -> None:
    artifact = load_artifact(STARTER)
    shutil.copytree(STARTER / LAYOUT.plots, tmp_path / LAYOUT.plots)
    write_card(tmp_path, artifact.encoder, artifact.store, artifact.gallery, read_metrics(STARTER), artifact.manifest)
    assert (tmp_path / LAYOUT.card).read_text() == (STARTER / LAYOUT.card).read_text()
    assert artifact.manifest["build"]["source"] == ABOUT


def test_a_red_striped_shirt_finds_striped_red_shirts(searcher: Searcher, tmp_path: Path) -> None:
    """A match first, and all three views of that item among the first four hits."""
    path = tmp_path / "shirt.png"
    for seed in range(5):
        draw(Item("shirt", "red", "striped", "tilted", seed=5_000_000 + seed), 300).save(path)
        found = [(h.label, h.attributes["colour"], h.attributes["pattern"]) for h in searcher.search(path, 4)]
        assert found[0] == ("shirt", "red", "striped")
        assert found.count(found[0]) == 3


def test_pictures_without_an_object_have_no_confident_match(searcher: Searcher, tmp_path: Path) -> None:
    path = tmp_path / "nothing.png"
    refused = []
    for kind in range(KINDS):
        for seed in range(3):
            draw_nothing(kind, 200, 7_000_000 + seed).save(path)
            refused.append(not searcher.search(path, 1)[0].confident)
    assert sum(refused) >= 0.9 * len(refused)


def test_starter_encoder_supports_explanations(searcher: Searcher) -> None:
    assert searcher.encoder.explains


def test_new_drawings_find_the_same_article_colour_and_pattern(searcher: Searcher, tmp_path: Path) -> None:
    """A drawing of every 11th item with another seed: the first hit is nearly always the same item."""
    right = Counter[str]()
    items = catalogue()[5::11]
    for item in items:
        path = tmp_path / "query.png"
        draw(Item(item.article, item.colour, item.pattern, item.view, seed=6_000_000), 224).save(path)
        hit = searcher.search(path, 1)[0]
        right["article"] += hit.label == item.article
        right["colour"] += hit.attributes["colour"] == item.colour
        right["pattern"] += hit.attributes["pattern"] == item.pattern
    assert min(right["article"], right["colour"], right["pattern"]) >= 0.95 * len(items)


def test_neighbours_share_the_article_or_the_colour(searcher: Searcher) -> None:
    """Nearly all of the ten nearest hits share the query's colour or its article."""
    ids = [searcher.gallery.ids[row] for row in range(0, 1152, 37)]
    for image_id in ids:
        query = searcher.gallery.take([searcher.gallery.row_of(image_id)])[0]
        hits = searcher.search_by_id(image_id, 10)
        akin = [h.label == query.label or h.attributes["colour"] == query.attributes["colour"] for h in hits]
        assert sum(akin) >= 9
