"""Sources: real folders, zip and parquet files, read through `datasets`, and the errors for wrong ones."""

import json
import os
import zipfile

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import noise, png

from retrieval.errors import ImageError, SourceError
from retrieval.images.open import open_image
from retrieval.sources.open import open_source, pinned, split_names


def read(source):
    """{source: row}; checks that no image comes twice and that a second pass gives the same rows."""
    rows = list(source.rows())
    assert [(row.source, row.label, row.attributes) for row in rows] == [
        (row.source, row.label, row.attributes) for row in source.rows()
    ]
    found = {row.source: row for row in rows}
    assert len(found) == len(rows)
    return found


def labels(source):
    return {name: row.label for name, row in read(source).items()}


def decodes(row):
    return open_image(row.read()).size == (32, 32)


def data_set(path, columns, features=None):
    """Write a parquet file as `datasets` does, with the features in its metadata; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, features=datasets.Features(features) if features else None).to_parquet(path)
    return str(path)


def content(tmp_path, seed):
    return noise(tmp_path / "content" / f"{seed}.png", seed).read_bytes()


# Folders


def test_class_folders_become_labels(tmp_path):
    noise(tmp_path / "cat" / "1.png", 1)
    noise(tmp_path / "cat" / "2.jpg", 2)
    noise(tmp_path / "dog" / "1.png", 3)
    source = open_source(str(tmp_path))
    assert labels(source) == {"cat/1.png": "cat", "cat/2.jpg": "cat", "dog/1.png": "dog"}
    assert source.total == 3
    assert source.schema.names == []
    assert all(decodes(row) for row in source.rows())


def test_label_is_the_innermost_folder(tmp_path):
    noise(tmp_path / "loose.png", 1)
    noise(tmp_path / "cat" / "1.png", 2)
    noise(tmp_path / "pets" / "dog" / "1.png", 3)
    noise(tmp_path / "a" / "b" / "c" / "d" / "1.png", 4)
    assert labels(open_source(str(tmp_path))) == {
        "loose.png": None,
        "cat/1.png": "cat",
        "pets/dog/1.png": "dog",
        "a/b/c/d/1.png": "d",
    }


NAMES = ["a [1].png", "st*r.png", "wh?t.png", "{x,y}.png", "spa ce/né e/ü 図.png", "100%.png", "#1.png"]


def test_names_with_glob_and_url_characters_are_read(tmp_path):
    root = tmp_path / "my [photos] *? {1,2} é"
    for seed, name in enumerate(NAMES):
        noise(root / name, seed)
    rows = read(open_source(str(root)))
    assert set(rows) == set(NAMES)
    assert all(decodes(row) for row in rows.values())
    assert rows["spa ce/né e/ü 図.png"].label == "né e"


def test_upper_case_unknown_and_missing_extensions_are_read(tmp_path):
    noise(tmp_path / "cat" / "1.PNG", 1)
    noise(tmp_path / "cat" / "2.JpEg", 2)
    noise(tmp_path / "cat" / "3.png", 3).rename(tmp_path / "cat" / "3")
    noise(tmp_path / "dog" / "4.png", 4).rename(tmp_path / "dog" / "4.data")
    rows = read(open_source(str(tmp_path)))
    assert set(rows) == {"cat/1.PNG", "cat/2.JpEg", "cat/3", "dog/4.data"}
    assert all(decodes(row) for row in rows.values())
    assert rows["dog/4.data"].label == "dog"


def test_folder_with_only_extensionless_files_is_read(tmp_path):
    for seed in range(3):
        noise(tmp_path / f"{seed}.png", seed).rename(tmp_path / f"{seed}")
    rows = read(open_source(str(tmp_path)))
    assert set(rows) == {"0", "1", "2"}
    assert all(decodes(row) for row in rows.values())


@pytest.mark.parametrize("name", ["test.jpg", "train/1.png", "test/1.png", "validation-1.png"])
def test_names_that_look_like_splits_hide_no_images(tmp_path, name):
    noise(tmp_path / name, 1)
    noise(tmp_path / "cat" / "1.png", 2)
    noise(tmp_path / "2.png", 3)
    assert set(read(open_source(str(tmp_path)))) == {name, "cat/1.png", "2.png"}


def test_split_of_a_folder_can_be_selected(tmp_path):
    noise(tmp_path / "train" / "cat" / "1.png", 1)
    noise(tmp_path / "test" / "cat" / "2.png", 2)
    noise(tmp_path / "test" / "dog" / "3.png", 3)
    assert labels(open_source(str(tmp_path), split="test")) == {"test/cat/2.png": "cat", "test/dog/3.png": "dog"}
    assert len(read(open_source(str(tmp_path)))) == 3
    assert labels(open_source(str(tmp_path), split="testing")) == labels(open_source(str(tmp_path), split="test"))
    with pytest.raises(SourceError, match=r"no split 'dev'; it has train, test"):
        open_source(str(tmp_path), split="dev")


def test_non_images_are_yielded_and_hidden_files_are_not(tmp_path):
    noise(tmp_path / "cat" / "1.png", 1)
    (tmp_path / "cat" / "notes.html").write_text("no picture")
    noise(tmp_path / ".hidden.png", 2)
    noise(tmp_path / ".cache" / "2.png", 3)
    noise(tmp_path / "cat" / ".thumbs" / "deep" / "3.png", 4)
    rows = read(open_source(str(tmp_path)))
    assert set(rows) == {"cat/1.png", "cat/notes.html"}
    with pytest.raises(ImageError, match="not a readable picture"):
        open_image(rows["cat/notes.html"].read())


def test_row_order_does_not_depend_on_location_or_creation_order(tmp_path):
    orders = []
    for number, seeds in enumerate([range(12), reversed(range(12))]):
        root = tmp_path / str(number) / "root"
        for seed in seeds:  # written in another order, so that the file system may list them in another order
            noise(root / f"c{seed % 3}" / f"{seed}.png", seed)
        orders.append([row.source for row in open_source(str(root)).rows()])
    assert orders[0] == orders[1]


def test_symlinks_to_images_are_read(tmp_path):
    real = noise(tmp_path / "elsewhere" / "1.png", 1)
    (tmp_path / "root" / "cat").mkdir(parents=True)
    (tmp_path / "root" / "cat" / "link.png").symlink_to(real)
    (tmp_path / "link").symlink_to(tmp_path / "root")
    assert labels(open_source(str(tmp_path / "link"))) == {"cat/link.png": "cat"}


# Metadata


def with_metadata(root, kind):
    noise(root / "shirt" / "1.png", 1)
    noise(root / "shirt" / "2.png", 2)
    noise(root / "shoe" / "3.png", 3)
    rows = [
        {"file_name": "shirt/1.png", "colour": "red", "price": 12, "worn": True, "weight": 0.5},
        {"file_name": "shoe/3.png", "colour": "blue", "price": 30, "worn": False, "weight": 1.5},
    ]
    if kind == "jsonl":
        lines = [json.dumps(row) for row in rows]
    else:
        lines = [",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)]
    (root / f"metadata.{kind}").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_becomes_attributes_and_class_folders_stay_labels(tmp_path, kind):
    source = open_source(str(with_metadata(tmp_path, kind)))
    rows = read(source)
    assert {name: row.label for name, row in rows.items()} == {
        "shirt/1.png": "shirt",
        "shoe/3.png": "shoe",
        "shirt/2.png": "shirt",  # not in the metadata
    }
    assert rows["shoe/3.png"].attributes == {"colour": "blue", "price": 30, "worn": False, "weight": 1.5}
    assert rows["shirt/2.png"].attributes == {"colour": None, "price": None, "worn": None, "weight": None}
    types = {"colour": pa.string(), "price": pa.int64(), "worn": pa.bool_(), "weight": pa.float64()}
    assert {field.name: field.type for field in source.schema} == types
    assert source.total == 3
    assert all(decodes(row) for row in rows.values())


def test_label_in_the_metadata_overrides_the_folder(tmp_path):
    noise(tmp_path / "shirt" / "1.png", 1)
    noise(tmp_path / "shirt" / "2.png", 2)
    (tmp_path / "metadata.csv").write_text("file_name,label,tone\nshirt/1.png,blouse,dark\n")
    source = open_source(str(tmp_path))
    assert labels(source) == {"shirt/1.png": "blouse", "shirt/2.png": "shirt"}
    assert source.schema.names == ["tone"]


def test_label_column_can_be_a_metadata_column(tmp_path):
    source = open_source(str(with_metadata(tmp_path, "csv")), label_column="colour")
    assert labels(source) == {"shirt/1.png": "red", "shoe/3.png": "blue", "shirt/2.png": "shirt"}
    assert read(source)["shirt/1.png"].attributes["colour"] == "red"
    with pytest.raises(SourceError, match="no column 'color'; its columns are colour, price, worn, weight"):
        open_source(str(tmp_path), label_column="color")


def test_metadata_is_read_from_class_folders(tmp_path):
    for number, name in enumerate(["cat", "dog"]):
        noise(tmp_path / name / "1.png", number)
        (tmp_path / name / "metadata.csv").write_text(f"file_name,legs\n1.png,{number + 3}\n")
    rows = read(open_source(str(tmp_path)))
    assert {name: (row.label, row.attributes) for name, row in rows.items()} == {
        "cat/1.png": ("cat", {"legs": 3}),
        "dog/1.png": ("dog", {"legs": 4}),
    }


def test_metadata_row_without_a_file_yields_an_unreadable_image(tmp_path):
    noise(tmp_path / "1.png", 1)
    (tmp_path / "metadata.csv").write_text("file_name,tone\n1.png,dark\ngone.png,light\n")
    rows = read(open_source(str(tmp_path)))
    assert set(rows) == {"1.png", "gone.png"}
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        rows["gone.png"].read()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metadata.csv", "name,tone\n1.png,dark\n", "file_name"),
        ("metadata.jsonl", "{not json\n", "cannot be read"),
        ("metadata.jsonl", '{"file_name": "../../etc/passwd"}\n', "cannot be read"),
        ("metadata.csv", "", "cannot be read"),
    ],
)
def test_invalid_metadata_is_a_source_error(tmp_path, name, text, words):
    noise(tmp_path / "1.png", 1)
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=words) as raised:
        list(open_source(str(tmp_path)).rows())
    assert "\n" not in str(raised.value)


# Zip files


def test_zip_file_in_a_folder_is_read(tmp_path):
    noise(tmp_path / "root" / "dog" / "1.png", 1)
    with zipfile.ZipFile(tmp_path / "root" / "more.zip", "w") as archive:
        archive.writestr("cat/2.png", content(tmp_path, 2))
        archive.writestr("cat/notes.html", "no picture")
    source = open_source(str(tmp_path / "root"))
    rows = read(source)
    names = {name: row.label for name, row in rows.items()}
    assert names == {
        "dog/1.png": "dog",
        "zip://cat/2.png::more.zip": "cat",
        "zip://cat/notes.html::more.zip": "cat",
    }
    assert decodes(rows["zip://cat/2.png::more.zip"])
    assert rows["zip://cat/2.png::more.zip"].read() == content(tmp_path, 2)
    with pytest.raises(ImageError, match="not a readable picture"):
        open_image(rows["zip://cat/notes.html::more.zip"].read())


def test_damaged_image_in_a_zip_file_is_an_image_error(tmp_path):
    picture, path = content(tmp_path, 2), tmp_path / "root" / "more.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/1.png", picture)
        archive.writestr("cat/2.png", content(tmp_path, 3))
    spoiled = bytearray(path.read_bytes())
    spoiled[spoiled.index(picture) + len(picture) // 2] ^= 1
    path.write_bytes(spoiled)
    rows = read(open_source(str(tmp_path / "root")))
    with pytest.raises(ImageError, match="cannot be read: Bad CRC-32"):
        rows["zip://cat/1.png::more.zip"].read()
    assert decodes(rows["zip://cat/2.png::more.zip"])


def test_damaged_zip_file_is_a_source_error(tmp_path):
    noise(tmp_path / "1.png", 1)
    (tmp_path / "more.zip").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(SourceError, match=f"{tmp_path} cannot be read: .*zip"):
        list(open_source(str(tmp_path)).rows())


# Parquet files and datasets


IMAGE = datasets.Image()


def pair(tmp_path):
    return [{"bytes": content(tmp_path, 1), "path": "one.png"}, {"bytes": content(tmp_path, 2), "path": None}]


def test_parquet_file_gives_labels_and_attributes(tmp_path):
    path = data_set(
        tmp_path / "x [1].parquet",
        {"image": pair(tmp_path), "label": [1, 0], "colour": ["red", None], "tags": [["a", "ü"], []]},
        {
            "image": IMAGE,
            "label": datasets.ClassLabel(names=["shirt", "shoe"]),
            "colour": datasets.Value("string"),
            "tags": datasets.List(datasets.Value("string")),
        },
    )
    source = open_source(path)
    rows = read(source)
    assert {name: row.label for name, row in rows.items()} == {"one.png": "shoe", "train/1": "shirt"}
    assert rows["one.png"].attributes == {"colour": "red", "tags": ["a", "ü"]}
    assert rows["train/1"].attributes == {"colour": None, "tags": []}
    assert source.schema == pa.schema([("colour", pa.string()), ("tags", pa.list_(pa.string()))])
    assert source.total == 2
    assert all(decodes(row) for row in rows.values())


@pytest.mark.parametrize("shape", ["bytes", "large bytes", "struct"])
def test_parquet_file_not_written_by_datasets_is_read(tmp_path, shape):
    picture = content(tmp_path, 1)
    column = {
        "bytes": pa.array([picture]),
        "large bytes": pa.array([picture], pa.large_binary()),
        "struct": pa.array([{"bytes": picture, "path": "one.png"}]),
    }[shape]
    pq.write_table(pa.table({"number": [7], "picture": column}), tmp_path / "plain.parquet")
    rows = read(open_source(str(tmp_path / "plain.parquet")))
    (row,) = rows.values()
    assert row.read() == picture
    assert row.source == ("one.png" if shape == "struct" else "train/0")
    assert row.label is None
    assert row.attributes == {"number": 7}


def test_image_column_can_be_chosen_by_name(tmp_path):
    first, second = pair(tmp_path)
    path = data_set(tmp_path / "x.parquet", {"front": [first], "back": [second]}, {"front": IMAGE, "back": IMAGE})
    read_by = {name: next(open_source(path, image_column=name).rows()).read() for name in ("front", "back")}
    assert read_by == {"front": first["bytes"], "back": second["bytes"]}
    assert next(open_source(path).rows()).read() == first["bytes"]
    assert open_source(path).schema.names == []
    for name in ("side", "label"):
        with pytest.raises(SourceError, match=f"no image column '{name}'; its columns are front, back"):
            open_source(path, image_column=name)


def test_broken_images_do_not_stop_the_iteration(tmp_path):
    broken = {"bytes": b"no picture", "path": None}
    path = data_set(
        tmp_path / "x.parquet",
        {"image": [broken, None, pair(tmp_path)[0]], "other": [broken] * 3},
        {"image": IMAGE, "other": IMAGE},
    )
    rows = list(open_source(path).rows())
    assert [row.data for row in rows] == [b"no picture", None, pair(tmp_path)[0]["bytes"]]
    with pytest.raises(ImageError, match="no image"):
        rows[1].read()


def test_missing_image_column_is_an_error(tmp_path):
    pq.write_table(pa.table({"name": ["a"], "price": [1]}), tmp_path / "x.parquet")
    with pytest.raises(
        SourceError, match=r"no image column; its columns are name, price \(choose one with --image-column"
    ):
        open_source(str(tmp_path / "x.parquet"))


def test_label_column_can_be_chosen_by_name(tmp_path):
    columns = {"image": pair(tmp_path), "label": ["x", "y"], "kind": [3, 4]}
    path = data_set(tmp_path / "x.parquet", columns, None)
    assert set(labels(open_source(path)).values()) == {"x", "y"}
    asked = open_source(path, label_column="kind")
    assert set(labels(asked).values()) == {"3", "4"}
    # No column is lost: the chosen one is also an attribute, and the original `label` column becomes `label_`.
    assert sorted(row.attributes["kind"] for row in asked.rows()) == [3, 4]
    assert sorted(row.attributes["label_"] for row in asked.rows()) == ["x", "y"]
    with pytest.raises(SourceError, match="no column 'colour'; its columns are image, label, kind"):
        open_source(path, label_column="colour")
    with pytest.raises(SourceError, match=r"the column 'image' of .* contains images or other bytes, not labels"):
        open_source(path, label_column="image")


def test_nan_is_a_missing_value(tmp_path):
    nan = float("nan")
    columns = {"image": pair(tmp_path), "x": [nan, 1.5], "tags": [[nan, 1.0], [nan]]}
    rows = open_source(str(data_set(tmp_path / "x.parquet", columns, None))).rows()
    assert [row.attributes for row in rows] == [{"x": None, "tags": [None, 1.0]}, {"x": 1.5, "tags": [None]}]


def test_letters_that_look_alike_are_one_class(tmp_path):
    alike = ["Cafe\u0301", "Caf\u00e9"]
    path = data_set(tmp_path / "x.parquet", {"image": pair(tmp_path), "label": alike, "x": alike}, None)
    assert {(row.label, row.attributes["x"]) for row in open_source(path).rows()} == {(alike[1], alike[1])}


def test_image_column_of_a_folder_is_an_error(tmp_path):
    noise(tmp_path / "0.png", 0)
    with pytest.raises(SourceError, match="so it has no image column: leave out 'path'"):
        open_source(str(tmp_path), image_column="path")


def test_nan_and_empty_text_are_no_label(tmp_path):
    path = data_set(tmp_path / "x.parquet", {"image": pair(tmp_path), "label": [0.5, float("nan")]}, None)
    assert list(labels(open_source(path)).values()) == ["0.5", None]
    path = data_set(tmp_path / "x.parquet", {"image": pair(tmp_path), "label": ["a", ""]}, None)
    assert list(labels(open_source(path)).values()) == ["a", None]


def test_single_class_label_column_becomes_the_label(tmp_path):
    classes = datasets.ClassLabel(names=["shirt", "shoe"])
    columns = {"image": pair(tmp_path), "article": [1, -1]}
    path = data_set(tmp_path / "x.parquet", columns, {"image": IMAGE, "article": classes})
    source = open_source(path)
    assert [(row.label, row.attributes) for row in source.rows()] == [
        ("shoe", {"article": "shoe"}),
        (None, {"article": None}),  # -1 stands for "no label"
    ]
    both = data_set(
        tmp_path / "y.parquet",
        {**columns, "colour": [0, 0]},
        {"image": IMAGE, "article": classes, "colour": datasets.ClassLabel(names=["red"])},
    )
    assert set(labels(open_source(both)).values()) == {None}
    assert set(labels(open_source(both, label_column="colour")).values()) == {"red"}


def test_columns_named_like_gallery_columns_are_renamed(tmp_path):
    names = ["id", "id_", "source", "thumbnail", "sha256", "vector"]
    columns = {"image": pair(tmp_path)[:1], **{name: [f"the {name}"] for name in names}}
    (row,) = open_source(data_set(tmp_path / "x.parquet", columns)).rows()
    assert row.attributes == {
        "id__": "the id",
        "id_": "the id_",
        "source_": "the source",
        "thumbnail_": "the thumbnail",
        "sha256_": "the sha256",
        "vector": "the vector",
    }


def test_attribute_types_are_widened_or_turned_into_text(tmp_path):
    columns = {
        "image": pa.array([content(tmp_path, 1)]),
        "small": pa.array([3], pa.int8()),
        "hash": pa.array([2**64 - 1], pa.uint64()),
        "half": pa.array([0.5], pa.float32()),
        "day": pa.array([0], pa.timestamp("s")),
        "size": pa.array([{"w": 1, "h": [2, 3]}]),
        "nothing": pa.nulls(1),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    source = open_source(str(tmp_path / "x.parquet"))
    (row,) = source.rows()
    table = pa.Table.from_pylist([row.attributes], schema=source.schema)  # fails if a value does not fit its type
    assert json.loads(row.attributes.pop("size")) == {"w": 1, "h": [2, 3]}
    day = row.attributes.pop("day")
    assert day.startswith("1970-01-01")
    assert row.attributes == {"small": 3, "hash": 2**64 - 1, "half": 0.5, "nothing": None}
    assert [str(kind) for kind in table.schema.types] == ["int64", "uint64", "double", "string", "string", "string"]


def test_lists_of_plain_values_stay_lists(tmp_path):
    columns = {
        "image": pa.array([content(tmp_path, 1), content(tmp_path, 2)]),
        "tags": pa.array([["a", None, "b, c"], None]),
        "sizes": pa.array([[36, 38], []], pa.large_list(pa.int32())),
        "widths": pa.array([[0.1], [2.5]], pa.list_(pa.float32())),
        "pair": pa.array([[True, False], [True, True]], pa.list_(pa.bool_(), 2)),
        "days": pa.array([[0], [1]], pa.list_(pa.date32())),
        "nested": pa.array([[[1], []], None]),
        "boxes": pa.array([[{"x": 1}], []]),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    source = open_source(str(tmp_path / "x.parquet"))
    rows = [row.attributes for row in source.rows()]
    assert rows == [
        {"tags": ["a", None, "b, c"], "sizes": [36, 38], "widths": [0.1], "pair": [True, False],
         "days": ["1970-01-01"], "nested": "[[1], []]", "boxes": '[{"x": 1}]'},
        {"tags": None, "sizes": [], "widths": [2.5], "pair": [True, True],
         "days": ["1970-01-02"], "nested": None, "boxes": "[]"},
    ]  # fmt: skip
    assert pa.Table.from_pylist(rows, schema=source.schema).to_pylist() == rows
    assert [str(kind).removeprefix("list<item: ") for kind in source.schema.types] == [
        "string>", "int64>", "double>", "bool>", "string>", "string", "string",
    ]  # fmt: skip


def test_lists_of_class_numbers_become_lists_of_names(tmp_path):
    features = {"image": datasets.Image(), "seen": datasets.List(datasets.ClassLabel(names=["cat", "dog"]))}
    path = data_set(tmp_path / "x.parquet", {"image": pair(tmp_path)[:1], "seen": [[1, 0, -1]]}, features)
    (row,) = open_source(path).rows()
    assert row.attributes == {"seen": ["dog", "cat", None]}


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32()])
def test_narrow_floats_become_the_numbers_they_are_written_as(tmp_path, kind):
    written = [0.1, -2.5, 1e-3, 0.3, float("inf"), None]
    columns = {"image": pa.array([content(tmp_path, n) for n in range(6)]), "x": pa.array(written, kind)}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    assert [row.attributes["x"] for row in open_source(str(tmp_path / "x.parquet")).rows()] == written


def test_columns_of_maps_are_left_out_and_named(tmp_path, capsys):
    maps = pa.map_(pa.string(), pa.int64())
    columns = {
        "image": pa.array([content(tmp_path, 1), content(tmp_path, 2)]),
        "facts": pa.array([[("a", 1)], None], maps),
        "deep": pa.array([{"m": [("a", 1)]}, None], pa.struct([("m", maps)])),
        "colour": pa.array(["red", None]),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    source = open_source(str(tmp_path / "x.parquet"))
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in told] == [
        f"the column {name!r} is left out: it holds a map, which cannot be read" for name in ("facts", "deep")
    ]
    assert [row.attributes for row in source.rows()] == [{"colour": "red"}, {"colour": None}]
    assert all(decodes(row) for row in source.rows())


def test_splits_of_a_data_set_folder_are_read_together_or_alone(tmp_path):
    root = tmp_path / "a data [set]"
    one, two = pair(tmp_path)
    data_set(root / "train.parquet", {"image": [one], "label": ["shirt"]}, None)
    data_set(root / "validation.parquet", {"image": [two], "label": ["shoe"]}, None)
    source = open_source(str(root))
    assert labels(source) == {"one.png": "shirt", "validation/0": "shoe"}
    assert source.total == 2
    assert labels(open_source(str(root), split="validation")) == {"validation/0": "shoe"}
    assert open_source(str(root), split="train").total == 1
    with pytest.raises(SourceError, match=r"no split 'test'; it has train, validation"):
        open_source(str(root), split="test")


def test_artifact_or_hidden_parquet_inside_makes_no_data_set(tmp_path, artifact):
    noise(tmp_path / "cat" / "1.png", 1)
    (tmp_path / "found").symlink_to(artifact)  # `rglob` does not follow links: only real content of the folder counts
    (tmp_path / "mine").mkdir()
    for name in ("gallery.parquet", "manifest.json"):
        (tmp_path / "mine" / name).write_bytes((artifact / name).read_bytes())
    (tmp_path / ".mine.building").mkdir()
    pq.write_table(pa.table({"x": [1]}), tmp_path / ".mine.building" / "000000.parquet")
    assert labels(open_source(str(tmp_path)))["cat/1.png"] == "cat"


CARD = """---
license: {license}
configs:
- config_name: small
  data_files: small/*.{kind}
- config_name: big
  data_files: big/*.{kind}
---
"""


def with_configs(tmp_path):
    for number, name in enumerate(["small", "big"]):
        picture = pair(tmp_path)[number]
        data_set(tmp_path / "set" / name / "train.parquet", {"image": [picture], "label": [name]}, None)
    (tmp_path / "set" / "README.md").write_text(CARD.format(license="mit", kind="parquet"))
    return str(tmp_path / "set")


def test_configurations_declared_in_the_card_can_be_selected(tmp_path):
    folder = with_configs(tmp_path)
    sources = [open_source(folder, config=name) for name in ("small", "big")]
    assert [list(labels(source).values()) for source in sources] == [["small"], ["big"]]
    assert [dict(source.about) for source in sources] == [
        {"name": "set", "config": name, "license": "mit"} for name in ("small", "big")
    ]
    assert sources[0].fingerprint != sources[1].fingerprint
    assert split_names(folder, config="big") == ("train",)
    with pytest.raises(SourceError, match=r"has 2 configurations; choose one with --config: small, big"):
        open_source(folder)
    with pytest.raises(SourceError, match="has no configuration 'huge'; it has small, big"):
        split_names(folder, config="huge")


def test_configurations_work_for_a_folder_of_images(tmp_path):
    noise(tmp_path / "small" / "cat" / "1.png", 1)
    noise(tmp_path / "big" / "dog" / "2.png", 2)
    (tmp_path / "README.md").write_text(CARD.format(license="[mit, apache-2.0]", kind="png").replace("*", "**/*"))
    source = open_source(str(tmp_path), config="big")
    assert set(read(source)) == {"big/dog/2.png"}
    assert all(decodes(row) for row in source.rows())
    assert source.about == {"name": tmp_path.name, "config": "big", "license": "mit, apache-2.0"}
    assert set(read(open_source(str(tmp_path)))) == {"small/cat/1.png", "big/dog/2.png", "README.md"}


