"""Killed builds resume where they stopped, and an artifact is always either the old or the new one."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import WARM, python
from PIL import Image

from retrieval.artifact.load import load_artifact
from retrieval.build import embed
from retrieval.build.build import build_artifact
from retrieval.encoders.files import WEIGHTS_FILE
from retrieval.encoders.image import Encoder
from retrieval.sources.open import open_source

SHARD = 96  # smaller than in earnest, so that a build takes a second
IMAGES = 2 * SHARD + 52  # two full shards and part of a third
BUILD = f"""
import sys
from retrieval.build import embed
embed.SHARD = {SHARD}
from retrieval.__main__ import main
sys.exit(main(["build", *sys.argv[1:]]))
"""
KILLS = 8
BACKBONE = "test_resnet"


@pytest.fixture(scope="module", autouse=True)
def small_shards():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed, "SHARD", SHARD)
        yield


def draw_noise(folder, count, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.png", compress_level=0)
    return folder


def vectors_of(artifact):
    return artifact.store.vectors(np.arange(len(artifact.store)))


# A build that is killed


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder of images; each shard has one broken image and one duplicate."""
    folder = draw_noise(tmp_path_factory.mktemp("many") / "class", IMAGES)
    for number in (20, SHARD + 20, 2 * SHARD + 20):
        (folder / f"{number:04d}.png").write_bytes(b"\x89PNG and no more")
        shutil.copy(folder / "0007.png", folder / f"{number + 1:04d}.png")
    return folder.parent


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    Encoder.create(BACKBONE, pretrained=False, seed=3).save(folder)
    return folder / WEIGHTS_FILE


@pytest.fixture(scope="module")
def same_encoder(weights):
    """The encoder that the command of `killed_build` creates from its options."""
    return Encoder.create(BACKBONE, weights=weights, seed=0)


