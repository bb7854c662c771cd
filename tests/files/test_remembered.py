"""What was computed from large files is remembered, and only for as long as they are surely the same."""

import json
import os
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact
from retrieval.build.build import build_artifact
from retrieval.build.change import remove_images
from retrieval.errors import IntegrityError
from retrieval.files.remembered import reading_anew, remembered, sha256_of
from retrieval.sources.open import open_source

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there, nothing is remembered")

SIZE = 5 * 2**20
SETTLED = 2.2  # seconds after which a file counts as one that is not being written


@pytest.fixture(scope="module")
def old_files(tmp_path_factory):
    """Large files that were written a while ago."""
    folder = tmp_path_factory.mktemp("old")
    files = [folder / f"{number}.bin" for number in range(40)]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * SIZE)
    time.sleep(SETTLED)
    return iter(files)


@pytest.fixture
def file(old_files):
    return next(old_files)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hashes-1"


class Counted:
    """Reads files, and counts how often."""

    def __init__(self, *files):
        self.files, self.times = files, 0

    def __call__(self):
        def read():
            self.times += 1
            return sha256(b"".join(path.read_bytes() for path in self.files)).hexdigest()

        return remembered(self.files, "content", read)


def test_file_is_read_once_and_again_if_it_changed_in_any_way(file, place):
    ask = Counted(file)
    first = ask()
    assert (ask(), ask.times) == (first, 1)
    assert place.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in place.iterdir()] == [0o600]
    with reading_anew():
        assert (ask(), ask.times) == (first, 2)
    assert (ask(), ask.times) == (first, 2)
    was = file.stat()
    with file.open("r+b") as opened:
        opened.write(b"x")
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))  # the time of the last change of any kind cannot be set
    assert ask() != first
    assert ask.times == 3


def test_file_that_has_just_been_written_is_not_remembered(file, place):
    file.write_bytes(file.read_bytes())
    ask = Counted(file)
    assert ask() == ask()
    assert ask.times == 2


def test_file_that_changes_while_it_is_read_is_not_remembered(file, place):
    remembered([file], "content", lambda: (file.write_bytes(b"y" * SIZE), "before")[1])
    assert remembered([file], "content", lambda: "after") == "after"
    assert not list(place.iterdir())


def test_another_file_in_its_place_is_read(file, old_files, place):
    ask = Counted(file)
    first, other = ask(), next(old_files)
    was = file.stat()
    os.utime(other, ns=(was.st_atime_ns, was.st_mtime_ns))
    other.replace(file)
    assert ask() != first


def test_link_is_the_file_it_leads_to(file, old_files, place, tmp_path):
    other, link = next(old_files), tmp_path / "link"
    link.symlink_to(file)
    assert sha256_of(link) == sha256(file.read_bytes()).hexdigest()
    link.unlink()
    link.symlink_to(other)
    assert sha256_of(link) == sha256(other.read_bytes()).hexdigest()


def test_open_file_is_remembered_as_long_as_it_is_the_same(file, old_files, place):
    with file.open("rb") as one:
        assert remembered([one.fileno()], "content", lambda: "one") == "one"
    with file.open("rb") as again, next(old_files).open("rb") as other:
        assert remembered([again.fileno()], "content", lambda: "two") == "one"
        assert remembered([other.fileno()], "content", lambda: "three") == "three"


def test_what_is_computed_and_all_its_files_count(file, old_files, place):
    other = next(old_files)
    assert remembered([file], "one", lambda: "a") == "a"
    assert remembered([file], "two", lambda: "b") == "b"
    assert remembered([file, other], "one", lambda: "c") == "c"
    other.touch()
    assert remembered([file, other], "one", lambda: "d") == "d"


def _cut(entry):
    entry.write_bytes(entry.read_bytes()[:-9])


def _flip(entry):
    entry.write_bytes(entry.read_bytes().replace(b'"right"', b'"wrong"'))


def _resign(entry, change):
    stated = json.loads(entry.read_bytes().partition(b"\n")[2])
    content = json.dumps(change(stated)).encode()
    entry.write_bytes(sha256(content).hexdigest().encode() + b"\n" + content)


def _link(entry):
    entry.rename(entry.with_name("elsewhere"))
    entry.symlink_to(entry.with_name("elsewhere"))


def _pipe(entry):
    entry.unlink()
    os.mkfifo(entry)


