"""Folders as people have them: each test writes one, and compares what was read with it, cell by cell."""

import json
import os
import re
import unicodedata
import zipfile
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import png

from retrieval.build.build import build_artifact
from retrieval.commands.printing import print_report
from retrieval.errors import ImageError, SourceError
from retrieval.images.open import open_image
from retrieval.sources.open import open_source

COMPOSED, SPLIT_UP = unicodedata.normalize("NFC", "Café"), unicodedata.normalize("NFD", "Café")
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"


def nfc(text):
    return unicodedata.normalize("NFC", text)


def write(root, files):
    """Write {path: content}; a number is a picture, different for each number, and text is written as UTF-8."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = png(content) if isinstance(content, int) else content
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return root


def read(root, **options):
    """{source: (label, attributes)} of a folder; checks that every row has exactly the columns of the schema."""
    source = open_source(str(root), **options)
    rows = list(source.rows())
    assert source.total == len(rows)
    assert len({row.source for row in rows}) == len(rows)
    assert all(list(row.attributes) == source.schema.names for row in rows)
    pa.Table.from_pylist([row.attributes for row in rows], schema=source.schema)  # fails if a value has another type
    if "split" not in options:
        check_accounts(root, source, rows)
    return {row.source: (row.label, row.attributes) for row in rows}


def check_accounts(root, source, rows):
    """Check that each file is a row or left out, once, and that no row comes from nowhere.

    Folders with links, an artifact, or names that are not UTF-8 are left to the tests that write them.
    """
    if any(
        path.is_symlink() or path.name == "manifest.json" or not path.name.isprintable() for path in root.rglob("*")
    ):
        return
    files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".zip"]
    names = {path.relative_to(root).as_posix() for path in files if not path.name.startswith("metadata.")}
    read_from = [row.source for row in rows if not row.source.startswith("zip://")]
    without_file = [name for name in read_from if nfc(name) not in set(map(nfc, names))]
    others = [left for left in source.left_out if not re.search(r", (line|row) \d+$", left.name)]
    assert len(names) == len(read_from) - len(without_file) + sum(left.count for left in others)
    said = " ".join(source.notes)
    assert all(name in said for name in without_file)


def cells(tmp_path, table, name="metadata.csv", **options):
    """The attributes of pictures 0.png, 1.png, ... as read from a table."""
    count = table.count("\n") if isinstance(table, str) else 9
    write(tmp_path, {name: table, **{f"{number}.png": number for number in range(count)}})
    found = read(tmp_path, **options)
    lines = [found[f"{number}.png"][1] for number in range(count)]
    return [line for line in lines if any(value is not None for value in line.values())]


# Cells: what is written in a column of metadata.csv, and what is read.

COLUMNS = {
    "words that mean missing elsewhere": (["None", "null", "NaN", "NA", "n/a"], ["None", "null", "NaN", "NA", "n/a"]),
    "empty cells are missing": (["red", "", "  ", "blue"], ["red", None, None, "blue"]),
    "a quoted empty cell is missing": (["red", '""'], ["red", None]),
    "leading zeros": (["00123", "00456"], ["00123", "00456"]),
    "one leading zero among numbers": (["123", "0456"], ["123", "0456"]),
    "whole numbers": (["3", "-4", "0"], [3, -4, 0]),
    "whole numbers beside blanks": (["3", "", "5"], [3, None, 5]),
    "the largest int64": (["9223372036854775807", "-9223372036854775808"], [2**63 - 1, -(2**63)]),
    "above int64": (["9223372036854775808", "1"], ["9223372036854775808", "1"]),
    "twenty digits": (["12345678901234567890"], ["12345678901234567890"]),
    "plus sign": (["+49", "12"], ["+49", "12"]),
    "thousands": (["1_000", "2"], ["1_000", "2"]),
    "digits of another script": (["١٢", "3"], ["١٢", "3"]),
    "fractions": (["0.5", "-1.25"], [0.5, -1.25]),
    "trailing zeros": (["12.50", "9.99"], ["12.50", "9.99"]),
    "whole numbers and fractions": (["12", "12.5"], ["12", "12.5"]),
    "more digits than a float has": (["0.1234567890123456789"], ["0.1234567890123456789"]),
    "infinity and nan": (["inf", "nan", "0.5"], ["inf", "nan", "0.5"]),
    "exponents": (["1e5", "2e5"], ["1e5", "2e5"]),
    "decimal comma": (['"12,5"', '"3,25"'], ["12,5", "3,25"]),
    "minus zero": (["-0", "1"], ["-0", "1"]),
    "truth values": (["True", "False", ""], [True, False, None]),
    "words for truth": (["true", "False"], ["true", "False"]),
    "numbers and words": (["1", "two"], ["1", "two"]),
    "dates": (["2024-01-31", "2024-02-01"], ["2024-01-31", "2024-02-01"]),
    "blanks around cells": ([" red", "red ", "\tred", " \u00a0red"], ["red"] * 4),
    "blanks around numbers": ([" 7", "8 "], [7, 8]),
    "Unicode in two forms": ([COMPOSED, SPLIT_UP], [COMPOSED, COMPOSED]),
    "quoted delimiters and quotes": (['"a, ""b"""', "c"], ['a, "b"', "c"]),
    "line end in a cell": (['"one\ntwo"', "three"], ["one\ntwo", "three"]),
    "backslashes": (["C:\\new\\table", "x"], ["C:\\new\\table", "x"]),
}


