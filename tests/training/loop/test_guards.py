"""Guards: real runs that fail with a clear message, and the checkpoints they leave."""

import json
from collections import deque
from pathlib import Path

import pytest
import torch
from conftest import BACKBONE, tiny_recipe
from safetensors.torch import load_file, save_file

from retrieval.encoders.image import Encoder
from retrieval.errors import TrainingError
from training.__main__ import main
from training.loop.guards import PATIENCE, CollapseGuard, check_finite, check_weights, last_checkpoint
from training.model.learner import starting_encoder
from training.run import train

pytestmark = pytest.mark.usefixtures("one_thread")

FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


def stopped(recipe, out, **options):
    """The error message of a run that is stopped."""
    with pytest.raises(TrainingError) as raised:
        train(recipe, out, say=lambda _: None, **options)
    assert "\n" not in str(raised.value)
    assert not out.exists()
    return str(raised.value)


def check_last_checkpoint(work):
    """The last checkpoint is complete and all its numbers are finite; returns its step."""
    last = last_checkpoint(work)
    assert all((last / name).is_file() for name in FILES)
    weights = load_file(last / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())
    moments = torch.load(last / "optimizer.pt")["state"]
    assert all(torch.isfinite(value).all() for each in moments.values() for value in each.values())
    step = int(last.name.removeprefix("checkpoint-"))
    assert json.loads((last / "trainer_state.json").read_text())["global_step"] == step
    return step


@pytest.fixture
def rewritten(tmp_path):
    """A function that applies `change(name, tensor)` to the tiny network's weights and saves them to a file."""

    def write(change):
        network = Encoder.create(BACKBONE, pretrained=False, seed=0).model
        state = {name: change(name, value).contiguous() for name, value in network.state_dict().items()}
        save_file(state, tmp_path / "weights")
        return str(tmp_path / "weights")

    return write


# Collapse


def test_collapsed_run_is_stopped_with_advice(drawings, tmp_path):
    """Hard triplets alone at a huge learning rate: soon all pictures have the same embedding."""
    changes = {"backbone": "test_convnext", "softmax": "none", "learning_rate": 10.0, "epochs": 20, "margin": 0.1}
    recipe = tiny_recipe(data=str(drawings), images_per_class=2, **changes)
    said = stopped(recipe, tmp_path / "out")
    assert "the embeddings have collapsed" in said
    assert "and start again: lower the learning rates (now learning_rate=10, head_learning_rate=" in said
    assert "use semi-hard triplets (--set triplet=semihard)" in said
    assert f" Delete {tmp_path / 'out.training'} and start again: " in said
    assert said.endswith("add a softmax loss (--set softmax=normalised).")
    check_last_checkpoint(tmp_path / "out.training")


def test_run_with_identical_embeddings_from_the_start_is_stopped(drawings, tmp_path, rewritten):
    weights = rewritten(lambda name, value: (torch.ones_like if name.endswith("bias") else torch.zeros_like)(value))
    recipe = tiny_recipe(data=str(drawings), weights=weights, images_per_class=2, epochs=6)
    said = stopped(recipe, tmp_path / "out")
    assert f"all embeddings are nearly the same for {PATIENCE} steps up to step {PATIENCE} (" in said
    assert "spread 0.0000" in said


def alarm(parts_of_steps, **changes):
    """The step at which the guard stops a run with these losses; None if it does not."""
    guard = CollapseGuard(tiny_recipe(margin=0.2, **changes), Path("run"))
    for step, parts in enumerate(parts_of_steps, 1):
        try:
            guard.watch(step, {name: torch.tensor(value) for name, value in parts.items()})
        except TrainingError as error:
            assert f"up to step {step}" in str(error)
            return step
    return None


ALIKE, STUCK, WELL = (
    {"triplet": 0.1, "spread": 0.001},
    {"triplet": 0.2, "spread": 0.5},
    {"triplet": 0.1, "spread": 0.5},
)


@pytest.mark.parametrize("bad", [ALIKE, STUCK, {"softmax": 3.0, "spread": 0.001}])
def test_collapse_is_reported_only_after_many_bad_steps_in_a_row(bad):
    assert alarm([bad] * (PATIENCE - 1)) is None
    assert alarm([bad] * PATIENCE) == PATIENCE
    assert alarm([*[bad] * (PATIENCE - 1), WELL] * 5) is None
    assert alarm([*[WELL] * 50, *[bad] * 99]) == 50 + PATIENCE
    assert alarm([bad, WELL] * 100) is None


