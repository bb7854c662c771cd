"""Lists of pictures as people have them: each test writes one, and compares what was read with it, cell by cell."""

import base64
import json
import re
import tracemalloc
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, png

from retrieval.build.build import build_artifact
from retrieval.errors import ImageError, SourceError
from retrieval.sources.lists import names
from retrieval.sources.open import open_source, pinned, split_names

PICTURES = {number: png(number) for number in range(4)}
COMPOSED, SPLIT_UP = unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png")


@pytest.fixture
def folder(tmp_path):
    """A folder with the pictures 0.png to 2.png, and 3.png beside it."""
    root = tmp_path / "lists"
    root.mkdir()
    for number in range(3):
        (root / f"{number}.png").write_bytes(PICTURES[number])
    (tmp_path / "3.png").write_bytes(PICTURES[3])
    return root


def read(path, content, **options):
    """[(source, label, attributes, number of the picture, or why there is none)] of a list with this content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = open_source(str(path), **options)
    rows = list(source.rows())
    assert source.total == len(rows)
    assert [row.source for row in source.rows(rows[0].position)] == [row.source for row in rows[1:]]
    pa.Table.from_pylist([row.attributes for row in rows], schema=source.schema)  # fails if a value has another type
    return [(row.source, row.label, row.attributes, picture_of(row)) for row in rows]


def picture_of(row):
    try:
        data = row.read()
    except ImageError as error:
        return str(error)
    return next(number for number, picture in PICTURES.items() if picture == data)


# Each case: the list, and what is read: source, label, attributes, picture.

PLAIN = [("0.png", "a", {"x": 1}, 0), ("1.png", "b", {"x": 2}, 1)]
TEXT = "path,label,x\n0.png,a,1\n1.png,b,2\n"
ENCODED = base64.b64encode(PICTURES[1]).decode()
CASES = {
    "path and label": ("l.csv", TEXT, PLAIN),
    "upper-case extension": ("L.CSV", TEXT, PLAIN),
    "semicolons": ("l.csv", TEXT.replace(",", ";"), PLAIN),
    "tabs": ("l.tsv", TEXT.replace(",", "\t"), PLAIN),
    "tabs in CSV": ("l.csv", TEXT.replace(",", "\t"), PLAIN),
    "byte order mark": ("l.csv", TEXT.encode("utf-8-sig"), PLAIN),
    "UTF-16": ("l.csv", TEXT.encode("utf-16"), PLAIN),
    "Latin-1": ("l.csv", "image,größe\n0.png,groß\n".encode("latin-1"), [("0.png", None, {"größe": "groß"}, 0)]),
    "line ends of Windows": ("l.csv", TEXT.replace("\n", "\r\n"), PLAIN),
    "line ends of old Macs": ("l.csv", TEXT.replace("\n", "\r"), PLAIN),
    "blank lines": ("l.csv", TEXT.replace("\n", "\n\n"), PLAIN),
    "name with other letters": ("l.csv", TEXT.replace("path", " Image Path "), PLAIN),
    "Label with a capital": ("l.csv", "Image,Label\n0.png,A\n", [("0.png", "A", {}, 0)]),
    "codes stay text": ("l.csv", "image,sku\n0.png,00123\n", [("0.png", None, {"sku": "00123"}, 0)]),
    "None is a word": ("l.csv", "image,x\n0.png,None\n1.png,\n",
                       [("0.png", None, {"x": "None"}, 0), ("1.png", None, {"x": None}, 1)]),
    "only pictures": ("l.csv", "file_name\n0.png\n1.png\n", [("0.png", None, {}, 0), ("1.png", None, {}, 1)]),
    "path goes before address": ("l.csv", "url,filename\nhttp://x.test/9.png,0.png\n",
                                 [("0.png", None, {"url": "http://x.test/9.png"}, 0)]),
    "a second path stays an attribute": ("l.csv", "path,image\nkept,0.png\n", [("0.png", None, {"path_": "kept"}, 0)]),
    "open-metric-learning": ("df.csv", "path,label,split,is_query,is_gallery\n0.png,7,validation,True,False\n",
                             [("0.png", "7", {"split": "validation", "is_query": True, "is_gallery": False}, 0)]),
    "parent folder": ("l.csv", "path\n../3.png\n", [("../3.png", None, {}, 3)]),
    "dot": ("l.csv", "path\n./0.png\n", [("./0.png", None, {}, 0)]),
    "blanks around": ("l.csv", "path,x\n 0.png , y \n", [("0.png", None, {"x": "y"}, 0)]),
    "slashes of Windows": ("l.csv", "path\n..\\3.png\n", [("..\\3.png", None, {}, 3)]),
    "missing file": ("l.csv", "path\n0.png\ngone.png\n",
                     [("0.png", None, {}, 0), ("gone.png", None, {}, "line 3: gone.png: no such file")]),
    "other schemes": ("l.csv", "path\n0.png\ns3://b/1.png\n",
                      [("0.png", None, {}, 0), ("s3://b/1.png", None, {},
                                                "line 3: s3:// is not fetched, only http and https")]),
    "a folder instead of a file": ("l.csv", "path\n0.png\n..\n",
                                   [("0.png", None, {}, 0), ("..", None, {}, "line 3: .. is a folder")]),
    "base64": ("l.csv", f"image,label\n{ENCODED},a\n", [("line 2", "a", {}, 1)]),
    "base64 by name": ("l.csv", "image_base64\nnot base64!\n",
                       [("line 2", None, {}, "line 2: the text is not base64: not base64!")]),
    "data: address": ("l.jsonl", json.dumps({"url": f"data:image/png;base64,{ENCODED}"}), [("line 1", None, {}, 1)]),
    "JSON lines": ("l.jsonl", '{"image": "0.png", "label": "a", "x": 1}\n\n{"image": "1.png", "label": "b", "x": 2}',
                   PLAIN),
    "ndjson": ("l.ndjson", '{"image": "0.png", "tags": ["a", "b"]}\n{"image": "1.png", "size": {"w": 1}}',
               [("0.png", None, {"tags": ["a", "b"], "size": None}, 0),
                ("1.png", None, {"tags": None, "size": '{"w": 1}'}, 1)]),
    "image as datasets writes it": ("l.jsonl", json.dumps({"image": {"bytes": None, "path": "0.png"}}) + "\n"
                                    + json.dumps({"image": {"bytes": ENCODED, "path": "gone.png"}}),
                                    [("0.png", None, {}, 0), ("line 2", None, {}, 1)]),
    "JSON that names no text": ("l.jsonl", '{"image": "0.png"}\n{"image": ["1.png"]}',
                                [("0.png", None, {}, 0), ('["1.png"]', None, {}, 'line 2: ["1.png"]: no such file')]),
}  # fmt: skip


@pytest.mark.parametrize("written", CASES)
def test_list_is_read_as_it_was_written(folder, written):
    name, content, expected = CASES[written]
    assert read(folder / name, content) == expected
    assert not open_source(str(folder / name)).left_out, "each row of these lists is expected above"


def test_absolute_paths_and_file_addresses_are_read(folder):
    (folder / "a b%.png").write_bytes(PICTURES[2])
    address = (folder / "a b%.png").as_uri()
    found = read(folder.parent / "l.csv", f"path\n{folder}/0.png\n{address}\nfile://other.test/1.png\n")
    assert [(source, picture) for source, _, _, picture in found] == [
        ("lists/0.png", 0),
        ("lists/a b%.png", 2),
        ("file://other.test/1.png", "line 4: it lies on another computer, other.test"),
    ]


@pytest.mark.parametrize(("on_disk", "in_list"), [(COMPOSED, SPLIT_UP), (SPLIT_UP, COMPOSED)])
def test_names_are_found_in_either_unicode_form(folder, on_disk, in_list):
    (folder / on_disk).write_bytes(PICTURES[3])
    assert [row[3] for row in read(folder / "l.csv", f"path\n{in_list}\n")] == [3]


def test_columns_can_be_chosen(folder):
    found = read(folder / "l.csv", "what,kind,label\n0.png,x,y\n", image_column="what", label_column="kind")
    assert found == [("0.png", "x", {"kind": "x", "label_": "y"}, 0)]


def test_every_row_is_accounted_for(folder, encoder, tmp_path):
    lines = ["path,label", "0.png,a", ",b", "gone.png,c", "./0.png,d", "0.png,e", "1.png,f", "copy.png,g", " ,h"]
    (folder / "copy.png").write_bytes(PICTURES[1])
    (folder / "l.csv").write_text("\n".join(lines))
    source = open_source(str(folder / "l.csv"))
    report = build_artifact(source, tmp_path / "artifact", encoder)
    assert report.left_out == [
        ("l.csv, line 3", "it names no picture", 1),
        ("l.csv, line 5", "./0.png is named in line 2 already", 1),
        ("l.csv, line 6", "0.png is named in line 2 already", 1),
        ("l.csv, line 9", "it names no picture", 1),
    ]
    assert report.skipped == [("gone.png", "line 4: gone.png: no such file")]
    assert report.duplicates == [("copy.png", "1.png")]
    assert (report.found, report.indexed) == (8, 2)
    assert source.notes[-1] == "1 row of l.csv without a file: gone.png (line 4)"


def test_splits_of_a_list_are_read_alone_or_in_order(folder):
    path = folder / "l.csv"
    path.write_text("what,label,split\n0.png,a,train\n1.png,b,test\n2.png,c,train\n")
    assert split_names(str(path)) == ("train", "test")
    assert pinned(str(path)) == str(path)
    assert [row.label for row in open_source(str(path), image_column="what", split="test+train").rows()] == [
        "b",
        "a",
        "c",
    ]
    with pytest.raises(SourceError, match=r"l.csv has no split 'val'; it has train, test\."):
        open_source(str(path), image_column="what", split="val")


WRONG = {
    "header only": ("l.csv", "path,label\n", r"l.csv has a header \(path, label\), but no rows: write one row"),
    "empty": ("l.csv", " \n", "l.csv is empty: write a header, such as path,label"),
    "no column": ("l.csv", "sku,label\n1,a\n", r"no column that is named for pictures.* sku, label.*--image-column"),
    "no header": ("l.csv", "0.png,a\n1.png,b\n", r"has no header: its first line is '0.png, a'. Write one above it"),
    "no file exists": (
        "l.csv",
        "path\ntrain/0.png\n",
        r"none of the 1 files that l.csv names in 'path' exists. The fi",
    ),
    "ragged": ("l.csv", "path,x\n0.png,a,b\n", "line 2 has 3 cells, but the header names 2 columns"),
    "no JSON": ("l.jsonl", "0.png\n", "line 1 is not JSON"),
    "JSON cut off": (
        "l.jsonl",
        '{"image": "0.png"}\n{"image": "0.png"\n',
        r"line 2 is not JSON: Expecting .* at character 18",
    ),
    "pointer": ("l.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run `git lfs pull`"),
    "a null byte in text": ("l.csv", b"path,x\n0.png,a\0b\n" + b"1.png,c\n" * 9, "it is not text"),
    "binary": ("l.csv", b"\0\0\0\x01\xff\xfe", "it is not text"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_list_is_an_error_that_names_the_fix(folder, wrong):
    name, content, words = WRONG[wrong]
    with pytest.raises(SourceError, match=words):
        read(folder / name, content)


def test_unknown_columns_are_errors(folder):
    (folder / "l.csv").write_text("path,label\n0.png,a\n")
    with pytest.raises(
        SourceError, match=r"no image column 'paht'; its columns are path, label: did you mean 'path'\?"
    ):
        open_source(str(folder / "l.csv"), image_column="paht")
    with pytest.raises(SourceError, match="no column 'class'"):
        open_source(str(folder / "l.csv"), label_column="class")
    with pytest.raises(SourceError, match="no label level"):
        open_source(str(folder / "l.csv"), label_level=1)


def test_fingerprint_changes_with_the_list_and_its_files(folder):
    path = folder / "l.csv"
    seen = set()
    for content, number in (("path\n0.png\n", 0), ("path\n0.png\n1.png\n", 0), ("path\n0.png\n1.png\n", 3)):
        path.write_text(content)
        (folder / "0.png").write_bytes(PICTURES[number] + bytes(number))
        seen.add(open_source(str(path)).fingerprint)
    assert len(seen) == 3


def test_long_list_is_not_held_as_python_objects(tmp_path):
    """Of the memory that Python counts, which is all but Arrow's."""
    (tmp_path / "0.png").write_bytes(PICTURES[0])

    def held(rows):
        lines = (f"https://x.test/{number}.png,label {number % 9},{number}" for number in range(rows))
        (tmp_path / "l.csv").write_text("\n".join(["url,label,x", *lines]))
        tracemalloc.start()
        source = open_source(str(tmp_path / "l.csv"))
        first = next(iter(source.rows()))
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert (source.total, first.attributes) == (rows, {"x": 0})
        return size

    assert (held(4_000) - held(2_000)) / 2_000 < 60


