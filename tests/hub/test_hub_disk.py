"""Push and pull on a disk that fails at some moment: one sentence, the old artifact, and nothing half-written is used.

`LOOKALIKE_MOMENTS` is the number of moments that are tried per command and error (0: all); by default each error once.
"""

import os
import shutil
from pathlib import Path

from conftest import contents
from moments import run
from refusing import only_here

from retrieval.artifact.load import load_artifact

MOMENTS = int(os.environ["LOOKALIKE_MOMENTS"]) if "LOOKALIKE_MOMENTS" in os.environ else None
DATA = ["write", "writev", "pwrite64", "pwritev", "fallocate", "sendfile", "copy_file_range"]
NAMES = ["openat", "mkdir", "rename", "renameat2", "link", "linkat", "unlink", "unlinkat", "symlink", "symlinkat"]
FAULTS = {"ENOSPC": [*DATA, "openat", "mkdir"], "EIO": [*DATA, "fsync"], "EROFS": [*DATA, *NAMES, "rmdir"]}
SAID = {"ENOSPC": "No space left on device", "EIO": "Input/output error", "EROFS": "Read-only file system"}
TOKEN = "hf_write"


def moments(count):
    """Pairs of an error and the number of a change: by default each error once, spread over all changes."""
    if MOMENTS is None:
        return [(error, 1 + count * number // len(FAULTS)) for number, error in enumerate(FAULTS)]
    numbers = sorted({1 + count * number // (MOMENTS or count) for number in range(MOMENTS or count)})
    return [(error, number) for error in FAULTS for number in numbers]


def check(error, moment, status, err):
    """One sentence, with the reason, a place and what helps."""
    where = f"{error} at change {moment}: {err}"
    assert status == 1, where
    assert "Traceback" not in err, where
    said = err.strip().splitlines()[-1]
    assert said.startswith("error: "), where
    assert SAID[error] in said, where
    assert "/" in said, where
    assert any(helps in said for helps in ("set HF_HOME to", "choose", "make its folder writable")), where


@only_here
def test_pull_on_a_failing_disk_keeps_the_old_artifact_and_a_later_one_is_whole(
    hub, client, trained, artifact, tmp_path
):
    hub.commit("model", "me/pulled", contents(trained))
    old = contents(artifact)

    def pull(number, error="KILL", moment=0):
        at = tmp_path / f"at-{number}"
        shutil.copytree(artifact, at / "it")
        home = {"HF_HOME": str(tmp_path / f"home-{number}"), "HF_HUB_CACHE": str(tmp_path / f"home-{number}" / "hub")}
        words = ["pull", "me/pulled", "--out", at / "it"]
        return at, home, *run(client.start, words, error, moment, FAULTS.get(error, ()), settings=home)

    at, _, status, out, err = pull("whole")
    assert status == 0, err
    failed = 0
    for number, (error, moment) in enumerate(moments(int(out.split()[-2]))):
        at, home, status, _, err = pull(number, error, moment)
        if status == 0:  # nothing was written any more
            assert contents(at / "it") == contents(trained)
            continue
        failed += 1
        check(error, moment, status, err)
        assert contents(at / "it") == old
        load_artifact(at / "it")
        again = client.python("-m", "retrieval", "pull", "me/pulled", "--out", at / "it", settings=home)
        assert again.returncode == 0, again.stderr
        assert contents(at / "it") == contents(trained)
        shutil.rmtree(at)
    assert failed


@only_here
def test_push_on_a_failing_disk_changes_neither_side(hub, client, copied_run, tmp_path):
    assert client.run("push", copied_run, "me/disk", token=TOKEN).code == 0
    before = hub.files("model", "me/disk")
    changed = Path(shutil.copytree(copied_run, tmp_path / "changed"))
    assert client.run("remove", changed, load_artifact(changed).gallery.ids[0]).code == 0

    def push(number, error="KILL", moment=0):
        repo, at = f"me/disk-{number}", Path(shutil.copytree(changed, tmp_path / f"at-{number}"))
        hub.commit("model", repo, before)
        return repo, at, *run(client.start, ["push", at, repo], error, moment, FAULTS.get(error, ()), token=TOKEN)

    _, _, status, out, err = push("whole")
    assert status == 0, err
    failed = 0
    for number, (error, moment) in enumerate(moments(int(out.split()[-2]))):
        repo, at, status, _, err = push(number, error, moment)
        load_artifact(at)
        found = hub.files("model", repo)
        if status == 0:  # nothing was written any more
            assert {name: found[name] for name in contents(at)} == contents(at)
            continue
        failed += 1
        check(error, moment, status, err)
        assert found == before
    assert failed