def test_invalid_configurations_and_revisions_are_errors(tmp_path):
    noise(tmp_path / "photos" / "cat" / "1.png", 1)
    path = data_set(tmp_path / "x.parquet", {"image": pair(tmp_path)})
    data_set(tmp_path / "odd [set]" / "x.parquet", {"image": pair(tmp_path)})
    with pytest.raises(SourceError, match=r"x\.parquet is a single file and has no configurations: leave out 'big'"):
        open_source(path, config="big")
    with pytest.raises(SourceError, match=r"odd \[set\] has \[, \* or \? in its path, .* rename it"):
        open_source(str(tmp_path / "odd [set]"), config="big")
    with pytest.raises(SourceError, match="photos has no configuration 'big'; it has default"):
        open_source(str(tmp_path / "photos"), config="big")
    for here in (path, str(tmp_path / "photos")):
        for opened in (open_source, split_names, pinned):
            with pytest.raises(SourceError, match="is a local path and has no revisions: leave out 'v1'"):
                opened(here, revision="v1")
        assert pinned(here) == here


@pytest.mark.parametrize("name", ["owner/name@", "owner/name@v 1", "a/b/c", "owner/näme", "näme"])
def test_invalid_hub_name_is_an_error(name):
    with pytest.raises(SourceError, match="does not exist here, and is not a valid name for a dataset on the Hub"):
        open_source(name)


