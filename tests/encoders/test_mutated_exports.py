"""Exported networks that were changed at random: refused, or run in a process that survives and stays small.

`LOOKALIKE_MUTATIONS=6000` makes that many mutants.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[1] / "support"
COUNT = int(os.environ.get("LOOKALIKE_MUTATIONS", "0")) or 200
MOST_MEMORY = 1_000  # MB, of which the engines take 200


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells its peak memory on Linux only")
def test_mutants_of_a_network_are_refused_or_run():
    run = subprocess.run(
        [sys.executable, SUPPORT / "mutated_networks.py", str(COUNT)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{SUPPORT.parents[1]}:{SUPPORT}"},
    )
    assert run.returncode == 0, run.stderr[-2_000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["refused"] + found["failed"] + found["passed"] == COUNT
    assert found["passed"] > COUNT // 30  # an engine sees some of them
    assert found["peak"] < MOST_MEMORY
