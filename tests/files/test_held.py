"""Folders that end with their process: closed, killed, forked, on a drive without locks, or made to look like one."""

import os
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import WARM
from refusing import only_here

from retrieval.files import held
from retrieval.files.held import HeldFile, HeldFolder, temporary_folder

HOLD = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from refusing import refuse
if sys.argv[2]:
    refuse(sys.argv[2], "flock")
from retrieval.files.held import HeldFolder
held = HeldFolder(Path(sys.argv[1]), "mine-")
(held.path / "file").write_bytes(b"x")
print(held.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds a folder; yields it and the process."""
    with WARM.start("-c", HOLD, tmp_path, "", stdin=-1, stdout=-1) as process:
        yield Path(process.stdout.readline().strip()), process


def test_folder_is_there_until_it_is_closed(tmp_path):
    held, beside = HeldFolder(tmp_path, "mine-"), HeldFolder(tmp_path, "mine-")
    (held.path / "a" / "b").mkdir(parents=True)
    held.close()
    held.close()
    assert not held.path.exists()
    assert beside.path.is_dir()
    assert beside.path.stat().st_mode & 0o77 == 0
    at = beside.path
    del beside
    assert not at.exists()
    assert not list(tmp_path.iterdir())


def test_folder_of_a_running_process_is_left_alone_and_that_of_a_killed_one_is_deleted(tmp_path, other):
    folder, process = other
    first = HeldFolder(tmp_path, "mine-")
    assert (folder / "file").exists()
    process.kill()
    process.wait()
    second = HeldFolder(tmp_path, "mine-")
    assert not folder.exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{held.path.name}{end}" for held in (first, second) for end in ("", ".lock")
    }


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="files without a name need /proc")
def test_file_of_a_process_has_no_name_that_a_kill_could_leave(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    file = HeldFile("model.onnx")
    file.path.write_bytes(b"x")
    assert not list(tmp_path.iterdir())
    with file.path.open("rb") as one, file.path.open("rb") as other:  # each reads from the start
        assert one.read() == other.read() == b"x"
    at = file.path
    del file
    assert not at.exists()


def test_file_has_a_name_in_a_folder_of_its_process_where_there_is_no_proc(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(held, "_OPEN_FILES", tmp_path / "none")
    file = HeldFile("model.onnx")
    file.path.write_bytes(b"x")
    assert file.path.name == "model.onnx"
    del file
    assert not list(tmp_path.iterdir())


def test_temporary_folder_is_there_until_the_end_of_its_block(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with temporary_folder() as folder:
        (folder / "file").write_bytes(b"x")
    assert not list(tmp_path.iterdir())


def test_forked_child_does_not_delete_its_parents_folder(tmp_path):
    held = HeldFolder(tmp_path, "mine-")
    if not (child := os.fork()):
        held.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert held.path.is_dir()


def test_only_real_folders_of_this_prefix_are_deleted_and_no_link_is_followed(tmp_path):
    outside, place = tmp_path / "outside", tmp_path / "place"
    outside.mkdir()
    (outside / "precious").write_text("x")
    left = place / "mine-left"
    left.mkdir(parents=True)
    (left / "link").symlink_to(outside)
    (left / "file").symlink_to(outside / "precious")
    (place / "mine-link").symlink_to(outside)
    (place / "mine-file").write_text("x")
    (place / "other").mkdir()
    HeldFolder(place, "mine-").close()
    assert {path.name for path in place.iterdir()} == {"mine-link", "mine-file", "other"}
    assert (outside / "precious").read_text() == "x"


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a folder away")
def test_folder_of_another_user_is_left_alone(tmp_path):
    theirs = tmp_path / "mine-theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    HeldFolder(tmp_path, "mine-").close()
    assert theirs.is_dir()


def test_lock_without_a_folder_is_deleted_once_it_is_old(tmp_path):
    for name in ("mine-old.lock", "mine-new.lock"):
        (tmp_path / name).touch()
    os.utime(tmp_path / "mine-old.lock", (0, 0))
    HeldFolder(tmp_path, "mine-").close()
    assert [path.name for path in tmp_path.iterdir()] == ["mine-new.lock"]


@only_here
def test_folder_on_a_drive_without_locks(tmp_path):
    for _ in range(2):  # the second one finds what the first, which is killed, has left
        with WARM.start("-c", HOLD, tmp_path, "ENOLCK", stdin=-1, stdout=-1) as process:
            folder = Path(process.stdout.readline().strip())
            assert (folder / "file").exists()
            assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
            process.kill()
