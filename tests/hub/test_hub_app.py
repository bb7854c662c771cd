"""Training pushes to the Hub, a page serves from the Hub, and a Space runs the page: the same hits everywhere."""

import json
import re
import shutil
import tomllib
from functools import partial

import pytest
from conftest import BACKBONE, ROOT, contents, serving
from gradio_client import Client, handle_file
from hub_server import Fault
from packaging.requirements import Requirement

from retrieval.artifact.layout import LAYOUT
from retrieval.search import Part, Searcher

REPO, SPACE, TOKEN = "me/colours", "me/colours-space", "hf_write"
TINY = {"backbone": BACKBONE, "pretrained": "false", "image_size": 64, "test_size": 64, "bf16": "false", "epochs": 1}
SMALL = {"classes_per_batch": 4, "images_per_class": 4, "head": "linear-16", "generic_share": 0, "frozen_stride": 0}


@pytest.fixture(scope="module")
def run(hub_process, drawings, tmp_path_factory):
    """A short training run that was pushed to the Hub: its folder and its output."""
    _, client = hub_process
    folder = tmp_path_factory.mktemp("run") / "colours"
    settings = [part for key, value in {**TINY, **SMALL}.items() for part in ("--set", f"{key}={value}")]
    command = ["-m", "training", "caltech101", "--data", drawings, "--out", folder, *settings]
    done = client.python(*command, "--push-to-hub", REPO, token=TOKEN)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def queries(drawings, tmp_path_factory):
    """Some pictures of the dataset as files."""
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("queries")
    rows = pq.read_table(drawings / "test.parquet")["image"].to_pylist()[:6]
    for number, row in enumerate(rows):
        (folder / f"{number}.png").write_bytes(row["bytes"])
    return sorted(folder.iterdir())


