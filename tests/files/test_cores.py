"""The cores that a process may use, also where a container has a share of the machine's."""

import os

import pytest

from retrieval.files import system as module
from retrieval.files.system import cores, share_of


@pytest.mark.parametrize(
    ("files", "share"),
    [
        ({"cpu.max": "200000 100000\n"}, 2.0),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": ""}, None),
        ({}, None),
    ],
)
def test_share_of_a_container_is_read_in_both_forms(tmp_path, files, share):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert share_of(tmp_path) == share


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not tell")
def test_cores_are_those_that_may_be_used_and_no_more_than_the_share(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CONTROL_GROUP", tmp_path)
    allowed = len(os.sched_getaffinity(0))
    assert cores() == allowed
    for content, expected in (("50000 100000", 1), ("100000000 100000", allowed), ("max 100000", allowed)):
        (tmp_path / "cpu.max").write_text(content)
        assert cores() == expected
