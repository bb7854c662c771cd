"""Artifacts whose gallery is several shards: they are built, changed and refused like those of one file."""

import re
import shutil
from contextlib import chdir

import datasets
import numpy as np
import pytest
from conftest import noise, refused, reseal

from retrieval import Searcher
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import check_target, load_artifact, read_gallery
from retrieval.artifact.manifest import FORMAT, read_manifest
from retrieval.build.build import build_artifact
from retrieval.build.change import add_images, remove_images, update_metrics
from retrieval.build.sync import sync_artifact
from retrieval.errors import ArtifactError, IntegrityError
from retrieval.images.stored import files, opened
from retrieval.sources.open import open_source

FOUR = [f"gallery-{number:05d}-of-00004.parquet" for number in range(4)]


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of 16 rows."""
    monkeypatch.setattr(files, "ROWS_A_GROUP", 16)
    monkeypatch.setattr(files, "SHARD_BYTES", 1)


@pytest.fixture
def sharded(small_shards, pictures, encoder, tmp_path):
    """An artifact of 60 images in four shards."""
    build_artifact(open_source(str(pictures)), tmp_path / "it", encoder)
    return tmp_path / "it"


def in_folder(folder):
    return sorted(path.name for path in folder.glob("*.parquet"))


def test_artifact_in_shards_is_the_same_as_in_one_file(sharded, artifact):
    assert in_folder(sharded) == FOUR
    assert read_manifest(sharded)["format"] == FORMAT
    one, several = Searcher.open(artifact), Searcher.open(sharded)
    assert several.gallery.table.equals(one.gallery.table)
    assert [several.gallery.thumbnail(row) for row in range(60)] == [one.gallery.thumbnail(row) for row in range(60)]
    image_id = one.gallery.ids[40]
    assert several.search(id=image_id, k=9, where={"colour": "red"}) == one.search(
        id=image_id, k=9, where={"colour": "red"}
    )
    assert read_gallery(sharded)[1].ids == one.gallery.ids


def test_large_artifact_gives_the_hits_of_a_small_one(sharded, artifact, monkeypatch, tmp_path):
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    one = Searcher.open(artifact)
    monkeypatch.setattr(opened, "LARGE", 1)
    for _ in ("the first time", "again"):
        several = Searcher.open(sharded)
        assert several.gallery._is_large
        for where in (None, {"colour": "red"}, {"price": {"<": 30}}, {"colour": "red", "label": {"!=": "shirt"}}):
            for row in (0, 17, 59):
                query = {"id": one.gallery.ids[row], "k": 9, "where": where, "fold": True}
                assert several.search(**query) == one.search(**query)
            assert several.gallery.facets(where) == one.gallery.facets(where)
        grouped = {"id": one.gallery.ids[5], "k": 9, "group_by": "colour"}
        assert several.search(**grouped) == one.search(**grouped)
        assert several.gallery.filters == one.gallery.filters
    assert len(list((tmp_path / "cache" / "columns-1").glob("*/rows.arrow"))) == 1


def test_shard_cut_short_while_it_is_served_is_an_error_and_searches_go_on(sharded, monkeypatch, tmp_path):
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(opened, "LARGE", 1)
    searcher = Searcher.open(sharded)
    before = searcher.search(id=searcher.gallery.ids[50], k=9)
    for name in FOUR:
        with (sharded / name).open("r+b") as file:
            file.truncate(10)
    with pytest.raises(
        IntegrityError, match=r"gallery-00003-of-00004.parquet cannot be read .* open the artifact again"
    ):
        searcher.gallery.thumbnail(59)
    assert searcher.search(id=searcher.gallery.ids[50], k=9) == before
    assert searcher.gallery.rows_where({"source": before[0].source}).tolist() == [before[0].row]


def test_datasets_reads_the_folder_of_an_artifact(sharded, artifact, tmp_path):
    for folder in (sharded, artifact):
        data = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"), split="train")
        assert data["id"] == list(load_artifact(folder).gallery.ids)
        assert data[59]["thumbnail"].format == "JPEG"


def test_changes_leave_no_old_shard(sharded, pictures, tmp_path, monkeypatch):
    before = load_artifact(sharded).gallery
    fewer = remove_images(sharded, before.ids[20:]).gallery
    assert in_folder(sharded) == ["gallery-00000-of-00002.parquet", "gallery-00001-of-00002.parquet"]
    assert fewer.ids == before.ids[:20]
    assert [fewer.thumbnail(row) for row in range(20)] == [before.thumbnail(row) for row in range(20)]
    remove_images(sharded, before.ids[9:20])
    assert in_folder(sharded) == [LAYOUT.gallery]
    sync_artifact(sharded, open_source(str(pictures)))
    assert in_folder(sharded) == FOUR
    synced = load_artifact(sharded).gallery.ids
    assert sorted(synced) == sorted(before.ids)
    for number in range(5):
        noise(tmp_path / "more" / f"{number}.png", number)
    assert add_images(sharded, open_source(str(tmp_path / "more"))).gallery.ids[:60] == synced
    assert in_folder(sharded) == [f"gallery-{number:05d}-of-00005.parquet" for number in range(5)]
    update_metrics(sharded, {})
    assert len(in_folder(sharded)) == 5
    monkeypatch.undo()
    build_artifact(open_source(str(pictures)), sharded, load_artifact(sharded).encoder)
    assert in_folder(sharded) == [LAYOUT.gallery]


def test_gallery_of_an_earlier_version_gets_the_new_form_when_it_changes(starter, tmp_path, small_shards):
    folder = tmp_path / "old"
    shutil.copytree(starter, folder)
    assert read_manifest(folder)["format"] == 1
    old = load_artifact(folder).gallery
    new = remove_images(folder, old.ids[:1100])
    assert new.manifest["format"] == FORMAT
    assert len(in_folder(folder)) == 4
    assert [new.gallery.thumbnail(row) for row in range(52)] == [old.thumbnail(row) for row in range(1100, 1152)]


def test_missing_damaged_and_strange_shards_are_refused(sharded):
    first, *others = FOUR
    content = (sharded / first).read_bytes()
    (sharded / first).unlink()
    refused(sharded, f"{first} is missing")
    (sharded / first).write_bytes((sharded / others[0]).read_bytes())
    refused(sharded, f"{first}: size in bytes")
    reseal(sharded)
    refused(sharded, "gallery.parquet")  # ids twice
    (sharded / first).write_bytes(content)
    reseal(sharded)
    for stray in (LAYOUT.gallery, "gallery-00003-of-00005.parquet"):
        (sharded / stray).write_bytes(content)
        refused(sharded, f"{stray} is in", "not listed")
        with pytest.raises(ArtifactError, match="does not belong to the artifact"):
            check_target(sharded)
        (sharded / stray).unlink()
    check_target(sharded)


@pytest.mark.parametrize("listed", [FOUR[:3], FOUR[1:], [LAYOUT.gallery, *FOUR], []])
def test_manifest_that_lists_no_whole_gallery_is_refused(sharded, listed):
    manifest = read_manifest(sharded)
    entries = {name: entry for name, entry in manifest["files"].items() if not name.startswith("gallery")}
    entry = manifest["files"][FOUR[0]]
    for name in listed:
        entries[name] = entry
        (sharded / name).write_bytes((sharded / FOUR[0]).read_bytes())
    reseal(sharded, files=entries)
    refused(sharded, "manifest.json does not list gallery.parquet, or all shards of it")


def test_broken_shards_do_not_hide_that_a_folder_is_an_artifact(sharded):
    (sharded / LAYOUT.index).unlink()
    check_target(sharded)
    assert np.isin(FOUR, in_folder(sharded)).all()


def test_code_on_the_card_reads_all_shards(sharded, pictures, tmp_path, capsys):
    [code] = [block for block in fenced((sharded / LAYOUT.card).read_text()) if "faiss.read_index" in block]
    shutil.copy(next(pictures.rglob("*.jpg")), tmp_path / "photo.jpg")
    with chdir(tmp_path):
        exec(code.replace("FOLDER", str(sharded)), {})
    found = [line.split(" ", 2) for line in capsys.readouterr().out.splitlines()]
    assert [source for _, _, source in found] == [
        hit.source for hit in Searcher.open(sharded).search(tmp_path / "photo.jpg", k=5)
    ]


def fenced(text):
    """The code blocks in Python of a page."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)
