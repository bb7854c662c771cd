"""Build, add and remove: real images go in, an artifact comes out, and no image is lost or invented."""

import copy
import json
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import noise
from PIL import Image

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact
from retrieval.artifact.metrics import key_of
from retrieval.build.build import build_artifact
from retrieval.build.change import add_images, remove_images
from retrieval.build.embed import SHARD
from retrieval.encoders.image import Encoder
from retrieval.errors import ArtifactError, EncoderError, IntegrityError, QueryError, SourceError, StoreError
from retrieval.evaluation.metrics import leave_one_out
from retrieval.images.gallery import THUMBNAIL_SIDE
from retrieval.images.open import open_image
from retrieval.sources.open import open_source


def draw(path, seed, side=32):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def build(folder, out, encoder, **options):
    return build_artifact(open_source(str(folder)), out, encoder, **options)


def vectors_of(artifact):
    return artifact.store.vectors(np.arange(len(artifact.store)))


def sources_of(artifact):
    return artifact.gallery.table["source"].to_pylist()


def check_consistent(folder, lossy=False):
    """Load an artifact and check that its parts agree, including what `load_artifact` does not check.

    The metrics are computed from the encoder's vectors; a lossy index returns slightly different ones.
    """
    artifact = load_artifact(folder)
    rows = len(artifact.gallery)
    assert len(artifact.store) == artifact.manifest["rows"] == rows
    assert len(set(artifact.gallery.ids)) == rows
    figures = json.loads((folder / LAYOUT.metrics).read_text())["leave_one_out"]
    expected = {key_of(n): v for n, v in leave_one_out(vectors_of(artifact), artifact.gallery.labels).items()}
    assert figures == pytest.approx(expected, abs=0.1 * lossy)
    assert figures["images"] == rows
    assert f"- **Gallery:** {rows:,} images" in (folder / LAYOUT.card).read_text()
    assert {path.name for path in folder.parent.iterdir() if path.name.startswith(f".{folder.name}.")} <= {
        f".{folder.name}.lock"
    }
    return artifact


# Build


def test_build_says_which_jpeg_lacks_its_end_marker(tmp_path, encoder, capsys):
    whole = draw(tmp_path / "pictures" / "whole.jpg", 1).read_bytes()
    (tmp_path / "pictures" / "no end.jpg").write_bytes(draw(tmp_path / "other.jpg", 2).read_bytes()[:-2])
    report = build(tmp_path / "pictures", tmp_path / "it", encoder)
    assert (report.indexed, report.skipped) == (2, [])
    said = capsys.readouterr()
    assert "no end.jpg lacks its end marker" in said.out + said.err
    assert "whole.jpg lacks" not in said.out + said.err
    assert whole.endswith(b"\xff\xd9")


def test_report_accounts_for_every_file_found(tmp_path, encoder):
    root = tmp_path / "pictures"
    for seed in range(6):
        draw(root / f"class {seed % 2}" / f"{seed}.png", seed)
    shutil.copy(root / "class 0" / "0.png", root / "class 1" / "the same.png")
    (root / "class 0" / "broken.jpg").write_bytes(draw(tmp_path / "whole.jpg", 9).read_bytes()[:200])
    (root / "class 0" / "empty.png").touch()
    (root / "class 1" / "notes.html").write_text("This is no picture, and says so.")
    report = build(root, tmp_path / "it", encoder)
    assert (report.found, report.indexed) == (10, 6)
    assert report.duplicates == [("class 1/the same.png", "class 0/0.png")]
    reasons = dict(report.skipped)
    assert set(reasons) == {"class 0/broken.jpg", "class 0/empty.png", "class 1/notes.html"}
    assert "cut short" in reasons["class 0/broken.jpg"]
    assert "empty (0 bytes)" in reasons["class 0/empty.png"]
    assert "not a readable picture (found: text)" in reasons["class 1/notes.html"]
    assert report.found == report.indexed + len(report.skipped) + len(report.duplicates)
    artifact = check_consistent(tmp_path / "it")
    assert artifact.manifest["build"] == {
        "found": 10,
        "indexed": 6,
        "duplicates": 1,
        "skipped": [list(each) for each in report.skipped],
        "left_out": [],
        "source": {"name": "pictures"},
    }


