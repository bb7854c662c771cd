"""`bench` of an artifact: every figure is there and plausible. How fast anything is, is not tested."""

import json

import pytest

from retrieval.__main__ import main
from retrieval.artifact.load import load_artifact
from retrieval.bench import artifact as bench
from retrieval.bench import clients, decoding
from retrieval.bench.rows import artifact as drawn


def test_bench_measures_an_artifact_in_process_and_over_http(artifact, monkeypatch, capsys):
    """The command that the README names measures in this process, over HTTP and through gradio_client."""
    monkeypatch.setattr(bench, "_IMAGES", 12)
    monkeypatch.setattr(bench, "_QUERIES", 5)
    monkeypatch.setattr(decoding, "_TIMES", 3)
    monkeypatch.setattr(clients, "_CLIENTS", 6)
    monkeypatch.setattr(clients, "_EACH", 2)
    assert main(["bench", str(artifact), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    times = [name for name in figures if name.endswith((" s", "p50 ms", "p95 ms"))]
    assert len(times) == 11
    assert all(figures[name] > 0 for name in times)
    assert figures["query over HTTP p50 ms"] > figures["encoder, one image, p50 ms"]
    assert figures["images"] == 60
    name = "6 clients over HTTP"
    speed, alone = figures[f"{name}, queries/s"], figures["encoder at its best batch, images/s"]
    assert figures[f"{name}, queries/s / images/s"] == pytest.approx(speed / alone)
    assert 0 < figures[f"{name}, p50 ms"] <= figures[f"{name}, p95 ms"]
    assert 0 < figures[f"{name}, processor time of the server, ms a query"] < 60_000
    assert all(figures[f"decoding {size} in a worker / here"] > 0.2 for size in ("0.3 MP", "12 MP"))


def test_bench_searches_the_requested_number_of_vectors(artifact, capsys):
    assert main(["bench", str(artifact), "--rows", "3000", "--dim", "8", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["rows"], figures["dimension"]) == (3000, 8)
    assert figures["recall@10"] == 1.0
    assert all(figures[f"filter, {kind}: recall@10"] == 1.0 for kind in ("random", "clumps", "one label", "0.01%"))
    assert figures["filter, random: rows"] == 30
    assert 0 < figures["p50 CPU ms"] <= figures["p95 CPU ms"]


def test_bench_keeps_an_artifact_of_drawn_vectors_and_serves_it(artifact, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(drawn, "_QUERIES", 3)
    assert main(["bench", str(artifact), "--rows", "700", "--keep", str(tmp_path / "drawn"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["rows"] == 700
    assert figures["build, largest anonymous memory, MB"] > 10
    assert figures["app, second start, CPU s"] > 0
    kept = load_artifact(tmp_path / "drawn")
    assert len(kept.store) == len(kept.gallery) == len(set(kept.gallery.ids)) == 700
    assert set(kept.gallery.labels) <= set(load_artifact(artifact).gallery.labels)
    assert main(["bench", str(artifact), "--keep", str(tmp_path / "other")]) == 1
    assert "add --rows N" in capsys.readouterr().err