@pytest.mark.parametrize("written", COLUMNS)
def test_column_is_read_as_it_was_written(tmp_path, written):
    given, expected = COLUMNS[written]
    lines = ["file_name,other,x", *(f"{number}.png,o,{cell}" for number, cell in enumerate(given))]
    write(tmp_path, {"metadata.csv": "\n".join(lines) + "\n", **{f"{n}.png": n for n in range(len(given))}})
    found = [attributes["x"] for _, attributes in read(tmp_path).values()]
    assert (found, [type(value) for value in found]) == (expected, [type(value) for value in expected])


@pytest.mark.parametrize(
    "written", ["words that mean missing elsewhere", "leading zeros", "whole numbers beside blanks"]
)
def test_label_is_read_as_it_was_written(tmp_path, written):
    given, expected = COLUMNS[written]
    lines = ["file_name,label", *(f"{number}.png,{cell}" for number, cell in enumerate(given))]
    write(tmp_path, {"metadata.csv": "\n".join(lines) + "\n", **{f"{n}.png": n for n in range(len(given))}})
    assert [label for label, _ in read(tmp_path).values()] == [value and str(value) for value in expected]


def test_type_is_settled_over_ten_thousand_rows_of_numbers_and_one_word(tmp_path):
    lines = ["file_name,x,y", *(f"{number}.png,{number}," for number in range(12_000)), "0.png,,", "last.png,word,late"]
    write(tmp_path, {"metadata.csv": "\n".join(lines), "last.png": 1})
    source = open_source(str(tmp_path))
    assert source.schema == pa.schema([("x", pa.string()), ("y", pa.string())])
    rows = {row.source: row.attributes for row in source.rows()}
    assert (rows["5.png"], rows["last.png"]) == ({"x": "5", "y": None}, {"x": "word", "y": "late"})


# Tables: the same three cells, written in different ways.