def test_rows_hold_the_images_in_source_order(artifact, pictures, encoder):
    opened = check_consistent(artifact)
    order = [row.source for row in open_source(str(pictures)).rows()]
    assert sources_of(opened) == order
    assert len(order) == 60
    one_by_one = [encoder.embed_images([open_image(pictures / name)]) for name in order]
    assert np.allclose(vectors_of(opened), np.concatenate(one_by_one), atol=1e-5)
    assert opened.gallery.labels == [name.split("/")[0] for name in order]
    for row in (0, 31, 59):
        thumbnail = open_image(opened.gallery.thumbnail(row))
        original = open_image(pictures / order[row])
        assert thumbnail.size == original.size  # below the size limit
        difference = np.asarray(thumbnail, int) - np.asarray(original, int)
        assert np.abs(difference).mean() < 4


def test_thumbnails_are_shrunk_to_the_size_limit_but_never_enlarged(tmp_path, encoder):
    draw(tmp_path / "pictures" / "large.png", 0, side=400)
    draw(tmp_path / "pictures" / "small.png", 1, side=20)
    build(tmp_path / "pictures", tmp_path / "it", encoder)
    gallery = load_artifact(tmp_path / "it").gallery
    assert [open_image(gallery.thumbnail(row)).width for row in range(2)] == [THUMBNAIL_SIDE, 20]


def test_limit_takes_only_the_first_images(tmp_path, pictures, encoder):
    report = build(pictures, tmp_path / "it", encoder, limit=7)
    assert (report.found, report.indexed) == (7, 7)
    order = [row.source for row in open_source(str(pictures)).rows()]
    assert sources_of(load_artifact(tmp_path / "it")) == order[:7]


def test_progress_counts_every_image(tmp_path, pictures, encoder):
    seen = []
    build(pictures, tmp_path / "it", encoder, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 60) for number in range(1, 61)]


def test_build_without_a_readable_image_is_an_error(tmp_path, encoder):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.txt").write_text("text")
    with pytest.raises(SourceError) as raised:
        build(tmp_path / "pictures", tmp_path / "out" / "it", encoder)
    assert "none of the 1 files found could be indexed. The first one: a.txt: " in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not any(path.is_dir() for path in (tmp_path / "out").iterdir())


def test_build_refuses_a_folder_with_foreign_files(tmp_path, pictures, encoder):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("dear")
    with pytest.raises(
        ArtifactError, match=r"home contains files that do not belong to an artifact; choose a new or empty"
    ):
        build(pictures, tmp_path / "home", encoder)
    with pytest.raises(ArtifactError, match=r"file is a file; an artifact is a folder"):
        build(pictures, tmp_path / "file", encoder)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["letter.txt"]
    (tmp_path / "empty").mkdir()
    assert build(pictures, tmp_path / "empty", encoder, limit=4).indexed == 4


def test_invalid_index_is_refused_before_any_image_is_embedded(tmp_path, pictures, encoder):
    def progress(*_):
        raise AssertionError("an image was embedded")

    with pytest.raises(StoreError, match="'IVF0,Nonsense'"):
        build(pictures, tmp_path / "it", encoder, factory="IVF0,Nonsense", progress=progress)
    assert list(tmp_path.iterdir()) == []


def test_build_uses_the_requested_index(tmp_path, pictures, encoder):
    build(pictures, tmp_path / "it", encoder, factory="HNSW8,Flat")
    index = check_consistent(tmp_path / "it").manifest["index"]
    assert (index["factory"], index["chosen"]) == ("HNSW8,Flat", "asked")
    assert index["recall_at_10"] > 0.9


def test_rebuild_replaces_the_artifact_and_keeps_foreign_files(copied_artifact, tmp_path, encoder):
    (copied_artifact / "notes.txt").write_text("mine")
    (copied_artifact / "drafts").mkdir()
    (copied_artifact / "drafts" / "1.txt").write_text("mine too")
    for seed in range(8):
        draw(tmp_path / "others" / "ab"[seed % 2] / f"{seed}.png", seed)
    build(tmp_path / "others", copied_artifact, encoder)
    artifact = check_consistent(copied_artifact)
    assert sources_of(artifact) == [f"{'ab'[seed % 2]}/{seed}.png" for seed in (0, 2, 4, 6, 1, 3, 5, 7)]
    add_images(artifact.folder, open_source(str(draw(tmp_path / "more" / "a" / "9.png", 9).parent.parent)))
    remove_images(artifact.folder, artifact.gallery.ids[:1])
    assert {path.name for path in copied_artifact.iterdir()} == {*LAYOUT.names(), "onnx", "notes.txt", "drafts"}
    assert (copied_artifact / "notes.txt").read_text() == "mine"
    assert (copied_artifact / "drafts" / "1.txt").read_text() == "mine too"


