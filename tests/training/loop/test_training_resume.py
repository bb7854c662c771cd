"""Runs killed by SIGKILL at different moments resume and reach exactly the same weights."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from conftest import WARM, in_two_processes, start_two_processes, tiny_recipe

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact, read_metrics
from retrieval.errors import TrainingError
from training.__main__ import main
from training.loop.guards import last_checkpoint
from training.recipe import load_recipe
from training.run import train

pytestmark = pytest.mark.usefixtures("one_thread")

# With one epoch the last checkpoint is also the best one; with more, the losses of all steps are compared.
RECIPES = {
    "dropout": (
        "classifier",
        {
            "head": "32-bn-relu-dropout0.5-16",
            "classes_per_batch": 12,
            "epochs": 1,
            "unfreeze": [0.3, 0.6],
            "head_start": 1,
        },
    ),
    "random triplets": (
        "random-triplet",
        {
            "head": "linear-16",
            "generic_share": 0.3,
            "classes_per_batch": 4,
            "images_per_class": 3,
            "epochs": 1.8,
            "frozen_stride": 2,
        },
    ),
}
STEPS = 7  # per epoch, in both recipes
LAST = {"dropout": STEPS, "random triplets": 13}  # 1.8 epochs, rounded up


@pytest.fixture(scope="module")
def files(drawings, tmp_path_factory):
    """The recipes as files; name -> path."""
    folder = tmp_path_factory.mktemp("recipes")
    for name, (recipe, changes) in RECIPES.items():
        settings = tiny_recipe(recipe, data=str(drawings), save_steps=2, threads=1, **changes).settings()
        (folder / f"{name}.yaml").write_text(json.dumps(settings))
    return {name: folder / f"{name}.yaml" for name in RECIPES}


def started(file, out, *options):
    return WARM.start("-m", "training", file, "--out", out, *options)


def finished(file, out, *options):
    """Run to the end; return the artifact's folder."""
    process = started(file, out, *options)
    assert process.wait() == 0
    return out


def work_of(out):
    return out.parent / f"{out.name}.training"


class Stopped:
    """A run that is paused (SIGSTOP) at a given moment until it is continued or killed."""

    def __init__(self, file, out, moment, *options):
        self.process = started(file, out, *options)
        while True:
            assert self.process.poll() is None, "the moment never came"
            if moment(out):
                os.kill(self.process.pid, signal.SIGSTOP)
                while Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
                    time.sleep(0.001)
                if moment(out):
                    break
                os.kill(self.process.pid, signal.SIGCONT)
            time.sleep(0.001)

    def end(self, kind=signal.SIGKILL):
        os.kill(self.process.pid, kind)
        os.kill(self.process.pid, signal.SIGCONT)
        return self.process.wait()


def killed(file, out, moment):
    assert Stopped(file, out, moment).end() == -signal.SIGKILL
    assert not out.exists()
    return out


def checkpoint(step):
    return lambda out: (work_of(out) / f"checkpoint-{step}").exists()


def being_written(step):
    return lambda out: (work_of(out) / "unfinished" / f"checkpoint-{step}").exists()


def artifact_being_written(out):
    return (out.parent / f".{out.name}.building").exists()


def weights_of(out):
    return (out / LAYOUT.weights).read_bytes()


def history_of(out):
    """Losses and metrics by step."""
    return [
        {name: value for name, value in entry.items() if name != "seconds"}
        for entry in read_metrics(out).training.history
    ]


def check_same(out, whole):
    load_artifact(out)
    assert history_of(out) == history_of(whole)
    assert weights_of(out) == weights_of(whole)
    ours, theirs = read_metrics(out), read_metrics(whole)
    assert ours.evaluation == theirs.evaluation
    assert ours.audit == theirs.audit
    assert {path.name for path in out.parent.iterdir()} <= {out.name, f".{out.name}.lock"}


def learned(out, name):
    """The losses and metrics by step and the weights in a run's last checkpoint."""
    last = work_of(out) / f"checkpoint-{LAST[name]}"
    history = json.loads((last / "trainer_state.json").read_text())["log_history"]
    timed = ("runtime", "_per_second", "seconds")
    kept = [{key: value for key, value in entry.items() if not key.endswith(timed)} for entry in history]
    return kept, (last / "model.safetensors").read_bytes()