@pytest.fixture(scope="module")
def uninterrupted(many, same_encoder, tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted") / "whole"
    report = build_artifact(open_source(str(many)), out, same_encoder)
    assert (report.found, report.indexed) == (IMAGES, IMAGES - 6)
    return out


@pytest.fixture(scope="module")
def killed_build(many, weights, tmp_path_factory):
    """A build killed after its first shard: the command, the artifact's folder and a copy of the work folder."""
    out = tmp_path_factory.mktemp("killed") / "it"
    command = ["-c", BUILD, str(many), "--out", str(out)]
    command += ["--backbone", BACKBONE, "--weights", str(weights)]
    with WARM.start(*command) as process:
        while process.poll() is None and not shards_of(out):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    kept = tmp_path_factory.mktemp("kept")
    return command, out, Path(shutil.copytree(work_folder(out), kept / "work"))


def work_folder(out):
    return out.parent / f".{out.name}.building"


def shards_of(out):
    return sorted(work_folder(out).glob("*.parquet"))


def test_killed_build_resumes_to_the_same_artifact(killed_build, uninterrupted):
    command, out, _ = killed_build
    finished = len(shards_of(out))
    assert 1 <= finished < 3
    done = python(*command, check=True)
    assert f"found {IMAGES} = indexed {IMAGES - 6} + skipped 3 + duplicate 3" in done.stdout
    assert [path.name for path in out.parent.iterdir() if path.name != ".it.lock"] == ["it"]
    again, whole = load_artifact(out), load_artifact(uninterrupted)
    assert np.array_equal(vectors_of(again), vectors_of(whole))
    assert again.gallery.table.equals(whole.gallery.table)
    assert again.manifest["build"] == whole.manifest["build"]
    assert again.manifest["files"] == whole.manifest["files"]  # every file is identical, byte for byte


def test_resumed_build_does_not_embed_finished_shards_again(killed_build, many, same_encoder, uninterrupted, tmp_path):
    _, _, work = killed_build
    shards = sorted(work.glob("*.parquet"))
    consumed = [json.loads(pq.read_schema(path).metadata[b"lookalike"])["consumed"] for path in shards]
    assert consumed[0] == SHARD + 2  # a full shard of rows, plus the broken image and the duplicate
    shutil.copytree(work, work_folder(tmp_path / "it"))
    done = []
    report = build_artifact(
        open_source(str(many)), tmp_path / "it", same_encoder, progress=lambda number, _: done.append(number)
    )
    assert done == list(range(consumed[-1] + 1, IMAGES + 1))
    assert len(report.skipped) == len(report.duplicates) == 3  # including those of the first run
    assert np.array_equal(vectors_of(load_artifact(tmp_path / "it")), vectors_of(load_artifact(uninterrupted)))


class StopEarly(Exception):
    """Raised by `first_embedded` to end a build at its first image."""


def first_embedded(work, out, source, encoder, **options):
    """The number of the first image that a build embeds when it starts from that work folder."""
    shutil.copytree(work, work_folder(out))

    def stop(number, _):
        raise StopEarly(number)

    with pytest.raises(StopEarly) as raised:
        build_artifact(source, out, encoder, progress=stop, **options)
    return raised.value.args[0]


def test_resumed_build_ignores_an_unfinished_shard(killed_build, many, same_encoder, tmp_path):
    _, _, work = killed_build
    first = work / "000000.parquet"
    cut = Path(shutil.copytree(work, tmp_path / "cut", ignore=shutil.ignore_patterns("*.parquet")))
    (cut / "000000.unfinished").write_bytes(first.read_bytes()[:1000])
    assert first_embedded(cut, tmp_path / "it", open_source(str(many)), same_encoder) == 1
    shutil.copy(first, cut)
    (cut / "000001.unfinished").write_bytes(first.read_bytes()[:1000])
    assert first_embedded(cut, tmp_path / "other", open_source(str(many)), same_encoder) == SHARD + 3


# A build that differs from the interrupted one


class Counted(Encoder):
    """An encoder that counts the images that went through the network."""

    embedded = 0

    def embed_tensors(self, tensors):
        self.embedded += len(tensors)
        return super().embed_tensors(tensors)


@pytest.fixture
def counted(weights):
    encoder = Counted.create(BACKBONE, weights=weights, seed=0)
    encoder.embedded = 0
    return encoder


def finished_after(work, out, source, encoder, **options):
    """The artifact and the report of a build that starts from that work folder."""
    shutil.copytree(work, work_folder(out))
    report = build_artifact(source, out, encoder, **options)
    assert not work_folder(out).exists()
    return load_artifact(out), report


def check_same_but_for_rounding(built, new):
    """Check that the table is that of an uninterrupted build, and that the vectors differ only by rounding."""
    assert built.gallery.table.equals(new.gallery.table)
    assert built.manifest["build"] == new.manifest["build"]
    np.testing.assert_allclose(vectors_of(built), vectors_of(new), atol=1e-6)


def rows_in(work):
    return sum(pq.read_metadata(path).num_rows for path in work.glob("*.parquet"))


GOLDEN = 1  # the golden query: one image that a build embeds again at the end


def test_resumed_build_embeds_only_new_images_of_a_changed_source(
    killed_build, many, same_encoder, counted, tmp_path, capsys
):
    """New images are added; the others move to another class and get a price."""
    _, _, work = killed_build
    folder = Path(shutil.copytree(many, tmp_path / "other"))
    draw_noise(folder / "an earlier class", 5, seed=9)
    (folder / "class").rename(folder / "renamed")
    lines = [f"renamed/{path.name},{number}" for number, path in enumerate(sorted((folder / "renamed").iterdir()))]
    (folder / "metadata.csv").write_text("\n".join(["file_name,price", *lines]))
    built, report = finished_after(work, tmp_path / "it", open_source(str(folder)), counted)
    assert counted.embedded == report.indexed - rows_in(work) + GOLDEN
    kept = f"the source has changed: reading from the start; the embeddings of {rows_in(work)} images are reused"
    assert f"{kept}\n" in capsys.readouterr().err
    build_artifact(open_source(str(folder)), tmp_path / "new", same_encoder)
    check_same_but_for_rounding(built, load_artifact(tmp_path / "new"))


def test_resumed_build_embeds_nothing_again_after_a_file_is_touched(
    killed_build, many, uninterrupted, counted, tmp_path
):
    _, _, work = killed_build
    folder = Path(shutil.copytree(many, tmp_path / many.name))
    (folder / "class" / "0000.png").touch()
    built, report = finished_after(work, tmp_path / "it", open_source(str(folder)), counted)
    assert counted.embedded == report.indexed - rows_in(work) + GOLDEN
    check_same_but_for_rounding(built, load_artifact(uninterrupted))


@pytest.mark.parametrize("limit", [SHARD + 40, 60])
def test_build_resumes_with_another_limit(killed_build, many, same_encoder, counted, limit, tmp_path, capsys):
    _, _, work = killed_build
    before = rows_in(work)
    built, report = finished_after(work, tmp_path / "it", open_source(str(many)), counted, limit=limit)
    assert report.found == limit
    assert counted.embedded == max(0, report.indexed - before) + GOLDEN
    lower = "the limit is lower than before: reading from the start;"
    assert (lower in capsys.readouterr().err) == (limit == 60)
    build_artifact(open_source(str(many)), tmp_path / "new", same_encoder, limit=limit)
    check_same_but_for_rounding(built, load_artifact(tmp_path / "new"))


def test_resumed_build_discards_vectors_of_another_encoder_and_says_so(killed_build, many, tmp_path, capsys):
    _, _, work = killed_build
    before = rows_in(work)
    other = Encoder.create(BACKBONE, pretrained=False, seed=4)
    assert first_embedded(work, tmp_path / "it", open_source(str(many)), other) == 1
    assert not list(work_folder(tmp_path / "it").rglob("*.parquet"))
    said = f"discarding {before} images embedded by an interrupted build: it used a different encoder"
    assert said in capsys.readouterr().err


def test_build_killed_twice_keeps_its_finished_shards(killed_build, many, counted, tmp_path):
    """The source changes, and its build is interrupted as well, before it finishes a shard."""
    _, _, work = killed_build
    before = rows_in(work)
    folder = Path(shutil.copytree(many, tmp_path / "other"))
    for number in range(2):
        draw_noise(folder / f"more {number}", 3, seed=20 + number)
        first_embedded(work, tmp_path / f"it {number}", open_source(str(folder)), counted)
        work = work_folder(tmp_path / f"it {number}")
    counted.embedded = 0
    _, report = finished_after(work, tmp_path / "it", open_source(str(many)), counted)
    assert counted.embedded == report.indexed - before + GOLDEN


def black(path):
    Image.new("RGB", (32, 32)).save(path)


def blind_to_black():
    """An encoder without biases for which black is zero, so a black picture gives a zero embedding."""
    model = Encoder.create(BACKBONE, pretrained=False, seed=0).model
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0, 0, 0), "std": (1, 1, 1)}
    return Encoder.of(model)