@pytest.mark.parametrize(
    "well",
    [WELL, {"triplet": 0.19, "spread": 0.5}, {"triplet": 0.21, "spread": 0.5}, {"triplet": 0.0, "spread": 0.011}],
)
def test_healthy_run_is_not_stopped(well):
    assert alarm([well] * 200) is None
    assert alarm([{"softmax": 0.2, "spread": 0.5}] * 200) is None, "only a triplet loss has a margin"


def test_advice_omits_settings_already_in_use():
    recipe = tiny_recipe(margin=0.2, triplet="semihard", softmax="normalised")
    guard = CollapseGuard(recipe, Path("run"))
    with pytest.raises(TrainingError) as raised:
        for step in range(PATIENCE):
            guard.watch(step, {name: torch.tensor(value) for name, value in ALIKE.items()})
    assert "lower the learning rates" in str(raised.value)
    assert "--set" not in str(raised.value)


def test_triplet_loss_without_a_margin_raises_no_alarm():
    guard = CollapseGuard(tiny_recipe(margin=0), Path("run"))
    deque((guard.watch(step, {"triplet": torch.tensor(0.0), "spread": torch.tensor(0.5)}) for step in range(99)), 0)


# NaN and infinity


def test_nan_loss_stops_the_run_and_keeps_the_last_checkpoint(drawings, tmp_path, capsys):
    """A transformer at a huge learning rate overflows after some steps: a one-line error and exit status 1."""
    sizes = {"backbone": "test_vit", "image_size": 160, "test_size": 160, "images_per_class": 2, "classes_per_batch": 2}
    rates = {"learning_rate": 10.0, "head_learning_rate": 10.0, "warmup": 0.0, "softmax": "none", "epochs": 20}
    path = tmp_path / "wild.yaml"
    settings = tiny_recipe(data=str(drawings), save_steps=2, **sizes, **rates).settings()
    path.write_text(json.dumps({**settings, "name": "wild"}))
    command = [str(path), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(("error: the loss is nan at step ", "error: the loss is inf at step "))
    assert "learning_rate=10" in said
    assert "--set max_grad_norm=1" in said
    work = tmp_path / "out.training"
    step = check_last_checkpoint(work)
    assert f"the last good checkpoint is checkpoint-{step} in {work}" in said
    assert not (tmp_path / "out").exists()

    assert main([*command, "--resume"]) == 1, "it can be resumed, and fails in the same way"
    assert capsys.readouterr().err.splitlines() == [said]
    assert check_last_checkpoint(work) == step


def poisoned(name, value):
    return torch.full_like(value, torch.nan) if name == "blocks.3.0.conv_pw.weight" else value


def test_nan_in_the_starting_weights_is_an_error(drawings, tmp_path, rewritten):
    weights = rewritten(poisoned)
    said = stopped(tiny_recipe(data=str(drawings), weights=weights), tmp_path / "out")
    assert said.startswith("the weights give features that are not finite")
    assert last_checkpoint(tmp_path / "out.training") is None
    frozen = tiny_recipe("frozen", data=str(drawings), weights=weights, classes_per_batch=4)
    with pytest.raises(TrainingError, match="the weights give features that are not finite"):
        train(frozen, tmp_path / "frozen", say=lambda _: None)


def test_non_finite_loss_or_weights_are_an_error(tmp_path):
    recipe = tiny_recipe()
    for value in ("nan", "inf", "-inf"):
        with pytest.raises(TrainingError, match=f"the loss is {value} at step 7; there is no checkpoint yet"):
            check_finite(7, torch.tensor(float(value)), recipe, tmp_path / "nothing")
    check_finite(7, torch.tensor(1e30), recipe, tmp_path / "nothing")
    network = starting_encoder(recipe).model
    check_weights(7, network, recipe, tmp_path)
    with torch.no_grad():
        network.bn1.running_var[0] = torch.inf
    with pytest.raises(TrainingError, match="the weights are not finite at step 7; there is no checkpoint yet"):
        check_weights(7, network, recipe, tmp_path)


def test_last_checkpoint_is_the_one_with_the_highest_step(tmp_path):
    assert last_checkpoint(tmp_path / "nothing") is None
    for name in ("checkpoint-9", "checkpoint-10", "unfinished", "checkpoint-x", "unfinished/checkpoint-11"):
        (tmp_path / name).mkdir()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
