"""A process killed with SIGKILL at any moment leaves what was there before, or the new thing, and nothing in between.

`LOOKALIKE_KILLS` is the number of kills per command, 1 by default; of a training half as many. Pushes are killed in
`tests/hub/test_hub_kills.py`.
"""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from conftest import BACKBONE, WARM, noise
from moments import kills, run, trained_whole
from safetensors.torch import load_file

from retrieval.artifact.atomic import writing
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact
from retrieval.build.build import build_artifact
from retrieval.build.parts.build import build_part
from retrieval.build.parts.folder import read_part
from retrieval.sources.open import open_source
from training.loop.guards import last_checkpoint

KILLS = int(os.environ.get("LOOKALIKE_KILLS", "1"))


@pytest.fixture(scope="module")
def scene(encoder, tmp_path_factory):
    """A folder with an artifact of 8 images, and the commands that change it."""
    root = tmp_path_factory.mktemp("scene")
    for name, seeds in (("one", range(8)), ("two", range(4, 12))):
        for seed in seeds:
            noise(root / name / f"{seed % 2}" / f"{seed}.png", seed)
    build_artifact(open_source(str(root / "one")), root / "at" / "it", encoder)
    (root / "at" / "it" / "notes.txt").write_text("mine")
    first = load_artifact(root / "at" / "it").gallery.ids[0]
    for part in (0, 1):
        build_part(open_source(str(root / "two")), root / "parts" / f"{part}", encoder, part, 2)
    model = ["--force", "--no-pretrained", "--backbone", BACKBONE]
    return root, {
        "build": ["build", root / "two", "--out", "it", *model],
        "add": ["add", "it", root / "two"],
        "sync": ["sync", "it", root / "two"],
        "remove": ["remove", "it", first],
        "merge": ["merge", root / "parts" / "0", root / "parts" / "1", "--out", "it", "--force"],
        "part": ["build", root / "two", "--out", "part", "--shard", "0/2", *model],
    }


@pytest.mark.parametrize("command", ["build", "add", "sync", "remove", "merge"])
def test_killed_command_leaves_the_old_or_the_new_artifact(command, scene, tmp_path):
    root, commands = scene
    whole = Path(shutil.copytree(root / "at", tmp_path / "whole"))
    status, out, err = run(WARM.start, commands[command], cwd=whole)
    assert status == 0, err
    old, new = (load_artifact(folder / "it").gallery.ids for folder in (root / "at", whole))
    ends = []
    for kind, moment in kills(out, KILLS):
        at = Path(shutil.copytree(root / "at", tmp_path / "at"))
        status, _, err = run(WARM.start, commands[command], kind, moment, cwd=at)
        assert status == -signal.SIGKILL or (kind == "AFTER" and status == 0), err
        ids = load_artifact(at / "it").gallery.ids
        assert ids in (old, new), (kind, moment)
        ends.append(ids == new)
        with writing(at / "it", LAYOUT.own()):  # what the next change begins with
            pass
        assert load_artifact(at / "it").gallery.ids == ids
        assert (at / "it" / "notes.txt").read_text() == "mine"
        assert {path.name for path in at.iterdir()} <= {"it", ".it.lock", ".it.building"}
        if len(ends) % 10 == 1 and command != "remove":
            status, _, err = run(WARM.start, commands[command], cwd=at)
            assert status == 0, err
            assert load_artifact(at / "it").gallery.ids == new
            assert {path.name for path in at.iterdir()} <= {"it", ".it.lock"}
        shutil.rmtree(at)
    print(f"{len(ends)} kills of {command}: {ends.count(False)} left the old artifact, {ends.count(True)} the new one")
    assert False in ends


def test_killed_part_is_there_as_a_whole_or_not_at_all_and_continues(scene, tmp_path):
    words = scene[1]["part"]
    (tmp_path / "whole").mkdir()
    status, out, err = run(WARM.start, words, cwd=tmp_path / "whole")
    assert status == 0, err
    whole = read_part(tmp_path / "whole" / "part")
    for kind, moment in kills(out, KILLS):
        at = tmp_path / "at"
        at.mkdir()
        status, _, err = run(WARM.start, words, kind, moment, cwd=at)
        assert status == -signal.SIGKILL or (kind == "AFTER" and status == 0), err
        if (at / "part").exists():
            read_part(at / "part").check_files()
        for force in ([], ["--force"]):  # the first time, a finished part stays
            status, _, err = run(WARM.start, [word for word in words if word != "--force"] + force, cwd=at)
            assert status == 0, err
            assert read_part(at / "part").stated == whole.stated
            assert {path.name for path in at.iterdir()} <= {"part", ".part.lock"}
        shutil.rmtree(at)


def test_killed_training_leaves_whole_checkpoints_or_the_artifact(drawings, tmp_path):
    words, out = trained_whole(drawings, tmp_path)
    ids = load_artifact(tmp_path / "whole" / "it").gallery.ids
    steps = []
    for kind, moment in kills(out, max(KILLS // 2, 1)):
        at = tmp_path / "at"
        at.mkdir()
        status, _, err = run(WARM.start, words, kind, moment, cwd=at)
        assert status == -signal.SIGKILL or (kind == "AFTER" and status == 0), err
        if (at / "it").exists():
            assert load_artifact(at / "it").gallery.ids == ids
        last = last_checkpoint(at / "it.training")
        steps.append(0 if last is None else int(last.name.rpartition("-")[2]))
        if last:
            assert load_file(last / "model.safetensors")
            assert torch.load(last / "optimizer.pt", weights_only=True)
            assert json.loads((last / "trainer_state.json").read_text())["global_step"] == steps[-1]
        if len(steps) % 10 == 2:
            status, _, err = run(WARM.start, [*words, "--resume"], cwd=at)
            assert status == 0, err
            assert load_artifact(at / "it").gallery.ids == ids
            assert {path.name for path in at.iterdir()} <= {"it", ".it.lock"}
        shutil.rmtree(at)
    print(f"{len(steps)} kills of training; last steps kept: {steps}")
