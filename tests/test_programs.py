"""The Python API: what a Searcher accepts and refuses, and that it works in threads, forks and other processes."""

import asyncio
import io
import multiprocessing
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from PIL import Image
from together import answered_together

from retrieval import (
    ArtifactError,
    EncoderError,
    ImageError,
    IntegrityError,
    QueryError,
    Searcher,
    add_images,
    find_duplicates,
    open_artifact,
    open_image,
    open_source,
    remove_images,
)


@pytest.fixture(scope="module")
def searcher(artifact):
    return Searcher.open(artifact)


@pytest.fixture(scope="module")
def photo(pictures):
    return sorted(pictures.rglob("*.png"))[7]


def found(searcher, *arguments, **options):
    return [(hit.id, round(hit.score, 5)) for hit in searcher.search(*arguments, **options)]


# Forms of a query image


def forms(path):
    """The same image in every form that a program may have it in."""
    picture = Image.open(path)
    pixels = np.asarray(picture.convert("RGB"))
    opaque = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    data = path.read_bytes()
    return {
        "path": path,
        "text": str(path),
        "bytes": data,
        "bytearray": bytearray(data),
        "file": io.BytesIO(data),
        "PIL": picture.convert("RGB"),
        "PIL not yet read": Image.open(path),
        "PIL RGBA": picture.convert("RGBA"),
        "array": pixels,
        "array with alpha": opaque,
        "array that is a view": pixels[::-1][::-1],
    }


def test_search_gives_the_same_hits_for_every_form_of_an_image(searcher, photo):
    expected = found(searcher, photo, k=5)
    assert expected[0][1] == 1.0
    for form, picture in forms(photo).items():
        assert found(searcher, picture, k=5) == expected, form


def test_2d_array_opens_as_a_grey_image():
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    np.testing.assert_array_equal(np.asarray(open_image(pixels)), np.dstack([pixels] * 3))


def test_array_with_alpha_is_blended_over_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, :, 3] = 255
    assert np.asarray(open_image(pixels)).tolist() == [[[0, 0, 0]] * 2, [[255, 255, 255]] * 2]


def test_pil_image_opens_like_its_file_and_is_not_changed(tmp_path):
    """Orientation, transparency and 16 bits are handled as for the file; the caller's image stays unchanged."""
    turned = Image.new("RGB", (4, 2), "red")
    turned.putpixel((0, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0)
    Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save(tmp_path / "deep.png")
    Image.new("LA", (3, 2), (0, 0)).save(tmp_path / "clear.png")
    for name in ("turned.jpg", "deep.png", "clear.png"):
        mine = Image.open(tmp_path / name)
        read = open_image(mine)
        np.testing.assert_array_equal(np.asarray(read), np.asarray(open_image(tmp_path / name)), err_msg=name)
        assert read is not mine
        assert (mine.mode, mine.size) == (Image.open(tmp_path / name).mode, Image.open(tmp_path / name).size)
        np.testing.assert_array_equal(np.asarray(open_image(mine)), np.asarray(read), err_msg="once more")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.array([["a"]]),
    ],
)
def test_unsupported_array_is_refused_with_its_shape(searcher, array):
    for take in (open_image, searcher.search):
        with pytest.raises(ImageError, match="uint8, of shape") as raised:
            take(array)
        assert str(array.shape) in str(raised.value)
        assert str(array.dtype) in str(raised.value)


def test_pil_image_over_the_limits_is_refused():
    with pytest.raises(ImageError, match="too long and thin"):
        open_image(Image.new("L", (500, 2)))
    with pytest.raises(ImageError, match="memory"):
        open_image(Image.new("1", (20_000, 20_000)))
    with pytest.raises(ImageError, match="no pixels"):
        open_image(Image.new("RGB", (0, 3)))


