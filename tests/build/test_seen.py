"""Images are recognised by their content with few bytes for each."""

import hashlib
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.build.large import seen as module
from retrieval.build.large.seen import FileRows, Hashes, Seen


def sha256(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


@pytest.mark.parametrize("step", [1, 7, 512])
def test_rows_are_found_by_their_hash_and_no_others(step):
    hashes, count = Hashes(), 3_000
    for at in range(0, count, step):
        hashes.add([sha256(number) for number in range(at, min(at + step, count))])
    assert len(hashes) == count
    assert [list(hashes.rows(sha256(number))) for number in range(count)] == [[number] for number in range(count)]
    others = [sha256(number) for number in range(count - 5, 2 * count)]
    assert [name for name in others if list(hashes.rows(name))] == others[:5]
    assert np.flatnonzero(hashes.likely(others)).tolist() == [0, 1, 2, 3, 4]


def test_the_same_hash_twice_is_found_twice_also_where_nothing_else_is():
    hashes = Hashes()
    assert not list(hashes.rows("a"))
    assert not hashes.likely(["a"]).any()
    hashes.add([])
    hashes.add(["a", "b", "a"])
    hashes.add(["a"])
    assert sorted(hashes.rows("a")) == [0, 2, 3]


def test_hashes_of_a_million_rows_take_few_bytes_each():
    names = [f"{number:x}" for number in range(200_000)]
    tracemalloc.start()
    hashes = Hashes()
    for at in range(0, len(names), 512):
        hashes.add(names[at : at + 512])
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 20 * len(names)


def test_two_contents_with_the_same_short_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr(module, "hash", lambda text: len(text), raising=False)  # as if all collided
    hashes, rows = Hashes(), [("a", "first"), ("b", "second"), ("cc", "third")]
    hashes.add([content for content, _ in rows])
    seen = Seen()
    seen.include(hashes, rows.__getitem__)
    assert [seen.get(content) for content in ("a", "b", "cc", "d", "ee")] == ["first", "second", "third", None, None]
    assert "b" in seen
    assert "e" not in seen


def test_names_that_are_set_count_until_they_are_dropped():
    seen = Seen()
    seen["a"], seen["b"] = "one", "two"
    seen.drop(["a", "c"])
    assert (seen.get("a"), seen.get("b")) == (None, "two")


def test_rows_of_files_are_numbered_through(tmp_path):
    rows = FileRows(["name"])
    for number, names in enumerate((["a", "b"], [], ["c"])):
        pq.write_table(pa.table({"name": pa.array(names, pa.string()), "more": names}), tmp_path / str(number))
        rows.add(tmp_path / str(number), len(names))
    assert [rows.get(row)["name"].as_py() for row in (2, 0, 1)] == ["c", "a", "b"]
