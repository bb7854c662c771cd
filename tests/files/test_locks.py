"""One process at a time writes an artifact, also on a drive without file locks; who waits is told for whom."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from conftest import BACKBONE, WARM, png, python, write_data_set
from refusing import only_here

from retrieval.artifact.atomic import writing
from retrieval.artifact.load import load_artifact
from retrieval.errors import ArtifactError

WITHOUT = ["ENOLCK", "EOPNOTSUPP", "ENOSYS", "EINVAL", "EPERM"]
PATHS = f"import sys; sys.path[:0] = {sys.path!r}\n"

HOLD = """
import os
from pathlib import Path
from refusing import refuse
if sys.argv[2] != "working":
    refuse(sys.argv[2], "flock")
from retrieval.artifact.atomic import writing
with writing(Path(sys.argv[1]), []):
    print(*sorted(os.listdir(Path(sys.argv[1]).parent)), flush=True)
    sys.stdin.read()
"""

MODEL = ["--backbone", BACKBONE, "--no-pretrained"]
COMMAND = """
from refusing import refuse
refuse(sys.argv[1], "flock")
from retrieval.__main__ import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def hold(tmp_path):
    """Start a process that writes the folder `x`, on a drive whose locks fail with this error; returns it."""
    started = []

    def start(error):
        code = WARM.start(
            *("-c", PATHS + HOLD, tmp_path / "x", error),
            **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE),
        )
        started.append(code)
        return code

    yield start
    for process in started:
        process.kill()
        process.wait()


def beside(folder):
    return sorted(path.name for path in folder.iterdir())


@only_here
@pytest.mark.parametrize("error", WITHOUT)
def test_one_process_writes_at_a_time_on_a_drive_without_locks(error, hold, tmp_path):
    first = hold(error)
    assert first.stdout.readline() == ".x.lock.held\n"
    second = hold(error)
    assert second.wait() == 1
    said = second.stderr.read().strip().splitlines()[-1]
    assert f"another process is writing {tmp_path / 'x'}; wait until it has finished (process {first.pid} on " in said
    assert f"delete {tmp_path / '.x.lock.held'}" in said
    first.stdin.close()
    assert first.wait() == 0
    assert f"{tmp_path} has no file locks" in first.stderr.read()
    assert beside(tmp_path) == []


@only_here
@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS"])
def test_lock_of_a_killed_process_does_not_stay_on_a_drive_without_locks(error, hold, tmp_path):
    (tmp_path / ".x.lock").touch()  # from a time when locks worked
    first = hold(error)
    assert first.stdout.readline() == ".x.lock .x.lock.held\n"
    first.kill()
    assert first.wait() == -signal.SIGKILL
    second = hold(error)
    assert second.stdout.readline() == ".x.lock .x.lock.held\n"
    second.stdin.close()
    assert second.wait() == 0
    assert beside(tmp_path) == [".x.lock"]


@only_here
def test_writer_on_another_computer_is_named(hold, tmp_path):
    (tmp_path / ".x.lock.held").write_text("4711\nfar-away\n")
    late = hold("ENOLCK")
    assert late.wait() == 1
    said = r"\(process 4711 on far-away, for \d+ s\); if that process has ended, delete "
    assert re.search(said, late.stderr.read())
    assert beside(tmp_path) == [".x.lock.held"]


def test_refused_writer_is_told_which_process_writes(hold, tmp_path):
    first = hold("working")
    assert first.stdout.readline() == ".x.lock\n"
    with pytest.raises(ArtifactError) as refused, writing(tmp_path / "x", []):
        pass
    holder = f"(process {first.pid} on {socket.gethostname()}, for "
    assert f"another process is writing {tmp_path / 'x'}; wait until it has finished {holder}" in str(refused.value)
    first.stdin.close()
    assert first.wait() == 0
    with writing(tmp_path / "x", []):
        assert (tmp_path / ".x.lock").read_text().startswith(f"{os.getpid()}\n")
    assert (tmp_path / ".x.lock").read_text() == ""


def test_holder_that_wrote_no_name_is_not_named(tmp_path):
    """The Hub's other clients lock the same files, and a killed process leaves its name in one."""
    from filelock import FileLock

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / ".x.lock").write_text(f"{gone.pid}\n{socket.gethostname()}\n")
    with FileLock(tmp_path / ".x.lock"), pytest.raises(ArtifactError) as refused, writing(tmp_path / "x", []):
        pass
    assert str(refused.value) == f"another process is writing {tmp_path / 'x'}; wait until it has finished."


WAIT = """
import pathlib
from refusing import refuse
if sys.argv[2] != "working":
    refuse(sys.argv[2], "flock")
from retrieval.hub.cache import RepoCache
with RepoCache(pathlib.Path(sys.argv[1]), "me/it").locked("an-etag"):
    print("held", flush=True)
    sys.stdin.read()
"""


@only_here
@pytest.mark.parametrize("error", ["working", "EOPNOTSUPP"])
def test_download_that_waits_for_another_says_for_whom(error, tmp_path):
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with WARM.start("-c", PATHS + WAIT, tmp_path, error, **streams) as first:
        assert first.stdout.readline() == "held\n"
        with WARM.start("-c", PATHS + WAIT, tmp_path, error, **streams) as second:
            said = second.stderr.readline()
            assert said.startswith("another process is downloading the same file into ")
            assert f"(process {first.pid} on {socket.gethostname()}, for " in said
            assert said.endswith(": waiting\n")
            first.stdin.close()
            assert second.stdout.readline() == "held\n"
            second.stdin.close()
            assert second.wait() == 0


@only_here
@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS"])
def test_folder_of_images_is_built_on_a_drive_without_locks(error, pictures, tmp_path):
    done = python("-c", PATHS + COMMAND, error, "build", pictures, "--out", tmp_path / "it", "--limit", "4", *MODEL)
    assert done.returncode == 0, done.stderr
    assert len(load_artifact(tmp_path / "it").gallery) == 4
    assert beside(tmp_path) == ["it"]


@only_here
@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS"])
def test_cache_of_datasets_without_locks_is_an_error_that_names_it(error, tmp_path):
    """`datasets` waits for ever if a lock file from better times remains there."""
    data = write_data_set(tmp_path / "set", train=[(png(1), "a"), (png(2), "b")])
    (tmp_path / "home").mkdir()
    code = PATHS + f"import datasets; datasets.config.HF_DATASETS_CACHE = {str(tmp_path / 'home')!r}\n" + COMMAND
    done = python("-c", code, error, "build", data, "--out", tmp_path / "it", *MODEL)
    assert done.returncode == 1
    said = f"error: {tmp_path / 'home'} has no file locks ({os.strerror(getattr(errno, error))}): "
    assert done.stderr.endswith(f"{said}set HF_HOME to a folder on a local disk.\n")
    assert beside(tmp_path) == ["home", "set"]


@only_here
def test_cache_of_the_hub_without_locks_is_an_error_that_names_it(pictures, tmp_path):
    cache = tmp_path / "home"
    code = PATHS + f"from huggingface_hub import constants; constants.HF_HUB_CACHE = {str(cache)!r}\n" + COMMAND
    done = python("-c", code, "ENOSYS", "build", pictures, "--out", tmp_path / "it", "--backbone", BACKBONE)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"error: {cache} has no file locks (Function not implemented): set HF_HOME to a ")
