"""`bench` of an artifact: every figure is there and plausible. How fast anything is, is not tested."""

import json

from retrieval.__main__ import main
from retrieval.bench import artifact as bench
from retrieval.bench import decoding


def test_bench_measures_an_artifact_in_process_and_over_http(artifact, monkeypatch, capsys):
    """The command that the README names measures in this process, over HTTP and through gradio_client."""
    monkeypatch.setattr(bench, "_IMAGES", 12)
    monkeypatch.setattr(bench, "_QUERIES", 5)
    monkeypatch.setattr(decoding, "_TIMES", 3)
    assert main(["bench", str(artifact), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    times = [name for name in figures if name.endswith((" s", "p50 ms", "p95 ms"))]
    assert len(times) == 9
    assert all(figures[name] > 0 for name in times)
    assert figures["query over HTTP p50 ms"] > figures["encoder, one image, p50 ms"]
    assert figures["images"] == 60
    assert all(figures[f"decoding {size} in a worker / here"] > 0.2 for size in ("0.3 MP", "12 MP"))


def test_bench_searches_the_requested_number_of_vectors(artifact, capsys):
    assert main(["bench", str(artifact), "--rows", "3000", "--dim", "8", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["rows"], figures["dimension"]) == (3000, 8)
    assert figures["recall@10"] == 1.0
