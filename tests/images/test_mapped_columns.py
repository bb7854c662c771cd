"""The columns of a large gallery lie in a private folder: made once, made again if damaged, and never in the way."""

import os
import shutil
from concurrent.futures import ProcessPoolExecutor

import pyarrow as pa
import pytest
from galleries import opened_as

from retrieval.errors import IntegrityError
from retrieval.images.gallery import BASE_SCHEMA, Gallery, conform, write_gallery
from retrieval.images.stored import files, opened
from retrieval.untrusted import parquet

ROWS = 300
SCHEMA = pa.schema(
    [*BASE_SCHEMA, ("colour", pa.string()), ("tags", pa.list_(pa.string())), ("none", pa.list_(pa.int64()))]
)


def table(**columns):
    base = {
        "id": [f"{row * 7919 % ROWS:04d}" for row in range(ROWS)],
        "thumbnail": [str(row).encode() * 50 for row in range(ROWS)],
        "label": ["a" if row % 3 else None for row in range(ROWS)],
        "source": [f"{row}.png" for row in range(ROWS)],
        "sha256": [f"{row:064x}" for row in range(ROWS)],
        "colour": ["red", "blue"] * (ROWS // 2),
        "tags": [["x", "y", "x"][: row % 4] for row in range(ROWS)],
    }
    return conform(pa.table({**base, **columns}), SCHEMA)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where the columns lie; with shards of 64 rows."""
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "ROWS_A_GROUP", 64)
    monkeypatch.setattr(files, "SHARD_BYTES", 1)
    return tmp_path / "cache" / "columns-1"


@pytest.fixture
def shards(tmp_path, cache):
    return write_gallery(tmp_path / "gallery.parquet", [table()], SCHEMA)


def check(gallery):
    assert gallery.table.equals(table().drop_columns(["thumbnail"]))
    assert gallery.schema == SCHEMA
    assert [gallery.thumbnail(row) for row in range(ROWS)] == [str(row).encode() * 50 for row in range(ROWS)]
    assert [gallery.row_of(image_id) for image_id in table()["id"].to_pylist()] == list(range(ROWS))
    assert gallery.facets({"tags": "y"})["colour"] == {"red": 75, "blue": 75}
    assert gallery.rows_where({"none": None}).tolist() == list(range(ROWS))


def made(cache):
    return {path.name: path.stat().st_ino for path in (cache / "key").iterdir()}


def test_columns_are_made_once_and_only_for_their_owner(shards, cache):
    check(opened_as("mapped", shards, "key"))
    assert (cache / "key").stat().st_mode & 0o077 == 0
    before = made(cache)
    check(opened_as("mapped", shards, "key"))
    check(Gallery(shards, "key"))
    assert made(cache) == before
    assert [path.name for path in cache.iterdir() if path.is_dir()] == ["key"]


def test_hash_of_the_ids_is_that_of_a_small_gallery(shards):
    assert opened_as("mapped", shards, "key").ids_sha256 == opened_as("memory", shards).ids_sha256


@pytest.mark.parametrize(
    "name", ["rows.arrow", "order.npy", "0.codes", "2.owners", "1.distinct", "stated.json", "places.npy"]
)
@pytest.mark.parametrize("how", ["cut", "gone", "other"])
def test_damaged_columns_are_made_again(shards, cache, name, how):
    opened_as("mapped", shards, "key")
    path = cache / "key" / name
    content = path.read_bytes()
    path.unlink()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "other":
        path.write_bytes(content + b"x")
    check(opened_as("mapped", shards, "key"))
    assert path.read_bytes() == content


def test_what_a_killed_process_left_is_removed(shards, cache):
    (cache / "key.0123.new").mkdir(parents=True)
    check(opened_as("mapped", shards, "key"))
    assert [path.name for path in cache.iterdir() if path.is_dir()] == ["key"]


@pytest.mark.parametrize("place", ["", "file", "writable by others"])
def test_without_a_private_folder_a_temporary_one_is_used(shards, cache, monkeypatch, tmp_path, place):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    if place == "":
        monkeypatch.setenv("LOOKALIKE_CACHE", "")
    elif place == "file":
        cache.parent.write_text("")
    else:
        cache.mkdir(parents=True)
        cache.chmod(0o777)
    gallery = opened_as("mapped", shards, "key")
    check(gallery)
    assert len(list((tmp_path / "temporary").iterdir())) == 2  # the folder and its lock
    if cache.is_dir():
        assert list(cache.iterdir()) == []
    del gallery
    assert list((tmp_path / "temporary").iterdir()) == []


def test_gallery_goes_on_when_its_columns_are_deleted_or_its_files_replaced(shards, cache):
    gallery = opened_as("mapped", shards, "key")
    shutil.rmtree(cache)
    for path in shards:
        path.unlink()
    check(gallery)


def test_columns_that_were_not_used_for_longest_go_first(shards, cache, monkeypatch):
    for key in ("first", "second"):
        opened_as("mapped", shards, key)
    os.utime(cache / "first")
    one = sum(path.stat().st_size for path in (cache / "first").iterdir())
    monkeypatch.setattr(opened, "_MOST_BYTES", 2 * one)
    check(opened_as("mapped", shards, "third"))
    assert sorted(path.name for path in cache.iterdir() if path.is_dir()) == ["first", "third"]


def test_several_processes_make_columns_once(shards, cache):
    with ProcessPoolExecutor(3) as pool:
        ids = list(pool.map(_first_id, [shards] * 3))
    assert ids == ["0000"] * 3
    assert [path.name for path in cache.iterdir() if path.is_dir()] == ["key"]


def _first_id(shards):
    return opened_as("mapped", shards, "key").ids[0]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"id": ["x", *(str(row) for row in range(ROWS - 2)), "x"]}, "300 rows have only 299 different ids"),
        ({"id": ["", *(str(row) for row in range(ROWS - 1))]}, "ids have 1 to 200 bytes"),
        ({"id": [None, *(str(row) for row in range(ROWS - 1))]}, "have no id"),
        ({"sha256": [None] * ROWS}, "have no sha256"),
        ({"colour": pa.array([b"\xff"] * ROWS).view(pa.string())}, "cannot be read"),
    ],
)
def test_values_that_cannot_be_used_are_refused_and_nothing_is_kept(tmp_path, cache, columns, words):
    shards = write_gallery(tmp_path / "gallery.parquet", [table(**columns)], SCHEMA)
    with pytest.raises(IntegrityError, match=words):
        opened_as("mapped", shards, "key")
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_columns_that_would_fill_the_disk_are_refused(tmp_path, cache, monkeypatch):
    """Each step alone is small enough, but not all of them."""
    monkeypatch.setattr(parquet, "LEAST_UNPACKED", 2**15)
    monkeypatch.setattr(parquet, "TIMES_FILE", 1)
    texts = pa.array(["x" * 300] * ROWS)  # which a dictionary holds once
    monkeypatch.setattr(files, "SHARD_BYTES", 10**9)
    shards = write_gallery(tmp_path / "gallery.parquet", [table(colour=texts)], SCHEMA)
    with pytest.raises(IntegrityError, match="declares more than"):
        opened_as("mapped", shards, "key")