@pytest.mark.parametrize(
    ("card", "stated"),
    [
        ("---\nlicense: cc0-1.0\n---\n# Mine", {"license": "cc0-1.0"}),
        ("# Mine\n\nPictures of cats.", {}),
        ("---\nlicense: [cc0\n---\n", {}),
        ("---\nlicense:\n---\n", {}),
        (b"\xff\xfe no text", {}),
    ],
)
def test_local_source_states_name_and_licence_but_no_path(tmp_path, card, stated):
    noise(tmp_path / "home" / "photos" / "cat" / "1.png", 1)
    (tmp_path / "home" / "photos" / "README.md").write_bytes(card if isinstance(card, bytes) else card.encode())
    about = open_source(str(tmp_path / "home" / "photos")).about
    assert about == {"name": "photos", **stated}, "and nothing of where it lies"
    path = data_set(tmp_path / "home" / "photos.parquet", {"image": pair(tmp_path)})
    assert open_source(path).about == {"name": "photos.parquet"}


def test_folder_named_like_a_format_is_read(tmp_path, monkeypatch):
    data_set(tmp_path / "parquet" / "train.parquet", {"image": pair(tmp_path)})
    monkeypatch.chdir(tmp_path)
    assert len(read(open_source("parquet"))) == 2


# Fingerprints: they tell whether the work of an earlier run can be resumed


