"""Complete runs: each recipe from data to artifact, and its metrics recomputed one query at a time."""

import io
import json
import shutil
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import BACKBONE, COLOURED, coloured, noise, png, python, sha256, tiny_recipe, write_data_set
from exact_store import ExactStore
from PIL import Image
from safetensors.torch import load_file

import retrieval.__main__
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact, read_metrics
from retrieval.artifact.metrics import parse_metrics
from retrieval.artifact.sections import Checkpoint
from retrieval.encoders.image import Encoder
from retrieval.errors import ArtifactError, TrainingError
from retrieval.evaluation.calibration import Queries, calibrate
from retrieval.evaluation.markdown import with_interval
from retrieval.images.open import open_image
from retrieval.search import Searcher
from training.__main__ import main
from training.data.dataset import open_data
from training.recipe import recipe_names, without_places
from training.run import train

pytestmark = pytest.mark.usefixtures("one_thread")

# Learning rates at which a tiny network with random weights learns within a few steps.
QUICK = {"learning_rate": 2e-3, "head_learning_rate": 1e-2, "crop": 0.7, "jitter": 0.0}
OURS = {
    "head": "linear-16",
    "classes_per_batch": 4,
    "images_per_class": 3,
    "epochs": 6,
    "head_start": 2,
    **QUICK,
}
RUNS = {  # name -> recipe, data, changes
    "frozen": ("frozen", "leaky", {"classes_per_batch": 4}),
    "frozen-pca": ("frozen-pca", "leaky", {"head": "pca-8", "classes_per_batch": 4}),
    "random-triplet": ("random-triplet", "leaky", {"head": "32-relu-16", "classes_per_batch": 4, "epochs": 2}),
    "classifier": (
        "classifier",
        "leaky",
        {"head": "32-bn-relu-dropout0.5-16", "classes_per_batch": 16, "epochs": 2, "unfreeze": [0.5, 1]},
    ),
    "ours": ("caltech101", "leaky", {**OURS, "frozen_stride": 2}),
    "ours without two": ("caltech101", "leaky", {**OURS, "frozen_stride": 2, "hold_out_classes": 0.34}),
    "fashion": ("fashion", "untidy", {**OURS, "epochs": 2, "frozen_stride": 0}),
}


@pytest.fixture(scope="module")
def weights(encoder, tmp_path_factory):
    """A weights file to start from: its batch norm has seen pictures, and its head has another size."""
    folder = tmp_path_factory.mktemp("weights")
    encoder.save(folder)
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    """Three splits of drawings; the last two test images leak from train: an identical file and a smaller copy."""
    train = list(coloured("train", 14))
    smaller = png(Image.open(io.BytesIO(train[33][0])).resize((50, 50)))
    test = [*coloured("test", 4), train[5], (smaller, train[33][1])]
    splits = {"train": train, "validation": list(coloured("validation", 4)), "test": test}
    return write_data_set(tmp_path_factory.mktemp("leaky") / "set", names=COLOURED, **splits)


@pytest.fixture(scope="module")
def untidy(tmp_path_factory):
    """One split with a custom label column: some labels are missing, a class has one image, one file is broken."""
    rows = [*coloured("train", 12), (png(1), None), (png(2), "umber"), (png(3)[:200], "red"), (png(4), None)]
    rows += coloured("test", 6)
    return write_data_set(tmp_path_factory.mktemp("untidy") / "set", label_column="articleType", train=rows)


@pytest.fixture(scope="module")
def runs(leaky, untidy, weights, tmp_path_factory):
    """A function that trains a run by name, once, and returns its recipe and the artifact's folder."""
    folder = tmp_path_factory.mktemp("runs")

    @cache
    def run(name):
        recipe_name, data, changes = RUNS[name]
        source = {"leaky": leaky, "untidy": untidy}[data]
        own = {"label_column": "articleType"} if data == "untidy" else {}
        recipe = tiny_recipe(recipe_name, data=str(source), weights=str(weights), **own, **changes)
        said = []
        out = train(recipe, folder / name, say=said.append)
        assert out == folder / name
        assert not (folder / f"{name}.training").exists(), "what the run kept for itself is gone"
        return recipe, out

    return run


