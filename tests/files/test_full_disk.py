"""A disk that is full, broken or forbidden from some moment on: one sentence, the old artifact, nothing left beside it.

The moments are the changes of the file system that a command makes. `LOOKALIKE_MOMENTS` is the number of moments that
are tried per command and error (0: all); by default each error is tried once per command.
"""

import os
import shutil
from pathlib import Path

import pytest
from conftest import BACKBONE, WARM, contents, noise
from moments import run, trained_whole
from refusing import only_here
from safetensors.torch import load_file

from retrieval.artifact.load import load_artifact
from retrieval.build.build import build_artifact
from retrieval.build.parts.build import build_part
from retrieval.sources.open import open_source
from training.loop.guards import last_checkpoint

MOMENTS = int(os.environ["LOOKALIKE_MOMENTS"]) if "LOOKALIKE_MOMENTS" in os.environ else None
DATA = ["write", "writev", "pwrite64", "pwritev", "fallocate", "sendfile", "copy_file_range"]
NAMES = [
    "open",
    "openat",
    "mkdir",
    "mkdirat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
]
FAULTS = {"ENOSPC": DATA, "EDQUOT": DATA, "EIO": [*DATA, "fsync"], "EROFS": [*DATA, *NAMES, "rmdir"]}
SAID = {
    "ENOSPC": "No space left on device; ",
    "EDQUOT": "Disk quota exceeded; ",
    "EIO": "Input/output error",
    "EROFS": "Read-only file system",
}


@pytest.fixture(scope="module")
def scene(encoder, tmp_path_factory):
    """An artifact of 8 images, and the command lines that change it."""
    root = tmp_path_factory.mktemp("scene")
    for seed in range(8):
        noise(root / "one" / f"{seed % 2}" / f"{seed}.png", seed)
    for seed in range(4, 12):
        noise(root / "two" / f"{seed % 2}" / f"{seed}.png", seed)
    build_artifact(open_source(str(root / "one")), root / "at" / "it", encoder)
    first = load_artifact(root / "at" / "it").gallery.ids[0]
    (root / "at" / "out.csv").write_text("mine")
    for part in (0, 1):
        build_part(open_source(str(root / "two")), root / "parts" / f"{part}", encoder, part, 2)
    model = ["--force", "--no-pretrained", "--backbone", BACKBONE]
    return root, {
        "build": [root / "two", "--out", "{at}/it", *model],
        "build part": [root / "two", "--out", "{at}/part", "--shard", "0/2", *model],
        "merge": [root / "parts" / "0", root / "parts" / "1", "--out", "{at}/it", "--force"],
        "add": ["{at}/it", root / "two"],
        "sync": ["{at}/it", root / "two"],
        "remove": ["{at}/it", first],
        "list": ["{at}/it", "--csv", "{at}/out.csv"],
        "duplicates": ["{at}/it", "--csv", "{at}/out.csv"],
        "export": ["{at}/it", "--npy", "{at}/npy"],
    }


def try_it(command, arguments, at, error="KILL", moment=0):
    words = [command.partition(" ")[0], *(str(word).format(at=at) for word in arguments)]
    return run(WARM.start, words, error, moment, FAULTS.get(error, ()))


def moments(count):
    """Pairs of an error and the number of a change: by default each error once, spread over all changes."""
    if MOMENTS is None:
        return [(error, 1 + count * number // len(FAULTS)) for number, error in enumerate(FAULTS)]
    numbers = sorted({1 + count * number // (MOMENTS or count) for number in range(MOMENTS or count)})
    return [(error, number) for error in FAULTS for number in numbers]


def copied(root, tmp_path, name):
    return Path(shutil.copytree(root / "at", tmp_path / name))


def kept(at):
    return {name: data for name, data in contents(at).items() if name.startswith("it/") or name == "out.csv"}


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@only_here
@pytest.mark.parametrize(
    "command", ["build", "build part", "merge", "add", "sync", "remove", "list", "duplicates", "export"]
)
def test_disk_that_fails_in_the_middle_is_one_sentence_and_changes_nothing(command, scene, tmp_path):
    root, commands = scene
    whole = copied(root, tmp_path, "whole")
    status, out, err = try_it(command, commands[command], whole)
    assert status == 0, err
    count = int(out.split()[-2])
    failed = 0
    for error, moment in moments(count):
        at = copied(root, tmp_path, "at")
        status, out, err = try_it(command, commands[command], at, error, moment)
        if status == 0:  # nothing was written any more, or only old files could not be deleted
            shutil.rmtree(at)
            continue
        failed += 1
        where = f"{command}, {error} at change {moment}: {err}"
        assert status == 1, where
        assert "Traceback" not in err, where
        said = err.strip().splitlines()[-1]
        assert said.startswith(f"error: {at}"), where
        assert " cannot be written (" in said, where
        assert SAID[error] in said, where
        assert (" MB free" in said) == (error in ("ENOSPC", "EDQUOT")), where
        assert kept(at) == kept(root / "at"), where
        load_artifact(at / "it")
        if error != "EROFS":  # where nothing can be deleted either
            left = names(at) - names(root / "at") - names(whole) - {".it.lock"}
            assert not [name for name in left if "unfinished" in name or ".new" in name], where
        shutil.rmtree(at)
    assert failed >= min(count, 3)


@only_here
def test_artifact_is_changed_on_a_drive_without_links_and_exchange(scene, tmp_path):
    root, commands = scene
    at = copied(root, tmp_path, "at")
    calls = ["link", "linkat", "symlink", "symlinkat", "renameat2"]
    status, _, err = run(
        WARM.start, ["remove", *(str(word).format(at=at) for word in commands["remove"])], "EPERM", 1, calls
    )
    assert status == 0, err
    assert len(load_artifact(at / "it").gallery) == 7
    assert {path.name for path in at.iterdir()} == {"it", ".it.lock", "out.csv"}


@only_here
def test_checkpoint_that_cannot_be_written_is_one_sentence_and_keeps_those_before(drawings, tmp_path):
    words, out = trained_whole(drawings, tmp_path)
    count = int(out.split()[-2])
    for error, moment in moments(count) if MOMENTS is not None else [("ENOSPC", count // 2)]:
        at = tmp_path / "at"
        at.mkdir()
        status, _, err = run(WARM.start, words, error, moment, FAULTS[error], cwd=at)
        where = f"{error} at change {moment}: {err}"
        if status:
            assert "Traceback" not in err, where
            said = err.strip().splitlines()[-1]
            assert said.startswith("error: "), where
            shared_memory = "file </torch_" in said  # which fails here, too
            assert f" cannot be written ({SAID[error]}" in said or shared_memory, where
            assert not (at / "it").exists(), where
            if error != "EROFS":
                assert not [name for name in contents(at) if "unfinished" in name], where
        if last := last_checkpoint(at / "it.training"):
            assert load_file(last / "model.safetensors")
        shutil.rmtree(at)
