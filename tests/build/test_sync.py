"""Sync: the artifact becomes what its source is now, and nothing is embedded twice."""

import csv
import shutil

import numpy as np
import pytest
from conftest import contents, noise

from retrieval import Encoder, Searcher, build_artifact, open_source
from retrieval.__main__ import main
from retrieval.artifact.load import load_artifact
from retrieval.build.sync import sync_artifact
from retrieval.errors import SourceError


@pytest.fixture
def folder(tmp_path):
    """Twelve images in two class folders, with a colour each."""
    root = tmp_path / "pictures"
    for number in range(12):
        noise(root / f"c{number % 2}" / f"{number:02}.png", number)
    describe(root, dict.fromkeys(names(root), "red"))
    return root


def names(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))


def describe(root, colours):
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file_name", "colour"), *colours.items()])


@pytest.fixture
def built(folder, encoder, tmp_path):
    out = tmp_path / "it"
    build_artifact(open_source(str(folder)), out, encoder)
    return out


def rows_of(folder):
    """What a gallery holds: source -> label, colour and content."""
    table = load_artifact(folder).gallery.table.to_pylist()
    return {row["source"]: (row["label"], row["colour"], row["sha256"]) for row in table}


def same_as_a_new_build(out, folder, encoder, tmp_path):
    shutil.rmtree(tmp_path / "again", ignore_errors=True)
    build_artifact(open_source(str(folder)), tmp_path / "again", encoder)
    assert rows_of(out) == rows_of(tmp_path / "again")
    for artifact in (load_artifact(out), load_artifact(tmp_path / "again")):
        row = artifact.gallery.table["source"].to_pylist().index(names(folder)[0])
        yield artifact.store.vectors(np.array([row]))


def test_sync_takes_over_every_kind_of_change(built, folder, encoder, tmp_path):
    for number in range(20, 23):
        noise(folder / "c2" / f"{number}.png", number)  # 3 new ones
    for name in ("c0/00.png", "c1/01.png"):  # 2 gone
        (folder / name).unlink()
    (folder / "c0" / "02.png").rename(folder / "c0" / "renamed.png")
    (folder / "c0" / "04.png").rename(folder / "c1" / "04.png")  # another label
    shutil.copy(folder / "c1" / "03.png", folder / "c1" / "03z.png")
    (folder / "c1" / "broken.png").write_bytes(b"\x89PNG and no more")
    describe(folder, {path: "blue" if path == "c1/05.png" else "red" for path in names(folder)})

    report = sync_artifact(built, open_source(str(folder)))
    assert len(report.new) == 3
    assert sorted(report.changed) == ["c0/renamed.png", "c1/04.png", "c1/05.png"]
    assert sorted(report.removed) == ["c0/00.png", "c1/01.png"]
    assert report.duplicates == [("c1/03z.png", "c1/03.png")]
    assert [name for name, _ in report.skipped] == ["c1/broken.png"]
    assert report.found == len(names(folder)) == 3 + 3 + report.unchanged + 1 + 1
    one, other = same_as_a_new_build(built, folder, encoder, tmp_path)
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_sync_embeds_only_new_images(built, folder, monkeypatch):
    noise(folder / "c0" / "new.png", 99)
    embedded = []
    embed = Encoder.embed_tensors

    def counted(self, tensors):
        embedded.append(len(tensors))
        return embed(self, tensors)

    monkeypatch.setattr(Encoder, "embed_tensors", counted)
    report = sync_artifact(built, open_source(str(folder)))
    assert report.new == ["c0/new.png"]
    assert embedded[0] == 1
    assert sum(embedded) == 1 + 3  # the golden query: of the old artifact, of the new one, and when it is checked
    assert Searcher.open(built).search(folder / "c0" / "new.png", 1)[0].source == "c0/new.png"


def test_sync_of_an_unchanged_source_writes_nothing(built, folder):
    before = contents(built)
    report = sync_artifact(built, open_source(str(folder)))
    assert report.is_empty
    assert report.unchanged == report.found == 12
    assert contents(built) == before