@pytest.mark.parametrize(
    "spoil",
    [
        _cut,
        _flip,
        _link,
        _pipe,
        lambda entry: entry.write_bytes(b""),
        lambda entry: entry.write_bytes(b"[" * 60_000),
        lambda entry: _resign(entry, lambda stated: [stated]),
        lambda entry: _resign(entry, lambda stated: {**stated, "what": "other"}),
        lambda entry: _resign(entry, lambda stated: {**stated, "files": stated["files"][:0]}),
        lambda entry: _resign(entry, lambda stated: {"what": stated["what"], "files": stated["files"]}),
        lambda entry: entry.chmod(0o666),
        lambda entry: entry.parent.chmod(0o777),
        pytest.param(
            lambda entry: os.chown(entry, 12345, -1),
            marks=pytest.mark.skipif(
                not hasattr(os, "getuid") or os.getuid() != 0, reason="only root gives files away"
            ),
        ),
    ],
)
def test_result_that_is_damaged_or_may_be_of_others_is_not_used(spoil, file, place):
    assert remembered([file], "content", lambda: "right") == "right"
    spoil(next(place.iterdir()))
    assert remembered([file], "content", lambda: "anew") == "anew"


@pytest.mark.parametrize("where", ["", "file", "file/below", "~nobody-of-this-name/cache", "x" * 300])
def test_without_a_folder_everything_is_read(where, file, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOOKALIKE_CACHE", where)
    ask = Counted(file)
    assert ask() == ask()
    assert ask.times == 2


def test_folder_follows_the_cache_folder_of_the_system(file, tmp_path, monkeypatch):
    monkeypatch.delenv("LOOKALIKE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    sha256_of(file)
    assert len(list((tmp_path / "xdg" / "lookalike" / "hashes-1").iterdir())) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # is to be ignored, says the specification
    sha256_of(file)
    assert len(list((tmp_path / "home" / ".cache" / "lookalike" / "hashes-1").iterdir())) == 1


def test_drive_in_the_network_is_not_believed(file, place, monkeypatch):
    kinds = psutil.disk_partitions(all=True)
    away = [part._replace(mountpoint=str(file.parent), fstype="nfs4") for part in kinds[:1]]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: [*kinds, *away])
    ask = Counted(file)
    assert ask() == ask()
    assert ask.times == 2


def test_only_so_many_results_are_kept(file, place):
    for number in range(1_010):
        remembered([file], str(number), lambda: "x")
    assert 700 < len(list(place.iterdir())) <= 1_000
    assert remembered([file], "1009", lambda: "y") == "x"


@pytest.fixture(scope="module")
def large(tmp_path_factory, encoder):
    """An artifact whose gallery is not hashed again, written a while ago, and its folder of what is remembered."""
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    for number in range(120):
        pixels = rng.integers(0, 256, (256, 256, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    build_artifact(open_source(str(folder)), folder / "artifact", encoder)
    time.sleep(SETTLED)
    return folder / "artifact"


def test_damage_that_leaves_no_trace_is_found_by_verify_and_before_a_change(large, place, here):
    before, entry_of = load_artifact(large), {}
    for entry in place.iterdir():
        stated = json.loads(entry.read_bytes().partition(b"\n")[2])
        entry_of[Path(stated["files"][0][0]).name, stated["what"]] = entry
    gallery = large / LAYOUT.gallery
    entry = entry_of[LAYOUT.gallery, "sha256"]
    content = bytearray(gallery.read_bytes())
    content[len(content) // 2] ^= 1  # in a thumbnail
    gallery.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"gallery\.parquet: SHA-256"):
        load_artifact(large)
    # As if the disk had lost a bit: the file is another one, its times and so on are those that are remembered.
    of = gallery.stat()
    state = [str(gallery), of.st_dev, of.st_ino, of.st_size, of.st_mtime_ns, of.st_ctime_ns]
    _resign(entry, lambda stated: {**stated, "files": [state]})
    load_artifact(large)
    status, printed, error = here("verify", large)
    assert (status, printed) == (1, "")
    assert "gallery.parquet: SHA-256" in error
    with pytest.raises(IntegrityError, match=r"gallery\.parquet: SHA-256"):
        remove_images(large, before.gallery.ids[:1])
    assert json.loads((large / LAYOUT.manifest).read_bytes()) == before.manifest