def test_folder_with_lists_but_no_picture_names_them(tmp_path):
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).write_text("path,label\n/data/1.png,a\n")
    with pytest.raises(SourceError, match=r"contains no image, but a list .test.csv, train.csv.: name it as the sourc"):
        open_source(str(tmp_path))


def test_names_of_columns_are_documented_in_their_order():
    _, _, text = (
        (ROOT / "docs" / "build.md").read_text(encoding="utf-8").partition("- **The column with the pictures**")
    )
    text = text.partition("do not matter:")[2].partition("`--image-column`")[0]
    assert [names.plain(name) for name in re.findall("`(.+?)`", text)] == list(names.NAMES)


def test_folder_with_pictures_and_metadata_stays_a_folder(folder):
    (folder / "metadata.csv").write_text("file_name,x\n0.png,1\n")
    assert {row.source for row in open_source(str(folder)).rows()} == {"0.png", "1.png", "2.png"}


# Parquet files that name pictures


def parquet(path, /, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_parquet_file_of_paths_and_base64_is_read(folder):
    named = ["0.png", "../3.png", f"{folder}/1.png", "gone.png", ENCODED, None]
    source = open_source(parquet(folder / "l.parquet", image_path=named, x=[1, 2, 3, 4, 5, 6]))
    assert [(row.source, row.attributes["x"], picture_of(row)) for row in source.rows()] == [
        ("0.png", 1, 0),
        ("../3.png", 2, 3),
        ("1.png", 3, 1),
        ("gone.png", 4, "row 4: gone.png: no such file"),
        ("train/4", 5, 1),
        ("train/5", 6, "the row has no image"),
    ]
    rows = list(source.rows())
    assert [row.source for row in source.rows(rows[2].position)] == ["gone.png", "train/4", "train/5"]


def test_stranger_s_data_set_names_only_files_of_its_own(folder):
    named = ["0.png", "../3.png", str(folder.parent / "3.png"), (folder.parent / "3.png").as_uri(), "s3://b/3.png"]
    parquet(folder / "data" / "train.parquet", path=[f"../{named[0]}", *named[1:]])
    outside = "it points outside the data set; only files inside it are read"
    rows = open_source(str(folder / "data")).rows()
    assert [picture_of(row) for row in rows] == [f"row {number}: {outside}" for number in range(1, 6)]
    (folder / "data" / "0.png").write_bytes(PICTURES[2])
    parquet(folder / "data" / "train.parquet", path=["0.png", "./0.png"])
    assert [picture_of(row) for row in open_source(str(folder / "data")).rows()] == [2, 2]


def test_parquet_files_without_rows_are_passed_over_or_named(folder):
    parquet(folder / "data" / "a.parquet", path=pa.array([], pa.string()), x=pa.array([], pa.int64()))
    with pytest.raises(SourceError, match=r"data has no rows: it is a parquet file with nothing but columns .path, x"):
        open_source(str(folder / "data"))
    parquet(folder / "data" / "b.parquet", path=["gone.png"], x=[7])
    assert [row.attributes for row in open_source(str(folder / "data")).rows()] == [{"x": 7}]
