"""`list` and `info`: what an artifact contains."""

import csv
import io
import json
import shutil
from datetime import date
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import BACKBONE, noise, reseal

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact
from retrieval.build.build import build_artifact
from retrieval.images.columns import as_texts, describe_columns
from retrieval.images.gallery import BASE_SCHEMA, Gallery
from retrieval.sources.open import open_source


@pytest.fixture(scope="module")
def rows(artifact):
    """The rows of the gallery file, without the thumbnails."""
    table = pq.read_table(artifact / LAYOUT.gallery)
    return table.drop_columns(["thumbnail"]).to_pylist()


def test_list_prints_one_line_per_image(artifact, rows, here):
    status, printed, error = here("list", artifact)
    assert (status, error) == (0, "60 of 60 images\n")
    assert [line.split() for line in printed.splitlines()] == [[row["id"], row["label"], row["source"]] for row in rows]


def test_list_shows_matching_images_and_chosen_columns(artifact, rows, here):
    options = ["--where", "colour=red", "--where", "colour=teal", "--where", "pattern=plain"]
    status, printed, error = here("list", artifact, *options, "--columns", "price,label, colour")
    wanted = [row for row in rows if row["colour"] in ("red", "teal") and row["pattern"] == "plain"]
    assert (status, error) == (0, f"{len(wanted)} of 60 images\n")
    assert len(wanted) == 10
    assert [line.split()[3:] for line in printed.splitlines()] == [
        [f"price={row['price']}", f"colour={row['colour']}"] for row in wanted
    ]


def test_list_prints_json_like_search(artifact, pictures, rows, here):
    status, printed, error = here("list", artifact, "--where", "label=shirt", "--json")
    listed = json.loads(printed)
    assert (status, error) == (0, "")
    assert listed == [
        {
            "row": number,
            **{name: row[name] for name in ("id", "label", "source")},
            "attributes": {name: row[name] for name in ("colour", "pattern", "price")},
        }
        for number, row in enumerate(rows)
        if row["label"] == "shirt"
    ]
    hits = json.loads(here("search", artifact, pictures / listed[0]["source"], "-k", 1, "--json")[1])
    assert {name: hits[0][name] for name in listed[0]} == listed[0]
    few = json.loads(here("list", artifact, "--where", "label=shirt", "--json", "--columns", "price")[1])
    assert [image["attributes"] for image in few] == [{"price": image["attributes"]["price"]} for image in listed]


def test_list_writes_csv(artifact, rows, tmp_path, here):
    status, printed, _ = here("list", artifact, "--csv", "-")
    names = ["id", "label", "source", "colour", "pattern", "price"]
    expected = [{name: str(row[name]) for name in names} for row in rows]
    assert status == 0
    assert list(csv.DictReader(io.StringIO(printed))) == expected
    status, printed, _ = here("list", artifact, "--csv", tmp_path / "rows.csv", "--columns", "price")
    assert (status, printed) == (0, "")
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [
            {name: row[name] for name in ("id", "label", "source", "price")} for row in expected
        ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--where", "color=red"], "no column 'color'; did you mean 'colour'"),
        (["--where", "colour=rde"], "no image has colour=rde; did you mean 'red'"),
        (["--columns", "pric"], "no attribute 'pric'; did you mean 'price'?"),
        (["--csv", "{tmp}/no/rows.csv"], "no/rows.csv"),
    ],
)
def test_invalid_option_of_list_is_a_one_line_error(artifact, tmp_path, here, options, words):
    status, printed, error = here("list", artifact, *(each.format(tmp=tmp_path) for each in options))
    assert (status, printed) == (1, "")
    assert words in error
    assert len(error.splitlines()) == 1


def test_line_end_in_a_name_does_not_break_a_line(encoder, tmp_path, here):
    noise(tmp_path / "photos" / "cat" / "a\nb\x1b[31m.png", 1)
    noise(tmp_path / "photos" / "2.png", 2)
    build_artifact(open_source(str(tmp_path / "photos")), tmp_path / "it", encoder)
    printed = here("list", tmp_path / "it")[1]
    assert len(printed.splitlines()) == 2
    assert "cat/a\\nb\\x1b[31m.png" in printed
    assert "\x1b" not in printed
    assert {image["source"] for image in json.loads(here("list", tmp_path / "it", "--json")[1])} == {
        "cat/a\nb\x1b[31m.png",
        "2.png",
    }
    assert "\x1b" not in here("info", tmp_path / "it")[1]


def test_list_refuses_a_damaged_gallery(copied_artifact, here):
    data = bytearray((copied_artifact / LAYOUT.gallery).read_bytes())
    data[100] ^= 1
    (copied_artifact / LAYOUT.gallery).write_bytes(data)
    for name in ("list", "info"):
        status, printed, error = here(name, copied_artifact)
        assert (status, printed) == (1, "")
        assert error.startswith("error: gallery.parquet: SHA-256: the manifest says ")


def test_gallery_of_another_artifact_is_refused(copied_artifact, starter, here):
    shutil.copy(starter / LAYOUT.gallery, copied_artifact / LAYOUT.gallery)
    reseal(copied_artifact)
    status, _, error = here("list", copied_artifact)
    assert status == 1
    assert "gallery.parquet: number of rows: the manifest says 60, found 1152" in error


# info