def test_file_that_is_no_picture_is_not_written_about_at_every_sync(built, folder):
    for name in ("broken.jpg", "copy of broken.jpg"):
        (folder / "c0" / name).write_bytes(b"not a picture")
    before = contents(built)
    planned = sync_artifact(built, open_source(str(folder)), dry_run=True)
    report = sync_artifact(built, open_source(str(folder)))
    assert contents(built) == before
    assert planned == report
    assert (report.new, report.unchanged, report.found) == ([], 12, 14)
    assert [name for name, _ in report.skipped] == ["c0/broken.jpg", "c0/copy of broken.jpg"]


def test_image_stays_while_its_file_is_cut_short(built, folder):
    file, before = folder / "c0" / "00.png", rows_of(built)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    noise(folder / "c0" / "new.png", 99)
    planned = sync_artifact(built, open_source(str(folder)), dry_run=True)
    report = sync_artifact(built, open_source(str(folder)))
    assert planned == report
    assert (report.new, report.removed) == (["c0/new.png"], [])
    assert [name for name, _ in report.skipped] == ["c0/00.png"]
    assert before.items() <= rows_of(built).items()


def test_image_keeps_its_file_if_a_copy_is_added_before_it(built, folder):
    shutil.copy(folder / "c1" / "03.png", folder / "c0" / "a copy.png")
    report = sync_artifact(built, open_source(str(folder)))
    assert report.is_empty
    assert report.duplicates == [("c0/a copy.png", "c1/03.png")]
    assert report.found == 13


def test_dry_run_says_the_same_and_writes_nothing(built, folder):
    noise(folder / "c0" / "new.png", 99)
    (folder / "c0" / "00.png").unlink()
    before = contents(built)
    planned = sync_artifact(built, open_source(str(folder)), dry_run=True)
    assert contents(built) == before
    assert planned == sync_artifact(built, open_source(str(folder)))


def test_columns_that_come_and_go_are_taken_over(built, folder):
    (folder / "metadata.csv").unlink()
    assert len(sync_artifact(built, open_source(str(folder))).changed) == 12
    assert load_artifact(built).gallery.attributes == []
    describe(folder, dict.fromkeys(names(folder), "green"))
    assert len(sync_artifact(built, open_source(str(folder))).changed) == 12
    assert {colour for _, colour, _ in rows_of(built).values()} == {"green"}


def test_sync_never_leaves_an_artifact_without_images(built, tmp_path):
    before = contents(built)
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "notes.txt").write_text("no picture")
    with pytest.raises(SourceError):
        sync_artifact(built, open_source(str(tmp_path / "words")))
    assert contents(built) == before


def test_sync_command_prints_changes_and_counts_that_add_up(built, folder, capsys):
    noise(folder / "c0" / "new.png", 99)
    (folder / "c0" / "00.png").unlink()
    describe(folder, {path: "red" for path in names(folder) if path != "c0/new.png"})
    assert main(["sync", str(built), str(folder), "--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()
    counts = "found 12 = new 1 + changed 0 + unchanged 11 + skipped 0 + duplicate 0 + left out 0; removed 1"
    assert said == ["new c0/new.png", "removed c0/00.png", counts, "nothing was written (--dry-run)"]
    assert main(["sync", str(built), str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == said[:-1]
    assert main(["sync", str(built), str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "the artifact is up to date"


def test_add_says_how_many_known_images_it_leaves_as_they_are(built, folder, here):
    shutil.copy(folder / "c0" / "00.png", folder / "c1" / "a copy.png")  # its folder says nothing of the image
    assert "does not change" not in here("add", built, folder)[1], "nothing differs"
    describe(folder, {path: "blue" if path in names(folder)[:3] else "red" for path in names(folder)})
    (folder / "c0" / "10.png").rename(folder / "c1" / "10.png")  # another label
    noise(folder / "c0" / "new.png", 30)
    before = rows_of(built)
    said = here("add", built, folder)[1]
    assert "other labels or attributes for 4 images of the gallery" in said
    assert "SOURCE` takes them over, and removes images that SOURCE does not have" in said
    assert before.items() <= rows_of(built).items()
