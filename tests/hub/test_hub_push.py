"""Pushing to the Hub: a verified artifact, in one commit on top of the expected head, and only its own files."""

import json
import re
import signal
import time

import pytest
from conftest import contents
from hub_server import Fault

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact
from retrieval.artifact.manifest import read_manifest
from retrieval.build.change import remove_images
from retrieval.images.stored import files

TOKEN = "hf_write"


@pytest.fixture
def repo(request):
    """A repository name that only this test uses."""
    return f"me/{re.sub('[^a-z0-9]+', '-', request.node.name.lower())[-60:].strip('-')}"


def methods(hub):
    return [f"{request.method} {request.path.partition('?')[0]}" for request in hub.requests]


def writes(hub):
    """The requests that upload a file or make a commit."""
    return [line for line in methods(hub) if line.startswith("PUT") or "/commit/" in line]


def test_push_copies_the_folder_in_one_commit(hub, client, copied_run, repo):
    answer = client.run("push", copied_run, repo, "--message", "spring", token=TOKEN)
    assert answer.code == 0, answer.err
    on_hub = hub.files("model", repo)
    assert on_hub.pop(".gitattributes")
    assert on_hub == contents(copied_run)
    assert [commit.message for commit in hub.repo("model", repo).commits] == ["initial commit", "spring"]
    assert hub.head("model", repo) in answer.out
    assert f"{hub.url}/{repo}" in answer.out
    assert sum("/commit/" in line for line in writes(hub)) == 1


def test_second_push_uploads_only_changed_files(hub, client, copied_run, repo):
    assert client.run("push", copied_run, repo, token=TOKEN).code == 0
    hub.clear()
    answer = client.run("push", copied_run, repo, token=TOKEN)
    assert answer.code == 0
    assert "already has the same files" in answer.out
    assert writes(hub) == []
    gone = load_artifact(copied_run).gallery.ids[1]  # no other test uploads these files to this Hub
    assert client.run("remove", copied_run, gone).code == 0
    hub.clear()
    assert client.run("push", copied_run, repo, token=TOKEN).code == 0
    assert len([line for line in writes(hub) if line.startswith("PUT")]) == 2  # gallery and index, not the weights
    on_hub = hub.files("model", repo)
    assert {name: on_hub[name] for name in contents(copied_run)} == contents(copied_run)
    assert read_manifest(copied_run)["repository"] == repo


