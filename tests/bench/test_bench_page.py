"""The bench of the page: it runs on the starter and gives every figure. How fast anything is, is not tested."""

import json
import re
import sys

import pytest
from conftest import CHROMIUM, in_a_thread

from retrieval.__main__ import main
from retrieval.bench import page as bench_ui

STEPS = ("page", "drop", "click", "why", "filter")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (apt-get install -y chromium-headless-shell)")
def test_page_bench_reports_every_figure(starter, monkeypatch, capsys):
    monkeypatch.setattr(bench_ui, "_OPENED", 1)
    monkeypatch.setattr(bench_ui, "_TIMES", 2)
    monkeypatch.setattr(bench_ui, "_PIXELS", 100_000)
    monkeypatch.setattr(bench_ui, "_SETTLED", 20)
    assert in_a_thread(main, ["bench", str(starter), "--ui", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    encoder = figures["encoder, one image, p50 ms"]
    for name in STEPS:
        assert 0 < figures[f"{name} p50 ms"] <= figures[f"{name} p95 ms"]
        assert figures[f"{name}, first ms"] > 0
        assert figures[f"{name}, all in view, p50 ms"] >= figures[f"{name} p50 ms"]
        assert figures[f"{name} p50 / encoder p50"] == pytest.approx(figures[f"{name} p50 ms"] / encoder)
    assert figures["start to first answer s"] > 0
    assert figures["page requests"] > 24  # one for each image on the page, and the page itself
    assert figures["page KiB"] > 100


def test_page_bench_says_how_to_install_playwright(starter, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    assert in_a_thread(main, ["bench", str(starter), "--ui"]) == 1
    assert re.search(r"bench --ui needs playwright, .*: pip install '.*\[bench\]'", capsys.readouterr().err)


def test_page_bench_says_how_to_install_chromium(starter, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    assert in_a_thread(main, ["bench", str(starter), "--ui"]) == 1
    assert "python -m playwright install chromium" in capsys.readouterr().err