def test_fingerprints_of_different_sources_differ(tmp_path):
    noise(tmp_path / "a" / "cat" / "1.png", 1)
    noise(tmp_path / "b" / "cat" / "1.png", 1)
    pictures = {"image": pair(tmp_path)}
    sources = [
        open_source(str(tmp_path / "a")),
        open_source(str(tmp_path / "b")),
        open_source(data_set(tmp_path / "p" / "1.parquet", pictures)),
        open_source(data_set(tmp_path / "p" / "2.parquet", pictures)),
        open_source(str(tmp_path / "p")),
        open_source(data_set(tmp_path / "q" / "1.parquet", {**pictures, "kind": ["x", "y"]})),
        open_source(str(tmp_path / "q" / "1.parquet"), label_column="kind"),
    ]
    assert len({source.fingerprint for source in sources}) == len(sources)


def test_fingerprint_changes_with_the_files(tmp_path):
    first, second = noise(tmp_path / "cat" / "1.png", 1), noise(tmp_path / "cat" / "2.png", 2)
    before = open_source(str(tmp_path)).fingerprint
    assert open_source(str(tmp_path)).fingerprint == before
    times = first.stat().st_atime_ns, first.stat().st_mtime_ns

    noise(first, 3, side=40)  # another size, but the same modification time
    os.utime(first, ns=times)
    resized = open_source(str(tmp_path)).fingerprint
    os.utime(first, ns=(times[0], times[1] + 1_000_000_000))
    touched = open_source(str(tmp_path)).fingerprint
    second.rename(tmp_path / "cat" / "3.png")
    renamed = open_source(str(tmp_path)).fingerprint
    (tmp_path / "metadata.csv").write_text("file_name,tone\ncat/1.png,dark\n")
    described = open_source(str(tmp_path)).fingerprint
    assert len({before, resized, touched, renamed, described}) == 5


