"""Pulling from the Hub: one commit, every byte verified, a clear message for every failure, and the next call works.

The client is a separate process; the Hub is a server on 127.0.0.1 that keeps commits on disk (`hub_server`).
"""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, contents, reseal, sealed
from hub_server import Fault

from retrieval.artifact.layout import LAYOUT

REPO = "me/pulled"


@pytest.fixture
def other(copied_run):
    """Another artifact: the same files except for its manifest, metrics and card."""
    (copied_run / LAYOUT.metrics).write_text("{}")
    (copied_run / LAYOUT.card).write_text("another")
    reseal(copied_run)
    return contents(copied_run)


def asked(hub):
    return [f"{request.method} {request.path}" for request in hub.requests]


def body_of(name):
    """A pattern for the request that downloads a file; large and binary files come from another host."""
    binary = name.endswith((".faiss", ".parquet", ".safetensors", ".png"))
    return rf"GET /cdn/.*{name}" if binary else rf"GET .*/resolve/.*{name}"


def seconds_slept(answer):
    return [int(found) for found in re.findall(r"Trying again in (\d+) s", answer.err)]


def state_of(hub, home, **settings):
    """The state of the repository as a process with that home folder sees it."""
    code = f"from retrieval.hub.pull import open_reference as o; print(o('{REPO}').state)"
    command, env = [sys.executable, "-c", code], {**hub.environment(home), **settings}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_pull_copies_every_file_from_one_commit(hub, client, first, tmp_path):
    files, commit = first
    answer = client.run("pull", REPO, "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    assert contents(tmp_path / "out") == files
    assert f"{REPO}, commit {commit[:7]}" in answer.out
    assert f"{REPO}@{commit[:7]}" in answer.err  # the progress bar
    assert asked(hub)[0] == f"HEAD /{REPO}/resolve/main/{LAYOUT.manifest}"
    assert all(commit in line or "/cdn/" in line for line in asked(hub)[1:])


def test_contents_of_an_artifact_on_the_hub_are_listed(hub, client, first):
    assert len(client.run("list", REPO).out.splitlines()) == 60
    assert client.run("info", REPO).out.startswith(f"{REPO}: 60 images, ")


def test_cached_artifact_needs_one_request_or_none_when_pinned(hub, client, first):
    _, commit = first
    assert client.run("verify", REPO).code == 0
    hub.clear()
    assert client.run("verify", REPO).code == 0
    assert [request.method for request in hub.requests] == ["HEAD"]
    hub.clear()
    assert client.run("verify", f"{REPO}@{commit}").code == 0
    assert hub.requests == []


def test_tags_and_short_commits_are_resolved(hub, client, first, tmp_path):
    files, commit = first
    hub.tag("model", REPO, "v1", commit)
    for revision in ("v1", commit[:10]):
        assert client.run("pull", f"{REPO}@{revision}", "--out", tmp_path / revision).code == 0
        assert contents(tmp_path / revision) == files


def test_push_during_a_pull_never_mixes_revisions(hub, client, trained, other, tmp_path):
    old, repo = contents(trained), "me/between"
    hub.commit("model", repo, old)
    hub.faults.append(Fault(LAYOUT.gallery, before=lambda: hub.commit("model", repo, other)))
    assert client.run("pull", repo, "--out", tmp_path / "old").code == 0
    assert contents(tmp_path / "old") == old
    assert client.run("pull", repo, "--out", tmp_path / "new").code == 0
    assert contents(tmp_path / "new") == other


@pytest.mark.parametrize("name", [LAYOUT.index, LAYOUT.config, LAYOUT.manifest])
def test_corrupted_file_is_detected_and_downloaded_again(hub, client, first, name, tmp_path):
    hub.faults.append(Fault(body_of(name), corrupt=True))
    assert client.run("pull", REPO, "--out", tmp_path / "out").code == 0
    assert contents(tmp_path / "out") == first[0]
    assert sum(bool(re.search(body_of(name), line)) for line in asked(hub)) == 2


def test_file_corrupted_twice_is_refused_by_name_and_not_kept(hub, client, first, tmp_path):
    hub.faults.append(Fault(body_of(LAYOUT.index), times=None, corrupt=True))
    answer = client.run("pull", REPO, "--out", tmp_path / "out")
    assert answer.code == 1
    assert f"{LAYOUT.index} of {REPO}@{first[1][:7]} is still wrong after a second download" in answer.err
    assert "SHA-256" in answer.err
    assert not (tmp_path / "out").exists()
    assert sum(bool(re.search(body_of(LAYOUT.index), line)) for line in asked(hub)) == 2
    hub.faults.clear()
    assert client.run("pull", REPO, "--out", tmp_path / "out").code == 0
    assert contents(tmp_path / "out") == first[0]


def test_corrupted_file_in_the_cache_is_replaced(hub, client, first):
    assert client.run("verify", REPO).code == 0
    snapshot = client.cache / "models--me--pulled" / "snapshots" / first[1]
    blob = (snapshot / LAYOUT.weights).resolve()
    blob.write_bytes(blob.read_bytes()[::-1])
    answer = client.run("verify", f"{REPO}@{first[1]}")
    assert answer.code == 0, answer.err
    assert (snapshot / LAYOUT.weights).read_bytes() == first[0][LAYOUT.weights]


# --- Error responses of the Hub ---


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (401, {"X-Error-Code": "RepoNotFound"}, ["not found on the Hub", "hf auth login"]),
        (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, ["token", "expired"]),
        (403, {"X-Error-Code": "GatedRepo"}, ["gated", "request access"]),
        (403, {}, ["forbidden", "403"]),
        (404, {"X-Error-Code": "RepoNotFound"}, ["not found on the Hub", "check the name"]),
        (404, {"X-Error-Code": "RevisionNotFound"}, ["no such revision", "a branch, a tag or a commit"]),
        (404, {"X-Error-Code": "EntryNotFound"}, ["not in the repository", LAYOUT.manifest]),
        (404, {}, ["not found on the Hub"]),
        (418, {}, ["refused (418)"]),
    ],
)
def test_refusal_is_reported_at_once_and_the_next_call_works(hub, client, first, status, headers, words):
    hub.faults.append(Fault("resolve/main", status=status, headers=headers))
    answer = client.run("verify", REPO, token="hf_write")
    assert answer.code == 1
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    assert all(word in answer.err for word in (*words, REPO)), answer.err
    assert len(hub.requests) == 1
    assert client.run("verify", REPO).code == 0