def test_build_skips_images_with_a_zero_embedding(tmp_path):
    folder = draw_noise(tmp_path / "class", 11)
    for number in (3, 4, 9):
        black(folder / f"{number:04d}.png")
    report = build_artifact(open_source(str(tmp_path)), tmp_path / "it", blind_to_black())
    assert (report.found, report.indexed, report.duplicates) == (11, 8, [])
    assert [source for source, _ in sorted(report.skipped)] == [f"class/{number:04d}.png" for number in (3, 4, 9)]
    assert all("cannot embed this picture or text" in reason for _, reason in report.skipped)
    built = load_artifact(tmp_path / "it")
    np.testing.assert_allclose(np.linalg.norm(vectors_of(built), axis=1), 1, atol=1e-6)


def test_copies_of_a_picture_in_which_the_encoder_sees_nothing_are_skipped_too(tmp_path):
    """Including copies that were read ahead without decoding, before the first one failed."""
    folder = draw_noise(tmp_path / "class", 60)
    blank = [number for number in range(60) if number not in (30, 31, 32, 45, 59)]
    for number in blank:
        black(folder / f"{number:04d}.png")
    report = build_artifact(open_source(str(tmp_path)), tmp_path / "it", blind_to_black())
    assert (report.found, report.indexed, report.duplicates) == (60, 5, [])
    assert sorted(source for source, _ in report.skipped) == [f"class/{number:04d}.png" for number in blank]


# A build that is interrupted