def test_info_describes_rows_columns_files_and_source(artifact, pictures, rows, here):
    status, printed, error = here("info", artifact, "--json")
    facts = json.loads(printed)
    assert (status, error) == (0, "")
    manifest = json.loads((artifact / LAYOUT.manifest).read_text())
    assert facts["artifact"] == str(artifact)
    assert facts["rows"] == 60
    assert facts["files"] == {
        path.relative_to(artifact).as_posix(): path.stat().st_size
        for path in artifact.rglob("*")
        if path.is_file() and path.name != LAYOUT.manifest
    }
    assert facts["bytes"] == sum(facts["files"].values())
    assert facts["encoder"] == {
        "architecture": BACKBONE,
        "fingerprint": load_artifact(artifact).encoder.fingerprint,
    }
    assert facts["dimension"] == 16
    assert facts["index"] == manifest["index"]
    assert facts["build"]["source"]["name"] == pictures.name
    assert (facts["changes"], facts["text"], facts["map"]) == ([], None, None)
    columns = {column["name"]: column for column in facts["columns"]}
    assert list(columns) == ["id", "label", "source", "colour", "pattern", "price"]
    for name, column in columns.items():
        values = [row[name] for row in rows]
        distinct = dict.fromkeys(values)
        common = sorted(distinct, key=lambda value: -values.count(value))
        assert column == {
            "name": name,
            "type": "int64" if name == "price" else "string",
            "values": len(distinct),
            "missing": 0,
            "examples": list(islice(common, 3)),
        }


def test_info_prints_what_a_person_asks_first(artifact, pictures, here):
    status, printed, _ = here("info", artifact)
    lines = printed.splitlines()
    assert status == 0
    assert lines[0].startswith(f"{artifact}: 60 images, ")
    assert f"encoder  {BACKBONE}, 16 dimensions" in lines
    assert "index    Flat" in lines
    assert f"source   {pictures.name}: found 60 = indexed 60 + skipped 0 + duplicate 0" in lines
    [price] = [line for line in lines if line.startswith("  price ")]
    assert price.split() == ["price", "int64", "60", "values:", "10,", "11,", "12"]
    [size] = [line for line in lines if line.startswith("  index.faiss ")]
    assert size.split()[1:] == [f"{(artifact / 'index.faiss').stat().st_size:,}", "bytes"]


def test_info_lists_the_changes(copied_artifact, tmp_path, here):
    noise(tmp_path / "more" / "1.png", 1)
    ids = load_artifact(copied_artifact).gallery.ids
    assert here("add", copied_artifact, tmp_path / "more")[0] == 0
    assert here("remove", copied_artifact, *ids[:2])[0] == 0
    lines = here("info", copied_artifact)[1].splitlines()
    assert [line for line in lines if line.startswith("change")] == [
        "change   add: more: found 1 = indexed 1 + skipped 0 + duplicate 0",
        "change   remove: 2 images",
    ]
    assert lines[0].startswith(f"{copied_artifact}: 59 images, ")
    [label] = [line for line in lines if line.startswith("  label ")]
    assert "5 values, none in 1 row: " in label
    changes = json.loads(here("info", copied_artifact, "--json")[1])["changes"]
    assert [list(change) for change in changes] == [["add"], ["remove"]]


def test_info_and_the_card_name_the_source_of_a_sync(copied_artifact, tmp_path, here):
    size = len(load_artifact(copied_artifact).gallery)
    for seed in (71, 72):
        noise(tmp_path / "later" / "x" / f"{seed}.png", seed)
    status, _, said = here("sync", copied_artifact, tmp_path / "later")
    assert status == 0, said
    [line] = [line for line in here("info", copied_artifact)[1].splitlines() if line.startswith("change")]
    assert line == f"change   sync: later: 2 new, 0 changed, 0 unchanged, {size} removed"
    assert "later" in (copied_artifact / "README.md").read_text()


def test_info_names_the_text_model(twins, here):
    lines = here("info", twins)[1].splitlines()
    assert "words    searches by words are possible, with clip-tiny, licence unknown" in lines


def test_columns_of_every_type_are_described(tmp_path):
    columns = {
        "tags": pa.array([["a", "b"], ["b"], None], pa.list_(pa.string())),
        "day": pa.array([date(2026, 1, 2), None, date(2026, 1, 2)]),
        "sale": pa.array([True, False, True]),
        "empty": pa.nulls(3),
        "weight": pa.array([0.1, None, 1.0]),
    }
    base = {item.name: pa.array(["x", "y", "z"]).cast(item.type) for item in BASE_SCHEMA}
    pq.write_table(pa.table({**base, **columns}), tmp_path / "gallery.parquet")
    gallery = Gallery(tmp_path / "gallery.parquet")
    found = {column.name: column for column in describe_columns(gallery)}
    assert (found["tags"].values, found["tags"].missing, found["tags"].examples) == (2, 1, ["b", "a"])
    assert (found["day"].values, found["day"].missing, found["day"].examples) == (1, 1, [date(2026, 1, 2)])
    assert (found["sale"].type, found["sale"].examples) == ("bool", [True, False])
    assert (found["empty"].values, found["empty"].missing, found["empty"].examples) == (0, 3, [])
    every = pa.array([0, 1, 2]).to_numpy()
    assert as_texts(gallery, "tags", every) == ['["a", "b"]', '["b"]', ""]
    assert as_texts(gallery, "day", every) == ["2026-01-02", "", "2026-01-02"]
    assert as_texts(gallery, "sale", every) == ["true", "false", "true"]
    assert as_texts(gallery, "weight", every[[2, 0]]) == ["1", "0.1"]
