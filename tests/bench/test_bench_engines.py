"""`bench --engines`: every engine that is installed takes its turn on the same images."""

import pytest
from older import without_exported

from retrieval.bench import engines
from retrieval.bench.engines import bench_engines
from retrieval.encoders.engines.choose import ENGINES
from retrieval.errors import QueryError


def test_engines_are_compared_with_torch(artifact, monkeypatch):
    monkeypatch.setattr(engines, "_IMAGES", 9)
    monkeypatch.setattr(engines, "_ROUNDS", 2)
    figures = bench_engines(artifact)
    for name in (*ENGINES, "torch, channels first"):
        assert figures[f"{name}: one image, p50 ms"] > 0
        assert figures[f"{name}: build, images/s"] > 0
    for name in ("onnx", "openvino"):
        assert figures[f"{name}: images with the same first 10 hits"] == 1
        assert figures[f"{name}: largest difference of a score"] <= 1e-5
        own, torchs = figures[f"{name}: one image, p50 ms"], figures["torch: one image, p50 ms"]
        assert figures[f"{name}: one image, times as fast as torch"] == pytest.approx(torchs / own)


def test_artifact_without_the_exported_network_has_one_engine(copied_artifact):
    with pytest.raises(QueryError, match=r"has only one engine: `python -m retrieval export-encoder"):
        bench_engines(without_exported(copied_artifact))