def test_ctrl_c_prints_one_line_on_how_to_continue_the_build(killed_build, tmp_path):
    """The build gets SIGINT here, not SIGKILL."""
    command, out, _ = killed_build
    command = [str(tmp_path / "it") if each == str(out) else each for each in command]
    with WARM.start(*command, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not (work_folder(tmp_path / "it") / "key").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert (
        said.splitlines()[-1]
        == "interrupted; a build, add, sync or pull continues where it was if the same command is run again"
    )
    assert "Traceback" not in said
    assert not (tmp_path / "it").exists()


# Kills at any moment

# Imports everything once, then runs each command from standard input in its own fork and prints the fork's id first.
CHANGER = """
import json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from retrieval import Encoder, add_images, build_artifact, open_source, remove_images
from retrieval.build.sync import sync_artifact
from retrieval.images.door.workers import apart

apart.AVAILABLE = False  # as on macOS: each fork would start processes that decode

def change(kind, folder, argument):
    if kind == "build":
        build_artifact(open_source(argument), folder, Encoder.load(folder))
    elif kind == "add":
        add_images(folder, open_source(argument))
    elif kind == "sync":
        sync_artifact(folder, open_source(argument))
    else:
        remove_images(folder, argument)

for line in sys.stdin:
    kind, folder, argument = json.loads(line)
    pid = os.fork()
    if not pid:
        change(kind, Path(folder), argument)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


class Changer:
    """A process that changes artifacts in forks, which can be killed."""

    def __init__(self, process):
        self._process = process

    def run(self, command, kill_after=None):
        """Run one command, and kill it after `kill_after` seconds; returns whether it finished and how long it ran."""
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        start = time.perf_counter()
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        status = int(self._process.stdout.readline())
        assert status in (0, signal.SIGKILL)
        return status == 0, time.perf_counter() - start


@pytest.fixture(scope="module")
def changer():
    with WARM.start("-c", CHANGER, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Changer(process)
        process.stdin.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An artifact of 80 images, and a folder of 40 others."""
    root = tmp_path_factory.mktemp("small")
    old, new = draw_noise(root / "old" / "class", 80, seed=1).parent, draw_noise(root / "new", 40, seed=2)
    build_artifact(open_source(str(old)), root / "it", Encoder.create(BACKBONE, pretrained=False, seed=0))
    (root / "it" / "notes.txt").write_text("a person's")
    return root / "it", new


def state(folder):
    """What distinguishes two artifacts. Loading checks every byte against the manifest and repeats the golden query."""
    artifact = load_artifact(folder)
    assert (folder / "notes.txt").is_file() or (folder.parent / f".{folder.name}.new" / "notes.txt").is_file()
    return artifact.manifest["files"], artifact.gallery.ids


@pytest.mark.parametrize("kind", ["build", "add", "remove", "sync"])
def test_kill_at_a_random_moment_leaves_the_old_or_the_new_artifact(changer, small, kind, tmp_path):
    artifact, pictures = small
    argument = load_artifact(artifact).gallery.ids[10:30] if kind == "remove" else str(pictures)

    def fresh(name):
        return Path(shutil.copytree(artifact, tmp_path / name / "it"))

    seconds = []
    for name in ("first", "second"):  # the second run is not slowed by lazy imports
        finished, took = changer.run((kind, str(fresh(name)), argument))
        assert finished
        seconds.append(took)
    old, new = state(artifact), state(tmp_path / "second" / "it")
    assert old != new
    draw, killed, found = random.Random(kind), 0, []
    for number in range(KILLS):
        folder = fresh(str(number))
        moment = (number + draw.random()) / KILLS * min(seconds)  # one kill in each eighth of the running time
        finished, _ = changer.run((kind, str(folder), argument), kill_after=moment)
        killed += not finished
        found.append(state(folder))
        assert found[-1] in ([new] if finished else [old, new])
    assert killed >= 3
    assert old in found
    finished, _ = changer.run((kind, str(folder), argument)) if found[-1] == old else (True, 0)
    assert finished
    assert state(folder) == new  # the same command still works after a kill


def test_repeated_kills_in_one_folder_leave_a_valid_artifact(changer, small, tmp_path):
    """What a killed process leaves behind does not harm the next one."""
    artifact, pictures = small
    folder = Path(shutil.copytree(artifact, tmp_path / "it"))
    draw = random.Random(0)
    _, seconds = changer.run(("build", str(Path(shutil.copytree(artifact, tmp_path / "timed"))), str(pictures)))
    for number in range(3):
        changer.run(("build", str(folder), str(pictures)), kill_after=draw.uniform(0.2, 1) * seconds)
        changer.run(("remove", str(folder), state(folder)[1][:1]), kill_after=draw.uniform(0, 1) * seconds / 2)
        assert len(state(folder)[1]) in {*range(80 - number - 1, 81), *range(40 - number - 1, 41)}
    finished, _ = changer.run(("build", str(folder), str(pictures)))
    assert finished
    assert len(state(folder)[1]) == 40
    assert {path.name for path in tmp_path.iterdir()} <= {"it", ".it.lock", "timed", ".timed.lock"}
    assert (folder / "notes.txt").read_text() == "a person's"
