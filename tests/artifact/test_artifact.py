"""The artifact: any change in its folder is detected and named before it is used, and other tools can read it."""

import json
import random
import shutil

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from conftest import BACKBONE, EMBEDDING_SIZE, contents, noise, reseal, sha256

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import check_target, load_artifact
from retrieval.artifact.manifest import FORMAT
from retrieval.build.build import build_artifact
from retrieval.encoders.engines.choose import ENGINE
from retrieval.encoders.image import Encoder
from retrieval.errors import ArtifactError, IntegrityError
from retrieval.images.open import open_image
from retrieval.sources.open import open_source

FILES = [*LAYOUT.names()[:-1], LAYOUT.exported, f"{LAYOUT.plots}/reliability.png", LAYOUT.manifest]


def refused(folder, *words):
    with pytest.raises(IntegrityError) as raised:
        load_artifact(folder)
    message = str(raised.value)
    assert [word for word in map(str, words) if word not in message] == [], message
    assert "\n" not in message
    return message


def vectors_of(folder):
    index = faiss.read_index(str(folder / LAYOUT.index))
    return index.reconstruct_n(0, index.ntotal)


def write_index(folder, vectors, metric=faiss.METRIC_INNER_PRODUCT):
    index = faiss.index_factory(vectors.shape[1], "Flat", metric)
    index.add(np.ascontiguousarray(vectors))
    faiss.write_index(index, str(folder / LAYOUT.index))


# An intact artifact


def test_artifact_has_exactly_the_files_of_the_layout(artifact):
    assert set(contents(artifact)) == set(FILES)
    manifest = json.loads((artifact / LAYOUT.manifest).read_bytes())
    assert set(manifest["files"]) == set(FILES) - {LAYOUT.manifest}
    for name, stated in manifest["files"].items():
        data = (artifact / name).read_bytes()
        assert stated == {"size": len(data), "sha256": sha256(data)}


def test_opened_artifact_matches_what_was_built(artifact, encoder):
    opened = load_artifact(artifact)
    assert opened.encoder.fingerprint == encoder.fingerprint == opened.manifest["encoder"]["fingerprint"]
    assert len(opened.gallery) == len(opened.store) == opened.manifest["rows"] == 60
    assert opened.store.dim == opened.manifest["dimension"] == EMBEDDING_SIZE
    assert opened.manifest["index"]["factory"] == "Flat"
    assert opened.manifest["index"]["recall_at_10"] == 1.0
    assert json.loads((artifact / LAYOUT.metrics).read_text())["leave_one_out"]["images"] == 60


def test_timm_faiss_and_pyarrow_read_the_artifact(artifact, pictures):
    """timm, FAISS and pyarrow on their own give the same results as this project."""
    opened = load_artifact(artifact)
    model = timm.create_model(f"local-dir:{artifact}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    table = pq.read_table(artifact / LAYOUT.gallery)
    index = faiss.read_index(str(artifact / LAYOUT.index))
    images = [open_image(pictures / name) for name in table["source"].to_pylist()]
    with torch.no_grad():
        features = model(torch.stack([transform(image) for image in images])).numpy()
    vectors = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, opened.encoder.embed_images(images), atol=1e-5)
    np.testing.assert_allclose(vectors, vectors_of(artifact), atol=1e-5)
    scores, rows = index.search(vectors[:7], 5)
    own_rows, own_scores = opened.store.search(vectors[:7], 5)
    np.testing.assert_array_equal(rows, own_rows)
    np.testing.assert_allclose(scores, own_scores, atol=1e-6)
    assert rows[:, 0].tolist() == list(range(7))
    assert table["id"].to_pylist() == opened.gallery.ids
    assert [each["bytes"] for each in table["thumbnail"].to_pylist()] == [
        opened.gallery.thumbnail(row) for row in range(60)
    ]
    hashes = [sha256((pictures / name).read_bytes()) for name in table["source"].to_pylist()]
    assert table["sha256"].to_pylist() == hashes
    assert table["id"].to_pylist() == [each[:16] for each in hashes]


