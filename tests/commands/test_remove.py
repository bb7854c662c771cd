"""`remove` by filter, source and id: exactly the images that match, and a list of them first."""

import pyarrow.parquet as pq
import pytest
from conftest import contents, noise

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact


def rows_of(folder):
    return pq.read_table(folder / LAYOUT.gallery).drop_columns(["thumbnail"]).to_pylist()


def lines_of(rows):
    return [[row["id"], row["label"], row["source"]] for row in rows]


@pytest.mark.parametrize(
    ("conditions", "matches"),
    [
        (
            ["colour=red", "colour=teal", "pattern=plain"],
            lambda r: r["colour"] in ("red", "teal") and r["pattern"] == "plain",
        ),
        (["price=12"], lambda row: row["price"] == 12),
        (["label=shirt"], lambda row: row["label"] == "shirt"),
    ],
)
def test_remove_where_removes_exactly_the_matching_images(copied_artifact, here, conditions, matches):
    rows = rows_of(copied_artifact)
    gone = [row for row in rows if matches(row)]
    options = [word for condition in conditions for word in ("--where", condition)]
    before = contents(copied_artifact)
    status, printed, error = here("remove", copied_artifact, *options, "--dry-run")
    assert (status, error) == (0, "")
    first, *lines = printed.splitlines()
    assert first == f"would remove {len(gone)} of 60 images:"
    assert [line.split() for line in lines] == lines_of(gone)
    assert contents(copied_artifact) == before
    status, printed, error = here("remove", copied_artifact, *options)
    assert (status, error) == (0, "")
    first, *lines, last = printed.splitlines()
    assert first == f"removing {len(gone)} of 60 images:"
    assert [line.split() for line in lines] == lines_of(gone)
    assert last == f"{len(gone)} removed, {60 - len(gone)} left"
    assert rows_of(copied_artifact) == [row for row in rows if not matches(row)]
    assert len(load_artifact(copied_artifact).store) == 60 - len(gone)


def test_remove_by_source_and_id(copied_artifact, here):
    rows = rows_of(copied_artifact)
    paths = [rows[5]["source"], rows[40]["source"]]
    status, printed, error = here(
        "remove", copied_artifact, rows[7]["id"], "--path", paths[1], "--path", paths[0], rows[5]["id"]
    )
    assert status == 0, error
    assert [line.split() for line in printed.splitlines()[1:-1]] == lines_of([rows[5], rows[7], rows[40]])
    assert rows_of(copied_artifact) == [row for number, row in enumerate(rows) if number not in (5, 7, 40)]


def test_remove_by_source_removes_every_image_of_that_name(copied_artifact, tmp_path, here):
    """Two sources may have a file of the same name, with other content."""
    source = rows_of(copied_artifact)[3]["source"]
    noise(tmp_path / "more" / source, 1)
    assert here("add", copied_artifact, tmp_path / "more")[0] == 0
    status, printed, _ = here("remove", copied_artifact, "--path", source)
    assert status == 0
    assert printed.splitlines()[0] == "removing 2 of 61 images:"
    assert source not in {row["source"] for row in rows_of(copied_artifact)}


def test_remove_finds_images_without_a_value(copied_artifact, tmp_path, here):
    noise(tmp_path / "more" / "1.png", 1)
    assert here("add", copied_artifact, tmp_path / "more")[0] == 0
    assert here("remove", copied_artifact, "--where", "label=")[1].endswith("\n1 removed, 60 left\n")
    assert "1.png" not in {row["source"] for row in rows_of(copied_artifact)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--where", "color=red"], "no column 'color'; did you mean 'colour'"),
        (["--where", "colour=rde"], "no image has colour=rde; did you mean 'red'"),
        (
            ["--where", "price=12", "--where", "label=shirt", "--where", "pattern=striped"],
            "no image matches --where price=12 --where label=shirt --where pattern=striped; nothing was removed.",
        ),
        (
            ["--path", "shirt/rde-plain.png"],
            "no image has source=shirt/rde-plain.png; did you mean 'shirt/red-plain.png'",
        ),
        (["--path", "shirt/red-plain.png", "--path", "gone.png"], "no image has source=gone.png"),
        (["nothing", "--path", "shirt/red-plain.png"], "no image with the id 'nothing'"),
        (["--where", "colour=red", "--path", "shirt/red-plain.png"], "give either --where, or ids and --path"),
        (["--where", "colour"], "a filter must have the form COLUMN=VALUE"),
        (
            [
                word
                for one in ("shirt", "dress", "trousers", "skirt", "sneaker")
                for word in ("--where", f"label={one}")
            ],
            "this would remove 60 of 60 images; to remove all of them, delete the folder",
        ),
    ],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_remove_that_fails_is_a_one_line_error_and_changes_nothing(copied_artifact, here, options, words, more):
    before = contents(copied_artifact)
    status, printed, error = here("remove", copied_artifact, *options, *more)
    assert (status, printed) == (1, "")
    assert words in error
    assert len(error.splitlines()) == 1
    assert contents(copied_artifact) == before
