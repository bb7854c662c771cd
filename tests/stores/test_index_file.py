"""Index files from strangers: what they declare is refused before FAISS reads it, in memory that fits the file."""

import random
import struct

import faiss
import numpy as np
import pytest

from retrieval.errors import IntegrityError
from retrieval.stores.faiss import FaissStore
from retrieval.stores.index_file import Header, check_index
from retrieval.stores.stated import check_lengths

ROWS, DIM = 300, 16
FACTORIES = ["Flat", "SQ8", "SQfp16", "IVF8,Flat", "IVF8_HNSW4,SQ6", "HNSW4", "HNSW4,SQbf16"]
ENDLESS = 2**62


def settings(factory):
    return {"factory": factory, "search": {"nprobe": 4} if "IVF" in factory else {}}


@pytest.fixture(scope="module")
def vectors():
    drawn = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture(scope="module", params=FACTORIES)
def made(request, vectors):
    """The factory string and the bytes of an index of each type."""
    index = faiss.index_factory(DIM, request.param, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    return request.param, faiss.serialize_index(index).tobytes()


def loaded(path, content, factory="Flat", stated=None):
    path.write_bytes(content)
    return FaissStore.load(path, settings(factory) | (stated or {}))


def test_every_type_of_a_store_is_read_and_answers_as_before(made, vectors, tmp_path):
    factory, content = made
    store = loaded(tmp_path / "index", content, factory)
    lists = 8 if factory.startswith("IVF") else 0
    assert check_index(tmp_path / "index") == Header(DIM, ROWS, faiss.METRIC_INNER_PRODUCT, lists)
    plain = faiss.read_index(str(tmp_path / "index"))
    if lists:
        plain.nprobe = 4
    np.testing.assert_array_equal(store.search(vectors[:9], 3)[0][:, 0], plain.search(vectors[:9], 3)[1][:, 0])


def test_every_cut_of_a_file_is_refused(made, tmp_path):
    factory, content = made
    for length in sorted({*range(0, 300, 7), *range(300, len(content), 997), len(content) - 1}):
        with pytest.raises(IntegrityError, match="index"):
            loaded(tmp_path / "index", content[:length], factory)
    with pytest.raises(IntegrityError, match="has 1 bytes after its end"):
        loaded(tmp_path / "index", content + b"\0", factory)


def test_changed_numbers_are_refused_or_leave_an_index_that_can_be_searched(made, vectors, tmp_path):
    factory, content = made
    draw = random.Random(factory)
    for _ in range(60):
        spoiled = bytearray(content)
        place = draw.randrange(draw.choice([150, 2_000, len(content) - 8]))
        spoiled[place : place + 8] = draw.choice([-1, 0, ROWS, 10**9, 2**31, ENDLESS]).to_bytes(
            8, "little", signed=True
        )
        try:
            store = loaded(tmp_path / "index", spoiled[: len(content)], factory)
            check_lengths("index", store, factory)
        except IntegrityError:
            continue
        rows, scores = store.search(vectors[:5], 3, allowed=np.arange(0, ROWS, 2))
        assert (rows < ROWS).all() and scores.shape == (5, 3)
        assert store.vectors(np.arange(len(store))).shape == (len(store), store.dim)


def test_length_that_is_not_in_the_file_is_named(vectors, tmp_path):
    index = faiss.index_factory(DIM, "Flat", faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    content = bytearray(faiss.serialize_index(index).tobytes())
    place = len(content) - 4 * vectors.size - 8
    assert struct.unpack_from("<Q", content, place) == (vectors.size,)
    struct.pack_into("<Q", content, place, 2_200_000_000)
    with pytest.raises(IntegrityError, match=r"declares 2,200,000,000 numbers where 4,800 are expected"):
        loaded(tmp_path / "index", content)
    struct.pack_into("<q", content, 8, 2_200_000_000 // DIM)  # the header says so too
    with pytest.raises(IntegrityError, match=r"declares 137,500,000 vectors of 16 numbers in 19,2\d\d bytes"):
        loaded(tmp_path / "index", content)


@pytest.mark.parametrize(
    "factory", ["PCA8,Flat", "IDMap,Flat", "Flat,RFlat", "PQ4x4np", "IVF4,PQ4x4np", "LSH", "NSG8,Flat"]
)
def test_other_types_are_refused_unread_also_inside_others(factory, vectors, tmp_path):
    index = faiss.index_factory(DIM, factory, faiss.METRIC_L2 if factory[:3] in ("LSH", "NSG") else 0)
    index.train(vectors)
    index.add_with_ids(vectors, np.arange(ROWS)) if "IDMap" in factory else index.add(vectors)
    faiss.write_index(index, str(tmp_path / "index"))
    with pytest.raises(IntegrityError, match=r"part of type '\w{4}' where one of IxFI.* is expected|quantiser"):
        check_index(tmp_path / "index")
    around = faiss.IndexIVFFlat(index, DIM, 4, faiss.METRIC_INNER_PRODUCT)
    content = faiss.serialize_index(around).tobytes()
    with pytest.raises(IntegrityError, match=r"is expected|declares"):
        loaded(tmp_path / "index", content, "IVF4,Flat")


@pytest.mark.parametrize("link", [ROWS, 2**31 - 1, -2])
def test_link_of_a_graph_to_no_vector_is_refused(link, vectors, tmp_path):
    index = faiss.index_factory(DIM, "HNSW4", faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    links = faiss.vector_to_array(index.hnsw.neighbors)
    links[len(links) // 2] = link
    faiss.copy_array_to_vector(links, index.hnsw.neighbors)
    with pytest.raises(IntegrityError, match=r"has links to vectors"):
        loaded(tmp_path / "index", faiss.serialize_index(index).tobytes(), "HNSW4")


def test_link_to_a_level_that_the_vector_does_not_have_is_refused(vectors, tmp_path):
    index = faiss.index_factory(DIM, "HNSW4", faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    links, levels = (faiss.vector_to_array(each) for each in (index.hnsw.neighbors, index.hnsw.levels))
    high = int(np.argmax(levels))
    place = index.hnsw.offsets.at(high) + index.hnsw.cum_nneighbor_per_level.at(1)
    links[place] = int(np.argmin(levels))
    faiss.copy_array_to_vector(links, index.hnsw.neighbors)
    with pytest.raises(IntegrityError, match=r"has links on level 1 to vectors that are not on it"):
        loaded(tmp_path / "index", faiss.serialize_index(index).tobytes(), "HNSW4")


def test_row_that_is_twice_or_never_in_the_lists_is_refused(vectors, tmp_path):
    index = faiss.index_factory(DIM, "IVF8,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add_with_ids(vectors, np.array([0, *range(ROWS - 1)]))
    with pytest.raises(IntegrityError, match="has 1 rows in no list"):
        loaded(tmp_path / "index", faiss.serialize_index(index).tobytes(), "IVF8,Flat")
    index.reset()
    index.add_with_ids(vectors, np.arange(1, ROWS + 1))
    with pytest.raises(IntegrityError, match="has rows from"):
        loaded(tmp_path / "index", faiss.serialize_index(index).tobytes(), "IVF8,Flat")


@pytest.mark.parametrize("length", [0, 1.01, 1e6, np.nan, np.inf])
def test_vector_that_is_not_of_unit_length_is_refused(length, vectors, tmp_path):
    index = faiss.index_factory(DIM, "Flat", faiss.METRIC_INNER_PRODUCT)
    index.add(vectors * np.where(np.arange(ROWS) == 7, np.float32(length), 1)[:, None].astype(np.float32))
    store = loaded(tmp_path / "index", faiss.serialize_index(index).tobytes())
    with pytest.raises(IntegrityError, match=r"index: the vector of row 7 has length \S+, not 1"):
        check_lengths("index", store, "Flat")


@pytest.mark.parametrize(
    "changes",
    [{"factory": "IVF9999999,Flat"}, {"factory": "IVF9,Flat"}, {"factory": 7}, {"search": []}]
    + [{"search": {"efSearch": value}} for value in (0, -1, 10**9, "32", True, 1.5, None)]
    + [{"search": {"nprobe": 10**9}}, {"search": {"other": 1}}],
)
def test_settings_that_no_index_has_are_refused(changes, vectors, tmp_path):
    index = faiss.index_factory(DIM, "Flat", faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    with pytest.raises(IntegrityError, match="the manifest"):
        loaded(tmp_path / "index", faiss.serialize_index(index).tobytes(), stated=changes)
