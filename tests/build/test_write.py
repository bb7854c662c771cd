"""What a training run adds to an artifact: hashed like the rest, refused when damaged, kept by add and remove."""

import json
import os
import shutil

import pytest
from conftest import noise, refused, reseal, run_sections, sha256
from runs import build_run

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import check_target, load_artifact, read_metrics
from retrieval.build.build import build_artifact
from retrieval.build.change import add_images, remove_images, update_metrics
from retrieval.errors import ArtifactError, IntegrityError
from retrieval.sources.open import open_source

PLOTS = ["history.png", "images_per_class.png", "intervals.png", "per_class.png", "recall_at_k.png"]
SECTIONS = ["leave_one_out", "calibration", "training", "evaluation", "audit", "index"]


def held(folder):
    """Every file below a folder: its path -> its bytes and its inode."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_ino) for path in paths}


def contents(folder):
    return {name: content for name, (content, _) in held(folder).items()}


def metrics_of(folder):
    return json.loads((folder / LAYOUT.metrics).read_text())


def sections_of(folder):
    """The names of the sections that are not null."""
    return [name for name, section in read_metrics(folder).sections().items() if section is not None]


# Files and hashes


def test_artifact_of_a_run_includes_metrics_and_plots(trained):
    load_artifact(trained)
    assert list(metrics_of(trained)) == ["version", "lookalike", *SECTIONS]
    assert metrics_of(trained) == read_metrics(trained).model_dump()
    assert {path.name for path in trained.iterdir()} == {*LAYOUT.names(), "onnx", LAYOUT.plots}
    assert LAYOUT.plots_in(trained) == [f"plots/{name}" for name in PLOTS]
    stated = json.loads((trained / LAYOUT.manifest).read_text())["files"]
    assert set(stated) == {*LAYOUT.names(), LAYOUT.exported, *LAYOUT.plots_in(trained)} - {LAYOUT.manifest}
    for name in LAYOUT.plots_in(trained):
        data = (trained / name).read_bytes()
        assert stated[name] == {"size": len(data), "sha256": sha256(data)}


def test_evaluation_runs_before_metrics_and_manifest_are_written(pictures, encoder, tmp_path):
    def evaluate(draft):
        assert len(draft.gallery) == len(draft.store) == len(draft.vectors) == 60
        assert draft.encoder is encoder
        assert not (draft.folder / LAYOUT.metrics).exists()
        assert not (draft.folder / LAYOUT.manifest).exists()
        return {"note": "evaluated"}

    build_run(open_source(str(pictures)), tmp_path / "it", encoder, evaluate)
    assert sections_of(tmp_path / "it") == ["leave_one_out", "calibration", "note"]
    assert LAYOUT.plots_in(tmp_path / "it") == ["plots/reliability.png"]


def test_failed_evaluation_keeps_the_old_artifact_and_the_embeddings(copied_run, pictures, encoder):
    before, embedded = held(copied_run), []

    def broken(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        build_run(open_source(str(pictures)), copied_run, encoder, broken)
    assert held(copied_run) == before
    build_artifact(open_source(str(pictures)), copied_run, encoder, progress=lambda *done: embedded.append(done))
    assert embedded == []
    assert sections_of(copied_run) == ["leave_one_out", "calibration"]
    assert LAYOUT.plots_in(copied_run) == ["plots/reliability.png"]


@pytest.mark.parametrize("name", ["table.csv", "picture.jpg", "-rf.png", "two words.png"])
def test_plot_that_is_not_a_plainly_named_png_is_refused(pictures, encoder, tmp_path, name):
    def evaluate(draft):
        noise(draft.folder / "plots" / name, 0)
        return {}

    with pytest.raises(ArtifactError, match=f"plots/{name}: a plot must be a PNG file"):
        build_run(open_source(str(pictures)), tmp_path / "it", encoder, evaluate, limit=4)
    assert not (tmp_path / "it").exists()


def test_encoder_trained_on_the_gallery_is_not_calibrated_on_it(trained, artifact):
    assert metrics_of(trained)["training"]["steps"] > 0
    assert metrics_of(trained)["calibration"] is None
    assert metrics_of(artifact)["calibration"]["held_out"] is False


def test_artifact_without_plots_loads(copied_artifact):
    update_metrics(copied_artifact, {"calibration": None})
    assert {path.name for path in copied_artifact.iterdir()} == {*LAYOUT.names(), "onnx"}
    assert len(load_artifact(copied_artifact).gallery) == 60


# Damaged files


@pytest.mark.parametrize("name", PLOTS)
def test_changed_or_missing_plot_is_refused(copied_run, name):
    path = copied_run / "plots" / name
    data = path.read_bytes()
    for content in (data[:-1], b"", data + b"\0"):
        path.write_bytes(content)
        refused(copied_run, f"plots/{name}: size in bytes", f"says {len(data)}", f"found {len(content)}")
    flipped = bytes([data[0] ^ 1, *data[1:]])
    path.write_bytes(flipped)
    refused(copied_run, f"plots/{name}: SHA-256", sha256(data), sha256(flipped))
    path.unlink()
    refused(copied_run, f"plots/{name} is missing")
    path.mkdir()
    refused(copied_run, f"plots/{name} is missing")


@pytest.mark.parametrize("name", ["plots/more.png", "plots/notes.txt", "plots/deeper/more.png", "plots"])
def test_file_in_plots_that_the_manifest_does_not_list_is_refused(copied_run, copied_artifact, name):
    for folder in (copied_run, copied_artifact):
        if name == "plots":  # a file of that name, in an artifact without plots
            update_metrics(folder, dict.fromkeys(SECTIONS))
            assert not (folder / name).exists()
        noise(folder / name, 0)
        first = "/".join(name.split("/")[:2])
        refused(folder, f"{first} is in", "not listed in the manifest")
        with pytest.raises(ArtifactError, match=f"{first} does not belong to the artifact and would be lost"):
            check_target(folder)
        (folder / name).unlink()


def test_hidden_files_beside_the_plots_are_ignored(copied_run):
    (copied_run / "plots" / ".DS_Store").write_bytes(b"what a Mac leaves in a folder that was looked at")
    load_artifact(copied_run)
    check_target(copied_run)


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "plots/../../secret.png", "plots/..", "/etc/hostname", "plots\\x.png", "plots/a/b.png", "x.py"],
)
def test_manifest_that_lists_a_path_outside_the_layout_is_refused(copied_run, name):
    secret = noise(copied_run.parent / "secret.png", 0).read_bytes()
    files = json.loads((copied_run / LAYOUT.manifest).read_text())["files"]
    reseal(copied_run, files={**files, name: {"size": len(secret), "sha256": sha256(secret)}})
    refused(copied_run, "manifest.json lists", repr(name))


def test_damaged_metrics_are_refused(copied_run, tmp_path):
    path = copied_run / LAYOUT.metrics
    path.write_text(path.read_text().replace("0.75", "0.95"))
    with pytest.raises(IntegrityError, match=r"metrics\.json: SHA-256"):
        read_metrics(copied_run)
    path.write_text("[rubbish")
    reseal(copied_run)
    with pytest.raises(IntegrityError, match=r"metrics\.json does not have the format of an artifact file"):
        read_metrics(copied_run)
    with pytest.raises(ArtifactError, match=r"is not an artifact: no manifest\.json in it"):
        read_metrics(tmp_path)


def test_damaged_run_can_be_rebuilt(copied_run, pictures, encoder):
    (copied_run / LAYOUT.manifest).write_text("{damaged")
    check_target(copied_run)
    build_run(open_source(str(pictures)), copied_run, encoder, run_sections)
    assert sections_of(copied_run) == [name for name in SECTIONS if name != "calibration"]


# Adding and removing rows


def test_add_and_remove_keep_training_metrics_and_plots(copied_run, tmp_path):
    before, figures = held(copied_run), metrics_of(copied_run)
    noise(tmp_path / "more" / "new" / "a.png", 1)
    add_images(copied_run, open_source(str(tmp_path / "more")))
    for rows in (61, 59):
        after = metrics_of(copied_run)
        assert list(after) == ["version", "lookalike", *SECTIONS]
        assert after["leave_one_out"]["images"] == rows
        assert {**after, "leave_one_out": 0} == {**figures, "leave_one_out": 0}
        assert {name: contents(copied_run)[name] for name in LAYOUT.plots_in(copied_run)} == {
            name: data for name, (data, _) in before.items() if name.startswith("plots/")
        }
        assert len(load_artifact(copied_run).gallery) == rows
        assert "plots/recall_at_k.png" in (copied_run / LAYOUT.card).read_text()
        if rows == 61:
            remove_images(copied_run, load_artifact(copied_run).gallery.ids[:2])


# Updating metrics later


def test_update_metrics_changes_only_metrics_card_and_affected_plots(copied_run):
    before, old = held(copied_run), metrics_of(copied_run)
    evaluation = {**old["evaluation"], "unseen": {**old["evaluation"]["seen"], "from_run": "another-run"}}
    update_metrics(copied_run, {"evaluation": evaluation, "note": "later"})
    artifact = load_artifact(copied_run)
    assert metrics_of(copied_run) == {**old, "evaluation": evaluation, "note": "later"}
    assert artifact.manifest["changes"] == [{"metrics": ["evaluation", "note"]}]
    assert artifact.manifest["build"] == json.loads(before[LAYOUT.manifest][0])["build"]
    assert "another-run" in (copied_run / LAYOUT.card).read_text()
    after = held(copied_run)
    for name in (LAYOUT.config, LAYOUT.weights, LAYOUT.index, LAYOUT.gallery):
        assert after[name] == before[name]  # the same bytes in the same file
    drawn = {name for name in before if name.startswith("plots/") and after[name][0] != before[name][0]}
    assert drawn == {"plots/recall_at_k.png", "plots/intervals.png"}  # the plots that show unseen classes
    assert set(after) == set(before)


def test_removing_a_section_removes_its_plots(copied_run):
    update_metrics(copied_run, {"evaluation": None})
    load_artifact(copied_run)
    assert LAYOUT.plots_in(copied_run) == ["plots/history.png"]
    assert "![recall at k]" not in (copied_run / LAYOUT.card).read_text()


def test_update_metrics_keeps_plots_it_does_not_draw(copied_run, pictures, encoder):
    def evaluate(draft):
        noise(draft.folder / "plots" / "own.png", 5)
        return run_sections(draft)

    build_run(open_source(str(pictures)), copied_run, encoder, evaluate)
    own = (copied_run / "plots" / "own.png").read_bytes()
    update_metrics(copied_run, {"note": "later"})
    assert (copied_run / "plots" / "own.png").read_bytes() == own
    assert "![own](plots/own.png)" in (copied_run / LAYOUT.card).read_text()


def test_update_metrics_works_without_a_training_run(copied_artifact):
    (copied_artifact / "notes.txt").write_text("mine")
    update_metrics(copied_artifact, {"note": "later"})
    load_artifact(copied_artifact)
    assert sections_of(copied_artifact) == ["leave_one_out", "calibration", "note"]
    assert LAYOUT.plots_in(copied_artifact) == ["plots/reliability.png"]
    assert (copied_artifact / "notes.txt").read_text() == "mine"


def test_failed_update_changes_nothing(copied_run):
    before = held(copied_run)
    with pytest.raises(TypeError):
        update_metrics(copied_run, {"note": object()})  # not JSON serializable
    assert held(copied_run) == before
    assert {path.name for path in copied_run.parent.iterdir()} == {"run", ".run.lock"}
    (copied_run / LAYOUT.index).write_bytes(b"spoiled")
    with pytest.raises(IntegrityError, match=r"index\.faiss"):
        update_metrics(copied_run, {"note": "later"})


def test_update_writes_new_plot_files_instead_of_changing_old_ones(copied_run, tmp_path):
    """An artifact that is being served keeps its bytes during an update, because new files are written."""
    shutil.copytree(copied_run, tmp_path / "linked", copy_function=os.link)
    before = contents(copied_run)
    evaluation = {**metrics_of(copied_run)["evaluation"], "unseen": metrics_of(copied_run)["evaluation"]["seen"]}
    update_metrics(copied_run, {"evaluation": evaluation})
    assert contents(tmp_path / "linked") == before
    load_artifact(tmp_path / "linked")
