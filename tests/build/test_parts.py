"""Parts built on their own and merged: the same artifact, byte for byte, as one build of the whole source."""

import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
from conftest import WARM, noise, python
from PIL import Image

from retrieval.build import embed
from retrieval.build.build import build_artifact, work_folder
from retrieval.build.parts.build import build_part
from retrieval.build.parts.merge import merge_parts
from retrieval.encoders.image import Encoder
from retrieval.errors import ArtifactError, IntegrityError, SourceError
from retrieval.sources.open import open_source

SHARD = 8  # smaller than in earnest, so that a part has several files
BUILD = f"""
import sys
from retrieval.build import embed
embed.SHARD = {SHARD}
from retrieval.__main__ import main
sys.exit(main(["build", *sys.argv[1:]]))
"""
MODEL = ["--backbone", "test_efficientnet", "--no-pretrained"]


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


# What must agree


@pytest.fixture(scope="module")
def parts(collection, encoder, tmp_path_factory):
    """All three parts, which no test changes."""
    return build_parts(collection, tmp_path_factory.mktemp("parts"), encoder, 3)


def refused(folders, out, error=ArtifactError):
    """The message with which a merge is refused; nothing is written."""
    with pytest.raises(error) as raised:
        merge_parts(folders, out)
    assert not out.exists()
    return str(raised.value)


def test_merge_names_the_parts_that_are_missing_or_there_twice(parts, tmp_path):
    out = tmp_path / "it"
    said = refused([parts[1]], out)
    assert "of the parts 0 to 2, 0 and 2 are missing" in said
    assert "--shard 0/3" in said
    assert "of the parts 0 to 2, 1 is missing" in refused([parts[0], parts[2]], out)
    said = refused([*parts, parts[1]], out)
    assert f"part 1 of 3 is there twice, in {parts[1]} and {parts[1]}" in said
    assert "there are no parts to merge" in refused([], out)


def test_merge_refuses_parts_of_different_builds(parts, collection, encoder, tmp_path):
    out, other = tmp_path / "it", tmp_path / "other"
    small = Encoder.create("test_resnet", pretrained=False, seed=1)

    def built(source=collection, encoder=encoder, count=3, **options):
        build_part(open_source(str(source)), other, encoder, 1, count, force=True, **options)
        return refused([parts[0], other, parts[2]], out)

    assert "they differ in the encoder" in (said := built(encoder=small))
    assert small.fingerprint[:12] in said
    assert encoder.fingerprint[:12] in said
    assert f"{parts[0]} is part 0 of 3, and {other} is part 1 of 4" in built(count=4)
    assert "they differ in --limit" in built(limit=200)
    assert "the columns of the gallery" in built(originals=True)
    copy = shutil.copytree(collection, tmp_path / "elsewhere" / collection.name)
    noise(copy / "a" / "000.png", 0, side=33)
    assert "the names and sizes of its files" in built(source=copy)


def test_part_from_a_copy_of_the_source_with_other_times_reads_only_its_own_images(
    parts, collection, whole, encoder, tmp_path
):
    copy = shutil.copytree(collection, tmp_path / "elsewhere" / collection.name, copy_function=shutil.copy)
    own = {f"{'abc'[number // 24]}/{number:03d}.png" for number in range(24, 48)}
    # With metadata, described files come first; so the copy keeps what the second part has in one build.
    table = [*sorted(path for path in copy.rglob("*.png"))]
    described = [copy / f"{'abc'[n // 24]}/{n:03d}.png" for n in range(0, 72, 3)]
    order = [*described, *(path for path in table if path not in described)]
    own = set(order[24:48])
    for path in set(order) - own:
        path.write_bytes(bytes(path.stat().st_size))
    build_part(open_source(str(copy)), tmp_path / "part", encoder, 1, 3)
    assert merge_parts([parts[0], tmp_path / "part", parts[2]], tmp_path / "it") == whole[1]
    assert content(tmp_path / "it") == content(whole[0])


@pytest.mark.parametrize("harm", ["shorter", "other", "gone", "no json", "format", "outside", "no part", "artifact"])
def test_merge_refuses_a_damaged_part_in_words(harm, parts, whole, tmp_path):
    part = shutil.copytree(parts[0], tmp_path / "part")
    rows, stated, error = part / "rows" / "000000.parquet", part / "part.json", IntegrityError
    if harm == "shorter":
        os.truncate(rows, 1000)
        says = "has 1,000 bytes"
    elif harm == "other":
        rows.write_bytes(rows.read_bytes()[:-1] + b"x")
        says = "rows/000000.parquet has"
    elif harm == "gone":
        (part / "model.safetensors").unlink()
        says = "model.safetensors is missing"
    elif harm == "no json":
        stated.write_bytes(stated.read_bytes()[:-20])
        says = "part.json is damaged"
    elif harm == "format":
        stated.write_text(json.dumps({**json.loads(stated.read_text()), "format": 2}))
        says = "has format 2, but this version of Lookalike reads format 1"
    elif harm == "outside":
        files = {"../rows/000000.parquet": {"size": 1, "sha256": "0"}}
        stated.write_text(json.dumps({**json.loads(stated.read_text()), "files": files}))
        says = "'../rows/000000.parquet' is no file of a part"
    else:
        error, says = ArtifactError, "it is an artifact" if harm == "artifact" else "there is no part.json in it"
        part = whole[0] if harm == "artifact" else tmp_path
    assert says in refused([part, *parts[1:]], tmp_path / "it", error)


