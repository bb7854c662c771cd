"""A build on a Ray cluster: the same artifact, byte for byte, as one build here."""

from __future__ import annotations

import shutil

import pytest
from conftest import noise

from retrieval.__main__ import main

pytest.importorskip("ray")
MODEL = ["--backbone", "test_efficientnet", "--no-pretrained", "--image-size", "64"]


def test_build_with_ray_continues_and_is_the_artifact_of_one_build(tmp_path, capsys):
    for number in range(30):
        noise(tmp_path / "pictures" / "ab"[number // 15] / f"{number}.png", number)
    shutil.copy(tmp_path / "pictures" / "a" / "1.png", tmp_path / "pictures" / "b" / "again.png")
    source, model = str(tmp_path / "pictures"), MODEL
    one, other = tmp_path / "one", tmp_path / "other"
    assert main(["build", source, "--out", str(one), *model]) == 0
    assert main(["build", source, "--out", str(tmp_path / "other.parts" / "part_00001"), *model, "--shard", "1/4"]) == 0
    capsys.readouterr()
    ray = ["--ray", "local", "--ray-workers", "2", "--parts", "4"]
    assert main(["build", source, "--out", str(other), *model, *ray]) == 0
    told = capsys.readouterr()
    assert "4 parts on 2 workers" in told.err
    assert "indexed 30" in told.out
    names = sorted(path.relative_to(one).as_posix() for path in one.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(other).as_posix() for path in other.rglob("*") if path.is_file())
    assert [name for name in names if (one / name).read_bytes() != (other / name).read_bytes()] == []
    assert not (tmp_path / "other.parts").exists()


def test_cluster_that_is_not_there_is_a_sentence(tmp_path, capsys):
    noise(tmp_path / "pictures" / "1.png", 1)
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        command = ["build", str(tmp_path / "pictures"), "--out", str(tmp_path / "new"), *MODEL, "--ray", address]
        assert main(command) == 1
        assert f"no Ray cluster at {address}: " in capsys.readouterr().err
