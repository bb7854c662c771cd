"""The gallery on disk: rows in many row groups, thumbnails from many threads, filters and errors for wrong ones."""

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from galleries import WAYS, opened_as
from PIL import Image

from retrieval import words
from retrieval.errors import IntegrityError, QueryError
from retrieval.images.gallery import BASE_SCHEMA, MAX_VALUES, Gallery, conform, read_tables, write_gallery
from retrieval.images.open import thumbnail_jpeg
from retrieval.images.stored import files, names, thumbnails
from retrieval.images.wide import Wide

ROWS = 1500  # two row groups, and more pages than the cache holds
SCHEMA = pa.schema(
    [
        *BASE_SCHEMA,
        ("colour", pa.string()),
        ("size", pa.int64()),
        ("price", pa.float64()),
        ("sold", pa.bool_()),
        ("note", pa.string()),
    ]
)
LABELS = ["watch", "shirt", "mug", None, ""]


def thumbnail(row):
    """Bytes that are different for every row, of varying length."""
    return hashlib.sha256(str(row).encode()).digest() * (row % 5 + 1)


def record(row):
    return {
        "id": f"{row:016x}",
        "thumbnail": thumbnail(row),
        "label": LABELS[row % 5],
        "source": f"folder/{row}.jpg",
        "sha256": hashlib.sha256(thumbnail(row)).hexdigest(),
        "colour": ["red", "Blue", "grün"][row % 3],
        "size": None if row % 7 == 0 else row % 7,
        "price": [1.0, 2.5, 0.1, 1e20][row % 4],
        "sold": row % 2 == 0,
        "note": None,
    }


