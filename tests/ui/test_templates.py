"""The HTML of the page: only templates make it, and they escape every value."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import numpy as np
import pytest

from retrieval import Searcher
from retrieval.search import Hit, Part
from retrieval.ui.pieces.cards import Cards
from retrieval.ui.pieces.html import render
from retrieval.ui.pieces.thumbnails import ThumbnailFiles
from retrieval.ui.tabs.why import Why
from retrieval.ui.visit import Asked, Visit

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "\"><script>alert(1)</script><p class='",
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)' autofocus='",
    "javascript:alert(1)",
    "{{ 7 * 7 }} {% raw %} ${alert(1)} {0} {name}",
    "&lt;b&gt; &amp; </button>",
]
UI = Path(__file__).parents[2] / "retrieval" / "ui"


class Seen(HTMLParser):
    """The tags of an HTML fragment with their attribute names, the attribute values, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.values: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def searcher(starter: Path) -> Searcher:
    return Searcher.open(starter)


@pytest.fixture(scope="module")
def cards(searcher: Searcher) -> Cards:
    return Cards(searcher, ThumbnailFiles(searcher.gallery))


def hit_called(name: str | None, source: str = "a.png") -> Hit:
    return Hit(row=3, id="id", score=0.5, label=name, source=source, chance=0.25, confident=True, alike=(1, 2))


def pieces(cards: Cards, words: str) -> list[str]:
    """All pieces of the search that show the words of a query, or the name of a result."""
    asked = Asked((Part(words=words),))
    return [
        cards.hits([hit_called(words)], more=True),
        cards.hits([hit_called(None, words)], more=True),
        cards.status(asked, [hit_called("mug")]),
        cards.parts(asked),
        cards.tools(Visit(Asked((Part(row=1),)), before=(asked,)), 24),
    ]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_escaped_in_the_search(cards: Cards, name: str) -> None:
    for harmless, hostile in zip(pieces(cards, "harmless"), pieces(cards, name), strict=True):
        expected, seen = Seen(harmless), Seen(hostile)
        assert seen.tags == expected.tags, "no more elements or attributes"
        shown = name.rsplit("/", 1)[-1]  # only the file name of a source is shown
        assert shown in seen.text or any(shown in value for value in seen.values)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_attributes_are_escaped(cards: Cards, name: str) -> None:
    def seen_with(column: str, value: object) -> Seen:
        return Seen(cards.hits([replace(hit_called("mug"), attributes={column: value})], more=False))

    for hostile in (seen_with(name, name), seen_with(name, [name])):
        assert hostile.tags == seen_with("colour", "red").tags
        assert hostile.text.count(name) == 2
    address = f"https://shop.example/{name}".replace(" ", "+")
    link = seen_with("page", address)
    assert link.tags == seen_with("page", "https://shop.example/1").tags
    assert address in link.values


@pytest.mark.parametrize(
    ("value", "links"),
    [
        ("https://shop.example/1?a=b&c=d#e", 1),
        ("HTTP://192.0.2.1:80/x.jpg", 1),
        (["https://a.example", "red", "https://b.example"], 2),
        ("javascript:alert(1)//https://a.example", 0),
        ("data:text/html,https://a.example", 0),
        ("see https://a.example", 0),
        ("https://a.example and more", 0),
        ("https://", 0),
        ("ftp://a.example/x", 0),
        ("//a.example/x", 0),
        (7, 0),
        (None, 0),
    ],
)
def test_only_addresses_of_the_web_are_links(cards: Cards, value: object, links: int) -> None:
    seen = Seen(cards.hits([replace(hit_called("mug"), attributes={"page": value})], more=False))
    assert [tag for tag, _ in seen.tags].count("a") == links + 1, "and that of the picture"


def test_result_is_named_by_its_label_and_its_file(cards: Cards) -> None:
    def texts(hit: Hit) -> list[str]:
        return [line.strip() for line in Seen(cards.hits([hit], more=False)).text.splitlines() if line.strip()]

    labelled = texts(replace(hit_called("mug", "kitchen/7.png"), attributes={"sold": True, "price": 1.0, "sku": None}))
    assert labelled[0] == "mug"
    assert "7.png" in labelled
    assert {"Sourcekitchen/7.png", "soldtrue", "price1"} <= set(labelled)
    assert "sku" not in "".join(labelled)
    assert texts(hit_called(None, "kitchen/7.png")).count("7.png") == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_escaped_in_header_and_message(name: str) -> None:
    expected = Seen(render("header", name="a", state="b", rows=3, model="c"))
    seen = Seen(render("header", name=name, state=name, rows=3, model=name))
    assert seen.tags == expected.tags
    assert seen.text.count(name) == 3
    assert Seen(render("message", message=name)).tags == [("p", ())]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_escaped_in_the_why_dialogue(name: str) -> None:
    expected, seen = (
        Seen(render("why", notes=[said], pairs=[], cannot=said, numbers=None, data_url=None)) for said in ("a", name)
    )
    assert seen.tags == expected.tags
    assert seen.text.count(name) == 2


def test_numbers_and_json_in_attributes_keep_their_values(searcher: Searcher, cards: Cards, shirt: Path) -> None:
    seen = Seen(Why(searcher, cards).of(Asked((Part(str(shirt)),)), 5))
    pairs, *heat = (np.array(json.loads(value)) for value in seen.values if value.startswith("[["))
    assert pairs.shape == tuple(cells.size for cells in heat)
    score = 0.1 + 0.2
    hits = Seen(cards.hits([replace(hit_called("mug"), score=score, chance=1e-7)], more=False))
    assert {repr(score), repr(1e-7)} <= set(hits.values)


def test_missing_template_value_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="'message' is undefined"):
        render("message")


def test_no_html_is_built_from_strings() -> None:
    """Neither in an f-string nor in a constant with a closing tag: templates escape values, strings do not."""
    found = []
    for path in UI.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in docstrings:
                continue
            if re.search(r"</\w" if id(node) not in inside else r"(?<!\?P)</?\w", node.value):
                found.append(f"{path.name}:{node.lineno}: {node.value!r}")
    assert found == []
