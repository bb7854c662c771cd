"""The sentences of the page: each is used, and the status line describes the query and the match."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from retrieval import Searcher
from retrieval.search import Hit, Part
from retrieval.ui import strings
from retrieval.ui.pieces.cards import Cards
from retrieval.ui.pieces.html import render
from retrieval.ui.pieces.thumbnails import ThumbnailFiles
from retrieval.ui.visit import Asked

UI = Path(__file__).parents[2] / "retrieval" / "ui"
ROW = Part(row=1)


@pytest.fixture(scope="module")
def cards(starter: Path) -> Cards:
    searcher = Searcher.open(starter)
    return Cards(searcher, ThumbnailFiles(searcher.gallery))


def text(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", "", html).split())


def hit(row: int = 2, confident: bool | None = None, alike: tuple[int, ...] = ()) -> Hit:
    chance = None if confident is None else 0.5
    return Hit(row, f"id{row}", 0.5, "mug", "mug.png", chance=chance, confident=confident, alike=alike)


@pytest.mark.parametrize(
    ("parts", "hits", "said"),
    [
        ([], [], "Drop in a picture to find similar ones, or click any image below."),
        ([ROW], [], "No image matches the filters and the minimum similarity. Remove a filter or lower the minimum."),
        ([Part(words="a hat")], [hit(confident=True)] * 2, "Confident match Top 2 results for “a hat”."),
        (
            [Part(words="a hat")],
            [hit(confident=False)],
            "No confident match Top result for “a hat”. Showing the closest images anyway.",
        ),
        (
            [Part(words="a hat", weight=-1.0)],
            [hit()] * 3,
            "Top 3 results for images unlike “a hat”. Match probability is only available for a single whole picture. "
            "Showing cosine similarity.",
        ),
        (
            [ROW, Part(row=2, weight=-1.0)],
            [hit()] * 3,
            "Top 3 results for 1 liked and 1 disliked examples. Match probability is only available for a single whole "
            "picture. Showing cosine similarity.",
        ),
        (
            [replace(ROW, weight=-1.0), Part(row=2, weight=-1.0)],
            [hit(confident=True)] * 3,
            "Confident match Top 3 results for 2 disliked examples.",
        ),
    ],
)
def test_status_line_describes_the_query_and_the_match(
    cards: Cards, parts: list[Part], hits: list[Hit], said: str
) -> None:
    assert text(cards.status(Asked(tuple(parts)), hits)) == said


def test_an_unlabelled_result_has_no_match_probability(cards: Cards) -> None:
    said = text(cards.status(Asked((ROW,)), [replace(hit(), label=None)]))
    assert said.endswith("The top result has no label, so there is no match probability. Showing cosine similarity.")


def test_no_verdict_is_given_where_no_threshold_was_learned(cards: Cards) -> None:
    found = [replace(hit(), chance=0.9)]
    said = text(cards.status(Asked((ROW,)), found))
    assert said.startswith("Top result for")
    assert "Whether the top result is a match cannot be told: that takes more labelled images of each class" in said
    assert 'class="grid"' in cards.hits(found, more=False)  # not dimmed
    assert "90%" in text(cards.hits(found, more=False))


def test_singular_and_plural_are_used_correctly(cards: Cards) -> None:
    shown = text(cards.hits([hit(alike=(3,)), hit(4, alike=(5, 6))], more=False))
    assert "+1 near-duplicate " in f"{shown} "
    assert "+2 near-duplicates" in shown
    for found, said in ((1, "1 group with 2 images."), (3, "3 groups with 2 images in all.")):
        groups = text(render("groups", groups=[], found=found, images=2, threshold=0.95))
        assert groups.startswith(said)


def test_every_sentence_is_used() -> None:
    others = [path for path in UI.rglob("*") if path.suffix in (".py", ".html") and path.name != "strings.py"]
    code = "\n".join(path.read_text(encoding="utf-8") for path in others)
    assert [name for name in vars(strings) if name.isupper() and not re.search(rf"strings\.{name}\b", code)] == []
