"""Results saved as files and read back with standard libraries."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from retrieval.errors import QueryError
from retrieval.images.gallery import BASE_SCHEMA, Gallery, conform, write_gallery
from retrieval.query import MAX_K
from retrieval.ui.pieces.downloads import make_file

SHOWN = [[2, 0.75, 0.9], (0, 0.5, None), [3, -0.25, 0]]
LABELS = ["mug", "a, \"b\"\n'c'", "../../etc/pässe", None]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    path = tmp_path_factory.mktemp("downloads") / "gallery.parquet"
    schema = pa.schema([*BASE_SCHEMA, ("size", pa.int64()), ("colour", pa.string())])
    table = pa.table(
        {
            "id": [f"id{row}" for row in range(4)],
            "thumbnail": [f"jpeg {row}".encode() for row in range(4)],
            "label": LABELS,
            "source": [f"folder/{row}.png" for row in range(4)],
            "size": [1, None, 3, 4],
            "colour": ["grün", "red", "blue", None],
        }
    )
    write_gallery(path, [conform(table, schema)], schema)
    return Gallery(path)


def test_csv_has_one_row_per_result(gallery: Gallery) -> None:
    name, mime, content = make_file("csv", SHOWN, gallery)
    assert (name, mime) == ("hits.csv", "text/csv")
    lines = list(csv.reader(io.StringIO(content.decode(), newline="")))
    assert lines == [
        ["rank", "id", "label", "score", "chance", "source", "size", "colour"],
        ["1", "id2", LABELS[2], "0.75", "0.9", "folder/2.png", "3", "blue"],
        ["2", "id0", "mug", "0.5", "", "folder/0.png", "1", "grün"],
        ["3", "id3", "", "-0.25", "0", "folder/3.png", "4", ""],
    ]
    quoted = csv.reader(io.StringIO(make_file("csv", [[1, 1, 1]], gallery)[2].decode(), newline=""))
    assert list(quoted)[1][2] == LABELS[1]


def test_csv_has_lists_as_json(tmp_path: Path) -> None:
    schema = pa.schema([*BASE_SCHEMA, ("tags", pa.list_(pa.string()))])
    table = pa.table({"id": ["a", "b"], "source": ["a", "b"], "tags": [["grün", 'a "b", c'], []]})
    write_gallery(tmp_path / "g", [conform(table, schema)], schema)
    content = make_file("csv", [[0, 1, 1], [1, 1, 1]], Gallery(tmp_path / "g"))[2].decode()
    assert [json.loads(line[-1]) for line in list(csv.reader(io.StringIO(content)))[1:]] == [["grün", 'a "b", c'], []]


def test_json_has_one_record_per_result(gallery: Gallery) -> None:
    name, mime, content = make_file("json", SHOWN, gallery)
    assert (name, mime) == ("hits.json", "application/json")
    records = json.loads(content)
    assert [(one["rank"], one["id"], one["score"], one["chance"]) for one in records] == [
        (1, "id2", 0.75, 0.9), (2, "id0", 0.5, None), (3, "id3", -0.25, 0),
    ]  # fmt: skip
    assert records[1] == {
        "rank": 2,
        "id": "id0",
        "label": "mug",
        "score": 0.5,
        "chance": None,
        "source": "folder/0.png",
        "attributes": {"size": 1, "colour": "grün"},
    }


def test_zip_holds_the_stored_thumbnails_under_safe_names(gallery: Gallery) -> None:
    name, mime, content = make_file("zip", SHOWN, gallery)
    assert (name, mime) == ("hits.zip", "application/zip")
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        assert file.testzip() is None
        assert file.namelist() == ["0001--etc-pässe-2.jpg", "0002-mug-0.jpg", "0003--3.jpg", "hits.csv"]
        assert [file.read(each) for each in file.namelist()[:3]] == [b"jpeg 2", b"jpeg 0", b"jpeg 3"]
        assert file.read("hits.csv") == make_file("csv", SHOWN, gallery)[2]


@pytest.mark.parametrize("kind", ["csv", "json", "zip"])
def test_a_file_of_no_results_has_no_rows(gallery: Gallery, kind: str) -> None:
    assert b"id0" not in make_file(kind, [], gallery)[2]


def test_saving_more_results_than_a_search_gives_is_an_error(gallery: Gallery) -> None:
    assert len(json.loads(make_file("json", [[0, 1.0, None]] * MAX_K, gallery)[2])) == MAX_K
    with pytest.raises(QueryError, match="at most 1000 results"):
        make_file("json", [[0, 1.0, None]] * (MAX_K + 1), gallery)


@pytest.mark.parametrize(
    "shown",
    [
        [[4, 1.0, None]], [[-1, 1.0, None]], [[1.0, 1.0, None]], [[True, 1.0, None]], [["1", 1.0, None]],
        [[1, "=1+1", None]], [[1, 1.0, "high"]], [[1, None, None]], [[1, 1.0]], [1], ["abc"], {"a": 1}, "abc", 7, None,
    ],
)  # fmt: skip
def test_malformed_results_are_refused(gallery: Gallery, shown: Any) -> None:
    with pytest.raises(QueryError, match="expected at most 1000 results, each with row, score and match probability"):
        make_file("csv", shown, gallery)


@pytest.mark.parametrize("kind", ["exe", "", "../csv", "x" * 9999])
def test_unknown_file_formats_are_refused(gallery: Gallery, kind: str) -> None:
    with pytest.raises(QueryError, match="as csv, json, zip, not as") as raised:
        make_file(kind, SHOWN, gallery)
    assert len(str(raised.value)) < 200