def code_of(hub, language):
    """The code blocks of the card on the Hub in one language."""
    card = hub.files("model", REPO)[LAYOUT.card].decode()
    return re.findall(rf"^```{language}\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)


def same_hits(address, folder, queries):
    """Check that a page gives the same hits and scores as the local artifact; return its `/info`."""
    client, searcher = Client(address, verbose=False), Searcher.open(folder)
    for path in queries:
        mine = searcher.search(path, k=10)
        theirs = client.predict(handle_file(path), k=10, api_name="/search")["hits"]
        assert [hit["id"] for hit in theirs] == [hit.id for hit in mine]
        assert [hit["score"] for hit in theirs] == pytest.approx([hit.score for hit in mine], abs=1e-6)
    return client.predict(api_name="/info")


def test_training_pushes_the_finished_artifact(hub, run):
    folder, said = run
    on_hub = hub.files("model", REPO)
    assert on_hub.pop(".gitattributes")
    assert on_hub == contents(folder)
    assert f"{hub.url}/{REPO} is now at commit {hub.head('model', REPO)}" in said
    metrics = json.loads(on_hub[LAYOUT.metrics])
    assert sum(name.startswith("plots/") for name in on_hub) == 5 + bool(metrics["calibration"])


def test_app_follows_a_branch_of_the_hub_if_asked(hub, client, run, queries):
    files = hub.files("model", REPO)
    hub.commit("model", "me/moving", files)
    with serving("--artifact", "me/moving", "--refresh", "0.01", start=client.start) as (address, _):
        before = same_hits(address, run[0], queries[:1])
        hub.commit("model", "me/moving", {LAYOUT.manifest: b"{}"})  # which cannot be opened
        head = hub.commit("model", "me/moving", {**files, "notes.md": b"newer"})
        sleeper = Client(address, verbose=False)
        for _ in range(3000):
            if (info := sleeper.predict(api_name="/info"))["commit"] == head:
                break
        assert info["commit"] == head != before["commit"]
        assert info["revision"] == before["revision"]


def test_refresh_needs_an_artifact_that_can_change_on_the_hub(here, artifact):
    for name, words in ((artifact, "always seen"), (f"me/x@{'0' * 40}", "never changes")):
        status, _, said = here("serve", "--artifact", name, "--refresh", "5")
        assert status == 1
        assert words in said


def test_training_does_not_start_without_write_access(client, drawings, tmp_path):
    command = ["-m", "training", "caltech101", "--data", drawings, "--out", tmp_path / "out"]
    for token, words in (("hf_read", "can only read"), (None, "hf auth login")):
        done = client.python(*command, "--push-to-hub", REPO, token=token)
        assert done.returncode == 1
        assert words in done.stderr
        assert not (tmp_path / "out").exists()


def test_page_served_from_the_hub_has_the_same_hits_even_offline(hub, client, run, queries):
    head = hub.head("model", REPO)
    with serving("--artifact", REPO, start=client.start) as (address, said):
        assert f"{REPO}@{head[:7]}" in said  # the progress bar
        info = same_hits(address, run[0], queries)
        assert (info["artifact"], info["commit"], info["offline"]) == (REPO, head, False)
    hub.stop()
    try:
        with serving("--artifact", REPO, start=client.start) as (address, said):
            assert f"offline, commit {head[:7]}" in said
            info = same_hits(address, run[0], queries)
            assert (info["commit"], info["offline"]) == (head, True)
    finally:
        hub.start()


def test_code_on_the_card_runs_unchanged(hub, client, run, queries, tmp_path):
    shutil.copyfile(queries[0], tmp_path / "photo.jpg")
    hits = Searcher.open(run[0]).search(queries[0], k=5)
    expected = [(round(hit.score, 3), hit.label, hit.source) for hit in hits]
    [command] = code_of(hub, "bash")
    through_client, plain = code_of(hub, "python")
    options = command.strip().removeprefix("python app.py ").split()
    with serving(*options, start=client.start) as (address, _):
        found = client.python("-c", through_client.replace("http://127.0.0.1:7860", address), cwd=tmp_path)
    assert found.stdout.splitlines()[1:] == [f"{score} {label} {source}" for score, label, source in expected], (
        found.stderr
    )
    client.forget()
    found = client.python("-c", plain, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    scores = [float(line.split()[0]) for line in found.stdout.splitlines()]
    assert scores == pytest.approx([score for score, _, _ in expected], abs=2e-3)


_IN_OTHER_HANDS = """
import json, sys, numpy as np, timm, torch, transformers
from PIL import Image
repo, paths = sys.argv[1], sys.argv[2:]
model = timm.create_model(f"hf-hub:{repo}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
batch = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
auto = transformers.AutoModel.from_pretrained(repo).eval()
head = transformers.AutoModelForImageClassification.from_pretrained(repo).eval()
with torch.inference_mode():
    ours, theirs = model(batch), head(batch).logits
    pooled = model.forward_head(model.forward_features(batch), pre_logits=True)
    print(json.dumps({
        "vectors": torch.nn.functional.normalize(ours).tolist(),
        "classifier": float((ours - theirs).abs().max()),
        "features": float((pooled - auto(batch).pooler_output).abs().max()),
    }))
"""


def test_timm_and_transformers_load_the_pushed_model(hub, client, run, queries, tmp_path):
    done = client.python("-c", _IN_OTHER_HANDS, REPO, *queries, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    searcher = Searcher.open(run[0])
    for path, vector in zip(queries, answer["vectors"], strict=True):
        assert vector == pytest.approx(searcher.vector(Part(path)).tolist(), abs=1e-5)
    assert answer["classifier"] < 1e-5
    assert answer["features"] < 1e-5
    assert "newly initialized" not in done.stderr


def test_space_is_created_in_one_commit_and_pinned(hub, client, run):
    answer = client.run("deploy", SPACE, "--artifact", REPO, "--private", "--hardware", "cpu-upgrade", token=TOKEN)
    assert answer.code == 0, answer.err
    space, head = hub.repo("space", SPACE), hub.head("model", REPO)
    assert (space.sdk, space.private, space.hardware) == ("gradio", True, "cpu-upgrade")
    assert space.variables == {"LOOKALIKE_ARTIFACT": f"{REPO}@{head}"}
    assert len(space.commits) == 2
    assert f"{hub.url}/spaces/{SPACE} at commit {hub.head('space', SPACE)[:7]} serves {REPO}@{head}" in answer.out
    sent = hub.files("space", SPACE)
    for name in (
        "app.py",
        "README.md",
        "retrieval/ui/static/style.css",
        f"retrieval/starter/{LAYOUT.index}",
        f"retrieval/starter/{LAYOUT.plots}/reliability.png",
    ):
        assert sent[name] == (ROOT / name).read_bytes()
    pins = {line.partition("==")[0] for line in sent["requirements.txt"].decode().splitlines() if "==" in line}
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert pins == {Requirement(each).name for each in dependencies}, "this artifact is served without torch"
    assert not [name for name in sent if name.startswith(("tests", "training", ".ci")) or "__pycache__" in name]


def test_space_for_a_text_model_that_is_exported_has_no_torch(hub, client, twins):
    assert client.run("push", twins, "me/words", token=TOKEN).code == 0
    assert client.run("deploy", "me/words-space", "--artifact", "me/words", token=TOKEN).code == 0
    lines = hub.files("space", "me/words-space")["requirements.txt"].decode().splitlines()
    assert [line for line in lines if line.startswith(("torch", "transformers"))] == []
    assert any(line.startswith("tokenizers==") for line in lines)


def test_failed_deployment_still_pins_the_new_space(hub, client, run):
    """Whatever fails after the Space is created, it never serves any other artifact than the one given."""
    hub.faults.append(Fault("POST .*/commit/", times=None, status=500))
    assert client.run("deploy", "me/in-vain", "--artifact", REPO, token=TOKEN).code == 1
    assert hub.repo("space", "me/in-vain").variables == {"LOOKALIKE_ARTIFACT": f"{REPO}@{hub.head('model', REPO)}"}


def test_space_with_another_app_is_not_overwritten(hub, client, run):
    hub.commit("space", "me/other", {"app.py": b"theirs", "retrieval/mine.py": b"theirs"})
    head = hub.head("space", "me/other")
    answer = client.run("deploy", "me/other", "--artifact", REPO, token=TOKEN)
    assert answer.code == 1
    assert "another app" in answer.err
    assert hub.head("space", "me/other") == head


def test_deploying_another_artifact_than_the_pinned_one_creates_no_space(hub, client, run):
    answer = client.run("deploy", "me/pinned", "--artifact", REPO, "--sha256", "0" * 64, token=TOKEN)
    assert answer.code == 1
    assert "must be " + "0" * 64 in answer.err
    assert ("spaces", "me/pinned") not in hub.store.repos


def test_deploying_a_private_or_gated_artifact_mentions_the_token(hub, client, run):
    repo = hub.repo("model", REPO)
    for closed in ("private", "gated"):
        setattr(repo, closed, True)
        repo.granted = ["me"]
        answer = client.run("deploy", "me/closed", "--artifact", REPO, token=TOKEN)
        setattr(repo, closed, False)
        assert answer.code == 0, answer.err
        assert "secret HF_TOKEN" in answer.err


def test_space_is_updated_only_when_something_changed(hub, client, run):
    assert client.run("deploy", SPACE, "--artifact", REPO, token=TOKEN).code == 0
    commits, head = len(hub.repo("space", SPACE).commits), hub.head("model", REPO)
    hub.clear()
    answer = client.run("deploy", SPACE, "--artifact", f"{REPO}@{head}", token=TOKEN)
    assert "up to date" in answer.err
    assert len(hub.repo("space", SPACE).commits) == commits
    assert not [request for request in hub.requests if request.method == "POST" and "variables" in request.path]
    hub.commit("space", SPACE, {"retrieval/gone.py": b"an older version's", "notes.md": b"theirs"})
    newer = hub.commit("model", REPO, {"notes.md": b"a newer commit"})
    assert client.run("deploy", SPACE, "--artifact", REPO, token=TOKEN).code == 0
    assert hub.repo("space", SPACE).variables["LOOKALIKE_ARTIFACT"].endswith(newer)
    assert "retrieval/gone.py" not in hub.files("space", SPACE)
    assert "notes.md" in hub.files("space", SPACE)


@pytest.mark.parametrize(
    ("artifact", "token", "words"),
    [
        ("me/nothing", TOKEN, "me/nothing"),
        ("retrieval/starter", TOKEN, "retrieval/starter"),
        (f"{REPO}@{'0' * 40}", TOKEN, "no such revision"),
        (REPO, "hf_read", "can only read"),
        (REPO, None, "hf auth login"),
    ],
)
def test_impossible_deployment_creates_no_space(hub, client, run, artifact, token, words):
    answer = client.run("deploy", "me/never", "--artifact", artifact, token=token)
    assert answer.code == 1
    assert words in answer.err
    assert ("spaces", "me/never") not in hub.store.repos


def test_space_runs_from_the_uploaded_files_alone(hub, client, run, queries, tmp_path):
    assert client.run("deploy", SPACE, "--artifact", REPO, token=TOKEN).code == 0
    folder = tmp_path / "space"
    for name, data in hub.files("space", SPACE).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    before = contents(folder)
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    settings = {"SPACE_ID": SPACE, "SYSTEM": "spaces", "PYTHONDONTWRITEBYTECODE": "1"}
    settings |= hub.repo("space", SPACE).variables
    hub.clear()
    # The Space is pinned: later commits to the artifact's repository have no effect.
    hub.faults.append(Fault("resolve/main", times=None, status=500))
    # The uploaded files must be complete: a fresh Python process starts there, with nothing imported.
    with serving(start=partial(client.start_anew, settings=settings), cwd=folder) as (address, _):
        info = same_hits(address, run[0], queries)
        assert f"{REPO}@{info['commit']}" == hub.repo("space", SPACE).variables["LOOKALIKE_ARTIFACT"]
    assert {request.authorization for request in hub.requests} == {None}
    assert contents(folder) == before
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