RECORDS = [record(row) for row in range(ROWS)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("gallery") / "gallery.parquet"
    starts = [0, 1, 1, 400, 1000, ROWS]
    tables = (pa.Table.from_pylist(RECORDS[a:b], schema=SCHEMA) for a, b in pairwise(starts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_PAGE_BYTES", 1)  # thumbnails of real pictures fill a page with some dozens
        assert write_gallery(path, tables, SCHEMA) == [path]
    return path


@pytest.fixture(scope="module", params=WAYS)
def gallery(path, request):
    return opened_as(request.param, path)


def rows_by_hand(keep):
    return [number for number, values in enumerate(RECORDS) if keep(values)]


def test_every_row_comes_back_as_it_was_written(gallery, path):
    assert len(gallery) == ROWS
    assert list(gallery.ids) == [values["id"] for values in RECORDS]
    assert gallery.ids[ROWS - 1] == RECORDS[-1]["id"] and gallery.ids[2:4] == [RECORDS[2]["id"], RECORDS[3]["id"]]
    assert list(gallery.labels) == [values["label"] for values in RECORDS]
    assert gallery.attributes == ["colour", "size", "price", "sold", "note"]
    for row, values in zip(gallery.take(range(ROWS)), RECORDS, strict=True):
        assert (row.id, row.label, row.source, row.sha256) == tuple(
            values[name] for name in ("id", "label", "source", "sha256")
        )
        assert row.attributes == {name: values[name] for name in gallery.attributes}


def test_thumbnails_are_returned_byte_for_byte(gallery):
    assert [gallery.thumbnail(row) for row in range(ROWS)] == [values["thumbnail"] for values in RECORDS]
    assert gallery.thumbnail(np.int64(77)) == thumbnail(77)


def test_thumbnails_are_correct_from_several_threads(gallery):
    rows = [row for seed in range(8) for row in random.Random(seed).sample(range(ROWS), 300)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(gallery.thumbnail, rows))
    assert found == [thumbnail(row) for row in rows]


def test_filters_and_rows_are_correct_from_several_threads(path):
    gallery = Gallery(path)  # a fresh one, with nothing cached yet
    wanted = ["red", "Blue", "grün"] * 40
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda colour: gallery.rows_where({"colour": colour}), wanted))
        taken = list(pool.map(gallery.take, found))
    for colour, rows, hits in zip(wanted, found, taken, strict=True):
        assert rows.tolist() == rows_by_hand(lambda values, colour=colour: values["colour"] == colour)
        assert [hit.id for hit in hits] == [RECORDS[row]["id"] for row in rows]


def test_thumbnails_are_read_from_disk_and_few_are_cached(gallery):
    assert "thumbnail" not in gallery.table.column_names
    for row in range(ROWS):
        gallery.thumbnail(row)
    held = sum(len(page) for part in gallery._opened.thumbnails for page in part._kept._values.values())
    assert 0 < held <= thumbnails.PAGES_CACHED * 16 < ROWS


def test_row_groups_stay_within_their_size_limit(path):
    metadata = pq.ParquetFile(path).metadata
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert max(sizes) == files.ROWS_A_GROUP
    assert sum(sizes) == ROWS


def test_take_returns_rows_in_the_given_order_with_repeats(gallery):
    for rows in ([1499, 0, 700, 0], np.array([3, 2, 1]), [], np.array([], np.int64)):
        assert [hit.id for hit in gallery.take(rows)] == [RECORDS[row]["id"] for row in rows]


def test_row_of_finds_an_id_and_refuses_an_unknown_one(gallery):
    assert [gallery.row_of(f"{row:016x}") for row in (0, 999, ROWS - 1)] == [0, 999, ROWS - 1]
    with pytest.raises(QueryError, match="no image with the id 'nobody'"):
        gallery.row_of("nobody")


@pytest.mark.parametrize("rows", [[-1], [ROWS], [0, 10**9]])
def test_row_numbers_out_of_range_are_an_error(gallery, rows):
    with pytest.raises((IndexError, pa.ArrowException)):
        gallery.take(rows)
    with pytest.raises((IndexError, pa.ArrowException)):
        gallery.thumbnail(rows[-1])


def test_counts_are_sorted_by_frequency_and_skip_missing_values(gallery):
    if isinstance(gallery.column("label"), Wide):
        with pytest.raises(QueryError, match="'label' has too many values to be counted"):
            gallery.counts("label")
        return
    assert gallery.counts("label") == {"": 300, "mug": 300, "shirt": 300, "watch": 300}
    assert list(gallery.counts("label")) == ["", "mug", "shirt", "watch"]
    sizes = gallery.counts("size")
    assert sizes == {str(n): sum(values["size"] == n for values in RECORDS) for n in range(1, 7)}
    assert list(sizes.values()) == sorted(sizes.values(), reverse=True)
    assert gallery.counts("sold") == {"true": 750, "false": 750}
    assert gallery.counts("note") == {}
    with pytest.raises(QueryError, match="no column 'colours'; did you mean 'colour'"):
        gallery.counts("colours")


@pytest.mark.parametrize("where", [None, {}])
def test_rows_where_without_a_filter_is_none(gallery, where):
    assert gallery.rows_where(where) is None


@pytest.mark.parametrize(
    ("where", "keep"),
    [
        ({"label": "watch"}, lambda v: v["label"] == "watch"),
        ({"label": ""}, lambda v: v["label"] == ""),
        ({"label": ["watch", "mug", "watch"]}, lambda v: v["label"] in {"watch", "mug"}),
        ({"label": ("watch",), "colour": {"red"}}, lambda v: v["label"] == "watch" and v["colour"] == "red"),
        ({"label": ["watch", "mug"], "colour": ["red", "grün"], "size": 3}, lambda v: (
            v["label"] in {"watch", "mug"} and v["colour"] in {"red", "grün"} and v["size"] == 3)),
        ({"label": []}, lambda v: False),
        ({"size": 3}, lambda v: v["size"] == 3),
        ({"size": "3"}, lambda v: v["size"] == 3),
        ({"size": 3.0}, lambda v: v["size"] == 3),
        ({"size": [1, "2"]}, lambda v: v["size"] in {1, 2}),
        ({"price": 1}, lambda v: v["price"] == 1),
        ({"price": 1.0}, lambda v: v["price"] == 1),
        ({"price": "1.0"}, lambda v: v["price"] == 1),
        ({"price": "1"}, lambda v: v["price"] == 1),
        ({"price": [0.1, "2.50"]}, lambda v: v["price"] in {0.1, 2.5}),
        ({"price": 1e20}, lambda v: v["price"] == 1e20),
        ({"sold": True}, lambda v: v["sold"]),
        ({"sold": "true"}, lambda v: v["sold"]),
        ({"sold": "True"}, lambda v: v["sold"]),
        ({"sold": False}, lambda v: not v["sold"]),
        ({"source": "folder/12.jpg"}, lambda v: v["source"] == "folder/12.jpg"),
        ({"id": [f"{5:016x}", f"{1400:016x}"]}, lambda v: v["id"] in {f"{5:016x}", f"{1400:016x}"}),
    ],
)  # fmt: skip
def test_filter_selects_the_matching_rows(gallery, where, keep):
    rows = gallery.rows_where(where)
    assert rows.dtype == np.int64
    assert rows.tolist() == rows_by_hand(keep)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"labl": "watch"}, "no column 'labl'; did you mean 'label'"),
        ({"thumbnail": "x"}, "no column 'thumbnail'"),
        ({"sha256": "x"}, "no column 'sha256'"),
        ({"label": "wach"}, "no image has label=wach; did you mean 'watch'"),
        ({"label": "Watch"}, "did you mean 'watch'"),
        ({"colour": "blue"}, "did you mean 'Blue'"),
        ({"label": ["watch", "hat"]}, "no image has label=hat"),
        ("label=watch", "a filter must be a mapping"),
        (["label"], "a filter must be a mapping"),
        ({"size": 0}, "no image has size=0"),
        ({"size": 3.5}, "no image has size=3.5"),
        ({"size": "many"}, "no image has size=many"),
        ({"size": 10**30}, "no image has size=1000"),
        ({"sold": "maybe"}, "no image has sold=maybe; examples: 'true', 'false'"),
        ({"note": "x"}, "no image has note=x"),
        ({"label": {"a": 1}}, "the filter of 'label' has no operator 'a'; use =, !=, <, <=, > or >="),
        ({"label": [{"a": 1}]}, "no image has label="),
        ({"label": "\ud800"}, "no image has label="),
        ({"label": "watch", "colour": "mauve"}, "no image has colour=mauve; examples:"),
    ],
)
def test_wrong_filter_is_an_error_that_suggests_the_nearest_name(gallery, where, words):
    with pytest.raises(QueryError, match=words):
        gallery.rows_where(where)


