"""`search DIR FOLDER --jsonl`: many queries with one start."""

import json
import os
import shutil

import pytest
from conftest import noise

from retrieval.search import Searcher


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    """Three pictures of the gallery and one of noise, in sub-folders, with hidden and unreadable files beside them."""
    root = tmp_path_factory.mktemp("queries")
    chosen = sorted(pictures.rglob("*.png"))[::12]
    for number, path in enumerate(chosen[:3]):
        (root / "b").mkdir(exist_ok=True)
        shutil.copy(path, root / "b" / f"{2 - number}.png")
    noise(root / "a\nb.png", 1)
    noise(root / ".hidden.png", 2)
    noise(root / ".cache" / "3.png", 3)
    (root / "c.png").write_text("no picture, but words")
    (root / "gone.png").symlink_to(root / "nowhere.png")
    return root


NAMES = ["a\nb.png", "b/0.png", "b/1.png", "b/2.png"]
UNREADABLE = ["c.png", "gone.png"]


def answers_of(printed):
    return [json.loads(line) for line in printed.split("\n")[:-1]]


def test_folder_gives_one_line_per_file_in_order(artifact, folder, here):
    status, printed, error = here("search", artifact, folder, "--jsonl")
    answers = answers_of(printed)
    assert status == 0
    assert [answer["query"] for answer in answers] == [*NAMES, *UNREADABLE]
    assert [sorted(answer) for answer in answers] == [["hits", "query"]] * 4 + [["error", "query"]] * 2
    assert "c.png is not a readable picture" in answers[4]["error"]
    assert answers[5]["error"] == "gone.png: no such file"
    assert error == "4 images searched for, 2 files not readable\n"


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-k", "12", "--min-score", "0.5"],
        ["--where", "colour=red", "--where", "pattern=plain", "-k", "3"],
        ["--fold", "--region", "0.25,0,0.75,0.5"],
        ["--where", "price=12", "--where", "colour=teal"],
    ],
)
def test_every_line_has_the_hits_of_a_single_search(artifact, folder, here, options):
    answers = answers_of(here("search", artifact, folder, "--jsonl", *options)[1])
    for answer in answers[:4]:
        status, printed, _ = here("search", artifact, folder / answer["query"], "--json", *options)
        assert status == 0
        assert answer["hits"] == json.loads(printed)


def test_options_apply_to_every_image_of_the_folder(twins, folder, here):
    searcher = Searcher.open(twins)
    ids = searcher.gallery.ids
    colour = next(iter(searcher.gallery.counts("colour")))  # the most common one, with near-duplicates
    options = ["--text", "a red shirt", "--like", ids[3], "--unlike", ids[5], "--region", "0.25,0,0.75,0.5"]
    refined = {"words": "a red shirt", "like": [ids[3]], "unlike": [ids[5]], "region": (0.25, 0, 0.75, 0.5)}
    refined |= {"where": {"colour": colour}, "fold": True}
    least = round(searcher.search(folder / NAMES[0], 20, **refined)[3].score - 1e-4, 4)  # the others are too far away
    options += ["--where", f"colour={colour}", "--fold", "-k", 20, "--min-score", least]
    answers = answers_of(here("search", twins, folder, "--jsonl", *options)[1])
    assert len(answers[0]["hits"]) == 4
    folded = 0
    for answer in answers[:4]:
        found = searcher.search(folder / answer["query"], 20, **refined, min_score=least)
        assert [(hit["id"], hit["score"], hit["alike"]) for hit in answer["hits"]] == [
            (hit.id, hit.score, [ids[row] for row in hit.alike]) for hit in found
        ]
        folded += any(hit.alike for hit in found)
    assert folded


def test_invalid_filter_is_an_error_even_if_the_first_file_is_unreadable(artifact, tmp_path, here):
    noise(tmp_path / "q" / "2.png", 1)
    (tmp_path / "q" / "1.txt").write_text("no picture, but words")
    status, printed, error = here("search", artifact, tmp_path / "q", "--jsonl", "--where", "color=red")
    assert (status, printed) == (1, "")
    assert "no column 'color'; did you mean 'colour'" in error


def test_file_name_that_is_not_utf_8_is_searched_for(artifact, tmp_path, here):
    noise(tmp_path / "q" / "1.png", 1).rename(tmp_path / "q" / os.fsdecode(b"caf\xe9.png"))
    status, printed, _ = here("search", artifact, tmp_path / "q", "--jsonl")
    assert status == 0
    assert answers_of(printed)[0]["query"] == "caf\N{REPLACEMENT CHARACTER}.png"
    assert len(answers_of(printed)[0]["hits"]) == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{folder}", "--jsonl", "-k", "0"], "k, the number of hits, must be from 1 to 1000, not 0"),
        (["{folder}", "--jsonl", "--where", "color=red"], "no column 'color'; did you mean 'colour'"),
        (["{folder}", "--jsonl", "--where", "colour=rde"], "no image has colour=rde; did you mean 'red'"),
        (["{folder}", "--jsonl", "--like", "nothing"], "no image with the id 'nothing'"),
        (["{folder}", "--jsonl", "--text", "a red shirt"], "no text model: build it with --text-model"),
        (["{folder}/c.png", "--jsonl"], "c.png is not a folder"),
        (["{folder}/nowhere", "--jsonl"], "nowhere is not a folder"),
        (["--jsonl"], "--jsonl searches with every image of a folder, but none was given"),
        (["{empty}", "--jsonl"], "contains no image to search with"),
        (["{folder}"], "is a folder; add --jsonl to search with every image in it"),
    ],
)
def test_invalid_search_of_a_folder_is_a_one_line_error(artifact, folder, tmp_path, here, arguments, words):
    status, printed, error = here(
        "search", artifact, *(each.format(folder=folder, empty=tmp_path) for each in arguments)
    )
    assert (status, printed) == (1, "")
    assert words in error
    assert len(error.splitlines()) == 1