def rows_of(source, split, column="label"):
    """(bytes, label) of a split, read from the file itself."""
    table = pq.read_table(Path(source) / f"{split}.parquet")
    labels = table[column].to_pylist()
    names = COLOURED if column == "label" else None
    named = [names[label] if names else label for label in labels]
    return list(zip([image["bytes"] for image in table["image"].to_pylist()], named, strict=True))


# The artifact of every recipe


@pytest.mark.parametrize("name", RUNS)
def test_trained_artifact_can_be_verified_and_searched(runs, name, capsys):
    recipe, out = runs(name)
    assert retrieval.__main__.main(["verify", str(out)]) == 0
    capsys.readouterr()
    artifact = load_artifact(out)
    assert artifact.encoder.data_config["input_size"] == [3, 64, 64]
    sizes = {"frozen": 256, "frozen-pca": 8}
    assert artifact.encoder.dim == artifact.manifest["dimension"] == sizes.get(name, 16)
    head = json.loads((out / LAYOUT.config).read_text()).get("lookalike", {}).get("head")
    assert head == (recipe.head if name in ("random-triplet", "classifier") else None)
    searcher = Searcher.open(out)
    source = artifact.gallery.table["sha256"].to_pylist()
    for data, label in rows_of(recipe.data, "train", recipe.label_column or "label")[:40:13]:
        hits = searcher.search(data, 5)
        assert len(hits) == 5
        assert source[hits[0].row] == sha256(data), "a picture of the gallery finds itself"
        assert hits[0].score == pytest.approx(1, abs=1e-5)
        assert hits[0].label == label


@pytest.mark.parametrize("name", RUNS)
def test_metrics_record_how_the_artifact_was_trained(runs, name):
    recipe, out = runs(name)
    metrics = read_metrics(out)
    training = metrics.training
    assert training.recipe == recipe.name
    assert training.settings == without_places(recipe.settings())
    assert training.data.source == Path(recipe.data).name
    for text in (
        LAYOUT.card,
        LAYOUT.metrics,
        LAYOUT.manifest,
    ):  # no local paths are published on the Hub
        assert str(Path(recipe.data).parent) not in (out / text).read_text(encoding="utf-8")
    assert training.seed == recipe.seed
    assert {"python", "torch", "timm", "transformers", "datasets"} <= training.versions.keys()
    sizes = {"train": 84, "validation": 24, "test": 26}
    if name != "fashion":
        assert training.data.split_sizes == sizes
    steps = {"random-triplet": 10, "classifier": 10, "ours": 42}.get(name)
    if steps:
        assert training.steps == steps
    history = training.history
    if recipe.epochs:
        chosen = [entry for entry in history if "validation_map" in entry]
        assert len(chosen) == recipe.epochs
        best = max(chosen, key=lambda entry: entry["validation_map"])
        assert training.best == Checkpoint(step=best["step"], metric="validation_map", value=best["validation_map"])
        losses = [entry["loss"] for entry in history if "loss" in entry]
        assert all(np.isfinite(losses))
        assert losses or training.steps < 10
    else:
        assert history == []
        assert training.steps == 0
    index = metrics.index
    assert 0 < index.recall_at_10 <= 1
    assert index.exact_ms > 0 < index.approximate_ms
    assert parse_metrics(metrics.to_json()) == metrics


@pytest.mark.parametrize("name", RUNS)
def test_card_shows_the_recipe_the_metrics_and_the_plots(runs, name):
    recipe, out = runs(name)
    metrics, card = read_metrics(out), (out / LAYOUT.card).read_text(encoding="utf-8")
    assert f"- **Recipe:** {recipe.name}\n" in card
    assert f"- **Data:** {Path(recipe.data).name}\n" in card
    assert f"seed {recipe.seed}" in card
    for figure in metrics.evaluation.seen.figures.by_name().values():
        assert with_interval(figure) in card
    assert f"torch {version('torch')}" in card
    assert f"images_per_class: {recipe.images_per_class}" in card
    plots = {path.name for path in (out / LAYOUT.plots).iterdir()}
    expected = {"recall_at_k.png", "intervals.png", "per_class.png", "images_per_class.png"}
    expected |= ({"history.png"} if recipe.epochs else set()) | ({"reliability.png"} if metrics.calibration else set())
    assert plots == expected
    for plot in plots:
        assert f"](plots/{plot})" in card
        Image.open(out / LAYOUT.plots / plot).verify()


