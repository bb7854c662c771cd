"""The state of a visit: every button, undo and earlier searches, links, and what is refused."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import pyarrow as pa
import pytest

from retrieval.errors import ImageError, LookalikeError, QueryError
from retrieval.images.gallery import BASE_SCHEMA, Gallery, conform, write_gallery
from retrieval.query import MAX_K
from retrieval.search import Part
from retrieval.ui.links import link_of, read_link
from retrieval.ui.visit import MAX_PARTS, PAGE, Asked, Visit, after, mark_of, number_of

ROWS = 20
REGION = (0.1, 0.2, 0.5, 0.75)
MINE = Part("mine.png")


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    path = tmp_path_factory.mktemp("asked") / "gallery.parquet"
    schema = pa.schema([*BASE_SCHEMA, ("size", pa.int64())])
    table = pa.table(
        {
            "id": [f"id{row}" for row in range(ROWS)],
            "label": [("grün & blau", "mug")[row % 2] for row in range(ROWS)],
            "size": [row % 3 for row in range(ROWS)],
        }
    )
    write_gallery(path, [conform(table, schema)], schema)
    return Gallery(path)


def press(visit: Visit, do: str, **data: Any) -> Visit:
    if "place" in data:
        data["part"] = mark_of(visit.asked.parts[int(data["place"])])
    return after(visit, {"do": do, **data}, ROWS)


def parts(visit: Visit) -> list[tuple[int | None, float]]:
    return [(part.row, part.weight) for part in visit.asked.parts]


# Buttons


def test_a_new_search_replaces_everything_but_the_filter() -> None:
    start = Visit(Asked((MINE, Part(row=3)), (("label", ("mug",)),)), pages=3)
    found = press(start, "search", row="7")
    assert found.asked == Asked((Part(row=7),), (("label", ("mug",)),))
    assert (found.before, found.pages) == ((start.asked,), 1)


def test_likes_and_dislikes_are_added_to_the_query() -> None:
    visit = press(press(Visit(Asked((MINE,))), "like", row=2), "unlike", row=5)
    assert parts(visit) == [(None, 1), (2, 1), (5, -1)]
    assert parts(press(visit, "unlike", row=2)) == [(None, 1), (5, -1), (2, -1)], "not added twice with two weights"
    assert press(visit, "unlike", row=5) == visit, "nothing changes, so there is no step to undo"
    part = Asked((Part(row=2, region=REGION),)).with_part(Part(row=2))
    assert len(part.parts) == 2, "a region and the whole picture are different parts"


def test_part_can_be_switched_removed_cropped_and_restored() -> None:
    visit = press(press(Visit(Asked((MINE,))), "like", row=2), "unlike", row=5)
    assert parts(press(visit, "turn", place=1)) == [(None, 1), (2, -1), (5, -1)]
    assert parts(press(press(visit, "turn", place=1), "turn", place=1)) == parts(visit)
    assert parts(press(visit, "away", place="0")) == [(2, 1), (5, -1)]
    cut = press(visit, "region", place=0, region=list(REGION))
    assert [part.region for part in cut.asked.parts] == [REGION, None, None]
    assert press(cut, "whole", place=0).asked == visit.asked
    assert press(visit, "whole", place=0) == visit


def test_show_more_adds_a_page_until_the_next_search() -> None:
    visit = press(press(Visit(Asked((MINE,))), "more"), "more")
    assert (visit.pages, visit.before) == (3, ())
    assert press(visit, "like", row=1).pages == 1


def test_a_query_has_at_most_one_text_beside_its_pictures() -> None:
    asked = Asked((MINE,)).words(" a red bag ")
    assert asked.parts == (MINE, Part(words="a red bag"))
    assert asked.words("a hat").parts == (MINE, Part(words="a hat"))
    assert asked.words("  ").parts == (MINE,)


def test_filters_are_set_and_removed_by_column() -> None:
    asked = Asked((MINE,)).filtered("label", ["mug"]).filtered("size", ["0", "2"])
    assert asked.filter == {"label": ["mug"], "size": ["0", "2"]}
    assert asked.filtered("label", ["grün & blau"]).filter == {"size": ["0", "2"], "label": ["grün & blau"]}
    assert asked.filtered("size", None).filter == {"label": ["mug"]}
    assert asked.parts == (MINE,)


# Earlier searches


def test_every_step_can_be_undone_and_returned_to() -> None:
    steps = [Visit()]
    for do, data in [
        ("search", {"row": 1}), ("like", {"row": 2}), ("unlike", {"row": 3}), ("turn", {"place": 0}),
        ("region", {"place": 1, "region": list(REGION)}), ("away", {"place": 0}), ("clear", {}),
    ]:  # fmt: skip
        steps.append(press(steps[-1], do, **data))
    last = steps[-1]
    assert last.asked == Asked()
    assert last.before == tuple(step.asked for step in steps[:-1])
    for place, step in enumerate(steps[:-1]):
        back = press(last, "back", step=place)
        assert (back.asked, back.before) == (step.asked, step.before)
        assert press(back, "back", step=len(steps) - 1) == last, "and one can go forward again"
    for step in reversed(steps[:-1]):
        last = press(last, "undo")
        assert (last.asked, last.before) == (step.asked, step.before)
    assert press(last, "undo") == last
    assert press(last, "search", row=5).ahead == (), "a new search drops the steps ahead"


# Links


@pytest.mark.parametrize("k", [PAGE, 7, MAX_K])
@pytest.mark.parametrize(
    "asked",
    [
        Asked((Part(row=4),)),
        Asked((Part(row=4), Part(row=0), Part(row=19, weight=-1))),
        Asked((Part(row=4, weight=-1),)),
        Asked((Part(row=4),), (("label", ("grün & blau", "mug")), ("size", ("2",)))),
        Asked((Part(row=4),), (("size", ("2",)),), "size>=1, label=grün & blau", "label"),
    ],
)
def test_link_restores_a_search(gallery: Gallery, asked: Asked, k: int) -> None:
    link = link_of(asked, k, gallery)
    assert link.startswith("?")
    assert link.isascii()
    assert read_link(parse_qs(link[1:]), gallery) == (asked, k)
    assert ("k=" in link) == (k != PAGE)


@pytest.mark.parametrize(
    "others", [(MINE,), (Part(row=1), MINE), (Part(words="a hat"),), (Part(row=1, region=REGION),)]
)
def test_uploads_text_and_regions_have_no_link(gallery: Gallery, others: tuple[Part, ...]) -> None:
    assert link_of(Asked(others, (("label", ("mug",)),)), PAGE, gallery) == ""


def test_a_link_without_a_search_opens_the_plain_page(gallery: Gallery) -> None:
    assert read_link({}, gallery) == (Asked(), PAGE)
    assert read_link({"__theme": ["dark"]}, gallery) == (Asked(), PAGE)
    assert read_link({"where": ['{"size": 2}']}, gallery)[0].filter == {"size": ["2"]}
    with pytest.raises(QueryError, match=f"at most {MAX_PARTS} parts"):
        read_link({"id": [f"id{row}" for row in range(ROWS)]}, gallery)
    twice = read_link({"id": ["id1", "id1", "id2"]}, gallery)[0]
    assert [part.row for part in twice.parts] == [1, 2]


def test_a_link_can_hold_a_filter_alone(gallery: Gallery) -> None:
    asked = Asked((), (("label", ("mug",)),))
    assert read_link(parse_qs(link_of(asked, PAGE, gallery)[1:]), gallery) == (asked, PAGE)
    assert link_of(Asked(), PAGE, gallery) == ""


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"id": ["nobody"]}, "no image with the id 'nobody'"),
        ({"unlike": ["nobody"]}, "no image with the id 'nobody'"),
        ({"where": ["{"]}, "the filter in this link cannot be read: '{'"),
        ({"where": ["[1]"]}, "the filter in this link cannot be read"),
        ({"where": ["[" * 60_000]}, "the filter in this link cannot be read"),
        ({"where": ['{"colour": "red"}']}, "no column 'colour'"),
        ({"where": ['{"label": "mugs"}']}, "did you mean 'mug'"),
        ({"where": ['{"label": {"a": 1}}']}, "has no operator 'a'"),
        ({"where": ['{"size": {">": 1}}']}, "size> has to be in filter="),
        ({"filter": ["size>1, label"]}, "1, label cannot be compared"),
        ({"filter": ["sise>1"]}, "did you mean 'size'"),
        ({"filter": ["size"]}, "COLUMN=VALUE, not 'size'"),
        ({"filter": ["size>1," * 1000]}, "at most 500 characters, not 7,000"),
        ({"group": ["labels"]}, "did you mean 'label'"),
        ({"k": ["0"]}, "from 1 to 1000; the link has '0'"),
        ({"k": ["1001"]}, "the link has '1001'"),
        ({"k": ["-3"]}, "the link has '-3'"),
        ({"k": ["many"]}, "the link has 'many'"),
        ({"k": ["9" * 5000]}, "from 1 to 1000"),
    ],
)
def test_an_invalid_link_is_refused_with_the_reason(gallery: Gallery, query: dict, words: str) -> None:
    with pytest.raises(QueryError) as raised:
        read_link(query, gallery)
    assert words in str(raised.value)
    assert len(str(raised.value)) < 300


# What is refused or ignored


def test_a_query_has_a_limited_number_of_parts() -> None:
    visit = Visit()
    for row in range(MAX_PARTS):
        visit = press(visit, "like", row=row)
    with pytest.raises(QueryError, match=f"at most {MAX_PARTS} parts: remove one first"):
        press(visit, "like", row=MAX_PARTS)
    assert len(press(visit, "unlike", row=0).asked.parts) == MAX_PARTS, (
        "a part that is already there is switched, not added"
    )


@pytest.mark.parametrize(
    "pressed",
    [
        {},
        {"do": None},
        {"do": "buy"},
        {"do": ["search"], "row": 1},
        {"do": "search"},
        {"do": "search", "row": ROWS},
        {"do": "search", "row": -1},
        {"do": "search", "row": 1.5},
        {"do": "search", "row": True},
        {"do": "search", "row": [1]},
        {"do": "like", "row": "9" * 5000},
        {"do": "back", "step": 2},
        {"do": "region", "part": mark_of(MINE)},
        {"do": "region", "part": mark_of(MINE), "region": 5},
        {"do": "region", "part": mark_of(MINE), "region": [0, 0, 1]},
        {"do": "region", "part": mark_of(MINE), "region": [[0], 0, 1, 1]},
        {"do": "region", "part": mark_of(MINE), "region": [0, 0, 1, float("nan")]},
        {"do": "region", "part": mark_of(MINE), "region": {"path": "/etc/hosts"}},
    ],
)
def test_actions_that_no_page_sends_are_refused(pressed: dict) -> None:
    visit = Visit(Asked((MINE, Part(row=1))), (Asked(),))
    with pytest.raises(LookalikeError) as raised:
        after(visit, pressed, ROWS)
    assert isinstance(raised.value, ImageError if pressed.get("do") == "region" else QueryError)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("named", [{}, {"place": 2}, {"place": "-1"}, {"place": "²"}, {"place": 0, "part": "gone"}])
@pytest.mark.parametrize("do", ["turn", "away", "whole", "region"])
def test_an_action_on_a_removed_part_does_nothing(do: str, named: dict) -> None:
    visit = Visit(Asked((MINE, Part(row=1))), (Asked(),))
    assert after(visit, {"do": do, **named}, ROWS) == visit


def test_a_part_is_found_after_its_place_has_changed() -> None:
    visit = Visit(Asked((MINE, Part(row=1), Part(row=1, region=REGION))))
    second = {"part": mark_of(Part(row=1)), "place": "1"}
    assert parts(after(press(visit, "away", place=0), {"do": "turn", **second}, ROWS)) == [(1, 1), (1, -1)]
    once = after(visit, {"do": "away", **second}, ROWS)
    assert once.asked.parts == (MINE, Part(row=1, region=REGION))


def test_numbers_may_be_sent_as_text() -> None:
    assert [number_of({"row": value}, "row", 5) for value in ("3", 3, "03", "٣")] == [3] * 4
