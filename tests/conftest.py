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
os.environ["LOOKALIKE_CACHE"] = ""  # nothing is remembered between tests, nor written to the home of whoever runs them
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
HUB = ("tests/hub/", "tests/sources/test_sources_hub", "tests/artifact/test_text_and_map")
GROUPS = {"tests/ui/test_": "page", **dict.fromkeys(HUB, "hub")}
# The groups that take more than ten seconds, the longest first.
_FILES = """
    training/loop/test_training_resume training/test_training_run artifact/test_atomic build/test_resume
    files/test_full_disk test_light encoders/test_presets ui/server/test_serving bench/test_bench_page
    training/loop/test_training_processes ui/api/test_private_events evaluation/test_plots ui/api/test_endpoints
    artifact/test_map test_install build/test_build files/test_kills build/test_parts encoders/test_engines
    ui/api/test_refined bench/test_bench test_programs ui/server/test_several images/test_workers
    training/loop/test_guards build/test_weights_licence build/test_write encoders/test_encoder ui/api/test_tools
    encoders/test_exported_text build/test_precision training/data/test_audit stores/test_servers test_cli
    test_docs_code
"""
LONGEST = ["page", "hub", *(f"tests/{file}.py" for file in _FILES.split())]


def group_of(nodeid):
    """The group of a test; the tests of a group run on one worker, one after the other."""
    file = nodeid.partition("::")[0]
    return next((group for start, group in GROUPS.items() if file.startswith(start)), file)


def pytest_collection_modifyitems(items):
    """Run the slowest groups first, so that the workers finish at about the same time."""
    rank = {group: number for number, group in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(group_of(item.nodeid), len(rank)))


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