# Metrics, recomputed


def counted(queries, query_labels, gallery, gallery_labels, own):
    """The metrics, one query at a time; `own` is the row that each query must not find, or None."""
    found = []
    for vector, label, mine in zip(queries, query_labels, own, strict=True):
        order = [
            row for row in sorted(range(len(gallery)), key=lambda row: -float(vector @ gallery[row])) if row != mine
        ]
        right = [gallery_labels[row] == label for row in order]
        total = sum(right)
        precision = [sum(right[: rank + 1]) / (rank + 1) for rank in range(len(right))]
        at_right = [precision[rank] for rank in range(len(right)) if right[rank]]
        found.append(
            {
                "hit@1": right[0],
                "hit@5": any(right[:5]),
                "hit@10": any(right[:10]),
                "P@1": right[0],
                "P@5": sum(right[:5]) / 5,
                "P@10": sum(right[:10]) / 10,
                "mAP": sum(at_right) / total,
                "MAP@R": sum(precision[rank] for rank in range(total) if right[rank]) / total,
                "R-precision": sum(right[:total]) / total,
            }
        )
    return {name: np.mean([each[name] for each in found]) for name in found[0]}


def check_figures(part, expected, queries, images):
    assert (part.queries, part.images, part.left_out) == (queries, images, 0)
    assert {name: each.value for name, each in part.figures.by_name().items()} == pytest.approx(expected, abs=1e-6)
    for figure in part.figures.by_name().values():
        assert figure.low <= figure.value <= figure.high


def gallery_of(artifact):
    """Vectors, labels, and the row of each file by its hash."""
    hashes = artifact.gallery.table["sha256"].to_pylist()
    vectors = artifact.store.vectors(np.arange(len(artifact.store)))
    return vectors, artifact.gallery.labels, {sha: row for row, sha in enumerate(hashes)}


@pytest.mark.parametrize("name", ["frozen", "frozen-pca", "random-triplet", "classifier", "ours"])
def test_metrics_on_the_test_split_match_plain_loops(runs, name):
    recipe, out = runs(name)
    artifact, metrics = load_artifact(out), read_metrics(out)
    vectors, labels, row_of = gallery_of(artifact)
    test = rows_of(recipe.data, "test")
    assert len(vectors) == 108, "train and validation"
    assert [sha256(data) in row_of for data, _ in test] == [False] * 24 + [True, False], "one file of test is of train"
    queries = artifact.encoder.embed_images([open_image(data) for data, _ in test])
    asked = [label for _, label in test]
    evaluation = metrics.evaluation
    assert (evaluation.split, evaluation.gallery) == ("the test split", "108 images of train+validation")
    check_figures(evaluation.seen, counted(queries, asked, vectors, labels, [None] * 26), 26, 108)
    apart = counted(queries[:24], asked[:24], vectors, labels, [None] * 24)
    check_figures(evaluation.seen_without_near_duplicates, apart, 24, 108)
    assert evaluation.unseen is None
    assert {row.label: (row.images, row.queries) for row in evaluation.classes} == {
        label: (14, asked.count(label)) for label in COLOURED
    }
    accuracy = evaluation.classifier_accuracy
    assert (accuracy is None) is (recipe.softmax == "none")


@pytest.mark.parametrize("name", ["frozen", "random-triplet"])
def test_calibration_is_fitted_on_validation_and_checked_on_test(runs, name):
    recipe, out = runs(name)
    artifact, section = load_artifact(out), read_metrics(out).calibration
    assert section.held_out is True
    assert (section.queries, section.checked.queries) == (24, 26)
    assert "on 26 other held-out images" in (out / LAYOUT.card).read_text(encoding="utf-8")
    parts = [rows_of(recipe.data, split) for split in ("validation", "test")]
    hashes = {sha256(data) for rows in parts for data, _ in rows}
    vectors, labels, row_of = gallery_of(artifact)
    kept = [row for sha, row in row_of.items() if sha not in hashes]
    store = ExactStore(artifact.encoder.dim)
    store.add(vectors[kept])
    held_out = [
        Queries(artifact.encoder.embed_images([open_image(data) for data, _ in rows]), [label for _, label in rows])
        for rows in parts
    ]
    again = calibrate(store, [labels[row] for row in kept], *held_out)
    assert section.weights == pytest.approx(again.weights, rel=1e-2, abs=1e-2)
    assert section.floor == pytest.approx(again.floor, abs=1e-4)