PLAIN = "file_name,größe,x\n0.png,groß,1\n1.png,klein,2\n"
CELLS = [{"größe": "groß", "x": 1}, {"größe": "klein", "x": 2}]
TABLES = {
    "plain": PLAIN,
    "byte order mark": PLAIN.encode("utf-8-sig"),
    "UTF-16 as Excel writes it": PLAIN.encode("utf-16"),
    "UTF-16 big-endian with a mark": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "UTF-16 without a mark": PLAIN.encode("utf-16-le"),
    "Latin-1": PLAIN.encode("latin-1"),
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "Excel's first line": "sep=;\r\n" + PLAIN.replace(",", ";"),
    "line ends of Windows": PLAIN.replace("\n", "\r\n"),
    "line ends of old Macs": PLAIN.replace("\n", "\r"),
    "no line end at the end": PLAIN.rstrip("\n"),
    "empty lines": PLAIN.replace("\n", "\n\n,,\n"),
    "blanks around names": PLAIN.replace("größe", " größe ").replace("file_name", "file_name "),
    "a delimiter at the end of each line": PLAIN.replace("\n", ",\n"),
    "quotes around all": '"file_name","größe","x"\n"0.png","groß","1"\n"1.png","klein","2"\n',
    "a column name in the other Unicode form": unicodedata.normalize("NFD", PLAIN),
    "paths with a dot": PLAIN.replace("0.png", "./0.png"),
    "blanks around file names": PLAIN.replace("0.png", " 0.png "),
}


@pytest.mark.parametrize("written", TABLES)
def test_table_is_read_however_it_was_saved(tmp_path, written):
    write(tmp_path, {"metadata.csv": TABLES[written], "0.png": 0, "1.png": 1})
    assert [attributes for _, attributes in read(tmp_path).values()] == CELLS


@pytest.mark.parametrize("name", ["metadata.tsv", "metadata.jsonl", "metadata.parquet"])
def test_every_format_of_metadata_gives_the_same_cells(tmp_path, name):
    write(tmp_path, {"0.png": 0, "1.png": 1})
    rows = [{"file_name": f"{number}.png", **row} for number, row in enumerate(CELLS)]
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    else:
        lines = "\n".join(json.dumps(row) for row in rows)
        write(tmp_path, {name: PLAIN.replace(",", "\t") if name.endswith("tsv") else lines})
    assert [attributes for _, attributes in read(tmp_path).values()] == CELLS


def test_cells_of_json_keep_their_own_types(tmp_path):
    rows = [
        {"file_name": "0.png", "sku": "123", "price": 12, "big": 2**63, "mixed": 1, "on": True, "size": {"w": 1}},
        {"file_name": "1.png", "sku": "456", "price": 12.5, "big": 1, "mixed": "x", "on": None, "more": " late "},
    ]
    write(tmp_path, {"0.png": 0, "1.png": 1, "metadata.jsonl": "\n".join(map(json.dumps, rows))})
    first, second = (attributes for _, attributes in read(tmp_path).values())
    assert first == {
        "sku": "123",
        "price": 12.0,
        "big": str(2**63),
        "mixed": "1",
        "on": True,
        "size": '{"w": 1}',
        "more": None,
    }
    assert second == {"sku": "456", "price": 12.5, "big": "1", "mixed": "x", "on": None, "size": None, "more": "late"}


def test_lists_in_json_are_lists_where_all_cells_are(tmp_path):
    tags, sizes = [[" new ", "sale"], None, []], [[36, 38.5], [], [40]]
    deep, mixed = [[[1]], None, [[2]]], [["a"], "a", None]
    rows = [
        {"file_name": f"{n}.png", "tags": tags[n], "sizes": sizes[n], "deep": deep[n], "mixed": mixed[n]}
        for n in range(3)
    ]
    write(tmp_path, {"metadata.jsonl": "\n".join(map(json.dumps, rows)), **{f"{n}.png": n for n in range(3)}})
    assert [attributes for _, attributes in read(tmp_path).values()] == [
        {"tags": ["new", "sale"], "sizes": [36.0, 38.5], "deep": "[[1]]", "mixed": '["a"]'},
        {"tags": None, "sizes": [], "deep": None, "mixed": "a"},
        {"tags": [], "sizes": [40.0], "deep": "[[2]]", "mixed": None},
    ]


def test_lists_in_parquet_metadata_stay_lists(tmp_path):
    write(tmp_path, {"0.png": 0})
    widths = pa.array([[0.1, None]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"file_name": ["0.png"], "widths": widths}), tmp_path / "metadata.parquet")
    assert read(tmp_path) == {"0.png": (None, {"widths": [0.1, None]})}