# Refused arguments, and what to pass instead


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"k": "5"}, "k, the number of hits, must be a whole number, not '5'"),
        ({"k": 1.5}, "must be a whole number"),
        ({"k": 5.0}, "must be a whole number"),
        ({"k": True}, "must be a whole number"),
        ({"k": np.True_}, "must be a whole number"),
        ({"k": None}, "must be a whole number"),
        ({"k": 0}, "from 1 to 1000, not 0"),
        ({"k": np.int64(1001)}, "from 1 to 1000, not 1001"),
        ({"min_score": float("nan")}, "from -1 to 1, not nan"),
        ({"min_score": "0.5"}, "from -1 to 1, not '0.5'"),
        ({"min_score": 2}, "from -1 to 1, not 2"),
        ({"where": "label=x"}, 'a filter must be a mapping such as {"label": "shirt"}, not'),
        ({"where": [("label", "x")]}, "a filter must be a mapping"),
        ({"like": "abc"}, "like must be a list of gallery ids"),
        ({"unlike": [3]}, "unlike must be a list of gallery ids"),
        ({"like": ["nobody"]}, "no image with the id 'nobody'"),
        ({"image": "https://example.org/cat.jpg"}, "is a URL: download it first"),
        ({"image": "HTTP://example.org/cat.jpg"}, "is a URL: download it first"),
        ({"image": torch.zeros(3, 4, 4)}, "not Tensor; convert it to a NumPy array first"),
        ({"image": 3}, "a picture must be a path, bytes, a binary file, a PIL image or a uint8 array, not int"),
        ({"image": [1, 2]}, "not list"),
        ({"image": None}, "the query is empty"),
        ({"image": None, "region": [0, 0, 1, 1]}, "a region needs exactly one picture"),
        ({"image": None, "words": 3}, "words must be a string, not int"),
        ({"image": None, "words": "a shirt"}, "this artifact has no text model"),
    ],
)
def test_invalid_search_argument_is_a_one_line_error(searcher, photo, arguments, words):
    with pytest.raises(QueryError) as raised:
        searcher.search(**{"image": photo, **arguments})
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("k", [np.int64(3), np.uint8(3), torch.tensor(3), 3])
def test_k_can_be_any_integer_type(searcher, photo, k):
    assert found(searcher, photo, k=k) == found(searcher, photo, k=3)


def test_search_with_a_missing_file_is_an_error(searcher):
    with pytest.raises(ImageError, match=r"a\.jpg: no such file"):
        searcher.search("a.jpg")


# Searches that combine several things


def test_search_combines_images_ids_likes_and_unlikes(searcher, photo):
    ids = searcher.gallery.ids
    assert found(searcher, id=ids[3], k=5) == [
        (hit.id, round(hit.score, 5)) for hit in searcher.search_by_id(ids[3], 5)
    ]
    vectors = searcher.store.vectors(np.arange(60))
    whole = searcher.encoder.embed_images([open_image(photo)])[0] + vectors[1] - vectors[2]
    scores = vectors @ (whole / np.linalg.norm(whole))
    scores[[1, 2]] = -2
    hits = searcher.search(photo, k=4, like=[ids[1]], unlike=[ids[2]])
    assert [hit.row for hit in hits] == np.argsort(-scores, kind="stable")[:4].tolist()
    assert [hit.score for hit in hits] == pytest.approx(np.sort(scores)[::-1][:4], abs=1e-5)
    only = searcher.search(photo, k=4, where={"label": searcher.gallery.labels[0]}, min_score=-1, fold=True)
    assert {hit.label for hit in only} == {searcher.gallery.labels[0]}


def test_embedding_of_a_file_is_cached_until_the_file_changes(artifact, pictures, tmp_path):
    searcher, calls = Searcher.open(artifact), []
    embed = searcher.encoder.embed_images
    searcher.encoder.embed_images = lambda images: calls.append(len(images)) or embed(images)
    one, other = sorted(pictures.rglob("*.png"))[:2]
    photo = Path(shutil.copy(one, tmp_path / "photo.png"))
    first = found(searcher, photo)
    assert found(searcher, photo, k=3, min_score=0.1) == first[:3]
    assert found(searcher, str(photo)) == found(searcher, one.read_bytes()) == first
    assert found(searcher, one.read_bytes()) == first
    assert len(calls) == 2, "the file once, and its bytes once"
    shutil.copy(other, photo)
    assert found(searcher, photo) == found(searcher, other) != first


def test_explain_and_find_duplicates_work_without_the_page(artifact, searcher, photo):
    ids = searcher.gallery.ids
    why = searcher.explain(ids[0], photo)
    assert why.query.sum == pytest.approx(why.cosine, abs=1e-5)
    assert searcher.explain(ids[0], id=ids[1]).cosine == pytest.approx(
        float(np.dot(*searcher.store.vectors(np.array([0, 1])))), abs=1e-5
    )
    with pytest.raises(QueryError, match="give either image or id, not both"):
        searcher.explain(ids[0])
    assert find_duplicates(searcher, 0.9) == find_duplicates(open_artifact(artifact), 0.9)
    with pytest.raises(QueryError, match=r"from 0\.6 to 1"):
        find_duplicates(searcher, 0.1)