# Missing and unreadable sources


def test_empty_missing_or_unsupported_source_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("text")
    with pytest.raises(SourceError, match="empty"):
        open_source(str(tmp_path / "empty"))
    with pytest.raises(SourceError, match=r"file\.txt is neither a folder, a list .*, an archive .* nor parquet"):
        open_source(str(tmp_path / "file.txt"))
    with pytest.raises(SourceError, match=r"missing does not exist here"):
        open_source(str(tmp_path / "missing"))


def test_broken_parquet_file_is_a_source_error(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(SourceError, match="cannot be read"):
        open_source(str(tmp_path / "x.parquet"))


@pytest.mark.parametrize("name", ["nobody-here/nothing", "nothing_of_that_name"])
def test_hub_data_set_that_cannot_be_reached_is_an_error(name):
    with pytest.raises(
        SourceError, match=f"{name} is not a folder or parquet file here, and https://.* is unreachable"
    ):
        open_source(name)


def test_row_cannot_read_a_file_outside_its_data_set(tmp_path):
    """Otherwise a stranger's parquet file could put any image on the user's disk into a published gallery."""
    noise(tmp_path / "private.png", seed=1)
    noise(tmp_path / "data" / "own.png", seed=2)
    paths = [str(tmp_path / "private.png"), "../private.png", "http://127.0.0.1:9/x.png", "own.png"]
    rows = [{"image": {"bytes": None, "path": path}} for path in paths]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "rows.parquet")
    found = list(open_source(str(tmp_path / "data" / "rows.parquet")).rows())
    for number, words in enumerate(["points outside", "points outside", "in a private or reserved network"], 1):
        with pytest.raises(ImageError, match=f"row {number}: .*{words}"):
            found[number - 1].read()
    assert found[3].read() == (tmp_path / "data" / "own.png").read_bytes()