@pytest.mark.parametrize("where", ["HEAD .*resolve/main", body_of(LAYOUT.gallery)])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_server_errors_are_retried_a_limited_number_of_times(hub, client, first, status, where, tmp_path):
    hub.faults.append(Fault(where, times=None, status=status))
    answer = client.run("pull", REPO, "--out", tmp_path / "out")
    assert answer.code == 1
    assert seconds_slept(answer) == [1, 2]
    assert str(status) in answer.err.splitlines()[-1]
    assert "There is no complete copy" in answer.err
    assert not (tmp_path / "out").exists()
    hub.faults[:] = [Fault(where, status=status)]
    assert client.run("pull", REPO, "--out", tmp_path / "out").code == 0
    assert contents(tmp_path / "out") == first[0]


@pytest.mark.parametrize("headers", [{"Retry-After": "3"}, {"RateLimit": '"resolvers";r=0;t=3'}])
def test_client_waits_as_long_as_the_hub_asks(hub, client, first, headers):
    hub.faults.append(Fault("resolve/main", status=429, headers=headers))
    answer = client.run("verify", REPO)
    assert answer.code == 0
    assert seconds_slept(answer) == [3]


def test_wait_of_an_hour_is_an_error_instead(hub, client, first):
    hub.faults.append(Fault("resolve/main", status=429, headers={"Retry-After": "3600"}))
    answer = client.run("verify", REPO)
    assert answer.code == 1
    assert "asks to wait 3600 s" in answer.err
    assert len(hub.requests) == 1


def test_private_repository_needs_a_valid_token(hub, client, first, trained):
    hub.commit("model", "me/secret", contents(trained))
    hub.repo("model", "me/secret").private = True
    answer = client.run("verify", "me/secret")
    assert (answer.code, "hf auth login" in answer.err) == (1, True)
    assert client.run("verify", "me/secret", token="hf_read").code == 0
    answer = client.run("verify", "me/secret", token="hf_mistyped")
    assert answer.code == 1
    assert "hf_mistyped" not in answer.err


def test_malformed_token_is_refused_and_not_printed(client, first):
    answer = client.run("verify", REPO, token="hf_with-an-ellipsis…")
    assert answer.code == 1
    assert "fix HF_TOKEN" in answer.err
    assert "ellipsis" not in answer.err


# --- Interrupted downloads ---