@pytest.mark.parametrize("name", ["frozen", "classifier", "ours"])
def test_audit_finds_the_planted_near_duplicates(runs, name):
    recipe, out = runs(name)
    audit, test = read_metrics(out).audit, rows_of(recipe.data, "test")
    assert (audit.queries, audit.audited, audit.across_classes) == (2, 26, 0)
    pairs = {(pair.held_out, pair.other): pair for pair in audit.listed}
    assert pairs.keys() == {("test/24", "train/5"), ("test/25", "train/33")}
    for pair in pairs.values():
        assert pair.label == pair.other_label == test[int(pair.held_out.split("/")[1])][1]
        assert 0.92 <= pair.similarity <= 1
    assert "Leak audit: 2 of 26 held-out images" in (out / LAYOUT.card).read_text()


def test_metrics_with_a_single_split_match_plain_loops(runs, tmp_path):
    """With one split, a tenth of it is tested: in the gallery, but left out of it for the evaluation."""
    recipe, out = runs("fashion")
    artifact, metrics = load_artifact(out), read_metrics(out)
    vectors, labels, row_of = gallery_of(artifact)
    rows = rows_of(recipe.data, "train", "articleType")
    assert len(vectors) == len(rows) - 1, "one file is broken"
    data = open_data(recipe, tmp_path)
    tested = [row for row in data.parts["test"] if rows[row][1] is not None]
    own = [row_of[sha256(rows[row][0])] for row in tested]
    kept = [row for row in range(len(vectors)) if row not in own]
    asked = [rows[row][1] for row in tested]
    assert 6 <= len(tested) <= 16
    expected = counted(vectors[own], asked, vectors[kept], [labels[row] for row in kept], [None] * len(own))
    evaluation = metrics.evaluation
    check_figures(evaluation.seen, expected, len(tested), len(kept))
    assert evaluation.split == "a tenth of the images"
    assert evaluation.gallery == f"{len(kept)} images of train"
    left_out = metrics.training.data.left_out
    assert left_out[0] == "2 images without a label"
    assert left_out[1] == "1 image of 1 class with fewer than two training images: 'umber' (1)"
    assert left_out[2].startswith("1 image that cannot be opened; the first: train/74: ")
    assert {label for label in labels if label not in COLOURED} == {None, "umber"}, "they can be found all the same"


def test_metrics_of_held_out_classes_match_plain_loops(runs):
    recipe, out = runs("ours without two")
    artifact, metrics = load_artifact(out), read_metrics(out)
    held_out = metrics.training.data.held_out
    assert len(held_out) == 2
    assert metrics.training.data.classes == 4
    assert f"- **Classes held out:** 2: {', '.join(held_out)}" in (out / LAYOUT.card).read_text()
    vectors, labels, row_of = gallery_of(artifact)
    assert set(held_out) < set(labels), "they are in the gallery"
    rows = [row for split in ("train", "validation", "test") for row in rows_of(recipe.data, split)]
    unseen = [(data, label) for data, label in rows if label in held_out]
    seen = [(data, label) for data, label in rows_of(recipe.data, "test") if label not in held_out]
    for part, asked in (("seen", seen), ("unseen", unseen)):
        queries = artifact.encoder.embed_images([open_image(data) for data, _ in asked])
        own = [row_of.get(sha256(data)) if part == "unseen" else None for data, _ in asked]
        expected = counted(queries, [label for _, label in asked], vectors, labels, own)
        check_figures(getattr(metrics.evaluation, part), expected, len(asked), 108)
    images = {row.label: row.images for row in metrics.evaluation.classes}
    assert images == {label: 0 if label in held_out else 14 for label in COLOURED}


