"""Two processes: the same batches, the same weights, one artifact."""

import json
import os
from collections import Counter

import numpy as np
import pytest
import torch
import transformers
from conftest import WARM, free_port, in_two_processes, python, sha256, tiny_recipe

from retrieval.artifact.load import load_artifact, read_metrics
from retrieval.encoders.engines.device import DEVICE
from retrieval.errors import EncoderError, TrainingError
from retrieval.search import Searcher
from training.data.batches import Batches, augmentation
from training.data.dataset import open_data
from training.data.pixels import Pixels
from training.loop.trainer import MetricTrainer, training_arguments
from training.model.learner import Learner, starting_encoder
from training.run import train

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES, IMAGES = 4, 4


def trained(recipe, work):
    """Train a recipe as `training.run` does, up to the end of training.

    Returns this process's batches of the second epoch, as (label, hash of the picture), and all weights
    before and after training.
    """
    transformers.set_seed(recipe.seed)
    arguments = training_arguments(recipe, work / "checkpoints", bf16=False)
    encoder = starting_encoder(recipe)
    with arguments.main_process_first():
        data = open_data(recipe, work)
    pixels = Pixels(data.raw, 64, encoder.data_config["interpolation"], 1)
    pixels.fill(data.train.tolist())
    learner = Learner(encoder, recipe, len(data.classes))
    rows_of = [data.train[data.targets == label].tolist() for label in range(len(data.classes))]
    targets = dict(zip(data.train.tolist(), data.targets.tolist(), strict=True))
    batches = Batches(pixels, targets, augmentation(recipe))
    trainer = MetricTrainer(learner, batches, rows_of, lambda _: {"mAP": 0.5}, arguments, say=lambda _: None)
    trainer.sampler.epoch = 1
    seen = [
        [(int(label), sha256(picture.numpy().tobytes())) for picture, label in zip(*batch.values(), strict=True)]
        for batch in trainer.get_train_dataloader()
    ]
    before = weights_of(learner)
    trainer.train()
    return seen, before, weights_of(learner)


def weights_of(learner):
    return {name: value.detach().numpy().copy() for name, value in learner.named_parameters()}


def trained_by(settings, work):
    return trained(tiny_recipe(**settings), work)


@pytest.fixture(scope="module")
def both(drawings, tmp_path_factory):
    """The results of one process and of each of two; batch norm is frozen, as each of two sees only half a batch."""
    changes = {"data": str(drawings), "classes_per_batch": CLASSES, "images_per_class": IMAGES, "freeze_norm": True}
    work = tmp_path_factory.mktemp("work")
    halves = in_two_processes(trained_by, changes, work / "two")
    return trained_by(changes, work / "one"), *halves


def test_batch_is_divided_among_the_processes(both):
    alone, *halves = (seen for seen, _, _ in both)
    assert len(alone) == len(halves[0]) == len(halves[1]) == 84 // 16
    for whole, *parts in zip(alone, *halves, strict=True):
        assert [len(part) for part in parts] == [8, 8]
        assert parts[0] + parts[1] == whole, "the same pictures in the same order"
        counts = Counter(label for part in parts for label, _ in part)
        assert len(counts) == CLASSES
        assert set(counts.values()) == {IMAGES}
        assert len({picture for _, picture in whole}) == len(whole)


def test_two_processes_learn_the_same_weights_as_one(both):
    (_, start, alone), (_, _, first), (_, _, second) = both
    for name, value in alone.items():
        assert np.array_equal(first[name], second[name]), "both have the same"
        if not np.array_equal(value, start[name]):
            moved, apart = np.linalg.norm(value - start[name]), np.linalg.norm(value - first[name])
            assert apart < 1e-3 * moved, name
    learned = [name for name in alone if not np.array_equal(alone[name], start[name])]
    assert len(learned) > 0.9 * len(alone)


def test_launch_of_two_processes_makes_one_artifact(drawings, tmp_path):
    """A head with batch norm and dropout; one stage is unfrozen during training, the others stay unchanged."""
    changes = {"classes_per_batch": 12, "epochs": 2, "unfreeze": [0.3], "threads": 1}
    recipe = tiny_recipe("classifier", data=str(drawings), head="16-bn-relu-dropout0.5-8", **changes)
    (tmp_path / "two.yaml").write_text(json.dumps({**recipe.settings(), "name": "two"}))
    command = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", str(free_port()), "-m", "training", str(tmp_path / "two.yaml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON_EXEC": WARM.program(tmp_path / "python")}
    done = python(*command, "--out", str(tmp_path / "out"), env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    for said in ("training for 2 epochs of 7 steps, fp32, processes: 2", "\nserve it: "):
        assert done.stdout.count(said) == 1, "one of the two speaks"
    assert not (tmp_path / "out.training").exists()
    metrics = read_metrics(tmp_path / "out")
    assert metrics.training.steps == 14
    assert metrics.evaluation.seen.queries == 24
    searcher = Searcher.open(tmp_path / "out")
    assert len(searcher.search_by_id(searcher.gallery.ids[0], 5)) == 5

    start = starting_encoder(recipe).model.state_dict()
    found = load_artifact(tmp_path / "out").encoder.model.state_dict()
    same = {name for name in found if torch.equal(found[name], start[name])}
    assert same == {name for name in found if not name.startswith(("blocks.4", "conv_head", "bn2", "classifier"))}


def refusal(settings, out):
    with pytest.raises(TrainingError) as raised:
        train(tiny_recipe(**settings), out, say=lambda _: None)
    return str(raised.value)


def test_batch_that_cannot_be_divided_among_processes_is_an_error(tmp_path):
    settings = {"data": str(tmp_path / "nothing"), "classes_per_batch": 3, "images_per_class": 3}
    words = "a batch of 9 images cannot be divided among 2 processes: change classes_per_batch or images_per_class."
    assert in_two_processes(refusal, settings, tmp_path / "out") == [words, words]
    assert not list(tmp_path.iterdir()), "said before anything was written"


def test_device_of_training_is_the_one_asked_for(tmp_path, monkeypatch):
    recipe = tiny_recipe(data=str(tmp_path / "nothing"))
    monkeypatch.setenv(DEVICE, "cpu")
    assert training_arguments(recipe, tmp_path / "work", bf16=False).device.type == "cpu"
    monkeypatch.setenv(DEVICE, "mps" if torch.cuda.is_available() else "cuda")
    with pytest.raises(EncoderError, match=r"sees no device \w+ here, only cpu"):
        train(recipe, tmp_path / "out", say=lambda _: None)
    assert not list(tmp_path.iterdir()), "said before anything was written"
