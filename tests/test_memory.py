"""Large pictures stay in the processes that decode them: how much memory a search and a build take, by the kernel."""

import gc
from pathlib import Path

import pytest
from PIL import Image

from retrieval.artifact.load import load_artifact
from retrieval.build.build import build_artifact
from retrieval.images.door.workers.apart import AVAILABLE
from retrieval.images.open import open_image
from retrieval.query import Part
from retrieval.search import Searcher
from retrieval.sources.open import open_source
from retrieval.ui.pieces.thumbnails import ThumbnailFiles

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="pictures are decoded in processes of their own on Linux only")
LARGE = 75 * 2**20  # bytes of a picture of 25 megapixels


def memory(peak):
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM" if peak else "VmRSS"].split()[0]) * 1024


def growth(work):
    """By how many bytes this process was larger than before, at most, while it did this."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory(peak=False)
    work()
    return memory(peak=True) - before


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A folder of two pictures of 25 megapixels."""
    folder = tmp_path_factory.mktemp("large")
    for name, colour in (("red.jpg", (200, 30, 30)), ("blue.png", (20, 30, 200))):
        Image.new("RGB", (5000, 5000), colour).save(folder / name, **{"compress_level": 1} if "png" in name else {})
    return folder


def test_search_with_a_large_picture_takes_little_memory_here(artifact, large):
    searcher, hit = Searcher.of(load_artifact(artifact)), Part(row=3)
    searcher.search(searcher.gallery.thumbnail(0))
    for file in large.iterdir():
        part = Part(file, region=(0.0, 0.1, 0.9, 1.0))
        assert growth(lambda file=file: searcher.search(file)) < LARGE / 5
        assert growth(lambda part=part: searcher.vector(part)) < LARGE / 5
        assert growth(lambda part=part: searcher.explain_parts(part, hit)) < LARGE / 5
        assert growth(lambda file=file: ThumbnailFiles.preview(str(file))) < LARGE / 5
        assert growth(lambda file=file: open_image(file).tobytes()) > LARGE


def test_build_from_large_pictures_takes_little_memory_here(encoder, large, tmp_path):
    build_artifact(open_source(str(large)), tmp_path / "first", encoder)
    assert growth(lambda: build_artifact(open_source(str(large)), tmp_path / "again", encoder)) < LARGE / 2