def test_error_messages_shorten_long_values_and_encode_as_utf_8(gallery):
    for ask in (
        lambda: gallery.row_of("x" * 10_000),
        lambda: gallery.rows_where({"label": "x" * 10_000}),
        lambda: gallery.rows_where({"x" * 10_000: "watch"}),
        lambda: gallery.rows_where({"label": "\ud800"}),
        lambda: gallery.rows_where({"\ud800": "watch"}),
        lambda: gallery.row_of("\ud800"),
    ):
        with pytest.raises(QueryError) as raised:
            ask()
        assert len(str(raised.value).encode()) < 300


@pytest.mark.parametrize(
    ("where", "keep"),
    [
        (None, lambda _: True),
        ({}, lambda _: True),
        ({"note": None}, lambda row: row["note"] is None),
        ({"price": None}, lambda row: row["price"] is None),
        ({"price": [None]}, lambda row: row["price"] is None),
        ({"colour": ["red", None]}, lambda row: row["colour"] in ("red", None)),
        ({"colour": []}, lambda _: False),
        ({"colour": [], "label": "watch"}, lambda _: False),
        ({"size": np.array([1, 2])}, lambda row: row["size"] in (1, 2)),
    ],
)
def test_filter_handles_none_empty_lists_and_missing_values(gallery, where, keep):
    rows = gallery.rows_where(where)
    assert (list(range(ROWS)) if rows is None else rows.tolist()) == rows_by_hand(keep)


# Columns to filter by


def test_filter_columns_have_several_values_but_not_one_per_row(gallery, tmp_path):
    wide = isinstance(gallery.column("label"), Wide)
    assert gallery.filters == ([] if wide else ["label", "colour", "size", "price", "sold"]), "`note` has no value"
    table = pa.table({
        "id": ["a", "b", "c"], "label": ["x", "x", "x"], "each": ["1", "2", "3"], "two": ["1", "2", "2"],
        "some": [None, None, "1"],
    })  # fmt: skip
    schema = pa.schema([*BASE_SCHEMA, *((name, pa.string()) for name in ("each", "two", "some"))])
    write_gallery(tmp_path / "g", [conform(table, schema)], schema)
    assert Gallery(tmp_path / "g").filters == ["two"]


