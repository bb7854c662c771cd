"""How the tests are run. What they share is in `support/common.py`, which test files import from here.

The process that only hands out tests to the workers does not need it: importing takes seconds in which no test runs.
"""

import compileall
import gc
import importlib
import os
import sys
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

gc.disable()  # until all tests are collected: a quarter of the time of importing would go into looking for garbage

os.environ["HF_HUB_OFFLINE"] = "1"  # set before importing anything that reads it
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # each core runs its own test worker
# No test speaks TLS, and reading the certificates of all authorities takes each new HTTP client 40 ms.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)
# Modules are compiled once, and not in each of the many processes.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

SHARED = "common"
DECODERS = Path(__file__).parents[1] / "retrieval" / "images" / "door"


def __getattr__(name):
    if name.startswith(("__", "pytest", "collect_ignore")):  # which pytest looks for in every conftest
        raise AttributeError(name)
    return getattr(importlib.import_module(SHARED), name)


def pytest_configure(config):
    """Load the fixtures where tests run: in a worker, or here without workers."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(DECODERS, quiet=2)  # the processes that decode write no bytecode
    if hasattr(config, "workerinput") or config.getoption("dist") == "no":
        config.pluginmanager.import_plugin(SHARED)


def pytest_addoption(parser):
    parser.addoption("--fuzz", type=int, default=150, help="random requests that the fuzzing of the server sends")
    parser.addoption("--fuzz-seed", type=int, default=0, help="where its random numbers begin")


# Tests of these files run on one worker because they share a Chromium or a Hub; other files are a group of their own.
GROUPS = {"tests/ui/test_": "page", "tests/hub/": "hub", "tests/sources/test_sources_hub": "hub"}


def group_of(nodeid):
    """The group of a test; the tests of a group run on one worker, one after the other."""
    file = nodeid.partition("::")[0]
    return next((group for start, group in GROUPS.items() if file.startswith(start)), file)


def pytest_collection_modifyitems(items):
    """Run the slowest groups first, so that the workers finish at about the same time."""
    files = ["build/test_resume", "artifact/test_atomic", "training/test_training_run"]
    files += ["training/loop/test_training_resume", "evaluation/test_plots", "bench/test_bench_page"]
    files += ["training/loop/test_training_processes", "test_install", "artifact/test_map"]
    order = ["page", "hub", *(f"tests/{file}.py" for file in files)]
    items.sort(key=lambda item: [*order, group_of(item.nodeid)].index(group_of(item.nodeid)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Distribute tests to workers by group."""

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid)

    return Groups(config, log)


def pytest_collection_finish():
    """Exclude everything imported so far from garbage collection: it stays until the end."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_sessionfinish():
    gc.unfreeze()
