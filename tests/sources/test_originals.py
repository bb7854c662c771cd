"""Where originals lie: what a gallery keeps of it, and what it never tells."""

import zipfile

import datasets
import pytest
from conftest import BACKBONE, noise, png

from retrieval import add_images, build_artifact, open_artifact, open_source, sync_artifact
from retrieval.images.gallery import ORIGINAL
from retrieval.sources.base import RawImage
from retrieval.sources.originals import original_in, original_of, with_originals, without_secrets

TINY = ["--backbone", BACKBONE, "--no-pretrained"]


@pytest.fixture
def photos(tmp_path):
    """Two files, one of them in a sub-folder, and one in a zip file."""
    noise(tmp_path / "photos" / "a b.png", 1)
    noise(tmp_path / "photos" / "cats" / "ä.png", 2)
    with zipfile.ZipFile(tmp_path / "photos" / "more.zip", "w") as archive:
        archive.writestr("c.png", png(3))
    return tmp_path / "photos"


def originals(artifact):
    table = open_artifact(artifact).gallery.table
    return dict(zip(table["source"].to_pylist(), table[ORIGINAL].to_pylist(), strict=True))


def test_build_keeps_paths_below_the_folder_and_says_how_many(photos, tmp_path, here):
    status, printed, error = here("build", photos, "--out", tmp_path / "it", "--originals", *TINY)
    assert status == 0, error
    assert "originals: kept for 2 of 3 images; images inside archives or parquet files have none" in printed
    kept = {"a b.png": "a b.png", "cats/ä.png": "cats/ä.png", "zip://c.png::more.zip": None}
    assert originals(tmp_path / "it") == kept
    assert str(tmp_path).encode() not in (tmp_path / "it" / "gallery.parquet").read_bytes()
    assert open_artifact(tmp_path / "it").gallery.attributes == []


def test_add_and_sync_go_on_keeping_originals(photos, tmp_path, encoder):
    build_artifact(open_source(str(photos)), tmp_path / "it", encoder, originals=True)
    noise(tmp_path / "new" / "d.png", 4)
    add_images(tmp_path / "it", open_source(str(tmp_path / "new")))
    assert originals(tmp_path / "it")["d.png"] == "d.png"
    (photos / "a b.png").rename(photos / "moved.png")
    report = sync_artifact(tmp_path / "it", open_source(str(photos)))
    assert (report.changed, report.removed) == (["moved.png"], ["d.png"])
    assert originals(tmp_path / "it")["moved.png"] == "moved.png"


def test_without_the_option_nothing_is_kept_until_a_sync_asks_for_it(photos, tmp_path, encoder):
    build_artifact(open_source(str(photos)), tmp_path / "it", encoder)
    assert ORIGINAL not in open_artifact(tmp_path / "it").gallery.table.column_names
    assert len(sync_artifact(tmp_path / "it", open_source(str(photos)), originals=True).changed) == 2
    assert originals(tmp_path / "it")["cats/ä.png"] == "cats/ä.png"


def test_rows_of_a_parquet_file_have_no_original(tmp_path):
    rows = {"image": [{"bytes": png(1), "path": "a.png"}]}
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "a.parquet")
    [raw] = with_originals(open_source(str(tmp_path / "a.parquet"))).rows()
    assert raw.attributes == {ORIGINAL: None}


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("https://me:secret@shop.example/a.jpg?size=2#top", "https://shop.example/a.jpg?size=2"),
        ("https://s3.example/a.jpg?X-Amz-Signature=1&X-Amz-Expires=60&v=2", "https://s3.example/a.jpg?v=2"),
        ("https://shop.example/a%20b.jpg?access_token=x&token=y", "https://shop.example/a%20b.jpg"),
        ("http://shop.example:8080/a.jpg?q=a+b%2Cc&flag", "http://shop.example:8080/a.jpg?q=a+b%2Cc&flag"),
        ("https://[broken/a.jpg", None),
    ],
)
def test_addresses_are_kept_without_secrets(address, kept):
    assert without_secrets(address) == kept


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (RawImage("cats/a.png", original="cats/a.png"), "cats/a.png"),
        (RawImage("a.png", original="https://me:secret@shop.example/a.png?sig=1"), "https://shop.example/a.png"),
        (RawImage("HTTPS://shop.example/a.png?token=1"), "HTTPS://shop.example/a.png"),
        (RawImage("a.png", original="/home/me/a.png"), None),
        (RawImage("a\ufffd.png", original="a\udcff.png"), None),  # bytes that are no text
        (RawImage("train/3"), None),
    ],
)
def test_only_relative_paths_and_addresses_are_kept(raw, kept):
    place = original_of(raw)
    assert (place.lower() if place else None) == (kept.lower() if kept else None)


def test_file_of_a_dataset_is_a_path_below_it_or_an_address_on_the_hub(tmp_path):
    hub = "hf://datasets/me/set@abc"
    assert original_in(f"{tmp_path}/a/b.png", str(tmp_path)) == "a/b.png"
    assert original_in("/etc/passwd", str(tmp_path)) is None
    assert (
        original_in(f"{hub}/a b/c.png", hub) == f"{datasets.config.HF_ENDPOINT}/datasets/me/set/resolve/abc/a%20b/c.png"
    )
    assert original_in(f"zip://c.png::{hub}/c.zip", hub) is None


def test_list_keeps_paths_below_its_folder_and_addresses(tmp_path):
    noise(tmp_path / "shop" / "in" / "1.png", 1)
    noise(tmp_path / "elsewhere" / "2.png", 2)
    rows = ["in/1.png", "../elsewhere/2.png", "https://me:secret@shop.example/3.png?token=x"]
    (tmp_path / "shop" / "list.csv").write_text("\n".join(["path", *rows]))
    source = with_originals(open_source(str(tmp_path / "shop" / "list.csv")))
    found = [raw.attributes[ORIGINAL] for raw in source.rows()]
    assert found == ["in/1.png", None, "https://shop.example/3.png"]