def test_golden_query_can_be_reproduced_with_numpy(artifact):
    opened = load_artifact(artifact)
    golden = opened.manifest["golden"]
    query = opened.encoder.embed_images([open_image(opened.gallery.thumbnail(golden["query_row"]))])[0]
    scores = vectors_of(artifact) @ query
    assert np.argsort(-scores)[:5].tolist() == golden["rows"]
    np.testing.assert_allclose(np.sort(scores)[::-1][:5], golden["scores"], atol=1e-4)


def test_artifact_contains_no_pickle(artifact):
    for name, data in contents(artifact).items():
        assert data[:2] != b"PK", f"{name} is a zip file, as torch.save writes"
        assert data[:1] != b"\x80", f"{name} starts like a pickle"


# Damaged files


@pytest.mark.parametrize("name", FILES)
def test_flipped_bit_is_detected_in_every_file(copied_artifact, name):
    path = copied_artifact / name
    data = path.read_bytes()
    draw = random.Random(name)
    bits = {0, 8 * len(data) - 1, *(draw.randrange(8 * len(data)) for _ in range(22))}
    if name == LAYOUT.manifest:  # the only file that has to be parsed before it can be checked
        bits |= set(range(0, 8 * len(data), 7))
    for bit in sorted(bits):
        spoiled = bytearray(data)
        spoiled[bit // 8] ^= 1 << bit % 8
        path.write_bytes(spoiled)
        if name == LAYOUT.manifest:
            refused(copied_artifact, name)
        else:
            refused(copied_artifact, f"{name}: SHA-256", f"says {sha256(data)}", f"found {sha256(spoiled)}")
    path.write_bytes(data)
    load_artifact(copied_artifact)


@pytest.mark.parametrize("name", FILES[:-1])
def test_file_that_is_missing_truncated_or_too_long_is_refused(copied_artifact, name):
    path = copied_artifact / name
    data = path.read_bytes()
    for content in (data[:-1], data[: len(data) // 2], b"", data + b"\0"):
        path.write_bytes(content)
        refused(copied_artifact, f"{name}: size in bytes", f"says {len(data)}", f"found {len(content)}")
    path.unlink()
    refused(copied_artifact, f"{name} is missing")
    path.mkdir()
    refused(copied_artifact, f"{name} is missing")


def test_missing_or_truncated_manifest_is_refused(copied_artifact):
    path = copied_artifact / LAYOUT.manifest
    data = path.read_bytes()
    for length in (0, 1, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        refused(copied_artifact, LAYOUT.manifest)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"is not an artifact: no manifest.json in it"):
        load_artifact(copied_artifact)


@pytest.mark.parametrize("name", [LAYOUT.index, LAYOUT.weights, LAYOUT.gallery, LAYOUT.config])
def test_file_with_a_wrong_hash_is_not_parsed(copied_artifact, name):
    """Garbage of the same size breaks every parser, so the error must come from the hash check before it."""
    size = (copied_artifact / name).stat().st_size
    rubbish = random.Random(0).randbytes(size)
    (copied_artifact / name).write_bytes(rubbish)
    refused(copied_artifact, f"{name}: SHA-256", sha256(rubbish))
    # The other files are not parsed either: the error is about a hash although every file is garbage.
    for other in FILES[:-1]:
        if other != name:
            (copied_artifact / other).write_bytes(b"rubbish")
    refused(copied_artifact, "the manifest says", "found")


# Files of another artifact, with a manifest forged to match them


def test_resealed_artifact_still_loads(copied_artifact):
    """The tests below forge manifests with `reseal`; this shows that `reseal` alone is not what makes them fail."""
    (copied_artifact / LAYOUT.manifest).write_bytes((copied_artifact / LAYOUT.manifest).read_bytes())
    reseal(copied_artifact)
    assert len(load_artifact(copied_artifact).gallery) == 60
    (copied_artifact / LAYOUT.card).write_text("another card")
    reseal(copied_artifact)
    assert len(load_artifact(copied_artifact).gallery) == 60


def test_index_with_another_dimension_is_refused(copied_artifact):
    write_index(copied_artifact, vectors_of(copied_artifact)[:, :12])
    reseal(copied_artifact)
    refused(copied_artifact, "index.faiss: dimension", "says 16", "found 12")
    reseal(copied_artifact, dimension=12)
    refused(copied_artifact, "dimension", "says 12", "found 16")


@pytest.mark.parametrize("rows", [59, 61])
def test_index_with_another_number_of_rows_is_refused(copied_artifact, rows):
    write_index(copied_artifact, np.resize(vectors_of(copied_artifact), (rows, EMBEDDING_SIZE)))
    reseal(copied_artifact)
    refused(copied_artifact, "index.faiss: number of vectors", "says 60", f"found {rows}")


def test_index_with_another_metric_is_refused(copied_artifact):
    write_index(copied_artifact, vectors_of(copied_artifact), faiss.METRIC_L2)
    reseal(copied_artifact)
    refused(copied_artifact, "index.faiss", "must be the inner product", f"metric number {faiss.METRIC_L2}")


def test_index_with_vectors_in_another_order_is_refused(copied_artifact):
    before = json.loads((copied_artifact / LAYOUT.manifest).read_bytes())["golden"]["scores"]
    write_index(copied_artifact, vectors_of(copied_artifact)[::-1])
    reseal(copied_artifact)
    refused(copied_artifact, "golden query", before, "found [")


def test_index_with_vectors_of_another_encoder_is_refused(copied_artifact):
    vectors = np.random.default_rng(0).normal(size=(60, EMBEDDING_SIZE)).astype(np.float32)
    write_index(copied_artifact, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    reseal(copied_artifact)
    refused(copied_artifact, "golden query", "found [")


def test_gallery_with_rows_in_another_order_is_refused(copied_artifact):
    table = pq.read_table(copied_artifact / LAYOUT.gallery)
    ids = table["id"].to_pylist()
    pq.write_table(table.take(pa.array([1, 0, *range(2, 60)])), copied_artifact / LAYOUT.gallery)
    reseal(copied_artifact)
    found = [ids[1], ids[0], *ids[2:]]
    refused(
        copied_artifact,
        "gallery.parquet: hash of the ids",
        *(sha256("\n".join(each).encode()) for each in (ids, found)),
    )
    # Even if the hash of the ids is forged too, the golden query now has another image.
    pq.write_table(table.take(pa.array([*range(1, 60), 0])), copied_artifact / LAYOUT.gallery)
    reseal(copied_artifact, ids_sha256=sha256("\n".join([*ids[1:], ids[0]]).encode()))
    refused(copied_artifact, "golden query")


def test_gallery_with_another_number_of_rows_is_refused(copied_artifact):
    pq.write_table(pq.read_table(copied_artifact / LAYOUT.gallery).slice(0, 59), copied_artifact / LAYOUT.gallery)
    reseal(copied_artifact)
    refused(copied_artifact, "gallery.parquet: number of rows", "says 60", "found 59")


def test_weights_of_another_architecture_are_refused(copied_artifact, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    Encoder.create("test_resnet", pretrained=False, embedding_size=EMBEDDING_SIZE).save(other)
    shutil.copy(other / LAYOUT.weights, copied_artifact / LAYOUT.weights)
    reseal(copied_artifact)
    refused(copied_artifact, "model.safetensors: encoder fingerprint")
    monkeypatch.setenv(ENGINE, "torch")
    refused(
        copied_artifact,
        "the weights in model.safetensors are not for",
        BACKBONE,
        "the model needs",
        "the file has",
    )
    shutil.copy(other / LAYOUT.config, copied_artifact / LAYOUT.config)  # a complete encoder, but another one
    reseal(copied_artifact)
    stated = json.loads((copied_artifact / LAYOUT.manifest).read_bytes())["encoder"]["fingerprint"]
    refused(copied_artifact, "encoder fingerprint", f"says {stated}", f"found {Encoder.load(other).fingerprint}")


def test_other_weights_of_the_same_shape_are_refused(copied_artifact):
    trained = Encoder.create(BACKBONE, pretrained=False, embedding_size=EMBEDDING_SIZE, seed=1)
    trained.save(copied_artifact)
    reseal(copied_artifact)
    refused(copied_artifact, "model.safetensors: encoder fingerprint", f"found {trained.fingerprint}")


def test_changed_preprocessing_is_refused(copied_artifact):
    path = copied_artifact / LAYOUT.config
    config = json.loads(path.read_text())
    config["pretrained_cfg"]["mean"] = [0.5, 0.5, 0.5]
    path.write_text(json.dumps(config))
    reseal(copied_artifact)
    refused(copied_artifact, "encoder fingerprint", f"found {Encoder.load(copied_artifact).fingerprint}")


@pytest.mark.parametrize("name", [LAYOUT.index, LAYOUT.weights, LAYOUT.gallery, LAYOUT.config])
def test_garbage_with_a_valid_hash_is_refused_with_a_clear_error(copied_artifact, name):
    (copied_artifact / name).write_bytes(b"rubbish " * 64)
    reseal(copied_artifact)
    refused(copied_artifact, name)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {}},
        {"files": None},
        {"golden": None},
        {"golden": {"query_row": 1000, "rows": [0], "scores": [1.0]}},
        {"golden": {"query_row": 0, "rows": [1000], "scores": [1.0]}},
        {"golden": {"query_row": 0, "rows": [], "scores": []}},
        {"index": {"factory": "Flat", "shape": "round"}},
        {"index": 7},
        {"encoder": {}},
        {"rows": None},
        {"rows": "60"},
        {"dimension": None},
        {"ids_sha256": None},
    ],
)
def test_manifest_with_invalid_values_is_refused_with_a_clear_error(copied_artifact, changes):
    reseal(copied_artifact, **changes)
    refused(copied_artifact)


def test_newer_format_is_refused(copied_artifact):
    reseal(copied_artifact, format=FORMAT + 1)
    refused(copied_artifact, f"manifest.json has format {FORMAT + 1}", f"reads format 1 to {FORMAT}", "upgrade")


# Not an artifact


def test_loading_anything_but_an_artifact_is_an_error(tmp_path):
    with pytest.raises(ArtifactError, match=r"missing is not an artifact: no such folder. `.* build SOURCE --out"):
        load_artifact(tmp_path / "missing")
    with pytest.raises(ArtifactError, match=r"is not an artifact: no manifest.json in it"):
        load_artifact(tmp_path)
    noise(tmp_path / "1.png", 1)
    with pytest.raises(ArtifactError, match="is not an artifact"):
        load_artifact(tmp_path / "1.png")


def test_only_new_empty_or_artifact_folders_can_be_written(copied_artifact, tmp_path):
    check_target(tmp_path / "new")
    check_target(copied_artifact)
    (copied_artifact / LAYOUT.manifest).write_text("{damaged")  # its error message says to build it again
    check_target(copied_artifact)
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty")
    file = noise(tmp_path / "file.png", 1)
    with pytest.raises(ArtifactError, match=r"file\.png is a file; an artifact is a folder"):
        check_target(file)
    with pytest.raises(ArtifactError, match="contains files that do not belong to an artifact"):
        check_target(tmp_path)


def test_folder_with_a_foreign_manifest_is_not_overwritten(pictures, encoder, tmp_path):
    """The folder of a web page or a browser extension also has a `manifest.json` and a README.md."""
    (tmp_path / "manifest.json").write_text('{"name": "my web page"}')
    (tmp_path / "README.md").write_text("years of work")
    with pytest.raises(ArtifactError, match="contains files that do not belong to an artifact"):
        build_artifact(open_source(str(pictures)), tmp_path, encoder)
    assert (tmp_path / "README.md").read_text() == "years of work"


def test_index_of_another_type_than_stated_is_refused(copied_artifact):
    manifest = json.loads((copied_artifact / "manifest.json").read_text())
    store = load_artifact(copied_artifact).store
    other = faiss.index_factory(store.dim, "HNSW8,Flat", faiss.METRIC_INNER_PRODUCT)
    other.add(store.vectors(np.arange(len(store))))
    faiss.write_index(other, str(copied_artifact / "index.faiss"))
    reseal(copied_artifact)
    with pytest.raises(IntegrityError, match=r"Flat.*IndexFlat.*IndexHNSWFlat"):
        load_artifact(copied_artifact)
    assert manifest["index"]["factory"] == "Flat"