def learned_by(files, name, out, *options):
    """The same for a run that is killed at its last checkpoint, before it makes an artifact."""
    assert Stopped(files[name], out, checkpoint(LAST[name]), *options).end() == -signal.SIGKILL
    return learned(out, name)


@pytest.fixture(scope="module")
def unbroken(files, tmp_path_factory):
    """For each uninterrupted run: its artifact, and its last checkpoint from before the artifact was made."""
    folder, found = tmp_path_factory.mktemp("whole"), {}
    for name, file in files.items():
        run = Stopped(file, folder / name, checkpoint(LAST[name]))
        found[name] = (folder / name, learned(folder / name, name))
        assert run.end(signal.SIGCONT) == 0
    return found


@pytest.fixture(scope="module")
def whole(unbroken):
    """The artifacts of the uninterrupted runs."""
    return {name: out for name, (out, _) in unbroken.items()}


@pytest.fixture(scope="module")
def lessons(unbroken):
    """The last checkpoints of the uninterrupted runs."""
    return {name: found for name, (_, found) in unbroken.items()}


@pytest.fixture(scope="module")
def early(files, tmp_path_factory):
    """The folder of a run that was killed as soon as its first checkpoint existed."""
    return killed(files["dropout"], tmp_path_factory.mktemp("early") / "it", checkpoint(2))


@pytest.fixture
def copied(early, tmp_path):
    """The path of an artifact to make, next to a copy of the killed run's working folder."""
    shutil.copytree(work_of(early), work_of(tmp_path / "it"))
    return tmp_path / "it"


def test_uninterrupted_runs_have_the_expected_steps_and_losses(whole):
    """The later tests rely on this: the last weights are the ones kept, and many steps have a recorded loss."""
    training = read_metrics(whole["dropout"]).training
    assert training.best.step == training.steps == STEPS
    assert [entry["step"] for entry in training.history if "loss" in entry] == [2, 4, 6, 7]
    training = read_metrics(whole["random triplets"]).training
    assert training.steps == LAST["random triplets"]
    assert {2, 4, 6, 8, 12} <= {entry["step"] for entry in training.history if "loss" in entry}


def test_run_killed_after_its_first_checkpoint_resumes_identically(files, whole, copied):
    assert last_checkpoint(work_of(copied)).name == "checkpoint-2"
    check_same(finished(files["dropout"], copied, "--resume"), whole["dropout"])


def test_workers_and_cache_size_do_not_change_the_weights(files, lessons, tmp_path):
    """A batch does not depend on which process makes it, or on whether its pictures are cached."""
    found = learned_by(files, "dropout", tmp_path / "it", "--set", "workers=1", "--set", "cache_gb=0")
    assert found == lessons["dropout"]


def test_resuming_without_the_random_state_gives_other_weights(files, lessons, copied):
    """The negative control: shows that the tests notice when the random state is not restored."""
    (work_of(copied) / "checkpoint-2" / "rng_state.pth").unlink()
    history, weights = learned_by(files, "dropout", copied, "--resume")
    expected, other_weights = lessons["dropout"]
    assert weights != other_weights
    assert [entry["step"] for entry in history] == [entry["step"] for entry in expected]
    assert history[0] == expected[0]
    assert history[1:] != expected[1:]


def test_run_killed_while_writing_a_checkpoint_resumes_identically(files, lessons, tmp_path):
    out = killed(files["dropout"], tmp_path / "it", being_written(4))
    assert (work_of(out) / "unfinished").is_dir()
    assert last_checkpoint(work_of(out)).name == "checkpoint-2", "one that is not whole is none"
    assert learned_by(files, "dropout", out, "--resume") == lessons["dropout"]


def test_run_killed_before_its_first_checkpoint_starts_over(files, lessons, tmp_path):
    """There is nothing to resume, and nothing blocks a new start."""
    out = killed(files["dropout"], tmp_path / "it", being_written(2))
    assert last_checkpoint(work_of(out)) is None
    assert learned_by(files, "dropout", out, "--resume") == lessons["dropout"]


def test_run_killed_between_epochs_resumes_identically(files, lessons, tmp_path):
    out = killed(files["random triplets"], tmp_path / "it", checkpoint(STEPS))
    assert learned_by(files, "random triplets", out, "--resume") == lessons["random triplets"]