def test_damaged_artifact_can_be_rebuilt(copied_artifact, pictures, encoder):
    (copied_artifact / LAYOUT.index).write_bytes(b"damaged")
    build(pictures, copied_artifact, encoder)
    check_consistent(copied_artifact)


def test_attributes_keep_their_types(tmp_path, encoder):
    pictures = [draw(tmp_path / f"{seed}.png", seed).read_bytes() for seed in range(4)]
    columns = {
        "price": [3, None, 5, 6],
        "weight": [0.5, 1.5, None, 2.5],
        "worn": [True, None, True, None],
        "tone": ["é", None, "", "x"],
    }
    table = pa.table({"picture": pictures, "label": ["a", "a", "b", "b"], **columns})
    pq.write_table(table, tmp_path / "x.parquet")
    build(tmp_path / "x.parquet", tmp_path / "it", encoder)
    gallery = check_consistent(tmp_path / "it").gallery
    types = {"price": pa.int64(), "weight": pa.float64(), "worn": pa.bool_(), "tone": pa.string()}
    assert {name: gallery.table.schema.field(name).type for name in gallery.attributes} == types
    for name, values in columns.items():
        assert gallery.table[name].to_pylist() == values
    assert gallery.rows_where({"price": 5}).tolist() == [2]


def test_gallery_without_labels_has_no_metrics(tmp_path, encoder):
    for seed in range(3):
        draw(tmp_path / "pictures" / f"{seed}.png", seed)
    build(tmp_path / "pictures", tmp_path / "it", encoder)
    metrics = load_artifact(tmp_path / "it").metrics
    assert (metrics.leave_one_out, metrics.calibration) == (None, None)
    assert not (tmp_path / "it" / LAYOUT.plots).exists()
    assert "no labels" in (tmp_path / "it" / LAYOUT.card).read_text()


def test_interrupted_build_leaves_the_old_artifact(copied_artifact, tmp_path, encoder):
    """The next build uses only its own source, whatever the interrupted one left behind."""
    before = load_artifact(copied_artifact).manifest

    def progress(done, _):
        if done == 5:
            raise KeyboardInterrupt

    for seed in range(8):
        draw(tmp_path / "others" / "ab"[seed % 2] / f"{seed}.png", seed)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "others", copied_artifact, encoder, progress=progress)
    assert load_artifact(copied_artifact).manifest == before
    assert build(tmp_path / "others", copied_artifact, encoder).indexed == 8 < SHARD
    check_consistent(copied_artifact)


# Add


@pytest.fixture
def grown(copied_artifact, pictures, tmp_path):
    """An artifact, and a source with two new images (one of them twice) and two that the artifact already has."""
    more = tmp_path / "more"
    draw(more / "new class" / "a.png", 100)
    draw(more / "new class" / "b.png", 101)
    shutil.copy(more / "new class" / "a.png", more / "new class" / "c.png")
    known = sources_of(load_artifact(copied_artifact))[:2]
    for name in known:
        (more / name).parent.mkdir(exist_ok=True)
        shutil.copy(pictures / name, more / name.replace("/", "/again "))
    (more / "notes.html").write_text("no picture at all")
    return load_artifact(copied_artifact), open_source(str(more))


def test_add_embeds_only_new_images(grown):
    before, source = grown
    old_vectors, old_table = vectors_of(before), before.gallery.table
    report = add_images(before.folder, source).report
    assert (report.found, report.indexed) == (6, 2)
    assert [name for name, _ in report.skipped] == ["notes.html"]
    assert {same for _, same in report.duplicates} == {*before.gallery.ids[:2], "new class/a.png"}
    after = check_consistent(before.folder)
    assert after.gallery.labels[60:] == ["new class"] * 2
    assert sources_of(after)[60:] == ["new class/a.png", "new class/b.png"]
    assert np.array_equal(vectors_of(after)[:60], old_vectors)  # bit for bit
    assert after.gallery.table.slice(0, 60).select(old_table.column_names).equals(old_table)
    assert after.encoder.fingerprint == before.encoder.fingerprint


