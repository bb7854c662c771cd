"""The local cache of the Hub: shared with other clients and processes, and always verified before use."""

import json
import os
import re
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from conftest import WARM, contents, sealed
from hub_server import Fault

from retrieval.artifact.layout import LAYOUT
from retrieval.errors import HubError
from retrieval.hub.cache import RepoCache

REPO = "me/cached"


@pytest.fixture
def cache(tmp_path):
    """An empty cache for the repository `me/it`."""
    return RepoCache(tmp_path / "hub", "me/it")


@pytest.mark.parametrize("commit", ["../../../../outside", "main", None])
def test_invalid_commit_header_is_refused_and_creates_no_folder(hub, client, first, commit):
    hub.faults.append(Fault("HEAD .*resolve/main", headers={"X-Repo-Commit": commit}))
    answer = client.run("verify", REPO)
    assert answer.code == 1
    assert "it is not a Hub" in answer.err
    assert not client.cache.exists()


def test_server_without_etags_is_refused(hub, client, first):
    gone = {"ETag": None, "X-Linked-Etag": None}
    hub.faults.append(Fault("HEAD .*index.faiss", times=None, headers=gone))
    answer = client.run("verify", REPO)
    assert answer.code == 1
    assert "no ETag" in answer.err


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("files"),
        lambda manifest: manifest["files"][LAYOUT.index].pop("size"),
        lambda manifest: manifest["files"][LAYOUT.index].update(size="many"),
        lambda manifest: manifest["files"].update({LAYOUT.index: None}),
        lambda manifest: manifest.update(files=[LAYOUT.index]),
    ],
    ids=["no files", "no size", "size is text", "entry is null", "files as a list"],
)
def test_malformed_manifest_is_refused_with_a_message(hub, client, trained, change):
    files = contents(trained)
    manifest = json.loads(files[LAYOUT.manifest])
    change(manifest)
    hub.commit("model", "me/shapes", {**files, LAYOUT.manifest: sealed(manifest)})
    answer = client.run("verify", "me/shapes")
    assert answer.code == 1
    assert LAYOUT.manifest in answer.err
    assert "Traceback" not in answer.err


def test_retry_after_given_as_a_date_is_understood(hub, client, first):
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    hub.faults.append(Fault("resolve/main", status=429, headers={"Retry-After": later}))
    answer = client.run("verify", REPO)
    assert answer.code == 1
    assert re.search(r"asks to wait 3[56]\d\d s", answer.err)
    assert len(hub.requests) == 1


def test_verified_copy_works_offline_after_other_clients_moved_main(hub, client, trained, tmp_path):
    """`timm` downloads a file of a newer commit only, which moves `main` in the shared cache."""
    old = hub.commit("model", "me/moved", contents(trained))
    assert client.run("verify", "me/moved").code == 0
    hub.commit("model", "me/moved", {"notes.md": b"a newer commit"})
    code = "from huggingface_hub import hf_hub_download as get; get('me/moved', 'config.json')"
    client.python("-c", code, check=True)
    hub.stop()
    try:
        answer = client.run("pull", "me/moved", "--out", tmp_path / "out")
    finally:
        hub.start()
    assert answer.code == 0, answer.err
    assert f"offline, commit {old[:7]}" in answer.out


def test_files_downloaded_by_other_clients_are_reused(hub, client, first, tmp_path):
    hub.commit("model", "me/others", {**first[0], "notes.txt": b"theirs"})
    code = "from huggingface_hub import snapshot_download as get; get('me/others')"
    client.python("-c", code, check=True)
    hub.clear()
    assert client.run("pull", "me/others", "--out", tmp_path / "out").code == 0
    assert [request.method for request in hub.requests] == ["HEAD"]
    assert contents(tmp_path / "out") == first[0]


def test_two_processes_at_once_download_each_file_once(hub, client, first):
    hub.faults.append(Fault("GET /cdn/", times=None, delay=0.5))
    both = [client.start("-m", "retrieval", "verify", f"{REPO}@{first[1]}") for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    fetched = [request.path for request in hub.requests if request.path.startswith("/cdn/")]
    assert len(fetched) == len({path.partition("?")[0] for path in fetched})


def until(stream, words):
    """The output of a process up to the first line that contains these words."""
    said = ""
    for line in stream:
        said += line
        if words in line:
            break
    return said


@pytest.mark.parametrize("command", [["-m", "retrieval", "verify"], ["app.py", "--port", "0", "--artifact"]])
def test_ctrl_c_stops_a_download_at_once_and_the_next_call_works(hub, client, first, command):
    hub.faults.append(Fault("GET /cdn/.*gallery", status=503, times=None, headers={"Retry-After": "55"}))
    with client.start(*command, REPO, stderr=subprocess.PIPE) as process:
        assert "Trying again in 55 s" in until(process.stderr, "Trying again")
        process.send_signal(signal.SIGINT)
        process.wait(50)  # sooner than the Hub asked to wait
        err = process.stderr.read()
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    hub.faults.clear()
    assert client.run("verify", REPO).code == 0


# --- The cache itself ---


def put(cache, etag, commit, name, data):
    with cache.locked(etag):
        cache.blob(etag).write_bytes(data)
        cache.link(etag, commit, name)


def test_wrong_file_can_be_replaced_without_symbolic_links(cache, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no links here")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    put(cache, "e1", "c1", "plots/a.png", b"wrong")
    cache.discard("c1", "plots/a.png")
    assert not cache.blob("e1").exists()
    put(cache, "e1", "c1", "plots/a.png", b"right")
    assert (cache.snapshot("c1") / "plots" / "a.png").read_bytes() == b"right"


def test_downloads_still_running_in_another_process_are_kept(cache):
    for etag in ("mine", "theirs"):
        with cache.locked(etag):
            cache.part(etag).write_bytes(b"a beginning")
    code = (
        "import sys, pathlib; from retrieval.hub.cache import RepoCache\n"
        "with RepoCache(pathlib.Path(sys.argv[1]), 'me/it').locked('theirs'):\n    print(flush=True); input()"
    )
    with WARM.start("-c", code, cache.place, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        cache.discard_parts()
        other.stdin.close()
    assert not cache.part("mine").exists()
    assert cache.part("theirs").exists()


def test_wrong_file_that_cannot_be_deleted_is_reported(cache, monkeypatch):
    put(cache, "e1", "c1", "index.faiss", b"wrong")

    def refuse(*_, **__):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    with pytest.raises(HubError, match=r"index.faiss, which is damaged there.*Read-only.*HF_HOME"):
        cache.discard("c1", "index.faiss")


def test_cache_remembers_the_commits_of_each_revision(cache):
    assert cache.remembered("main") == []
    cache.remember("main", "a" * 40)
    cache.remember("refs/pr/1", "b" * 40)
    cache.remember("main", "c" * 40)
    assert cache.remembered("main") == ["c" * 40]
    assert cache.remembered("refs/pr/1") == ["b" * 40]
    (cache.folder / "refs" / "main").write_text("d" * 40)
    assert cache.remembered("main") == ["c" * 40, "d" * 40]