def test_shards_are_pushed_and_pulled_and_old_ones_deleted_in_the_same_commit(
    hub, client, copied_artifact, repo, monkeypatch, tmp_path
):
    monkeypatch.setattr(files, "ROWS_A_GROUP", 16)
    monkeypatch.setattr(files, "SHARD_BYTES", 1)
    ids = load_artifact(copied_artifact).gallery.ids
    for left in (59, 33, 9):
        remove_images(copied_artifact, ids[left : len(load_artifact(copied_artifact).gallery)])
        before = len(hub.repo("model", repo).commits) if left < 59 else 1
        assert client.run("push", copied_artifact, repo, token=TOKEN).code == 0
        assert len(hub.repo("model", repo).commits) == before + 1
        there = {name: content for name, content in hub.files("model", repo).items() if name != ".gitattributes"}
        assert there == contents(copied_artifact)
        assert len(LAYOUT.gallery_in(copied_artifact)) == -(-left // 16)
        assert client.run("pull", repo, "--out", tmp_path / "out").code == 0
        assert contents(tmp_path / "out") == there


def test_push_sends_only_artifact_files_and_keeps_other_files(hub, client, trained, copied_artifact, repo):
    hub.commit("model", repo, {**contents(trained), "notes.md": b"theirs", "plots/theirs.png": b"a picture"})
    (copied_artifact / "secret.env").write_text("mine")
    assert client.run("push", copied_artifact, repo, token=TOKEN).code == 0
    on_hub = hub.files("model", repo)
    own = {*LAYOUT.names(), LAYOUT.exported, *LAYOUT.plots_in(copied_artifact)}
    assert on_hub.keys() == {".gitattributes", "notes.md", "plots/theirs.png", *own}
    assert client.run("verify", repo).code == 0


def test_push_does_not_overwrite_a_repository_without_an_artifact(hub, client, copied_artifact, repo):
    hub.commit("model", repo, {"config.json": b"{}", "README.md": b"a model of theirs"})
    answer = client.run("push", copied_artifact, repo, token=TOKEN)
    assert answer.code == 1
    assert "contains config.json but no artifact" in answer.err
    assert writes(hub) == []
    assert "repository" not in read_manifest(copied_artifact)


def test_push_from_the_cache_is_refused_and_leaves_it_unchanged(hub, client, trained, repo):
    commit = hub.commit("model", repo, contents(trained))
    assert client.run("verify", repo).code == 0
    snapshot = client.cache / f"models--{repo.replace('/', '--')}" / "snapshots" / commit
    answer = client.run("push", snapshot, f"{repo}-copy", token=TOKEN)
    assert answer.code == 1
    assert "with `pull`" in answer.err
    assert contents(snapshot) == contents(trained)


@pytest.mark.parametrize("where", ["whoami", "repos/create", "/commit/"])
def test_push_waits_when_the_hub_asks_it_to(hub, client, copied_artifact, repo, where):
    hub.faults.append(Fault(where, status=429, headers={"Retry-After": "1"}))
    answer = client.run("push", copied_artifact, repo, token=TOKEN)
    assert answer.code == 0, answer.err
    assert "Trying again in 1 s" in answer.err


def test_push_does_not_overwrite_a_concurrent_push(hub, client, copied_run, repo):
    hub.commit("model", repo, {"README.md": b"hello"})
    hub.faults.append(Fault("POST .*/commit/", before=lambda: hub.commit("model", repo, {"README.md": b"theirs"})))
    answer = client.run("push", copied_run, repo, token=TOKEN)
    assert answer.code == 1
    assert "by somebody else in the meantime" in answer.err
    assert hub.files("model", repo)["README.md"] == b"theirs"
    assert LAYOUT.manifest not in hub.files("model", repo)
    assert client.run("push", copied_run, repo, token=TOKEN).code == 0
    assert client.run("verify", repo).code == 0


@pytest.mark.parametrize("during", ["PUT", "POST .*/commit/"])
def test_killed_push_leaves_the_repository_unchanged(hub, client, copied_run, repo, during, tmp_path):
    before = hub.commit("model", repo, {"README.md": b"as it was"})
    gone = load_artifact(copied_run).gallery.ids[len(during)]
    assert client.run("remove", copied_run, gone).code == 0  # so there is something new to upload
    fault = Fault(during, times=None, delay=60)
    hub.faults.append(fault)
    with client.start("-m", "retrieval", "push", copied_run, repo, token=TOKEN) as killed:
        while not fault.used:
            assert killed.poll() is None
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
    assert hub.head("model", repo) == before
    hub.faults.clear()
    load_artifact(copied_run)
    assert client.run("push", copied_run, repo, token=TOKEN).code == 0
    assert client.run("verify", repo).code == 0


def test_private_push_needs_a_new_or_private_repository(hub, client, copied_run, repo):
    assert client.run("push", copied_run, repo, "--private", token=TOKEN).code == 0
    assert hub.repo("model", repo).private
    assert client.run("push", copied_run, repo, "--private", token=TOKEN).code == 0
    public = f"{repo}-public"
    hub.commit("model", public, {"README.md": b"public"})
    hub.clear()
    answer = client.run("push", copied_run, public, "--private", token=TOKEN)
    assert answer.code == 1
    assert "public" in answer.err
    assert writes(hub) == []


@pytest.mark.parametrize(
    ("token", "words"),
    [(None, ["hf auth login", "HF_TOKEN"]), ("hf_read", ["can only read"]), ("hf_bad", ["token", "hf auth login"])],
)
def test_push_without_write_access_fails_before_any_change(hub, client, copied_run, repo, token, words):
    before = contents(copied_run)
    answer = client.run("push", copied_run, repo, token=token)
    assert answer.code == 1
    assert all(word in answer.err for word in words), answer.err
    assert token is None or token not in answer.err
    assert len(hub.requests) <= 1
    assert contents(copied_run) == before


def test_push_to_a_foreign_namespace_is_refused(hub, client, copied_run):
    answer = client.run("push", copied_run, "strangers/shirts", token=TOKEN)
    assert answer.code == 1
    assert "strangers/shirts" in answer.err
    assert writes(hub) == []


def test_damaged_artifact_is_not_pushed(hub, client, copied_run, repo):
    path = copied_run / LAYOUT.index
    path.write_bytes(path.read_bytes()[::-1])
    answer = client.run("push", copied_run, repo, token=TOKEN)
    assert answer.code == 1
    assert LAYOUT.index in answer.err
    assert "SHA-256" in answer.err
    assert writes(hub) == []
    assert ("models", repo) not in hub.store.repos


@pytest.mark.parametrize("name", ["shirts", "me/shirts@v1", "me/"])
def test_invalid_push_target_is_refused_without_a_request(hub, client, copied_run, name):
    answer = client.run("push", copied_run, name, token=TOKEN)
    assert answer.code == 1
    assert "owner/name" in answer.err or "after the @" in answer.err
    assert hub.requests == []


@pytest.mark.parametrize("status", [500, 503])
def test_server_error_leaves_no_commit_and_the_next_push_works(hub, client, copied_run, repo, status):
    hub.faults.append(Fault("POST .*/commit/", times=None, status=status))
    answer = client.run("push", copied_run, repo, token=TOKEN)
    assert answer.code == 1
    assert str(status) in answer.err.splitlines()[-1]
    assert len(hub.repo("model", repo).commits) == 1
    hub.faults.clear()
    assert client.run("push", copied_run, repo, token=TOKEN).code == 0


def test_card_names_the_repository_it_was_last_pushed_to(hub, client, copied_run, repo):
    for name in (repo, f"{repo}-copy"):
        assert client.run("push", copied_run, name, token=TOKEN).code == 0
        card = (copied_run / LAYOUT.card).read_text(encoding="utf-8")
        assert f'timm.create_model("hf-hub:{name}", pretrained=True)' in card
        assert f"python app.py --artifact {name}\n" in card
    weights = contents(copied_run)[LAYOUT.weights]
    assert hub.files("model", repo)[LAYOUT.weights] == weights
    assert json.loads(contents(copied_run)[LAYOUT.manifest])["build"]["indexed"] == 60