class Flipped:
    """A third-party encoder that implements the Protocol and nothing more."""

    name = "flipped"
    fingerprint = "flipped-1"

    def __init__(self, inner, rows=1):
        self._inner, self.dim, self._rows = inner, inner.dim, rows

    def embed_images(self, images):
        return np.repeat(-self._inner.embed_images(images), self._rows, axis=0)


def test_any_encoder_that_follows_the_protocol_works(artifact, photo):
    opened = open_artifact(artifact)
    searcher = Searcher(Flipped(opened.encoder), opened.store, opened.gallery)
    scores = -opened.store.vectors(np.arange(60)) @ opened.encoder.embed_images([open_image(photo)])[0]
    assert [hit.row for hit in searcher.search(photo, 3)] == np.argsort(-scores, kind="stable")[:3].tolist()
    assert not searcher.explains
    with pytest.raises(EncoderError, match="'flipped' cannot be split"):
        searcher.explain(opened.gallery.ids[0], photo)
    broken = Searcher(Flipped(opened.encoder, rows=2), opened.store, opened.gallery)
    with pytest.raises(EncoderError, match=r"of shape \(2, 16\) for one picture, .* of shape \(1, 16\)"):
        broken.search(photo)


# Forks, worker processes and threads


def searched_in_a_child(searcher, photo):
    """What a forked child finds; the child is killed after a minute."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            with ThreadPoolExecutor(4) as pool:
                answers = list(pool.map(lambda k: found(searcher, photo, k=k), [5] * 8))
            os.write(writer, pickle.dumps([found(searcher, photo.read_bytes(), k=5), *answers]))
        finally:
            os._exit(0)
    os.close(writer)
    with ThreadPoolExecutor(1) as pool, os.fdopen(reader, "rb") as pipe:
        answer = pool.submit(pipe.read)
        try:
            return pickle.loads(answer.result(60))
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)


def test_search_works_in_a_forked_child_process(searcher, photo):
    """The threads of the encoder and of FAISS do not exist in a fork, and threads that are gone may hold locks."""
    expected = found(searcher, photo.read_bytes(), k=5)
    threads = torch.get_num_threads(), faiss.omp_get_max_threads()
    try:
        torch.set_num_threads(2)
        faiss.omp_set_num_threads(2)
        searcher.store.search(np.tile(searcher.store.vectors(np.arange(60)), (50, 1)), 10)
        searcher._vectors._values.clear()
        [thumbnails] = searcher.gallery._opened.thumbnails
        caches = searcher._vectors, thumbnails._kept, searcher.pictures._cells
        with thumbnails._lock, caches[0]._lock, caches[1]._lock, caches[2]._lock:
            assert searched_in_a_child(searcher, photo) == [expected] * 9
    finally:
        torch.set_num_threads(threads[0])
        faiss.omp_set_num_threads(threads[1])


class Queries(torch.utils.data.Dataset):
    def __init__(self, searcher, photo):
        self.searcher, self.photo = searcher, photo

    def __len__(self):
        return 4

    def __getitem__(self, number):
        return found(self.searcher, np.asarray(open_image(self.photo)), k=number + 1)


def test_search_works_in_dataloader_workers(searcher, photo):
    loader = torch.utils.data.DataLoader(
        Queries(searcher, photo),
        batch_size=None,
        collate_fn=lambda item: item,
        num_workers=2,
        multiprocessing_context="fork",
        timeout=60,
    )
    assert list(loader) == [found(searcher, photo, k=k) for k in (1, 2, 3, 4)]


def answer(searcher, photo, sender):
    sender.send(found(searcher, photo, k=5))


def test_searcher_can_be_sent_to_a_spawned_process(searcher, photo):
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=answer, args=(searcher, photo, sender))
    process.start()
    sender.close()
    assert receiver.recv() == found(searcher, photo, k=5)
    process.join(60)


def test_searcher_is_pickled_as_a_reference_to_its_artifact(artifact, searcher, photo, copied_artifact):
    sent = pickle.dumps(searcher)
    assert len(sent) < 1000
    assert found(pickle.loads(sent), photo) == found(searcher, photo)
    sent = pickle.dumps(Searcher.open(copied_artifact))
    remove_images(copied_artifact, searcher.gallery.ids[:1])
    with pytest.raises(ArtifactError, match="does not hold the artifact that was sent to this process"):
        pickle.loads(sent)
    with pytest.raises(TypeError, match="not opened from an artifact"):
        pickle.dumps(Searcher(searcher.encoder, searcher.store, searcher.gallery))


def test_searches_of_16_threads_are_answered_as_if_each_were_alone(searcher, pictures, monkeypatch):
    queries = [path.read_bytes() for path in sorted(pictures.rglob("*.[jp][pn]g"))[::3]][:16]
    broken = queries[3][:200]
    ask = partial(searcher.search, k=20, fold=True)
    alone = [ask(query) for query in queries]
    searcher._vectors._values.clear()
    sizes = []
    embed = searcher.encoder.engine.embed
    monkeypatch.setattr(searcher.encoder.engine, "embed", lambda pixels: sizes.append(len(pixels)) or embed(pixels))
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(found, searcher, broken)
        together = answered_together(searcher.encoder._thread, searcher.encoder._queries, ask, queries)
    for found_together, found_alone in zip(together, alone, strict=True):
        assert [(hit.id, hit.alike, hit.confident) for hit in found_together] == [
            (hit.id, hit.alike, hit.confident) for hit in found_alone
        ]
        scores = [[(hit.score, hit.chance or 0) for hit in hits] for hits in (found_together, found_alone)]
        np.testing.assert_allclose(*scores, atol=1e-6)
    assert isinstance(refused.exception(), ImageError)
    assert sum(sizes) == 16
    assert max(sizes) > 1


def test_search_works_in_asyncio_threads(searcher, photo):
    async def all_at_once():
        return await asyncio.gather(*(asyncio.to_thread(found, searcher, photo.read_bytes(), k=k) for k in range(1, 9)))

    with ThreadPoolExecutor(1) as apart:  # Playwright runs its own event loop in the thread of the tests
        answers = apart.submit(asyncio.run, all_at_once()).result()
    assert answers == [found(searcher, photo, k=k) for k in range(1, 9)]


# Opened artifacts


def test_open_artifact_gives_metrics_card_and_plots(artifact, trained):
    opened = open_artifact(str(artifact))
    assert (opened.folder, opened.name, opened.commit, opened.offline) == (artifact, "drawings", None, False)
    assert opened.metrics.leave_one_out.queries == 60
    assert opened.card == (artifact / "README.md").read_text(encoding="utf-8")
    assert {name: (trained / name).read_bytes() for name in open_artifact(trained).plots} == open_artifact(
        trained
    ).plots
    assert "plots/intervals.png" in open_artifact(trained).plots


def test_open_artifact_ignores_later_changes_of_its_folder(copied_artifact, artifact):
    """The folder may have changed by the time the page is made, so nothing is read a second time."""
    searcher = Searcher.open(copied_artifact)
    before = searcher.artifact
    remove_images(copied_artifact, searcher.gallery.ids[:30])
    assert len(searcher.gallery) == 60 == before.metrics.leave_one_out.images
    assert searcher.gallery.thumbnail(59)
    assert open_artifact(copied_artifact).metrics.leave_one_out.images == 30


def test_add_and_remove_return_the_new_artifact(copied_artifact, tmp_path):
    (tmp_path / "more").mkdir()
    Image.new("RGB", (40, 40), "orange").save(tmp_path / "more" / "orange.png")
    grown = add_images(copied_artifact, open_source(str(tmp_path / "more")))
    assert (grown.report.indexed, len(grown.gallery), grown.folder) == (1, 61, copied_artifact)
    assert grown.metrics == open_artifact(copied_artifact).metrics
    again = add_images(str(copied_artifact), open_source(str(tmp_path / "more")))
    assert (again.report.indexed, len(again.report.duplicates)) == (0, 1)
    left = remove_images(copied_artifact, grown.gallery.ids[-1:])
    assert len(left.gallery) == 60
    assert left.manifest == open_artifact(copied_artifact).manifest
    with pytest.raises(QueryError, match="must be a list"):
        remove_images(copied_artifact, grown.gallery.ids[0])


def test_replaced_metrics_file_is_refused(copied_artifact):
    (copied_artifact / "metrics.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"metrics\.json: size in bytes"):
        open_artifact(copied_artifact)