def test_numbers_of_parquet_show_their_shortest_text(tmp_path):
    write(tmp_path, {"0.png": 0})
    columns = {"file_name": ["0.png"], "x": pa.array([0.1], pa.float32()), "day": pa.array([0], pa.date32())}
    pq.write_table(pa.table({**columns, "mask": pa.array([b"1"])}), tmp_path / "metadata.parquet")
    assert read(tmp_path) == {"0.png": (None, {"x": 0.1, "day": "1970-01-01"})}
    assert any("'mask' is left out" in note for note in open_source(str(tmp_path)).notes)


def test_tables_in_sub_folders_are_joined_with_all_their_columns(tmp_path):
    files = {"a/0.png": 0, "a/metadata.csv": "file_name,legs,x\n0.png,4,1\n"}
    files |= {"b/1.png": 1, "b/metadata.csv": "file_name,wings,x\n1.png,2,one\n", "c/2.png": 2}
    files |= {"b/metadata.jsonl": '{"file_name": "3.png", "legs": 6}', "b/3.png": 3}
    assert read(write(tmp_path, files)) == {
        "a/0.png": ("a", {"legs": 4, "x": "1", "wings": None}),
        "b/1.png": ("b", {"legs": None, "x": "one", "wings": 2}),
        "b/3.png": ("b", {"legs": 6, "x": None, "wings": None}),
        "c/2.png": ("c", {"legs": None, "x": None, "wings": None}),
    }


ERRORS = {
    "too many cells": ("file_name,x\n0.png,1,2\n", "line 2 has 3 cells, but the header names 2 columns"),
    "an open quote": ('file_name,x\n0.png,"1\n', "line 2: unexpected end of data"),
    "two columns of a name": ("file_name,x,x\n", "two columns named 'x'"),
    "filename": ("filename,x\n0.png,1\n", "no column 'file_name'.*rename 'filename' to 'file_name'"),
    "image": ("image,x\n0.png,1\n", "no column 'file_name'.*rename 'image' to 'file_name'"),
    "outside": ("file_name\n../../etc/passwd\n", "line 2.*outside the folder"),
    "a pointer of Git LFS": (LFS, "metadata.csv is a pointer of Git LFS.*git lfs pull"),
    "bytes": (b"\xff\xfe\x00\xd8\x00\xd8", "cannot be read as UTF-16: save it as UTF-8"),
    "blank": (" \n", "it is empty"),
}


@pytest.mark.parametrize("written", ERRORS)
def test_wrong_table_is_named_with_its_line_and_the_fix(tmp_path, written):
    table, message = ERRORS[written]
    with pytest.raises(SourceError, match=message) as raised:
        open_source(str(write(tmp_path, {"0.png": 0, "metadata.csv": table})))
    assert "metadata.csv" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_encoding_that_had_to_be_guessed_is_said(tmp_path):
    source = open_source(str(write(tmp_path, {"0.png": 0, "1.png": 1, "metadata.csv": TABLES["Latin-1"]})))
    assert [note for note in source.notes if "not UTF-8" in note]


# Rows and files

ROWS = {
    "a file named twice": ("0.png,a\n0.png,b\n1.png,c\n", {"0.png": "a", "1.png": "c"}, ["metadata.csv, line 3"]),
    "twice in two spellings": ("0.png,a\n./0.png,b\n", {"0.png": "a", "1.png": None}, ["metadata.csv, line 3"]),
    "a row without a name": (",a\n1.png,b\n", {"1.png": "b", "0.png": None}, ["metadata.csv, line 2"]),
    "a row without a file": ("0.png,a\ngone.png,b\n", {"0.png": "a", "gone.png": "b", "1.png": None}, []),
    "files without a row": ("", {"0.png": None, "1.png": None}, []),
}