def test_binary_columns_are_not_attributes(tmp_path):
    picture = noise(tmp_path / "x.png", seed=3).read_bytes()
    row = {"image": {"bytes": picture, "path": None}, "mask": b"123", "views": [{"bytes": picture}], "path": "a/b.png"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    source = open_source(str(tmp_path / "rows.parquet"))
    assert source.schema.names == ["path_"]
    assert next(source.rows()).attributes == {"path_": "a/b.png"}


def test_folder_split_includes_files_with_any_extension(tmp_path):
    for number, name in enumerate(["Training/a/0.png", "Training/a/1.photo", "Val/b/2.png", "more/b/3.png"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(number))
    assert split_names(str(tmp_path)) == ("train", "validation", "more")
    train, rest = (open_source(str(tmp_path), split=split) for split in ("train", "validation+more"))
    assert [raw.source for raw in train.rows()] == ["Training/a/0.png", "Training/a/1.photo"]
    assert [(raw.source, raw.label) for raw in rest.rows()] == [("Val/b/2.png", "b"), ("more/b/3.png", "b")]
    assert (train.total, rest.total) == (2, 2)


def test_column_named_for_images_goes_before_other_bytes_and_is_said(tmp_path):
    rows = [{"embedding": b"\0" * 16, "image": png(1)}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "it.parquet")
    source = open_source(str(tmp_path / "it.parquet"))
    assert next(source.rows()).read() == png(1)
    assert source.notes == (f"{tmp_path / 'it.parquet'}: the pictures are those of the column 'image'",)