@pytest.mark.parametrize("name", ["classifier", "random-triplet"])  # validation uses the final head
def test_artifact_has_the_weights_that_validation_chose(runs, name):
    """Its metrics on the validation images equal those recorded for the best step."""
    recipe, out = runs(name)
    artifact, training = load_artifact(out), read_metrics(out).training
    vectors, _, row_of = gallery_of(artifact)
    learned, chosen = (
        [(vectors[row_of[sha256(data)]], label) for data, label in rows_of(recipe.data, split)]
        for split in ("train", "validation")
    )
    gallery = [pair for label in COLOURED for pair in [each for each in learned if each[1] == label][:10]]
    expected = counted(*zip(*chosen, strict=True), *zip(*gallery, strict=True), [None] * len(chosen))
    assert training.best.value == pytest.approx(expected["mAP"], abs=1e-3)
    others = [entry["validation_map"] for entry in training.history if "validation_map" in entry]
    assert max(others) - min(others) > 2e-3, "or this would tell nothing"


# Learned weights


def test_head_is_recomputed_after_training(runs):
    """Five discriminants separate the six training classes; the rest of an embedding does not."""
    recipe, out = runs("ours")
    encoder = load_artifact(out).encoder
    rows = rows_of(recipe.data, "train")
    with torch.inference_mode():
        found = encoder.model(
            torch.stack([torch.from_numpy(encoder.preprocess(open_image(data))) for data, _ in rows])
        ).numpy()
    labels = np.array([label for _, label in rows])
    means = np.stack([found[labels == label].mean(axis=0) for label in COLOURED])
    apart = np.abs(means - means.mean(axis=0)).max(axis=0)
    assert found.shape[1] == 16
    assert apart[5:].max() < 0.05 * apart[:5].max()
    lengths = [np.linalg.norm(part, axis=1).mean() ** 2 for part in (found[:, :5], found[:, 5:])]
    assert lengths == pytest.approx([1 - recipe.generic_share, recipe.generic_share], rel=0.05)
    assert set(read_metrics(out).training.finished) == {"hit_at_1", "p_at_5", "map"}
    assert "- **Validation:** hit@1 " in (out / LAYOUT.card).read_text()


def test_training_improves_on_the_frozen_network(runs):
    """Classes are the colours of articles it has never seen: a trained network beats its own starting weights."""
    before, after = (read_metrics(runs(name)[1]).evaluation.seen.figures for name in ("frozen", "ours"))
    assert after.map.value > before.map.value + 0.1
    history = read_metrics(runs("ours")[1]).training.history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert losses[-1] < losses[0]


def test_frozen_recipes_keep_the_starting_weights(runs, weights):
    start, found = load_file(weights), load_artifact(runs("frozen")[1]).encoder.model.state_dict()
    assert found.keys() == {name for name in start if not name.startswith("classifier")}
    assert all(torch.equal(found[name], start[name]) for name in found)
    whitened = load_artifact(runs("frozen-pca")[1]).encoder.model.state_dict()
    assert all(torch.equal(whitened[name], start[name]) for name in found)


def test_frozen_stages_keep_the_starting_weights(runs, weights):
    start, found = load_file(weights), load_artifact(runs("ours")[1]).encoder.model.state_dict()
    still = {name for name in found if name.startswith(("conv_stem", "bn1", "blocks.0."))}
    same = {name for name in found if not name.startswith("classifier") and torch.equal(found[name], start[name])}
    assert same == still


# Comparing runs


def test_compare_adds_unseen_class_metrics_to_the_matching_run(runs, tmp_path, capsys):
    full, without = (
        Path(shutil.copytree(runs(name)[1], tmp_path / name.replace(" ", "-"))) for name in ("ours", "ours without two")
    )
    other = runs("frozen")[1]
    assert main(["compare", str(full), str(without), str(other), "--plot", str(tmp_path / "runs.png")]) == 0
    table = capsys.readouterr().out
    assert "caltech101 (ours)" in table
    assert "unseen figures of caltech101 (ours): from ours-without-two" in table
    unseen = read_metrics(without).evaluation.unseen
    assert with_interval(unseen.figures.map) in table
    Image.open(tmp_path / "runs.png").verify()
    assert read_metrics(full).evaluation.unseen is None

    assert main(["compare", str(full), str(without), "--update-cards"]) == 0
    assert f"updated {full}" in capsys.readouterr().out
    assert read_metrics(full).evaluation.unseen == unseen.model_copy(update={"from_run": "ours-without-two"})
    card = (full / LAYOUT.card).read_text()
    assert with_interval(unseen.figures.map) in card
    assert "held out of another run of the same recipe, `ours-without-two`" in card
    load_artifact(full)
    assert main(["compare", str(other), str(full), "--update-cards"]) == 0
    assert "no run has a matching run" in capsys.readouterr().out


