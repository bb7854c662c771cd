"""What this system does with files, where it has to be known before it is tried, and the cores that it gives."""

from __future__ import annotations

import math
import os
from pathlib import Path

MOVES_OPEN_FILES = os.name != "nt"
"""Whether a folder can be renamed or deleted while a file in it is open: Windows refuses that."""

_CONTROL_GROUP = Path("/sys/fs/cgroup")


def cores() -> int:
    """The cores that the process may run on, or fewer if its control group has less processor time than they give."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, math.ceil(share_of(_CONTROL_GROUP) or allowed))


def share_of(control_group: Path) -> float | None:
    """The processor time that a control group of Linux has, in cores; None without a limit.

    Both versions are read: `cpu.max` of the second, and the two files of the first one.
    """
    first = control_group / "cpu"
    for files in ([control_group / "cpu.max"], [first / "cpu.cfs_quota_us", first / "cpu.cfs_period_us"]):
        try:
            quota, period = map(int, " ".join(path.read_text() for path in files).split())
        except (OSError, ValueError):  # there is no such file, or it says `max`
            continue
        return quota / period if quota > 0 and period > 0 else None
    return None
