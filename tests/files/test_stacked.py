"""Many vectors are one array, in memory or mapped from a file that leaves nothing behind."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import ArtifactError
from retrieval.files import stacked as module
from retrieval.files.stacked import pieces, stacked

DIM = 16


@pytest.fixture
def parts():
    rng = np.random.default_rng(0)
    return [rng.standard_normal((rows, DIM)).astype(np.float32) for rows in (3, 0, 1_000, 17)]


@pytest.fixture
def mapped(monkeypatch):
    monkeypatch.setattr(module, "IN_MEMORY", 0)


def test_few_vectors_are_in_memory_and_many_in_a_file_with_the_same_values(parts, tmp_path, monkeypatch):
    few = stacked(tmp_path, 1_020, DIM, iter(parts))
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    many = stacked(tmp_path, 1_020, DIM, iter(parts))
    np.testing.assert_array_equal(few, np.concatenate(parts))
    np.testing.assert_array_equal(many, few)
    assert (many.dtype, few.flags.writeable, many.flags.writeable) == (np.float32, True, False)
    assert not list(tmp_path.iterdir())


def _anonymous():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_mapped_vectors_take_no_memory_of_the_process(tmp_path):
    dim, rows, one = 256, 2**18, np.ones((2**12, 256), np.float32)
    before = _anonymous()
    vectors = stacked(tmp_path, rows, dim, (one for _ in range(rows // len(one))))
    assert float(vectors[::64].sum()) == rows // 64 * dim
    assert vectors.nbytes == 2**28
    assert _anonymous() - before < 2**26


def test_columns_of_other_types_and_orders_are_written_as_float32(mapped, tmp_path):
    part = np.asfortranarray(np.arange(12.0).reshape(4, 3))
    np.testing.assert_array_equal(stacked(tmp_path, 4, 3, [part]), part.astype(np.float32))


def test_full_disk_is_a_sentence(mapped, tmp_path):
    def failing():
        yield np.zeros((1, DIM), np.float32)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ArtifactError, match="No space left"):
        stacked(tmp_path, 2, DIM, failing())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [0, 1, 2**21 // 256, 100_000])
def test_pieces_cover_all_rows_once(count):
    rows = np.arange(count)
    cut = [rows[part] for part in pieces(count, 256)]
    assert np.concatenate([rows[:0], *cut]).tolist() == rows.tolist()
    assert max(map(len, cut), default=0) * 256 * 4 <= 2**23