def test_column_with_too_many_values_is_not_a_filter(tmp_path):
    schema = pa.schema([*BASE_SCHEMA, ("few", pa.int64()), ("many", pa.int64())])
    rows = 4 * MAX_VALUES
    table = pa.table({
        "id": [f"{n}" for n in range(rows)], "few": [n % MAX_VALUES for n in range(rows)],
        "many": [n % (MAX_VALUES + 1) for n in range(rows)],
    })  # fmt: skip
    write_gallery(tmp_path / "g", [conform(table, schema)], schema)
    assert Gallery(tmp_path / "g").filters == ["few"]


@pytest.mark.parametrize(
    "where",
    [
        None,
        {},
        {"label": "watch"},
        {"label": ["watch", "mug"], "sold": True},
        {"label": ["watch"], "colour": ["red", "grün"], "size": [1, "2"]},
        {"label": "watch", "id": [f"{row:016x}" for row in range(0, 90, 5)]},
    ],
)
def test_facets_count_the_rows_each_choice_would_leave(gallery, where):
    chosen = {
        column: {str(value) for value in (wanted if isinstance(wanted, list) else [wanted])}
        for column, wanted in (where or {}).items()
    }
    found = gallery.facets(where)
    assert list(found) == gallery.filters
    for column in found:
        left = rows_by_hand(
            lambda values, column=column: all(
                str(values[name]) in wanted for name, wanted in chosen.items() if name != column
            )
        )
        values = [RECORDS[row][column] for row in left if RECORDS[row][column] is not None]
        counted = {text: sum(_as_column(value) == text for value in values) for text in map(_as_column, values)}
        without = found[column].pop(None, 0)
        assert without == len(left) - len(values)
        assert found[column] == counted
        numbers = all(isinstance(value, float | int) and not isinstance(value, bool) for value in values)
        assert list(found[column]) == sorted(counted, key=float if numbers else str), "numbers by their size"
    with pytest.raises(QueryError, match="no image has label=wach"):
        gallery.facets({"label": "wach"})


def _as_column(value):
    """The value as text, as Arrow formats it."""
    if isinstance(value, bool):
        return str(value).lower()
    return {1.0: "1", 1e20: "1e+20"}.get(value, str(value)) if isinstance(value, float) else str(value)


def test_suggestions_compare_a_limited_number_of_values(tmp_path):
    rows = 4 * words._COMPARED
    table = pa.table({"id": [f"{row:06}" for row in range(rows)], "source": [f"photo {row}" for row in range(rows)]})
    write_gallery(tmp_path / "g", [conform(table, BASE_SCHEMA)], BASE_SCHEMA)
    large = Gallery(tmp_path / "g")
    assert large.rows_where({"source": f"photo {rows - 1}"}).tolist() == [rows - 1]
    with pytest.raises(QueryError, match="did you mean 'photo 1"):
        large.rows_where({"source": "fhoto 1"})
    with pytest.raises(QueryError, match=f"it has {rows} images"):
        large.row_of("000000x")


def test_gallery_with_one_bare_row_loads(tmp_path):
    write_gallery(tmp_path / "g", [conform(pa.table({"id": ["a"], "thumbnail": [b"x"]}), BASE_SCHEMA)], BASE_SCHEMA)
    gallery = Gallery(tmp_path / "g")
    assert (len(gallery), gallery.labels, gallery.attributes, gallery.thumbnail(0)) == (1, [None], [], b"x")
    assert gallery.counts("label") == {}


def test_conform_orders_fills_and_casts_columns():
    schema = pa.schema([("a", pa.string()), ("b", pa.float64()), ("c", pa.bool_())])
    table = conform(pa.table({"b": pa.array([1, None]), "extra": [0, 0], "a": ["x", "y"]}), schema)
    assert table.schema == schema
    assert table.to_pylist() == [{"a": "x", "b": 1.0, "c": None}, {"a": "y", "b": None, "c": None}]


# The files


def from_before(path, tables, schema, **options):
    """A gallery as earlier versions wrote it: thumbnails are bytes, in row groups of 32."""
    leaves = {item.name: "NONE" if item.name == "thumbnail" else "ZSTD" for item in schema}
    repeating = [item.name for item in schema if item.name not in {"id", "thumbnail", "source", "sha256"}]
    options = {"compression": leaves, "use_dictionary": repeating, "write_statistics": False, **options}
    pq.write_table(pa.concat_tables(tables), path, row_group_size=32, **options)
    return path