def test_added_vectors_match_the_encoder(grown, encoder):
    before, source = grown
    add_images(before.folder, source)
    added = [open_image(row.read()) for row in source.rows() if row.source in ("new class/a.png", "new class/b.png")]
    assert np.allclose(vectors_of(load_artifact(before.folder))[60:], encoder.embed_images(added), atol=1e-5)


def test_adding_the_same_images_twice_changes_nothing(grown):
    before, source = grown
    add_images(before.folder, source)

    def held():
        return {path: (path.read_bytes(), path.stat().st_ino) for path in before.folder.rglob("*") if path.is_file()}

    once = held()
    report = add_images(before.folder, source).report
    assert (report.found, report.indexed, len(report.duplicates)) == (6, 0, 5)
    assert held() == once


def test_add_works_without_the_original_images(tmp_path, encoder):
    """The original images are deleted, so they cannot be embedded again."""
    for seed in range(10):
        draw(tmp_path / "old" / "ab"[seed % 2] / f"{seed}.png", seed)
    build(tmp_path / "old", tmp_path / "it", encoder)
    shutil.rmtree(tmp_path / "old")
    before = load_artifact(tmp_path / "it")
    draw(tmp_path / "new" / "a" / "x.png", 50)
    seen = []
    report = add_images(
        before.folder, open_source(str(tmp_path / "new")), progress=lambda *each: seen.append(each)
    ).report
    assert (report.indexed, seen) == (1, [(1, 1)])
    after = check_consistent(tmp_path / "it")
    assert np.array_equal(vectors_of(after)[:10], vectors_of(before))
    assert [after.gallery.thumbnail(row) for row in range(10)] == [before.gallery.thumbnail(row) for row in range(10)]


def add_with_metadata(folder, artifact, values):
    draw(folder / "a" / "x.png", 60)
    rows = ["file_name," + ",".join(values), "a/x.png," + ",".join(values.values())]
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return add_images(artifact.folder, open_source(str(folder))).report


def test_new_attribute_is_empty_in_the_old_rows(tmp_path, encoder):
    for seed in range(4):
        draw(tmp_path / "old" / "ab"[seed % 2] / f"{seed}.png", seed)
    (tmp_path / "old" / "metadata.csv").write_text("file_name,price\na/0.png,7\n")
    build(tmp_path / "old", tmp_path / "it", encoder)
    add_with_metadata(tmp_path / "new", load_artifact(tmp_path / "it"), {"tone": "dark"})
    gallery = check_consistent(tmp_path / "it").gallery
    assert gallery.attributes == ["price", "tone"]
    assert gallery.table["price"].to_pylist() == [7, None, None, None, None]
    assert gallery.table["tone"].to_pylist() == [None] * 4 + ["dark"]


def test_add_refuses_a_column_of_another_type(tmp_path, encoder):
    for seed in range(4):
        draw(tmp_path / "old" / "ab"[seed % 2] / f"{seed}.png", seed)
    (tmp_path / "old" / "metadata.csv").write_text("file_name,price\na/0.png,7\n")
    build(tmp_path / "old", tmp_path / "it", encoder)
    before = load_artifact(tmp_path / "it").manifest
    with pytest.raises(SourceError, match="the column 'price' has type int64 in the gallery but string in the source"):
        add_with_metadata(tmp_path / "new", load_artifact(tmp_path / "it"), {"price": "dear"})
    assert load_artifact(tmp_path / "it").manifest == before


# Remove


def test_remove_keeps_the_order_of_the_other_rows(copied_artifact):
    before = load_artifact(copied_artifact)
    gone = [before.gallery.ids[row] for row in (59, 0, 17)]
    assert len(remove_images(before.folder, [*gone, gone[0]]).gallery) == 57
    after = check_consistent(copied_artifact)
    kept = [row for row in range(60) if row not in (0, 17, 59)]
    assert after.gallery.table.to_pylist() == before.gallery.table.take(pa.array(kept)).to_pylist()
    assert np.array_equal(vectors_of(after), vectors_of(before)[kept])
    assert [after.gallery.thumbnail(row) for row in range(57)] == [before.gallery.thumbnail(row) for row in kept]


