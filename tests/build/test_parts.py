"""Parts built on their own and merged: the same artifact, byte for byte, as one build of the whole source."""

import shutil

import pytest
from conftest import noise

from retrieval.build import embed
from retrieval.build.build import build_artifact
from retrieval.build.parts.build import build_part
from retrieval.build.parts.merge import merge_parts
from retrieval.sources.open import open_source

SHARD = 8  # smaller than in earnest, so that a part has several files
BACKBONE = "test_efficientnet"


@pytest.fixture(scope="module", autouse=True)
def small_shards():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed, "SHARD", SHARD)
        yield


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """75 files in three classes: broken ones, copies in the same part and in others, attributes, one without a row."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(72):
        noise(folder / f"{'abc'[number // 24]}/{number:03d}.png", number)
    for number in (5, 30, 70):
        (folder / f"{'abc'[number // 24]}/{number:03d}.png").write_bytes(b"\x89PNG and no more")
    for number, copy in ((2, "a/021.png"), (2, "b/026.png"), (2, "c/060.png"), (50, "c/061.png"), (31, "c/071.png")):
        shutil.copy(folder / f"{'abc'[number // 24]}/{number:03d}.png", folder / copy)
    (folder / "notes.txt").write_text("no picture")
    rows = [f"{'abc'[n // 24]}/{n:03d}.png,{n},{'red' if n % 2 else 'blue'}" for n in range(0, 72, 3)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,number,colour", *rows]))
    return folder


@pytest.fixture(scope="module")
def whole(collection, encoder, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "it"
    return out, build_artifact(open_source(str(collection)), out, encoder)


def build_parts(source, at, encoder, count, **options):
    for index in range(count):
        build_part(open_source(str(source)), at / f"part {index}", encoder, index, count, **options)
    return [at / f"part {index}" for index in range(count)]


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("count", [1, 3, 80])
def test_merged_parts_are_the_same_bytes_and_report_as_one_build(count, collection, whole, encoder, tmp_path):
    merged = merge_parts(build_parts(collection, tmp_path, encoder, count)[::-1], tmp_path / "it")
    assert merged == whole[1]
    assert (merged.found, merged.indexed, len(merged.skipped), len(merged.duplicates)) == (73, 64, 3, 5)
    assert content(tmp_path / "it") == content(whole[0])