@pytest.mark.parametrize("written", ROWS)
def test_rows_and_files_are_matched_and_the_others_counted(tmp_path, written):
    table, expected, left_out = ROWS[written]
    write(tmp_path, {"0.png": 0, "1.png": 1, "metadata.csv": f"file_name,x\n{table}"})
    assert {name: attributes["x"] for name, (_, attributes) in read(tmp_path).items()} == expected
    assert [(left.name, left.count) for left in open_source(str(tmp_path)).left_out] == [(n, 1) for n in left_out]


def test_rows_without_files_and_files_without_rows_are_listed(tmp_path):
    source = open_source(str(write(tmp_path, {"0.png": 0, "1.png": 1, "metadata.csv": "file_name\n0.png\ngone.png\n"})))
    assert source.notes == (
        "1 row of the metadata without a file: gone.png",
        "1 file without a row in the metadata: 1.png",
    )


@pytest.mark.parametrize(("on_disk", "in_table"), [(COMPOSED, SPLIT_UP), (SPLIT_UP, COMPOSED)])
def test_table_finds_a_file_whose_name_is_in_the_other_unicode_form(tmp_path, on_disk, in_table):
    write(tmp_path, {f"{on_disk}/{on_disk}.png": 1, "metadata.csv": f"file_name,x\n{in_table}/{in_table}.png,7\n"})
    assert read(tmp_path) == {f"{on_disk}/{on_disk}.png": (COMPOSED, {"x": 7})}


def test_table_of_windows_names_folders_with_backslashes(tmp_path):
    write(tmp_path, {"cat/0.png": 0, "metadata.csv": "file_name,x\ncat\\0.png,7\n"})
    assert read(tmp_path) == {"cat/0.png": ("cat", {"x": 7})}


@pytest.mark.parametrize("name", ["labels.csv", "Metadata.csv", "Metadata.parquet", "metadata.json", "annotations.tsv"])
def test_table_with_another_name_is_pointed_out(tmp_path, name):
    source = open_source(str(write(tmp_path, {"0.png": 0, "1.png": 1, name: "file_name,x\n0.png,1\n"})))
    assert source.schema.names == []
    (left,) = source.left_out
    assert left.name == name
    assert "is not named metadata.csv" in left.reason
    assert any(name in note and "rename" in note for note in source.notes)


# Labels

LABELS = {
    "class folders": {"cat/0.png": "cat", "dog/1.png": "dog", "2.png": None},
    "split folders": {"train/cat/0.png": "cat", "test/dog/1.png": "dog", "val/2.png": None},
    "splits in class folders": {"cat/train/0.png": "cat", "cat/test/1.png": "cat", "dog/train/2.png": "dog"},
    "one split": {"train/0.png": None, "train/1.png": None},
    "one split and a class": {"test/0.png": None, "cat/1.png": "cat"},
    "upper-case splits": {"Training/0.png": None, "Valid/1.png": None},
    "trains are vehicles": {"train/0.png": "train", "car/1.png": "car", "bus/2.png": "bus"},
    "a wrapper": {"images/0.png": None, "images/1.png": None},
    "a wrapper of classes": {"images/cat/0.png": "cat", "images/dog/1.png": "dog"},
    "a wrapper in a split": {"train/images/0.png": None, "test/images/1.png": None},
    "a wrapper in a class": {"cat/images/0.png": "cat", "dog/photos/1.png": "dog"},
    "a general name that is a class": {"photos/0.png": "photos", "drawings/1.png": "drawings"},
    "one class": {"cat/0.png": "cat", "cat/1.png": "cat"},
    "nested classes": {"pets/cat/0.png": "cat", "pets/dog/1.png": "dog"},
    "blank names": {" cat/0.png": " cat"},
}


@pytest.mark.parametrize("written", LABELS)
def test_label_of_a_folder(tmp_path, written):
    root = write(tmp_path / "root", {name: number for number, name in enumerate(LABELS[written])})
    assert {name: label for name, (label, _) in read(root).items()} == LABELS[written]