# A real backbone


def test_resnet18_can_be_trained_and_searched(tmp_path):
    """From random weights, on a few small pictures of two classes: training steps, checkpoint, artifact and search."""
    splits = {
        split: [row for row in coloured(split, count) if row[1] in ("red", "blue")]
        for split, count in (("train", 4), ("validation", 2), ("test", 2))
    }
    data = write_data_set(tmp_path / "set", **splits)
    batches = {"classes_per_batch": 2, "images_per_class": 2, "epochs": 1}
    recipe = tiny_recipe("caltech101", data=str(data), backbone="resnet18", head_start=1, **batches)
    out = train(recipe, tmp_path / "out", say=lambda _: None)
    assert read_metrics(out).training.steps == 2
    searcher = Searcher.open(out)
    assert (searcher.encoder.name, searcher.encoder.dim) == ("resnet18", recipe.embedding_size)
    hits = searcher.search(splits["test"][0][0], 3)
    assert len(hits) == 3
    assert {hit.label for hit in hits} <= {"red", "blue"}


# The command line


def test_training_command_makes_an_artifact_and_never_overwrites_it(weights, tmp_path, capsys):
    """A custom recipe file with options and --set, on class folders; then again with the same output folder."""
    path, folder, out = tmp_path / "mine.yaml", tmp_path / "pictures", tmp_path / "out"
    path.write_text("head: linear-8\nimage_size: 64\ntest_size: 64\nepochs: 1\nclasses_per_batch: 6\nbf16: false\n")
    for number, (data, label) in enumerate(coloured("train", 14)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{number}.png").write_bytes(data)
    command = [str(path), "--out", str(out), "--data", str(folder), "--backbone", BACKBONE]
    command += ["--weights", str(weights), "--set", "epochs=0.5", "--set", "crop=0.8"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "; test is a tenth of the images\n" in said.out
    learned = read_metrics(out).training.data.split_sizes["train"]
    assert f"\n{learned} training images of 6 classes\n" in said.out
    assert "leak audit: " in said.out
    assert "| mine (out) |" in said.out
    assert "\nserve it: " in said.out
    assert f" --artifact {out}\n" in said.out
    assert "Traceback" not in said.err
    training = read_metrics(out).training
    assert sum(training.data.split_sizes.values()) == len(load_artifact(out).gallery) == 84
    wanted = {"epochs": 0.5, "crop": 0.8, "head": "linear-8", "weights": weights.name, "name": "mine"}
    assert {key: training.settings[key] for key in wanted} == wanted
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for again, said in (
        ([], f"error: {out} contains an artifact, which would be overwritten: choose another folder, or delete it."),
        (["--resume", "--set", "seed=3"], f"error: {out} contains an artifact made with seed=0, not 3: resume it with"),
        (["--resume"], f"{out} is finished: there is nothing to resume"),
    ):
        (tmp_path / "out.training" / "checkpoint-1").mkdir(parents=True, exist_ok=True)  # as after a killed run
        assert main([*command, *again]) == int("error" in said)
        assert said in "".join(capsys.readouterr())
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "out.training").exists()


def test_list_shows_recipes_and_keys(capsys):
    for arguments in (["--list"], []):
        assert main(arguments) == 0
        said = capsys.readouterr().out
        assert all(f"\n  {name} " in said for name in recipe_names())
        assert "learning_rate" in said
        assert "weight decay" not in said.split("keys")[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["caltech", "--out", "o"], "there is no recipe 'caltech'; did you mean 'caltech101'?"),
        (["frozen"], "--out is missing"),
        (["--out", "o"], "no recipe was given: choose one of caltech101, classifier, fashion,"),
        (["frozen", "more", "--out", "o"], "unexpected argument more: name the artifact's folder with --out."),
        (["frozen", "--out", "o", "--set", "epoch=3"], "a recipe has no key 'epoch'; did you mean 'epochs'?"),
        (["frozen", "--out", "o", "--set", "epochs"], "--set takes key=value, not 'epochs'."),
        (["frozen", "--out", "o", "--hold-out-classes", "2"], "hold_out_classes must be from 0 to 0.9"),
        (["frozen", "--out", "o", "--backbone", "resnet5O"], "timm has no model 'resnet5O'; did you mean"),
        (["frozen", "--out", "o", "--backbone", BACKBONE], "the recipe names no data: use --data"),
        (["frozen", "--out", "o", "--backbone", BACKBONE, "--data", "./nowhere"], "no such file or folder: ./nowhere;"),
        (["frozen", "--out", "o", "--backbone", BACKBONE, "--weights", "none.safetensors"], "none.safetensors"),
        (["compare"], "compare needs the artifacts of runs"),
        (["compare", "nowhere"], "nowhere does not contain a finished run"),
        (["compare", ".", "--plot", "o.pdf"], "o.pdf: the plot is a PNG file"),
    ],
)
def test_errors_are_one_line_and_create_nothing(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    extra = ["--set", "pretrained=false"] if "--backbone" in arguments and "--weights" not in arguments else []
    assert main([*arguments, *extra]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not (tmp_path / "o").exists()


def test_unusable_data_or_settings_are_an_error_before_training(leaky, tmp_path, capsys):
    command = ["frozen", "--out", str(tmp_path / "o"), "--backbone", BACKBONE, "--set", "pretrained=false"]
    assert main([*command, "--data", str(leaky), "--label-column", "kind"]) == 1
    assert "has no column 'kind'; its columns are image, label." in capsys.readouterr().err
    assert main([*command, "--data", str(leaky), "--set", "epochs=1", "--set", "softmax=normalised"]) == 1
    assert "a batch needs 16 classes, but the data has only 6" in capsys.readouterr().err
    noise(tmp_path / "kept" / "notes.png", 1)
    command[2] = str(tmp_path / "kept")
    assert main([*command, "--data", str(leaky)]) == 1
    assert "contains files that do not belong to an artifact" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["notes.png"]
    assert main([*command[:2], str(tmp_path / "o"), *command[3:], "--data", str(leaky), "--set", "index=IVF"]) == 1
    assert "IVF" in capsys.readouterr().err


def test_frozen_recipe_accepts_fewer_classes_than_a_batch(tmp_path):
    """A batch of the recipe has more classes than the data, but a frozen network needs no batches."""
    splits = {split: list(coloured(split, 2)) for split in ("train", "validation", "test")}
    data = write_data_set(tmp_path / "set", **splits)
    train(tiny_recipe("frozen", data=str(data)), tmp_path / "out", say=lambda _: None)
    load_artifact(tmp_path / "out")


def test_unusable_output_path_or_index_setting_is_an_error(leaky, tmp_path):
    recipe = tiny_recipe("frozen", data=str(leaky), classes_per_batch=4)
    (tmp_path / "file").write_text("a person's")
    with pytest.raises(ArtifactError, match="is a file; an artifact is a folder"):
        train(recipe, tmp_path / "file", say=lambda _: None)
    with pytest.raises(TrainingError, match="index"):
        train(recipe.changed({"index": 3}), tmp_path / "out", say=lambda _: None)


def test_exit_code_is_0_for_success_1_for_errors_2_for_wrong_usage():
    def code(*arguments):
        return python("-m", "training", *arguments).returncode

    assert code("--list") == 0
    assert code("no-such-recipe", "--out", "o") == 1
    assert code("frozen", "--no-such-option") == 2


def test_timm_alone_loads_the_trained_artifact(runs):
    """A linear head is timm's own classifier, so the artifact's folder is a timm model."""
    out = runs("ours")[1]
    import timm

    model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    encoder = Encoder.load(out)
    picture = torch.from_numpy(encoder.preprocess(Image.effect_noise((64, 64), 90).convert("RGB")))[None]
    with torch.inference_mode():
        found = torch.nn.functional.normalize(model(picture), dim=1).numpy()
    assert np.allclose(found, encoder.embed_tensors(list(picture)), atol=1e-5)