def test_run_killed_several_times_resumes_identically(files, whole, tmp_path):
    """Killed in the first epoch, in the second, and while the artifact is written."""
    file, out = files["random triplets"], tmp_path / "it"
    killed(file, out, checkpoint(4))
    assert Stopped(file, out, checkpoint(STEPS + 3), "--resume").end() == -signal.SIGKILL
    assert Stopped(file, out, artifact_being_written, "--resume").end() == -signal.SIGKILL
    assert not out.exists()
    assert last_checkpoint(work_of(out)).name == f"checkpoint-{LAST['random triplets']}"
    check_same(finished(file, out, "--resume"), whole["random triplets"])


def resumable(file, out):
    return main([str(file), "--out", str(out), "--resume"])


def test_killed_run_of_two_processes_resumes_identically(files, tmp_path):
    """Each process has its own random state, which must be restored."""
    file, whole, out = files["dropout"], tmp_path / "whole" / "it", tmp_path / "killed" / "it"
    assert in_two_processes(resumable, file, whole) == [0, 0]
    processes, _ = start_two_processes(resumable, file, out)
    while not checkpoint(4)(out):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.001)
    for process in processes:
        process.kill()
    for process in processes:
        assert process.wait() == -signal.SIGKILL
    assert len(list(last_checkpoint(work_of(out)).glob("rng_state_*.pth"))) == 2
    assert in_two_processes(resumable, file, out) == [0, 0]
    check_same(out, whole)


def test_only_the_last_and_best_checkpoints_are_kept(files, tmp_path):
    """The last one and the best one are kept, older ones are deleted."""
    out = tmp_path / "it"
    run = Stopped(files["random triplets"], out, checkpoint(STEPS + 5))
    found = {path.name for path in work_of(out).glob("checkpoint-*")}
    try:
        with pytest.raises(TrainingError, match="another process is training in"):
            train(load_recipe(str(files["random triplets"])), out, resume=True, say=lambda _: None)
    finally:
        assert run.end(signal.SIGINT) == 130, "interrupted, and not killed"
    assert {f"checkpoint-{STEPS + 5}"} <= found <= {f"checkpoint-{STEPS + 5}", f"checkpoint-{STEPS}", "checkpoint-10"}
    assert not out.exists()
    assert last_checkpoint(work_of(out)) is not None


def test_unfinished_run_is_not_restarted_by_accident(files, copied):
    recipe = load_recipe(str(files["dropout"]))
    before = sorted(path.name for path in work_of(copied).rglob("*"))
    with pytest.raises(TrainingError) as raised:
        train(recipe, copied, say=lambda _: None)
    said = "contains an unfinished run with checkpoint-2: continue it with --resume, or delete that folder."
    assert str(raised.value) == f"{work_of(copied)} {said}"
    assert sorted(path.name for path in work_of(copied).rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 5}, "with seed=0, not 5"),
        ({"learning_rate": 1e-5}, "with learning_rate=0.0003, not 1e-05"),
        ({"hold_out_classes": 0.2}, "with hold_out_classes=0.0, not 0.2"),
    ],
)
def test_unfinished_run_cannot_be_resumed_with_another_recipe(files, copied, changes, said):
    recipe = load_recipe(str(files["dropout"]), changes)
    with pytest.raises(TrainingError) as raised:
        train(recipe, copied, resume=True, say=lambda _: None)
    assert said in str(raised.value)
    assert "resume it with the same recipe, or delete that folder" in str(raised.value)


def test_unfinished_run_cannot_be_resumed_with_other_data(files, copied, drawings, tmp_path):
    """The same recipe, but the data has changed: row numbers would refer to other images."""
    moved = Path(shutil.copytree(drawings, tmp_path / "moved"))
    settings = json.loads((work_of(copied) / "recipe.json").read_text())
    (work_of(copied) / "recipe.json").write_text(json.dumps({**settings, "data": str(moved)}))
    shutil.copy(moved / "test.parquet", moved / "train.parquet")
    with pytest.raises(TrainingError, match=r"the images or labels of .* have changed since the run in .* was started"):
        train(load_recipe(str(files["dropout"]), {"data": str(moved)}), copied, resume=True, say=lambda _: None)


def test_run_resumes_when_only_file_dates_have_changed(files, lessons, copied, drawings):
    for path in drawings.rglob("*"):
        os.utime(path)
    assert learned_by(files, "dropout", copied, "--resume") == lessons["dropout"]