@pytest.mark.parametrize("rows", [[5, None], [None], range(60)])
def test_invalid_removal_is_refused_and_changes_nothing(copied_artifact, rows):
    before = load_artifact(copied_artifact)
    ids = ["0123456789abcdef" if row is None else before.gallery.ids[row] for row in rows]
    words = "no image with the id '0123456789abcdef'" if None in rows else "at least one image"
    with pytest.raises(QueryError, match=words):
        remove_images(before.folder, ids)
    assert load_artifact(copied_artifact).manifest == before.manifest


def test_removed_images_can_be_added_again(copied_artifact, pictures):
    before = load_artifact(copied_artifact)
    remove_images(before.folder, before.gallery.ids[:3])
    report = add_images(copied_artifact, open_source(str(pictures))).report
    assert (report.indexed, len(report.duplicates)) == (3, 57)
    after = check_consistent(copied_artifact)
    assert after.gallery.ids == [*before.gallery.ids[3:], *before.gallery.ids[:3]]
    order = [*range(3, 60), 0, 1, 2]
    assert np.allclose(vectors_of(after), vectors_of(before)[order], atol=1e-5)


@pytest.mark.parametrize("factory", ["IVF4,Flat", "IVF2,SQ8", "HNSW8,SQfp16", "IVF4,RaBitQ"])
def test_add_and_remove_work_with_approximate_indexes(tmp_path, pictures, encoder, factory):
    build(pictures, tmp_path / "it", encoder, factory=factory)
    before = load_artifact(tmp_path / "it")
    draw(tmp_path / "more" / "a" / "x.png", 70)
    draw(tmp_path / "more" / "a" / "y.png", 71)
    add_images(before.folder, open_source(str(tmp_path / "more")))
    grown = check_consistent(tmp_path / "it", lossy="SQ" in factory or "RaBitQ" in factory)
    assert np.array_equal(vectors_of(grown)[:60], vectors_of(before))
    remove_images(grown.folder, grown.gallery.ids[60:])
    after = check_consistent(tmp_path / "it", lossy="SQ" in factory or "RaBitQ" in factory)
    assert np.array_equal(vectors_of(after), vectors_of(before))
    assert after.manifest["index"]["factory"] == factory


def test_vectors_of_a_large_index_are_a_file_of_the_artifact(tmp_path, pictures, encoder):
    """Listed and hashed, sent along by pickle and by changes of the description, and gone with the index."""
    build(pictures, tmp_path / "it", encoder, factory="IVF4,RaBitQ")
    built = load_artifact(tmp_path / "it")
    assert "index.safetensors" in built.manifest["files"]
    assert len(pickle.loads(pickle.dumps(built)).store) == 60
    path = tmp_path / "it" / "index.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=r"index.safetensors: SHA-256"):
        load_artifact(tmp_path / "it")
    path.unlink()
    with pytest.raises(IntegrityError, match=r"index.safetensors is missing"):
        load_artifact(tmp_path / "it")
    build(pictures, tmp_path / "it", encoder)
    again = load_artifact(tmp_path / "it")
    assert "index.safetensors" not in again.manifest["files"] and not path.exists()


def test_build_with_a_broken_encoder_keeps_the_old_artifact(copied_artifact, pictures, encoder):
    before = (copied_artifact / "manifest.json").read_bytes()
    changed = Encoder.of(copy.deepcopy(encoder.model))
    with torch.no_grad():
        next(changed.model.parameters()).mul_(2)  # the fingerprint no longer matches the weights
    with pytest.raises(IntegrityError, match="fingerprint"):
        build_artifact(open_source(str(pictures)), copied_artifact, changed)
    with torch.no_grad():
        next(changed.model.parameters()).fill_(float("nan"))
    with pytest.raises(EncoderError, match="not finite"):
        build_artifact(open_source(str(pictures)), copied_artifact, Encoder.of(changed.model))
    assert (copied_artifact / "manifest.json").read_bytes() == before
    load_artifact(copied_artifact)


def test_manifest_lists_every_add_and_remove(copied_artifact, tmp_path):
    noise(tmp_path / "more" / "one.png", seed=77)
    artifact = load_artifact(copied_artifact)
    add_images(artifact.folder, open_source(str(tmp_path / "more")))
    remove_images(artifact.folder, artifact.gallery.ids[:2])
    manifest = load_artifact(copied_artifact).manifest
    assert [list(change) for change in manifest["changes"]] == [["add"], ["remove"]]
    rows = manifest["build"]["indexed"] + manifest["changes"][0]["add"]["indexed"] - manifest["changes"][1]["remove"]
    assert rows == manifest["rows"]