def test_merge_says_when_no_image_of_any_part_can_be_read(encoder, tmp_path):
    for number in range(3):
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / f"{number}.png").write_bytes(b"\x89PNG and no more")
    folders = build_parts(tmp_path / "bad", tmp_path, encoder, 2)
    assert "none of the 3 files found could be indexed. The first one: 0.png" in refused(
        folders, tmp_path / "it", SourceError
    )


# Finished and unfinished parts


def test_finished_part_stays_and_another_is_replaced_only_by_force(collection, encoder, tmp_path, capsys):
    source, out = open_source(str(collection)), tmp_path / "part"
    report = build_part(source, out, encoder, 0, 3)
    before = {path: path.stat().st_ino for path in out.rglob("*")}
    assert build_part(source, out, encoder, 0, 3) == report
    assert "holds this part already: nothing to do" in capsys.readouterr().err
    assert {path: path.stat().st_ino for path in out.rglob("*")} == before
    with pytest.raises(ArtifactError, match=r"holds part 0 of 3 of a build already, and this one differs in the part"):
        build_part(source, out, encoder, 1, 3)
    assert {path: path.stat().st_ino for path in out.rglob("*")} == before
    (out / "mine.txt").write_text("mine")
    build_part(source, out, encoder, 80, 81, force=True)
    assert {path.name for path in out.iterdir()} == {"part.json", "rows", "mine.txt"}
    assert not work_folder(out).exists()


def test_part_is_not_written_over_anything_else(collection, whole, encoder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for folder, what in ((whole[0], "an artifact"), (tmp_path, "files that do not belong to a part")):
        for force in (False, True):
            with pytest.raises(ArtifactError, match=f"contains {what}"):
                build_part(open_source(str(collection)), folder, encoder, 0, 3, force=force)


def test_killed_part_continues_where_it_was(collection, whole, tmp_path):
    parts = [tmp_path / str(index) for index in range(2)]
    commands = [
        ["-c", BUILD, str(collection), "--out", str(out), "--shard", f"{i}/2", *MODEL] for i, out in enumerate(parts)
    ]
    with WARM.start(*commands[0]) as process:
        while process.poll() is None and not list(work_folder(parts[0]).glob("*.parquet")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert "it has not been finished: run its `build` again" in refused([parts[0]], tmp_path / "it")
    first = work_folder(parts[0]) / "000000.parquet"
    number = first.stat().st_ino
    for command in commands:
        python(*command, check=True)
    assert (parts[0] / "rows" / "000000.parquet").stat().st_ino == number
    done = python("-m", "retrieval", "merge", *map(str, parts), "--out", str(tmp_path / "it"), check=True)
    assert "found 73 = indexed 64 + skipped 3 + duplicate 5 + left out 1" in done.stdout
    python("-c", BUILD, str(collection), "--out", str(tmp_path / "one"), *MODEL, check=True)
    assert content(tmp_path / "it") == content(tmp_path / "one")


# The command line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--shard", "3/3"], "I goes from 0 to N-1"),
        (["--shard", "one"], "--shard is I/N"),
        (["--shard", "0/3", "--map", "pca"], "--map is about the whole gallery: give it to `merge`"),
        (["--shard", "0/3", "--index", "Flat"], "--index is about the whole gallery"),
        (["--shard", "0/3", "--text-model", "x"], "--text-model is about the whole gallery"),
        (["--shard", "0/3", "--precision", "int8"], "int8 is calibrated on images of the whole source"),
    ],
)
def test_options_of_the_whole_gallery_are_refused_for_a_part(options, says, collection, tmp_path):
    done = python("-m", "retrieval", "build", str(collection), "--out", str(tmp_path / "it"), *MODEL, *options)
    assert done.returncode == 2
    assert says in done.stderr
    assert not list(tmp_path.iterdir())


def test_merge_takes_the_options_of_the_whole_gallery(parts, encoder, collection, tmp_path):
    options = ["--index", "SQ8", "--map", "pca"]
    done = python("-m", "retrieval", "merge", *map(str, parts), "--out", str(tmp_path / "it"), *options, check=True)
    assert f"{tmp_path / 'it'} is ready" in done.stdout
    build_artifact(open_source(str(collection)), tmp_path / "one", encoder, factory="SQ8", map_method="pca")
    assert content(tmp_path / "it") == content(tmp_path / "one")
    again = python("-m", "retrieval", "merge", *map(str, parts), "--out", str(tmp_path / "it"))
    assert again.returncode == 1
    assert "already holds an artifact of 64 images" in again.stderr


def test_reports_are_in_the_order_of_the_source_whatever_shares_a_batch(tmp_path):
    """An image whose embedding is zero is refused only once its batch is full, and its copies with it."""
    for number in range(12):
        noise(tmp_path / "it" / f"{number:02d}.png", number)
    for number in (1, 6, 9):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "it" / f"{number:02d}.png")
    for number in (3, 7):
        (tmp_path / "it" / f"{number:02d}.png").write_bytes(b"\x89PNG and no more")
    model = Encoder.create("test_resnet", pretrained=False, seed=0).model
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0, 0, 0), "std": (1, 1, 1)}  # black is zero throughout
    blind = Encoder.of(model)
    one = build_artifact(open_source(str(tmp_path / "it")), tmp_path / "one", blind)
    assert [name for name, _ in one.skipped] == ["01.png", "03.png", "06.png", "07.png", "09.png"]
    merged = merge_parts(build_parts(tmp_path / "it", tmp_path, blind, 5), tmp_path / "merged")
    assert merged == one