NESTED = {"shop/cat/old/0.png": 0, "shop/dog/1.png": 1, "2.png": 2}


@pytest.mark.parametrize(
    ("level", "labels"),
    [(None, ["old", "dog"]), (1, ["shop", "shop"]), (2, ["cat", "dog"]), (3, ["old", None])],
)
def test_label_level_chooses_the_folder(tmp_path, level, labels):
    found = read(write(tmp_path, NESTED), label_level=level)
    assert [found[name][0] for name in NESTED] == [*labels, None]


def test_label_level_that_does_not_exist_is_an_error(tmp_path):
    root = write(tmp_path, NESTED)
    for level in (0, 4):
        with pytest.raises(SourceError, match=f"no label level {level}: the folders are 3 deep"):
            open_source(str(root), label_level=level)
    pq.write_table(pa.table({"image": [png(1)]}), tmp_path / "x.parquet")
    with pytest.raises(SourceError, match="no folder of images, so it has no label level"):
        open_source(str(tmp_path / "x.parquet"), label_level=1)


def test_label_level_changes_the_fingerprint(tmp_path):
    root = str(write(tmp_path, NESTED))
    assert len({open_source(root, label_level=level).fingerprint for level in (None, 1, 2)}) == 3


def test_class_folders_in_two_unicode_forms_are_one_class(tmp_path):
    write(tmp_path, {f"{COMPOSED}/0.png": 0, f"{SPLIT_UP}/1.png": 1})
    assert {label for label, _ in read(tmp_path).values()} == {COMPOSED}


def test_empty_label_falls_back_to_the_folder(tmp_path):
    table = "file_name,label\ncat/0.png,\ncat/1.png,lynx\n2.png, \n"
    write(tmp_path, {"cat/0.png": 0, "cat/1.png": 1, "2.png": 2, "metadata.csv": table})
    assert [label for label, _ in read(tmp_path).values()] == ["cat", "lynx", None]


def test_split_uses_the_metadata_of_the_whole_folder(tmp_path):
    table = "file_name,x\ntrain/0.png,1\ntest/1.png,one\n"
    write(tmp_path, {"train/0.png": 0, "test/1.png": 1, "test/2.png": 2, "metadata.csv": table})
    assert read(tmp_path, split="test") == {"test/1.png": (None, {"x": "one"}), "test/2.png": (None, {"x": None})}


# Links, artifacts, sidecars and zip files


def left_out(root):
    return Counter({left.name: left.count for left in open_source(str(root)).left_out})


def test_links_to_folders_are_followed(tmp_path):
    write(tmp_path, {"elsewhere/cat/0.png": 0, "elsewhere/dog/1.png": 1})
    (tmp_path / "root").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "elsewhere" / name)
    assert {name: label for name, (label, _) in read(tmp_path / "root").items()} == {
        "cat/0.png": "cat",
        "dog/1.png": "dog",
    }
    assert not left_out(tmp_path / "root")


@pytest.mark.parametrize("target", [".", "..", "cat"])
def test_links_that_lead_back_end(tmp_path, target):
    root = write(tmp_path / "root", {"cat/0.png": 0, "dog/1.png": 1})
    (root / "dog" / "again").symlink_to(root / target)
    assert set(read(root)) == {"cat/0.png", "dog/1.png"}
    assert left_out(root) == {"dog/again/": 1}


def test_broken_and_endless_links_are_left_out_one_by_one(tmp_path):
    write(tmp_path, {"cat/0.png": 0})
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert set(read(tmp_path)) == {"cat/0.png"}
    assert left_out(tmp_path) == {"gone.png": 1, "self": 1}
    assert not any(str(tmp_path) in left.reason for left in open_source(str(tmp_path)).left_out), (
        "reports are published"
    )


def test_artifact_is_no_source(artifact):
    with pytest.raises(SourceError, match=r"is an artifact, not a collection of images: name the source"):
        open_source(str(artifact))