@pytest.mark.parametrize(
    "options", [{}, {"use_dictionary": True, "compression": "SNAPPY"}, {"data_page_version": "2.0"}]
)
def test_gallery_of_an_earlier_version_or_another_writer_is_read(gallery, tmp_path, options):
    old = Gallery(from_before(tmp_path / "old.parquet", [pa.Table.from_pylist(RECORDS, SCHEMA)], SCHEMA, **options))
    assert old.table.equals(gallery.table) and old.schema == gallery.schema == SCHEMA
    assert [old.thumbnail(row) for row in range(ROWS)] == [thumbnail(row) for row in range(ROWS)]


def test_rows_that_are_read_again_are_written_with_the_same_bytes(path, tmp_path, monkeypatch):
    """Those of an earlier version, too, which then have the new form."""
    old = from_before(tmp_path / "old.parquet", [pa.Table.from_pylist(RECORDS, SCHEMA)], SCHEMA)
    monkeypatch.setattr(files, "_PAGE_BYTES", 1)
    for source in (path, old):
        [again] = write_gallery(tmp_path / "again", read_tables(source, np.arange(ROWS)), SCHEMA)
        assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("count", [1, 3])
def test_datasets_reads_thumbnails_as_pictures(tmp_path, monkeypatch, count):
    jpeg = [thumbnail_jpeg(Image.new("RGB", (8, 6), (row % 256, 0, 0))) for row in range(3000)]
    table = {"id": [f"{row}" for row in range(3000)], "thumbnail": jpeg, "tags": [["a", "b"]] * 3000}
    schema = pa.schema([*BASE_SCHEMA, ("tags", pa.list_(pa.string()))])
    monkeypatch.setattr(files, "SHARD_BYTES", 1 if count > 1 else 10**9)
    written = write_gallery(tmp_path / "gallery.parquet", [conform(pa.table(table), schema)], schema)
    assert len(written) == count
    options = {"cache_dir": str(tmp_path / "cache"), "split": "train"}
    data = datasets.load_dataset("parquet", data_files=[str(file) for file in written], **options)
    assert data["id"] == table["id"] and data[0]["tags"] == ["a", "b"]
    assert isinstance(data.features["thumbnail"], datasets.Image)
    assert data[2999]["thumbnail"].size == (8, 6)


def test_shards_hold_the_rows_of_one_file_in_order(gallery, path, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SHARD_BYTES", 1)
    tables = [pa.Table.from_pylist(RECORDS[start : start + 700], schema=SCHEMA) for start in range(0, ROWS, 700)]
    shards = write_gallery(tmp_path / "gallery.parquet", tables, SCHEMA)
    assert [file.name for file in shards] == ["gallery-00000-of-00002.parquet", "gallery-00001-of-00002.parquet"]
    assert sorted(tmp_path.iterdir()) == shards
    several = Gallery(shards)
    assert several.table.equals(gallery.table)
    assert [several.thumbnail(row) for row in range(ROWS)] == [thumbnail(row) for row in range(ROWS)]
    assert [hit.id for hit in several.take([1499, 0, 1024])] == [RECORDS[row]["id"] for row in (1499, 0, 1024)]
    rows = np.array([3, 1023, 1024, 1400])
    kept = pa.concat_tables(read_tables(shards, rows))
    assert kept.to_pylist() == [RECORDS[row] for row in rows]


def test_shards_with_other_columns_are_refused(tmp_path):
    first = write_gallery(tmp_path / "a.parquet", [pa.Table.from_pylist(RECORDS[:9], SCHEMA)], SCHEMA)
    other = write_gallery(
        tmp_path / "b.parquet", [conform(pa.Table.from_pylist(RECORDS[9:12]), BASE_SCHEMA)], BASE_SCHEMA
    )
    with pytest.raises(IntegrityError, match=r"b.parquet has other columns than a.parquet"):
        Gallery([*first, *other])


@pytest.mark.parametrize(
    "name", ["gallery-00002-of-00002", "gallery-00000-of-00000", "gallery-1-of-2", "x-00000-of-00002"]
)
def test_name_that_no_shard_has_is_none(name):
    assert names.shard_of(f"{name}.parquet", "gallery") is None
    assert names.shard_of("gallery-00001-of-00002.parquet", "gallery") == (1, 2)