def test_interrupted_download_resumes_where_it_stopped(hub, client, first, tmp_path):
    size = len(first[0][LAYOUT.weights])
    hub.faults.append(Fault(r"GET /cdn/.*safetensors", cut=size // 2))
    assert client.run("pull", REPO, "--out", tmp_path / "out").code == 0
    assert contents(tmp_path / "out") == first[0]
    ranges = [r.range for r in hub.requests if r.path.startswith("/cdn/") and "safetensors" in r.path]
    assert ranges[0] is None
    assert 0 < int(re.fullmatch(r"bytes=(\d+)-", ranges[1])[1]) <= size // 2


@pytest.mark.parametrize("fault", [{"cut": 100}, {"short": 100}])
def test_file_that_is_cut_off_repeatedly_is_named_in_the_error(hub, client, first, fault, tmp_path):
    hub.faults.append(Fault(body_of(LAYOUT.gallery), times=None, **fault))
    answer = client.run("pull", REPO, "--out", tmp_path / "out")
    assert answer.code == 1
    assert LAYOUT.gallery in answer.err.splitlines()[-1]
    assert len(seconds_slept(answer)) <= 4
    assert not (tmp_path / "out").exists()
    hub.faults.clear()
    assert client.run("pull", REPO, "--out", tmp_path / "out").code == 0
    assert contents(tmp_path / "out") == first[0]


def test_truncated_response_is_not_taken_for_the_whole_file(hub, client, first, tmp_path):
    hub.faults.append(Fault(body_of(LAYOUT.config), short=50))
    assert client.run("pull", REPO, "--out", tmp_path / "out").code == 0
    assert contents(tmp_path / "out") == first[0]


def test_download_of_a_killed_process_is_resumed_by_the_next(hub, client, tmp_path):
    repo, big = "me/big", os.urandom(24 << 20)
    commit = hub.commit("model", repo, {"model.safetensors": big})
    code = f"from retrieval.hub.download import fetch; fetch({repo!r}, {commit!r}, 'model.safetensors')"
    hub.faults.append(Fault(r"GET /cdn/.*safetensors", cut=16 << 20))
    hub.faults.append(Fault(r"HEAD .*safetensors"))  # the first request passes,
    hub.faults.append(Fault(r"HEAD .*safetensors", delay=60))  # the second is delayed until the kill
    blobs = client.cache / "models--me--big" / "blobs"
    with client.start("-c", code) as killed:
        while not hub.faults[2].used:
            assert killed.poll() is None
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
    [part] = blobs.glob("*.part")
    have = part.stat().st_size
    hub.faults.clear()
    hub.clear()
    client.python("-c", code, check=True)
    whole = client.cache / "models--me--big" / "snapshots" / commit / "model.safetensors"
    assert whole.read_bytes() == big
    began = [int(r.range.removeprefix("bytes=").rstrip("-")) for r in hub.requests if "/cdn/" in r.path]
    assert began == [have]
    assert 0 < have <= 16 << 20
    assert not part.exists()


# --- Offline ---


def test_complete_cached_copy_works_offline_and_says_so(hub, client, first, tmp_path):
    assert client.run("verify", REPO).code == 0
    hub.stop()
    try:
        answer = client.run("pull", REPO, "--out", tmp_path / "out")
        assert answer.code == 0, answer.err
        assert f"offline, commit {first[1][:7]}" in answer.out
        assert f"Using the copy in the cache: offline, commit {first[1][:7]}" in answer.err
        assert contents(tmp_path / "out") == first[0]
        answer = client.run("verify", "me/unseen")
        assert answer.code == 1
        assert all(word in answer.err for word in ("cannot be reached", "me/unseen", "check the network"))
        blob = client.cache / "models--me--pulled" / "snapshots" / first[1] / LAYOUT.index
        blob.resolve().write_bytes(b"spoiled")
        answer = client.run("verify", REPO)
        assert answer.code == 1
        assert "There is no complete copy" in answer.err
    finally:
        hub.start()
    assert client.run("verify", REPO).code == 0


def test_failed_update_falls_back_to_the_cached_copy(hub, client, trained, other, tmp_path):
    repo = "me/updated"
    old = hub.commit("model", repo, contents(trained))
    assert client.run("verify", repo).code == 0
    hub.commit("model", repo, other)
    hub.faults.append(Fault(body_of(LAYOUT.metrics), times=None, status=503))
    answer = client.run("pull", repo, "--out", tmp_path / "old")
    assert answer.code == 0, answer.err
    assert f"offline, commit {old[:7]}" in answer.out
    assert contents(tmp_path / "old") == contents(trained)
    hub.faults.clear()
    assert client.run("pull", repo, "--out", tmp_path / "new").code == 0
    assert contents(tmp_path / "new") == other


def test_hf_hub_offline_makes_no_requests(hub, client, first):
    assert client.run("verify", REPO).code == 0
    hub.clear()
    run = state_of(hub, client.home, HF_HUB_OFFLINE="1")
    assert run.stdout.strip() == f"offline, commit {first[1][:7]}"
    assert "HF_HUB_OFFLINE is set" in run.stderr
    assert hub.requests == []


# --- No room for the cache ---


def test_no_room_error_names_the_cache_and_leaves_no_partial_file(hub, client, first):
    answer = client.run("verify", REPO, setting={"RLIMIT_FSIZE": 60_000})  # in bytes: no file may grow larger
    assert answer.code == 1
    assert "no space for" in answer.err
    assert str(client.cache) in answer.err
    assert "HF_HOME" in answer.err
    assert not list(client.cache.rglob("*.part"))
    assert client.run("verify", REPO).code == 0


@pytest.fixture
def disk(client):
    """The client's home as a disk of 3 MB; skips the test if none can be mounted."""
    disk = client.home
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", disk]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


_OPEN_AND_TELL = """
import sys
from retrieval.errors import LookalikeError
from retrieval.hub.pull import open_reference
for line in sys.stdin:
    try:
        print(open_reference(line.strip()).state, flush=True)
    except LookalikeError as error:
        print(error, flush=True)
"""


def test_full_disk_is_reported_and_read_only_cache_still_serves(hub, client, first, disk):
    with client.start("-c", _OPEN_AND_TELL, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:

        def state():
            process.stdin.write(f"{REPO}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        fill_and_lock(disk, state, first[1])
        process.stdin.close()


def fill_and_lock(disk, state, commit):
    (disk / "full").write_bytes(bytes(2_800_000))
    answer = state()
    assert "no space for" in answer
    assert "MB free" in answer
    (disk / "full").unlink()
    remount = ["mount", "-o", "remount,ro", disk]
    subprocess.run(remount, check=True)
    answer = state()
    assert "HF_HOME" in answer
    assert "Read-only" in answer
    subprocess.run([*remount[:2], "remount,rw", disk], check=True)
    assert state() == f"commit {commit[:7]}"
    subprocess.run(remount, check=True)
    assert state() == f"commit {commit[:7]}"


def test_cache_path_that_is_a_file_is_reported(hub, client, first):
    client.cache.write_text("a file where a folder should be")
    answer = client.run("verify", REPO)
    assert answer.code == 1
    assert "HF_HOME" in answer.err
    client.cache.unlink()
    assert client.run("verify", REPO).code == 0


# --- What must be refused ---


def test_manifest_naming_files_outside_is_refused_before_download(hub, client, copied_run):
    manifest = json.loads((copied_run / LAYOUT.manifest).read_bytes())
    files = {**manifest["files"], "../../../evil": {"size": 1, "sha256": "0" * 64}}
    evil = {**contents(copied_run), LAYOUT.manifest: sealed({**manifest, "files": files})}
    hub.commit("model", "me/evil", evil)
    answer = client.run("verify", "me/evil")
    assert answer.code == 1
    assert "manifest" in answer.err
    assert all(LAYOUT.manifest in line for line in asked(hub))


def test_repository_without_a_manifest_is_an_error(hub, client):
    hub.commit("model", "me/model", {"README.md": b"a model"})
    answer = client.run("verify", "me/model")
    assert answer.code == 1
    assert f"{LAYOUT.manifest} of me/model@main is not in the repository" in answer.err


@pytest.mark.parametrize(
    "name", ["shirts", "me/shirts/more", "me/../shirts", "@v1", "me/shirts@", "me/shirts@/etc/passwd", "https://x/y"]
)
def test_invalid_repository_name_is_refused_without_a_request(hub, client, name, tmp_path):
    answer = client.run("pull", name, "--out", tmp_path / "out")
    assert answer.code == 1
    assert "owner/name" in answer.err
    assert hub.requests == []


def test_pull_does_not_overwrite_a_folder_with_other_files(hub, client, first, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    answer = client.run("pull", REPO, "--out", tmp_path)
    assert answer.code == 1
    assert hub.requests == []
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_token_is_sent_only_to_the_hub_and_never_printed(hub, client, first):
    assert client.run("verify", REPO, token="hf_write").code == 0
    assert {r.authorization for r in hub.requests if "/cdn/" not in r.path} == {"Bearer hf_write"}
    assert {r.authorization for r in hub.requests if "/cdn/" in r.path} == {None}
    assert not [text for text in client.said if "hf_" in text.replace("hf auth", "")]


def test_pinned_artifact_is_pulled_only_with_its_own_hash(hub, client, first, tmp_path):
    files, _ = first
    stated = json.loads(files[LAYOUT.manifest])["manifest_sha256"]
    wrong = "f" * 64
    answer = client.run("pull", REPO, "--out", tmp_path / "out", "--sha256", wrong)
    assert answer.code == 1
    assert wrong in answer.err and stated in answer.err
    assert not (tmp_path / "out").exists()
    fetched = [line for line in asked(hub) if line.startswith("GET")]
    assert [line for line in fetched if not line.endswith(LAYOUT.manifest)] == [], "nothing else is downloaded"
    assert client.run("pull", REPO, "--out", tmp_path / "out", "--sha256", stated).code == 0
    assert contents(tmp_path / "out") == files