def test_artifact_in_the_folder_is_passed_over_and_counted(tmp_path, artifact):
    write(tmp_path, {"cat/0.png": 0, "app/manifest.json": '{"name": "a web page"}', "app/1.png": 1})
    (tmp_path / "found").symlink_to(artifact)
    assert set(read(tmp_path)) == {"cat/0.png", "app/1.png"}
    files = sum(path.is_file() for path in artifact.rglob("*"))
    assert left_out(tmp_path) == {"found/": files, "app/manifest.json": 1}


def test_sidecar_files_are_one_line(tmp_path):
    files = {f"cat/{number}.png": number for number in range(20)}
    files |= {f"cat/{number}.txt": "0 0.5 0.5 1 1" for number in range(20)}
    files |= {f"Annotations/{number}.xml": "<annotation/>" for number in range(20)}
    write(tmp_path, {**files, "cat/really.json": 50})
    found = read(tmp_path)
    assert len(found) == 21
    assert "cat/really.json" in found, "a picture is one, whatever it is called"
    assert left_out(tmp_path) == {"40 files (20 .txt, 20 .xml)": 40}


def test_folder_without_pictures_says_what_it_holds(tmp_path):
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(
        SourceError, match=r"no file that could be an image\. Left out: gone\.png: a link to a file that"
    ):
        open_source(str(tmp_path))


def test_pointer_of_git_lfs_says_how_to_fetch_the_picture(tmp_path):
    (row,) = open_source(str(write(tmp_path, {"0.png": LFS}))).rows()
    with pytest.raises(ImageError, match=r"pointer of Git LFS.*git lfs pull"):
        open_image(row.read())


def test_zip_file_is_read_as_if_unpacked(tmp_path):
    write(tmp_path, {"cat/0.png": 0, "dog/metadata.csv": "file_name,x\n1.png,7\n"})
    with zipfile.ZipFile(tmp_path / "dog" / "more.zip", "w") as archive:
        archive.writestr("1.png", png(1))
        archive.writestr("old/2.png", png(2))
        archive.writestr("__MACOSX/1.png", b"of a Mac")
        archive.writestr(".hidden/3.png", png(3))
    assert read(tmp_path) == {
        "cat/0.png": ("cat", {"x": None}),
        "zip://1.png::dog/more.zip": ("dog", {"x": 7}),
        "zip://old/2.png::dog/more.zip": ("old", {"x": None}),
    }


def test_names_that_are_no_utf8_are_read(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    (tmp_path / os.fsdecode(b"caf\xe9/\xe9.png")).write_bytes(png(1))
    ((name, (label, _)),) = read(tmp_path).items()
    assert (name, label) == ("caf\ufffd/\ufffd.png", "caf\ufffd")


# Accounting


def test_every_file_and_row_is_accounted_for(tmp_path, encoder, capsys):
    table = "file_name,x\ncat/0.png,1\ncat/0.png,2\ngone.png,3\n"
    write(
        tmp_path / "in",
        {
            "cat/0.png": 0,
            "cat/copy.png": 0,
            "cat/0.txt": "label",
            "cat/1.txt": "label",
            "broken\nname.png": "no picture",
        }
        | {"cat/2.png": 2, "labels.csv": "a,b\n", "metadata.csv": table},
    )
    (tmp_path / "in" / "link").symlink_to(tmp_path / "in")
    report = build_artifact(open_source(str(tmp_path / "in")), tmp_path / "out", encoder)
    assert (report.indexed, len(report.skipped), len(report.duplicates)) == (2, 2, 1)
    assert sum(count for _, _, count in report.left_out) == 5  # a row, a table, two texts and a link
    assert report.found == 2 + 2 + 1 + 5
    print_report(report)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 1 + 4 + 1, "one line each, and the two texts together"
    assert any(line.startswith("skipped broken\\nname.png: ") for line in lines)
    assert lines[-1] == "found 10 = indexed 2 + skipped 2 + duplicate 1 + left out 5"
